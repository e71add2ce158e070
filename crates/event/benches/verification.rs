//! How fast events are verified: one by one, in batches, on one and two threads, and with a hostile source.
//!
//! Takes nothing; prints, for each signature, nanoseconds of processor time, and how many are done in a second, by
//! processor time and by the clock on the wall (they differ when the machine has other work). All signatures
//! differ: repeated ones would be merged. Each figure is the best of three; copying the input is not counted.
//!
//! `cargo bench -p constellation-event`

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use constellation_event::{
    BATCH_SIGNATURES_BEST, BatchVerifier, BreakEven, EventLimits, Portion, UnverifiedEvent,
    calibrate,
};
use nostr::event::{Event, EventId, Kind, Signature, Tag, Tags};
use nostr::types::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use secp256k1::{Keypair, Secp256k1};

const SIZES: [usize; 8] = [64, 128, 256, 1_024, 4_096, 8_192, 16_384, 32_768];
const LARGEST: usize = 32_768;
const REPEATS: usize = 3;
const SOURCES: usize = 16;
const SHARE: usize = BATCH_SIGNATURES_BEST / SOURCES;

fn main() {
    let few_authors = signed(500);
    let all_distinct = signed(LARGEST);

    heading("parts, for each event");
    let json: Vec<String> = few_authors
        .iter()
        .map(|event| event.to_event().as_json())
        .collect();
    let limits = EventLimits::default();
    let parse = |json: Vec<String>| {
        for json in json {
            black_box(UnverifiedEvent::parse(json.as_bytes(), &limits).expect("well-formed"));
        }
    };
    measure("parse", LARGEST, || vec![json.clone()], parse);

    heading("one by one");
    let input = || vec![few_authors[..4_096].to_vec()];
    measure("one thread", 4_096, input, |events: Vec<_>| {
        for event in events {
            assert!(event.verify().is_ok());
        }
    });

    for threads in [1, 2] {
        heading(&format!(
            "500 authors, known; batches on {threads} thread(s)"
        ));
        for size in SIZES {
            batches(size, threads, &few_authors, &few_authors);
        }
        heading(&format!(
            "all authors distinct, unknown; batches on {threads} thread(s)"
        ));
        for size in SIZES {
            batches(size, threads, &all_distinct, &[]);
        }
    }

    poison(&few_authors, 1);
    poison(&few_authors, SHARE);

    heading("calibration");
    let start = clock(ClockId::ThreadCPUTime);
    let calibration = calibrate([9; 32], &mut || clock(ClockId::ThreadCPUTime));
    let spent = clock(ClockId::ThreadCPUTime) - start;
    println!("{calibration:?} in {spent:?}");
}

/// Verifies batches of the first `size` events on each thread; the verifier knows the authors of `known`.
fn batches(size: usize, threads: usize, events: &[UnverifiedEvent], known: &[UnverifiedEvent]) {
    // Small batches are repeated, each time by a verifier that is as it was.
    let rounds = (2_048 / size).max(1);
    let input = || -> Vec<Vec<(BatchVerifier, Vec<Portion>)>> {
        let one = || (verifier(known), vec![portion(0, &events[..size])]);
        let thread = || (0..rounds).map(|_| one()).collect();
        (0..threads).map(|_| thread()).collect()
    };
    let name = format!("batch of {size}");
    measure(&name, size * rounds * threads, input, |batches: Vec<_>| {
        for (verifier, portions) in batches {
            for outcome in verifier.verify(portions, [1; 32]) {
                assert!(outcome.results.iter().all(Result::is_ok));
            }
        }
    });
}

