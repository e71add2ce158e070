//! Relays that hide, stumble and disagree: each exchange ends converged, or reports exactly what the harness withheld.
//!
//! What they hold, and what is to be seen of it, is known here; what is said of the rest must be that: ids, or ranges
//! that cover what was withheld.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::fake_relay::{
    Asks, Delivery, FakeRelay, Listing, Negentropy, Played, Publishing, Script,
};
use common::runs::{SHORT, run_within};
use common::{Home, author, event, ids_of, note, notes, now};
use constellation::sync::{Deadlines, Outcome, RunReport};
use constellation::transfer::{Gap, Unresolved};
use nostr::event::Event;
use serde_json::{Value, json};

const NO_NIP77: Negentropy = Negentropy::Notice("ERROR: bad msg: unknown cmd");

/// Notes of many authors, three a second, ending some hours ago.
fn crowd(authors: u8, count: u64) -> Vec<Event> {
    let first = now() - 20_000 - count / 3;
    (0..count)
        .map(|number| {
            let author = author(1 + u8::try_from(number % u64::from(authors)).expect("a byte"));
            note(&author, first + number / 3, &format!("note {number}"))
        })
        .collect()
}

/// A run with a relay that holds `theirs`, for a station that holds `ours`; both must hold everything afterwards, and
/// another run moves nothing.
#[track_caller]
fn assert_converges(
    named: &str,
    script: Script,
    theirs: &[Event],
    ours: &[Event],
) -> (Value, Arc<Played>) {
    let home = Home::new();
    if !ours.is_empty() {
        home.import(ours);
    }
    let held = Script::holding(theirs);
    let (relay, played) = FakeRelay::scripted(Script {
        listed: held.listed,
        delivered: held.delivered,
        ..script
    });
    let report = home.sync(&["--peer", relay.address()], 0);
    let peer = report["peers"][0].clone();
    assert_eq!(peer["outcome"], "converged", "{named}: {report:#}");
    assert_eq!(peer["unresolved"], json!([]), "{named}: {report:#}");
    let all: BTreeSet<String> = ids_of(theirs).union(&ids_of(ours)).cloned().collect();
    assert_eq!(home.ids(), all, "{named}");
    assert_eq!(played.held(), all, "{named}");
    let again = home.sync(&["--peer", relay.address()], 0);
    let moved = (&again["totals"]["downloaded"], &again["totals"]["uploaded"]);
    assert_eq!(moved, (&json!(0), &json!(0)), "{named}: {again:#}");
    (peer, played)
}

/// 100 authors, 10,603 events: what the system before this one got 500 of.
#[test]
fn all_of_10603_events_arrive_from_a_relay_that_gives_500_at_a_time_with_and_without_nip77() {
    let theirs = crowd(100, 10_603);
    for (negentropy, method) in [(NO_NIP77, "windows"), (Negentropy::Honest, "negentropy")] {
        let script = Script {
            negentropy,
            delivery: common::fake_relay::Delivery::Capped(500),
            listing: Listing {
                cap: Some(500),
                ..Listing::default()
            },
            ..Script::default()
        };
        let (peer, _) = assert_converges(method, script, &theirs, &[]);
        assert_eq!(peer["method"], method, "{peer:#}");
        assert_eq!(
            (&peer["need"], &peer["stored"]),
            (&json!(10_603), &json!(10_603)),
            "{peer:#}"
        );
    }
}

#[test]
fn caps_that_are_smaller_on_paper_and_ends_that_are_meant_otherwise_hide_nothing() {
    let theirs = crowd(20, 300);
    let ours = notes(&author(200), now() - 5_000, 40);
    let stated = Script {
        negentropy: NO_NIP77,
        information: Some(r#"{"limitation":{"max_limit":10}}"#),
        listing: Listing {
            cap: Some(100),
            ..Listing::default()
        },
        ..Script::default()
    };
    assert_converges("a cap stated smaller than it is", stated, &theirs, &ours);
    let excluding = Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(10),
            excludes_until: true,
            ..Listing::default()
        },
        ..Script::default()
    };
    assert_converges("until is left out", excluding, &theirs, &ours);
    let breaking = Script {
        negentropy: NO_NIP77,
        breaks_off: 2,
        listing: Listing {
            cap: Some(50),
            ..Listing::default()
        },
        ..Script::default()
    };
    let (_, played) = assert_converges("answers break off", breaking, &theirs, &ours);
    assert!(played.connections() > 2, "it was connected anew");
    let breaking = Script {
        breaks_off: 2,
        ..Script::default()
    };
    let (peer, _) = assert_converges("fetching breaks off", breaking, &theirs, &ours);
    assert_eq!(peer["method"], "negentropy", "{peer:#}");
}

