//! The verifier that all examiners share, made when it is first worth it.
//!
//! From how many signatures on batches pay is asked (and perhaps measured, which takes a moment) when the first
//! submission comes for which it matters, so that nobody waits for it who only looks into a station. Below that,
//! events are verified one by one.

use std::sync::OnceLock;

use constellation_event::{BatchVerifier, BreakEven, Portion, PortionOutcome};

/// Batches pay on no machine below this many signatures.
const SIGNATURES_MIN: usize = 32;

/// Says from how many signatures on batches pay.
pub type AskBreakEven = Box<dyn Fn() -> BreakEven + Send + Sync>;

pub(super) struct SharedVerifier {
    ask: AskBreakEven,
    one_by_one: BatchVerifier,
    batches: OnceLock<BatchVerifier>,
}

impl std::fmt::Debug for SharedVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedVerifier")
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

impl SharedVerifier {
    pub(super) fn new(ask: AskBreakEven) -> Self {
        Self {
            ask,
            one_by_one: BatchVerifier::new(BreakEven::Never),
            batches: OnceLock::new(),
        }
    }

    /// As [`BatchVerifier::verify`].
    pub(super) fn verify(&self, portions: Vec<Portion>, entropy: [u8; 32]) -> Vec<PortionOutcome> {
        let signatures: usize = portions.iter().map(|portion| portion.events.len()).sum();
        let verifier = if signatures < SIGNATURES_MIN {
            &self.one_by_one
        } else {
            self.batches
                .get_or_init(|| BatchVerifier::new((self.ask)()))
        };
        verifier.verify(portions, entropy)
    }
}
