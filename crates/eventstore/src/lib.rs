//! Where events live: records and indexes on LMDB, the rules of what is kept, and what is needed to reconcile.
//!
//! ```text
//!                      ┌────────────── Writer (one) ──────────────┐
//! VerifiedEvent ─────► │ Transaction::admit ─► rules ─► indexes   │ ─► Admission, Sequence
//!                      └──────────────── segments ────────────────┘
//!                                           │ published before the commit
//!   Store::snapshot ─► Snapshot ─► Query (NIP-01) │ StoredSet (NIP-77) │ Overlay (per peer)
//! ```
//!
//! Invariants: only a `VerifiedEvent` enters; one writer, everyone else reads snapshots; what a snapshot reads
//! and what its segments sum up agree; a deleted or expired event never comes back, whatever the order of
//! arrival. Deliberately absent: network, runtime, clock (`now` is an argument).

mod blocking;
mod check;
mod environment;
mod ephemeral;
mod error;
mod index;
mod keys;
mod known;
mod old_tombstones;
mod outsiders;
mod overlay;
mod overlay_entry;
mod pending;
mod query;
mod record;
mod refusal;
mod rules;
mod segments;
mod set;
mod settling;
mod store;
mod sweep;
mod transaction;
mod writer;

pub use blocking::{BLOCK_REASON_BYTES_MAX, Block, BlockTarget, BlockedCounts, Blocking};
pub use check::{CheckReport, check};
pub use environment::FORMAT;
pub use ephemeral::EphemeralNews;
pub use error::{OpenError, StoreError};
pub use keys::{Sequence, TIME_MAX};
pub use known::Known;
pub use outsiders::OutsiderWalk;
pub use overlay::{NewOverlayEntry, Overlay, OverlayReason, Undelivered};
pub use query::{PRIVATE_KINDS, Progress, Query, Readership};
pub use record::{AuthorAndTags, Record};
pub use refusal::{FUTURE_TOLERANCE_SECONDS, Lapse, StandingRefusal};
pub use rules::Admission;
pub use set::{KindSet, SetScope, StoredSet};
pub use store::{Monotonic, Options, SNAPSHOT_AGE_MAX, Snapshot, Store, open};
pub use sweep::SweepReport;
pub use transaction::Transaction;
pub use writer::{Committed, Writer};
