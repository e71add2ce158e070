//! What a captain blocks and purges, by the real binary: it stays away after every sync, and comes back when it may.

mod common;

use std::collections::BTreeSet;

use common::{Home, author, event, ids_of, json_lines, note, notes, now};
use nostr::event::Event;
use nostr::nips::nip19::ToBech32;
use serde_json::{Value, json};

/// Demands a run with one peer that moved nothing and cost next to nothing.
#[track_caller]
fn assert_idle(report: &Value) {
    assert_eq!(report["outcome"], "converged", "{report}");
    for key in [
        "need",
        "have",
        "need_after",
        "have_after",
        "downloaded",
        "uploaded",
    ] {
        assert_eq!(report["totals"][key], 0, "{key}: {report}");
    }
    let bytes = |key: &str| report["totals"][key].as_u64().expect("a number");
    let moved = bytes("bytes_in") + bytes("bytes_out");
    assert!(moved < 2_000, "{moved} bytes: {report}");
}

#[track_caller]
fn list(home: &Home) -> Vec<Value> {
    let listed = home.run(&["block", "--list", "--json"]).with_code(0).json();
    listed.as_array().expect("a list").clone()
}

#[test]
fn what_is_purged_on_one_station_stays_on_the_other_and_both_converge() {
    let (left, right) = (Home::new(), Home::new());
    let (kept, unwanted) = (author(1), author(2));
    let at = now() - 10_000;
    let of_kept = notes(&kept, at, 40);
    let mut of_unwanted = notes(&unwanted, at, 60);
    of_unwanted.push(event(&unwanted, 0, at, &[], "{}"));
    let all: Vec<Event> = [of_kept.clone(), of_unwanted.clone()].concat();
    left.import(&all);
    right.import(&all);
    let npub = unwanted.public_key().to_bech32().expect("bech32");

    let purged = left
        .run(&["purge", &npub, "--reason", "spam", "--json"])
        .with_code(0)
        .json();
    assert_eq!(purged["author"], unwanted.public_key().to_hex());
    assert_eq!(
        (&purged["purged"], &purged["reason"]),
        (&json!(true), &json!("spam"))
    );
    assert_eq!(left.ids(), ids_of(&of_kept));
    assert_eq!(left.status()["events"], 40, "deleted, not hidden");
    left.verify();

    // The purged station asks: nothing is fetched that was known; what is listed enters the overlay.
    let at_right = right.start();
    let first = left.sync(&["--peer", at_right.address()], 0);
    assert_eq!(first["totals"]["downloaded"], 0, "{first}");
    assert_idle(&left.sync(&["--peer", at_right.address()], 0));
    // What its author says meanwhile is fetched once, judged, and then known.
    let later = note(&unwanted, at + 500, "more of it");
    right.import(std::slice::from_ref(&later));
    let third = left.sync(&["--peer", at_right.address()], 0);
    assert_eq!(third["outcome"], "converged", "{third}");
    assert_eq!(
        third["totals"]["rejected"],
        json!({"blocked": 1}),
        "{third}"
    );
    assert_idle(&left.sync(&["--peer", at_right.address()], 0));

    // The other station asks: what it offers is refused, and it remembers that.
    let at_left = left.start();
    let offered = right.sync(&["--peer", at_left.address()], 0);
    assert_eq!(offered["outcome"], "converged", "{offered}");
    assert_eq!(offered["totals"]["uploaded"], 0, "{offered}");
    assert_idle(&right.sync(&["--peer", at_left.address()], 0));
    assert_eq!(left.ids(), ids_of(&of_kept));
    let everything: BTreeSet<String> = ids_of(&[all, vec![later]].concat());
    assert_eq!(right.ids(), everything);
    at_left.stop();

    // Over a restart, and while it runs.
    let at_left = left.start();
    assert_eq!(list(&left).len(), 1);
    assert_idle(&left.sync(&["--peer", at_right.address()], 0));
    let imported = left
        .feed(&["import", "--json"], json_lines(&of_unwanted[..5]))
        .with_code(0)
        .json();
    assert_eq!(imported["rejected"], json!({"blocked": 5}));
    assert_eq!(left.ids(), ids_of(&of_kept));

    let refused = right.sync(&["--peer", at_left.address()], 0);
    assert_eq!(
        refused["totals"]["refused_by_peer"],
        json!({"blocked": 62}),
        "{refused}"
    );

    // Taken back: the next run brings everything again.
    left.run(&["unblock", &npub]).with_code(0);
    assert_eq!(list(&left), Vec::<Value>::new());
    let back = left.sync(&["--peer", at_right.address()], 0);
    assert_eq!(back["outcome"], "converged", "{back}");
    assert_eq!(back["totals"]["stored"], 62, "{back}");
    assert_eq!(left.ids(), everything);
    assert_idle(&left.sync(&["--peer", at_right.address()], 0));
    // What was refused here once is found on both sides, and then forgotten.
    let forgets = right.sync(&["--peer", at_left.address()], 0);
    assert_eq!(forgets["outcome"], "converged", "{forgets}");
    assert_idle(&right.sync(&["--peer", at_left.address()], 0));
    for home in [&left, &right] {
        home.verify();
    }
    at_left.stop();
    at_right.stop();
}

