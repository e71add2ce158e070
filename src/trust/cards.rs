//! The cards that we know: of each station the newest.
//!
//! Takes verified cards; gives them to whoever judges, dials, or asks what is new. Kept in `state/cards.json`: what a
//! station vouched for must not be forgotten while it is away. Invariant: of each station at most one card, and of one
//! that is out no newer one than we had: or it would let itself in under another name. A card that could not be handed
//! over when it came counts as changed on the day it can ([`CardBook::offer_all`]). Deliberately absent: fetching,
//! and judging. Worst case: [`BOOK_BYTES_MAX`] of cards, twice in memory (text and fields).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, Format, StateError};
use super::signed::{Binding, HANDED_OVER_SECONDS_MAX, SignedCard, UnverifiedCard, VerifiedCard};
use super::standing::STATIONS_MAX;
use super::{ConstellationId, Standing};
use crate::random::Random;
use crate::tunnel::{Multiaddr, PeerId};

/// Bytes of all cards together: 4,096 stations with 4 kB each.
const BOOK_BYTES_MAX: usize = 16 << 20;
/// Cards handed over in one answer.
pub const HANDOVER_CARDS_MAX: usize = 512;
/// Their bytes, before they are put into JSON; one card always fits.
const HANDOVER_BYTES_MAX: usize = 4 << 20;
/// After this the addresses in a card are a last resort: stations move, but the folder of a swarm is emptied daily.
const ADDRESSES_FRESH_SECONDS: u64 = 48 * 3600;

/// What became of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Insertion {
    /// It is the newest of its station now.
    Inserted,
    /// We have it.
    Same,
    /// We have a newer one.
    Older,
    /// The station is out, and says no more.
    Revoked,
    /// We know the station's key from itself, and this is another, on the word of a third one.
    OtherKey,
    /// No room for a station that nobody vouches for, or for any.
    Full,
}

/// How far somebody has read: what [`CardBook::since`] gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Which start of our program counted.
    epoch: u64,
    version: u64,
}

/// Cards for somebody who asked.
#[derive(Debug, Clone)]
pub struct Handover<'b> {
    /// What changed first comes first: an answer that is cut off loses nothing.
    pub cards: Vec<&'b SignedCard>,
    /// To ask for what comes after.
    pub next: Cursor,
    /// Whether there is more at once.
    pub more: bool,
}

#[derive(Debug)]
struct Kept {
    card: VerifiedCard,
    version: u64,
    bytes: usize,
    /// Whether it is handed over to those who ask.
    is_offered: bool,
}

/// The newest card of each station.
#[derive(Debug)]
pub struct CardBook {
    epoch: u64,
    version: u64,
    bytes: usize,
    kept: BTreeMap<PeerId, Kept>,
    changes: BTreeMap<u64, PeerId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Format,
    cards: Vec<FiledCard>,
}

/// The cards of a book at one moment.
#[derive(Debug)]
pub struct CardBookCopy(File);

impl CardBookCopy {
    /// Keeps them, durably.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        files::save(path, &self.0)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FiledCard {
    binding: Binding,
    signed: SignedCard,
}

impl CardBook {
    /// With no cards in it.
    pub fn empty(random: &Random) -> Self {
        Self {
            epoch: u64::from_le_bytes(random.bytes()),
            version: 0,
            bytes: 0,
            kept: BTreeMap::new(),
            changes: BTreeMap::new(),
        }
    }

