//! Each way of finding a station, with all others off: it is named as the source, and a run exchanges with whom it found.

use std::time::Duration;

use serde_json::{Value, json};

use super::network::{Nat, Network};
use super::stations::{Over, Setup, address_of, join, link_with, peer_id, sources, start};
use crate::common::{Home, author, notes, wait_for, wait_for_within};

const BEGIN: u64 = 1_700_000_000;
/// How soon a station is found, and connected with.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// Waits until `finder` knows `peer` from `source` and nobody else, and exchanges with it without being told.
#[track_caller]
fn finds(finder: &Home, peer: &str, source: &str) {
    wait_for_within(FOUND_WITHIN, source, || {
        sources(finder, peer)
            .contains(&source.to_owned())
            .then_some(())
    });
    let report = exchange(finder, peer);
    assert_eq!(report["outcome"], "converged", "{report}");
}

/// A run with whoever is known; gives what came of the exchange with `peer`.
#[track_caller]
fn exchange(finder: &Home, peer: &str) -> Value {
    let address = format!("/p2p/{peer}");
    wait_for("a run exchanges with it", || {
        // Others may be out of reach: what counts is this one.
        let report = finder.run(&["sync", "--json"]).json();
        let peers = report["peers"].as_array().expect("a list").clone();
        let mut of_it = peers
            .into_iter()
            .filter(|one| one["address"] == address.as_str());
        of_it.next().filter(|one| one["outcome"] == "converged")
    })
}

fn with_events(home: Home, number: u8) -> Home {
    home.import(&notes(&author(number), BEGIN, 20));
    home
}

#[test]
fn a_named_station_is_found_by_its_address() {
    let b = with_events(Setup::on_loopback("b", Over::Tcp).home(), 2);
    let setup = Setup::on_loopback("a", Over::Tcp);
    let a = with_events(setup.home(), 1);
    let _b = {
        let setup = Setup::on_loopback("b", Over::Tcp).allow(&[&peer_id(&a)]);
        b.configure(&setup.text());
        start(&b)
    };
    a.configure(&setup.peer(&address_of(&b)).text());
    let _a = start(&a);
    let peer = peer_id(&b);
    finds(&a, &peer, "static");
    assert_eq!(a.ids(), b.ids());
}

#[test]
fn a_station_is_found_by_the_card_that_a_third_one_hands_over() {
    let homes = ["a", "b", "c"].map(|name| Setup::on_loopback(name, Over::Tcp).home());
    let [a, b, c] = &homes;
    a.import(&notes(&author(1), BEGIN, 20));
    b.import(&notes(&author(2), BEGIN, 20));
    let _stations = [start(a), start(b), start(c)];
    join(a, c);
    join(b, c);
    let peer = peer_id(b);
    finds(a, &peer, "card");
    assert_eq!(sources(a, &peer), ["card"]);
    assert!(b.ids().is_subset(&a.ids()));
}

#[test]
fn stations_on_one_network_find_each_other_by_multicast() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let places = ["a", "b"].map(|name| network.public_host(name));
    let setups = ["a", "b"].map(|name| Setup::in_namespace(name, Over::Both).tunnel("mdns = true"));
    let homes = [0, 1].map(|at: usize| {
        let number = u8::try_from(at).expect("0 or 1");
        with_events(setups[at].home_at(&places[at]), number)
    });
    let ids = [0, 1].map(|at: usize| peer_id(&homes[at]));
    let [a, b] = setups;
    homes[0].configure(&a.allow(&[&ids[1]]).text());
    homes[1].configure(&b.allow(&[&ids[0]]).text());
    let _stations = [start(&homes[0]), start(&homes[1])];
    finds(&homes[0], &ids[1], "mdns");
    assert_eq!(homes[0].ids(), homes[1].ids());
}

