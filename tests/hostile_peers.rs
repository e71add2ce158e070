//! Relays that lie, stall, flood or forge, against real runs: each costs a bounded time, fails with a labelled reason
//! of its own, delays nobody else, and leaves nothing bad in the store (DESIGN D8, D13).
//!
//! What depends on waiting runs through the library with short deadlines; the rest is the `sync` command itself.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::fake_relay::{Delivery, FakeRelay, Negentropy, Publishing, Script, endless_events};
use common::runs::{SHORT, run_within};
use common::{Home, author, event, forged, ids_of, note, notes, now, with_bad_signature};
use constellation::limits::OFFERED_MAX;
use constellation::sync::{Deadlines, Outcome, PeerReport, Step};
use nostr::event::Event;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A run with one hostile peer, which must fail as told and in time.
#[track_caller]
fn assert_fails(home: &Home, relay: &FakeRelay, step: Step, reason: &str) -> PeerReport {
    let report = run_within(home, &[relay.address()], SHORT);
    let peer = report.peers[0].clone();
    let error = peer
        .error
        .as_ref()
        .unwrap_or_else(|| panic!("it did not fail: {peer:#?}"));
    assert_eq!(
        (error.step, error.reason.as_str()),
        (step, reason),
        "{peer:#?}"
    );
    assert_ne!(peer.outcome, Outcome::Converged, "{peer:#?}");
    assert!(!error.detail.is_empty(), "in words too");
    let longest = SHORT.exchange.as_millis();
    assert!(
        u128::from(peer.duration_ms) < longest,
        "it took {} ms",
        peer.duration_ms
    );
    peer
}

#[track_caller]
fn first_peer(report: &Value) -> &Value {
    &report["peers"][0]
}

fn some_notes(count: u64) -> Vec<Event> {
    notes(&author(1), now() - 10_000, count)
}

