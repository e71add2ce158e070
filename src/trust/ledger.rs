//! This station's own word: whom its captain allowed and revoked, whom it let in by a token, and tokens that are out.
//!
//! Takes the captain's commands and redeemed tokens; gives lists. Kept in `state/trust.json`: whoever changes it saves
//! it before it acts. Invariant: a revoked station is not let in again but by `allow`; a token lets in one station. What
//! this station vouched for stays noted after it was revoked: by that others know that it came in through us, and that
//! our revocation takes along whom it let in. Deliberately absent: who is admitted (`standing.rs`). Worst case: as many
//! entries as a card has room for.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::card::{CARD_REVOCATIONS_MAX, CARD_VOUCHES_MAX, Revocation, Vouch};
use super::files::{self, Format, StateError};
use super::{ConstellationId, Invitation, Secret};
use crate::protocol::hex;
use crate::random::Random;
use crate::tunnel::{Multiaddr, PeerId, StationKey};

/// Stations that the captain allowed by hand.
const ALLOWED_MAX: usize = 4_096;
/// Tokens out at a time.
const TOKENS_MAX: usize = 256;
/// How long a token is remembered after it expired, so that whoever comes too late is told so: a week.
const EXPIRED_REMEMBERED_SECONDS: u64 = 7 * 24 * 3600;
/// Characters of a note.
const NOTE_CHARS_MAX: usize = 256;

/// There is no room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for more {0}: remove some first")]
pub struct LedgerFull(&'static str);

/// Why a token does not let in. Its names also go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum TokenRefusal {
    /// Another station came in with it.
    #[error("the token was used already")]
    Used,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Not made here, or forgotten.
    #[error("this station did not make the token")]
    Unknown,
    /// For another constellation.
    #[error("the token is for another constellation")]
    Foreign,
    /// The station was put out.
    #[error("this station was revoked")]
    Revoked,
    /// A key that cards have no room for.
    #[error("a station's own key must be of type ed25519")]
    UnfitKey,
    /// As many stations came in through us as a card has room for.
    #[error("this station cannot let in more; ask another one for a token")]
    Full,
}

impl TokenRefusal {
    /// The name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
            Self::Revoked => "revoked",
            Self::UnfitKey => "unfit_key",
            Self::Full => "full",
        }
    }
}

/// A station that the captain allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// The captain's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Unix seconds.
    pub since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vouched {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<StationKey>,
    since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<PeerId>,
}

/// Who comes with a token.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'n> {
    /// Its PeerID, as the carrier has proved.
    pub peer: PeerId,
    /// What it signs its cards with.
    pub key: &'n StationKey,
    /// The constellation that its token is for.
    pub constellation: ConstellationId,
}

/// What a new token is to say.
#[derive(Debug, Clone)]
pub struct InvitationTerms {
    /// Ourselves.
    pub peer: PeerId,
    /// Where we may be reached; the first ones that fit are taken.
    pub addresses: Vec<Multiaddr>,
    /// Ours.
    pub constellation: ConstellationId,
    /// Unix seconds.
    pub expires: u64,
    /// Whether a swarm key is needed besides.
    pub private: bool,
}

/// This station's own word.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: Format,
    allowed: BTreeMap<PeerId, Allowance>,
    revoked: BTreeMap<PeerId, u64>,
    vouched: BTreeMap<PeerId, Vouched>,
    /// By the hash of its secret, in hex.
    tokens: BTreeMap<String, Token>,
}

