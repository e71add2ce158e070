//! `constellation diff` and `constellation mirror`: the real binary between two relays, good ones and others.

mod common;

use std::collections::BTreeSet;

use common::fake_relay::{Asks, Delivery, FakeRelay, Listing, Negentropy, Publishing, Script};
use common::tunnelled::{address, own_node, peer_id, text};
use common::{
    Home, author, deletion, event, forged, ids_of, nobody, note, notes, now, wait_until,
    with_bad_signature,
};
use nostr::event::Event;
use serde_json::{Value, json};

const NO_NIP77: Negentropy = Negentropy::Notice("ERROR: bad msg: unknown cmd");

/// The command, in a home whose data directory it must not make.
#[track_caller]
fn pair(arguments: &[&str], code: i32) -> Value {
    let home = Home::new();
    let report = home.run(&[arguments, &["--json"]].concat()).with_code(code);
    assert!(!home.data().exists(), "nothing is kept");
    report.json()
}

fn ids(list: &Value) -> BTreeSet<String> {
    let ids = list.as_array().expect("a list").iter();
    ids.map(|id| id.as_str().expect("an id").to_owned())
        .collect()
}

fn joined(parts: &[&[Event]]) -> Vec<Event> {
    parts.concat()
}

#[test]
fn two_stations_are_compared_and_made_equal_in_the_direction_asked_for() {
    let (left, right) = (Home::new(), Home::new());
    let at = now() - 10_000;
    let common = notes(&author(1), at, 300);
    let of_left = notes(&author(2), at + 50, 30);
    let of_right = [
        notes(&author(3), at + 70, 20),
        vec![event(&author(3), 30_078, at, &[&["d", "x"]], "not shared")],
    ]
    .concat();
    left.import(&joined(&[&common, &of_left]));
    right.import(&joined(&[&common, &of_right]));
    let (a, b) = (left.start(), right.start());
    let (a, b) = (a.address(), b.address());

    let report = pair(&["diff", a, b], 1);
    assert_eq!(report["outcome"], "partial", "{report:#}");
    assert_eq!(ids(&report["only_a"]), ids_of(&of_left));
    assert_eq!(ids(&report["only_b"]), ids_of(&of_right[..20]));
    assert_eq!(
        (
            &report["a"]["method"],
            &report["a"]["only"],
            &report["b"]["only"]
        ),
        (&json!("negentropy"), &json!(30), &json!(20)),
        "{report:#}"
    );
    assert_eq!(report["unresolved"], json!([]));
    let all_kinds = pair(&["diff", a, b, "--kinds", "all"], 1);
    assert_eq!(ids(&all_kinds["only_b"]), ids_of(&of_right));
    let one_author = author(3).public_key().to_hex();
    let report = pair(&["diff", a, b, "--authors", &one_author], 1);
    assert_eq!(
        (&report["a"]["only"], &report["b"]["only"]),
        (&json!(0), &json!(20)),
        "{report:#}"
    );
    let none_since = pair(
        &["diff", a, b, "--days", "1", "--until", &now().to_string()],
        1,
    );
    assert_eq!(none_since["a"]["only"], 30, "{none_since:#}");
    let dry = pair(&["mirror", a, b, "--dry-run"], 0);
    assert_eq!(
        (&dry["dry_run"], &dry["a"]["only"]),
        (&json!(true), &json!(30))
    );
    assert_eq!(
        left.ids(),
        ids_of(&joined(&[&common, &of_left])),
        "nothing was moved"
    );

    let report = pair(&["mirror", a, b, "--direction", "a-to-b"], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert_eq!(
        (
            &report["a"]["delivered"],
            &report["b"]["taken"],
            &report["a"]["taken"]
        ),
        (&json!(30), &json!(30), &json!(0)),
        "{report:#}"
    );
    assert_eq!(
        (
            &report["a"]["only_at_first"],
            &report["a"]["only"],
            &report["b"]["only"]
        ),
        (&json!(30), &json!(0), &json!(20)),
        "{report:#}"
    );
    assert_eq!(left.ids(), ids_of(&joined(&[&common, &of_left])));
    let report = pair(&["mirror", a, b], 0);
    assert_eq!(
        (&report["a"]["taken"], &report["b"]["taken"]),
        (&json!(20), &json!(0))
    );
    let shared = ids_of(&joined(&[&common, &of_left, &of_right[..20]]));
    assert_eq!(left.ids(), shared);
    let report = pair(&["diff", a, b], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    let bytes = |side: &str, key: &str| report[side][key].as_u64().expect("a number");
    let all = bytes("a", "bytes_in") + bytes("b", "bytes_in");
    assert!(all < 2_500, "equal sets cost little: {report:#}");
    left.verify();
    right.verify();
}

#[test]
fn a_deletion_on_one_side_wins_over_the_event_on_the_other() {
    let (left, right) = (Home::new(), Home::new());
    let at = now() - 10_000;
    let kept = notes(&author(1), at, 10);
    let gone = note(&author(1), at + 100, "to be deleted");
    let deleting = deletion(&author(1), at + 200, &gone);
    left.import(&[&kept[..5], std::slice::from_ref(&gone)].concat());
    right.import(&[&kept[5..], std::slice::from_ref(&deleting)].concat());
    let (a, b) = (left.start(), right.start());
    let report = pair(&["mirror", a.address(), b.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert_eq!(
        report["b"]["refused"],
        json!({}),
        "never offered: {report:#}"
    );
    let expected = ids_of(&[&kept[..], &[deleting]].concat());
    assert_eq!((left.ids(), right.ids()), (expected.clone(), expected));
}

#[test]
fn a_mirror_gives_nothing_to_a_relay_whose_deletions_it_could_not_see() {
    let one = author(1);
    let deleted = note(&one, now() - 500, "deleted there");
    let deletion = deletion(&one, now() - 400, &deleted);
    let other = note(&author(2), now() - 300, "only there");
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::UpTo {
            events: 1_000,
            is_stated: false,
        },
        ..Script::holding(std::slice::from_ref(&deleted))
    });
    // It keeps no tombstones, and does not list deletions.
    let (forgetful, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            refuses_kind: Some((5, "error: not now")),
            ..Listing::default()
        },
        ..Script::holding(&[deletion, other])
    });
    let report = pair(&["mirror", relay.address(), forgetful.address()], 1);
    assert!(played.take_offered().is_empty(), "{report:#}");
    let left = report["unresolved"].as_array().expect("a list");
    let why = |left: &Value| left["why"].as_str().unwrap_or_default().to_owned();
    assert!(
        left.iter()
            .any(|left| left["side"] == "a" && why(left).contains("deleted is known")),
        "{report:#}"
    );
}

