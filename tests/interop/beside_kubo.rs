//! Stations whose tunnels a kubo daemon carries: what befalls it daily, what others do with it, and who joins whom.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::common::tunnelled::{beside_kubo, own_node, peer_id, start, text, tunnels};
use super::common::{Home, author, notes, wait_for, wait_within};
use super::kubo::{Kubo, Setup};
use super::tunnels::tcp_of;

/// Within which all is back after kubo has lost it.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// What switches on in kubo what tunnels need.
const REMEDY: &str = "ipfs config --json Experimental.Libp2pStreamMounting true";

fn mounts(kubo: &Kubo) -> BTreeSet<String> {
    kubo.mounts().into_iter().collect()
}

/// A script's own forward and listener, which are nobody's business.
fn by_hand(kubo: &Kubo, elsewhere: &str) -> BTreeSet<String> {
    let before = mounts(kubo);
    kubo.ipfs(&[
        "p2p",
        "forward",
        "/x/theirs",
        "/ip4/127.0.0.1/tcp/0",
        &format!("/p2p/{elsewhere}"),
    ]);
    kubo.ipfs(&["p2p", "listen", "/x/theirs", "/ip4/127.0.0.1/tcp/9"]);
    let made: BTreeSet<String> = mounts(kubo).difference(&before).cloned().collect();
    assert_eq!(made.len(), 2, "{made:?}");
    made
}

/// Exchanges with all peers until that converges, as soon as it must.
#[track_caller]
fn converges_soon(home: &Home, events: u64, what: &str) {
    wait_within(BACK_WITHIN, what, || {
        let ended = home.run(&["sync", "--json"]);
        ended.code == Some(0) && home.count("{}") == events
    });
}

/// Five new events of this author.
fn five_more(home: &Home, number: u8) {
    home.import(&notes(&author(number), 1_700_000_000, 5));
}

#[test]
fn stations_beside_two_kubos_converge_whatever_befalls_the_daemons() {
    if !Kubo::is_installed() {
        return;
    }
    let mut kubos = [(); 2].map(|()| Kubo::start(Setup::default()));
    let homes = [0, 1].map(|number: usize| Home::with_config(&beside_kubo(&kubos[number].api())));
    let stations = homes.each_ref().map(start);
    for (number, home) in homes.iter().enumerate() {
        home.run(&["peers", "add", &tcp_of(&kubos[1 - number])])
            .with_code(0);
        assert_eq!(tunnels(home)["carrier"]["kind"], "kubo");
        let status = home.status();
        assert_eq!(status["peer_id"], kubos[number].peer(), "{status}");
        assert_eq!(status["tunnels"]["carrier"]["kind"], "kubo", "{status}");
        let log = stations[number].log();
        assert!(log.contains(kubos[number].peer()), "{log}");
    }
    let [first, second] = &homes;
    five_more(first, 1);
    five_more(second, 2);
    converges_soon(first, 10, "they converge");
    assert_eq!(first.export(), second.export());

    // Somebody tells both daemons to close everything.
    let ours = kubos.each_ref().map(mounts);
    for (kubo, ours) in kubos.iter().zip(&ours) {
        assert!(!ours.is_empty());
        kubo.ipfs(&["p2p", "close", "--all"]);
    }
    wait_within(BACK_WITHIN, "ours are back on the same ports", || {
        // More may be open by now: stations tell each other their cards when they like.
        let has_ours = |(kubo, ours): (&Kubo, &BTreeSet<_>)| ours.is_subset(&mounts(kubo));
        kubos.iter().zip(&ours).all(has_ours)
    });
    five_more(second, 3);
    converges_soon(first, 15, "they converge after `close --all`");

    // Both daemons restart, one after the other; a script opens something of its own.
    for (number, kubo) in kubos.iter_mut().enumerate() {
        kubo.stop();
        kubo.start_again();
        wait_within(BACK_WITHIN, "ours are back on the same ports", || {
            ours[number].is_subset(&mounts(kubo))
        });
    }
    let theirs = by_hand(&kubos[0], kubos[1].peer());
    five_more(second, 4);
    converges_soon(first, 20, "they converge after restarts");
    assert_eq!(first.export(), second.export());

    // A crash leaves ours behind, the next end takes ours away, and theirs stays.
    let [crashing, stopping] = stations;
    crashing.kill();
    assert!((&ours[0] | &theirs).is_subset(&mounts(&kubos[0])));
    let again = start(first);
    wait_within(BACK_WITHIN, "the peer is reached after a crash", || {
        first.run(&["sync"]).code == Some(0)
    });
    again.stop();
    assert_eq!(mounts(&kubos[0]), theirs);
    stopping.stop();
    assert_eq!(mounts(&kubos[1]), BTreeSet::new());
}

