//! Places at relays, where others can reach us: made, and made again when they end.
//!
//! Pure: takes what happened to the listeners and the time, gives the addresses to listen on. Pauses as in dialling. A
//! place is held at every relay that the captain names, and at [`OFFERED_HELD`] of the stations that offer to relay,
//! where that is needed and there is a connection. Invariant: one place at each relay, whatever number of addresses it
//! has: a second one would end the first, and they would take turns for ever. Deliberately absent: who offers, and the order in which they are
//! asked. Worst case: one attempt every ten seconds per relay.

use std::collections::VecDeque;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use tokio::time::Instant;

use super::addresses::without_peer;
use super::dialler::jittered;
use crate::random::Random;
use crate::tunnel::{Multiaddr, PeerId};

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Places that are held at stations that offer to relay: one of them may be away.
const OFFERED_HELD: usize = 2;

#[derive(Debug)]
struct Place {
    relay: PeerId,
    /// Where the relay is: as we are connected with it; `None` where it was not asked yet.
    address: Option<Multiaddr>,
    /// Where the captain says that it is, if so: the first one is asked, and comes last when it fails.
    named: VecDeque<Multiaddr>,
    /// Whether it offers to relay.
    is_offered: bool,
    listener: Option<ListenerId>,
    pause: Duration,
    next: Instant,
}

/// Places at all relays.
#[derive(Debug)]
pub(super) struct Reservations(Vec<Place>);

impl Reservations {
    pub(super) fn new(relays: &[Multiaddr], now: Instant) -> Self {
        let mut places: Vec<Place> = Vec::new();
        for address in relays {
            let Some(relay) = relay_peer(address) else {
                continue;
            };
            let known = places.iter_mut().find(|place| place.relay == relay);
            match known {
                Some(place) => place.named.push_back(address.clone()),
                None => places.push(Place {
                    named: [address.clone()].into(),
                    ..Place::at(relay, now)
                }),
            }
        }
        Self(places)
    }

    /// The PeerIDs of the relays that the captain names.
    pub(super) fn named(&self) -> impl Iterator<Item = PeerId> {
        let named = self.0.iter().filter(|place| place.is_named());
        named.map(|place| place.relay)
    }

    /// These stations offer to relay, the first ones first. A place at one that does no longer is kept until it ends by
    /// itself: libp2p-relay 0.22 panics when a listener is removed while an answer of its relay is awaited.
    pub(super) fn offer(&mut self, relays: &[PeerId], now: Instant) {
        for place in &mut self.0 {
            place.is_offered = relays.contains(&place.relay);
        }
        self.forget();
        for relay in relays {
            if !self.0.iter().any(|place| place.relay == *relay) {
                self.0.push(Place {
                    is_offered: true,
                    ..Place::at(*relay, now)
                });
            }
        }
    }

    /// Whether we have a place at this relay, or ask for one.
    pub(super) fn holds(&self, relay: &PeerId) -> bool {
        let mut held = self.0.iter().filter(|place| place.listener.is_some());
        held.any(|place| place.relay == *relay)
    }

    /// Addresses by which a station may be reached through the relays where we have a place or the captain sent us.
    pub(super) fn ways_to(&self, peer: PeerId) -> impl Iterator<Item = Multiaddr> {
        let usable = move |place: &&Place| {
            place.relay != peer && (place.is_named() || place.listener.is_some())
        };
        let usable = self.0.iter().filter(usable);
        usable.flat_map(|place| place.named.iter().chain(&place.address).map(circuit))
    }

