//! What the captain may say: who is invited, allowed, added, removed, revoked.
//!
//! Each word is kept on disk before it counts (`keeping.rs`). Deliberately absent: the network, and joining
//! (`joining.rs`). Worst case: the bounds of the ledger.

use super::added::ADDED_MAX;
use super::registry::Registry;
use super::reports::InvitationReport;
use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::time::rfc3339;
use crate::trust::{
    CardError, ConstellationId, InvitationTerms, LedgerFull, StateError, TokenError,
};
use crate::tunnel::{StationKey, StationKeyError};

/// Why the captain's word could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CaptainError {
    /// Nothing is shared at present.
    #[error(
        "this is no longer the constellation it was: confirm it first (constellation init --accept-constellation)"
    )]
    Halted,
    /// Ourselves.
    #[error("that is this station itself")]
    Ourselves,
    /// Not a station.
    #[error(
        "{0:?} is no station: expected a PeerID, an address with /p2p/<PeerID>, or an ssh-ed25519 line"
    )]
    NotAStation(String),
    /// Not known.
    #[error("{0} was neither added nor allowed here")]
    NotKnown(String),
    /// Too many.
    #[error(transparent)]
    Full(#[from] LedgerFull),
    /// Too many.
    #[error("no more than {ADDED_MAX} peers can be added")]
    TooMany,
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// A token that cannot be.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Our own card.
    #[error("cannot sign this station's card: {0}")]
    Card(#[from] CardError),
    /// We cannot be reached.
    #[error("nobody could reach this station: it listens nowhere")]
    NoAddress,
    /// The token is for elsewhere.
    #[error(
        "the token is for another constellation than the one this station belongs to ({ours}). To leave that one and share \
         everything stored here with the new one: constellation join --accept-constellation TOKEN"
    )]
    OtherConstellation {
        /// Ours.
        ours: ConstellationId,
    },
    /// The configuration says otherwise.
    #[error(
        "the token is for another constellation than the configuration names ({0}): set [tunnel] swarm_key or [station] \
         constellation to what those who invite have"
    )]
    OtherConfigured(ConstellationId),
}

impl Registry {
    /// Makes a token.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn invite(
        &self,
        lifetime_seconds: u64,
        addresses: Vec<Multiaddr>,
    ) -> Result<InvitationReport, CaptainError> {
        self.not_halted()?;
        if addresses.is_empty() {
            return Err(CaptainError::NoAddress);
        }
        let now = self.clock.unix_seconds();
        let pen = self.pen();
        let terms = InvitationTerms {
            peer: self.options.own,
            addresses,
            constellation: self.lock().membership.id,
            expires: now.saturating_add(lifetime_seconds),
            private: self.options.private_swarm,
        };
        let invitation = self.say(&pen, |ledger| {
            Ok::<_, CaptainError>(ledger.invite(terms, now, &self.random)?)
        })?;
        Ok(InvitationReport {
            token: invitation.to_token()?,
            expires_at: rfc3339(invitation.expires),
            addresses: invitation
                .addresses
                .iter()
                .map(Multiaddr::to_string)
                .collect(),
        })
    }

    /// Lets a station in.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn allow(&self, who: &str) -> Result<PeerId, CaptainError> {
        let peer = self.station(who)?;
        let now = self.clock.unix_seconds();
        self.say(&self.pen(), |ledger| {
            ledger.allow(peer, None, now)?;
            Ok(peer)
        })
    }

    /// Puts a station out, everywhere.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn revoke(&self, who: &str) -> Result<PeerId, CaptainError> {
        let peer = self.station(who)?;
        let now = self.clock.unix_seconds();
        let pen = self.pen();
        self.say(&pen, |ledger| {
            Ok::<_, CaptainError>(ledger.revoke(peer, now)?)
        })?;
        self.keep_added(&pen, |added| {
            added.retain(|address| address.peer_id() != Some(peer));
            Ok(())
        })?;
        Ok(peer)
    }

    /// Adds a peer to exchange with; a station may also enter, unless our captain has revoked it: gives by whom it is out
    /// still.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn add(&self, address: PeerAddress) -> Result<Option<String>, CaptainError> {
        let peer = address.peer_id();
        if peer == Some(self.options.own) {
            return Err(CaptainError::Ourselves);
        }
        self.keep_added(&self.pen(), |added| {
            added.retain(|other| *other != address);
            if added.len() >= ADDED_MAX {
                return Err(CaptainError::TooMany);
            }
            added.push(address);
            Ok(())
        })?;
        let inner = self.lock();
        Ok(peer.and_then(|peer| inner.revoked_by(&peer)))
    }

    /// Takes back that a peer was added or allowed.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn remove(&self, who: &str) -> Result<(), CaptainError> {
        let address = match who.parse::<PeerAddress>() {
            Ok(address) => address,
            Err(_) => PeerAddress::of_station(self.station(who)?),
        };
        let pen = self.pen();
        let mut changed = self.keep_added(&pen, |added| {
            let before = added.len();
            added.retain(|other| *other != address);
            Ok(added.len() != before)
        })?;
        if let Some(peer) = address.peer_id() {
            changed |= self.say(&pen, |ledger| Ok::<_, StateError>(ledger.remove(&peer)))?;
        }
        if changed {
            Ok(())
        } else {
            Err(CaptainError::NotKnown(address.to_string()))
        }
    }

    pub(super) fn not_halted(&self) -> Result<(), CaptainError> {
        if self.lock().halted {
            return Err(CaptainError::Halted);
        }
        Ok(())
    }

    fn station(&self, who: &str) -> Result<PeerId, CaptainError> {
        another_station(who, self.options.own)
    }
}

/// As [`station_named`], but not ourselves.
pub(super) fn another_station(who: &str, own: PeerId) -> Result<PeerId, CaptainError> {
    let peer = station_named(who).ok_or_else(|| CaptainError::NotAStation(who.to_owned()))?;
    if peer == own {
        return Err(CaptainError::Ourselves);
    }
    Ok(peer)
}

/// A station by its PeerID, an address, or the public line of its OpenSSH key.
pub fn station_named(who: &str) -> Option<PeerId> {
    let who = who.trim();
    if who.starts_with("ssh-") {
        let key: Result<StationKey, StationKeyError> = StationKey::from_ssh_line(who);
        return key.ok().map(|key| key.peer_id());
    }
    who.parse::<PeerId>()
        .ok()
        .or_else(|| who.parse::<PeerAddress>().ok()?.peer_id())
}
