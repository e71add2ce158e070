//! The event rules, told one by one. The oracle test beside this one mixes them.

mod common;

use common::{NOW, event, keys, open};
use constellation_event::Rejection;
use constellation_eventstore::Admission::{Duplicate, Ephemeral, Refused, Stored};
use constellation_eventstore::{Lapse, Sequence};

fn stored(number: u64) -> constellation_eventstore::Admission {
    Stored(Sequence(number))
}

#[test]
fn the_same_event_is_stored_once() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "a");
    assert_eq!(
        store.admit(&[note.clone(), note.clone()]),
        [stored(1), Duplicate]
    );
    assert_eq!(store.admit(&[note]), [Duplicate]);
    store.assert_consistent();
}

#[test]
fn the_newest_version_stays_and_a_tie_goes_to_the_lower_id() {
    let mut store = open();
    let old = event(1, 0, 100, &[], "old");
    let new = event(1, 0, 200, &[], "new");
    assert_eq!(
        store.admit(&[old.clone(), new.clone()]),
        [stored(1), stored(2)]
    );
    assert_eq!(store.ids(), [new.id()]);
    assert_eq!(store.admit(&[old]), [Refused(Rejection::Superseded)]);

    let mut same_time = [event(2, 0, 100, &[], "x"), event(2, 0, 100, &[], "y")];
    same_time.sort_by_key(|event| std::cmp::Reverse(event.id()));
    let [higher, lower] = same_time;
    assert_eq!(
        store.admit(&[higher.clone(), lower.clone()]),
        [stored(3), stored(4)]
    );
    assert_eq!(store.admit(&[higher]), [Refused(Rejection::Superseded)]);
    assert!(store.ids().contains(&lower.id()));
    store.assert_consistent();
}

#[test]
fn addressable_events_are_kept_one_for_each_identifier() {
    let mut store = open();
    let a = event(1, 30_023, 100, &[&["d", "a"]], "");
    let b = event(1, 30_023, 100, &[&["d", "b"]], "");
    let a2 = event(
        1,
        30_023,
        101,
        &[&["d", "a"], &["d", "b"]],
        "only the first d counts",
    );
    let none = event(1, 30_023, 100, &[], "no identifier is the empty one");
    let empty = event(1, 30_023, 101, &[&["d", ""]], "");
    store.admit(&[a, b.clone(), a2.clone(), none, empty.clone()]);
    let mut expected = vec![b.id(), a2.id(), empty.id()];
    expected.sort_unstable();
    let mut ids = store.ids();
    ids.sort_unstable();
    assert_eq!(ids, expected);
    store.assert_consistent();
}

#[test]
fn a_deletion_by_id_works_before_and_after_its_target() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "regretted");
    let id = note.to_event().id.to_hex();
    let deletion = event(1, 5, 50, &[&["e", &id]], "its time does not matter");
    assert_eq!(
        store.admit(&[note.clone(), deletion.clone()]),
        [stored(1), stored(2)]
    );
    assert_eq!(store.ids(), [deletion.id()]);
    assert_eq!(
        store.admit(std::slice::from_ref(&note)),
        [Refused(Rejection::Deleted)]
    );

    let mut reverse = open();
    assert_eq!(
        reverse.admit(&[deletion, note]),
        [stored(1), Refused(Rejection::Deleted)]
    );
    reverse.assert_consistent();
    let mut reopened = store.reopen();
    assert_eq!(
        reopened.admit(&[event(1, 1, 100, &[], "regretted")]),
        [Refused(Rejection::Deleted)],
        "tombstones survive a restart"
    );
    reopened.assert_consistent();
}

