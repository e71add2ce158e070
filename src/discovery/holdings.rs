//! What the registry holds, and what follows from it.
//!
//! Pure: time is passed in, nothing is written. Takes what sources, cards and the captain say; gives who may enter, with
//! whom to exchange, whom to stay connected with and where they may be. Invariant: nobody revoked is among them, and
//! whoever may enter by the swarm key alone is a peer like others ([`Holdings::may_enter`]). Deliberately absent: whether
//! such a one really holds the key, which the carrier finds out when it connects. Worst case: of those who may only be made
//! up [`KEY_HOLDERS_MAX`] are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::receiving::Unbound;
use super::registry::RegistrySettings;
use super::roster::{Roster, RosterEntry, Sighting};
use super::swarm_card::{Reach, SwarmStation};
use crate::peer::{Multiaddr, PeerAddress, PeerId, Target};
use crate::random::Random;
use crate::trust::{
    CardBook, Cursor, Doors, Evidence, Insertion, Ledger, Membership, Standing, VerifiedCard,
    evaluate,
};
use crate::tunnel::{Guests, ServiceName, Source};

/// Connections that are kept up: to stations with open tunnels, then to others.
const WANTED_MAX: usize = 64;
/// Stations that offer to relay, of which the carrier uses some.
const RELAYS_MAX: usize = 8;
/// Stations to exchange with of which no more is known than that they may hold the swarm key: anybody can have a PeerID
/// announced on the local network.
const KEY_HOLDERS_MAX: usize = 256;
/// Where stations may be reached: of each, newest first.
pub(super) type Places = BTreeMap<PeerId, Vec<Multiaddr>>;

