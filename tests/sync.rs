//! Runs of the real binary against stations of the real binary: what converges, what stays away, what is reported.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::{SyncSender, sync_channel};

use common::{
    Home, author, deletion, event, ids_of, json_lines, note, notes, now, real_events, wait_for,
    wait_until,
};
use nostr::event::Event;
use rustix::process::Signal;
use serde_json::{Value, json};

const DAY: u64 = 24 * 3600;

/// Demands a run with one peer in which nothing was to be done.
#[track_caller]
fn assert_idle(report: &Value) {
    assert_eq!(report["outcome"], "converged", "{report}");
    for key in [
        "need",
        "have",
        "need_after",
        "have_after",
        "downloaded",
        "stored",
        "uploaded",
    ] {
        assert_eq!(report["totals"][key], 0, "{key}: {report}");
    }
}

#[track_caller]
fn assert_moved(report: &Value, stored: usize, uploaded: usize) {
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(report["totals"]["stored"], stored, "{report}");
    assert_eq!(report["totals"]["uploaded"], uploaded, "{report}");
}

fn keys_of(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn two_stations_become_equal_through_a_third_and_stay_so() {
    let (left, right, middle) = (Home::new(), Home::new(), Home::new());
    let at = now() - 10_000;
    let (one, two) = (author(1), author(2));
    let common = notes(&one, at, 50);
    let of_left: Vec<Event> = notes(&one, at + 1_000, 300);
    let mut of_right: Vec<Event> = notes(&two, at + 1_000, 200);
    of_right.push(event(&two, 0, at, &[], "{}"));
    let (at_left, at_right) = (left.start(), right.start());
    left.import(&[common.clone(), of_left.clone()].concat());
    right.import(&[common.clone(), of_right.clone()].concat());
    middle.import(&common);

    let first = middle.sync(&["--peer", at_left.address()], 0);
    assert_moved(&first, 300, 0);
    let second = middle.sync(&["--peer", at_right.address()], 0);
    assert_moved(&second, 201, 300);
    let third = middle.sync(&["--peer", at_left.address()], 0);
    assert_moved(&third, 0, 201);

    let both = ["--peer", at_left.address(), "--peer", at_right.address()];
    let last = middle.sync(&both, 0);
    assert_idle(&last);
    assert_eq!(last["totals"]["peers_succeeded"], 2);
    assert_eq!(
        last["totals"]["rounds"], 2,
        "equal sets cost one round each"
    );
    let expected = ids_of(&[common, of_left, of_right].concat());
    for home in [&left, &right, &middle] {
        assert_eq!(home.ids(), expected);
        home.verify();
    }
    assert_eq!(left.export(), right.export());

    // A line for each run, the newest last.
    let history = std::fs::read_to_string(middle.data().join("state/history.jsonl")).expect("kept");
    let kept: Vec<Value> = history
        .lines()
        .map(|line| serde_json::from_str(line).expect("a report"))
        .collect();
    assert_eq!(kept, [first, second, third, last.clone()]);
    assert_eq!(middle.status()["last_run"], last);
    at_left.stop();
    at_right.stop();
}

#[test]
fn the_report_has_the_shape_that_was_promised() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let (one, two) = (author(1), author(2));
    let theirs = [
        notes(&one, at, 7),
        vec![event(&two, 0, at, &[], "{}"), event(&two, 7, at, &[], "+")],
    ]
    .concat();
    home.import(&notes(&two, at + 100, 4));
    let station = peer.start();
    peer.import(&theirs);
    let report = home.sync(&["--peer", station.address()], 0);

    assert_eq!(
        keys_of(&report),
        [
            "dry_run",
            "duration_ms",
            "facts",
            "named_peers",
            "outcome",
            "peers",
            "run_id",
            "started_at",
            "totals"
        ]
    );
    let started = report["started_at"].as_str().expect("a time");
    let started: jiff::Timestamp = started.parse().expect("RFC 3339");
    let ago = i64::try_from(now()).expect("this century") - started.as_second();
    assert!(
        (0..60).contains(&ago)
            && report["started_at"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z'))
    );
    let peers = report["peers"].as_array().expect("a list");
    assert_eq!(peers.len(), 1);
    assert_eq!(
        keys_of(&peers[0]),
        [
            "address",
            "by_kind",
            "bytes_in",
            "bytes_out",
            "downloaded",
            "duplicates",
            "duration_ms",
            "error",
            "have",
            "have_after",
            "lag_s",
            "method",
            "need",
            "need_after",
            "outcome",
            "refused_by_peer",
            "rejected",
            "rounds",
            "stored",
            "unresolved",
            "uploaded",
        ]
    );
    let expected = json!({
        "address": station.address(), "outcome": "converged", "error": null, "method": "negentropy",
        "need": 9, "have": 4, "need_after": 0, "have_after": 0, "downloaded": 9, "stored": 9,
        "duplicates": 0, "rejected": {}, "uploaded": 4, "refused_by_peer": {}, "unresolved": [],
        "by_kind": {"0": 1, "1": 7, "7": 1}, "lag_s": 0,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&peers[0][key], value, "{key}");
    }
    for key in ["bytes_in", "bytes_out", "rounds"] {
        assert!(
            peers[0][key].as_u64().is_some_and(|number| number > 0),
            "{key}"
        );
    }
    let totals = json!({
        "peers_total": 1, "peers_succeeded": 1, "peers_failed": 0, "authors_in_scope": null,
        "authors_received": 2, "need": 9, "have": 4, "need_after": 0, "have_after": 0,
        "downloaded": 9, "stored": 9, "duplicates": 0, "rejected": {}, "uploaded": 4,
        "refused_by_peer": {}, "by_kind": {"0": 1, "1": 7, "7": 1},
    });
    for (key, value) in totals.as_object().expect("an object") {
        assert_eq!(&report["totals"][key], value, "{key}");
    }
    for key in ["bytes_in", "bytes_out", "rounds"] {
        assert_eq!(report["totals"][key], peers[0][key], "{key}");
    }

    // In words, without a terminal.
    let text = home
        .run(&["sync", "--peer", station.address()])
        .with_code(0);
    assert!(
        text.out
            .contains("converged: 0 stored, 0 uploaded, 1 of 1 peers"),
        "{text:?}"
    );
    station.stop();
}

#[test]
fn real_events_spread_over_two_stations_become_one_set() {
    let Some((_, originals)) = real_events() else {
        return;
    };
    let (home, peer) = (Home::new(), Home::new());
    let halves: [String; 2] = [0, 1].map(|half| {
        let of_half = originals
            .values()
            .enumerate()
            .filter(|(number, _)| number % 2 == half);
        of_half.map(|(_, event)| format!("{event}\n")).collect()
    });
    home.feed(&["import"], halves[0].clone()).with_code(0);
    let station = peer.start();
    peer.feed(&["import"], halves[1].clone()).with_code(0);
    let report = home.sync(&["--peer", station.address(), "--kinds", "all"], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_idle(&home.sync(&["--peer", station.address(), "--kinds", "all"], 0));
    let ours = home.export();
    assert_eq!(ours.len(), 835);
    assert_eq!(ours, peer.export());
    for line in &ours {
        let event: Value = serde_json::from_str(line).expect("an event");
        assert_eq!(event, originals[event["id"].as_str().expect("an id")]);
    }
    station.stop();
}

#[test]
fn a_dry_run_says_what_it_would_move_and_moves_nothing() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let (ours, theirs) = (notes(&author(1), at, 3), notes(&author(2), at, 5));
    home.import(&ours);
    let station = peer.start();
    peer.import(&theirs);
    let report = home.sync(&["--peer", station.address(), "--dry-run"], 0);
    assert_eq!(
        (&report["dry_run"], &report["outcome"]),
        (&json!(true), &json!("partial"))
    );
    assert_eq!(
        (&report["totals"]["need"], &report["totals"]["have"]),
        (&json!(5), &json!(3))
    );
    let text = home
        .run(&["sync", "--peer", station.address(), "--dry-run"])
        .with_code(0);
    assert!(
        text.out.contains("5 to fetch, 3 to offer (dry run)"),
        "{text:?}"
    );
    assert_eq!((home.ids(), peer.ids()), (ids_of(&ours), ids_of(&theirs)));
    station.stop();
}

#[test]
fn events_go_only_in_the_direction_asked_for() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let (ours, theirs) = (notes(&author(1), at, 3), notes(&author(2), at, 5));
    let all = ids_of(&[ours.clone(), theirs.clone()].concat());
    home.import(&ours);
    let station = peer.start();
    peer.import(&theirs);
    let down = ["--peer", station.address(), "--direction", "down"];
    let report = home.sync(&down, 0);
    assert_moved(&report, 5, 0);
    assert_eq!(
        (
            &report["totals"]["need_after"],
            &report["totals"]["have_after"]
        ),
        (&json!(0), &json!(3))
    );
    assert_eq!((home.ids(), peer.ids()), (all.clone(), ids_of(&theirs)));
    assert_moved(&home.sync(&down, 0), 0, 0);

    let more = notes(&author(3), at, 2);
    peer.import(&more);
    let up = ["--peer", station.address(), "--direction", "up"];
    assert_moved(&home.sync(&up, 0), 0, 3);
    assert_eq!(home.ids(), all, "the two new ones stay where they are");
    assert_eq!(peer.ids().len(), 10);
    // The configuration can say it too.
    home.configure(&format!(
        "{}[[peers]]\naddress = \"{}\"\ndirection = \"down\"\n",
        common::QUIET,
        station.address()
    ));
    home.import(&notes(&author(4), at, 1));
    assert_moved(&home.sync(&[], 0), 2, 0);
    station.stop();
}