    /// Listens where it is due; `listen` says which listener it made. Those that offer are asked only if that
    /// `is_needed` and `connected` knows the address of a direct connection.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        random: &Random,
        is_needed: bool,
        connected: impl Fn(&PeerId) -> Option<Multiaddr>,
        mut listen: impl FnMut(Multiaddr) -> Option<ListenerId>,
    ) {
        let is_held = |place: &&Place| !place.is_named() && place.listener.is_some();
        let mut held = self.0.iter().filter(is_held).count();
        for place in &mut self.0 {
            if place.listener.is_some() || place.next > now {
                continue;
            }
            if !place.is_named() {
                if !is_needed || held >= OFFERED_HELD {
                    continue;
                }
                place.address = connected(&place.relay)
                    .and_then(|address| without_peer(&address, &place.relay))
                    .map(|address| address.with(Protocol::P2p(place.relay)));
            }
            let Some(address) = place.named.front().or(place.address.as_ref()) else {
                continue;
            };
            place.listener = listen(circuit(address));
            if place.listener.is_none() {
                place.put_off(now, random);
            } else if !place.is_named() {
                held += 1;
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
        let is_ours = place.is_some_and(|place| {
            place.listener = None;
            place.put_off(now, random);
            true
        });
        self.forget();
        is_ours
    }

    fn forget(&mut self) {
        self.0
            .retain(|place| place.is_wanted() || place.listener.is_some());
    }

    /// There is a new direct connection with this station: what it refused on an older one it may grant now, since a relay
    /// decides by whom it knew when a connection was made. How often that happens is bounded by the pauses of dialling.
    pub(super) fn connected(&mut self, relay: &PeerId, now: Instant) {
        for place in self.0.iter_mut().filter(|place| place.relay == *relay) {
            place.next = place.next.min(now);
        }
    }

    /// The network has changed: no pauses.
    pub(super) fn hurry(&mut self, now: Instant) {
        for place in &mut self.0 {
            place.next = place.next.min(now);
        }
    }
}

impl Place {
    fn at(relay: PeerId, now: Instant) -> Self {
        Self {
            relay,
            address: None,
            named: VecDeque::new(),
            is_offered: false,
            listener: None,
            pause: PAUSE_FIRST,
            next: now,
        }
    }

    /// Whether the captain names it.
    fn is_named(&self) -> bool {
        !self.named.is_empty()
    }

    fn is_wanted(&self) -> bool {
        self.is_named() || self.is_offered
    }

    fn put_off(&mut self, now: Instant, random: &Random) {
        if let Some(failed) = self.named.pop_front() {
            self.named.push_back(failed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> Multiaddr {
        let text = format!("/ip4/192.0.2.{number}/tcp/4011");
        text.parse().expect("an address")
    }

    /// Asks for what is due, of relays that are all connected; gives the relays asked, by where they are.
    fn asked(places: &mut Reservations, relays: &[PeerId], now: Instant) -> Vec<ListenerId> {
        let mut made = Vec::new();
        let at = |peer: &PeerId| {
            let number = relays.iter().position(|relay| relay == peer)?;
            Some(address(u8::try_from(number).ok()?))
        };
        places.renew(now, &Random::seeded(1), true, at, |address| {
            assert!(address.to_string().ends_with("/p2p-circuit"), "{address}");
            let listener = ListenerId::next();
            made.push(listener);
            Some(listener)
        });
        made
    }

    #[test]
    fn a_few_of_those_that_offer_are_used_and_the_next_ones_when_they_fail() {
        let (now, random) = (Instant::now(), Random::seeded(1));
        let relays = [(); 4].map(|()| PeerId::random());
        let mut places = Reservations::new(&[], now);
        places.offer(&relays, now);
        places.renew(now, &random, false, |_| None, |_| panic!("not needed"));
        places.renew(now, &random, true, |_| None, |_| panic!("not connected"));
        let held = asked(&mut places, &relays, now);
        assert_eq!(held.len(), OFFERED_HELD);
        assert!(asked(&mut places, &relays, now).is_empty(), "enough");
        assert!(places.holds(&relays[0]) && !places.holds(&relays[3]));
        let stranger = PeerId::random();
        assert_eq!(places.ways_to(stranger).count(), OFFERED_HELD);
        assert_eq!(places.ways_to(relays[0]).count(), OFFERED_HELD - 1);

        // The first one fails: the third one is asked at once, the first one not before its pause is over.
        assert!(places.ended(held[0], now, &random));
        assert_eq!(asked(&mut places, &relays, now).len(), 1);
        let ways: Vec<String> = places
            .ways_to(stranger)
            .map(|way| way.to_string())
            .collect();
        assert!(ways.iter().all(|way| !way.contains(&relays[0].to_string())));

        // The second one takes its offer back: its place is forgotten when it ends.
        let left = [relays[0], relays[2], relays[3]];
        places.offer(&left, now);
        assert!(places.ended(held[1], now, &random) && !places.ended(held[1], now, &random));
        assert_eq!(asked(&mut places, &relays, now).len(), 1, "the fourth one");
    }

    #[test]
    fn who_was_refused_asks_at_once_on_a_new_connection() {
        let (now, random) = (Instant::now(), Random::seeded(1));
        let relays = [(); 2].map(|()| PeerId::random());
        let mut places = Reservations::new(&[], now);
        places.offer(&relays[..1], now);
        for _ in 0..8 {
            places.connected(&relays[0], now);
            let held = asked(&mut places, &relays, now);
            assert!(held.len() == 1 && places.ended(held[0], now, &random));
        }
        places.connected(&relays[1], now);
        assert!(asked(&mut places, &relays, now).is_empty(), "another one's");
    }

    #[test]
    fn what_the_captain_names_is_always_asked() {
        let now = Instant::now();
        let relays = [(); 3].map(|()| PeerId::random());
        let named = relays.map(|relay| address(9).with(Protocol::P2p(relay)));
        let mut places = Reservations::new(&named, now);
        places.offer(&relays[..1], now);
        assert_eq!(places.named().collect::<Vec<_>>(), relays);
        let mut made = 0;
        places.renew(
            now,
            &Random::seeded(1),
            false,
            |_| None,
            |_| {
                made += 1;
                Some(ListenerId::next())
            },
        );
        assert_eq!(made, relays.len());
        places.offer(&[], now);
    }

    #[test]
    fn a_relay_with_two_addresses_gives_one_place_and_each_address_has_its_turn() {
        let (mut now, random) = (Instant::now(), Random::seeded(1));
        let relay = PeerId::random();
        let named = [1, 2].map(|number| address(number).with(Protocol::P2p(relay)));
        let mut places = Reservations::new(&named, now);
        assert_eq!(places.named().collect::<Vec<_>>(), [relay]);
        assert_eq!(places.ways_to(PeerId::random()).count(), 2);
        for expected in [&named[0], &named[1], &named[0]] {
            let mut made = Vec::new();
            places.renew(
                now,
                &random,
                false,
                |_| None,
                |way| {
                    let listener = ListenerId::next();
                    made.push((way, listener));
                    Some(listener)
                },
            );
            let [(way, listener)] = made.as_slice() else {
                panic!("one place: {made:?}");
            };
            assert_eq!(way, &circuit(expected));
            places.ended(*listener, now, &random);
            now += PAUSE_MAX * 2;
        }
    }
}
