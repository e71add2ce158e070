//! From how many signatures on a batch is faster than one by one, on the machine that asks.
//!
//! Takes secret randomness and a clock; gives a [`Calibration`], which can be kept. It signs events of its own and
//! verifies them both ways, by the verifier itself, looking for the least batch that wins by halving the range.
//! Invariant: no I/O and no clock of its own. It measures what a running station sees: authors who are known, but
//! pessimistically each but once. Worst case, where batches do not pay: 768 signatures made, 5,000 verified.

use std::time::Duration;

use nostr::event::{Event, EventId, Kind, Signature, Tags};
use nostr::types::Timestamp;
use secp256k1::{Keypair, Secp256k1};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BatchVerifier, Portion};
use crate::UnverifiedEvent;

/// Sizes that may be the break-even.
const SIZES: [usize; 10] = [32, 48, 64, 96, 128, 192, 256, 384, 512, 768];
/// Each duration is the shortest of so many. What interrupts only ever adds time, and hits the longer batches more
/// often, so that a median would still hold it against them.
const REPEATS: usize = 3;
/// Signatures of one measurement of one by one.
const SINGLES: usize = 64;

/// From how many signatures on a batch pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakEven {
    /// A batch of so many, or more, is faster.
    From(usize),
    /// It is not, in the range that was tried: every signature is verified by itself.
    Never,
}

impl BreakEven {
    /// Whether so many signatures should be proven together.
    pub fn favours_batch_of(self, signatures: usize) -> bool {
        match self {
            Self::From(least) => signatures >= least,
            Self::Never => false,
        }
    }
}

impl Default for BreakEven {
    /// What loses nothing on machines that were never measured, and little where less would do.
    fn default() -> Self {
        Self::From(256)
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// From how many signatures on a batch pays.
    pub break_even: BreakEven,
    /// Nanoseconds for each signature, one by one.
    pub single_ns: u64,
    /// Nanoseconds for each signature in a batch of that size, or else in the largest that was tried.
    pub batch_ns: u64,
}

/// Measures the break-even, in about a tenth of a second. `entropy` is secret; `clock` gives a time that never goes
/// back, from any beginning: best the processor time of this thread, which other work on the machine does not touch.
pub fn calibrate(entropy: [u8; 32], clock: &mut dyn FnMut() -> Duration) -> Calibration {
    let events = sign(&entropy, SIZES[SIZES.len() - 1]);
    let alone = BatchVerifier::new(BreakEven::Never);
    let together = BatchVerifier::new(BreakEven::From(1));
    together.learn_authors(&events);
    let mut measure = |verifier: &BatchVerifier, size: usize| {
        let durations: [u64; REPEATS] = std::array::from_fn(|_| {
            let portions = vec![Portion {
                events: events.iter().take(size).cloned().collect(),
                source: 0,
                suspect: false,
            }];
            let start = clock();
            let outcomes = verifier.verify(portions, entropy);
            let duration = clock().saturating_sub(start);
            drop(outcomes);
            u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
        });
        durations.into_iter().fold(u64::MAX, u64::min) / size as u64
    };
    let single_ns = measure(&alone, SINGLES);
    // A tie is no reason to change: a batch must win by a twentieth.
    let enough = single_ns - single_ns / 20;
    let mut calibration = Calibration {
        break_even: BreakEven::Never,
        single_ns,
        batch_ns: u64::MAX,
    };
    let mut open = 0..SIZES.len();
    while !open.is_empty() {
        let middle = open.start.midpoint(open.end);
        let batch_ns = measure(&together, SIZES[middle]);
        if batch_ns < enough {
            calibration.break_even = BreakEven::From(SIZES[middle]);
            calibration.batch_ns = batch_ns;
            open.end = middle;
        } else {
            if calibration.break_even == BreakEven::Never {
                calibration.batch_ns = batch_ns;
            }
            open.start = middle + 1;
        }
    }
    calibration
}

/// Signed events, each by another author.
fn sign(entropy: &[u8; 32], count: usize) -> Vec<UnverifiedEvent> {
    let secp = Secp256k1::signing_only();
    (0..count as u64)
        .filter_map(|number| {
            let secret = Sha256::new()
                .chain_update(entropy)
                .chain_update(number.to_le_bytes())
                .finalize();
            // Not a key once in 2^128: then there is one event less.
            let keys = Keypair::from_seckey_slice(&secp, &secret).ok()?;
            let author = keys.x_only_public_key().0.into();
            let (created_at, tags) = (Timestamp::from_secs(number), Tags::new());
            let id = EventId::compute(&author, &created_at, &Kind::TextNote, &tags, "");
            let signature = secp.sign_schnorr_no_aux_rand(id.as_bytes(), &keys);
            let signature = Signature::from_byte_array(signature.to_byte_array());
            let event = Event::new(id, author, created_at, Kind::TextNote, tags, "", signature);
            Some(UnverifiedEvent::from_event(&event))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that advances by what the test says at every second reading.
    fn clock(mut costs: impl FnMut() -> u64) -> impl FnMut() -> Duration {
        let (mut now, mut running) = (0, false);
        move || {
            if running {
                now += costs();
            }
            running = !running;
            Duration::from_nanos(now)
        }
    }

    #[test]
    fn the_least_size_that_wins_is_the_break_even_and_an_interruption_does_not_count() {
        let mut durations = [
            [64 * 100, 1_000_000_000, 64 * 100], // one by one: 100 each, with an interruption
            [192 * 90; REPEATS],                 // wins
            [64 * 120; REPEATS],                 // loses
            [128 * 96; REPEATS],                 // wins, but not by enough
        ]
        .into_iter()
        .flatten();
        let mut clock = clock(|| durations.next().expect("no more is measured"));
        let calibration = calibrate([7; 32], &mut clock);
        let expected = Calibration {
            break_even: BreakEven::From(192),
            single_ns: 100,
            batch_ns: 90,
        };
        assert_eq!(calibration, expected);
        let json = serde_json::to_string(&calibration).expect("plain numbers");
        let written = r#"{"break_even":{"from":192},"single_ns":100,"batch_ns":90}"#;
        assert_eq!(json, written);
    }

    #[test]
    fn a_batch_that_never_wins_is_said_to() {
        let mut calls = 0;
        let mut clock = clock(|| {
            calls += 1;
            if calls <= REPEATS { 1 } else { 1_000_000_000 }
        });
        let calibration = calibrate([7; 32], &mut clock);
        assert_eq!(calibration.break_even, BreakEven::Never);
        assert!(!calibration.break_even.favours_batch_of(usize::MAX));
        let json = serde_json::to_string(&calibration).expect("plain numbers");
        let read: Calibration = serde_json::from_str(&json).expect("as written");
        assert_eq!(read, calibration);
    }
}
