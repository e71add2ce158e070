//! What sources tell the registry: configuration, services, the carrier, the swarm folder, and cards of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::registry::{Registry, RegistrySettings};
use super::roster::Sighting;
use super::swarm_folder::{Reach, SwarmStation};
use crate::peer::{Multiaddr, PeerId};
use crate::trust::{
    CARD_ADDRESSES_MAX, Evidence, HANDOVER_CARDS_MAX, Insertion, SignedCard, UnverifiedCard,
    VerifiedCard,
};
use crate::tunnel::{Found, Guests, ServiceName, Source};

impl Registry {
    /// What is configured has changed.
    pub fn configure(&self, settings: RegistrySettings) {
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

    /// Where we may be reached, as our card says.
    pub fn own_addresses(&self) -> Vec<Multiaddr> {
        self.lock().addresses.clone()
    }

    /// The swarm folder has changed.
    pub fn set_swarm(&self, stations: Arc<Vec<SwarmStation>>) {
        self.change(|inner| {
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
                    at: station.seen_at,
                });
            }
            let gone: Vec<PeerId> = inner.swarm.iter().map(|station| station.peer).collect();
            for peer in gone {
                if !stations.iter().any(|station| station.peer == peer) {
                    inner.roster.withdraw(&peer, Source::SwarmFolder);
                }
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

    /// Takes over cards that a station handed us; gives how many were new. What is not proved is left out, and so is
    /// what is more than one answer has.
    pub fn receive(&self, cards: Vec<SignedCard>, from: PeerId) -> usize {
        let now = self.clock.unix_seconds();
        let (id, keys) = {
            let inner = self.lock();
            (inner.membership.id, inner.standing.keys().clone())
        };
        let evidence = Evidence {
            now,
            constellation: id,
            carried_by: Some(from),
            keys: &keys,
        };
        let cards = cards.into_iter().take(HANDOVER_CARDS_MAX);
        let proved: Vec<VerifiedCard> = cards
            .filter_map(|card| {
                let verified = UnverifiedCard::of(card).and_then(|card| card.verify(&evidence));
                verified
                    .inspect_err(|error| {
                        tracing::debug!(%from, reason = error.label(), "a card is not taken: {error}");
                    })
                    .ok()
            })
            .collect();
        if proved.is_empty() {
            return 0;
        }
        self.change(|inner| {
            if inner.membership.id != id {
                return 0; // meanwhile we have left for another constellation
            }
            proved
                .into_iter()
                .map(|card| inner.insert(card, now))
                .filter(|inserted| *inserted == Insertion::Inserted)
                .count()
        })
    }

    /// Writes the cards, if there is something new.
    pub fn save_cards(&self) {
        let copy = {
            let mut inner = self.lock();
            if std::mem::replace(&mut inner.book_is_saved, true) {
                return;
            }
            inner.book.copy()
        };
        if let Err(error) = copy.save(&self.options.state.join("cards.json")) {
            tracing::error!(%error, "cannot keep the cards; it is tried again with the next one");
            self.lock().book_is_saved = false;
        }
    }
}