#[test]
fn a_kubo_without_stream_mounting_is_waited_for_and_the_log_says_what_to_do() {
    if !Kubo::is_installed() {
        return;
    }
    let mut kubo = Kubo::start(Setup {
        stream_mounting: false,
        ..Setup::default()
    });
    let home = Home::with_config(&beside_kubo(&kubo.api()));
    let station = home.start();
    let log = wait_for("the log says it", || {
        Some(station.log()).filter(|log| log.contains(REMEDY))
    });
    assert!(log.contains("WARN") || log.contains("ERROR"), "{log}");
    let without = home.run(&["tunnel", "ls"]).with_code(5);
    assert!(without.err.contains(REMEDY), "{without:?}");

    // The captain does as told.
    let words: Vec<&str> = REMEDY.split(' ').skip(1).collect();
    kubo.ipfs(&words);
    kubo.stop();
    kubo.start_again();
    assert_eq!(tunnels(&home)["carrier"]["kind"], "kubo");
    assert_eq!(peer_id(&home), kubo.peer());
    station.stop();
}

/// Neither knows more of the other than the token says.
#[test]
fn stations_with_and_without_kubo_invite_each_other() {
    if !Kubo::is_installed() {
        return;
    }
    let kubo = Kubo::start(Setup::default());
    let beside = Home::with_config(&beside_kubo(&kubo.api()));
    let [guest, host] = [(); 2].map(|()| Home::with_config(&own_node("")));
    let _running = [start(&beside), start(&guest), start(&host)];
    for (number, home) in [&beside, &guest, &host].into_iter().enumerate() {
        five_more(home, u8::try_from(number).expect("three") + 10);
    }
    let admits = |home: &Home, other: &Home| {
        let name = format!("/p2p/{}", peer_id(other));
        let peers = home.run(&["peers", "--json"]).with_code(0).json();
        let peers: Vec<Value> = peers.as_array().expect("a list").clone();
        let mut admitted = peers.iter().filter(|peer| peer["standing"] == "admitted");
        admitted.any(|peer| text(&peer["address"]) == name)
    };
    let join = |inviting: &Home, joining: &Home, more: &[&str]| {
        let token = inviting.run(&["invite"]).with_code(0).out;
        let words = ["join", token.trim()];
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        joining.run(&words).with_code(0);
        wait_within(BACK_WITHIN, "they admit each other", || {
            admits(inviting, joining) && admits(joining, inviting)
        });
    };
    join(&beside, &guest, &[]);
    converges_soon(&guest, 10, "a newcomer with a node of its own converges");
    assert_eq!(guest.export(), beside.export());

    // The one beside kubo leaves the constellation that it founded, for another's.
    join(&host, &beside, &["--accept-constellation"]);
    wait_within(BACK_WITHIN, "a newcomer beside kubo converges", || {
        let reached = beside.run(&["sync", "--peer", &format!("/p2p/{}", peer_id(&host))]);
        reached.code == Some(0)
    });
    assert_eq!(host.export(), beside.export());
    assert_eq!(host.count("{}"), 15);
}