/// What false signatures cost: at first sight, and when their source is suspect.
fn poison(events: &[UnverifiedEvent], false_ones: usize) {
    heading(&format!(
        "one source of {SOURCES} in a batch of {BATCH_SIGNATURES_BEST} sends {false_ones} false of {SHARE}"
    ));
    let mut events = events[..BATCH_SIGNATURES_BEST].to_vec();
    for event in events.iter_mut().take(false_ones) {
        let mut claimed = event.to_event();
        let mut signature = claimed.sig.to_bytes();
        signature[63] ^= 1;
        claimed.sig = Signature::from_byte_array(signature);
        *event = UnverifiedEvent::from_event(&claimed);
    }
    let portions: Vec<_> = (0u64..).zip(events.chunks(SHARE)).collect();
    let spend = |name: &str, from: usize, to: usize, suspect: bool| {
        let input = || {
            let portions = portions[from..to].iter().map(|(source, events)| Portion {
                suspect: suspect && *source == 0,
                ..portion(*source, events)
            });
            vec![(verifier(&events), portions.collect())]
        };
        let count = (to - from) * SHARE;
        measure(name, count, input, |(verifier, portions)| {
            black_box(verifier.verify(portions, [2; 32]));
        })
    };
    let others = spend("the others alone", 1, SOURCES, false);
    let surprised = spend("all, not suspected yet", 0, SOURCES, false);
    println!(
        "  more than the others alone, once: {:?}",
        surprised - others
    );
    spend("the guilty alone, not yet", 0, 1, false);
    spend("the guilty alone, suspect", 0, 1, true);
    spend("all, suspect", 0, SOURCES, true);
}

fn portion(source: u64, events: &[UnverifiedEvent]) -> Portion {
    Portion {
        events: events.to_vec(),
        source,
        suspect: false,
    }
}

fn verifier(known: &[UnverifiedEvent]) -> BatchVerifier {
    let verifier = BatchVerifier::new(BreakEven::From(1));
    // The first events have each author once.
    verifier.verify(vec![portion(0, &known[..known.len().min(500)])], [3; 32]);
    verifier
}

/// Runs `work` on each input, each on a thread of its own; prints the best of three, gives its processor time.
fn measure<T: Send>(
    name: &str,
    count: usize,
    input: impl Fn() -> Vec<T>,
    work: impl Fn(T) + Sync,
) -> Duration {
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..REPEATS {
        let input = input();
        let (cpu, wall) = (clock(ClockId::ProcessCPUTime), clock(ClockId::Monotonic));
        thread::scope(|scope| {
            for input in input {
                scope.spawn(|| work(input));
            }
        });
        best.0 = best.0.min(clock(ClockId::ProcessCPUTime) - cpu);
        best.1 = best.1.min(clock(ClockId::Monotonic) - wall);
    }
    let each = best.0.as_nanos() / count as u128;
    let per_second = |spent: Duration| count as f64 / spent.as_secs_f64();
    println!(
        "{name:<28}{each:>9} ns {:>10.0}/s of one core {:>10.0}/s on the wall",
        per_second(best.0),
        per_second(best.1)
    );
    best.0
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// As many signed notes of usual length as the largest batch has, by so many authors in turn.
fn signed(authors: usize) -> Vec<UnverifiedEvent> {
    let secp = Secp256k1::signing_only();
    let keys: Vec<Keypair> = (1..=authors as u64)
        .map(|number| {
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&number.to_le_bytes());
            Keypair::from_seckey_slice(&secp, &secret).expect("below the group's order")
        })
        .collect();
    let sign = |number: usize| {
        let keys = &keys[number % authors];
        let author = keys.x_only_public_key().0.into();
        let created_at = Timestamp::from_secs(1_700_000_000 + number as u64);
        let tags = ["e", "p"].map(|name| Tag::parse([name, &"5a".repeat(32)]).expect("not empty"));
        let tags = Tags::from_list(tags.to_vec());
        let content = format!("{number}: {}", "words of a note ".repeat(8));
        let id = EventId::compute(&author, &created_at, &Kind::TextNote, &tags, &content);
        let signature = secp.sign_schnorr_no_aux_rand(id.as_bytes(), keys);
        let signature = Signature::from_byte_array(signature.to_byte_array());
        let event = Event::new(
            id,
            author,
            created_at,
            Kind::TextNote,
            tags,
            content,
            signature,
        );
        UnverifiedEvent::from_event(&event)
    };
    (0..LARGEST).map(sign).collect()
}
