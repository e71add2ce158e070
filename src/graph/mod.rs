//! Whose events are shared where not everybody's are: members, whom they follow (N1), and whom those follow (N2).
//!
//! ```text
//! configuration, files, cards ─► sources ─┐
//! kind 3 in the store ─► follows ─────────┴► ranking (pure) ─► watch<Arc<Graph>> ─► plans of runs, the relay's scope
//!                                                           └► amisOfAmis.txt, if asked
//! ```
//!
//! Invariants: a member is never left out for a list's sake; the graph follows from the newest kind 3 of each author in
//! our store, the files and the cards, and from nothing else; what a bound cuts off is counted. A blacklist blocks only
//! those that nobody but other stations' lists (`friend_files`) brings in: whom a member follows, or somebody whom a member
//! follows, is judged by them, not by a list. Recomputed as follow lists arrive (only those that changed are read again)
//! and as files change. Deliberately absent: what is done with outsiders (ingest, the overlay), and asking anybody for
//! follow lists. Everything that reads runs off the runtime. Worst case: the bounds named `GRAPH_…` in `limits.rs`.

mod following;
mod keeper;
mod kept;
mod keys;
mod merging;
mod options;
mod ranked;
mod ranking;
mod report;
mod sources;

pub(crate) use following::Newest;
pub use keeper::{GraphError, GraphKeeper};
pub use keys::{AuthorKey, KeyError, author_key, author_keys};
pub use options::{FilePattern, GraphOptions};
pub use ranked::{Cut, Graph, Level, RankedAuthor, Why};
pub(crate) use report::name_in_profile;
pub use report::{AuthorReport, MembersReport};