impl Ledger {
    /// What was kept; empty on a station that has just been set up.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(path: &Path) -> Result<Self, StateError> {
        Ok(files::load(path)?.unwrap_or_default())
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        files::save(path, self)
    }

    /// The captain allows a station, and takes back its revocation. Tells whether that changes anything.
    ///
    /// # Errors
    /// [`LedgerFull`].
    pub fn allow(
        &mut self,
        peer: PeerId,
        note: Option<&str>,
        now: u64,
    ) -> Result<bool, LedgerFull> {
        let note = note.map(|note| note.chars().take(NOTE_CHARS_MAX).collect::<String>());
        let was_revoked = self.revoked.contains_key(&peer);
        let known = self.allowed.get(&peer);
        if known.is_none() && self.allowed.len() >= ALLOWED_MAX {
            return Err(LedgerFull("allowed stations"));
        }
        if known.is_some_and(|known| note.is_none() || known.note == note) && !was_revoked {
            return Ok(false);
        }
        self.revoked.remove(&peer);
        self.allowed.insert(peer, Allowance { note, since: now });
        Ok(true)
    }

    /// Takes back what was said for a station, also that it came in through us. Others may still let it in; a revoked
    /// one stays so. Tells whether that changes anything.
    pub fn remove(&mut self, peer: &PeerId) -> bool {
        let was_allowed = self.allowed.remove(peer).is_some();
        let was_vouched = !self.revoked.contains_key(peer) && self.vouched.remove(peer).is_some();
        // Or its token would let it in again.
        self.forget_tokens_of(peer);
        was_allowed || was_vouched
    }

    /// Puts a station out. Tells whether that changes anything.
    ///
    /// # Errors
    /// [`LedgerFull`].
    pub fn revoke(&mut self, peer: PeerId, now: u64) -> Result<bool, LedgerFull> {
        if self.revoked.contains_key(&peer) {
            return Ok(false);
        }
        if self.revoked.len() >= CARD_REVOCATIONS_MAX {
            return Err(LedgerFull("revoked stations"));
        }
        self.allowed.remove(&peer);
        self.forget_tokens_of(&peer);
        self.revoked.insert(peer, now);
        Ok(true)
    }

    /// The captain joined through a station: we vouch for it from now on, so that it may enter here, and so that those who
    /// join through us know it too. An equal or a senior can still put it out. `key` is what it signs its cards with, if that is another than its PeerID's.
    ///
    /// # Errors
    /// [`LedgerFull`].
    pub fn joined_through(
        &mut self,
        peer: PeerId,
        key: Option<StationKey>,
        now: u64,
    ) -> Result<(), LedgerFull> {
        let is_known = self.vouched.contains_key(&peer);
        if !is_known && self.vouched.len() >= CARD_VOUCHES_MAX {
            return Err(LedgerFull("stations that came in through us"));
        }
        self.revoked.remove(&peer);
        let key = key.filter(StationKey::is_ed25519);
        self.vouched.insert(peer, Vouched { key, since: now });
        Ok(())
    }

    /// The station leaves for another constellation: those who came in through us, and tokens, stay behind. Whom the
    /// captain allowed or revoked by hand is so still.
    pub fn leave(&mut self) {
        self.vouched.clear();
        self.tokens.clear();
    }

    fn forget_tokens_of(&mut self, peer: &PeerId) {
        self.tokens
            .retain(|_, token| token.used_by.as_ref() != Some(peer));
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`LedgerFull`]: too many are out.
    pub fn invite(
        &mut self,
        mut terms: InvitationTerms,
        now: u64,
        random: &Random,
    ) -> Result<Invitation, LedgerFull> {
        self.forget_expired(now);
        if self.tokens.len() >= TOKENS_MAX {
            // Those that are worth nothing any more are remembered only where there is room.
            self.tokens
                .retain(|_, token| token.used_by.is_none() && token.expires >= now);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(LedgerFull("tokens"));
        }
        let secret = Secret::from_bytes(random.bytes());
        let token = Token {
            expires: terms.expires,
            used_by: None,
        };
        self.tokens.insert(hex::encode(&secret.hash()), token);
        terms
            .addresses
            .retain(|address| address.len() <= u8::MAX.into());
        terms.addresses.truncate(super::token::TOKEN_ADDRESSES_MAX);
        Ok(Invitation {
            peer: terms.peer,
            addresses: terms.addresses,
            constellation: terms.constellation,
            secret,
            expires: terms.expires,
            private: terms.private,
        })
    }

    /// A newcomer comes with a token; if nothing is against it, we vouch for it from now on. The answer may be lost, so
    /// whoever used a token may use it again. Tells whether that changes anything.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub fn redeem(
        &mut self,
        secret: &Secret,
        newcomer: &Newcomer<'_>,
        ours: ConstellationId,
        now: u64,
    ) -> Result<bool, TokenRefusal> {
        self.forget_expired(now);
        let peer = newcomer.peer;
        if newcomer.constellation != ours {
            return Err(TokenRefusal::Foreign);
        }
        let token = self
            .tokens
            .get_mut(&hex::encode(&secret.hash()))
            .ok_or(TokenRefusal::Unknown)?;
        match token.used_by {
            Some(user) if user != peer => return Err(TokenRefusal::Used),
            _ if token.expires < now => return Err(TokenRefusal::Expired),
            _ if self.revoked.contains_key(&peer) => return Err(TokenRefusal::Revoked),
            _ => {}
        }
        let is_its_own = newcomer.key.peer_id() == peer;
        if !is_its_own && !newcomer.key.is_ed25519() {
            return Err(TokenRefusal::UnfitKey);
        }
        let known = self.vouched.get(&peer);
        if known.is_none() && self.vouched.len() >= CARD_VOUCHES_MAX {
            return Err(TokenRefusal::Full);
        }
        let key = (!is_its_own).then(|| newcomer.key.clone());
        let is_new = known.is_none_or(|known| known.key != key) || token.used_by.is_none();
        token.used_by = Some(peer);
        if is_new {
            self.vouched.insert(peer, Vouched { key, since: now });
        }
        Ok(is_new)
    }

    fn forget_expired(&mut self, now: u64) {
        self.tokens
            .retain(|_, token| token.expires.saturating_add(EXPIRED_REMEMBERED_SECONDS) >= now);
    }

    /// Whether somebody may still come with a token whom we do not know yet. Whoever used one is let in as it is.
    pub fn is_anyone_invited(&self, now: u64) -> bool {
        self.tokens
            .values()
            .any(|token| token.used_by.is_none() && token.expires >= now)
    }

    /// Stations that the captain allowed.
    pub fn allowed(&self) -> &BTreeMap<PeerId, Allowance> {
        &self.allowed
    }

    /// Stations that the captain revoked, and when.
    pub fn revoked(&self) -> &BTreeMap<PeerId, u64> {
        &self.revoked
    }

    /// Stations that came in through us, for the card; also those that we revoked since.
    pub fn vouches(&self) -> Vec<Vouch> {
        self.vouched
            .iter()
            .map(|(peer, vouched)| Vouch {
                peer: *peer,
                key: vouched.key.clone(),
                since: vouched.since,
            })
            .collect()
    }

    /// Stations that we revoked, for the card.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.revoked
            .iter()
            .map(|(peer, at)| Revocation {
                peer: *peer,
                at: *at,
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
