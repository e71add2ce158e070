//! Signed cards: from bytes of whoever hands them over to what a station has certainly said.
//!
//! Takes an envelope, in which the card is a text, so that nothing needs to be brought into a normal form; gives a
//! [`VerifiedCard`]. Invariant: there is none whose signature, constellation, time and key were not checked, and the
//! key belongs to the station. Deliberately absent: whether the station is admitted. Worst case: one signature over
//! [`CARD_BYTES_MAX`], and as many keys to read as it has vouches (about 10 ms).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ConstellationId;
use super::card::{CARD_BYTES_MAX, Card, Statement};
use crate::limits::FUTURE_SECONDS_MAX;
use crate::protocol::hex;
use crate::tunnel::{Identity, PeerId, SigningError, StationKey};

/// What is signed before the card's text: a signature of something else never passes for a card's.
const DOMAIN: &[u8] = b"constellation card v1\0";
/// Bytes of an envelope: the card as a text within JSON, where each quotation mark takes two bytes.
pub const ENVELOPE_BYTES_MAX: usize = 2 * CARD_BYTES_MAX;
/// How old a card may be that a third station hands over: who was out for longer is fetched from itself.
pub(super) const HANDED_OVER_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// Why a card does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// More bytes than a card may have.
    #[error("larger than {CARD_BYTES_MAX} bytes")]
    TooLarge,
    /// Not a card in JSON.
    #[error("not a card: {0}")]
    NotACard(String),
    /// A form that we do not know.
    #[error("its statement has version {0}, this station reads 1")]
    Version(u32),
    /// More than a card may have.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// It says nothing about a constellation.
    #[error("it is of no constellation")]
    NoStatement,
    /// It does not say when it was made.
    #[error("it does not say when it was made")]
    NoTime,
    /// The text was not signed with the key.
    #[error("its signature is wrong")]
    BadSignature,
    /// Made later than now.
    #[error("it is from the future")]
    FromTheFuture,
    /// Too old to be taken from a third station.
    #[error("it is too old to be taken from another station")]
    TooOld,
    /// Of another constellation.
    #[error("it is of another constellation")]
    OtherConstellation,
    /// The key that signed it is not the one that it names.
    #[error("it names another key than the one that signed it")]
    OtherKey,
    /// Nothing says that the key is this station's.
    #[error("nothing proves that its key is this station's")]
    Unbound,
    /// We cannot sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl CardError {
    /// A stable name for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotACard(_) => "not_a_card",
            Self::Version(_) => "version",
            Self::TooMany(_) => "too_many",
            Self::NoStatement => "no_statement",
            Self::NoTime => "no_time",
            Self::BadSignature => "bad_signature",
            Self::FromTheFuture => "from_the_future",
            Self::TooOld => "too_old",
            Self::OtherConstellation => "other_constellation",
            Self::OtherKey => "other_key",
            Self::Unbound => "unbound",
            Self::Signing(_) => "signing",
        }
    }
}

/// A card with its signature, as it is served, handed over and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCard {
    /// The exact JSON text that was signed.
    card: String,
    key: StationKey,
    /// Lower-case hex.
    signature: String,
}

impl SignedCard {
    /// Signs our own card.
    ///
    /// # Errors
    /// [`CardError`]: others would not take it.
    pub fn sign(card: &Card, identity: &Identity) -> Result<Self, CardError> {
        let statement = card.constellation.as_ref().ok_or(CardError::NoStatement)?;
        statement.check()?;
        card.created.ok_or(CardError::NoTime)?;
        let key = identity.public_key();
        if !is_named(statement, &card.peer, &key) {
            return Err(CardError::OtherKey);
        }
        let text =
            serde_json::to_string(card).map_err(|error| CardError::NotACard(error.to_string()))?;
        if text.len() > CARD_BYTES_MAX {
            return Err(CardError::TooLarge);
        }
        let signature = identity.sign(&signed_bytes(&text))?;
        Ok(Self {
            card: text,
            key,
            signature: hex::encode(&signature),
        })
    }

    /// The card's text: what is also written where Astroport expects it.
    pub fn card_json(&self) -> &str {
        &self.card
    }

    /// Bytes of its texts, before they are put into JSON.
    pub fn len_bytes(&self) -> usize {
        self.card.len() + self.key.to_string().len() + self.signature.len()
    }

    fn is_genuine(&self) -> bool {
        hex::decode(&self.signature)
            .is_some_and(|signature| self.key.verify(&signed_bytes(&self.card), &signature))
    }
}

fn signed_bytes(card: &str) -> Vec<u8> {
    [DOMAIN, card.as_bytes()].concat()
}

/// Whether a card may be signed with this key: the PeerID's own needs no naming, any other must be named.
fn is_named(statement: &Statement, peer: &PeerId, key: &StationKey) -> bool {
    match &statement.station_key {
        Some(named) => named == key,
        None => key.peer_id() == *peer,
    }
}

/// How a key is known to be a station's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// A station through which it came in says so.
    VouchedFor,
    /// The card came straight from the station, over a stream that proves its PeerID.
    Carried,
    /// The PeerID is made of the key.
    Itself,
}

/// The keys that stations sign with whose PeerID has another, as those say through whom they came in.
pub type VouchedKeys = BTreeMap<PeerId, BTreeSet<StationKey>>;

