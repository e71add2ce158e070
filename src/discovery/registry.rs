//! Who there is and who may enter: what all sources, cards and the captain say, in one place, kept.
//!
//! ```text
//! sources ─► roster ─┐                               ┌─► guests   to the carrier: who may enter
//! cards ───► book ───┼─► standing (trust) ─► publish ├─► found    to runs: with whom to exchange
//! captain ─► ledger ─┘                               ├─► wanted   to the carrier: whom to stay connected with
//!                                                    ├─► places   to the carrier: where these and the found ones are
//!                                                    ├─► relays   to the carrier: who offers to relay
//!                                                    └─► version  to gossip: there is something to tell
//! ```
//!
//! Everything is under one lock, held for as long as judging takes: milliseconds with a thousand stations. Signatures are checked
//! and cards written without it. Invariant: our captain's word is on disk before it counts; cards are written a moment
//! later, since whoever told us tells us again. Worst case: the bounds of `trust` and of the roster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::roster::{Roster, Sighting};
use super::swarm_folder::{Reach, SwarmStation};
use crate::peer::{Multiaddr, PeerAddress, PeerId, Target};
use crate::random::Random;
use crate::time::Clock;
use crate::trust::{
    CARD_ADDRESSES_MAX, CARD_SERVICES_MAX, Card, CardBook, CardError, ConstellationId, Cursor,
    Doors, Evidence, HANDOVER_CARDS_MAX, Insertion, Ledger, Membership, SignedCard, Standing,
    StateError, Statement, UnverifiedCard, VerifiedCard, evaluate, guest_list, next_sequence,
};
use crate::tunnel::{Found, GuestList, Guests, Identity, ServiceName, Source};

/// Connections that are kept up: to stations with open tunnels, then to others.
const WANTED_MAX: usize = 64;
/// Strangers with tokens that are served at a time: each may send half a megabyte.
const KNOCKING_MAX: usize = 8;
/// Stations that offer to relay, of which the carrier uses some.
const RELAYS_MAX: usize = 8;

/// Where stations may be reached: of each, newest first.
type Places = BTreeMap<PeerId, Vec<Multiaddr>>;

/// Our card is signed anew so often, so that others see that we live.
const CARD_RENEWED_SECONDS: u64 = 3600;

/// What a registry is opened with.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// The station's state folder.
    pub state: PathBuf,
    /// What cards are signed with.
    pub identity: Identity,
    /// Our PeerID, as the carrier has it.
    pub own: PeerId,
    /// Our constellation.
    pub membership: Membership,
    /// Whether a swarm key is needed to reach us.
    pub private_swarm: bool,
    /// Whether that key is a secret: not the one of zeros.
    pub swarm_key_is_secret: bool,
    /// Whether we relay for others.
    pub serves_relay: bool,
    /// Whether nothing may be shared (D16); nobody enters then.
    pub halted: bool,
    /// Where the carrier looks who may enter.
    pub guests: watch::Sender<Arc<GuestList>>,
}

/// What is configured, and may change while a station runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// What the station calls itself.
    pub name: String,
    /// Stations that the configuration allows.
    pub allowed: BTreeSet<PeerId>,
    /// Peers that the configuration names.
    pub peers: Vec<PeerAddress>,
    /// Whether whoever holds the swarm key may enter.
    pub swarm_key_admits: bool,
    /// Whether stations of the swarm folder may enter.
    pub admit_swarm: bool,
}

pub(super) struct Inner {
    pub(super) settings: RegistrySettings,
    pub(super) membership: Membership,
    pub(super) ledger: Ledger,
    pub(super) added: Vec<PeerAddress>,
    pub(super) book: CardBook,
    pub(super) standing: Standing,
    pub(super) roster: Roster,
    swarm: Arc<Vec<SwarmStation>>,
    exposed: BTreeMap<ServiceName, Guests>,
    addresses: Vec<Multiaddr>,
    tunnelled: BTreeSet<PeerId>,
    /// How far we have read at each station.
    read: BTreeMap<PeerId, Cursor>,
    book_is_saved: bool,
    /// Whether gossip has something to tell.
    book_has_news: bool,
}