#[test]
fn kinds_and_windows_limit_what_is_shared() {
    let peer = Home::new();
    let keys = author(1);
    let late = now() - 1_000;
    let events = [
        note(&keys, late, "lately"),
        note(&keys, late - 3 * DAY, "three days ago"),
        note(&keys, 1_700_000_000, "long ago"),
        event(&keys, 7, late, &[], "+"),
        event(&keys, 1063, late, &[], "not among the default kinds"),
        event(&keys, 30_001, late, &[&["d", "list"]], ""),
    ];
    let station = peer.start();
    peer.import(&events);
    let taken = |arguments: &[&str]| {
        let home = Home::new();
        let all: Vec<&str> = ["--peer", station.address()]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let report = home.sync(&all, 0);
        assert_eq!(report["outcome"], "converged");
        assert_idle(&home.sync(&all, 0));
        let ids = home.ids();
        let places = (0..events.len()).filter(|place| ids.contains(&events[*place].id.to_hex()));
        places.collect::<Vec<_>>()
    };
    assert_eq!(taken(&[]), [0, 1, 2, 3]);
    assert_eq!(taken(&["--kinds", "all"]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(taken(&["--kinds", "7,1000-30001"]), [3, 4, 5]);
    assert_eq!(taken(&["--days", "1"]), [0, 3]);
    assert_eq!(taken(&["--days", "4"]), [0, 1, 3]);
    assert_eq!(taken(&["--days", "0"]), [0, 1, 2, 3]);
    assert_eq!(taken(&["--full"]), [0, 1, 2, 3]);
    assert_eq!(taken(&["--since", "1700000001"]), [0, 1, 3]);
    assert_eq!(
        taken(&["--since", "2023-11-14T22:13:20Z", "--until", "1700000000"]),
        [2]
    );
    assert_eq!(taken(&["--until", "2023-11-14T22:13:19Z"]), [0; 0]);
    station.stop();
}

#[test]
fn what_was_deleted_anywhere_stays_deleted_everywhere() {
    let (left, right, home) = (Home::new(), Home::new(), Home::new());
    let keys = author(1);
    let at = now() - 1_000;
    let regretted = note(&keys, at, "regretted");
    let draft = event(&keys, 30_023, at, &[&["d", "draft"]], "a draft");
    let address = format!("30023:{}:draft", keys.public_key().to_hex());
    let kept = note(&keys, at, "kept");
    let by_id = deletion(&keys, at + 10, &regretted);
    let by_address = event(&keys, 5, at + 10, &[&["a", &address]], "");
    let by_stranger = deletion(&author(2), at + 10, &kept);
    let gone = [regretted, draft];
    let expected = ids_of(&[
        kept.clone(),
        by_id.clone(),
        by_address.clone(),
        by_stranger.clone(),
    ]);

    let (at_left, at_right) = (left.start(), right.start());
    left.import(&gone);
    left.import(&[kept]);
    right.import(&[by_id, by_address, by_stranger]);
    // From whichever side one looks first.
    for peer in [&at_left, &at_right, &at_left, &at_right] {
        let report = home.sync(&["--peer", peer.address()], 0);
        assert_eq!(report["outcome"], "converged", "{report}");
    }
    for direction in ["down", "up", "both"] {
        for peer in [&at_right, &at_left] {
            assert_idle(&home.sync(&["--peer", peer.address(), "--direction", direction], 0));
        }
    }
    for station in [&left, &right, &home] {
        assert_eq!(station.ids(), expected);
        let again = station
            .feed(&["import", "--json"], json_lines(&gone))
            .with_code(0)
            .json();
        assert_eq!(
            (&again["stored"], &again["rejected"]["deleted"]),
            (&json!(0), &json!(2))
        );
    }

    // Nor do restarts, crashes and newcomers bring it back.
    at_left.stop();
    at_right.kill();
    let (at_left, at_right) = (left.start(), right.start());
    let newcomer = Home::new();
    newcomer.feed(&["import"], json_lines(&gone)).with_code(0);
    for peer in [&at_left, &at_right, &at_left] {
        newcomer.sync(&["--peer", peer.address()], 0);
        home.sync(&["--peer", peer.address()], 0);
    }
    for station in [&left, &right, &home, &newcomer] {
        assert_eq!(station.ids(), expected);
        station.verify();
    }
    at_left.stop();
    at_right.stop();
}

#[test]
fn a_peer_that_still_has_what_was_deleted_here_is_told_and_then_equal() {
    let (home, peer) = (Home::new(), Home::new());
    let keys = author(1);
    let at = now() - 1_000;
    let regretted = notes(&keys, at, 20);
    let deletions: Vec<Event> = regretted
        .iter()
        .map(|note| deletion(&keys, at + 50, note))
        .collect();
    home.import(&deletions);
    let station = peer.start();
    peer.import(&regretted);
    // Without its deletions, so that the peer keeps its notes: they are refused once and then no difference.
    let notes_only = ["--peer", station.address(), "--kinds", "1"];
    let report = home.sync(&notes_only, 0);
    assert_moved(&report, 0, 0);
    assert_idle(&home.sync(&notes_only, 0));
    assert_eq!(peer.ids().len(), 20);
    assert_moved(&home.sync(&["--peer", station.address()], 0), 0, 20);
    assert_idle(&home.sync(&["--peer", station.address()], 0));
    assert_eq!(
        (home.ids(), peer.ids()),
        (ids_of(&deletions), ids_of(&deletions))
    );
    station.stop();
}

#[test]
fn the_newest_version_wins_everywhere() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let keys = author(1);
    let profile = |at: u64, name: &str| event(&keys, 0, at, &[], name);
    let article = |at: u64, text: &str| event(&keys, 30_023, at, &[&["d", "x"]], text);
    let (old_profile, new_profile) = (profile(at, "old"), profile(at + 5, "new"));
    let (old_article, new_article) = (article(at, "old"), article(at + 5, "new"));
    // Of the same second: the lower id.
    let mut twins = [event(&keys, 3, at, &[], "a"), event(&keys, 3, at, &[], "b")];
    twins.sort_by_key(|event| event.id);
    home.import(&[old_profile, new_article.clone(), twins[0].clone()]);
    let station = peer.start();
    peer.import(&[new_profile.clone(), old_article, twins[1].clone()]);
    assert_moved(&home.sync(&["--peer", station.address()], 0), 1, 2);
    assert_idle(&home.sync(&["--peer", station.address()], 0));
    let expected = ids_of(&[new_profile, new_article, twins[0].clone()]);
    assert_eq!((home.ids(), peer.ids()), (expected.clone(), expected));
    home.verify();
    peer.verify();
    station.stop();
}

#[test]
fn expired_events_go_and_are_no_difference() {
    let (home, peer) = (Home::new(), Home::new());
    let keys = author(1);
    let at = now() - 10;
    let lasting = note(&keys, at, "lasting");
    let soon = (now() + 3).to_string();
    let passing = event(&keys, 1, at, &[&["expiration", &soon]], "passing");
    let station = peer.start();
    peer.import(&[lasting.clone(), passing]);
    let first = home.sync(&["--peer", station.address()], 0);
    assert_eq!(first["outcome"], "converged", "{first}");
    wait_until("it has expired", || peer.status()["events"] == 1);
    assert_idle(&home.sync(&["--peer", station.address()], 0));
    assert_eq!(
        (home.ids(), peer.ids()),
        (ids_of(std::slice::from_ref(&lasting)), ids_of(&[lasting]))
    );
    home.verify();
    peer.verify();
    station.stop();
}

#[test]
fn protected_events_stay_where_they_are_and_are_no_difference() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let protected = |number| event(&author(number), 1, at, &[&["-"]], "for this relay only");
    home.import(&[protected(1)]);
    let station = peer.start();
    peer.import(&[protected(2), note(&author(2), at, "for all")]);
    assert_moved(&home.sync(&["--peer", station.address()], 0), 1, 0);
    assert_idle(&home.sync(&["--peer", station.address()], 0));
    assert!(!home.ids().contains(&protected(2).id.to_hex()));
    assert!(!peer.ids().contains(&protected(1).id.to_hex()));
    station.stop();
}