/// What is known beside the card.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'e> {
    /// Unix seconds.
    pub now: u64,
    /// Ours.
    pub constellation: ConstellationId,
    /// The station that the card came straight from, as the carrier has proved; `None` out of a file.
    pub carried_by: Option<PeerId>,
    /// [`Standing::keys`](super::Standing::keys).
    pub keys: &'e VouchedKeys,
}

/// A card of which nothing is proved.
#[derive(Debug, Clone)]
pub struct UnverifiedCard {
    envelope: SignedCard,
    card: Card,
}

impl UnverifiedCard {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`CardError::TooLarge`], [`CardError::NotACard`].
    pub fn parse(json: &[u8]) -> Result<Self, CardError> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(CardError::TooLarge);
        }
        let envelope: SignedCard =
            serde_json::from_slice(json).map_err(|error| CardError::NotACard(error.to_string()))?;
        Self::of(envelope)
    }

    /// Reads the card in an envelope.
    ///
    /// # Errors
    /// [`CardError::TooLarge`], [`CardError::NotACard`].
    pub fn of(envelope: SignedCard) -> Result<Self, CardError> {
        let card = Card::parse(envelope.card.as_bytes())?;
        Ok(Self { envelope, card })
    }

    /// Whose it says it is.
    pub fn claimed_peer(&self) -> PeerId {
        self.card.peer
    }

    /// Whether it is the other one, word for word.
    pub fn is_same(&self, other: &Self) -> bool {
        self.envelope == other.envelope
    }

    /// Bytes of its texts.
    pub fn len_bytes(&self) -> usize {
        self.envelope.len_bytes()
    }

    /// Whether anything says that the key it names is the station's. Nothing is proved by that.
    pub fn is_bound(&self, evidence: &Evidence<'_>) -> bool {
        self.binding(evidence).is_some()
    }

    fn binding(&self, evidence: &Evidence<'_>) -> Option<Binding> {
        let (peer, key) = (self.card.peer, &self.envelope.key);
        if key.peer_id() == peer {
            Some(Binding::Itself)
        } else if evidence.carried_by == Some(peer) {
            Some(Binding::Carried)
        } else {
            let keys = evidence.keys.get(&peer)?;
            keys.contains(key).then_some(Binding::VouchedFor)
        }
    }

    /// Checks it.
    ///
    /// # Errors
    /// [`CardError`]: the first reason found, cheap ones first.
    pub fn verify(self, evidence: &Evidence<'_>) -> Result<VerifiedCard, CardError> {
        let peer = self.card.peer;
        let is_carried = evidence.carried_by == Some(peer);
        let created = self.card.created.ok_or(CardError::NoTime)?;
        if created > evidence.now.saturating_add(FUTURE_SECONDS_MAX) {
            return Err(CardError::FromTheFuture);
        }
        if !is_carried && created.saturating_add(HANDED_OVER_SECONDS_MAX) < evidence.now {
            return Err(CardError::TooOld);
        }
        let binding = self.binding(evidence).ok_or(CardError::Unbound)?;
        self.verified(created, evidence.constellation, binding)
    }

    /// Checks again what was kept by us: all but what depends on the moment it was received.
    pub(super) fn restore(
        self,
        constellation: ConstellationId,
        binding: Binding,
    ) -> Result<VerifiedCard, CardError> {
        let created = self.card.created.ok_or(CardError::NoTime)?;
        let is_itself = self.envelope.key.peer_id() == self.card.peer;
        if is_itself != (binding == Binding::Itself) {
            return Err(CardError::Unbound);
        }
        self.verified(created, constellation, binding)
    }

    /// What holds at any time. The only place that makes a [`VerifiedCard`].
    fn verified(
        self,
        created: u64,
        constellation: ConstellationId,
        binding: Binding,
    ) -> Result<VerifiedCard, CardError> {
        let Self { envelope, mut card } = self;
        let statement = card.constellation.take().ok_or(CardError::NoStatement)?;
        if statement.id != constellation {
            return Err(CardError::OtherConstellation);
        }
        statement.check()?;
        if !is_named(&statement, &card.peer, &envelope.key) {
            return Err(CardError::OtherKey);
        }
        if !envelope.is_genuine() {
            return Err(CardError::BadSignature);
        }
        Ok(VerifiedCard {
            envelope,
            card,
            statement,
            created,
            binding,
        })
    }
}

/// What a station of our constellation has certainly said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCard {
    envelope: SignedCard,
    card: Card,
    statement: Statement,
    created: u64,
    binding: Binding,
}

impl VerifiedCard {
    /// Whose it is.
    pub fn peer(&self) -> PeerId {
        self.card.peer
    }

    /// Unix seconds.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Which of two is newer: by sequence, then by time; a station that signs two with the same ones has one chosen for
    /// it, the same everywhere.
    pub(super) fn age_key(&self) -> (u64, u64, &str) {
        (self.statement.sequence, self.created, &self.envelope.card)
    }

    /// What it says to the constellation.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The fields of Astroport; its `constellation` is in [`Self::statement`].
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// How its key is known.
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// The key that signed it.
    pub fn key(&self) -> &StationKey {
        &self.envelope.key
    }

    /// To hand over.
    pub fn envelope(&self) -> &SignedCard {
        &self.envelope
    }
}

#[cfg(test)]
#[path = "signed_tests.rs"]
mod tests;
