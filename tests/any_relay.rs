//! Relays as they are: without NIP-77, with caps that they do not state, asking who is there, small, hasty, forgetful.
//!
//! Each exchange with one of them ends converged, or with exactly what is missing: the harness knows what it withheld.

mod common;

use std::collections::BTreeSet;

use common::fake_relay::{Asks, FakeRelay, Listing, Negentropy, Played, Publishing, Script};
use common::{Home, author, deletion, event, ids_of, note, notes, now};
use nostr::event::Event;
use serde_json::{Value, json};
use std::sync::Arc;

const NO_NIP77: Negentropy = Negentropy::Notice("ERROR: bad msg: unknown cmd");

/// Notes of many authors, three a second.
fn crowd(authors: u8, count: u64) -> Vec<Event> {
    let first = now() - 20_000;
    (0..count)
        .map(|number| {
            let author = author(1 + u8::try_from(number % u64::from(authors)).expect("a byte"));
            note(&author, first + number / 3, &format!("note {number}"))
        })
        .collect()
}

fn first_peer(report: &Value) -> &Value {
    &report["peers"][0]
}

/// A run with a relay that holds `theirs`, for a station that holds `ours`; both must hold everything afterwards.
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
    let (relay, played) = FakeRelay::scripted(script);
    let report = home.sync(&["--peer", relay.address()], 0);
    let peer = first_peer(&report).clone();
    assert_eq!(peer["outcome"], "converged", "{named}: {report:#}");
    assert_eq!(peer["unresolved"], json!([]), "{named}: {report:#}");
    let all: BTreeSet<String> = ids_of(theirs).union(&ids_of(ours)).cloned().collect();
    assert_eq!(home.ids(), all, "{named}");
    assert_eq!(played.held(), all, "{named}");
    // Again: nothing is moved.
    let again = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(
        (&again["totals"]["stored"], &again["totals"]["uploaded"]),
        (&json!(0), &json!(0)),
        "{named}: {again:#}"
    );
    home.verify();
    (peer, played)
}

