//! Who there is and who may enter: what all sources, cards and the captain say, in one place, kept.
//!
//! ```text
//! sources ─► roster ─┐                               ┌─► guests   to the carrier: who may enter
//! cards ───► book ───┼─► standing (trust) ─► publish ├─► found    to runs: with whom to exchange
//! captain ─► ledger ─┘                               ├─► wanted   to the carrier: whom to stay connected with
//!                                                    ├─► places   to the carrier: where these and the found ones are
//!                                                    ├─► relays   to the carrier: who offers to relay
//!                                                    ├─► out      to runs and live links: who is revoked
//!                                                    └─► version  to gossip: there is something to tell
//! ```
//!
//! Everything is under one lock, held for as long as judging takes: milliseconds with a thousand stations. Signatures are checked
//! and files written without it (`keeping.rs`). Invariant: our captain's word is on disk before it counts; cards are written a
//! moment later, since whoever told us tells us again. A station that is halted publishes nobody. Worst case: the bounds of
//! `trust` and of the roster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::holdings::{Holdings, Places, seen_by_card};
use super::receiving::Unbound;
use super::roster::Roster;
use super::visits::Visits;
use crate::peer::{PeerAddress, PeerId};
use crate::random::Random;
use crate::time::Clock;
use crate::trust::{
    CARD_SERVICES_MAX, Card, CardBook, CardError, ConstellationId, Cursor, Ledger, Membership,
    SignedCard, StateError, Statement, UnverifiedCard, evaluate, guest_list, next_sequence,
};
use crate::tunnel::{GuestList, Identity};

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
    /// Whether nothing may be shared (D16); nobody enters then. See [`Registry::halt`].
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
    /// Whether stations of the swarm folder may open our relay, and nothing else.
    pub admit_swarm: bool,
}

