//! One constellation never leaks into another (D16), and the captain's word is kept where there are no tunnels, with the real binary.

mod common;

use common::tunnelled::{address, own_node};
use common::{Home, Station, author, note, notes, wait_until};
use rustix::process::Signal;
use serde_json::Value;

fn named(name: &str, rest: &str) -> String {
    format!("[station]\nconstellation = \"{name}\"\n{rest}")
}

fn invite(home: &Home) -> String {
    let invitation = home.run(&["invite", "--json"]).with_code(0).json();
    invitation["token"].as_str().expect("a token").to_owned()
}

fn is_halted(home: &Home) -> bool {
    home.status()["halted"]
        .as_str()
        .is_some_and(|why| why.contains("--accept-constellation"))
}

#[test]
fn a_station_whose_constellation_changes_shares_nothing_until_the_captain_confirms() {
    let (one, other) = (
        Home::with_config(&named("ours", &own_node(""))),
        Home::with_config(&named("ours", &own_node(""))),
    );
    let running = one.start();
    let _other = other.start();
    other.run(&["join", &invite(&one)]).with_code(0);
    one.import(&notes(&author(1), 1_700_000_000, 4));
    other.sync(&["--peer", &address(&one)], 0);
    running.stop();

    one.configure(&named("theirs", &own_node("")));
    let running = one.start();
    assert!(is_halted(&one), "{}", one.status());
    let halted = one.run(&["sync"]).with_code(2);
    assert!(halted.err.contains("--accept-constellation"), "{halted:?}");
    other.sync(&["--peer", &address(&one)], 3);
    one.run(&["invite"]).with_code(2);
    running.stop();
    one.run(&["sync"]).with_code(2);

    let accepted = one.run(&["init", "--accept-constellation"]).with_code(0);
    assert!(
        accepted.out.contains("belongs to the constellation"),
        "{accepted:?}"
    );
    let _running = one.start();
    assert_eq!(one.status()["halted"], Value::Null);
    // It is another constellation now: what its stations say of each other counts no more, our captain's word does.
    other.run(&["join", &invite(&one)]).with_code(2);
}

#[test]
fn a_station_without_tunnels_too_shares_nothing_once_the_constellation_is_another() {
    let home = Home::with_config(&named("ours", common::QUIET));
    let peer = Home::new();
    let peer_station = peer.start();
    let to_peer = ["sync", "--peer", peer_station.address()];
    home.import(&notes(&author(1), 1_700_000_000, 4));
    home.run(&to_peer).with_code(0);
    home.configure(&named("theirs", common::QUIET));
    let halted = home.run(&to_peer).with_code(2);
    assert!(halted.err.contains("--accept-constellation"), "{halted:?}");
    let running = home.start();
    assert!(is_halted(&home));
    home.run(&to_peer).with_code(2);
    running.stop();
    home.run(&["init", "--accept-constellation"]).with_code(0);
    home.run(&to_peer).with_code(0);
}

#[test]
fn a_reload_that_names_another_constellation_stops_all_sharing_and_one_that_names_the_old_one_lets_it_go_on()
 {
    let (one, other) = (
        Home::with_config(&named("ours", &own_node(""))),
        Home::with_config(&named("ours", &own_node(""))),
    );
    let running = one.start();
    let _other = other.start();
    other.run(&["join", &invite(&one)]).with_code(0);
    let to_one = address(&one);
    one.import(&notes(&author(1), 1_700_000_000, 4));
    other.sync(&["--peer", &to_one], 0);

    one.configure(&named("theirs", &own_node("")));
    running.signal(Signal::HUP);
    wait_until("it is halted", || is_halted(&one));
    one.run(&["sync"]).with_code(2);
    one.run(&["invite"]).with_code(2);
    other.sync(&["--peer", &to_one], 3);

    one.configure(&named("ours", &own_node("")));
    running.signal(Signal::HUP);
    wait_until("it goes on", || one.status()["halted"].is_null());
    other.sync(&["--peer", &to_one], 0);

    // Confirmed while it runs, it needs a restart: its cards are of the old one.
    one.configure(&named("theirs", &own_node("")));
    running.signal(Signal::HUP);
    wait_until("it is halted", || is_halted(&one));
    one.run(&["init", "--accept-constellation"]).with_code(0);
    running.signal(Signal::HUP);
    wait_until("it asks for a restart", || {
        one.status()["halted"]
            .as_str()
            .is_some_and(|why| why.contains("restart"))
    });
    other.sync(&["--peer", &to_one], 3);
    running.stop();
    let _running = one.start();
    assert_eq!(one.status()["halted"], Value::Null);
}