#[test]
fn nobody_deletes_for_others_and_nothing_deletes_a_deletion() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "mine");
    let theirs = event(
        2,
        5,
        200,
        &[&["e", &note.to_event().id.to_hex()]],
        "not theirs",
    );
    let again = event(2, 5, 201, &[&["e", &theirs.to_event().id.to_hex()]], "undo");
    store.admit(&[note.clone(), theirs.clone(), again.clone()]);
    assert_eq!(store.ids(), [again.id(), theirs.id(), note.id()]);
    let address = format!("0:{}:", keys(1).public_key().to_hex());
    let profile = event(1, 0, 100, &[], "profile");
    store.admit(&[profile.clone(), event(2, 5, 300, &[&["a", &address]], "")]);
    assert!(store.ids().contains(&profile.id()));
    store.assert_consistent();
}

#[test]
fn a_deletion_by_address_takes_all_versions_up_to_its_time() {
    let mut store = open();
    let address = format!("30023:{}:post", keys(1).public_key().to_hex());
    let version = |time| event(1, 30_023, time, &[&["d", "post"]], "");
    let deletion = event(1, 5, 200, &[&["a", &address]], "");
    store.admit(&[version(100), deletion.clone()]);
    assert_eq!(store.ids(), [deletion.id()]);
    assert_eq!(
        store.admit(&[version(150), version(200), version(201)]),
        [
            Refused(Rejection::Deleted),
            Refused(Rejection::Deleted),
            stored(3)
        ]
    );
    store.assert_consistent();
}

#[test]
fn the_addressee_of_a_gift_wrap_may_delete_it() {
    let mut store = open();
    let addressee = keys(2).public_key().to_hex();
    let gift = event(1, 1059, 100, &[&["p", &addressee]], "sealed");
    let id = gift.to_event().id.to_hex();
    let by_stranger = event(3, 5, 200, &[&["e", &id]], "");
    store.admit(&[gift.clone(), by_stranger.clone()]);
    assert!(store.ids().contains(&gift.id()));
    store.admit(&[event(2, 5, 200, &[&["e", &id]], "")]);
    assert!(!store.ids().contains(&gift.id()));
    assert_eq!(store.admit(&[gift]), [Refused(Rejection::Deleted)]);
    let note = event(1, 1, 100, &[&["p", &addressee]], "no gift wrap");
    store.admit(&[
        note.clone(),
        event(2, 5, 200, &[&["e", &note.to_event().id.to_hex()]], ""),
    ]);
    assert!(
        store.ids().contains(&note.id()),
        "being named in a note gives no right to delete it"
    );
    store.assert_consistent();
}

#[test]
fn expired_events_are_refused_and_swept() {
    let mut store = open();
    let soon = (NOW + 10).to_string();
    let note = event(1, 1, 100, &[&["expiration", &soon]], "");
    let past = event(1, 1, 101, &[&["expiration", &NOW.to_string()]], "");
    assert_eq!(
        store.admit(&[note.clone(), past]),
        [stored(1), Refused(Rejection::Expired)]
    );
    let other = event(2, 1, 100, &[], "");
    store.admit_at(std::slice::from_ref(&other), NOW + 10);
    assert_eq!(store.ids(), [other.id()]);
    store.assert_consistent();
}

#[test]
fn a_deletion_that_says_it_expires_deletes_whenever_it_comes() {
    let note = event(1, 1, 100, &[], "");
    let id = note.to_event().id.to_hex();
    let soon = (NOW + 10).to_string();
    let deletion = event(1, 5, 101, &[&["e", &id], &["expiration", &soon]], "");
    let (mut early, mut late) = (open(), open());
    for store in [&mut early, &mut late] {
        store.admit(std::slice::from_ref(&note));
    }
    early.admit(std::slice::from_ref(&deletion));
    for store in [&mut early, &mut late] {
        store.admit_at(std::slice::from_ref(&deletion), NOW + 20);
        assert_eq!(store.ids(), [deletion.id()]);
        store.assert_consistent();
    }
}

