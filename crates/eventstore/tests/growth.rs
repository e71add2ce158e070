//! A store that grows under its readers: no snapshot sees segments that disagree with the index.

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{NOW, event, open_with, options};
use constellation_eventstore::{SetScope, Snapshot, Store, StoredSet};
use constellation_reconcile::{Bound, SortedSet, Summary};

fn assert_sums_agree(snapshot: &Snapshot<'_>) {
    let set = StoredSet::new(snapshot, &SetScope::everything());
    let mut scanned = Summary::default();
    set.scan(&Bound::MIN, &Bound::INFINITY, &mut |item| {
        scanned.add(&item.id);
        ControlFlow::Continue(())
    })
    .expect("readable");
    let summed = set
        .summary(&Bound::MIN, &Bound::INFINITY)
        .expect("readable");
    assert_eq!(summed, scanned, "after {:?}", snapshot.last_sequence());
}

fn read_until(done: &AtomicBool, store: &Store, looks: &AtomicU64) {
    while !done.load(Ordering::Acquire) {
        let snapshot = store.snapshot().expect("readable");
        assert_sums_agree(&snapshot);
        // A second one beside the first, while the map may be waiting to grow, must not wait for itself.
        let later = store.snapshot().expect("readable");
        assert!(later.last_sequence() >= snapshot.last_sequence());
        let (map, used) = store.sizes();
        assert!(map >= used);
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_tiny_map_grows_by_itself_while_readers_keep_seeing_what_belongs_together() {
    let mut events = Vec::new();
    for number in 0..3_000u64 {
        // Notes at scattered times, profiles that supersede, and deletions of both.
        let time = 1_000 + number.wrapping_mul(7_919) % 5_000;
        let author = u8::try_from(number % 5).expect("small") + 1;
        let content = "x".repeat(usize::try_from(number % 700).expect("small"));
        let made = match number % 10 {
            0 => event(author, 0, 1_000 + number, &[], &content),
            1 if number > 500 => {
                let target: &constellation_event::VerifiedEvent =
                    &events[usize::try_from(number - 400).expect("small")];
                let id = target.to_event().id.to_hex();
                event(author, 5, time, &[&["e", &id]], "")
            }
            _ => event(author, 1, time, &[&["t", "topic"]], &content),
        };
        events.push(made);
    }
    let mut small = options();
    small.map_bytes = 64 << 10;
    let mut store = open_with(small);
    let before = store.store.sizes().0;
    let done = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = store.store.clone();
            let (done, looks) = (&done, &looks);
            scope.spawn(move || {
                // Also when it panics: else the writer would wait for a reader that is gone.
                read_until(done, &reader, looks);
            });
        }
        let mut rest = &events[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(size.min(rest.len()));
            rest = others;
            size = size % 97 + 7;
            store
                .writer
                .transact(|transaction| {
                    for event in batch {
                        transaction.admit(event, NOW)?;
                    }
                    Ok(())
                })
                .expect("the map grows");
        }
        // Small commits, many times: snapshots are opened between publishing and committing.
        while looks.load(Ordering::Relaxed) < 30 {
            store.writer.transact(|_| Ok(())).expect("nothing to write");
        }
        done.store(true, Ordering::Release);
    });
    let (after, used) = store.store.sizes();
    assert!(after >= used && after > 16 * before, "{before} -> {after}");
    store.assert_consistent();
    store.reopen().assert_consistent();
}

#[test]
fn one_transaction_may_need_a_map_many_times_as_large() {
    let mut small = options();
    small.map_bytes = 64 << 10;
    let mut store = open_with(small);
    let large = "x".repeat(200_000);
    let events: Vec<_> = (0..30).map(|time| event(1, 1, time, &[], &large)).collect();
    store.admit(&events);
    assert_eq!(store.ids().len(), events.len());
    store.assert_consistent();
}