#[test]
fn private_messages_are_shared_only_when_asked_for() {
    let peer = Home::new();
    let at = now() - 1_000;
    let to = author(2).public_key().to_hex();
    let private: Vec<Event> = [4, 13, 1059]
        .map(|kind| event(&author(1), kind, at, &[&["p", &to]], "sealed"))
        .into();
    let open = note(&author(1), at, "open");
    let station = peer.start();
    peer.import(&private);
    peer.import(std::slice::from_ref(&open));
    let all = ids_of(&[private, vec![open.clone()]].concat());
    for (arguments, expected) in [
        (vec![], ids_of(&[open])),
        (vec!["--dms"], all.clone()),
        (vec!["--kinds", "all"], all),
    ] {
        let home = Home::new();
        let arguments = [vec!["--peer", station.address()], arguments].concat();
        assert_eq!(home.sync(&arguments, 0)["outcome"], "converged");
        assert_eq!(home.ids(), expected, "{arguments:?}");
        assert_idle(&home.sync(&arguments, 0));
    }
    station.stop();
}

/// A peer that takes connections and says nothing, until the sender is dropped.
fn mute_peer() -> (String, SyncSender<()>, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("ws://{}", listener.local_addr().expect("bound"));
    let (go, told) = sync_channel::<()>(0);
    let mute = std::thread::spawn(move || {
        let connections: Vec<_> = listener.incoming().take(2).collect();
        // It ends when the other half is dropped.
        let _ = told.recv();
        drop((connections, listener));
    });
    (address, go, mute)
}

