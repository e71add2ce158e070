//! What the registry holds, and what follows from it.
//!
//! Pure: time is passed in, nothing is written. Takes what sources, cards and the captain say; gives who is admitted, with
//! whom to exchange, whom to stay connected with and where they may be. Invariant: nobody revoked is among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::registry::RegistrySettings;
use super::roster::{Roster, Sighting};
use super::swarm_folder::{Reach, SwarmStation};
use crate::peer::{Multiaddr, PeerAddress, PeerId, Target};
use crate::random::Random;
use crate::trust::{
    CardBook, Cursor, Evidence, Insertion, Ledger, Membership, Standing, VerifiedCard, evaluate,
};
use crate::tunnel::{Guests, ServiceName, Source};

/// Connections that are kept up: to stations with open tunnels, then to others.
const WANTED_MAX: usize = 64;
/// Stations that offer to relay, of which the carrier uses some.
const RELAYS_MAX: usize = 8;
/// Where stations may be reached: of each, newest first.
pub(super) type Places = BTreeMap<PeerId, Vec<Multiaddr>>;

/// What is held, under the registry's lock.
pub(super) struct Holdings {
    pub(super) settings: RegistrySettings,
    pub(super) membership: Membership,
    pub(super) ledger: Ledger,
    pub(super) added: Vec<PeerAddress>,
    pub(super) book: CardBook,
    pub(super) standing: Standing,
    pub(super) roster: Roster,
    pub(super) swarm: Arc<Vec<SwarmStation>>,
    pub(super) exposed: BTreeMap<ServiceName, Guests>,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) tunnelled: BTreeSet<PeerId>,
    /// How far we have read at each station.
    pub(super) read: BTreeMap<PeerId, Cursor>,
    pub(super) book_is_saved: bool,
    /// Whether gossip has something to tell.
    pub(super) book_has_news: bool,
}

impl Holdings {
    /// Takes a proved card, if it is newer than what we have.
    pub(super) fn insert(&mut self, card: VerifiedCard, now: u64) -> Insertion {
        let sighting = seen_by_card(&card, card.created().min(now));
        let inserted = self.book.insert(card, &self.standing);
        if inserted == Insertion::Inserted {
            self.book_is_saved = false;
            self.book_has_news = true;
            if sighting.peer != self.standing.me {
                self.roster.take(sighting);
            }
        }
        inserted
    }

    pub(super) fn evidence(&self, carried_by: Option<PeerId>, now: u64) -> Evidence<'_> {
        Evidence {
            now,
            constellation: self.membership.id,
            carried_by,
            keys: self.standing.keys(),
        }
    }

    /// Belongs to another constellation from now on: cards of the one before say nothing any more.
    pub(super) fn leave_for(&mut self, joined: Membership, random: &Random) {
        self.membership = joined;
        self.book = CardBook::empty(random);
        self.read.clear();
        self.book_is_saved = false;
        self.book_has_news = true;
    }

    /// The captain knows the stations that are named.
    pub(super) fn see_named(&mut self, now: u64) {
        for address in self.settings.peers.iter().chain(&self.added) {
            if let Some(sighting) = sighting_of(address, now) {
                self.roster.take(sighting);
            }
        }
    }

    pub(super) fn judge(&mut self, own: PeerId) {
        let swarm = self.swarm.iter().filter(|_| self.settings.admit_swarm);
        let named = self.settings.peers.iter().chain(&self.added);
        let allowed = self
            .settings
            .allowed
            .iter()
            .copied()
            .chain(swarm.map(|station| station.peer))
            .chain(named.filter_map(PeerAddress::peer_id))
            .filter(|peer| *peer != own)
            .collect();
        self.standing = evaluate(own, &self.ledger, &allowed, self.book.cards());
    }

    /// Peers to exchange with besides the configured ones: those that were added, admitted stations that are known of,
    /// and the swarm folder's.
    pub(super) fn found(&self, own: PeerId) -> Vec<PeerAddress> {
        let is_out = |peer: &PeerId| *peer == own || self.standing.revoked.contains_key(peer);
        let is_in = |address: &&PeerAddress| !address.peer_id().is_some_and(|peer| is_out(&peer));
        let mut found: Vec<PeerAddress> = self.added.iter().filter(is_in).cloned().collect();
        for (peer, entry) in self.roster.iter() {
            let of_swarm = self.swarm.iter().find(|station| station.peer == *peer);
            let address = match (&entry.relay, of_swarm.map(|station| &station.reach)) {
                _ if is_out(peer) => continue,
                (Some(relay), _) => relay.clone(),
                (None, Some(Reach::Tunnel)) => PeerAddress::of_station(*peer),
                _ if self.standing.admitted.contains_key(peer) => PeerAddress::of_station(*peer),
                _ => continue,
            };
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    pub(super) fn places(&self, found: &[PeerAddress], wanted: &BTreeSet<PeerId>) -> Places {
        let peers = found.iter().filter_map(PeerAddress::peer_id);
        let place = |peer: PeerId| Some((peer, self.roster.get(&peer)?.addresses.clone()));
        peers
            .chain(wanted.iter().copied())
            .filter_map(place)
            .collect()
    }

    /// Every station prefers others, and always the same: so the load is spread, and places are held for long.
    pub(super) fn relays(&self, own: PeerId) -> Vec<PeerId> {
        let offers = self.book.cards().filter(|card| card.statement().relays);
        let mut relays: Vec<PeerId> = offers
            .map(VerifiedCard::peer)
            .filter(|peer| *peer != own && self.standing.admitted.contains_key(peer))
            .collect();
        let ours = own.to_bytes();
        relays.sort_by_cached_key(|peer| {
            let bytes = peer.to_bytes();
            let distance = bytes.iter().zip(&ours).map(|(one, other)| one ^ other);
            distance.collect::<Vec<u8>>()
        });
        relays.truncate(RELAYS_MAX);
        relays
    }

    pub(super) fn wanted(&self, own: PeerId) -> BTreeSet<PeerId> {
        let named = self.settings.peers.iter().chain(&self.added);
        let known = self
            .roster
            .iter()
            .map(|(peer, _)| *peer)
            .filter(|peer| self.standing.admitted.contains_key(peer));
        let mut wanted = BTreeSet::new();
        let by_rank = self
            .tunnelled
            .iter()
            .copied()
            .chain(named.filter_map(PeerAddress::peer_id))
            .chain(known);
        for peer in by_rank {
            if wanted.len() >= WANTED_MAX {
                break;
            }
            if peer != own && !self.standing.revoked.contains_key(&peer) {
                wanted.insert(peer);
            }
        }
        wanted
    }
}

/// What a card says of where its station is.
pub(super) fn seen_by_card(card: &VerifiedCard, at: u64) -> Sighting {
    Sighting {
        peer: card.peer(),
        name: card.statement().name.clone(),
        addresses: card.statement().addresses.clone(),
        relay: None,
        source: Source::Card,
        at,
    }
}

/// What a named address says of where its station is.
fn sighting_of(address: &PeerAddress, now: u64) -> Option<Sighting> {
    let Target::Station(station) = address.target() else {
        return None;
    };
    Some(Sighting {
        peer: station.peer,
        name: None,
        addresses: station.hint.iter().cloned().collect(),
        relay: None,
        source: Source::Static,
        at: now,
    })
}