#[test]
fn what_is_too_big_to_be_compared_at_once_is_compared_in_slices_whether_or_not_the_cap_is_told() {
    for (count, events) in [(40, 7), (300, 40), (1_500, 100)] {
        for is_stated in [true, false] {
            let theirs = crowd(20, count);
            // More than the relay compares, and at other times.
            let ours = notes(&author(200), now() - 10_000, count / 2);
            let script = Script {
                negentropy: Negentropy::UpTo { events, is_stated },
                ..Script::default()
            };
            let named = format!("{count} events, {events} at a time, stated: {is_stated}");
            let (peer, _) = assert_converges(&named, script, &theirs, &ours);
            assert_eq!(peer["method"], "negentropy", "{named}: {peer:#}");
            assert_eq!(
                (
                    &peer["need"],
                    &peer["have"],
                    &peer["need_after"],
                    &peer["have_after"]
                ),
                (&json!(count), &json!(count / 2), &json!(0), &json!(0)),
                "{named}: {peer:#}"
            );
        }
    }
}

fn ranges(report: &RunReport) -> Vec<&Gap> {
    let unresolved = report.peers[0].unresolved.iter();
    let ranges = unresolved.filter_map(|left| match left {
        Unresolved::Range(gap) => Some(gap),
        Unresolved::Events { .. } => None,
    });
    ranges.collect()
}

fn covers(gap: &Gap, event: &Event) -> bool {
    let at = event.created_at.as_secs();
    gap.since.is_none_or(|since| since <= at)
        && gap.until.is_none_or(|until| at <= until)
        && gap
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&event.kind.as_u16()))
}

#[test]
fn a_second_that_is_too_big_to_be_compared_is_reported_and_nothing_else_is() {
    let second = now() - 1_000;
    let full: Vec<Event> = (0..30)
        .map(|number| note(&author(100 + number), second, "at once"))
        .collect();
    let fitting: Vec<Event> = (0..5)
        .map(|number| event(&author(100 + number), 7, second, &[], "+"))
        .collect();
    let theirs = [crowd(5, 30), full.clone(), fitting].concat();
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: Negentropy::UpTo {
            events: 20,
            is_stated: true,
        },
        ..Script::holding(&theirs)
    });
    let home = Home::new();
    let report = run_within(&home, &[relay.address()], SHORT);
    assert_eq!(report.outcome, Outcome::Partial, "{report:#?}");
    let withheld: BTreeSet<String> = played.held().difference(&home.ids()).cloned().collect();
    assert_eq!(withheld, ids_of(&full), "{report:#?}");
    let ranges = ranges(&report);
    assert_eq!(ranges.len(), 1, "{report:#?}");
    for event in &theirs {
        assert_eq!(covers(ranges[0], event), full.contains(event), "{ranges:?}");
    }
}

/// Everything that was not seen to its end lies in a range that is reported.
#[test]
fn of_a_relay_whose_answers_never_end_it_is_said_what_was_not_read() {
    let theirs = crowd(5, 30);
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(10),
            never_ends: true,
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let home = Home::new();
    home.import(&notes(&author(200), now() - 5_000, 3));
    let report = run_within(&home, &[relay.address()], SHORT);
    let peer = &report.peers[0];
    let reason = peer.error.as_ref().map(|error| error.reason.as_str());
    assert_eq!(reason, Some("timeout"), "{report:#?}");
    assert_ne!(report.outcome, Outcome::Converged);
    let held = home.ids();
    let ranges = ranges(&report);
    for event in &theirs {
        let is_told = ranges.iter().any(|range| covers(range, event));
        assert!(held.contains(&event.id.to_hex()) || is_told, "{report:#?}");
    }
    assert!(!ranges.is_empty(), "{report:#?}");
}

/// Also where everything was compared and only the moving was cut off: by the time, or by connections that break.
#[test]
fn of_an_exchange_that_is_cut_off_it_is_said_what_was_not_compared_and_moved() {
    let theirs = notes(&author(1), now() - 20_000, 300);
    let trickling = Script {
        delivery: Delivery::Slow(Duration::from_millis(200)),
        ..Script::holding(&theirs)
    };
    let breaking = Script {
        hangs_up_after: Some(1),
        ..Script::holding(&theirs)
    };
    for (script, outcome) in [(trickling, Outcome::Failed), (breaking, Outcome::Failed)] {
        let (relay, _) = FakeRelay::scripted(script);
        let home = Home::new();
        let deadlines = Deadlines {
            exchange: Duration::from_secs(4),
            ..SHORT
        };
        let report = run_within(&home, &[relay.address()], deadlines);
        assert_eq!(report.outcome, outcome, "{report:#?}");
        let (held, ranges) = (home.ids(), ranges(&report));
        for event in &theirs {
            let is_told = ranges.iter().any(|range| covers(range, event));
            assert!(held.contains(&event.id.to_hex()) || is_told, "{report:#?}");
        }
        assert!(held.len() < theirs.len());
    }
}