#[test]
fn of_two_runs_at_once_the_second_is_skipped() {
    let (address, go, mute) = mute_peer();

    let home = Home::new();
    let first = home.spawn(&["sync", "--json", "--peer", &address]);
    wait_until("the first run is in progress", || {
        home.control_socket().exists() && home.status()["run_in_progress"] == true
    });
    let second = home.sync(&["--peer", &address], 0);
    assert_eq!(second["outcome"], "skipped");
    assert_eq!(second["peers"], json!([]));
    let text = home.run(&["sync", "--peer", &address]).with_code(0);
    assert!(
        text.out.contains("skipped: another run is in progress"),
        "{text:?}"
    );
    drop(go);
    assert_eq!(first.finish().with_code(3).json()["outcome"], "failed");
    mute.join().expect("no panic");
    let history = std::fs::read_to_string(home.data().join("state/history.jsonl")).expect("kept");
    assert_eq!(history.lines().count(), 1, "what was skipped is no run");
}

#[test]
fn an_interrupted_run_says_so_and_blocks_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("ws://{}", listener.local_addr().expect("bound"));
    let home = Home::new();
    let first = home.spawn(&["sync", "--peer", &address]);
    let (mut stream, _) = listener.accept().expect("it dials");
    assert!(
        stream.read(&mut [0; 1]).is_ok_and(|read| read == 1),
        "it speaks first"
    );
    first.signal(Signal::INT);
    first.finish().with_code(130);
    home.sync(&["--peer", &common::nobody()], 3);
}