#[test]
fn a_relay_without_nip77_is_read_to_its_end_and_mirrored() {
    let home = Home::new();
    let first = now() - 20_000;
    let theirs: Vec<Event> = (0..200u64)
        .map(|number| {
            let author = author(1 + u8::try_from(number % 20).expect("a byte"));
            note(&author, first + number / 3, &format!("note {number}"))
        })
        .collect();
    let ours = notes(&author(200), first + 20, 40);
    home.import(&joined(&[&theirs[..100], &ours]));
    let station = home.start();
    let (relay, played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(7),
            repeats: true,
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let report = pair(&["diff", relay.address(), station.address()], 1);
    assert_eq!(
        (&report["a"]["method"], &report["b"]["method"]),
        (&json!("windows"), &json!("negentropy"))
    );
    assert_eq!(
        (&report["a"]["only"], &report["unresolved"]),
        (&json!(100), &json!([]))
    );
    assert_eq!(ids(&report["only_a"]), ids_of(&theirs[100..]));
    assert_eq!(ids(&report["only_b"]), ids_of(&ours));
    assert_eq!(played.take_offered(), Vec::<String>::new());

    let report = pair(&["mirror", station.address(), relay.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    let all = ids_of(&joined(&[&theirs, &ours]));
    assert_eq!((home.ids(), played.held()), (all.clone(), all));

    // Two of that sort, one of which asks who is there.
    let (other, other_played) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        asks: Some(Asks::Late),
        ..Script::default()
    });
    pair(&["mirror", relay.address(), other.address()], 0);
    assert_eq!(other_played.held(), played.held());
    assert_eq!(other_played.introduced().len(), other_played.connections());
}

#[test]
fn what_cannot_be_listed_is_a_gap_and_no_difference() {
    let at = now() - 20_000;
    // Sixty authors in one second, of which a relay shows seven at a time and whose kinds cannot be named.
    let crowd: Vec<Event> = (1..=60)
        .map(|number| note(&author(number), at, "now"))
        .collect();
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: NO_NIP77,
        listing: Listing {
            cap: Some(7),
            ..Listing::default()
        },
        ..Script::holding(&crowd)
    });
    let missing = note(&author(77), at, "now");
    let mut held = crowd.clone();
    held.push(missing.clone());
    let (other, _) = FakeRelay::scripted(Script::holding(&held));
    let report = pair(
        &["diff", relay.address(), other.address(), "--kinds", "all"],
        1,
    );
    assert_eq!(report["a"]["only"], 0, "{report:#}");
    assert_eq!(
        ids(&report["only_b"]),
        ids_of(&[missing]),
        "asked for by id, it gives the others: {report:#}"
    );
    let gap = &report["unresolved"][0];
    assert_eq!(
        (&gap["side"], &gap["since"], &gap["until"]),
        (&json!("a"), &json!(at), &json!(at)),
        "{report:#}"
    );
}