#[test]
fn relays_without_nip77_are_read_to_the_end_whatever_they_do() {
    let theirs = crowd(20, 300);
    let ours = notes(&author(200), now() - 5_000, 40);
    let scripts: Vec<(&str, Script)> = vec![
        ("a notice instead of an error", Script::default()),
        (
            "silence",
            Script {
                negentropy: Negentropy::Error("unsupported: no"),
                ..Script::default()
            },
        ),
        (
            "a cap of seven",
            Script {
                listing: Listing {
                    cap: Some(7),
                    ..Listing::default()
                },
                ..Script::default()
            },
        ),
        (
            "a cap of a hundred while five thousand are stated",
            Script {
                information: Some(r#"{"limitation":{"max_limit":5000}}"#),
                listing: Listing {
                    cap: Some(100),
                    ..Listing::default()
                },
                ..Script::default()
            },
        ),
        (
            "everything twice",
            Script {
                listing: Listing {
                    cap: Some(50),
                    repeats: true,
                    ..Listing::default()
                },
                ..Script::default()
            },
        ),
        (
            "events that nobody asked for",
            Script {
                listing: Listing {
                    cap: Some(50),
                    unwanted: vec![event(&author(99), 30_078, now(), &[&["d", "x"]], "").as_json()],
                    ..Listing::default()
                },
                ..Script::default()
            },
        ),
        (
            "too fast, for a while",
            Script {
                listing: Listing {
                    cap: Some(100),
                    limits: 2,
                    ..Listing::default()
                },
                publishing: Publishing::Limits(3),
                ..Script::default()
            },
        ),
        (
            "who is there, at first",
            Script {
                asks: Some(Asks::AtFirst),
                ..Script::default()
            },
        ),
        (
            "who is there, late",
            Script {
                asks: Some(Asks::Late),
                ..Script::default()
            },
        ),
        (
            "hanging up again and again",
            Script {
                hangs_up_after: Some(30),
                listing: Listing {
                    cap: Some(20),
                    ..Listing::default()
                },
                ..Script::default()
            },
        ),
        (
            "small messages only",
            Script {
                message_bytes_max: Some(4_096),
                ..Script::default()
            },
        ),
    ];
    for (named, script) in scripts {
        eprintln!("{named}");
        let negentropy = match script.negentropy {
            Negentropy::Honest => NO_NIP77,
            other => other,
        };
        let held = Script::holding(&theirs);
        let script = Script {
            negentropy,
            listed: held.listed,
            delivered: held.delivered,
            ..script
        };
        let (peer, _) = assert_converges(named, script, &theirs, &ours);
        assert_eq!(peer["method"], "windows", "{named}");
        assert_eq!(
            (
                &peer["need"],
                &peer["have"],
                &peer["need_after"],
                &peer["have_after"]
            ),
            (&json!(300), &json!(40), &json!(0), &json!(0)),
            "{named}: {peer:#}"
        );
    }
}

#[test]
fn relays_that_ask_who_is_there_are_told_once_and_then_reconciled_with() {
    let theirs = crowd(5, 50);
    let ours = notes(&author(200), now() - 5_000, 10);
    for asks in [Asks::AtFirst, Asks::Late] {
        let script = Script {
            asks: Some(asks),
            ..Script::holding(&theirs)
        };
        let (peer, played) = assert_converges("asks", script, &theirs, &ours);
        assert_eq!(peer["method"], "negentropy", "{peer:#}");
        let keys: BTreeSet<String> = played.introduced().into_iter().collect();
        assert_eq!(keys.len(), 1, "one key for both runs: {keys:?}");
    }
}

/// All that is withheld lies in a range that is reported, and nothing else is reported.
#[test]
fn a_second_that_is_fuller_than_an_answer_is_split_by_kind_and_author_and_then_reported() {
    let second = now() - 1_000;
    let spread = crowd(5, 30);
    // Thirty notes of thirty authors in one second, and five reactions, which fit.
    let full: Vec<Event> = (0..30)
        .map(|number| note(&author(100 + number), second, &format!("{number}")))
        .collect();
    let reactions: Vec<Event> = (0..5)
        .map(|number| event(&author(100 + number), 7, second, &[], "+"))
        .collect();
    let theirs: Vec<Event> = [spread, full, reactions].concat();
    let home = Home::new();
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(7),
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let report = home.sync(&["--peer", relay.address()], 1);
    let peer = first_peer(&report);
    assert_eq!(peer["outcome"], "partial", "{report:#}");
    let withheld: BTreeSet<String> = played.held().difference(&home.ids()).cloned().collect();
    assert!(!withheld.is_empty(), "the harness withholds something");
    let gaps = peer["unresolved"].as_array().expect("a list");
    assert_eq!(gaps.len(), 1, "{report:#}");
    assert_eq!(
        (&gaps[0]["since"], &gaps[0]["until"], &gaps[0]["kinds"]),
        (&json!(second), &json!(second), &json!([1])),
        "only what was withheld: {report:#}"
    );
    for event in &theirs {
        let is_covered = event.created_at.as_secs() == second && event.kind.as_u16() == 1;
        assert!(is_covered || !withheld.contains(&event.id.to_hex()));
    }
    // With NIP-77 the same relay hides nothing.
    played.change(|script| script.negentropy = Negentropy::Honest);
    let other = Home::new();
    let report = other.sync(&["--peer", relay.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
}

#[test]
fn a_peer_that_is_asked_in_vain_is_not_converged_with() {
    let theirs = crowd(5, 30);
    let home = Home::new();
    home.import(&notes(&author(200), now() - 5_000, 3));
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            refuses: Some("blocked: not for you"),
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let report = home.sync(&["--peer", relay.address()], 1);
    let peer = first_peer(&report);
    assert_ne!(peer["outcome"], "converged", "{report:#}");
    let left = peer["unresolved"].as_array().expect("a list");
    let says = |gap: &Value| {
        gap["why"]
            .as_str()
            .is_some_and(|why| why.contains("not for you"))
    };
    assert!(
        left.iter().any(|gap| gap["kinds"].is_array() && says(gap)),
        "{report:#}"
    );
    assert!(
        played.take_offered().is_empty(),
        "what it deleted is not known: {report:#}"
    );

    let (deaf, _) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(7),
            ignores_filters: true,
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let report = home.sync(&["--peer", deaf.address()], 1);
    assert_ne!(first_peer(&report)["outcome"], "converged", "{report:#}");
    let left = first_peer(&report)["unresolved"]
        .as_array()
        .expect("a list");
    assert!(left.iter().any(|gap| gap["kinds"].is_array()), "{report:#}");
}

#[test]
fn an_acceptance_that_is_none_is_reported_and_the_event_is_not_offered_again_for_a_day() {
    let ours = notes(&author(200), now() - 5_000, 3);
    let home = Home::new();
    home.import(&ours);
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        publishing: Publishing::Forgets,
        ..Script::default()
    });
    let report = home.sync(&["--peer", relay.address()], 1);
    let peer = first_peer(&report);
    assert_eq!(
        (&peer["outcome"], &peer["have_after"]),
        (&json!("partial"), &json!(3)),
        "{report:#}"
    );
    let left = &peer["unresolved"][0];
    let named: BTreeSet<String> = left["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id.as_str().expect("hex").to_owned())
        .collect();
    assert_eq!(named, ids_of(&ours), "{report:#}");
    played.take_offered();
    let report = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert!(played.take_offered().is_empty());
}

#[test]
fn what_was_deleted_before_the_window_is_not_given_back_to_a_relay_without_nip77() {
    let keys = author(1);
    let old = now() - 30 * 24 * 3600;
    let wanted = note(
        &keys,
        now() - 100,
        "of today, deleted by a deletion that is dated back",
    );
    let removed = deletion(&keys, old, &wanted);
    let home = Home::new();
    home.import(std::slice::from_ref(&wanted));
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        ..Script::holding(std::slice::from_ref(&removed))
    });
    let report = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert!(!played.holds(&wanted), "{report:#}");
    assert_eq!(home.ids(), ids_of(&[removed]));
}

