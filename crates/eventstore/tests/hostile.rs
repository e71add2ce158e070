//! Inputs at and beyond every limit: large events, extreme times, odd names. Nothing panics, nothing is lost.

mod common;

use std::ops::ControlFlow;

use common::{NOW, TestStore, event, keys, open, query};
use constellation_event::{CanonicalKey, Rejection};
use constellation_eventstore::{
    Admission, KindSet, Lapse, NewOverlayEntry, OverlayReason, Readership, Sequence, SetScope,
    StoredSet, TIME_MAX,
};
use constellation_reconcile::{Bound, Item, SortedSet, VecSet};
use nostr::filter::Filter;

fn assert_stored_and_removable(mut store: TestStore, note: &constellation_event::VerifiedEvent) {
    assert!(matches!(
        store.admit(std::slice::from_ref(note))[..],
        [Admission::Stored(_)]
    ));
    store.assert_consistent();
    let snapshot = store.store.snapshot().expect("readable");
    let record = snapshot.by_id(&note.id()).expect("readable");
    assert_eq!(record.expect("stored").json(), note.json());
    drop(snapshot);
    let id = note.to_event().id.to_hex();
    let deletion = event(1, 5, NOW, &[&["e", &id]], "");
    store.admit(std::slice::from_ref(&deletion));
    assert_eq!(store.ids(), [deletion.id()]);
    store.assert_consistent();
}

#[test]
fn five_thousand_tags_and_their_repetitions_are_indexed_once_each() {
    let values: Vec<String> = (0..5_000)
        .map(|number| format!("v{}", number % 2_500))
        .collect();
    let tags: Vec<Vec<&str>> = values
        .iter()
        .map(|value| vec!["t", value.as_str()])
        .collect();
    let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
    let note = event(1, 1, 100, &tags, "");
    let mut store = open();
    store.admit(std::slice::from_ref(&note));
    for filter in [r##"{"#t":["v0"]}"##, r##"{"#t":["v2499","v1","nothing"]}"##] {
        assert_eq!(store.query(filter), [note.id()], "given once");
    }
    assert_stored_and_removable(open(), &note);
}

#[test]
fn values_of_200_kilobytes_are_stored_found_and_removed() {
    let large = "\u{1F680}\"\\\n\u{0}x".repeat(16_000);
    let tagged = event(1, 1, 100, &[&["t", &large], &["expiration", &large]], "");
    let mut store = open();
    store.admit(std::slice::from_ref(&tagged));
    let filter =
        Filter::new().custom_tags(nostr::filter::SingleLetterTag::LOWERCASE_T, [large.clone()]);
    assert_eq!(
        query(&store.store, filter, Readership::Full, 1),
        [tagged.id()]
    );
    assert_stored_and_removable(open(), &tagged);
    assert_stored_and_removable(open(), &event(1, 30_023, 100, &[&["d", &large]], &large));
}

#[test]
fn a_deletion_of_five_thousand_targets_takes_them_all() {
    let notes: Vec<_> = (0..40).map(|time| event(1, 1, time, &[], "")).collect();
    let address = format!(
        "30023:{}:{}",
        keys(1).public_key().to_hex(),
        "d".repeat(1_000)
    );
    let mut ids: Vec<String> = notes
        .iter()
        .map(|note| note.to_event().id.to_hex())
        .collect();
    ids.extend((0..4_900u32).map(|number| format!("{number:064x}")));
    let mut tags: Vec<Vec<&str>> = ids.iter().map(|id| vec!["e", id.as_str()]).collect();
    for value in ["", "0", "no id", ids[0].as_str()] {
        tags.extend([vec!["e", value], vec!["a", value], vec!["e"], vec!["a"]]);
    }
    tags.extend([vec!["a", "99999999:::"], vec!["a", &address]]);
    let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
    let deletion = event(1, 5, 500, &tags, "");
    let mut store = open();
    store.admit(&notes);
    store.admit(std::slice::from_ref(&deletion));
    assert_eq!(store.ids(), [deletion.id()]);
    store.assert_consistent();
}