#[test]
fn what_a_forger_holds_is_counted_named_and_never_offered() {
    let genuine = notes(&author(1), now() - 10_000, 20);
    let hidden = event(
        &author(1),
        30_078,
        now() - 5_000,
        &[&["d", "x"]],
        "another kind",
    );
    let protected = event(&author(1), 1, now() - 5_000, &[&["-"]], "for its author");
    let expired = event(
        &author(1),
        1,
        now() - 5_000,
        &[&["expiration", "1700000000"]],
        "",
    );
    let script = Script::holding(&genuine[3..])
        .and(&genuine[0], forged(&genuine[0], "content", "other words"))
        .and(&genuine[1], with_bad_signature(&genuine[1]))
        .and(&genuine[2], forged(&genuine[2], "content", 7))
        .and(&hidden, hidden.as_json())
        .and(&protected, protected.as_json())
        .and(&expired, expired.as_json())
        .and_only_lists(&note(&author(1), now() - 4_000, "never delivered"));
    let (forger, _) = FakeRelay::scripted(script);
    let (honest, played) = FakeRelay::scripted(Script::default());
    let report = pair(&["mirror", forger.address(), honest.address()], 1);
    assert_eq!(report["outcome"], "partial", "{report:#}");
    assert_eq!(
        report["a"]["rejected"],
        json!({
            "bad_id": 1, "bad_signature": 1, "malformed": 1, "outside_filter": 1, "protected": 1, "expired": 1
        }),
        "{report:#}"
    );
    let offered: BTreeSet<String> = played.take_offered().into_iter().collect();
    assert_eq!(offered, ids_of(&genuine[3..]));
    assert_eq!(report["b"]["taken"], 17);
    let left = report["unresolved"].as_array().expect("a list");
    let count_of = |words: &str| {
        let found = left
            .iter()
            .find(|left| left["why"].as_str().expect("words").contains(words));
        found.map_or(0, |left| left["count"].as_u64().expect("a number"))
    };
    assert_eq!(left.len(), 7, "{report:#}");
    for words in [
        "bad_id",
        "bad_signature",
        "malformed",
        "not delivered",
        "protected",
    ] {
        assert_eq!(count_of(words), 1, "{words}: {report:#}");
    }
}

