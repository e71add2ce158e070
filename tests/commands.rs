//! The commands of the real binary: what they print, what they store, and how they end (DESIGN §6).

mod common;

use std::os::unix::fs::FileTypeExt;

use common::{
    Home, author, deletion, event, forged, ids_of, json_lines, nobody, note, notes, now,
    real_events, set_mode, wait_until, with_bad_signature,
};
use constellation::sync::FileLock;
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn real_events_come_back_as_they_went_in() {
    let Some((path, originals)) = real_events() else {
        return;
    };
    assert_eq!(originals.len(), 838);
    let input = std::fs::read(path).expect("it was there a moment ago");
    let home = Home::new();
    let report = home.feed(&["import", "--json"], input).with_code(0).json();
    assert_eq!(report["lines"], 838);
    assert_eq!(report["rejected_lines"], json!([]));

    let exported = home.run(&["export"]).with_code(0);
    let events = exported.lines();
    assert_eq!(
        events.len(),
        835,
        "three of the 838 are superseded by others"
    );
    for event in &events {
        let original = &originals[event["id"].as_str().expect("an id")];
        assert_eq!(event, original, "same fields, same strings");
    }
    let times: Vec<u64> = events
        .iter()
        .map(|event| event["created_at"].as_u64().expect("a time"))
        .collect();
    assert!(
        times.is_sorted_by(|newer, older| newer >= older),
        "newest first"
    );

    let second = Home::new();
    let again = second
        .feed(&["import", "--json"], exported.out.clone())
        .with_code(0)
        .json();
    assert_eq!(
        (&again["stored"], &again["duplicates"]),
        (&json!(835), &json!(0))
    );
    assert_eq!(
        second.run(&["export"]).with_code(0).out,
        exported.out,
        "byte for byte"
    );
    second.verify();
}

#[test]
fn bad_lines_are_named_and_the_rest_is_imported() {
    let home = Home::new();
    let keys = author(1);
    let at = now() - 1_000;
    let good = notes(&keys, at, 4);
    home.import(&good[..1]);
    let too_large = note(&keys, at, &"x".repeat(300_000)).as_json();
    let ephemeral = event(&keys, 20_001, at, &[], "here and gone").as_json();
    let ahead = note(&keys, now() + 10_000, "from the future").as_json();
    let lines = [
        good[1].as_json(),
        "this is no event".into(),
        String::new(),
        forged(&good[0], "content", "other words under a stored id"),
        with_bad_signature(&good[2]),
        good[2].as_json(),
        too_large,
        forged(&good[3], "created_at", -1),
        forged(&good[3], "id", "abc"),
        ephemeral,
        ahead,
        "[]".into(),
        // The last line has no line feed.
        good[3].as_json(),
    ];
    let report = home
        .feed(&["import", "--json"], lines.join("\n"))
        .with_code(1)
        .json();
    assert_eq!(
        report["lines"], 12,
        "the empty one does not count: {report}"
    );
    assert_eq!(report["stored"], 3, "{report}");
    let named: Vec<(u64, &str)> = report["rejected_lines"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| {
            (
                line["line"].as_u64().expect("a number"),
                line["reason"].as_str().expect("a name"),
            )
        })
        .collect();
    let expected = [
        (2, "malformed"),
        (4, "bad_id"),
        (5, "bad_signature"),
        (7, "too_large"),
        (8, "malformed"),
        (9, "malformed"),
        (10, "out_of_scope"),
        (11, "future"),
        (12, "malformed"),
    ];
    assert_eq!(named, expected);
    assert_eq!(home.ids(), ids_of(&good));

    let text = home.feed(&["import"], "nonsense\n").with_code(1);
    assert!(text.err.contains("line 1: malformed"), "{text:?}");
    home.verify();
}

