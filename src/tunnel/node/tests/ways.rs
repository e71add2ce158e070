//! Ways to stations that are not known: the hash table, a relay.

use tokio::time::timeout;

use super::super::{KademliaMode, NodeOptions};
use super::support::{PATIENCE, Station, TCP, identity, on, ping_pong, station, station_of};
use crate::tunnel::{Carrier, Multiaddr, Path, Refusal, Source};

fn admit_each_other(stations: &[&Station]) {
    for one in stations {
        for other in stations {
            if one.id() != other.id() {
                one.admit(other.id());
            }
        }
    }
}

#[tokio::test]
async fn two_stations_find_each_other_through_a_third_that_both_know() {
    let looking = || NodeOptions {
        kademlia: KademliaMode::Constellation,
        rendezvous: Some([42; 32]),
        ..on(TCP)
    };
    let (mut first, mut second) = (station(looking()).await, station(looking()).await);
    let third = station(looking()).await;
    admit_each_other(&[&first, &second, &third]);
    for one in [&first, &second] {
        one.knows(&third);
        one.keep([third.id()]);
    }
    for (finder, sought) in [(&mut first, second.id()), (&mut second, third.id())] {
        let found = async {
            loop {
                let found = finder.found.recv().await.expect("runs");
                assert_eq!(found.source, Source::Kademlia);
                if found.peer == sought {
                    break found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("found in time");
    }
    let far = second.id();
    let (_node, _guests, _tasks) = second.echo();
    let mut stream = first.open(far, "strfry").await;
    ping_pong(&mut stream, b"found").await;
}

#[tokio::test]
async fn whoever_leaves_for_another_constellation_is_looked_for_there_at_once() {
    let looking = |hash| NodeOptions {
        kademlia: KademliaMode::Constellation,
        rendezvous: Some([hash; 32]),
        ..on(TCP)
    };
    let (mut first, second) = (station(looking(1)).await, station(looking(2)).await);
    let third = station(looking(1)).await;
    admit_each_other(&[&first, &second, &third]);
    for one in [&first, &second] {
        one.knows(&third);
        one.keep([third.id()]);
        one.until_linked(third.id()).await;
    }
    second.node.meet_under([1; 32]);
    let sought = second.id();
    let found = async { while first.found.recv().await.expect("runs").peer != sought {} };
    timeout(PATIENCE, found).await.expect("found in time");
}

fn relay() -> NodeOptions {
    NodeOptions {
        serve_relay: true,
        ..on(TCP)
    }
}

/// Reachable through the relay only: it listens nowhere itself.
fn hidden(relay: &Station) -> NodeOptions {
    let address: Multiaddr = relay.addresses().remove(0);
    let address = address.with(libp2p::multiaddr::Protocol::P2p(relay.id()));
    NodeOptions {
        relays: vec![address],
        ..NodeOptions::default()
    }
}

#[tokio::test]
async fn two_stations_that_reach_only_a_third_exchange_bytes_through_it_and_say_so() {
    let relay = station(relay()).await;
    let (first, second) = (station(hidden(&relay)).await, station(hidden(&relay)).await);
    admit_each_other(&[&first, &second, &relay]);
    second
        .until(|state| {
            state
                .addresses
                .iter()
                .any(|one| one.contains("p2p-circuit"))
        })
        .await;
    let (near, far) = (first.id(), second.id());
    first.keep([far]);
    first.until_linked(far).await;
    let (second_node, _guests, _tasks) = second.echo();
    let mut stream = first.open(far, "strfry").await;
    // More than public relays let through.
    ping_pong(&mut stream, &vec![3; 200_000]).await;
    for (node, other) in [(&first.node, far), (&second_node, near)] {
        let state = node.state();
        let state = state.borrow();
        let link = state.links.get(&other.to_string()).expect("a link");
        assert_eq!(link.path, Path::Relayed, "{link:?}");
    }
}

#[tokio::test]
async fn a_relay_serves_no_strangers() {
    let relay = station(relay()).await;
    let stranger = station(hidden(&relay)).await;
    stranger.until_linked(relay.id()).await;
    // Connected, and asked: it never gets a place. A friend that asks later has one first.
    let friend = station(hidden(&relay)).await;
    relay.admit(friend.id());
    friend
        .until(|state| {
            state
                .addresses
                .iter()
                .any(|one| one.contains("p2p-circuit"))
        })
        .await;
    let state = stranger.node.state();
    let has_place = |one: &String| one.contains("p2p-circuit");
    assert!(!state.borrow().addresses.iter().any(has_place));
    assert_eq!(
        relay
            .node
            .state()
            .borrow()
            .refused
            .get(&Refusal::Overloaded),
        None
    );
}

/// Who may ask a connection for a place is decided when it is made; being wanted is not being admitted.
#[tokio::test]
async fn a_station_that_was_wanted_before_it_was_admitted_gets_a_place() {
    let relay = station(relay()).await;
    let guest = identity();
    let id = guest.keypair().public().to_peer_id();
    relay.keep([id]);
    let guest = station_of(&guest, hidden(&relay)).await;
    relay.until_linked(id).await;
    relay.admit(id);
    guest
        .until(|state| {
            state
                .addresses
                .iter()
                .any(|one| one.contains("p2p-circuit"))
        })
        .await;
}

#[tokio::test]
async fn a_relayed_link_becomes_direct_when_an_address_is_learnt() {
    let relay = station(relay()).await;
    let open = NodeOptions {
        listen: on(TCP).listen,
        ..hidden(&relay)
    };
    // The first knows only the relay; where the second listens it learns through the relayed link.
    let (first, second) = (station(hidden(&relay)).await, station(open).await);
    admit_each_other(&[&first, &second, &relay]);
    second
        .until(|state| {
            state
                .addresses
                .iter()
                .any(|one| one.contains("p2p-circuit"))
        })
        .await;
    first.keep([second.id()]);
    let far = second.id().to_string();
    first
        .until(|state| {
            let link = state.links.get(&far);
            link.is_some_and(|link| link.path == Path::Direct)
        })
        .await;
}