#[test]
fn a_relay_that_delivers_mostly_forgeries_ends_it() {
    let genuine = notes(&author(1), now() - 10_000, 300);
    let script = genuine.iter().fold(Script::default(), |script, event| {
        script.and(event, with_bad_signature(event))
    });
    let (forger, _) = FakeRelay::scripted(script);
    let (honest, played) = FakeRelay::scripted(Script::default());
    let report = pair(&["mirror", forger.address(), honest.address()], 1);
    assert_eq!(report["outcome"], "failed", "{report:#}");
    assert_eq!(report["a"]["error"]["reason"], "forgeries", "{report:#}");
    assert_eq!(played.take_offered(), Vec::<String>::new());
}

#[test]
fn what_a_relay_refuses_is_named_with_its_reason_and_offered_once() {
    let theirs = notes(&author(1), now() - 10_000, 120);
    let (holder, _) = FakeRelay::scripted(Script::holding(&theirs));
    let (refusing, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Refuses("deleted: its author asked for it"),
        ..Script::default()
    });
    let report = pair(&["mirror", holder.address(), refusing.address()], 1);
    assert_eq!(report["outcome"], "partial", "{report:#}");
    assert_eq!(report["b"]["refused"], json!({"deleted": 120}));
    let left = report["unresolved"].as_array().expect("a list");
    assert_eq!(left.len(), 1, "{report:#}");
    assert_eq!(
        (&left[0]["side"], &left[0]["count"], &left[0]["why"]),
        (&json!("a"), &json!(120), &json!("refused by b: deleted"))
    );
    assert_eq!(ids(&left[0]["ids"]).len(), 100, "a hundred are named");
    let offered = played.take_offered();
    assert_eq!(offered.len(), 120);
    let offered: BTreeSet<String> = offered.into_iter().collect();
    assert_eq!(offered, ids_of(&theirs), "each once");
}

