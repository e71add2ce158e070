//! Many signatures at once: one equation for a batch instead of one for each signature.
//!
//! Takes [`Portion`]s, each the events of one source, and 32 bytes of secret randomness; gives a [`PortionOutcome`]
//! for each, with what [`UnverifiedEvent::verify`] would have said of every event, in the same order. Invariant:
//! results do not depend on how events were batched. SECURITY.md has the argument.
//!
//! | file | what it does |
//! | --- | --- |
//! | `points` | x to point; points of known authors |
//! | `claim` | a signature as numbers |
//! | `coefficients` | weights that nobody can foresee |
//! | `equation` | the weighted sum |
//! | `sorting` | which events are proven together, and what follows when that fails |
//! | `calibration` | from how many signatures on it pays |
//!
//! Deliberately not here: threads (verify one batch on each, with one shared verifier), a clock, and how long a
//! source stays suspect. Worst case of time: see [`BatchVerifier::verify`]; of memory: while it runs, about 1 kB for
//! each event beside the events themselves.

mod calibration;
pub(crate) mod claim;
pub(crate) mod coefficients;
pub(crate) mod equation;
pub(crate) mod points;
mod sorting;
#[cfg(test)]
mod tests;

pub use calibration::{BreakEven, Calibration, calibrate};

use crate::{Rejection, UnverifiedEvent, VerifiedEvent};
use points::AuthorPoints;
use sorting::Sorting;

/// Signatures of the batch that costs least for each; more are cut into several.
///
/// Smaller batches share less; in larger ones the points no longer fit into the processor's cache.
pub const BATCH_SIGNATURES_BEST: usize = 16_384;

/// Events of one source, in the order in which it sent them.
#[derive(Debug)]
pub struct Portion {
    /// What is to be verified.
    pub events: Vec<UnverifiedEvent>,
    /// Who sent it. Several portions may have the same source.
    pub source: u64,
    /// Whether that source was found guilty before: then nothing of it is proven together with others' events.
    pub suspect: bool,
}

/// What became of a [`Portion`].
#[derive(Debug)]
pub struct PortionOutcome {
    /// One for each event, in the same order; a rejected event comes back with the reason, which is
    /// [`Rejection::BadId`] or [`Rejection::BadSignature`].
    pub results: Vec<Result<VerifiedEvent, (UnverifiedEvent, Rejection)>>,
    /// Whether the source sent a false signature of valid form, which makes a batch fail, now or before. From now on
    /// its portions should be marked [`suspect`](Portion::suspect). An id or signature that is refused for its form
    /// costs no batch, and makes nobody guilty.
    pub guilty: bool,
}

/// Verifies events in batches. Shared by threads; keeps the points of known authors.
#[derive(Debug)]
pub struct BatchVerifier {
    break_even: BreakEven,
    authors: AuthorPoints,
}

impl BatchVerifier {
    /// A verifier that knows no author yet.
    pub fn new(break_even: BreakEven) -> Self {
        Self {
            break_even,
            authors: AuthorPoints::default(),
        }
    }

    /// Takes the authors' points into the cache, without verifying anything.
    fn learn_authors(&self, events: &[UnverifiedEvent]) {
        let authors = events.iter().map(UnverifiedEvent::author);
        self.authors.of(authors);
    }

    /// Verifies ids, then signatures (NIP-01, BIP-340), on this thread. Gives one outcome for each portion, in the
    /// same order.
    ///
    /// `entropy` must come from the operating system's generator, afresh for each call, when the portions are
    /// already fixed, and stay secret: who foresees it can try out beforehand whether false signatures would pass.
    ///
    /// A batch that fails is split once, by source. A source whose part fails is verified one by one, here and for
    /// the rest of the call. So a source can make others' signatures be verified twice, once, and from then on pays
    /// alone: at worst a share in two batches and one verification for each of its own signatures.
    pub fn verify(&self, portions: Vec<Portion>, entropy: [u8; 32]) -> Vec<PortionOutcome> {
        Sorting::new(self.break_even, &self.authors, &entropy).run(portions)
    }
}