/// Who there is and who may enter. One for each station.
pub struct Registry {
    pub(super) options: RegistryOptions,
    pub(super) clock: Clock,
    pub(super) random: Random,
    inner: Mutex<Inner>,
    found: watch::Sender<Arc<Vec<PeerAddress>>>,
    wanted: watch::Sender<Arc<BTreeSet<PeerId>>>,
    places: watch::Sender<Arc<Places>>,
    relays: watch::Sender<Arc<Vec<PeerId>>>,
    version: watch::Sender<u64>,
    /// Strangers with tokens that are served at a time.
    pub(super) knocking: Semaphore,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("own", &self.options.own)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Reads what was kept.
    ///
    /// # Errors
    /// [`StateError`]: a damaged file is no empty one.
    pub fn open(
        options: RegistryOptions,
        settings: RegistrySettings,
        clock: Clock,
        random: Random,
    ) -> Result<Self, StateError> {
        let ledger = Ledger::load(&options.state.join("trust.json"))?;
        let book = CardBook::load(
            &options.state.join("cards.json"),
            options.membership.id,
            &random,
        )?;
        let added = super::added::load(&options.state.join("peers.json"))?;
        let standing = evaluate(options.own, &ledger, &BTreeSet::new(), book.cards());
        // However old the cards are: a station that was away for long begins where it left off.
        let now = clock.unix_seconds();
        let mut roster = Roster::default();
        for card in book.cards().filter(|card| card.peer() != options.own) {
            roster.take(seen_by_card(card, now));
        }
        let inner = Inner {
            settings,
            membership: options.membership,
            ledger,
            added,
            book,
            standing,
            roster,
            swarm: Arc::default(),
            exposed: BTreeMap::new(),
            addresses: Vec::new(),
            tunnelled: BTreeSet::new(),
            read: BTreeMap::new(),
            book_is_saved: true,
            book_has_news: false,
        };
        let registry = Self {
            options,
            clock,
            random,
            inner: Mutex::new(inner),
            found: watch::Sender::default(),
            wanted: watch::Sender::default(),
            places: watch::Sender::default(),
            relays: watch::Sender::default(),
            version: watch::Sender::new(0),
            knocking: Semaphore::new(KNOCKING_MAX),
        };
        registry.change(|_| {});
        Ok(registry)
    }

    /// Our PeerID.
    pub fn own(&self) -> PeerId {
        self.options.own
    }

    /// With whom to exchange, besides those that are configured.
    pub fn found(&self) -> watch::Receiver<Arc<Vec<PeerAddress>>> {
        self.found.subscribe()
    }

    /// Whom to stay connected with.
    pub fn wanted(&self) -> watch::Receiver<Arc<BTreeSet<PeerId>>> {
        self.wanted.subscribe()
    }

    /// Where those are whom to stay connected with, and those to exchange with.
    pub fn places(&self) -> watch::Receiver<Arc<Places>> {
        self.places.subscribe()
    }

    /// Admitted stations that offer to relay, those to be asked first first.
    pub fn relays(&self) -> watch::Receiver<Arc<Vec<PeerId>>> {
        self.relays.subscribe()
    }

    /// Grows with every card that is new.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Whether a station may enter.
    pub fn is_admitted(&self, peer: &PeerId) -> bool {
        self.options.guests.borrow().is_admitted(peer)
    }

    /// Admitted stations of which something is known that may lead to them.
    pub fn reachable(&self) -> BTreeSet<PeerId> {
        let inner = self.lock();
        inner
            .standing
            .admitted
            .keys()
            .filter(|peer| inner.roster.get(peer).is_some())
            .copied()
            .collect()
    }

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

    /// Our own card, once there is one.
    pub fn own_card(&self) -> Option<SignedCard> {
        let inner = self.lock();
        inner
            .book
            .get(&self.options.own)
            .map(|card| card.envelope().clone())
    }

    /// What changed since somebody read last.
    pub fn since(&self, cursor: Cursor) -> (Vec<SignedCard>, Cursor, bool) {
        let inner = self.lock();
        let now = self.clock.unix_seconds();
        let handover = inner.book.since(cursor, &inner.standing, now);
        let cards = handover.cards.into_iter().cloned().collect();
        (cards, handover.next, handover.more)
    }

    /// How far we have read at a station.
    pub fn read_at(&self, peer: &PeerId) -> Cursor {
        self.lock().read.get(peer).copied().unwrap_or_default()
    }

