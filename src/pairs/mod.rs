//! Two relays that are not ours: what they do not share, and making them equal, through this machine.
//!
//! ```text
//! slices ─► comparing: A ◄─ Middleman ─► B ─► ids that only one has ─► moving: fetch ─► verify ─► offer, OK
//!              │ (no NIP-77: listing, answered here)                        └──────► compare again
//!              └─► gaps, what is left and why ─► PairReport
//! ```
//!
//! Takes two addresses and what is asked about; gives a report in every case. Nothing is stored: no data directory is
//! opened. Invariants: nothing is offered that was not verified; deletions are moved before anything else is looked
//! at; what one side forged or refused is counted, named and not tried again; "converged" is said only after a
//! comparison to the end that found nothing.
//!
//! Deliberately absent: how a side is reached (whoever asks hands in the way to dial), memory between calls. Bounds: ids of a difference
//! (`PAIR_IDS_MAX`), events and bytes under way, rounds, passes, one deadline for everything.

mod account;
mod comparing;
mod listing;
mod moving;
mod pace;
mod report;
mod request;
mod run;
mod side;

pub use account::Left;
pub use report::{PairOutcome, PairReport, PairUnresolved, SideReport};
pub use request::{PairRequest, PairTask, Towards};
pub use run::{PairContext, PairProgress, run};
pub use side::Method;