#[test]
fn a_request_to_vanish_takes_everything_up_to_its_time() {
    let mut store = open();
    let events: Vec<_> = (0..20)
        .map(|time| event(1, 1, 100 + time, &[], ""))
        .collect();
    let deletion = event(1, 5, 100, &[&["e", &events[0].to_event().id.to_hex()]], "");
    let gift = event(3, 1059, 100, &[&["p", &keys(1).public_key().to_hex()]], "");
    let bystander = event(2, 1, 100, &[], "");
    store.admit(&events);
    store.admit(&[deletion, gift.clone(), bystander.clone()]);
    let elsewhere = event(1, 62, 110, &[&["relay", "wss://elsewhere.example"]], "");
    store.admit(std::slice::from_ref(&elsewhere));
    assert!(
        store.ids().contains(&events[5].id()),
        "another relay's business"
    );
    let request = event(1, 62, 115, &[&["relay", "ALL_RELAYS"]], "");
    store.admit(std::slice::from_ref(&request));
    let ids = store.ids();
    assert!(events[..16].iter().all(|event| !ids.contains(&event.id())));
    assert!(events[16..].iter().all(|event| ids.contains(&event.id())));
    assert!(!ids.contains(&gift.id()));
    assert!(ids.contains(&bystander.id()) && ids.contains(&request.id()));
    assert_eq!(
        store.admit(&[events[3].clone(), gift]),
        [Refused(Rejection::Deleted); 2]
    );
    let shared: u64 = store
        .store
        .snapshot()
        .expect("readable")
        .shared_by_kind()
        .iter()
        .filter(|(kind, _)| *kind == 62)
        .map(|(_, count)| count)
        .sum();
    assert_eq!(shared, 1, "a request to one relay is not shared");
    store.assert_consistent();
}

#[test]
fn a_request_to_vanish_that_names_us_applies() {
    let mut options = common::options();
    options.own_urls = vec!["wss://relay.example/".into()];
    let mut store = common::open_with(options);
    let note = event(1, 1, 100, &[], "");
    let request = event(1, 62, 200, &[&["relay", "wss://Relay.example"]], "");
    store.admit(&[note, request.clone()]);
    assert_eq!(store.ids(), [request.id()]);
}

#[test]
fn ephemeral_events_reach_the_ring_and_never_the_disk() {
    let mut options = common::options();
    options.ephemeral_events_max = 2;
    let mut store = common::open_with(options);
    let events: Vec<_> = (0..3)
        .map(|time| event(1, 20_001, 100 + time, &[], ""))
        .collect();
    assert_eq!(store.admit(&events), [Ephemeral; 3]);
    let news = store.store.ephemeral_since(0);
    assert_eq!(
        news.events
            .iter()
            .map(|event| event.id())
            .collect::<Vec<_>>(),
        [events[1].id(), events[2].id()]
    );
    assert_eq!((news.cursor, news.missed), (3, 1));
    assert!(store.store.ephemeral_since(news.cursor).events.is_empty());
    assert!(store.ids().is_empty());
    assert_eq!(
        store
            .store
            .snapshot()
            .expect("readable")
            .event_count()
            .expect("readable"),
        0
    );
}

#[test]
fn protected_events_are_kept_and_served_but_not_shared() {
    let mut store = open();
    let note = event(1, 1, 100, &[&["-"]], "");
    store.admit(std::slice::from_ref(&note));
    assert_eq!(store.ids(), [note.id()]);
    assert!(
        store
            .store
            .snapshot()
            .expect("readable")
            .shared_by_kind()
            .is_empty()
    );
    store.assert_consistent();
}

#[test]
fn a_time_beyond_what_keys_hold_is_in_the_future() {
    let mut store = open();
    for time in [1 << 40, u64::MAX] {
        assert_eq!(
            store.admit(&[event(1, 1, time, &[], "")]),
            [Refused(Rejection::Future)]
        );
    }
    assert!(matches!(
        store.admit(&[event(1, 1, (1 << 40) - 1, &[], "")])[..],
        [Stored(_)]
    ));
    store.assert_consistent();
}

