//! What sources tell the registry: configuration, services, the carrier, the swarm folder, and proved cards.
//!
//! Takes their word as it is; gives nothing back. Invariant: what our card has no room for is left out here, with a warning,
//! so that others take it. Deliberately absent: what follows (`holdings.rs`), proving cards (`receiving.rs`). Worst case:
//! one judgement of everybody for each call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::registry::{Registry, RegistrySettings};
use super::roster::Sighting;
use super::swarm_card::{Reach, SwarmStation};
use crate::peer::{Multiaddr, PeerId};
use crate::trust::{
    CARD_ADDRESSES_MAX, ConstellationId, Insertion, VerifiedCard, fits_in_a_card, name_in_a_card,
};
use crate::tunnel::{Found, Guests, ServiceName, Source};

impl RegistrySettings {
    /// With a name that others take.
    pub(super) fn fitting(mut self) -> Self {
        let name = name_in_a_card(&self.name);
        if name.len() < self.name.len() {
            tracing::warn!(%name, "the station's name is too long for a card: others are told its beginning");
            self.name = name.to_owned();
        }
        self
    }
}

impl Registry {
    /// What is configured has changed.
    pub fn configure(&self, settings: RegistrySettings) {
        let settings = settings.fitting();
        self.change(|inner| inner.settings = settings);
    }

    /// What is exposed has changed.
    pub fn set_exposed(&self, exposed: BTreeMap<ServiceName, Guests>) {
        self.change(|inner| inner.exposed = exposed);
    }

    /// Stations to which tunnels are open have changed.
    pub fn set_tunnelled(&self, stations: BTreeSet<PeerId>) {
        self.change(|inner| inner.tunnelled = stations);
    }

    /// Where we may be reached has changed.
    pub fn set_addresses(&self, addresses: Vec<Multiaddr>) {
        let is_loopback = |address: &Multiaddr| {
            matches!(address.iter().next(), Some(multiaddr::Protocol::Ip4(ip)) if ip.is_loopback())
                || matches!(address.iter().next(), Some(multiaddr::Protocol::Ip6(ip)) if ip.is_loopback())
        };
        let (addresses, too_long): (Vec<Multiaddr>, Vec<Multiaddr>) =
            addresses.into_iter().partition(fits_in_a_card);
        self.warn_of_long(too_long);
        // Loopback leads others to themselves; but on one machine there may be nothing else.
        let beyond: Vec<Multiaddr> = addresses
            .iter()
            .filter(|address| !is_loopback(address))
            .cloned()
            .collect();
        let mut chosen = if beyond.is_empty() { addresses } else { beyond };
        chosen.truncate(CARD_ADDRESSES_MAX);
        self.change(|inner| inner.addresses = chosen);
    }

    /// Once for each, while it stays.
    fn warn_of_long(&self, addresses: Vec<Multiaddr>) {
        let known = std::mem::replace(&mut self.lock().too_long, addresses.clone());
        for address in addresses.iter().filter(|address| !known.contains(address)) {
            tracing::warn!(%address, "an address of ours is too long for a card: others are not told of it");
        }
    }

    /// Where we may be reached, as our card says.
    pub fn own_addresses(&self) -> Vec<Multiaddr> {
        self.lock().addresses.clone()
    }

    /// The swarm folder has changed.
    pub fn set_swarm(&self, stations: Arc<Vec<SwarmStation>>) {
        let now = self.clock.unix_seconds();
        self.change(|inner| {
            let described: BTreeSet<PeerId> = stations.iter().map(|station| station.peer).collect();
            for station in inner.swarm.iter() {
                if !described.contains(&station.peer) {
                    inner.roster.withdraw(&station.peer, Source::SwarmFolder);
                }
            }
            for station in stations.iter() {
                let relay = match &station.reach {
                    Reach::Direct(relay) => Some((**relay).clone()),
                    Reach::Tunnel | Reach::Nowhere => None,
                };
                inner.roster.take(Sighting {
                    peer: station.peer,
                    name: Some(station.name.clone()).filter(|name| !name.is_empty()),
                    addresses: station.addresses.clone(),
                    relay,
                    source: Source::SwarmFolder,
                    at: now,
                });
            }
            inner.swarm = stations;
        });
    }

    /// The carrier has come across stations by itself. Nobody is judged anew for that: anyone can have himself found.
    pub fn found_by(&self, found: Vec<Found>) {
        let now = self.clock.unix_seconds();
        let mut inner = self.lock();
        let mut is_new = false;
        for found in found {
            is_new |= inner.roster.take(Sighting {
                peer: found.peer,
                name: None,
                addresses: found.addresses,
                relay: None,
                source: found.source,
                at: now,
            });
        }
        if is_new {
            self.publish(&inner, now);
        }
    }

    /// Signs our card anew if it is due, and forgets what is old. Called now and then.
    pub fn renew(&self) {
        self.change(|_| {});
    }

    /// Puts proved cards into the book, unless we have left their constellation; gives how many were new.
    pub(super) fn insert_all(&self, cards: Vec<VerifiedCard>, of: ConstellationId) -> usize {
        if cards.is_empty() {
            return 0;
        }
        let now = self.clock.unix_seconds();
        self.change(|inner| {
            if inner.membership.id != of {
                return 0;
            }
            cards
                .into_iter()
                .map(|card| inner.insert(card, now))
                .filter(|inserted| *inserted == Insertion::Inserted)
                .count()
        })
    }
}