    /// What was kept of this constellation. Signatures are checked again.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(
        path: &Path,
        constellation: ConstellationId,
        random: &Random,
    ) -> Result<Self, StateError> {
        let mut book = Self::empty(random);
        let file: Option<File> = files::load(path)?;
        for filed in file.into_iter().flat_map(|file| file.cards) {
            let restored = UnverifiedCard::of(filed.signed)
                .and_then(|card| card.restore(constellation, filed.binding));
            match restored {
                Ok(card) => book.keep(card, false),
                // The constellation was changed, and the captain confirmed it.
                Err(super::CardError::OtherConstellation) => {}
                Err(error) => {
                    return Err(StateError::Damaged {
                        path: path.to_owned(),
                        why: error.to_string(),
                    });
                }
            }
        }
        Ok(book)
    }

    /// All of it, to be kept: a copy that can be written without holding the book.
    pub fn copy(&self) -> CardBookCopy {
        let cards = self.cards().map(|card| FiledCard {
            binding: card.binding(),
            signed: card.envelope().clone(),
        });
        CardBookCopy(File {
            version: Format,
            cards: cards.collect(),
        })
    }

    /// Keeps all, durably.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        self.copy().save(path)
    }

    /// Takes a card, if it says something new.
    pub fn insert(&mut self, card: VerifiedCard, standing: &Standing) -> Insertion {
        let peer = card.peer();
        let is_judged = standing.is_judged(&peer) || peer == standing.me;
        let known = self.kept.get(&peer);
        if standing.revoked.contains_key(&peer) && (known.is_some() || !is_judged) {
            return Insertion::Revoked;
        }
        if let Some(known) = known {
            match compared(&known.card, &card, standing) {
                Insertion::Inserted => {}
                Insertion::Same => {
                    // The same one, perhaps better proved.
                    if known.card.binding() < card.binding() {
                        self.replace_binding(card);
                    }
                    return Insertion::Same;
                }
                other => return other,
            }
        }
        if !self.has_room_for(&card) {
            if !is_judged {
                return Insertion::Full;
            }
            self.drop_unjudged(standing);
            if !self.has_room_for(&card) {
                return Insertion::Full;
            }
        }
        let was_offered = self.kept.get(&peer).is_some_and(|known| known.is_offered);
        self.keep(card, was_offered || is_judged);
        Insertion::Inserted
    }

    /// Cards of these stations are handed over from now on, and no others. Those that were not before count as changed:
    /// whoever asked meanwhile was not told of them. Tells whether there are such.
    pub fn offer_all(&mut self, is_ours: impl Fn(&PeerId) -> bool) -> bool {
        let mut has_news = false;
        for (peer, kept) in &mut self.kept {
            let is_offered = is_ours(peer);
            if is_offered && !kept.is_offered {
                self.changes.remove(&kept.version);
                self.version += 1;
                kept.version = self.version;
                self.changes.insert(kept.version, *peer);
                has_news = true;
            }
            kept.is_offered = is_offered;
        }
        has_news
    }

    /// How far whoever knows everything has read.
    pub fn end(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            version: self.version,
        }
    }

    fn has_room_for(&self, card: &VerifiedCard) -> bool {
        let known = self.kept.get(&card.peer());
        let freed = known.map_or(0, |known| known.bytes);
        let bytes = self.bytes - freed + card.envelope().len_bytes();
        bytes <= BOOK_BYTES_MAX && (known.is_some() || self.kept.len() < STATIONS_MAX)
    }

    fn drop_unjudged(&mut self, standing: &Standing) {
        let unjudged = |peer: &PeerId| !standing.is_judged(peer) && *peer != standing.me;
        let peers: Vec<PeerId> = self.kept.keys().copied().filter(unjudged).collect();
        for peer in peers {
            self.drop_card(&peer);
        }
    }

    fn drop_card(&mut self, peer: &PeerId) {
        if let Some(kept) = self.kept.remove(peer) {
            self.bytes -= kept.bytes;
            self.changes.remove(&kept.version);
        }
    }

    fn keep(&mut self, card: VerifiedCard, is_offered: bool) {
        let (peer, bytes) = (card.peer(), card.envelope().len_bytes());
        self.drop_card(&peer);
        self.version += 1;
        self.bytes += bytes;
        self.changes.insert(self.version, peer);
        let version = self.version;
        let kept = Kept {
            card,
            version,
            bytes,
            is_offered,
        };
        self.kept.insert(peer, kept);
    }

    fn replace_binding(&mut self, card: VerifiedCard) {
        if let Some(kept) = self.kept.get_mut(&card.peer()) {
            kept.card = card;
        }
    }

    /// All cards.
    pub fn cards(&self) -> impl Iterator<Item = &VerifiedCard> {
        self.kept.values().map(|kept| &kept.card)
    }

    /// A station's.
    pub fn get(&self, peer: &PeerId) -> Option<&VerifiedCard> {
        self.kept.get(peer).map(|kept| &kept.card)
    }

    /// Where a station may be reached by its card, and whether that is fresh; else it is worth a try only where nothing
    /// else is known.
    pub fn addresses(&self, peer: &PeerId, now: u64) -> Option<(&[Multiaddr], bool)> {
        let card = self.get(peer)?;
        let is_fresh = card.created().saturating_add(ADDRESSES_FRESH_SECONDS) >= now;
        Some((&card.statement().addresses, is_fresh))
    }

    /// What changed since somebody asked last, of cards that are offered; with [`Cursor::default`], everything. Cards
    /// that are too old to be taken from us are left out.
    pub fn since(&self, cursor: Cursor, now: u64) -> Handover<'_> {
        let read = if cursor.epoch == self.epoch {
            cursor.version
        } else {
            0 // counted by another start: its numbers mean nothing now
        };
        let mut handover = Handover {
            cards: Vec::new(),
            next: Cursor {
                epoch: self.epoch,
                version: self.version.max(read),
            },
            more: false,
        };
        let mut bytes = 0;
        for (version, peer) in self.changes.range(read.saturating_add(1)..) {
            let kept = &self.kept[peer];
            let is_old = kept.card.created().saturating_add(HANDED_OVER_SECONDS_MAX) < now;
            if !kept.is_offered || is_old {
                continue;
            }
            let is_full = handover.cards.len() >= HANDOVER_CARDS_MAX
                || bytes + kept.bytes > HANDOVER_BYTES_MAX && !handover.cards.is_empty();
            if is_full {
                handover.next.version = version - 1;
                handover.more = true;
                break;
            }
            bytes += kept.bytes;
            handover.cards.push(kept.card.envelope());
        }
        handover
    }
}

/// Whether a card takes the place of the one that we have.
fn compared(known: &VerifiedCard, card: &VerifiedCard, standing: &Standing) -> Insertion {
    if known.envelope() == card.envelope() {
        return Insertion::Same;
    }
    if known.key() != card.key() {
        let is_proved = |card: &VerifiedCard| card.binding() != Binding::VouchedFor;
        let is_vouched_still = || {
            let keys = standing.keys().get(&known.peer());
            keys.is_some_and(|keys| keys.contains(known.key()))
        };
        match (is_proved(known), is_proved(card)) {
            (true, false) => return Insertion::OtherKey,
            // Whatever number a third one's word gave it.
            (false, true) => return Insertion::Inserted,
            (false, false) if !is_vouched_still() => return Insertion::Inserted,
            _ => {}
        }
    }
    if known.age_key() < card.age_key() {
        Insertion::Inserted
    } else {
        Insertion::Older
    }
}

#[cfg(test)]
#[path = "cards_tests.rs"]
mod tests;