#[test]
fn a_number_is_never_used_twice() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "");
    let deletion = event(1, 5, 100, &[&["e", &note.to_event().id.to_hex()]], "");
    store.admit(&[deletion, note]);
    let profile = event(1, 0, 100, &[], "");
    store.admit(&[profile]);
    let mut store = store.reopen();
    let newer = event(1, 0, 101, &[], "");
    assert_eq!(store.admit(&[newer]), [stored(3)]);
    store.assert_consistent();
}

#[test]
fn a_deletion_counts_whether_it_came_before_or_after_its_author_vanished() {
    let note = event(1, 1, 300, &[], "newer than the request to vanish");
    let deletion = event(1, 5, 100, &[&["e", &note.to_event().id.to_hex()]], "");
    let request = event(1, 62, 200, &[&["relay", "ALL_RELAYS"]], "");
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut store = open();
        for index in order {
            store.admit(&[[&note, &deletion, &request][index].clone()]);
        }
        assert_eq!(store.ids(), [request.id()], "{order:?}");
        store.assert_consistent();
    }
}

#[test]
fn an_addressee_in_capitals_is_nobody_before_and_after_a_request_to_vanish() {
    let capitals = keys(1).public_key().to_hex().to_uppercase();
    let gift = event(3, 1059, 100, &[&["p", &capitals]], "");
    let request = event(1, 62, 200, &[&["relay", "ALL_RELAYS"]], "");
    for order in [[0, 1], [1, 0]] {
        let mut store = open();
        for index in order {
            store.admit(&[[&gift, &request][index].clone()]);
        }
        assert_eq!(store.ids(), [request.id(), gift.id()], "{order:?}");
    }
}

#[test]
fn a_deletion_by_somebody_never_seen_before_is_remembered() {
    let mut store = open();
    let note = event(9, 1, 100, &[], "");
    let address = format!("30023:{}:x", keys(9).public_key().to_hex());
    let id = note.to_event().id.to_hex();
    let deletion = event(9, 5, 200, &[&["e", &id], &["a", &address]], "");
    let post = event(9, 30_023, 150, &[&["d", "x"]], "");
    store.admit(&[deletion]);
    let mut store = store.reopen();
    assert_eq!(
        store.admit(&[note, post]),
        [Refused(Rejection::Deleted), Refused(Rejection::Deleted)]
    );
    store.assert_consistent();
}

#[test]
fn an_event_expires_in_the_second_its_tag_names_everywhere() {
    let mut store = open();
    let note = event(1, 1, 100, &[&["expiration", &(NOW + 1).to_string()]], "");
    store.admit(std::slice::from_ref(&note));
    let snapshot = store.store.snapshot().expect("readable");
    let record = snapshot
        .by_id(&note.id())
        .expect("readable")
        .expect("stored");
    for (now, expired) in [(NOW, false), (NOW + 1, true), (u64::MAX, true)] {
        assert_eq!(record.is_expired(now), expired);
        assert_eq!(snapshot.needs_sweep(now).expect("readable"), expired);
    }
    drop(snapshot);
    store.admit_at(&[], NOW);
    assert_eq!(store.ids(), [note.id()]);
    store.admit_at(&[], NOW + 1);
    assert!(store.ids().is_empty());
}

#[test]
fn a_sweep_of_nothing_does_not_ask_to_be_called_again() {
    let mut store = open();
    let report = store
        .writer
        .transact(|transaction| transaction.sweep(NOW, 0))
        .expect("healthy")
        .value;
    assert!(!report.unfinished);
}