#[test]
fn a_peer_that_says_nothing_costs_one_deadline() {
    let home = Home::new();
    home.import(&some_notes(3));

    let mute = FakeRelay::tcp(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    assert_fails(&home, &mute, Step::Connect, "timeout");

    let silent_socket = FakeRelay::sockets(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    assert_fails(&home, &silent_socket, Step::Reconcile, "timeout");

    let (no_answer, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::Silent,
        ..Script::default()
    });
    let read = &run_within(&home, &[no_answer.address()], SHORT).peers[0];
    assert_eq!(
        (read.outcome, read.method.as_str(), read.uploaded),
        (Outcome::Converged, "windows", 3),
        "silent about NIP-77 alone: {read:#?}"
    );

    let (no_ok, _) = FakeRelay::scripted(Script {
        publishing: Publishing::Silent,
        ..Script::default()
    });
    assert_fails(&home, &no_ok, Step::Upload, "timeout");
    home.verify();
}

#[test]
fn a_peer_that_falls_silent_in_the_middle_of_a_download_keeps_nobody_from_what_came() {
    let home = Home::new();
    let (stops, _) = FakeRelay::scripted(Script {
        delivery: Delivery::StopsAfter(30),
        ..Script::holding(&some_notes(150))
    });
    let peer = assert_fails(&home, &stops, Step::Download, "timeout");
    assert_eq!(home.count("{}"), 30, "what had come is stored");
    assert_eq!(
        (peer.stored, peer.outcome),
        (30, Outcome::Partial),
        "and reported: {peer:#?}"
    );
    home.verify();
}

#[test]
fn a_peer_that_is_no_relay_fails_at_the_handshake() {
    let home = Home::new();
    let not_http = FakeRelay::tcp(|mut stream| async move {
        drop(stream.write_all(b"220 mail.example ESMTP\r\n").await);
        drop(stream.read(&mut [0; 1024]).await);
    });
    assert_fails(&home, &not_http, Step::Connect, "handshake");

    let endless_headers = FakeRelay::tcp(|mut stream| async move {
        drop(
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\n")
                .await,
        );
        while stream.write_all(b"X-More: of the same\r\n").await.is_ok() {}
    });
    assert_fails(&home, &endless_headers, Step::Connect, "handshake");

    let hangs_up = FakeRelay::tcp(|stream| async move { drop(stream) });
    assert_fails(&home, &hangs_up, Step::Connect, "handshake");
}

#[test]
fn a_peer_that_sends_garbage_is_left() {
    let home = Home::new();
    home.import(&some_notes(3));
    for garbage in [
        "garbage",
        "[]",
        "{}",
        "[\"EVENT\"]",
        "[\"NEG-MSG\",\"x\",\"zz\"]",
        "",
    ] {
        let relay = FakeRelay::sockets(move |mut socket| async move {
            while socket.send(garbage).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        assert_fails(&home, &relay, Step::Reconcile, "garbage");
    }
    let not_websocket = FakeRelay::upgraded(|mut stream| async move {
        while stream.write_all(&[0xff; 4096]).await.is_ok() {}
    });
    assert_fails(&home, &not_websocket, Step::Reconcile, "protocol");

    let closes = FakeRelay::sockets(|mut socket| async move {
        drop(socket.recv().await);
        drop(socket.close().await);
    });
    assert_fails(&home, &closes, Step::Reconcile, "closed");
    home.verify();
}

#[test]
fn endless_frames_end() {
    let home = Home::new();
    home.import(&some_notes(3));

    let events = FakeRelay::sockets(|mut socket| async move {
        endless_events(&mut socket, "never asked for").await;
    });
    assert_fails(&home, &events, Step::Reconcile, "timeout");

    // One text frame of 2^62 bytes.
    let one_frame = FakeRelay::upgraded(|mut stream| async move {
        let mut head = vec![0x81, 127];
        head.extend_from_slice(&(1u64 << 62).to_be_bytes());
        drop(stream.write_all(&head).await);
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_fails(&home, &one_frame, Step::Reconcile, "message_too_large");

    // One message in fragments without end.
    let fragments = FakeRelay::upgraded(|mut stream| async move {
        let mut opcode = 1;
        loop {
            let mut frame = vec![opcode, 126];
            frame.extend_from_slice(&4096u16.to_be_bytes());
            frame.resize(4 + 4096, b'x');
            if stream.write_all(&frame).await.is_err() {
                return;
            }
            opcode = 0;
        }
    });
    assert_fails(&home, &fragments, Step::Reconcile, "message_too_large");

    // One message that comes byte by byte.
    let drips = FakeRelay::upgraded(|mut stream| async move {
        drop(stream.write_all(&[0x81, 126, 0xff, 0xff]).await);
        while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_fails(&home, &drips, Step::Reconcile, "timeout");

    // More than was asked for, in answer to a request.
    let (more, _) = FakeRelay::scripted(Script {
        delivery: Delivery::Endless,
        ..Script::holding(&notes(&author(2), now() - 500, 20))
    });
    let peer = assert_fails(&home, &more, Step::Download, "forgeries");
    assert_eq!(peer.stored, 20, "what was asked for is kept: {peer:#?}");
    assert_eq!(home.count("{}"), 23);
    home.verify();
}

#[test]
fn a_reconciliation_that_leads_nowhere_is_left() {
    let home = Home::new();
    for (negentropy, step, reason) in [
        (
            Negentropy::Always(vec![]),
            Step::Reconcile,
            "malformed_negentropy",
        ),
        (
            Negentropy::Always(vec![0x05]),
            Step::Reconcile,
            "malformed_negentropy",
        ),
        // Ids that it says to list and does not.
        (
            Negentropy::Always(vec![0x61, 0, 0, 2, 0x8f, 0xff, 0xff, 0xff, 0x7f]),
            Step::Reconcile,
            "malformed_negentropy",
        ),
        (
            Negentropy::Always(vec![0x61; 500]),
            Step::Reconcile,
            "malformed_negentropy",
        ),
        (Negentropy::NeverEqual, Step::Reconcile, "too_many_rounds"),
    ] {
        let named = format!("{negentropy:?}");
        let (relay, _) = FakeRelay::scripted(Script {
            negentropy,
            ..Script::default()
        });
        let peer = assert_fails(&home, &relay, step, reason);
        assert_eq!(peer.outcome, Outcome::Failed, "{named}");
    }
    // The command says the same, and that something was reached.
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::Always(vec![]),
        ..Script::default()
    });
    let report = home.sync(&["--peer", relay.address()], 1);
    let error = &first_peer(&report)["error"];
    assert_eq!(
        (&report["outcome"], &error["reason"]),
        (&json!("failed"), &json!("malformed_negentropy"))
    );
}

#[test]
fn other_exchanges_of_the_run_are_not_delayed() {
    let (home, healthy) = (Home::new(), Home::new());
    let station = healthy.start();
    healthy.import(&some_notes(200));
    let mute = FakeRelay::sockets(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    let flood = FakeRelay::sockets(|mut socket| async move {
        endless_events(&mut socket, "never asked for").await;
    });
    let slow = Deadlines {
        step: Duration::from_secs(4),
        ..SHORT
    };
    let report = run_within(
        &home,
        &[mute.address(), flood.address(), station.address()],
        slow,
    );
    assert_eq!(report.outcome, Outcome::Partial);
    let [mute, flood, healthy] = &report.peers[..] else {
        panic!("three peers: {report:#?}")
    };
    for hostile in [mute, flood] {
        let reason = hostile.error.as_ref().map(|error| error.reason.as_str());
        assert_eq!(reason, Some("timeout"), "{hostile:#?}");
        assert!(hostile.duration_ms >= 4_000, "{hostile:#?}");
    }
    assert_eq!((healthy.outcome, healthy.stored), (Outcome::Converged, 200));
    assert!(
        healthy.duration_ms < 3_000,
        "it took {} ms",
        healthy.duration_ms
    );
    assert_eq!(
        (report.totals.peers_succeeded, report.totals.peers_failed),
        (1, 2)
    );
    station.stop();
}

#[test]
fn the_deadline_of_the_run_ends_it_and_keeps_what_came() {
    let (home, healthy) = (Home::new(), Home::new());
    let station = healthy.start();
    healthy.import(&some_notes(20));
    let mute = FakeRelay::sockets(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    let deadlines = Deadlines {
        connect: Duration::from_secs(30),
        step: Duration::from_secs(30),
        exchange: Duration::from_secs(30),
        run: Duration::from_secs(3),
    };
    let report = run_within(&home, &[mute.address(), station.address()], deadlines);
    assert_eq!(report.outcome, Outcome::Deadline, "{report:#?}");
    let outcomes: Vec<Outcome> = report.peers.iter().map(|peer| peer.outcome).collect();
    assert_eq!(outcomes, [Outcome::Deadline, Outcome::Converged]);
    assert_eq!(home.count("{}"), 20);
    assert_eq!(home.status()["last_run"]["outcome"], "deadline");
    station.stop();
}

#[test]
fn a_few_bad_events_are_skipped_counted_and_remembered_for_that_peer_only() {
    let (home, honest) = (Home::new(), Home::new());
    let good = some_notes(40);
    let keys = author(2);
    let at = now() - 500;
    let genuine: Vec<Event> = notes(&keys, at, 5);
    let unasked = event(&keys, 1063, at, &[], "of a kind that is not shared");
    let script = Script::holding(&good)
        .and(&genuine[0], forged(&genuine[0], "content", "other words"))
        .and(&genuine[1], with_bad_signature(&genuine[1]))
        .and(&genuine[2], forged(&genuine[2], "content", 7))
        .and(&unasked, unasked.as_json())
        // In place of what was asked for, something else.
        .and(
            &genuine[3],
            note(&keys, at, "another event altogether").as_json(),
        );
    let (forger, played) = FakeRelay::scripted(script);

    let first = home.sync(&["--peer", forger.address()], 1);
    let peer = first_peer(&first);
    assert_eq!(
        (&peer["stored"], &peer["error"]),
        (&json!(40), &Value::Null),
        "{first}"
    );
    assert_eq!(peer["rejected"]["bad_id"], 1, "{first}");
    assert_eq!(peer["rejected"]["bad_signature"], 1, "{first}");
    assert_eq!(peer["rejected"]["malformed"], 1, "{first}");
    assert!(
        peer["rejected"]["outside_filter"]
            .as_u64()
            .is_some_and(|count| count >= 2),
        "{first}"
    );
    assert_eq!(peer["unresolved"][0]["why"], "undelivered", "{first}");
    assert_eq!(
        peer["unresolved"][0]["ids"],
        json!([genuine[3].id.to_hex()])
    );
    assert_eq!(home.ids(), ids_of(&good), "nothing bad is stored");
    home.verify();

    // What it forged is not asked of it again, nor, before a pause is over, what it lists and does not deliver: that is
    // named all the same.
    played.take_requested();
    let second = home.sync(&["--peer", forger.address()], 1);
    assert_eq!(played.take_requested(), [""; 0]);
    assert_eq!(
        first_peer(&second)["unresolved"][0]["ids"],
        json!([genuine[3].id.to_hex()]),
        "{second}"
    );

    // Another peer delivers the same ids, and is believed.
    let station = honest.start();
    honest.import(&genuine);
    let from_honest = home.sync(&["--peer", station.address()], 0);
    assert_eq!(first_peer(&from_honest)["stored"], 5, "{from_honest}");
    assert_eq!(home.count("{}"), 45);
    let last = home.sync(&["--peer", forger.address()], 0);
    assert_eq!(
        (&last["outcome"], &last["totals"]["need"]),
        (&json!("converged"), &json!(0))
    );
    station.stop();
    home.verify();
}

#[test]
fn what_a_peer_forged_once_is_no_difference_the_next_time() {
    let home = Home::new();
    let good = some_notes(20);
    let genuine = notes(&author(2), now() - 500, 2);
    let unasked = event(
        &author(2),
        1063,
        now() - 500,
        &[],
        "of a kind that is not shared",
    );
    let script = Script::holding(&good)
        .and(&genuine[0], forged(&genuine[0], "content", "other words"))
        .and(&genuine[1], with_bad_signature(&genuine[1]))
        .and(&unasked, unasked.as_json());
    let (forger, played) = FakeRelay::scripted(script);
    let first = home.sync(&["--peer", forger.address()], 0);
    assert_eq!(
        first_peer(&first)["rejected"],
        json!({"bad_id": 1, "bad_signature": 1, "outside_filter": 1})
    );
    assert_eq!(played.take_requested().len(), 23);
    for _ in 0..2 {
        let again = home.sync(&["--peer", forger.address()], 0);
        let totals = &again["totals"];
        assert_eq!(
            (&totals["need"], &totals["have"], &totals["rejected"]),
            (&json!(0), &json!(0), &json!({}))
        );
        assert_eq!(again["outcome"], "converged", "{again}");
        assert_eq!(
            (played.take_requested().len(), played.take_offered().len()),
            (0, 0)
        );
    }
    home.verify();
}

#[test]
fn many_forged_events_end_the_exchange() {
    let home = Home::new();
    let genuine = some_notes(1_000);
    let script = genuine.iter().fold(Script::default(), |script, note| {
        script.and(note, with_bad_signature(note))
    });
    let (forger, _) = FakeRelay::scripted(script);
    let report = home.sync(&["--peer", forger.address()], 1);
    let peer = first_peer(&report);
    assert_eq!(
        (&peer["error"]["step"], &peer["error"]["reason"]),
        (&json!("download"), &json!("forgeries")),
        "{report}"
    );
    assert_eq!(peer["outcome"], "failed");
    assert!(
        peer["rejected"]["bad_signature"]
            .as_u64()
            .is_some_and(|count| count > 100),
        "{report}"
    );
    assert_eq!(home.count("{}"), 0);
    home.verify();

    // Few among many are borne.
    let home = Home::new();
    let script = genuine
        .iter()
        .take(90)
        .fold(Script::holding(&genuine[90..]), |script, note| {
            script.and(note, with_bad_signature(note))
        });
    let (careless, _) = FakeRelay::scripted(script);
    let report = home.sync(&["--peer", careless.address()], 0);
    assert_eq!(
        first_peer(&report)["rejected"],
        json!({"bad_signature": 90})
    );
    assert_eq!(home.count("{}"), 910);
}

#[test]
fn what_is_listed_and_never_delivered_stays_unresolved() {
    let home = Home::new();
    let (good, missing) = (some_notes(10), notes(&author(2), now() - 500, 3));
    let script = missing
        .iter()
        .fold(Script::holding(&good), Script::and_only_lists);
    let (relay, _) = FakeRelay::scripted(script);
    for stored in [10, 0] {
        let report = home.sync(&["--peer", relay.address()], 1);
        let peer = first_peer(&report);
        assert_eq!(
            (&report["outcome"], &peer["error"]),
            (&json!("partial"), &Value::Null)
        );
        assert_eq!(
            (&peer["stored"], &peer["need_after"]),
            (&json!(stored), &json!(3))
        );
        assert_eq!(peer["unresolved"][0]["why"], "undelivered");
        let named: BTreeSet<String> = peer["unresolved"][0]["ids"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|id| id.as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(named, ids_of(&missing));
    }
}

#[test]
fn a_peer_that_accepts_and_keeps_nothing_is_not_believed() {
    let home = Home::new();
    let ours = some_notes(5);
    home.import(&ours);
    let (relay, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Forgets,
        ..Script::default()
    });
    let report = home.sync(&["--peer", relay.address()], 1);
    let peer = first_peer(&report);
    assert_eq!(
        (&report["outcome"], &peer["have_after"]),
        (&json!("partial"), &json!(5)),
        "{report}"
    );
    assert_eq!(peer["unresolved"][0]["count"], 5, "{report}");
    assert_eq!(
        played.take_offered().len(),
        5,
        "offered once, not over and over"
    );
    assert!(!played.holds(&ours[0]));
    // It is not asked to take them again before a day is over, and costs no difference meanwhile.
    let report = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert!(played.take_offered().is_empty());
}

#[test]
fn what_a_peer_refuses_is_not_offered_again() {
    let home = Home::new();
    let theirs = notes(&author(2), now() - 500, 4);
    home.import(&some_notes(5));
    let (relay, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Refuses("blocked: not on my list"),
        ..Script::holding(&theirs)
    });
    let first = home.sync(&["--peer", relay.address()], 0);
    assert_eq!(
        first["outcome"], "converged",
        "what it refuses is no difference: {first}"
    );
    let peer = first_peer(&first);
    assert_eq!((&peer["stored"], &peer["uploaded"]), (&json!(4), &json!(0)));
    assert_eq!(peer["refused_by_peer"], json!({"blocked": 5}));
    assert_eq!(played.take_offered().len(), 5);

    let second = home.sync(&["--peer", relay.address()], 0);
    let totals = &second["totals"];
    assert_eq!(
        (&second["outcome"], &totals["have"], &totals["need"]),
        (&json!("converged"), &json!(0), &json!(0))
    );
    assert_eq!(played.take_offered().len(), 0);

    // A refusal of the moment is another matter: it is offered again, a few times now and in the next run, and nobody
    // says converged.
    let (busy, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Refuses("rate-limited: slow down"),
        ..Script::holding(&theirs)
    });
    for _ in 0..2 {
        let report = home.sync(&["--peer", busy.address()], 1);
        assert_eq!(report["outcome"], "partial", "{report}");
        assert_eq!(
            first_peer(&report)["refused_by_peer"]["rate_limited"],
            5,
            "{report}"
        );
        let offered = played.take_offered();
        for id in &offered {
            let times = offered.iter().filter(|other| *other == id).count();
            assert!((2..=OFFERED_MAX.into()).contains(&times), "{times} times");
        }
        assert_eq!(offered.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