    /// We have read so far at a station.
    pub fn has_read(&self, peer: PeerId, cursor: Cursor) {
        let mut inner = self.lock();
        // Only of those whose word may count: others cannot make us remember.
        if inner.standing.admitted.contains_key(&peer) {
            inner.read.insert(peer, cursor);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic is a bug that aborts nothing here: what it left is judged again at the next change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, judges anew, keeps what must be kept, and publishes what follows.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let answer = change(&mut inner);
        let now = self.clock.unix_seconds();
        inner.see_named(now);
        inner.roster.forget_old(now);
        inner.judge(self.options.own);
        self.renew_card(&mut inner, now);
        if std::mem::take(&mut inner.book_has_news) {
            self.version.send_modify(|version| *version += 1);
        }
        self.publish(&inner, now);
        answer
    }

    fn publish(&self, inner: &Inner, now: u64) {
        let guests = if self.options.halted {
            GuestList::default()
        } else {
            let doors = Doors {
                swarm_key_admits: inner.settings.swarm_key_admits,
                swarm_key_is_secret: self.options.swarm_key_is_secret,
                anyone_is_invited: inner.ledger.is_anyone_invited(now),
            };
            guest_list(&inner.standing, &inner.exposed, doors)
        };
        replace(&self.options.guests, guests);
        let (found, wanted) = (
            inner.found(self.options.own),
            inner.wanted(self.options.own),
        );
        // Before whom they are of: whoever is told whom to dial knows where.
        replace(&self.places, inner.places(&found, &wanted));
        replace(&self.relays, inner.relays(self.options.own));
        replace(&self.found, found);
        replace(&self.wanted, wanted);
    }

    /// Signs our card if what it says has changed, or it is old.
    fn renew_card(&self, inner: &mut Inner, now: u64) {
        let id = inner.membership.id;
        let known = inner.book.get(&self.options.own);
        let is_current = known.is_some_and(|card| {
            *card.statement() == self.statement(inner, id, card.statement().sequence)
                && card.created() + CARD_RENEWED_SECONDS > now
        });
        if is_current {
            return;
        }
        let evidence = inner.evidence(Some(self.options.own), now);
        let signed = self
            .signed_card(inner, id, now)
            .and_then(|signed| UnverifiedCard::of(signed)?.verify(&evidence));
        match signed {
            Ok(card) => {
                inner.insert(card, now);
            }
            Err(error) => tracing::error!(%error, "cannot sign our own card"),
        }
    }

    /// Our card for a constellation, newer than any before.
    pub(super) fn signed_card(
        &self,
        inner: &Inner,
        id: ConstellationId,
        now: u64,
    ) -> Result<SignedCard, CardError> {
        let known = inner.book.get(&self.options.own);
        let previous = known.map_or(0, |card| card.statement().sequence);
        let mut card = Card::of(self.options.own);
        card.created = Some(now);
        card.constellation = Some(self.statement(inner, id, next_sequence(previous, now)));
        SignedCard::sign(&card, &self.options.identity)
    }

    fn statement(&self, inner: &Inner, id: ConstellationId, sequence: u64) -> Statement {
        let mut statement = Statement::new(id, sequence);
        statement.name = Some(inner.settings.name.clone());
        statement.addresses.clone_from(&inner.addresses);
        statement.services = inner
            .exposed
            .keys()
            .take(CARD_SERVICES_MAX)
            .cloned()
            .collect();
        statement.relays = self.options.serves_relay;
        let key = self.options.identity.public_key();
        statement.station_key = (key.peer_id() != self.options.own).then_some(key);
        statement.vouches = inner.ledger.vouches();
        statement.revocations = inner.ledger.revocations();
        statement
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    sender.send_if_modified(|current| {
        let is_new = **current != value;
        if is_new {
            *current = Arc::new(value);
        }
        is_new
    });
}

impl Inner {
    /// Takes a proved card, if it is newer than what we have.
    fn insert(&mut self, card: VerifiedCard, now: u64) -> Insertion {
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
    fn see_named(&mut self, now: u64) {
        for address in self.settings.peers.iter().chain(&self.added) {
            if let Some(sighting) = sighting_of(address, now) {
                self.roster.take(sighting);
            }
        }
    }

    fn judge(&mut self, own: PeerId) {
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
    fn found(&self, own: PeerId) -> Vec<PeerAddress> {
        let mut found = self.added.clone();
        let is_out = |peer: &PeerId| *peer == own || self.standing.revoked.contains_key(peer);
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

    fn places(&self, found: &[PeerAddress], wanted: &BTreeSet<PeerId>) -> Places {
        let peers = found.iter().filter_map(PeerAddress::peer_id);
        let place = |peer: PeerId| Some((peer, self.roster.get(&peer)?.addresses.clone()));
        peers
            .chain(wanted.iter().copied())
            .filter_map(place)
            .collect()
    }

    /// Every station prefers others, and always the same: so the load is spread, and places are held for long.
    fn relays(&self, own: PeerId) -> Vec<PeerId> {
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

    fn wanted(&self, own: PeerId) -> BTreeSet<PeerId> {
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
fn seen_by_card(card: &VerifiedCard, at: u64) -> Sighting {
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
