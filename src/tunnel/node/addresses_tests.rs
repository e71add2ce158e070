//! The address book: ranks, bounds, what survives, what it refuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure};
use libp2p::swarm::{ConnectionId, DialError, FromSwarm, NetworkBehaviour};
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use tokio::sync::{mpsc, watch};

use super::{
    ADDRESSES_PER_PEER, AddressBook, Behaviour, PEERS_MAX, SharedBook, is_loopback, is_relayed,
    leads_through, opened, without_peer,
};
use crate::time::Clock;
use crate::tunnel::node::streams::Door;
use crate::tunnel::{GuestList, Multiaddr, PeerId, Source};

fn address(number: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{number}")
        .parse()
        .expect("an address")
}

#[test]
fn what_serves_comes_first_then_what_is_untried_then_what_failed_least() {
    let mut book = AddressBook::default();
    let peer = PeerId::random();
    for number in 1..=4 {
        assert!(book.learn(peer, &address(number), Source::Card));
        assert!(!book.learn(peer, &address(number), Source::Card), "known");
    }
    book.succeeded(peer, &address(2), 100);
    book.succeeded(peer, &address(3), 200);
    book.failed(peer, &address(1));
    assert_eq!(book.direct(&peer), [3, 2, 4, 1].map(address));
    // What served and fails now comes after what is untried, before what failed as often and never served; and not for
    // ever: failures make it sink.
    book.failed(peer, &address(3));
    assert_eq!(book.direct(&peer), [2, 4, 3, 1].map(address));
    for _ in 0..100 {
        book.failed(peer, &address(3));
    }
    assert_eq!(book.direct(&peer), [2, 4, 1, 3].map(address));
    book.succeeded(peer, &address(3), 300);
    assert_eq!(book.direct(&peer), [3, 2, 4, 1].map(address));
}

#[test]
fn a_station_that_moved_often_has_room_for_where_it_is_now() {
    let mut book = AddressBook::default();
    let peer = PeerId::random();
    for number in 1..=16 {
        book.learn(peer, &address(number), Source::Card);
        book.succeeded(peer, &address(number), u64::from(number));
        book.failed(peer, &address(number));
    }
    let fresh = [17, 18, 19].map(address);
    for address in &fresh {
        assert!(book.learn(peer, address, Source::Card));
    }
    assert_eq!(book.direct(&peer)[..3], fresh, "none put out the others");
    // The last that served stays, whatever comes: announcements cost nobody anything.
    for number in 100..200 {
        book.learn(peer, &address(number), Source::Mdns);
    }
    assert!(book.direct(&peer).contains(&address(16)));
}

#[test]
fn where_another_station_answers_is_tried_only_when_nothing_else_is_left() {
    let mut book = AddressBook::default();
    let peer = PeerId::random();
    book.learn(peer, &address(1), Source::Card);
    book.is_of_another(peer, &address(1));
    assert_eq!(book.direct(&peer), [address(1)], "nothing else");
    book.learn(peer, &address(2), Source::Card);
    book.failed(peer, &address(2));
    assert_eq!(book.direct(&peer), [address(2)]);
    book.succeeded(peer, &address(1), 100);
    assert_eq!(book.direct(&peer), [1, 2].map(address));
}

fn behaviour(admitted: &[PeerId]) -> (Behaviour, SharedBook) {
    let list = GuestList {
        admitted: admitted.iter().copied().collect(),
        ..GuestList::default()
    };
    let guests = watch::channel(Arc::new(list)).1;
    let (inbound, weary) = (mpsc::channel(1).0, mpsc::channel(1).0);
    let door = Door::new(PeerId::random(), guests, inbound, weary, Clock::system());
    let book = SharedBook::default();
    let behaviour = Behaviour::new(Arc::clone(&book), Arc::new(door), Clock::system());
    (behaviour, book)
}