#[test]
fn what_is_blocked_is_kept_and_hidden_until_it_is_not() {
    let (home, peer) = (Home::new(), Home::new());
    let (one, two) = (author(1), author(2));
    let at = now() - 1_000;
    let of_one = notes(&one, at, 10);
    let of_two = notes(&two, at + 100, 5);
    let unseen = note(&two, at + 200, "not here yet");
    let all = [of_one.clone(), of_two.clone()].concat();
    home.import(&all);
    peer.import(&[of_two.clone(), vec![unseen.clone()]].concat());

    // Bare hex is what the station knows by it; what it does not know has to be said.
    let unseen_id = unseen.id.to_hex();
    let refused = home.run(&["block", &unseen_id]).with_code(2);
    assert!(refused.err.contains("--as"), "{refused:?}");
    home.run(&["block", &unseen_id, "--as", "event"])
        .with_code(0);
    home.run(&["block", &one.public_key().to_hex()])
        .with_code(0);
    let first = of_two[0].id.to_hex();
    home.run(&["block", &of_two[0].id.to_bech32().expect("bech32")])
        .with_code(0);
    let status = home.status();
    assert_eq!(status["blocked"], json!({"authors": 1, "events": 2}));
    assert_eq!(status["events"], 15, "kept: {status}");
    assert_eq!(home.ids(), ids_of(&of_two[1..]));
    assert_eq!(home.count("{}"), 4);
    home.verify();
    let listed = list(&home);
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0]["author"], one.public_key().to_hex());
    assert!(listed.iter().all(|block| block["purged"] == false));
    let text = home.run(&["block", "--list"]).with_code(0).out;
    assert!(
        text.contains(&one.public_key().to_bech32().expect("bech32")),
        "{text}"
    );

    // Neither offered nor taken.
    let at_peer = peer.start();
    let synced = home.sync(&["--peer", at_peer.address()], 0);
    assert_eq!(synced["outcome"], "converged", "{synced}");
    assert_eq!(synced["totals"]["uploaded"], 0, "{synced}");
    assert_eq!(
        synced["totals"]["rejected"],
        json!({"blocked": 1}),
        "{synced}"
    );
    assert_idle(&home.sync(&["--peer", at_peer.address()], 0));
    assert_eq!(
        peer.ids(),
        ids_of(&[of_two.clone(), vec![unseen.clone()]].concat())
    );

    // Taken back on a running station: shown, shared, fetched.
    let at_home = home.start();
    home.run(&["unblock", &one.public_key().to_hex()])
        .with_code(0);
    home.run(&["unblock", &first]).with_code(0);
    home.run(&["unblock", &unseen_id]).with_code(0);
    home.run(&["unblock", &unseen_id, "--as", "event"])
        .with_code(1);
    let synced = home.sync(&["--peer", at_peer.address()], 0);
    assert_eq!(synced["totals"]["uploaded"], 10, "{synced}");
    assert_eq!(synced["totals"]["stored"], 1, "{synced}");
    let everything = ids_of(&[all, vec![unseen]].concat());
    assert_eq!(home.ids(), everything);
    assert_eq!(peer.ids(), everything);
    home.verify();
    at_home.stop();
    at_peer.stop();
}

#[test]
fn words_that_name_nothing_are_refused() {
    let home = Home::new();
    for arguments in [
        &["block"][..],
        &["block", "alice"],
        &["block", "--list", "alice"],
        &["purge"],
        &["unblock", "ab"],
    ] {
        home.run(arguments).with_code(2);
    }
    let npub = author(1).public_key().to_bech32().expect("bech32");
    home.run(&["block", &npub, "--as", "event"]).with_code(2);
    home.run(&["unblock", &npub]).with_code(1);
    let long = "x".repeat(501);
    home.run(&["block", &npub, "--reason", &long]).with_code(2);
    let out = home.run(&["block", "--list"]).with_code(0).out;
    assert_eq!(out.trim(), "nothing is blocked");
}