#[test]
fn duplicates_and_what_is_superseded_deleted_or_expired_are_no_rejections() {
    let home = Home::new();
    let keys = author(1);
    let at = now() - 1_000;
    let regretted = note(&keys, at, "regretted");
    let kept = note(&keys, at, "kept");
    let events = [
        regretted.clone(),
        kept.clone(),
        kept.clone(),
        event(&keys, 0, at + 5, &[], "new"),
        event(&keys, 0, at, &[], "old"),
        deletion(&keys, at + 5, &regretted),
        // Somebody else's deletion deletes nothing, and is an event like any other.
        deletion(&author(2), at + 5, &kept),
        event(
            &keys,
            1,
            at,
            &[&["expiration", &(at + 1).to_string()]],
            "gone by now",
        ),
    ];
    let report = home
        .feed(&["import", "--json"], json_lines(&events))
        .with_code(0)
        .json();
    assert_eq!(report["duplicates"], 1, "{report}");
    assert_eq!(report["rejected_lines"], json!([]));
    assert_eq!(report["rejected"]["superseded"], 1);
    assert_eq!(report["rejected"]["expired"], 1);

    // Never again, in any order.
    let again = home
        .feed(&["import", "--json"], json_lines(&events))
        .with_code(0)
        .json();
    assert_eq!(again["stored"], 0, "{again}");
    assert_eq!(again["rejected"]["deleted"], 1, "{again}");
    let left = [
        events[1].clone(),
        events[3].clone(),
        events[5].clone(),
        events[6].clone(),
    ];
    assert_eq!(home.ids(), ids_of(&left));
    home.verify();
}