#[test]
fn a_station_with_peers_syncs_at_start_and_again() {
    let (peer, home) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let station = peer.start();
    peer.import(&notes(&author(1), at, 10));
    home.configure(&format!(
        "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"1h\"\n[[peers]]\naddress = \"{}\"\n",
        station.address()
    ));
    let synced = home.start();
    let status = wait_for("the run at start", || {
        let status = home.status();
        (!status["last_run"].is_null()).then_some(status)
    });
    assert_moved(&status["last_run"], 10, 0);
    assert_eq!(status["peers"][0]["last_outcome"], "converged");
    assert!(
        status["peers"][0]["lag_s"]
            .as_u64()
            .is_some_and(|lag| lag < 60),
        "{status}"
    );
    assert!(status["next_run_at"].is_string(), "{status}");
    assert_eq!(status["next_run_why"], "schedule", "{status}");
    synced.stop();

    home.configure(&format!(
        "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"2s\"\n[[peers]]\naddress = \"{}\"\n",
        station.address()
    ));
    let synced = home.start();
    let runs = || {
        let text = std::fs::read_to_string(home.data().join("state/history.jsonl"));
        text.map_or(0, |text| text.lines().count())
    };
    wait_until("the next run at start", || runs() >= 2);
    let later = notes(&author(2), at, 5);
    peer.import(&later);
    wait_until("what came later arrives by itself", || {
        home.status()["events"] == 15
    });
    wait_until("and it goes on", || runs() >= 4);
    // A configured peer is what `sync` without a peer is about.
    let report = home.sync(&[], 0);
    assert!(
        matches!(report["outcome"].as_str(), Some("converged" | "skipped")),
        "{report}"
    );
    synced.stop();
    station.stop();
}

