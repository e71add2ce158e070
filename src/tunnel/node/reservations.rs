//! Places at relays, where others can reach us: made, and made again when they end.
//!
//! Pure: takes what happened to the listeners and the time, gives the addresses to listen on. Pauses as in dialling.
//! Deliberately absent: choosing relays, which the captain does. Worst case: one attempt every ten seconds per relay.

use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use tokio::time::Instant;

use super::dialler::jittered;
use crate::random::Random;
use crate::tunnel::{Multiaddr, PeerId};

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

#[derive(Debug)]
struct Place {
    relay: Multiaddr,
    listener: Option<ListenerId>,
    pause: Duration,
    next: Instant,
}

/// Places at all relays.
#[derive(Debug)]
pub(super) struct Reservations(Vec<Place>);

impl Reservations {
    pub(super) fn new(relays: &[Multiaddr], now: Instant) -> Self {
        let place = |relay: &Multiaddr| Place {
            relay: relay.clone(),
            listener: None,
            pause: PAUSE_FIRST,
            next: now,
        };
        Self(relays.iter().map(place).collect())
    }

    /// The PeerIDs of the relays.
    pub(super) fn relays(&self) -> impl Iterator<Item = PeerId> {
        self.0.iter().filter_map(|place| relay_peer(&place.relay))
    }

    /// Addresses by which a station may be reached through the relays.
    pub(super) fn ways_to(&self, peer: PeerId) -> impl Iterator<Item = Multiaddr> {
        let others = move |place: &&Place| relay_peer(&place.relay) != Some(peer);
        self.0
            .iter()
            .filter(others)
            .map(|place| circuit(&place.relay))
    }

    /// Listens where it is due; `listen` says which listener it made.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        random: &Random,
        mut listen: impl FnMut(Multiaddr) -> Option<ListenerId>,
    ) {
        for place in &mut self.0 {
            if place.listener.is_none() && place.next <= now {
                place.listener = listen(circuit(&place.relay));
                if place.listener.is_none() {
                    place.put_off(now, random);
                }
            }
        }
    }

    /// There is a place at the relay that this listener is for.
    pub(super) fn reserved(&mut self, listener: ListenerId) {
        for place in &mut self.0 {
            if place.listener == Some(listener) {
                place.pause = PAUSE_FIRST;
            }
        }
    }

    /// It has ended, or was refused. Whether it was one of ours.
    pub(super) fn ended(&mut self, listener: ListenerId, now: Instant, random: &Random) -> bool {
        let place = self
            .0
            .iter_mut()
            .find(|place| place.listener == Some(listener));
        place.is_some_and(|place| {
            place.listener = None;
            place.put_off(now, random);
            true
        })
    }

    /// The network has changed: no pauses.
    pub(super) fn hurry(&mut self, now: Instant) {
        for place in &mut self.0 {
            place.next = place.next.min(now);
        }
    }
}

impl Place {
    fn put_off(&mut self, now: Instant, random: &Random) {
        self.next = now + jittered(self.pause, random);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

fn circuit(relay: &Multiaddr) -> Multiaddr {
    relay.clone().with(Protocol::P2pCircuit)
}

fn relay_peer(relay: &Multiaddr) -> Option<PeerId> {
    match relay.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}