/// What is held, under the registry's lock.
pub(super) struct Holdings {
    pub(super) settings: RegistrySettings,
    pub(super) membership: Membership,
    /// Nothing may be shared.
    pub(super) halted: bool,
    /// There is a swarm key, and it is not the one of zeros.
    pub(super) swarm_key_is_secret: bool,
    pub(super) ledger: Ledger,
    pub(super) added: Vec<PeerAddress>,
    pub(super) book: CardBook,
    pub(super) standing: Standing,
    pub(super) roster: Roster,
    pub(super) swarm: Arc<Vec<SwarmStation>>,
    pub(super) exposed: BTreeMap<ServiceName, Guests>,
    pub(super) addresses: Vec<Multiaddr>,
    /// Addresses of ours that no card has room for, as last warned of.
    pub(super) too_long: Vec<Multiaddr>,
    pub(super) tunnelled: BTreeSet<PeerId>,
    /// How far we have read at each station.
    pub(super) read: BTreeMap<PeerId, Cursor>,
    pub(super) book_is_saved: bool,
    /// Whether gossip has something to tell.
    pub(super) book_has_news: bool,
    /// Cards whose keys nobody has named yet.
    pub(super) unbound: Unbound,
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
        self.unbound = Unbound::default();
        self.book_is_saved = false;
        self.book_has_news = true;
    }

    /// Forgets what no source mentions any more.
    pub(super) fn forget_old(&mut self, now: u64) {
        self.roster.forget_old(now);
        let roster = &self.roster;
        self.read.retain(|peer, _| roster.get(peer).is_some());
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
        let allowed = self
            .settings
            .allowed
            .iter()
            .copied()
            .chain(self.named().filter_map(PeerAddress::peer_id))
            .filter(|peer| *peer != own)
            .collect();
        self.standing = evaluate(own, &self.ledger, &allowed, self.book.cards());
        let doors = self.doors_but_for_tokens();
        let (book, standing) = (&mut self.book, &self.standing);
        self.book_has_news |= book.offer_all(|peer| is_of_ours(standing, doors, peer));
    }

    fn doors_but_for_tokens(&self) -> Doors {
        Doors {
            swarm_key_admits: self.settings.swarm_key_admits,
            swarm_key_is_secret: self.swarm_key_is_secret,
            anyone_is_invited: false,
        }
    }

    /// What opens doors besides being admitted.
    pub(super) fn doors(&self, now: u64) -> Doors {
        Doors {
            anyone_is_invited: self.ledger.is_anyone_invited(now),
            ..self.doors_but_for_tokens()
        }
    }

    /// Whether a station may enter: it is admitted, or whoever holds the swarm key may, and it is not revoked. The guest
    /// list says the same.
    pub(super) fn may_enter(&self, peer: &PeerId) -> bool {
        *peer != self.standing.me
            && !self.standing.revoked.contains_key(peer)
            && (self.standing.admitted.contains_key(peer)
                || self.doors_but_for_tokens().opens_to_key_holders())
    }

    /// Stations of the swarm folder, where the captain lets them open our relay. Their cards are not signed: nothing else
    /// follows from them.
    pub(super) fn relay_guests(&self) -> BTreeSet<PeerId> {
        let swarm = self.swarm.iter().filter(|_| self.settings.admit_swarm);
        swarm
            .map(|station| station.peer)
            .filter(|peer| *peer != self.standing.me)
            .collect()
    }

    /// Stations and relays that the captain named.
    fn named(&self) -> impl Iterator<Item = &PeerAddress> {
        self.settings.peers.iter().chain(&self.added)
    }

    /// Peers to exchange with besides the configured ones: those that were added, those who may enter and are known of,
    /// and the swarm folder's.
    pub(super) fn found(&self, own: PeerId) -> Vec<PeerAddress> {
        let is_out = |peer: &PeerId| *peer == own || self.standing.revoked.contains_key(peer);
        let is_in = |address: &&PeerAddress| !address.peer_id().is_some_and(|peer| is_out(&peer));
        let by_tunnel: BTreeSet<PeerId> = self
            .swarm
            .iter()
            .filter(|station| station.reach == Reach::Tunnel)
            .map(|station| station.peer)
            .collect();
        let known = self.roster.iter().filter(|(peer, _)| !is_out(peer));
        let known = known.filter_map(|(peer, entry)| match &entry.relay {
            Some(relay) => Some(relay.clone()),
            None if by_tunnel.contains(peer) || self.standing.admitted.contains_key(peer) => {
                Some(PeerAddress::of_station(*peer))
            }
            None => None,
        });
        let key_holders = self.key_holders().into_iter().take(KEY_HOLDERS_MAX);
        let all = self
            .added
            .iter()
            .filter(is_in)
            .cloned()
            .chain(known)
            .chain(key_holders.map(PeerAddress::of_station));
        let mut seen = BTreeSet::new();
        all.filter(|address| seen.insert(address.clone())).collect()
    }

    /// Known stations that may enter by the swarm key alone: first those of which somebody who has it gave us a card.
    fn key_holders(&self) -> Vec<PeerId> {
        let is_one = |(peer, _): &(&PeerId, &RosterEntry)| {
            self.may_enter(peer) && !self.standing.admitted.contains_key(peer)
        };
        let known = self.roster.iter().filter(is_one);
        let mut ranked: Vec<(bool, PeerId)> = known
            .map(|(peer, entry)| (!entry.seen.contains_key(&Source::Card), *peer))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Stations that the configuration names as peers although they are revoked.
    pub(super) fn named_in_vain(&self) -> BTreeSet<PeerId> {
        let named = self.settings.peers.iter().filter_map(PeerAddress::peer_id);
        named
            .filter(|peer| self.standing.revoked.contains_key(peer))
            .collect()
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
    pub(super) fn relays(&self) -> Vec<PeerId> {
        let offers = self.book.cards().filter(|card| card.statement().relays);
        let mut relays: Vec<PeerId> = offers
            .map(VerifiedCard::peer)
            .filter(|peer| self.may_enter(peer))
            .collect();
        let ours = self.standing.me.to_bytes();
        relays.sort_by_cached_key(|peer| {
            let bytes = peer.to_bytes();
            let distance = bytes.iter().zip(&ours).map(|(one, other)| one ^ other);
            distance.collect::<Vec<u8>>()
        });
        relays.truncate(RELAYS_MAX);
        relays
    }

    pub(super) fn wanted(&self, own: PeerId) -> BTreeSet<PeerId> {
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
            .chain(self.named().filter_map(PeerAddress::peer_id))
            .chain(known)
            .chain(self.key_holders());
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

/// Whether a station's card goes round: its word matters or did, it is our own, or the swarm key is enough to be one of us.
fn is_of_ours(standing: &Standing, doors: Doors, peer: &PeerId) -> bool {
    standing.is_judged(peer)
        || *peer == standing.me
        || doors.opens_to_key_holders() && !standing.revoked.contains_key(peer)
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
