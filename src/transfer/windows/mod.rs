//! Exchanging with a relay that has no NIP-77: its windows are read to the end, and ours compared to what was listed.
//!
//! ```text
//! slices ─► Enumeration (what to ask) ─► REQ ─► Listing ─► known here? ─► ingest ─► verdicts
//!                 └─► gaps                        └─► seen ─► what of ours it lacks ─► Findings ─► (upload) ─► probe
//! ```
//!
//! Takes slices; gives what the peer lacks of them, and counts. Invariant: what the peer could not be made to list is
//! named as a gap, never passed over. Every wait for the peer is under the step deadline. Deliberately absent: which
//! slices, the outcome, offering. Worst case: everything in the slices is sent to us once; that is what NIP-77 is for.

mod enumeration;
mod listing;
mod probing;

pub(crate) use enumeration::{Answer, Enumeration, Listed, Question, gap};
pub use listing::{Budget, Read, Reading, lacking_by_id};
pub use probing::{probe, probe_over};