#[test]
fn that_a_peer_has_no_nip77_is_remembered_for_a_day() {
    let home = Home::new();
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        ..Script::holding(&crowd(3, 10))
    });
    home.sync(&["--peer", relay.address()], 0);
    assert_eq!(played.take_negotiated(), 1);
    home.sync(&["--peer", relay.address()], 0);
    assert_eq!(played.take_negotiated(), 0, "it is not asked again");
}

#[test]
fn a_peer_with_a_cap_of_bandwidth_gets_and_gives_no_more() {
    let theirs: Vec<Event> = (0..60)
        .map(|number| note(&author(1), now() - 10_000 + number, &"x".repeat(2_000)))
        .collect();
    let (relay, _) = FakeRelay::scripted(Script::holding(&theirs));
    let peer = format!(
        "[[peers]]\naddress = \"{}\"\nbandwidth = 40000\n",
        relay.address()
    );
    let home = Home::with_config(&format!("{}{peer}", common::QUIET));
    let report = home.sync(&[], 0);
    // 150 kB, and a second's worth may come at once.
    let took = first_peer(&report)["duration_ms"]
        .as_u64()
        .expect("a number");
    assert!((2_000..20_000).contains(&took), "{report:#}");
    assert_eq!(home.ids(), ids_of(&theirs));
    let wrong = Home::with_config(&peer.replace("40000", "40"));
    let ended = wrong.run(&["sync"]).with_code(2);
    assert!(ended.err.contains("at least 16000"), "{}", ended.err);
}