/// `a ─ first ─ second ─ b`: each knows the next. Nobody vouches for anybody, so cards go one step only; `a` and `b` let
/// each other in, and only the hash table, which is asked step by step, can tell where they are.
#[test]
fn a_station_is_found_by_the_hash_table_alone() {
    let setup = |name| Setup::on_loopback(name, Over::Tcp).tunnel("kademlia = \"constellation\"");
    let names = ["a", "first", "second", "b"];
    let homes = names.map(|name| setup(name).home());
    let ids = [0, 1, 2, 3].map(|at: usize| peer_id(&homes[at]));
    homes[0].import(&notes(&author(1), BEGIN, 20));
    homes[3].import(&notes(&author(2), BEGIN, 20));
    let mut stations = Vec::new();
    let admits: [&[usize]; 4] = [&[1, 3], &[0, 2], &[1, 3], &[2, 0]];
    // Each is told where the one is that was started before it.
    let mut before: Option<String> = None;
    for at in [1, 2, 3, 0] {
        let allowed: Vec<&str> = admits[at].iter().map(|&who| ids[who].as_str()).collect();
        let mut setup = setup(names[at]).allow(&allowed);
        if at == 0 {
            setup = setup.peer(&address_of(&homes[1]));
        } else if let Some(address) = &before {
            setup = setup.peer(address);
        }
        homes[at].configure(&setup.text());
        stations.push(start(&homes[at]));
        before = Some(address_of(&homes[at]));
    }
    finds(&homes[0], &ids[3], "kademlia");
    assert!(homes[3].ids().is_subset(&homes[0].ids()));
}

/// Both are behind routers, and nobody relays: neither can be asked. What they said to a third one is remembered there.
#[test]
fn the_hash_table_answers_for_a_station_that_cannot_be_asked() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let setup = |name| Setup::in_namespace(name, Over::Tcp).tunnel("kademlia = \"constellation\"");
    let place = network.public_host("table");
    let table = setup("table").home_at(&place);
    let names = ["a", "b"];
    let homes = names.map(|name| {
        let place = network.host_behind(Nat::RandomPorts, name);
        setup(name).home_at(&place)
    });
    let ids = [0, 1].map(|at: usize| peer_id(&homes[at]));
    table.configure(&setup("table").allow(&[&ids[0], &ids[1]]).text());
    let _table = start(&table);
    let at = format!("/ip4/{}/tcp/4011/p2p/{}", place.ip, peer_id(&table));
    for (name, home) in names.into_iter().zip(&homes) {
        home.configure(&setup(name).peer(&at).text());
    }
    let _stations = [start(&homes[0]), start(&homes[1])];
    wait_for_within(FOUND_WITHIN, "the later one finds the earlier one", || {
        let known = sources(&homes[1], &ids[0]);
        known.contains(&"kademlia".to_owned()).then_some(())
    });
    assert_eq!(link_with(&homes[0], &ids[1]), None, "they cannot meet");
}

#[test]
fn a_station_is_found_by_its_card_in_the_swarm_folder() {
    let b = with_events(Setup::on_loopback("b", Over::Tcp).home(), 2);
    let setup = Setup::on_loopback("a", Over::Tcp);
    let a = with_events(setup.home(), 1);
    b.configure(
        &Setup::on_loopback("b", Over::Tcp)
            .allow(&[&peer_id(&a)])
            .text(),
    );
    let _b = start(&b);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let swarm = folder.path().display();
    let section = format!("[astroport]\nenabled = true\nswarm = \"{swarm}\"\nuplanet = \"X\"");
    a.configure(&setup.section(&section).text());
    let _a = start(&a);

    let (peer, address) = (peer_id(&b), address_of(&b));
    let station = folder.path().join(&peer);
    std::fs::create_dir(&station).expect("our own folder");
    std::fs::write(station.join("x_strfry.sh"), "#!/bin/sh\n").expect("our own folder");
    let card = json!({
        "version": "12345.0.2", "hostname": "b", "ipfsnodeid": peer, "UPLANETG1PUB": "X",
        "myRELAY": "ws://127.0.0.1:7777", "constellation": {"addresses": [address]},
    });
    std::fs::write(station.join("12345.json"), card.to_string()).expect("our own folder");
    finds(&a, &peer, "swarm_folder");
    assert_eq!(a.ids(), b.ids());
}