/// Someone who was mentioned a million times and vanishes must not hold the writer for all of it, nor have each slice begin anew.
#[test]
fn what_a_vanished_author_left_is_swept_by_entries_looked_at_and_goes_on_where_it_stopped() {
    let mut store = open();
    let gone = keys(1).public_key().to_hex();
    let mut kept = Vec::new();
    let gift = event(3, 1059, 10, &[&["p", &gone]], "the oldest mention");
    store.admit(std::slice::from_ref(&gift));
    for at in 0..20 {
        let mention = event(2, 1, 100 + at, &[&["p", &gone]], "a mention");
        store.admit(std::slice::from_ref(&mention));
        kept.push(mention.id());
        let later = event(1, 1, 500 + at, &[], "written after the request");
        store.admit(std::slice::from_ref(&later));
        kept.push(later.id());
    }
    let own = event(1, 7, 50, &[], "written before it");
    store.admit(std::slice::from_ref(&own));
    let request = event(1, 62, 400, &[&["relay", "ALL_RELAYS"]], "");
    let older = event(1, 62, 399, &[&["relay", "ALL_RELAYS"]], "");
    kept.extend([request.id(), older.id()]);
    kept.sort_unstable();

    let slice = |store: &mut common::TestStore, admitted: &[constellation_event::VerifiedEvent]| {
        store
            .writer
            .transact(|transaction| {
                for event in admitted {
                    transaction.admit(event, NOW)?;
                }
                transaction.sweep(NOW, 4)
            })
            .expect("healthy")
            .value
    };
    let mut report = slice(&mut store, &[request]);
    let (mut slices, mut vanished) = (1, report.vanished);
    while report.unfinished {
        assert!(report.vanished <= 4);
        // A request that asks for no more than the first begins nothing anew.
        report = slice(&mut store, std::slice::from_ref(&older));
        slices += 1;
        vanished += report.vanished;
    }
    // 20 later notes, two requests, one older note; 20 mentions and the gift: 44 entries, four in a slice.
    assert!((11..=13).contains(&slices), "{slices} slices");
    assert_eq!(vanished, 2);
    let mut ids = store.ids();
    ids.sort_unstable();
    assert_eq!(ids, kept);
}

#[test]
fn a_failed_transaction_leaves_nothing_behind() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "");
    let ephemeral = event(1, 20_001, 100, &[], "");
    let failed = store.writer.transact(|transaction| {
        transaction.admit(&note, NOW)?;
        transaction.admit(&ephemeral, NOW)?;
        Err::<(), _>(constellation_eventstore::StoreError::SnapshotExpired)
    });
    assert!(failed.is_err());
    assert!(store.ids().is_empty());
    assert!(store.store.ephemeral_since(0).events.is_empty());
    // The author's number and the event's were given in the failed transaction: they are given again.
    assert_eq!(store.admit(&[event(2, 1, 100, &[], "")]), [stored(1)]);
    assert_eq!(store.admit(&[note]), [stored(2)]);
    store.assert_consistent();
}

#[test]
fn what_gave_way_is_not_asked_for_again() {
    let mut store = open();
    let (old, new) = (event(1, 0, 100, &[], "old"), event(1, 0, 200, &[], "new"));
    let note = event(1, 1, 100, &[], "regretted");
    let address = format!("30023:{}:post", keys(1).public_key().to_hex());
    let post = event(1, 30_023, 100, &[&["d", "post"]], "");
    store.admit(&[old.clone(), new, note.clone(), post.clone()]);
    store.admit(&[event(
        1,
        5,
        300,
        &[&["e", &note.to_event().id.to_hex()], &["a", &address]],
        "",
    )]);
    let snapshot = store.store.snapshot().expect("readable");
    let covers = |_: u16, _: &[u8; 32]| true;
    let lapse = Lapse {
        now: NOW,
        covers: &covers,
    };
    for (gone, reason) in [
        (&old, Rejection::Superseded),
        (&note, Rejection::Deleted),
        (&post, Rejection::Deleted),
    ] {
        let verdict = snapshot
            .standing_refusal(&gone.id(), &lapse)
            .expect("readable");
        let verdict =
            verdict.expect("remembered, so that a peer that lists it is not asked for it");
        assert_eq!(
            (verdict.reason, verdict.key),
            (reason, gone.canonical_key())
        );
    }
    drop(snapshot);
    store.assert_consistent();
}