#[test]
fn relays_that_are_hasty_capped_or_forgetful_are_told_apart() {
    let theirs = notes(&author(1), now() - 10_000, 60);
    let holding = |script: Script| FakeRelay::scripted(script);
    let (capped, _) = holding(Script {
        delivery: Delivery::Capped(20),
        ..Script::holding(&theirs)
    });
    let (hasty, played) = holding(Script {
        publishing: Publishing::Limits(7),
        ..Script::default()
    });
    let report = pair(&["mirror", capped.address(), hasty.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert_eq!(played.held(), ids_of(&theirs));

    let (forgetful, _) = holding(Script {
        publishing: Publishing::Forgets,
        ..Script::default()
    });
    let report = pair(&["mirror", capped.address(), forgetful.address()], 1);
    assert_eq!(
        report["unresolved"][0]["why"], "accepted by b, but still missing there",
        "{report:#}"
    );
    assert_eq!(report["unresolved"][0]["count"], 60);
}

#[test]
fn a_connection_that_breaks_is_made_again_as_long_as_something_comes_of_it() {
    let theirs = notes(&author(1), now() - 10_000, 120);
    let (breaking, played) = FakeRelay::scripted(Script {
        information: Some(r#"{"limitation":{"max_limit":5}}"#),
        hangs_up_after: Some(12),
        ..Script::holding(&theirs)
    });
    let (other, other_played) = FakeRelay::scripted(Script::default());
    let report = pair(&["mirror", breaking.address(), other.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report:#}");
    assert_eq!(other_played.held(), ids_of(&theirs));
    assert!(played.connections() > 2, "{report:#}");
    assert_eq!(report["a"]["only_at_first"], 120, "{report:#}");
}

#[test]
fn a_relay_that_compares_little_at_a_time_is_compared_in_halves() {
    let at = now() - 200_000;
    let theirs: Vec<Event> = (0..150)
        .map(|number| note(&author(1), at + number * 900, "now and then"))
        .collect();
    let (small, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::UpTo {
            events: 20,
            is_stated: false,
        },
        ..Script::holding(&theirs)
    });
    let home = Home::new();
    home.import(&theirs[10..]);
    let station = home.start();
    let report = pair(&["diff", small.address(), station.address()], 1);
    assert_eq!(report["a"]["method"], "negentropy", "{report:#}");
    assert_eq!(ids(&report["only_a"]), ids_of(&theirs[..10]), "{report:#}");
    assert_eq!(report["only_b"], json!([]));
}

#[test]
fn who_cannot_be_reached_or_named_is_told_in_words() {
    let (relay, _) = FakeRelay::scripted(Script::default());
    let report = pair(&["diff", relay.address(), &nobody()], 3);
    assert_eq!(report["outcome"], "failed", "{report:#}");
    assert_eq!(
        (&report["a"]["error"], &report["b"]["error"]["step"]),
        (&Value::Null, &json!("connect"))
    );
    let home = Home::new();
    let station = "/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let refused = home.run(&["mirror", relay.address(), station]).with_code(2);
    assert!(refused.err.contains("switched off"), "{refused:?}");
    let twice = home
        .run(&["diff", relay.address(), relay.address()])
        .with_code(2);
    assert!(twice.err.contains("same relay"), "{twice:?}");
    let shown = home
        .run(&["diff", relay.address(), &nobody()])
        .with_code(3)
        .out;
    assert!(shown.contains("failed"), "{shown}");
}

#[test]
fn stations_are_named_by_peer_id_or_name_and_reached_by_the_station_that_runs_or_is_opened() {
    let named = format!("[station]\nname = \"bureau\"\n{}", own_node(""));
    let (one, other, third) = (
        Home::with_config(&own_node("")),
        Home::with_config(&named),
        Home::new(),
    );
    let running = one.start();
    let _at_other = other.start();
    let at_third = third.start();
    let invited = one.run(&["invite", "--json"]).with_code(0).json();
    other.run(&["join", &text(&invited["token"])]).with_code(0);
    let at = now() - 10_000;
    other.import(&notes(&author(1), at, 50));
    third.import(&notes(&author(2), at, 20));

    let id = peer_id(&other);
    let to_third = at_third.address();
    let differing = one
        .run(&["diff", &id, to_third, "--json"])
        .with_code(1)
        .json();
    let only = (&differing["a"]["only"], &differing["b"]["only"]);
    assert_eq!(only, (&json!(50), &json!(20)), "{differing:#}");
    assert_eq!(differing["a"]["address"], format!("/p2p/{id}"));
    wait_until("it is known what the station calls itself", || {
        let peers = one.run(&["peers", "--json"]).with_code(0);
        peers.out.contains("bureau")
    });
    let mirrored = one
        .run(&["mirror", "bureau", to_third, "--json"])
        .with_code(0)
        .json();
    assert_eq!(mirrored["outcome"], "converged", "{mirrored:#}");
    assert_eq!((other.count("{}"), third.count("{}")), (70, 70));
    assert_eq!(one.count("{}"), 0, "nothing is kept on the way");
    let unknown = one.run(&["diff", "nobody", to_third]).with_code(2);
    assert!(unknown.err.contains("calls itself so"), "{unknown:?}");

    // Where no station runs, it is opened for as long as this takes; and nobody gets in by a stranger's.
    running.stop();
    one.run(&["diff", &address(&other), to_third]).with_code(0);
    let stranger = Home::with_config(&own_node(""));
    let refused = stranger
        .run(&["diff", &address(&other), to_third, "--json"])
        .with_code(3);
    assert!(!refused.json()["a"]["error"].is_null(), "{refused:?}");
}