/// Who there is and who may enter. One for each station.
pub struct Registry {
    pub(super) options: RegistryOptions,
    pub(super) clock: Clock,
    pub(super) random: Random,
    inner: Mutex<Holdings>,
    /// Held by whoever changes what the captain said (`keeping.rs`).
    pub(super) pen: Mutex<()>,
    /// Held by whoever writes the cards.
    pub(super) cards_file: Mutex<()>,
    /// How far the cards go that were on disk at the start: others were told of those before.
    loaded: Cursor,
    found: watch::Sender<Arc<Vec<PeerAddress>>>,
    wanted: watch::Sender<Arc<BTreeSet<PeerId>>>,
    places: watch::Sender<Arc<Places>>,
    relays: watch::Sender<Arc<Vec<PeerId>>>,
    constellation: watch::Sender<ConstellationId>,
    out: watch::Sender<Arc<BTreeSet<PeerId>>>,
    /// Those of them whom the configuration names, as last warned of.
    named_in_vain: watch::Sender<Arc<BTreeSet<PeerId>>>,
    version: watch::Sender<u64>,
    /// Who is served at present.
    pub(super) visits: Visits,
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
        let constellation = options.membership.id;
        let standing = evaluate(options.own, &ledger, &BTreeSet::new(), book.cards());
        // However old the cards are: a station that was away for long begins where it left off.
        let now = clock.unix_seconds();
        let mut roster = Roster::default();
        for card in book.cards().filter(|card| card.peer() != options.own) {
            roster.take(seen_by_card(card, now));
        }
        let mut inner = Holdings {
            settings: settings.fitting(),
            membership: options.membership,
            halted: options.halted,
            swarm_key_is_secret: options.swarm_key_is_secret,
            ledger,
            added,
            book,
            standing,
            roster,
            swarm: Arc::default(),
            exposed: BTreeMap::new(),
            addresses: Vec::new(),
            too_long: Vec::new(),
            tunnelled: BTreeSet::new(),
            read: BTreeMap::new(),
            book_is_saved: true,
            book_has_news: false,
            unbound: Unbound::default(),
        };
        inner.judge(options.own);
        let loaded = inner.book.end();
        let registry = Self {
            options,
            clock,
            random,
            inner: Mutex::new(inner),
            pen: Mutex::default(),
            cards_file: Mutex::default(),
            loaded,
            found: watch::Sender::default(),
            wanted: watch::Sender::default(),
            places: watch::Sender::default(),
            relays: watch::Sender::default(),
            constellation: watch::Sender::new(constellation),
            out: watch::Sender::default(),
            named_in_vain: watch::Sender::default(),
            version: watch::Sender::new(0),
            visits: Visits::default(),
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

    /// Who is revoked: nobody exchanges with them though they are configured, and no live link is kept with them.
    pub fn out(&self) -> watch::Receiver<Arc<BTreeSet<PeerId>>> {
        self.out.subscribe()
    }

    /// How far the cards go that others need not be told of: they were on disk when we started.
    pub(super) fn loaded(&self) -> Cursor {
        self.loaded
    }

    /// How far the cards go.
    pub(super) fn end(&self) -> Cursor {
        self.lock().book.end()
    }

    /// Requests that were turned away because too many were being served.
    pub fn turned_away(&self) -> u64 {
        self.visits.turned_away()
    }

    /// Grows with every card that is new.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Follows which constellation is ours.
    pub fn constellation(&self) -> watch::Receiver<ConstellationId> {
        self.constellation.subscribe()
    }

    /// Our constellation.
    pub fn membership(&self) -> Membership {
        self.lock().membership
    }

    /// From now on nothing may be shared (D16), or it may again: nobody enters, and nobody is looked for, while it holds.
    pub fn halt(&self, halted: bool) {
        self.change(|inner| inner.halted = halted);
    }

    /// Whether a station may enter.
    pub fn is_admitted(&self, peer: &PeerId) -> bool {
        self.options.guests.borrow().is_admitted(peer)
    }

    /// Stations that may enter and of which something is known that may lead to them.
    pub fn reachable(&self) -> BTreeSet<PeerId> {
        let inner = self.lock();
        if inner.halted {
            return BTreeSet::new();
        }
        let known = inner.roster.iter().map(|(peer, _)| *peer);
        known.filter(|peer| inner.may_enter(peer)).collect()
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
        let handover = inner.book.since(cursor, now);
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
        // Of as many as there are in the roster: whoever may enter cannot make us remember more by ever new names.
        if inner.may_enter(&peer) && inner.roster.get(&peer).is_some() {
            inner.read.insert(peer, cursor);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Holdings> {
        // A panic is a bug that aborts nothing here: what it left is judged again at the next change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, judges anew, keeps what must be kept, and publishes what follows.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Holdings) -> T) -> T {
        let mut inner = self.lock();
        let answer = change(&mut inner);
        let now = self.clock.unix_seconds();
        inner.see_named(now);
        inner.forget_old(now);
        inner.judge(self.options.own);
        self.renew_card(&mut inner, now);
        if std::mem::take(&mut inner.book_has_news) {
            self.version.send_modify(|version| *version += 1);
        }
        self.publish(&inner, now);
        answer
    }

    pub(super) fn publish(&self, inner: &Holdings, now: u64) {
        self.constellation.send_if_modified(|ours| {
            std::mem::replace(ours, inner.membership.id) != inner.membership.id
        });
        if inner.halted {
            // Nobody enters, and nobody is looked for.
            replace(&self.options.guests, GuestList::default());
            replace(&self.places, Places::default());
            replace(&self.relays, Vec::new());
            replace(&self.found, Vec::new());
            replace(&self.wanted, BTreeSet::new());
            return;
        }
        let guests = guest_list(
            &inner.standing,
            &inner.exposed,
            inner.doors(now),
            inner.relay_guests(),
        );
        replace(&self.options.guests, guests);
        let (found, wanted) = (
            inner.found(self.options.own),
            inner.wanted(self.options.own),
        );
        // Before whom they are of: whoever is told whom to dial knows where.
        replace(&self.places, inner.places(&found, &wanted));
        replace(&self.relays, inner.relays());
        replace(&self.found, found);
        replace(&self.wanted, wanted);
        replace(
            &self.out,
            inner
                .standing
                .revoked
                .keys()
                .copied()
                .collect::<BTreeSet<_>>(),
        );
        let named_in_vain = inner.named_in_vain();
        for peer in named_in_vain.difference(&self.named_in_vain.borrow()) {
            tracing::warn!(%peer, "a peer of the configuration is revoked here: it is left out of runs (constellation peers allow brings it back)");
        }
        replace(&self.named_in_vain, named_in_vain);
    }

    /// Signs our card if what it says has changed, or it is old.
    fn renew_card(&self, inner: &mut Holdings, now: u64) {
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
        inner: &Holdings,
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

    fn statement(&self, inner: &Holdings, id: ConstellationId, sequence: u64) -> Statement {
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
