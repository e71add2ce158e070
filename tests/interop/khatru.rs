//! khatru, the relay library that `nak serve` is made of, as a peer: with and without NIP-77, asking who is there, capped.

use std::collections::BTreeSet;

use nostr::event::Event;
use nostr::key::Keys;
use serde_json::json;

use super::events::{Events, ids_of};
use super::support::{KhatruRelay, Station, Tool, go_nostr_sync};
use super::{assert_converged, assert_nothing_moved, deletion, made};

/// Every way in which `nak serve` can be started that matters to a peer.
#[tokio::test]
async fn a_station_and_a_khatru_relay_become_equal_with_and_without_nip77_and_whenever_it_asks_who_is_there()
 {
    if !Tool::Khatru.is_installed() {
        return;
    }
    let events = Events::load();
    for (arguments, method) in [
        (&["-negentropy"][..], "negentropy"),
        (&[], "windows"),
        (&["-negentropy", "-auth"], "negentropy"),
        (&["-auth"], "windows"),
        (&["-negentropy", "-eager-auth"], "negentropy"),
        (&["-eager-auth"], "windows"),
    ] {
        let relay = KhatruRelay::serve(arguments, events.last()).await;
        let station = Station::new();
        station.import(events.first()).await;
        let report = station.sync_whole(&relay.url, "both").await;
        assert_eq!(
            report["peers"][0]["method"], method,
            "{arguments:?}: {report}"
        );
        assert_converged(&report);
        let expected = events.expected();
        assert_eq!(
            ids_of(&station.export().await),
            expected,
            "{arguments:?}: ours"
        );
        assert_nothing_moved(&station.sync_whole(&relay.url, "both").await);
        assert_holds(&relay, &expected).await;
        if arguments == ["-negentropy"] {
            let judge = go_nostr_sync(&relay.url, &station.export().await).await;
            assert_eq!(
                (judge.sent, judge.received),
                (0, 0),
                "by a client that is not ours"
            );
        }
    }
}

/// More than it gives at once, some of it within one second: all of it arrives.
#[tokio::test]
async fn a_khatru_relay_that_gives_five_hundred_at_a_time_is_read_to_the_end() {
    if !Tool::Khatru.is_installed() {
        return;
    }
    let now = constellation::time::Clock::system().unix_seconds();
    let keys: Vec<Keys> = (0..40).map(|_| Keys::generate()).collect();
    let crowd = |from: usize, count: usize| -> Vec<Event> {
        let made = (from..from + count).map(|number| {
            let at = now - 20_000 + number as u64 / 40;
            made(&keys[number % 40], 1, at, &[], &format!("note {number}"))
        });
        made.collect()
    };
    let lines = |events: &[Event]| -> Vec<String> { events.iter().map(Event::as_json).collect() };
    let (theirs, ours) = (lines(&crowd(0, 3_000)), lines(&crowd(2_500, 1_000)));
    let relay = KhatruRelay::serve(&["-max-limit", "500"], &theirs).await;
    let station = Station::new();
    station.import(&ours).await;
    let report = station.sync_whole(&relay.url, "both").await;
    assert_converged(&report);
    let expected: BTreeSet<String> = &ids_of(&theirs) | &ids_of(&ours);
    assert_eq!(ids_of(&station.export().await), expected, "ours");
    assert_nothing_moved(&station.sync_whole(&relay.url, "both").await);
    assert_holds(&relay, &expected).await;
}

/// Deletions made on either side take effect on both, and stay.
#[tokio::test]
async fn what_is_deleted_on_either_side_of_a_khatru_relay_goes_on_both() {
    if !Tool::Khatru.is_installed() {
        return;
    }
    let keys = Keys::generate();
    let now = constellation::time::Clock::system().unix_seconds();
    let notes: Vec<Event> = (0..10)
        .map(|number| made(&keys, 1, now - 1_000 + number, &[], &number.to_string()))
        .collect();
    let lines: Vec<String> = notes.iter().map(Event::as_json).collect();
    for arguments in [&["-negentropy"][..], &[]] {
        let relay = KhatruRelay::serve(arguments, &lines).await;
        let (station, elsewhere) = (Station::new(), Station::new());
        station.import(&lines).await;
        assert_converged(&station.sync_whole(&relay.url, "both").await);
        let (here, there) = (deletion(&keys, &notes[0]), deletion(&keys, &notes[1]));
        station.import(&[here.as_json()]).await;
        elsewhere.import(&[there.as_json()]).await;
        assert_converged(&elsewhere.sync_whole(&relay.url, "both").await);
        let report = station.sync_whole(&relay.url, "both").await;
        assert_converged(&report);
        assert_eq!(report["totals"]["refused_by_peer"], json!({}), "{report}");
        let mut expected = ids_of(&lines);
        for (note, deletion) in [(&notes[0], &here), (&notes[1], &there)] {
            expected.remove(&note.id.to_hex());
            expected.insert(deletion.id.to_hex());
        }
        assert_eq!(ids_of(&station.export().await), expected, "ours");
        assert_nothing_moved(&station.sync_whole(&relay.url, "both").await);
        assert_holds(&relay, &expected).await;
    }
}

/// What the relay holds, by a station that had nothing.
async fn assert_holds(relay: &KhatruRelay, expected: &BTreeSet<String>) {
    let reader = Station::new();
    assert_converged(&reader.sync_whole(&relay.url, "down").await);
    assert_eq!(&ids_of(&reader.export().await), expected, "the relay's");
}
