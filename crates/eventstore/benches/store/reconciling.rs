//! Reconciling two stores: spread differences, none, the newest ones, and refusals in an overlay.
//!
//! Both sides run on one thread, so the time is that of both together, and processor time; each message works on a
//! snapshot of its own, as in the product. Beside it the same by the reference implementation. Bytes are those of JSON
//! messages with hex, in both directions.

use std::time::Duration;

use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::{Lapse, NewOverlayEntry, OverlayReason, SetScope, Store, StoredSet};
use constellation_reconcile::{Difference, FrameLimit, Initiator, Overlaid, Step, VecSet, respond};

use crate::meter::{milliseconds, timed};
use crate::writing::Fresh;
use crate::{Asked, NOW};

const FRAME_BYTES: usize = 500_000;
const DIFFERENCES: usize = 1_000;
const REFUSED: usize = 10_000;
const BATCH: usize = 50_000;
/// The shortest counts.
const RUNS: usize = 5;
/// What `["NEG-MSG","sub",""]` adds to the hex.
const ENVELOPE: usize = 20;
const PEER: &str = "wss://peer.example";

struct Exchange {
    time: [Duration; 2],
    rounds: u64,
    bytes: usize,
    difference: Difference,
}

fn exchange(ours: &Store, theirs: &Store, added: &VecSet) -> Exchange {
    let limit = FrameLimit::new(FRAME_BYTES).expect("large enough");
    let nothing = VecSet::default();
    let mut initiator = Initiator::new(limit);
    let mut found = Exchange {
        time: [Duration::ZERO; 2],
        rounds: 0,
        bytes: 0,
        difference: Difference::default(),
    };
    let (mut message, time) = timed(|| {
        let snapshot = ours.snapshot().expect("readable");
        let base = StoredSet::new(&snapshot, &SetScope::everything());
        initiator
            .open(&Overlaid::new(&base, added, &nothing))
            .expect("readable")
    });
    found.time[0] += time;
    loop {
        found.rounds += 1;
        found.bytes += 2 * message.len() + ENVELOPE;
        let (answer, time) = timed(|| {
            let snapshot = theirs.snapshot().expect("readable");
            let set = StoredSet::new(&snapshot, &SetScope::everything());
            respond(&set, &message, limit).expect("readable")
        });
        found.time[1] += time;
        found.bytes += 2 * answer.len() + ENVELOPE;
        let (step, time) = timed(|| {
            let snapshot = ours.snapshot().expect("readable");
            let base = StoredSet::new(&snapshot, &SetScope::everything());
            let set = Overlaid::new(&base, added, &nothing);
            initiator
                .reconcile(&set, &answer, &mut found.difference)
                .expect("readable")
        });
        found.time[0] += time;
        match step {
            Step::Done => return found,
            Step::Continue(next) => message = next,
        }
    }
}

fn row(what: &str, ours: &Store, theirs: &Store, added: &VecSet) {
    let mut best = exchange(ours, theirs, added);
    for _ in 1..RUNS {
        let again = exchange(ours, theirs, added);
        if again.time.iter().sum::<Duration>() < best.time.iter().sum() {
            best = again;
        }
    }
    best.difference.sort_dedup();
    println!(
        "| {what} | {:.2} | {:.2} | {} | {} | {} | {} |",
        milliseconds(best.time[0]),
        milliseconds(best.time[1]),
        best.rounds,
        best.bytes,
        best.difference.need.len(),
        best.difference.have.len(),
    );
}

pub(crate) fn run(asked: &Asked, events: &[VerifiedEvent]) {
    let (rest, newest) = events.split_at(events.len() - DIFFERENCES);
    let (mut common, mut spread, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let (every, every_refused) = (rest.len() / DIFFERENCES, rest.len() / REFUSED);
    for (index, event) in rest.iter().enumerate() {
        if index % every == 1 && spread.len() < DIFFERENCES {
            spread.push(event);
        } else if index % every_refused == 2 && refused.len() < REFUSED {
            refused.push(event);
        } else {
            common.push(event);
        }
    }
    let newest: Vec<&VerifiedEvent> = newest.iter().collect();
    let (mut ours, mut theirs) = (Fresh::new(asked), Fresh::new(asked));
    ours.admit_all(&common, BATCH);
    theirs.admit_all(&common, BATCH);
    ours.admit_all(&spread, BATCH);
    let nothing = VecSet::default();

    println!("\nreconciling {} events\n", common.len());
    println!("| difference | ms, initiator | responder | rounds | NEG bytes | need | have |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    row("1,000 spread", &ours.store, &theirs.store, &nothing);
    theirs.admit_all(&spread, BATCH);
    row("none", &ours.store, &theirs.store, &nothing);
    ours.admit_all(&newest, BATCH);
    row("newest 1,000", &ours.store, &theirs.store, &nothing);
    theirs.admit_all(&newest, BATCH);
    theirs.admit_all(&refused, BATCH);
    refuse(&mut ours, &refused);
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| false,
    };
    let mut loaded = Vec::new();
    for _ in 0..RUNS {
        let (overlay, time) = timed(|| {
            let snapshot = ours.store.snapshot().expect("readable");
            snapshot
                .overlay(PEER, &SetScope::everything(), &lapse)
                .expect("readable")
        });
        loaded.push((overlay, time));
    }
    row(
        "10,000 refused",
        &ours.store,
        &theirs.store,
        &loaded[0].0.refused,
    );
    println!();
    for (overlay, time) in &loaded {
        println!(
            "loading an overlay of {}: {:.2} ms",
            overlay.reasons.len(),
            milliseconds(*time)
        );
    }

    crate::reference::heading();
    crate::reference::row("1,000 spread", &common, &spread, FRAME_BYTES);
    common.extend(&spread);
    crate::reference::row("none", &common, &[], FRAME_BYTES);
    crate::reference::row("newest 1,000", &common, &newest, FRAME_BYTES);
}

fn refuse(ours: &mut Fresh, refused: &[&VerifiedEvent]) {
    ours.writer
        .transact(|transaction| {
            let mut entries = Vec::with_capacity(refused.len());
            for event in refused {
                transaction.refuse(event, Rejection::OutOfScope)?;
                entries.push(NewOverlayEntry {
                    key: event.canonical_key(),
                    reason: OverlayReason::Refused(Rejection::OutOfScope),
                    kind: None,
                    expires_at: None,
                    author: None,
                });
            }
            transaction.add_to_overlay(PEER, &entries)
        })
        .expect("room for refusals");
}
