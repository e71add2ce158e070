//! Runs: one trigger, exchanges with all peers, one report.
//!
//! ```text
//! SyncRequest + options ─► plan (pure) ─► run (lock, deadline, all peers at once) ─► exchange (linear) ─► PeerReport
//!                                          └─────────────────────────────────────────────────► RunReport ─► history
//! ```
//!
//! "All at once" but for a home relay: it is read before, and written after all others (`home`).
//!
//! Invariants: at most one run per station at a time, held by a kernel lock; every exchange ends in exactly one
//! outcome; "converged" is said only of sets whose fingerprints were compared after the last transfer.
//! Deliberately absent: when to run (the daemon's), how to show it (the CLI's), the configuration file.

mod attendant;
mod authors;
mod comparing;
mod exchange;
mod facts;
mod history;
mod home;
mod lock;
mod opening;
mod options;
mod outcome;
mod passes;
mod peer_memory;
mod plan;
mod run;
mod runner;
mod stations;
mod turn;
mod way;
mod windows;

pub use attendant::{Attendant, Attended, Attending};
pub use authors::AuthorsSpec;
pub(crate) use exchange::is_transient;
pub use exchange::{ExchangeContext, exchange};
pub use facts::{AuthorName, GraphSizes, RunFacts};
pub use history::{History, HistoryError};
pub use lock::{FileLock, LockError};
pub(crate) use opening::{Opened, open_peer};
pub use options::{
    DEFAULT_KINDS, DIRECT_MESSAGE_KINDS, Deadlines, KindsSpec, PeerOptions, ScopeOptions,
    SyncRequest,
};
pub use outcome::{Failure, Outcome, PeerReport, RunReport, Step, Totals};
pub use peer_memory::{HistoryRead, PeerMemory, Remembered};
pub use plan::{ExchangePlan, PlanError, RunPlan, plan};
pub use run::{PeerProgress, RunContext, RunError, RunProgress, run};
pub use runner::{Neighbours, Runner, Surroundings, SyncOptions, TriggerError};
pub use stations::{Occupied, Stations};
pub use way::Reached;
