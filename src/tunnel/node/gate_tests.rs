//! The gate: who calls too often, who is out, which stranger makes room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{
    CALLERS_MAX, Denied, Gate, PENDING_IN_OF_ONE_MAX, PENDING_IN_OVER_QUIC_MAX, STRANGERS_MAX,
    STRANGERS_OVER_QUIC_MAX, network_of,
};
use crate::time::{Clock, TimeSource};
use crate::tunnel::node::streams::Door;
use crate::tunnel::{GuestList, PeerId, Refusal};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};

/// A clock that a test moves, in milliseconds.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl TimeSource for Hand {
    fn wall(&self) -> Duration {
        self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn gate(list: GuestList) -> (Gate, Hand) {
    let hand = Hand::default();
    let clock = Clock::new(hand.clone());
    let guests = watch::channel(Arc::new(list)).1;
    let (inbound, weary) = (mpsc::channel(1).0, mpsc::channel(1).0);
    let door = Door::new(PeerId::random(), guests, inbound, weary, clock.clone());
    (Gate::new(Arc::new(door), clock, None), hand)
}

#[test]
fn an_address_that_calls_too_often_waits_and_the_others_do_not() {
    let (mut gate, hand) = gate(GuestList::default());
    let loud = "192.0.2.1".parse().expect("an address");
    let calm = "192.0.2.2".parse().expect("an address");
    let taken = (0..1_000).filter(|_| gate.take_call(loud).is_ok()).count();
    assert_eq!(taken, 64);
    assert_eq!(gate.take_call(loud), Err(Denied::CalledTooOften));
    assert_eq!(gate.take_call(calm), Ok(()));
    hand.0.fetch_add(1_000, Ordering::Relaxed);
    let taken = (0..1_000).filter(|_| gate.take_call(loud).is_ok()).count();
    assert_eq!(taken, 4, "a second later");
}

#[test]
fn callers_are_forgotten_before_they_fill_the_memory() {
    let (mut gate, hand) = gate(GuestList::default());
    for number in 0..2 * u32::try_from(CALLERS_MAX).expect("small") {
        hand.0.fetch_add(1, Ordering::Relaxed);
        let ip = std::net::Ipv4Addr::from(number.wrapping_add(0x0b00_0000));
        assert_eq!(gate.take_call(ip.into()), Ok(()));
    }
    assert_eq!(gate.callers.len(), CALLERS_MAX);
}

#[test]
fn the_stranger_that_was_there_longest_makes_room_and_friends_stay() {
    let (friend, banned) = (PeerId::random(), PeerId::random());
    let list = GuestList {
        admitted: [friend].into(),
        banned: [banned].into(),
        ..GuestList::default()
    };
    let (mut gate, hand) = gate(list);
    let connection = ConnectionId::new_unchecked;
    assert_eq!(
        gate.take_connection(connection(0), banned, false),
        Err(Denied::Banned)
    );
    assert_eq!(gate.take_connection(connection(1), friend, false), Ok(()));
    for number in 0..STRANGERS_MAX + 3 {
        hand.0.fetch_add(1, Ordering::Relaxed);
        let stranger = connection(100 + number);
        let taken = gate.take_connection(stranger, PeerId::random(), false);
        assert_eq!(taken, Ok(()));
    }
    assert_eq!(gate.strangers.len(), STRANGERS_MAX);
    let left: Vec<ConnectionId> = gate.leaving.iter().map(|(_, left)| *left).collect();
    assert_eq!(left, [100, 101, 102].map(connection));
}

/// As the swarm asks about a connection that begins.
fn call(gate: &mut Gate, connection: usize, from: &str) -> bool {
    let (here, from) = ("/ip4/192.0.2.9/tcp/4011", from.parse().expect("an address"));
    let here = here.parse().expect("an address");
    let connection = ConnectionId::new_unchecked(connection);
    gate.handle_pending_inbound_connection(connection, &here, &from)
        .is_ok()
}

#[test]
fn an_address_that_connects_and_says_nothing_leaves_the_others_their_places() {
    let (mut gate, _hand) = gate(GuestList::default());
    let pending = (0..40).filter(|number| call(&mut gate, *number, "/ip4/192.0.2.1/tcp/1000"));
    assert_eq!(pending.count(), PENDING_IN_OF_ONE_MAX);
    let refused = gate.door.totals().1[&Refusal::TooMany];
    assert_eq!(refused, 32, "those that were turned away are counted");
    assert!(call(&mut gate, 100, "/ip4/192.0.2.2/tcp/1000"), "another");
    // Whoever says who it is, or gives up, makes room.
    let first = ConnectionId::new_unchecked(0);
    let named = gate.take_connection(first, PeerId::random(), false);
    assert_eq!(named, Ok(()));
    assert!(call(&mut gate, 101, "/ip4/192.0.2.1/tcp/1000"));
    assert!(!call(&mut gate, 102, "/ip4/192.0.2.1/tcp/1000"));
    gate.forget(ConnectionId::new_unchecked(1));
    assert!(call(&mut gate, 103, "/ip4/192.0.2.1/tcp/1000"));
    // Several stations may be on one machine.
    let local = (200..240).filter(|number| call(&mut gate, *number, "/ip4/127.0.0.1/tcp/1"));
    assert_eq!(local.count(), 40);
}

#[test]
fn whoever_forges_addresses_over_quic_leaves_the_others_their_places_over_tcp() {
    let (mut gate, _hand) = gate(GuestList::default());
    let forged = |number: usize| format!("/ip4/198.51.{}.1/udp/1/quic-v1", number % 256);
    let pending = (0..256).filter(|number| call(&mut gate, *number, &forged(*number)));
    assert_eq!(pending.count(), PENDING_IN_OVER_QUIC_MAX);
    assert!(call(&mut gate, 300, "/ip4/192.0.2.2/tcp/1000"));
}

#[test]
fn whoever_has_many_ipv6_addresses_counts_as_one() {
    let of = |ip: &str| network_of(ip.parse().expect("an address"));
    assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
    assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert!(of("::1").is_loopback());
}

#[test]
fn strangers_over_quic_are_fewer_and_make_room_among_themselves() {
    let (mut gate, hand) = gate(GuestList::default());
    let connection = ConnectionId::new_unchecked;
    let mut take = |number, over_quic| {
        hand.0.fetch_add(1, Ordering::Relaxed);
        let taken = gate.take_connection(connection(number), PeerId::random(), over_quic);
        assert_eq!(taken, Ok(()));
        gate.leaving.pop().map(|(_, left)| left)
    };
    assert_eq!(take(0, false), None, "over TCP, and there for longest");
    for number in 1..=STRANGERS_OVER_QUIC_MAX {
        assert_eq!(take(number, true), None);
    }
    assert_eq!(take(100, true), Some(connection(1)));
    assert_eq!(take(101, true), Some(connection(2)));
    assert_eq!(take(102, false), None);
}