#[test]
fn a_run_that_is_asked_for_through_the_socket_is_the_station_s() {
    let (home, peer) = (Home::new(), Home::new());
    let at = now() - 1_000;
    let (station, at_peer) = (home.start(), peer.start());
    home.import(&notes(&author(1), at, 20));
    peer.import(&notes(&author(2), at, 30));
    let report = home.sync(&["--peer", at_peer.address()], 0);
    assert_moved(&report, 30, 20);
    assert_eq!(home.status()["last_run"], report);
    assert_idle(&home.sync(&["--peer", at_peer.address()], 0));
    // With itself: nothing to do.
    assert_idle(&home.sync(&["--peer", station.address()], 0));
    assert_eq!(home.export(), peer.export());
    station.stop();
    at_peer.stop();
}

#[test]
fn a_command_finishes_what_another_asked_of_it_before_it_leaves() {
    let (address, go, mute) = mute_peer();

    let home = Home::new();
    let mut command = home.command(&["import", "--json"]);
    command.stdin(std::process::Stdio::piped());
    let mut holder = command.spawn().expect("the binary starts");
    let stdin = holder.stdin.take();
    wait_until("the import has the station open", || {
        home.control_socket().exists()
    });
    let asked = home.spawn(&["sync", "--json", "--peer", &address]);
    wait_until("the import carries out the run", || {
        home.status()["run_in_progress"] == true
    });
    drop(stdin);
    wait_until("the import is done and takes no more", || {
        !home.control_socket().exists()
    });
    assert_eq!(
        holder.try_wait().expect("our own child"),
        None,
        "it does not leave"
    );
    drop(go);
    let report = asked.finish().with_code(3).json();
    assert_eq!(
        report["outcome"], "failed",
        "the run came to its own end: {report}"
    );
    assert!(holder.wait().expect("our own child").success());
    mute.join().expect("no panic");
}
