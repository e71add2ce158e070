//! Stations behind routers, in network namespaces, and every way of finding a station, each alone: with the real binary.
//!
//! Namespaces need root, `ip` and `iptables` (tests/interop/install.sh). Where they cannot be made, the tests that need
//! them say so and pass; with `CI=true` they fail.

mod common;
#[path = "nat/finding.rs"]
mod finding;
#[path = "nat/network.rs"]
mod network;
#[path = "nat/stations.rs"]
mod stations;

use std::time::Duration;

use common::{Home, Station, author, clock, note, notes, now, wait_for, wait_for_within};
use network::{Nat, Network, Place};
use nostr::event::Event;
use serde_json::Value;
use stations::{Over, Setup, join, link_with, peer_id, start, text, tunnels};

/// How soon two stations are connected directly that their routers let do so.
const DIRECT_WITHIN: Duration = Duration::from_secs(30);
/// How soon a station that starts has its links back.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How soon a new relayed connection has tried to become direct, where every attempt is refused.
const FIRST_ATTEMPTS: Duration = Duration::from_secs(10);
/// How soon it is tried again, and done.
const NEXT_ATTEMPT: Duration = Duration::from_secs(75);
/// What public relays let through in one circuit.
const PUBLIC_RELAY_LASTS: Duration = Duration::from_secs(120);
const PUBLIC_RELAY_BYTES: u64 = 128 << 10;
/// For how long a stranger asks for a place at a relay.
const ASKS_FOR: Duration = Duration::from_secs(3);
/// When the events of these tests begin.
const BEGIN: u64 = 1_700_000_000;

/// How stations behind routers know whom to ask for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RelayIs {
    /// The captain named it.
    Named,
    /// Its card says that it relays.
    Offered,
}

/// A station that relays, and two behind routers that know it by its relaying and each other by cards.
struct World {
    relay: Home,
    homes: [Home; 2],
    places: [Place; 2],
    ids: [String; 2],
}

impl World {
    fn new(network: &mut Network, nat: Nat, over: Over, is: RelayIs) -> Self {
        let place = network.public_host("relay");
        let relay = Setup::in_namespace("relay", over).tunnel("serve_relay = true");
        let relay = relay.home_at(&place);
        let relay_id = peer_id(&relay);
        let through = relay_address(&place, &relay_id, over);
        let places = ["a", "b"].map(|name| network.host_behind(nat, name));
        let homes = [("a", &places[0]), ("b", &places[1])].map(|(name, place)| {
            let setup = Setup::in_namespace(name, over);
            let setup = match is {
                RelayIs::Named => setup.tunnel(&format!("relays = [{through:?}]")),
                RelayIs::Offered => setup,
            };
            setup.home_at(place)
        });
        let ids = [0, 1].map(|at: usize| peer_id(&homes[at]));
        Self {
            relay,
            homes,
            places,
            ids,
        }
    }

    /// Starts all; those behind routers join by tokens.
    fn start(&self) -> [Station<'_>; 3] {
        let relay = start(&self.relay);
        let behind = [0, 1].map(|at: usize| {
            let station = start(&self.homes[at]);
            join(&self.homes[at], &self.relay);
            station
        });
        let [a, b] = behind;
        [relay, a, b]
    }

    /// How one is connected with the other.
    fn link(&self) -> Option<Value> {
        link_with(&self.homes[0], &self.ids[1])
    }
}

/// When the connection that serves began, in Unix seconds.
#[track_caller]
fn started(link: &Value) -> u64 {
    link["since"].as_u64().expect("a time")
}

fn relay_address(place: &Place, id: &str, over: Over) -> String {
    let ip = &place.ip;
    match over {
        Over::Quic => format!("/ip4/{ip}/udp/4011/quic-v1/p2p/{id}"),
        Over::Tcp | Over::Both => format!("/ip4/{ip}/tcp/4011/p2p/{id}"),
    }
}

/// Both have what either had; gives the report.
#[track_caller]
fn converges(world: &World) -> Value {
    let [a, b] = &world.homes;
    let address = format!("/p2p/{}", world.ids[1]);
    let report = a.sync(&["--peer", &address], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(a.ids(), b.ids());
    report
}

/// Notes that are together more than a public relay lets through.
fn large_notes(number: u8) -> Vec<Event> {
    let text = "x".repeat(2_000);
    (0..400)
        .map(|at| note(&author(number), BEGIN + at, &format!("{at} {text}")))
        .collect()
}

#[track_caller]
fn becomes_direct(over: Over, relay_is: RelayIs) {
    let Some(mut network) = Network::new() else {
        return;
    };
    let world = World::new(&mut network, Nat::KeepsPorts, over, relay_is);
    world.homes[0].import(&notes(&author(1), BEGIN, 50));
    world.homes[1].import(&notes(&author(2), BEGIN, 70));
    let _stations = world.start();
    let link = wait_for_within(DIRECT_WITHIN, "the link is direct", || {
        world.link().filter(|link| link["path"] == "direct")
    });
    // Both have the same address at home: what is connected are the routers.
    let address = text(&link["address"]);
    assert!(address.starts_with("/ip4/203.0.113."), "{link}");
    converges(&world);
    assert_eq!(world.homes[0].ids().len(), 120);
}

#[test]
fn routers_that_keep_ports_let_stations_reach_each_other_directly_over_tcp() {
    becomes_direct(Over::Tcp, RelayIs::Named);
}

#[test]
fn routers_that_keep_ports_let_stations_reach_each_other_directly_over_quic() {
    becomes_direct(Over::Quic, RelayIs::Offered);
}

/// The attempts that a new relayed connection brings fail at once: nothing but a later one can succeed.
#[test]
fn a_relayed_link_becomes_direct_when_that_becomes_possible_later() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let world = World::new(&mut network, Nat::KeepsPorts, Over::Tcp, RelayIs::Named);
    let parted = network.part(&world.places);
    let _stations = world.start();
    let link = wait_for("they are connected", || world.link());
    let relayed = |link: Value| {
        assert_eq!(link["path"], "relayed", "{link}");
        link
    };
    let since = started(&relayed(link));
    wait_for_within(FIRST_ATTEMPTS * 2, "the first attempts are over", || {
        world.link().map(relayed);
        (now() > since + FIRST_ATTEMPTS.as_secs()).then_some(())
    });
    drop(parted);
    wait_for_within(NEXT_ATTEMPT, "the link is direct", || {
        world.link().filter(|link| link["path"] == "direct")
    });
    converges(&world);
}

