//! The only door through which events enter the store.
//!
//! ```text
//! submit ─► room ─► gate (known? refused?) ─► verify ─► policy (who, when, what) ─► writer thread ─► commit ─► verdicts
//!  Source   bytes of    snapshot              in batches      by Origin             prompt: at once
//!           its lane                          of what queued                        bulk: gathered
//! ```
//!
//! Takes unverified events with their [`Origin`] and [`Source`]; gives one [`Verdict`] each, after the commit that
//! holds them is durable. Two lanes (D2): what somebody waits for is committed at once, grouped by what has queued;
//! what comes in bulk gathers first. Bounded by bytes in flight: a full pipeline slows whoever submits. Cancelling a
//! submission loses nothing: what was taken is still verified and stored, only nobody hears the verdict.
//! Deliberately absent: network, peers' overlays (the caller says what to enter), deciding what to fetch.

mod committer;
mod examiner;
mod flow;
mod foresight;
mod inbox;
mod list;
mod origin;
mod pipeline;
mod source;
mod stages;
mod threads;
mod verifier;

#[cfg(test)]
mod tests;

pub use flow::BulkStream;
pub use list::ListChange;
pub use origin::{Origin, Scope, Verdict, Writers};
pub use pipeline::{Ingest, IngestError, Mode, Parts, Published};
pub use source::{Lane, Source};
pub use verifier::AskBreakEven;
