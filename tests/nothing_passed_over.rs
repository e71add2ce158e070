//! What one run could not see, finish or be sure of, the next one looks for; and what is said of it is true until then.
//!
//! Each of these is a way in which an exchange once said `converged` too early, or looked away for too long.

mod common;

use std::time::Duration;

use common::fake_relay::{Delivery, FakeRelay, Listing, Negentropy, Publishing, Script};
use common::{Home, QUIET, author, deletion, ids_of, note, notes, now, wait_until};
use nostr::event::Event;
use serde_json::{Value, json};

const NO_NIP77: Negentropy = Negentropy::Notice("ERROR: bad msg: unknown cmd");
const DAY: u64 = 24 * 3_600;

fn outcome(report: &Value) -> &str {
    report["outcome"].as_str().expect("a text")
}

/// Changes what a station remembers of its only peer.
fn change_memory(home: &Home, change: impl FnOnce(&mut Value)) {
    let path = home.data().join("state/learnt.json");
    let text = std::fs::read_to_string(&path).expect("a run was made");
    let mut memory: Value = serde_json::from_str(&text).expect("JSON");
    let peers = memory.as_object_mut().expect("by peer");
    assert_eq!(peers.len(), 1, "{peers:?}");
    change(peers.values_mut().next().expect("one"));
    std::fs::write(&path, memory.to_string()).expect("ours");
}

/// The whole history of a relay without NIP-77 is read bit by bit, for some authors at a time: the first of these lists
/// had more than one run reads, the second was done with at once, and the rest of the first was looked at a week later.
#[test]
fn a_history_that_is_read_for_some_authors_at_a_time_is_read_to_its_end_for_all_of_them() {
    const AUTHORS: u8 = 24;
    const EACH: u64 = 1_000;
    let begin = now() - 40 * DAY;
    let held: Vec<Event> = (0..u64::from(AUTHORS) * EACH)
        .map(|number| {
            let who = author(1 + u8::try_from(number % u64::from(AUTHORS)).expect("a byte"));
            note(&who, begin + number * 60, &format!("note {number}"))
        })
        .collect();
    let authors: Vec<String> = (1..=AUTHORS)
        .map(|number| format!("\"{}\"", author(number).public_key().to_hex()))
        .collect();
    let (relay, _played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        // Half of a message holds fifteen authors: two lists.
        information: Some(r#"{"limitation":{"max_message_length":2048}}"#),
        listing: Listing {
            cap: Some(500),
            ..Listing::default()
        },
        ..Script::holding(&held)
    });
    let home = Home::with_config(&format!(
        "{QUIET}[scope]\nauthors = [{}]\n[[peers]]\naddress = \"{}\"\n",
        authors.join(", "),
        relay.address()
    ));
    for run in 1..=6 {
        let report = home.sync(&[], 0);
        assert_eq!(outcome(&report), "converged", "{report:#}");
        let stored = report["totals"]["stored"].as_u64().expect("a number");
        assert!(stored < 22_000, "run {run} read it all: {stored}");
        if home.count("{}") == held.len() as u64 {
            assert!(run > 1, "in one run");
            return;
        }
        assert!(stored > 0, "run {run} passed over the rest");
    }
    panic!("{} of {} after six runs", home.count("{}"), held.len());
}

/// A run for one kind, or in one direction, once counted as the last success with a relay that is read since then.
#[test]
fn a_run_that_was_narrowed_by_hand_does_not_count_for_the_others() {
    let missed = note(&author(1), now() - 5 * DAY, "while it was away");
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        ..Script::default()
    });
    let home = Home::new();
    let peer = ["--peer", relay.address()];
    home.sync(&peer, 0);
    change_memory(&home, |peer| {
        peer["last_success"] = json!(now() - 10 * DAY);
    });
    played.change(|script| {
        let held = Script::holding(std::slice::from_ref(&missed));
        (script.listed, script.delivered) = (held.listed, held.delivered);
    });
    for narrowed in [
        ["--kinds", "7"],
        ["--direction", "up"],
        ["--days", "1"],
        ["--authors", &author(2).public_key().to_hex()],
    ] {
        let report = home.sync(&[&peer[..], &narrowed].concat(), 0);
        assert_eq!(report["totals"]["stored"], 0, "{narrowed:?}: {report:#}");
    }
    let report = home.sync(&peer, 0);
    assert_eq!(report["totals"]["stored"], 1, "{report:#}");
    assert_eq!(home.ids(), ids_of(&[missed]));
}

#[test]
fn a_relay_that_hangs_up_when_it_is_asked_to_compare_is_read_by_windows() {
    let theirs = notes(&author(1), now() - 3_000, 30);
    let (relay, _played) = FakeRelay::scripted(Script {
        negentropy: Negentropy::HangsUp,
        ..Script::holding(&theirs)
    });
    let home = Home::new();
    let report = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(report["peers"][0]["method"], "windows", "{report:#}");
    assert_eq!(home.ids(), ids_of(&theirs));
}

