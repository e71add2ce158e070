//! The gate: who calls too often, who is out, which stranger makes room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{CALLERS_MAX, Denied, Gate, STRANGERS_MAX};
use crate::time::{Clock, TimeSource};
use crate::tunnel::node::streams::Door;
use crate::tunnel::{GuestList, PeerId};
use libp2p::swarm::ConnectionId;

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
        gate.take_connection(connection(0), banned),
        Err(Denied::Banned)
    );
    assert_eq!(gate.take_connection(connection(1), friend), Ok(()));
    for number in 0..STRANGERS_MAX + 3 {
        hand.0.fetch_add(1, Ordering::Relaxed);
        let stranger = connection(100 + number);
        assert_eq!(gate.take_connection(stranger, PeerId::random()), Ok(()));
    }
    assert_eq!(gate.strangers.len(), STRANGERS_MAX);
    let left: Vec<ConnectionId> = gate.leaving.iter().map(|(_, left)| *left).collect();
    assert_eq!(left, [100, 101, 102].map(connection));
}