#[test]
fn filters_choose_what_is_counted_and_exported() {
    let home = Home::new();
    let (one, two) = (author(1), author(2));
    let at = now() - 1_000;
    let mut events = notes(&one, at, 10);
    events.extend(notes(&two, at + 100, 5));
    events.push(event(
        &two,
        7,
        at + 200,
        &[&["e", &events[0].id.to_hex()]],
        "+",
    ));
    home.import(&events);
    let by_two = format!(r#"{{"authors":["{}"]}}"#, two.public_key().to_hex());
    let to_first = format!(r##"{{"#e":["{}"]}}"##, events[0].id.to_hex());
    for (filter, expected) in [
        ("{}", 16),
        (r#"{"kinds":[7]}"#, 1),
        (by_two.as_str(), 6),
        (to_first.as_str(), 1),
        (
            &format!(r#"{{"kinds":[1],"since":{},"until":{}}}"#, at + 9, at + 101),
            3,
        ),
        (r#"{"limit":4}"#, 4),
        (r#"{"ids":[]}"#, 0),
    ] {
        assert_eq!(home.count(filter), expected, "{filter}");
    }
    let json = home.run(&["count", "--json"]).with_code(0).json();
    assert_eq!(json, json!({"count": 16}));
    let newest = home
        .run(&["export", "--filter", r#"{"kinds":[1],"limit":3}"#])
        .with_code(0)
        .lines();
    let times: Vec<&Value> = newest.iter().map(|event| &event["created_at"]).collect();
    assert_eq!(
        times,
        [at + 104, at + 103, at + 102],
        "the newest, newest first"
    );
    let wrong = home.run(&["count", "--filter", "kinds=1"]).with_code(2);
    assert!(wrong.err.contains("--filter"), "{wrong:?}");
    home.run(&["export", "--filter", "["]).with_code(2);
}

#[test]
fn status_tells_a_running_station_from_one_that_is_not() {
    let home = Home::new();
    let idle = home.status();
    assert_eq!(
        (&idle["running"], &idle["relay"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(
        (&idle["events"], &idle["last_run"]),
        (&json!(0), &Value::Null)
    );
    let peer_id = idle["peer_id"].as_str().expect("a text").to_owned();
    assert!(peer_id.starts_with("12D3KooW"));

    let station = home.start();
    home.import(&notes(&author(1), now() - 100, 3));
    let running = home.status();
    assert_eq!(running["running"], true);
    assert_eq!(running["relay"], station.address());
    assert_eq!(running["peer_id"], peer_id.as_str(), "the identity stays");
    assert_eq!(
        (&running["events"], &running["by_kind"]["1"]),
        (&json!(3), &json!(3))
    );
    let text = home.run(&["status"]).with_code(0);
    assert!(text.out.contains(station.address()), "{text:?}");
    station.stop();
    assert_eq!(home.status()["running"], false);
}

#[test]
fn init_writes_a_configuration_once() {
    let home = Home::new();
    let taken = home.run(&["init"]).with_code(2);
    assert!(taken.err.contains("is there already"), "{taken:?}");
    let before = std::fs::read_to_string(home.config()).expect("there");
    assert_eq!(before, common::QUIET, "and it is left as it is");

    std::fs::remove_file(home.config()).expect("ours");
    home.run(&["init"]).with_code(0);
    let written = std::fs::read_to_string(home.config()).expect("written");
    assert_eq!(home.run(&["init", "--stdout"]).with_code(0).out, written);
    home.run(&["init"]).with_code(2);
    // What it writes is a valid configuration.
    home.run(&["status"]).with_code(0);
}

#[test]
fn a_wrong_configuration_ends_every_command_with_the_line() {
    let home = Home::with_config("[relay]\nlisten = \"127.0.0.1:0\"\nlisten_on = 1\n");
    for command in [["status"], ["run"], ["export"], ["sync"]] {
        let ended = home.run(&command).with_code(2);
        assert!(
            ended.err.contains("line 3") && ended.err.contains("listen_on"),
            "{ended:?}"
        );
    }
    assert!(!home.data().exists(), "nothing was begun");
    std::fs::remove_file(home.config()).expect("ours");
    let absent = home.run(&["status"]).with_code(2);
    assert!(
        absent.err.contains("constellation.toml"),
        "a named file must exist: {absent:?}"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let home = Home::new();
    let run = |name: &str, value: &str| {
        let mut command = home.command(&["status", "--json"]);
        command.env(name, value);
        common::Process::start(command, None).finish()
    };
    let named = run("CONSTELLATION_STATION__NAME", "aster")
        .with_code(0)
        .json();
    assert_eq!(named["name"], "aster");
    let wrong = run("CONSTELLATION_STATION__NMAE", "aster").with_code(2);
    assert!(
        wrong.err.contains("CONSTELLATION_STATION__NMAE"),
        "{wrong:?}"
    );
}

#[test]
fn what_is_wrong_or_incomplete_is_refused_and_an_unreachable_peer_is_another_matter() {
    let home = Home::new();
    let nobody = nobody();
    let peer = ["--peer", nobody.as_str()];
    let none = home.run(&["sync"]).with_code(2);
    assert!(
        none.err.contains("--peer") && none.err.contains("constellation join"),
        "{none:?}"
    );
    for wrong in [
        vec!["--peer", "/ip4/127.0.0.1/tcp/x/p2p/12D3KooW"],
        vec!["--peer", "/ip4/127.0.0.1/tcp/4011"],
        vec!["--peer", "http://relay.example"],
        vec![peer[0], peer[1], "--authors", "n2"],
        vec![peer[0], peer[1], "--authors", "npub1"],
        vec![peer[0], peer[1], "--kinds", "one"],
        vec![peer[0], peer[1], "--kinds", "3-1"],
        vec![peer[0], peer[1], "--kinds", "20000-20010"],
        vec![peer[0], peer[1], "--since", "yesterday"],
        vec![peer[0], peer[1], "--until", "2026-13-01T00:00:00Z"],
        vec![peer[0], peer[1], "--since", "10", "--until", "5"],
        vec![peer[0], peer[1], "--days", "1", "--since", "5"],
        vec![peer[0], peer[1], "--days", "-1"],
        vec![peer[0], peer[1], "--direction", "sideways"],
        vec![peer[0], peer[1], "--unknown"],
    ] {
        let all: Vec<&str> = ["sync"].iter().chain(&wrong).copied().collect();
        let ended = home.run(&all).with_code(2);
        assert!(
            ended.out.is_empty() && !ended.err.is_empty(),
            "{wrong:?}: {ended:?}"
        );
    }
    for incomplete in [&["diff"][..], &["mirror"], &["store", "compact"]] {
        home.run(incomplete).with_code(2);
    }

    let report = home.sync(&peer, 3);
    assert_eq!(report["outcome"], "failed");
    let error = &report["peers"][0]["error"];
    assert_eq!(
        (&error["step"], &error["reason"]),
        (&json!("connect"), &json!("refused"))
    );
    let text = home.run(&["sync", "--peer", &nobody]).with_code(3);
    assert!(text.out.contains("failed"), "{text:?}");
}

#[test]
fn commands_give_the_same_answers_through_the_socket() {
    let (served, alone) = (Home::new(), Home::new());
    let station = served.start();
    let keys = author(1);
    let at = now() - 1_000;
    let good = notes(&keys, at, 600);
    let mut input = json_lines(&good);
    input.extend_from_slice(b"nonsense\n");
    input.extend_from_slice(with_bad_signature(&note(&keys, at, "x")).as_bytes());
    let of_both = |arguments: &[&str], input: Option<&[u8]>| {
        let ended = [&served, &alone].map(|home| match input {
            Some(input) => home.feed(arguments, input),
            None => home.run(arguments),
        });
        let [through_socket, by_itself] = ended;
        assert_eq!(through_socket.code, by_itself.code, "{arguments:?}");
        assert_eq!(through_socket.out, by_itself.out, "{arguments:?}");
        through_socket
    };
    let imported = of_both(&["import", "--json"], Some(&input))
        .with_code(1)
        .json();
    assert_eq!(imported["stored"], 600);
    assert_eq!(
        imported["rejected_lines"][1],
        json!({"line": 602, "reason": "bad_signature"})
    );
    of_both(&["import"], Some(&input)).with_code(1);
    let exported = of_both(&["export"], None).with_code(0);
    assert_eq!(exported.lines().len(), 600);
    of_both(&["export", "--filter", r#"{"limit":7}"#], None).with_code(0);
    of_both(&["count"], None).with_code(0);
    of_both(&["count", "--filter", r#"{"kinds":[0]}"#, "--json"], None).with_code(0);
    of_both(&["count", "--filter", "nonsense"], None).with_code(2);
    of_both(&["store", "verify", "--json"], None).with_code(0);
    of_both(&["sync"], None).with_code(2);
    of_both(&["sync", "--peer", &nobody(), "--kinds", "20000"], None).with_code(2);
    served.sync(&["--peer", &nobody()], 3);
    station.stop();
}

#[test]
fn a_data_directory_that_is_locked_by_a_mute_process_is_a_local_failure() {
    let home = Home::new();
    home.run(&["status"]).with_code(0);
    let lock = FileLock::try_take(&home.data().join("constellation.lock")).expect("free");
    // All at once: each gives the holder its time to answer.
    let waiting = [
        vec!["status"],
        vec!["count"],
        vec!["sync", "--peer", "ws://127.0.0.1:1"],
    ]
    .map(|command| home.spawn(&command));
    let station = home.spawn(&["run"]);
    for command in waiting {
        let ended = command.finish().with_code(5);
        assert!(ended.err.contains("does not answer"), "{ended:?}");
    }
    let second = station.finish().with_code(5);
    assert!(
        second.err.contains("in use by another process"),
        "{second:?}"
    );
    drop(lock);
    // Another test's child may hold a copy for the moment between fork and exec.
    wait_until("the lock is free", || home.run(&["status"]).code == Some(0));
}

#[test]
fn a_station_that_hangs_is_a_local_failure_and_hangs_nobody_else() {
    let home = Home::new();
    let station = home.start();
    station.signal(Signal::STOP);
    let waiting = [vec!["status"], vec!["run"]].map(|command| home.spawn(&command));
    for command in waiting {
        command.finish().with_code(5);
    }
    station.signal(Signal::CONT);
    assert_eq!(home.status()["running"], true, "it was only asleep");
    station.stop();
}

#[test]
fn a_second_station_on_the_same_data_is_refused() {
    let home = Home::new();
    let station = home.start();
    let second = home.run(&["run"]).with_code(5);
    assert!(second.err.contains("in use"), "{second:?}");
    assert_eq!(
        home.status()["relay"],
        station.address(),
        "the first goes on"
    );
    station.stop();
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    let home = Home::new();
    home.run(&["status"]).with_code(0);
    let key = home.data().join("identity.key");
    set_mode(&key, 0o644);
    let refused = home.run(&["status"]).with_code(2);
    assert!(
        refused.err.contains("chmod 600") && refused.err.contains("644"),
        "{refused:?}"
    );
    set_mode(&key, 0o600);
    home.run(&["status"]).with_code(0);
}

#[test]
fn a_damaged_store_is_a_local_failure_that_is_named() {
    let home = Home::new();
    home.import(&notes(&author(1), now() - 100, 3));
    std::fs::write(home.data().join("events/data.mdb"), vec![b'x'; 65_536]).expect("ours");
    let refused = home.run(&["count"]).with_code(5);
    assert!(refused.err.contains("event store"), "{refused:?}");
}

#[test]
fn a_station_ends_by_sigterm_and_takes_its_socket_along() {
    let home = Home::new();
    for signal in [Signal::TERM, Signal::INT] {
        let station = home.start();
        let socket = std::fs::symlink_metadata(home.control_socket()).expect("there");
        assert!(socket.file_type().is_socket());
        let mode = std::os::unix::fs::PermissionsExt::mode(&socket.permissions());
        assert_eq!(mode & 0o777, 0o600);
        station.signal(signal);
        station.stop();
        assert!(!home.control_socket().exists());
    }
    // The socket of a killed station bothers nobody.
    home.start().kill();
    assert!(home.control_socket().exists());
    assert_eq!(home.status()["running"], false);
    home.start().stop();
}

#[test]
fn a_changed_configuration_takes_effect_by_sighup_and_a_broken_one_does_not() {
    let home = Home::new();
    let station = home.start();
    let peers = || {
        let status = home.status();
        let peers = status["peers"].as_array().expect("a list").clone();
        (
            status["name"].clone(),
            peers
                .iter()
                .map(|peer| peer["address"].clone())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(peers(), (json!("constellation"), vec![]));

    let changed = |name: &str, peer: &str| {
        format!(
            "[station]\nname = \"{name}\"\n{}[[peers]]\naddress = \"{peer}\"\n",
            common::QUIET
        )
    };
    home.configure(&changed("renamed", "ws://127.0.0.1:1"));
    assert_eq!(peers().1.len(), 0, "not before the signal");
    station.signal(Signal::HUP);
    wait_until("the peer is listed", || {
        peers() == (json!("renamed"), vec![json!("ws://127.0.0.1:1")])
    });

    home.configure("[[peers]]\naddress = 7\n");
    station.signal(Signal::HUP);
    wait_until("the broken file is complained about", || {
        station.log().contains("the configuration in force stays")
    });
    home.configure(common::QUIET);
    assert_eq!(peers(), (json!("renamed"), vec![json!("ws://127.0.0.1:1")]));
    station.signal(Signal::HUP);
    wait_until("the peer is gone", || peers().1.is_empty());
    station.stop();
}

#[test]
fn a_reader_who_has_gone_ends_a_command_quietly() {
    let home = Home::new();
    for arguments in [
        ["status"].as_slice(),
        &["status", "--json"],
        &["export"],
        &["count"],
    ] {
        let mut command = home.command(arguments);
        let mut child = command.spawn().expect("the binary starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("our own child");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success() && said.is_empty(),
            "{arguments:?}: {ended:?}"
        );
    }
}