#[test]
fn a_reload_that_names_another_constellation_ends_the_run_under_way_and_keeps_what_was_verified() {
    let (home, peer) = (
        Home::with_config(&named("ours", common::QUIET)),
        Home::new(),
    );
    let long = "x".repeat(2_000);
    let all: Vec<_> = (0..1_500)
        .map(|number| {
            note(
                &author(1),
                1_700_000_000 + number,
                &format!("{number} {long}"),
            )
        })
        .collect();
    peer.import(&all);
    let at_peer = peer.start();
    // It takes a quarter of a minute by itself.
    let slow = format!(
        "{}[[peers]]\naddress = \"{}\"\nbandwidth = 250000\n",
        common::QUIET,
        at_peer.address()
    );
    home.configure(&named("ours", &slow));
    let running = home.start();
    let run = home.spawn(&["sync", "--json"]);
    wait_until("something is stored", || home.count("{}") > 0);
    home.configure(&named("theirs", &slow));
    running.signal(Signal::HUP);
    let report = run.finish().with_code(1).json();
    let exchange = &report["peers"][0];
    assert_eq!(exchange["outcome"], "partial", "{exchange}");
    assert_eq!(exchange["error"]["reason"], "halted", "{exchange}");
    assert!(is_halted(&home));
    assert_eq!(home.status()["run_in_progress"], false);
    let kept = home.count("{}");
    let stored = exchange["stored"].as_u64().expect("a number");
    assert!(
        stored > 0 && kept >= stored && kept < 1_500,
        "{kept} {exchange}"
    );
    home.run(&["sync"]).with_code(2);

    // What was verified is not fetched again.
    home.configure(&named("ours", &slow));
    running.signal(Signal::HUP);
    wait_until("it goes on", || home.status()["halted"].is_null());
    let report = home.sync(&[], 0);
    assert_eq!(report["peers"][0]["stored"], 1_500 - kept, "{report}");
    assert_eq!(home.count("{}"), 1_500);
    home.verify();
}

#[test]
fn a_station_is_put_out_also_while_tunnels_are_off_or_wait_for_kubo() {
    let (one, other, third) = (
        Home::with_config(&own_node("")),
        Home::with_config(&own_node("")),
        Home::with_config(&own_node("")),
    );
    let running = one.start();
    let _others: [Station<'_>; 2] = [other.start(), third.start()];
    for home in [&other, &third] {
        home.run(&["join", &invite(&one)]).with_code(0);
    }
    running.stop();
    let id = |home: &Home| {
        home.status()["peer_id"]
            .as_str()
            .expect("a PeerID")
            .to_owned()
    };

    let off = own_node("").replace("[tunnel]", "[tunnel]\nenabled = false");
    one.configure(&off);
    let running = one.start();
    one.run(&["peers", "revoke", &id(&other)]).with_code(0);
    let ourselves = one.run(&["peers", "revoke", &id(&one)]).with_code(2);
    assert!(ourselves.err.contains("itself"), "{ourselves:?}");
    let off = one.run(&["invite"]).with_code(2);
    assert!(off.err.contains("switched off"), "{off:?}");
    running.stop();

    // Nobody listens there.
    let waits = own_node("").replace(
        "use = \"never\"",
        "use = \"always\"\napi = \"http://127.0.0.1:9\"",
    );
    one.configure(&waits);
    let running = one.start();
    one.run(&["peers", "revoke", &id(&third)]).with_code(0);
    let waiting = one.status()["no_tunnels"].to_string();
    assert!(waiting.contains("kubo"), "{waiting}");
    // What is read again meanwhile counts when kubo answers, or is no longer waited for.
    running.stop();

    one.configure(&own_node(""));
    let _running = one.start();
    let to_one = address(&one);
    for home in [&other, &third] {
        home.sync(&["--peer", &to_one], 3);
    }
}