#[test]
fn a_relay_that_does_not_take_who_we_are_is_told_once_and_nothing_is_said_of_what_it_has() {
    let theirs = crowd(5, 30);
    for asks in [Asks::AtFirst, Asks::Late] {
        let (relay, played) = FakeRelay::scripted(Script {
            asks: Some(asks),
            knows_nobody: true,
            ..Script::holding(&theirs)
        });
        let home = Home::new();
        home.import(&notes(&author(200), now() - 5_000, 3));
        let report = run_within(&home, &[relay.address()], SHORT);
        assert!(
            matches!(report.outcome, Outcome::Partial | Outcome::Failed),
            "{report:#?}"
        );
        let ranges = ranges(&report);
        for event in &theirs {
            let is_told = ranges.iter().any(|range| covers(range, event));
            assert!(is_told, "{asks:?}: {report:#?}");
        }
        assert!(played.take_offered().is_empty(), "{asks:?}");
        assert_eq!(played.introduced().len(), 1, "{asks:?}: once is enough");
        // Once it does, it is compared with as any other: that it refused us said nothing of NIP-77.
        played.change(|script| script.knows_nobody = false);
        let report = run_within(&home, &[relay.address()], SHORT);
        assert_eq!(report.outcome, Outcome::Converged, "{asks:?}: {report:#?}");
        assert_eq!(report.peers[0].method, "negentropy", "{asks:?}");
    }
}

#[test]
fn clocks_an_hour_apart_keep_only_what_is_newer_than_the_slower_one() {
    let past = notes(&author(1), now() - 20_000, 20);
    for negentropy in [Negentropy::Honest, NO_NIP77] {
        // Ours is ahead: what we have of the last hour is of the future to it.
        let newest = notes(&author(2), now() - 1_000, 5);
        let home = Home::new();
        home.import(&[past.clone(), newest.clone()].concat());
        let (relay, played) = FakeRelay::scripted(Script {
            negentropy: negentropy.clone(),
            publishing: Publishing::UpTo(now() - 3_600),
            ..Script::default()
        });
        let report = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(report["outcome"], "converged", "{report:#}");
        assert_eq!(report["totals"]["refused_by_peer"], json!({"invalid": 5}));
        assert_eq!(played.held(), ids_of(&past), "{report:#}");
        played.take_offered();
        let again = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(again["outcome"], "converged", "{again:#}");
        assert!(played.take_offered().is_empty(), "not again for a day");

        // Its clock is ahead: what it has of the next hour is of the future to us.
        let coming = notes(&author(3), now() + 3_500, 5);
        let home = Home::new();
        let held = Script::holding(&[past.clone(), coming.clone()].concat());
        let (relay, played) = FakeRelay::scripted(Script {
            negentropy: negentropy.clone(),
            ..held
        });
        let report = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(report["outcome"], "converged", "{report:#}");
        assert_eq!(
            report["totals"]["rejected"],
            json!({"future": 5}),
            "{report:#}"
        );
        assert_eq!(home.ids(), ids_of(&past));
        played.take_requested();
        let again = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(again["totals"]["downloaded"], 0, "{again:#}");
        assert!(played.take_requested().is_empty(), "not fetched again");
    }
}

#[test]
fn refusals_that_do_not_say_what_they_refuse_are_heard() {
    for negentropy in [Negentropy::Honest, NO_NIP77] {
        let home = Home::new();
        home.import(&notes(&author(1), now() - 1_000, 30));
        let (relay, played) = FakeRelay::scripted(Script {
            negentropy,
            publishing: Publishing::RefusesNameless("invalid: no"),
            ..Script::default()
        });
        let report = run_within(&home, &[relay.address()], SHORT);
        assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
        let refused: Vec<u64> = report.totals.refused_by_peer.values().copied().collect();
        assert_eq!(refused, [30], "{report:#?}");
        assert_eq!(played.take_offered().len(), 30);
        run_within(&home, &[relay.address()], SHORT);
        assert!(played.take_offered().is_empty(), "not again for a day");
    }
}

#[test]
fn an_event_that_is_too_large_for_a_peer_is_reported_once_by_its_id() {
    let large = note(&author(1), now() - 100, &"x".repeat(6_000));
    let small = notes(&author(1), now() - 90, 10);
    for negentropy in [Negentropy::Honest, NO_NIP77] {
        let home = Home::new();
        home.import(&[small.clone(), vec![large.clone()]].concat());
        let (relay, played) = FakeRelay::scripted(Script {
            negentropy,
            information: Some(r#"{"limitation":{"max_message_length":4096}}"#),
            message_bytes_max: Some(4_096),
            ..Script::default()
        });
        let report = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(report["outcome"], "converged", "{report:#}");
        let left = &report["peers"][0]["unresolved"];
        assert_eq!(left[0]["ids"], json!([large.id.to_hex()]), "{report:#}");
        assert_eq!(left.as_array().map(Vec::len), Some(1), "{report:#}");
        assert_eq!(report["totals"]["refused_by_peer"], json!({"too_large": 1}));
        assert_eq!(played.held(), ids_of(&small), "{report:#}");
        let again = home.sync(&["--peer", relay.address()], 0);
        assert_eq!(again["outcome"], "converged", "{again:#}");
        assert_eq!(again["peers"][0]["unresolved"], json!([]), "{again:#}");
        assert_eq!(again["totals"]["have"], 0, "{again:#}");
    }
}