/// Public relays end a circuit after two minutes or 128 KiB. Ours do not: hence the only test here that takes long.
#[test]
fn routers_that_change_ports_leave_stations_relayed_without_the_bounds_of_public_relays() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let world = World::new(&mut network, Nat::RandomPorts, Over::Both, RelayIs::Named);
    world.homes[0].import(&large_notes(1));
    world.homes[1].import(&large_notes(2));
    let _stations = world.start();
    let link = wait_for("they are connected", || world.link());
    assert_eq!(link["path"], "relayed", "{link}");
    let report = converges(&world);
    let bytes = report["peers"][0]["bytes_in"].as_u64().expect("a number");
    assert!(bytes > PUBLIC_RELAY_BYTES * 5, "{report}");

    let later = wait_for_within(PUBLIC_RELAY_LASTS * 2, "one lasts two minutes", || {
        world
            .link()
            .filter(|link| now() > started(link) + PUBLIC_RELAY_LASTS.as_secs())
    });
    assert_eq!(later["path"], "relayed", "{later}");
    world.homes[1].import(&notes(&author(3), BEGIN, 30));
    converges(&world);
}

#[test]
fn a_station_that_restarts_behind_its_router_has_its_links_back() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let world = World::new(&mut network, Nat::RandomPorts, Over::Tcp, RelayIs::Offered);
    let [_relay, a, _b] = world.start();
    wait_for("they are connected", || world.link());
    a.kill();
    let _again = start(&world.homes[0]);
    let relay = peer_id(&world.relay);
    wait_for_within(BACK_WITHIN, "both links are back", || {
        link_with(&world.homes[0], &relay)?;
        world.link()
    });
    // And the other way round: it has a place at the relay again.
    wait_for_within(BACK_WITHIN, "it can be called", || {
        let report = tunnels(&world.homes[0]);
        let mut addresses = report["carrier"]["addresses"].as_array()?.iter();
        addresses
            .any(|one| text(one).ends_with("p2p-circuit"))
            .then_some(())
    });
    converges(&world);
}

#[test]
fn a_stranger_gets_no_place_at_a_relay() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let world = World::new(&mut network, Nat::RandomPorts, Over::Tcp, RelayIs::Named);
    let _relay = start(&world.relay);
    let _stranger = start(&world.homes[0]);
    let relay = peer_id(&world.relay);
    let places = || {
        let report = tunnels(&world.homes[0]);
        let addresses = report["carrier"]["addresses"].clone();
        let addresses: Vec<String> = serde_json::from_value(addresses).expect("a list");
        addresses
            .into_iter()
            .filter(|one| one.ends_with("p2p-circuit"))
            .count()
    };
    wait_for("it has reached the relay", || {
        link_with(&world.homes[0], &relay)
    });
    // It asks again after each refusal, with pauses that grow: several were answered by then.
    let begun = clock().monotonic();
    wait_for("it has asked for a while", || {
        assert_eq!(places(), 0);
        (clock().monotonic() - begun > ASKS_FOR).then_some(())
    });
    // The very same station, once it is admitted.
    join(&world.homes[0], &world.relay);
    wait_for_within(BACK_WITHIN, "it has a place", || {
        (places() > 0).then_some(())
    });
}

#[track_caller]
fn exchange_over(over: Over) {
    let [a, b] = ["a", "b"].map(|name| Setup::on_loopback(name, over).home());
    a.import(&notes(&author(1), BEGIN, 50));
    b.import(&notes(&author(2), BEGIN, 70));
    let _stations = [start(&a), start(&b)];
    join(&b, &a);
    let peer = peer_id(&a);
    let report = b.sync(&[], 0);
    assert_eq!(
        report["peers"][0]["address"],
        format!("/p2p/{peer}"),
        "{report}"
    );
    assert_eq!((a.ids().len(), a.ids()), (120, b.ids()));
    // Whoever has joined is called anew, as one who is admitted.
    let link = wait_for("they are connected", || link_with(&b, &peer));
    let address = text(&link["address"]);
    let expected = match over {
        Over::Quic => "/quic-v1",
        Over::Tcp | Over::Both => "/tcp/",
    };
    assert!(address.contains(expected), "{address}");
}

#[test]
fn tcp_alone_carries_an_exchange() {
    exchange_over(Over::Tcp);
}

#[test]
fn quic_alone_carries_an_exchange() {
    exchange_over(Over::Quic);
}
