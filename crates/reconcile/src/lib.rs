//! Negentropy protocol v1 (the set reconciliation of NIP-77), both roles, over any [`SortedSet`].
//!
//! Takes messages and a set, gives the next message; no I/O, no clock, no Nostr. The set supplies
//! range fingerprints by bounds, so a store that keeps sums per page never walks its items.
//!
//! Map: [`Item`], [`Bound`] (what is ordered) · [`Summary`] (what is fingerprinted) ·
//! [`SortedSet`], [`VecSet`], [`Overlaid`] (where items live) · [`Initiator`], [`respond`] (the
//! two roles), [`Middleman`] (between two responders) · `codec` (bytes) · `engine` (what both roles do with one range).
//!
//! Invariant: for valid input every message equals, byte for byte, that of the `negentropy` crate
//! 0.5.3 (`tests/oracle.rs`). No message makes it panic, or reserve memory for what is not there.
//!
//! Worst case of one message: [`respond`] and [`Initiator::reconcile`] say what a peer can cost.
//!
//! ```
//! use constellation_reconcile::{
//!     Difference, FrameLimit, Initiator, Item, Step, VecSet, respond,
//! };
//!
//! let item = |timestamp, byte| Item { timestamp, id: [byte; 32] };
//! let ours = VecSet::from_unsorted(vec![item(1, 0xaa), item(2, 0xbb)]);
//! let theirs = VecSet::from_unsorted(vec![item(1, 0xaa), item(3, 0xcc)]);
//! let limit = FrameLimit::new(60_000)?;
//!
//! let mut initiator = Initiator::new(limit);
//! let mut difference = Difference::default();
//! let mut message = initiator.open(&ours)?;
//! while initiator.rounds() < 100 {
//!     let answer = respond(&theirs, &message, limit)?;
//!     match initiator.reconcile(&ours, &answer, &mut difference)? {
//!         Step::Continue(next) => message = next,
//!         Step::Done => break,
//!     }
//! }
//! difference.sort_dedup();
//! assert_eq!(difference.have, [item(2, 0xbb)]);
//! assert_eq!(difference.need[0].id, [0xcc; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bound;
mod codec;
mod engine;
mod error;
mod frame;
mod initiator;
mod item;
mod middleman;
mod overlay;
mod responder;
mod set;
mod summary;

pub use bound::{Bound, IdPrefix};
pub use codec::PROTOCOL_VERSION;
pub use error::{Malformed, ReconcileError};
pub use frame::{FrameLimit, FrameLimitTooSmall};
pub use initiator::{Difference, Initiator, Step};
pub use item::{Id, Item};
pub use middleman::{Middleman, MiddlemanBounds, MiddlemanError, Party};
pub use overlay::Overlaid;
pub use responder::respond;
pub use set::{SortedSet, VecSet};
pub use summary::{FINGERPRINT_SIZE, Fingerprint, IdSum, Summary};