#[test]
fn times_beyond_every_key_are_answered_like_any_other() {
    let mut store = open();
    let first = event(1, 1, 0, &[], "");
    let last = event(1, 7, TIME_MAX, &[], "");
    store.admit(&[first.clone(), last.clone()]);
    let huge = u64::MAX;
    for (filter, expected) in [
        (
            format!(r#"{{"until":{huge}}}"#),
            vec![last.id(), first.id()],
        ),
        (format!(r#"{{"since":{TIME_MAX}}}"#), vec![last.id()]),
        (format!(r#"{{"since":{}}}"#, TIME_MAX + 1), vec![]),
        (format!(r#"{{"since":{huge},"until":{huge}}}"#), vec![]),
        (r#"{"until":0}"#.into(), vec![first.id()]),
        (
            r#"{"since":0,"until":0,"kinds":[1]}"#.into(),
            vec![first.id()],
        ),
        (r#"{"since":2,"until":1}"#.into(), vec![]),
        (r#"{"limit":0}"#.into(), vec![]),
        (r#"{"limit":1}"#.into(), vec![last.id()]),
    ] {
        assert_eq!(store.query(&filter), expected, "{filter}");
    }
    let snapshot = store.store.snapshot().expect("readable");
    for (since, until, expected) in [
        (None, Some(huge), 2),
        (None, Some(TIME_MAX), 2),
        (None, Some(TIME_MAX - 1), 1),
        (Some(TIME_MAX), None, 1),
        (Some(TIME_MAX + 1), None, 0),
        (Some(huge), Some(huge), 0),
        (Some(0), Some(0), 1),
        (Some(5), Some(4), 0),
    ] {
        let scope = SetScope {
            kinds: KindSet::all(),
            since,
            until,
        };
        let set = StoredSet::new(&snapshot, &scope);
        for upper in [Bound::INFINITY, Bound::new(huge - 1, *Bound::MIN.prefix())] {
            let summary = set.summary(&Bound::MIN, &upper).expect("readable");
            assert_eq!(summary.count, expected, "{since:?} {until:?}");
            let picked = set
                .select(&Bound::MIN, &upper, &[0, 1, 2, huge])
                .expect("readable");
            assert_eq!(picked.len() as u64, expected);
        }
    }
}

#[test]
fn a_number_that_nobody_was_given_ends_a_scan() {
    let mut store = open();
    store.admit(&[event(1, 1, 100, &[], "")]);
    let snapshot = store.store.snapshot().expect("readable");
    for number in [1, 1 << 48, u64::MAX] {
        let mut seen = 0;
        let (_, at_end) = snapshot
            .scan_after(Sequence(number), &mut |_| {
                seen += 1;
                ControlFlow::Continue(())
            })
            .expect("readable");
        assert_eq!((seen, at_end), (0, true), "{number}");
        assert!(
            number == 1
                || snapshot
                    .record(Sequence(number))
                    .expect("readable")
                    .is_none()
        );
    }
}

#[test]
fn peers_may_have_any_name_and_list_any_time() {
    let long = "p".repeat(100_000);
    let names = [
        "",
        "p",
        &long[..400],
        &long[..401],
        &long,
        "\u{0}",
        "\u{1F680}",
    ];
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let mut store = open();
    for (number, name) in (0u8..).zip(names) {
        let entries: Vec<NewOverlayEntry> = [0, TIME_MAX + 1, u64::MAX]
            .into_iter()
            .map(|created_at| NewOverlayEntry {
                key: CanonicalKey {
                    created_at,
                    id: [number; 32],
                },
                reason: OverlayReason::Refused(Rejection::BadSignature),
                kind: None,
                expires_at: None,
                author: None,
            })
            .collect();
        store
            .writer
            .transact(|transaction| transaction.add_to_overlay(name, &entries))
            .expect("healthy");
    }
    let snapshot = store.store.snapshot().expect("readable");
    for (number, name) in (0u8..).zip(names) {
        let overlay = snapshot
            .overlay(name, &SetScope::everything(), &lapse)
            .expect("readable");
        let found: Vec<_> = overlay
            .refused
            .items()
            .iter()
            .map(|item| item.id[0])
            .collect();
        assert_eq!(found, [number; 3]);
    }
    drop(snapshot);
    store.assert_consistent();
}

#[test]
fn ranges_of_many_small_kinds_and_a_large_one_are_summed_and_split_right() {
    let mut events = Vec::new();
    for kind in 0..30 {
        events.extend((0..60).map(|time| event(1, 1_000 + kind, time, &[], "")));
    }
    events.extend((0..3_500).map(|time| event(1, 1, 30 + time / 2, &[], &time.to_string())));
    let mut store = open();
    store.admit(&events);
    let snapshot = store.store.snapshot().expect("readable");
    let items = events.iter().map(|event| Item {
        timestamp: event.created_at(),
        id: event.id(),
    });
    let expected = VecSet::from_unsorted(items.collect());
    let all = expected.items();
    let mut set = StoredSet::new(&snapshot, &SetScope::everything());
    for (number, from) in [0, 1, 29, 700, 1_799, 1_801, 2_500, 5_000]
        .into_iter()
        .enumerate()
    {
        for to in [2, 800, 1_800, 1_900, 4_900, 5_299] {
            let lower = if from == 0 {
                Bound::MIN
            } else {
                Bound::at(&all[from])
            };
            let upper = if to == 5_299 {
                Bound::INFINITY
            } else {
                Bound::at(&all[to])
            };
            // Sometimes with what it remembers of the ranges before, sometimes without.
            if number % 2 == 0 {
                set = StoredSet::new(&snapshot, &SetScope::everything());
            }
            for step in [1, 29, 401] {
                let offsets: Vec<u64> = (0..6_000).step_by(step).collect();
                let found = set.select(&lower, &upper, &offsets).expect("readable");
                let Ok(wanted) = expected.select(&lower, &upper, &offsets);
                assert_eq!(found, wanted, "every {step}th from {from} to {to}");
            }
            let found = set.summary(&lower, &upper).expect("readable");
            let Ok(wanted) = expected.summary(&lower, &upper);
            assert_eq!(found, wanted, "from {from} to {to}");
        }
    }
}

#[test]
fn one_message_may_take_longer_than_a_query_on_a_slow_machine() {
    // Each look at this clock takes ten milliseconds.
    let looks = std::sync::atomic::AtomicU64::new(0);
    let clock = move || {
        let look = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::time::Duration::from_millis(10 * look)
    };
    let mut store = common::open_with(constellation_eventstore::Options::new(std::sync::Arc::new(
        clock,
    )));
    store.admit(&[event(1, 1, 100, &[], "")]);
    let snapshot = store.store.snapshot().expect("readable");
    let set = StoredSet::new(&snapshot, &SetScope::everything());
    let sum = || set.summary(&Bound::MIN, &Bound::INFINITY);
    for _ in 0..400 {
        assert_eq!(sum().expect("in time").count, 1);
    }
    assert!((0..200).any(|_| sum().is_err()), "but not for ever");
}

#[test]
fn a_filter_with_thousands_of_values_walks_a_coarser_index() {
    let mut store = open();
    let notes: Vec<_> = (0..6u8)
        .map(|number| event(number + 1, 1, 100 + u64::from(number), &[&["t", "x"]], ""))
        .collect();
    store.admit(&notes);
    let mut expected: Vec<_> = notes.iter().map(|note| note.id()).collect();
    expected.reverse();
    let topics = (0..5_000)
        .map(|number| format!("topic{number}"))
        .chain(["x".into()]);
    let by_topic = Filter::new().custom_tags(nostr::filter::SingleLetterTag::LOWERCASE_T, topics);
    let by_kind = Filter::new().kinds((0..=9_999).map(nostr::event::Kind::from_u16));
    let by_author = by_kind
        .clone()
        .authors((1..=6).map(|number| keys(number).public_key()));
    for filter in [by_topic, by_kind, by_author] {
        for per_slice in [1, 4, 100] {
            let found = query(&store.store, filter.clone(), Readership::Full, per_slice);
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_is_deleted_while_a_query_pauses_is_left_out() {
    let mut store = open();
    let notes: Vec<_> = (0..10)
        .map(|time| event(1, 1, 100 + time, &[], ""))
        .collect();
    store.admit(&notes);
    let snapshot = store.store.snapshot().expect("readable");
    let mut pending =
        constellation_eventstore::Query::new(Filter::new(), Readership::Full, &snapshot, NOW);
    let mut found = Vec::new();
    let mut take_three = |record: &constellation_eventstore::Record<'_>| {
        found.push(record.created_at());
        if found.len() == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    pending
        .advance(&snapshot, &mut take_three)
        .expect("readable");
    drop(snapshot);
    // The one it stopped at, the next one, and one later; and one comes that the query must not see.
    let ids = [7, 6, 3].map(|index| notes[index].to_event().id.to_hex());
    let tags: Vec<Vec<&str>> = ids.iter().map(|id| vec!["e", id.as_str()]).collect();
    let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
    store.admit(&[event(1, 5, 50, &tags, ""), event(2, 1, 104, &[], "late")]);
    let snapshot = store.store.snapshot().expect("readable");
    pending
        .advance(&snapshot, &mut take_three)
        .expect("readable");
    assert_eq!(found, [109, 108, 107, 105, 104, 102, 101, 100]);
}