#[test]
fn strangers_that_are_met_do_not_enter_the_book() {
    let (friend, stranger, named) = (PeerId::random(), PeerId::random(), PeerId::random());
    let (mut behaviour, book) = behaviour(&[friend]);
    opened(&book).learn(named, &address(1), Source::Static);
    let endpoint = ConnectedPoint::Dialer {
        address: address(1),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    for peer_id in [friend, stranger, named] {
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }
    let book = opened(&book).snapshot();
    let served = |peer: PeerId| {
        let mut of_peer = book.iter().filter(|one| one.peer == peer.to_string());
        of_peer.next().map(|one| one.last_success.is_some())
    };
    assert_eq!(served(friend), Some(true));
    assert_eq!(served(stranger), None);
    assert_eq!(
        served(named),
        Some(true),
        "what is known already is kept up"
    );
}

#[test]
fn an_address_that_leads_to_another_station_is_put_back() {
    let peer = PeerId::random();
    let (mut behaviour, book) = behaviour(&[peer]);
    for number in 1..=2 {
        opened(&book).learn(peer, &address(number), Source::Card);
    }
    let error = DialError::WrongPeerId {
        obtained: PeerId::random(),
        address: address(1),
    };
    behaviour.on_swarm_event(FromSwarm::DialFailure(DialFailure {
        peer_id: Some(peer),
        error: &error,
        connection_id: ConnectionId::new_unchecked(1),
    }));
    assert_eq!(opened(&book).direct(&peer), [address(2)]);
}

#[test]
fn relayed_addresses_are_kept_apart() {
    let (peer, relay) = (PeerId::random(), PeerId::random());
    let circuit: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}")
        .parse()
        .expect("an address");
    let mut book = AddressBook::default();
    book.learn(peer, &circuit, Source::Card);
    book.learn(peer, &address(1), Source::Card);
    assert_eq!(book.direct(&peer), [address(1)]);
    assert_eq!(
        book.relayed(&peer),
        [without_peer(&circuit, &peer).expect("one")]
    );
    assert!(is_relayed(&circuit) && !is_relayed(&address(1)));
    assert!(leads_through(&circuit, &relay) && !leads_through(&circuit, &peer));
}

#[test]
fn an_address_of_another_station_is_refused() {
    let (peer, other) = (PeerId::random(), PeerId::random());
    let mut book = AddressBook::default();
    let foreign: Multiaddr = format!("{}/p2p/{other}", address(1)).parse().expect("one");
    assert!(!book.learn(peer, &foreign, Source::Card));
    let bare: Multiaddr = format!("/p2p/{peer}").parse().expect("one");
    assert!(!book.learn(peer, &bare, Source::Card));
    assert!(book.snapshot().is_empty());
    let local: Multiaddr = "/ip6/::1/tcp/1".parse().expect("one");
    assert!(is_loopback(&local) && !is_loopback(&address(1)));
}

#[test]
fn stations_nobody_wants_make_room_for_others() {
    let wanted = PeerId::random();
    let named = PeerId::random();
    let mut book = AddressBook::default();
    book.set_wanted(Arc::new(BTreeSet::from([wanted])));
    book.learn(wanted, &address(1), Source::Card);
    book.learn(named, &address(1), Source::Static);
    for _ in 0..2 * PEERS_MAX {
        book.learn(PeerId::random(), &address(1), Source::Mdns);
    }
    assert_eq!(book.snapshot().len(), PEERS_MAX);
    assert!(!book.direct(&wanted).is_empty() && !book.direct(&named).is_empty());
}

proptest! {
    #[test]
    fn a_station_has_few_addresses_and_the_one_that_served_last_survives(
        learnt in proptest::collection::vec((1_u16..200, 0_u8..4), 1..200)
    ) {
        let mut book = AddressBook::default();
        let peer = PeerId::random();
        let mut served_last = None;
        for (time, (number, what)) in (1_u64..).zip(learnt) {
            match what {
                0 => { book.learn(peer, &address(number), Source::Card); }
                1 => book.failed(peer, &address(number)),
                2 => {
                    book.learn(peer, &address(number), Source::Connection);
                    book.succeeded(peer, &address(number), time);
                    served_last = Some(number);
                }
                _ => { book.learn(peer, &address(number), Source::Static); }
            }
            prop_assert!(book.direct(&peer).len() <= ADDRESSES_PER_PEER);
        }
        if let Some(number) = served_last {
            prop_assert!(book.direct(&peer).contains(&address(number)));
        }
        let failures = |one: &Multiaddr| {
            let known = book.snapshot();
            known.iter().find(|known| known.address == one.to_string()).map(|known| known.failures)
        };
        prop_assert!(book.direct(&peer).iter().map(failures).is_sorted(), "what failed least first");
        let again = AddressBook::restore(&book.snapshot());
        let (mut before, mut after) = (book.snapshot(), again.snapshot());
        before.sort_by(|a, b| a.address.cmp(&b.address));
        after.sort_by(|a, b| a.address.cmp(&b.address));
        prop_assert_eq!(before, after);
    }
}
