//! The weights of a batch: one for each signature, which nobody could know when the signatures were made.
//!
//! Takes secret randomness and a batch that is fixed; gives [`Coefficients`], each an independent number of 128 bits.
//! Invariant: they depend on every byte that the equation depends on, so that no change of the batch keeps them.
//! None is fixed, and none is excluded: a zero, once in 2^128, is one of the values that the bound of
//! [`equation`](super::equation) counts already. Linear in the batch.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use halo2curves::secp256k1::Fq;
use sha2::{Digest, Sha256};

use super::claim::Claim;

/// Keeps this use of SHA-256 apart from any other.
const DOMAIN: &[u8; 64] = b"constellation: coefficients of a batch of BIP-340 signatures, 1 ";

/// One coefficient for each claim of a batch, in its order.
#[derive(Debug)]
pub(crate) struct Coefficients(Vec<Fq>);

impl Coefficients {
    /// Draws them from ChaCha20 under SHA-256(entropy ‖ batch). `entropy` is 32 bytes that nobody else can know.
    pub(crate) fn draw(entropy: &[u8; 32], batch: &[&Claim]) -> Self {
        let mut transcript = Sha256::new_with_prefix(DOMAIN);
        transcript.update(entropy);
        // Every claim has the same length, so the count makes the transcript unambiguous.
        transcript.update((batch.len() as u64).to_le_bytes());
        for claim in batch {
            transcript.update(claim.commitment_x);
            transcript.update(claim.author_x);
            transcript.update(claim.answer_and_message);
        }
        let mut generator = ChaCha20Rng::from_seed(transcript.finalize().into());
        Self(
            (0..batch.len())
                .map(|_| Fq::from_raw([generator.next_u64(), generator.next_u64(), 0, 0]))
                .collect(),
        )
    }

    /// In the order of the batch.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Fq> {
        self.0.iter()
    }

    /// All the same, as nobody should draw them: for tests that show what then passes.
    #[cfg(test)]
    pub(super) fn equal(count: usize) -> Self {
        Self(vec![Fq::from(7); count])
    }
}
