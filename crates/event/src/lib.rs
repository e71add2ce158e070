//! Nostr events whose origin is known: what is parsed, what is verified, and in which order they stand.
//!
//! ```text
//! bytes ─► UnverifiedEvent::parse ─┬─► UnverifiedEvent::verify ─┬─► VerifiedEvent
//!   Rejection::{Malformed,         └─► BatchVerifier::verify ───┘
//!               TooLarge}                Rejection::{BadId, BadSignature}
//! ```
//!
//! Invariant: a [`VerifiedEvent`] exists only if its id is the hash of its content and its signature is valid
//! (NIP-01, BIP-340). This crate does no I/O, has no clock and knows no store.

mod batch;
mod canonical;
mod filter;
pub mod hex;
mod kind;
mod limits;
mod proof;
mod rejection;
mod tags;
mod unverified;
mod verified;

pub use batch::{
    BATCH_SIGNATURES_BEST, BatchVerifier, BreakEven, Calibration, Portion, PortionOutcome,
    calibrate,
};
pub use filter::{TagLookup, VecTags, tags_match};
pub use kind::KindClass;
pub use limits::EventLimits;
pub use rejection::Rejection;
pub use unverified::{ClaimedIdentity, UnverifiedEvent};
pub use verified::{CanonicalKey, VerifiedEvent};
