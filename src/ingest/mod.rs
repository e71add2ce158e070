//! The only door through which events enter the store.
//!
//! ```text
//! submit ─► gate (known? refused?) ─► verify ─► policy (who, when, what) ─► writer thread ─► commit ─► verdicts
//!            snapshot                  all cores   by Origin                  takes all that queued up
//! ```
//!
//! Takes unverified events with their [`Origin`]; gives one [`Verdict`] each, after the commit that holds them is
//! durable. Bounded by bytes in flight: a full pipeline slows whoever submits. Cancelling a submission loses
//! nothing: what was taken is still verified and stored, only nobody hears the verdict.
//! Deliberately absent: network, peers' overlays (the caller says what to enter), deciding what to fetch.

mod origin;
mod pipeline;
mod stages;
mod threads;

pub use origin::{Origin, Scope, Verdict, Writers};
pub use pipeline::{Ingest, IngestError, Mode, Published};