/// By windows only the last day would be looked at, and that would be called converged.
#[test]
fn a_peer_that_was_compared_with_before_is_not_read_by_windows_because_it_is_busy_once() {
    let old = note(&author(1), now() - 300 * DAY, "old");
    let (relay, played) = FakeRelay::scripted(Script::default());
    let home = Home::new();
    let peer = ["--peer", relay.address()];
    home.sync(&peer, 0);
    played.change(|script| {
        let held = Script::holding(std::slice::from_ref(&old));
        (script.listed, script.delivered) = (held.listed, held.delivered);
        script.negentropy = Negentropy::Error("error: the store is busy");
    });
    let report = home.sync(&peer, 1);
    assert_eq!(outcome(&report), "failed", "{report:#}");
    played.change(|script| script.negentropy = Negentropy::Honest);
    let report = home.sync(&peer, 0);
    assert_eq!(report["peers"][0]["method"], "negentropy", "{report:#}");
    assert_eq!(home.ids(), ids_of(&[old]));
}

#[test]
fn one_event_that_is_sent_for_ever_ends_the_exchange_and_fills_no_memory() {
    let event = note(&author(1), now() - 100, "again");
    let (relay, _played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            sends_for_ever: Some(event.as_json()),
            ..Listing::default()
        },
        ..Script::default()
    });
    let home = Home::new();
    let report = home.sync(&["--peer", relay.address()], 1);
    let why = report["peers"][0]["error"]["detail"].as_str();
    assert!(
        why.is_some_and(|why| why.contains("events where at most")),
        "{report:#}"
    );
}

#[test]
fn a_greeting_and_a_slow_answer_are_no_refusal() {
    let theirs = notes(&author(1), now() - 3_000, 30);
    let (relay, _played) = FakeRelay::scripted(Script {
        negentropy: Negentropy::Error("unsupported: no"),
        listing: Listing {
            dawdles: Some(("welcome, friend", Duration::from_secs(4))),
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let home = Home::new();
    let since = (now() - 4_000).to_string();
    let arguments = ["--peer", relay.address(), "--since", &since];
    let report = home.sync(&[&arguments[..], &["--direction", "down"]].concat(), 0);
    assert_eq!(report["peers"][0]["unresolved"], json!([]), "{report:#}");
    assert_eq!(home.ids(), ids_of(&theirs));
}

/// Else a relay that keeps no tombstones would be given back what its author deleted.
#[test]
fn nothing_is_offered_while_the_peer_had_no_time_to_deliver_what_may_be_a_deletion() {
    let one = author(1);
    let deleted = note(&one, now() - 500, "deleted there");
    let deletion = deletion(&one, now() - 400, &deleted);
    let (relay, played) = FakeRelay::scripted(Script {
        is_busy: 1,
        ..Script::holding(std::slice::from_ref(&deletion))
    });
    let home = Home::new();
    home.import(std::slice::from_ref(&deleted));
    let report = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(outcome(&report), "converged", "{report:#}");
    assert!(played.take_offered().is_empty(), "{report:#}");
    assert_eq!(home.ids(), ids_of(&[deletion]));
}

#[test]
fn answers_that_are_cut_off_at_an_odd_number_are_asked_for_to_the_end() {
    let theirs = notes(&author(1), now() - 3_000, 700);
    for cap in [7, 37, 128] {
        let (relay, _played) = FakeRelay::scripted(Script {
            delivery: Delivery::Capped(cap),
            ..Script::holding(&theirs)
        });
        let home = Home::new();
        let report = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(report["peers"][0]["unresolved"], json!([]), "{report:#}");
        assert_eq!(home.ids(), ids_of(&theirs), "a cap of {cap}");
    }
}

/// What waited to be offered was once offered although it had been blocked meanwhile.
#[test]
fn what_is_blocked_while_it_waits_to_be_offered_is_not_offered_any_more() {
    let (kept, blocked) = (author(1), author(2));
    let at = now() - 3_000;
    let home = Home::new();
    home.import(&notes(&kept, at, 100));
    let to_be_blocked = notes(&blocked, at, 100);
    home.import(&to_be_blocked);
    let (relay, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Limits(usize::MAX),
        ..Script::default()
    });
    let station = home.start();
    let syncing = home.spawn(&["sync", "--json", "--peer", relay.address()]);
    wait_until("events are offered", || !played.take_offered().is_empty());
    home.run(&["block", &blocked.public_key().to_hex()])
        .with_code(0);
    // What was on its way when the command returned has been answered.
    wait_until("a pause is over", || !played.take_offered().is_empty());
    played.take_offered();
    played.change(|script| script.publishing = Publishing::Keeps);
    syncing.finish();
    let held = played.held();
    let there = ids_of(&to_be_blocked).intersection(&held).count();
    assert_eq!(there, 0, "of {} that it took", held.len());
    assert!(!held.is_empty());
    station.stop();
}
