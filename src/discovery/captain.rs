//! What the captain may say: who is invited, allowed, added, removed, revoked; and what a newcomer with a token is told.
//!
//! Each word is kept on disk before it counts. Deliberately absent: the network, but for what a newcomer brings.

use super::added::{self, ADDED_MAX};
use super::holdings::Holdings;
use super::registry::Registry;
use super::reports::InvitationReport;
use super::roster::Sighting;
use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::protocol::hex;
use crate::time::rfc3339;
use crate::trust::{
    CardError, ConstellationId, Invitation, InvitationTerms, Ledger, LedgerFull, Membership,
    Newcomer, Origin, Secret, SignedCard, StateError, TokenError, TokenRefusal, UnverifiedCard,
};
use crate::tunnel::{Source, StationKey, StationKeyError};

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

/// Why a newcomer is not let in. Goes over the wire as its text.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefusal {
    /// Not a token's secret.
    #[error("malformed secret")]
    Malformed,
    /// The token.
    #[error("{}", .0.label())]
    Token(#[from] TokenRefusal),
    /// The newcomer's card.
    #[error("card: {0}")]
    Card(#[from] CardError),
    /// A card of somebody else.
    #[error("the card is not the newcomer's own")]
    NotItsOwn,
    /// Our disk.
    #[error("cannot keep it: {0}")]
    State(#[from] StateError),
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
        let invitation = self.change(|inner| {
            let terms = InvitationTerms {
                peer: self.options.own,
                addresses,
                constellation: inner.membership.id,
                expires: now.saturating_add(lifetime_seconds),
                private: self.options.private_swarm,
            };
            let before = inner.ledger.clone();
            let invitation = inner.ledger.invite(terms, now, &self.random)?;
            self.keep_ledger(inner, before)?;
            Ok::<_, CaptainError>(invitation)
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

    /// Checks whether a token can be redeemed here, and gives the card to redeem it with. Changes nothing.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn prepare_to_join(
        &self,
        invitation: &Invitation,
        accept_constellation: bool,
    ) -> Result<SignedCard, CaptainError> {
        self.not_halted()?;
        if invitation.peer == self.options.own {
            return Err(CaptainError::Ourselves);
        }
        let inner = self.lock();
        let membership = inner.membership;
        if membership.id != invitation.constellation {
            let is_alone = inner.ledger.vouches().is_empty() && inner.standing.admitted.is_empty();
            match membership.origin {
                Origin::SwarmKey | Origin::Name => {
                    return Err(CaptainError::OtherConfigured(membership.id));
                }
                Origin::Founded if is_alone => {}
                Origin::Founded | Origin::Joined if accept_constellation => {}
                Origin::Founded | Origin::Joined => {
                    return Err(CaptainError::OtherConstellation {
                        ours: membership.id,
                    });
                }
            }
        }
        let now = self.clock.unix_seconds();
        Ok(self.signed_card(&inner, invitation.constellation, now)?)
    }

    /// The token was good: belongs to that constellation from now on, trusts the station that let us in, and takes over
    /// what it told us. Gives how many cards that were.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn has_joined(
        &self,
        invitation: &Invitation,
        cards: Vec<SignedCard>,
    ) -> Result<usize, CaptainError> {
        let now = self.clock.unix_seconds();
        let path = self.options.state.join("constellation.json");
        self.change(|inner| {
            if inner.membership.id != invitation.constellation {
                // First what we said in the one that we leave: said in the new one it would let strangers in.
                let before = inner.ledger.clone();
                inner.ledger.leave();
                self.keep_ledger(inner, before)?;
                let joined = Membership::new(invitation.constellation, Origin::Joined);
                joined.save(&path)?;
                inner.leave_for(joined, &self.random);
            }
            let before = inner.ledger.clone();
            let evidence = inner.evidence(Some(invitation.peer), now);
            let key = cards
                .iter()
                .filter_map(|card| UnverifiedCard::of(card.clone()).ok())
                .find(|card| card.claimed_peer() == invitation.peer)
                .and_then(|card| card.verify(&evidence).ok())
                .map(|card| card.key().clone())
                .filter(|key| key.peer_id() != invitation.peer);
            inner.ledger.joined_through(invitation.peer, key, now)?;
            inner.roster.take(Sighting {
                peer: invitation.peer,
                name: None,
                addresses: invitation.addresses.clone(),
                relay: None,
                source: Source::Static,
                at: now,
            });
            self.keep_ledger(inner, before)?;
            Ok::<_, CaptainError>(())
        })?;
        Ok(self.receive(cards, invitation.peer))
    }

    /// A newcomer has come with a token's secret; from now on we vouch for it.
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub fn redeemed_by(
        &self,
        peer: PeerId,
        secret: &str,
        card: SignedCard,
    ) -> Result<(), JoinRefusal> {
        let secret = hex::decode_array(secret)
            .map(Secret::from_bytes)
            .ok_or(JoinRefusal::Malformed)?;
        let now = self.clock.unix_seconds();
        let newcomer_card = UnverifiedCard::of(card.clone())?;
        if newcomer_card.claimed_peer() != peer {
            return Err(JoinRefusal::NotItsOwn);
        }
        self.change(|inner| {
            // Proved before the token is used up.
            let verified = newcomer_card.verify(&inner.evidence(Some(peer), now))?;
            let newcomer = Newcomer {
                peer,
                key: verified.key(),
                constellation: verified.statement().id,
            };
            let before = inner.ledger.clone();
            let ours = inner.membership.id;
            inner.ledger.redeem(&secret, &newcomer, ours, now)?;
            self.keep_ledger(inner, before)?;
            tracing::info!(%peer, "a station has joined with a token");
            Ok::<_, JoinRefusal>(())
        })?;
        self.receive(vec![card], peer);
        Ok(())
    }

    /// Lets a station in.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn allow(&self, who: &str) -> Result<PeerId, CaptainError> {
        let peer = self.station(who)?;
        let now = self.clock.unix_seconds();
        self.change(|inner| {
            let before = inner.ledger.clone();
            inner.ledger.allow(peer, None, now)?;
            self.keep_ledger(inner, before)?;
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
        self.change(|inner| {
            let before = inner.ledger.clone();
            inner.ledger.revoke(peer, now)?;
            self.keep_ledger(inner, before)?;
            self.forget_added(inner, |address| address.peer_id() == Some(peer))?;
            Ok(peer)
        })
    }

    /// Adds a peer to exchange with; a station may also enter.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn add(&self, address: PeerAddress) -> Result<(), CaptainError> {
        if address.peer_id() == Some(self.options.own) {
            return Err(CaptainError::Ourselves);
        }
        self.change(|inner| {
            let mut added = inner.added.clone();
            added.retain(|other| *other != address);
            if added.len() >= ADDED_MAX {
                return Err(CaptainError::TooMany);
            }
            added.push(address);
            self.keep_added(inner, added)
        })
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
        self.change(|inner| {
            let mut changed = self.forget_added(inner, |other| *other == address)?;
            if let Some(peer) = address.peer_id() {
                let before = inner.ledger.clone();
                changed |= inner.ledger.remove(&peer);
                self.keep_ledger(inner, before)?;
            }
            if changed {
                Ok(())
            } else {
                Err(CaptainError::NotKnown(address.to_string()))
            }
        })
    }

    fn not_halted(&self) -> Result<(), CaptainError> {
        if self.options.halted {
            return Err(CaptainError::Halted);
        }
        Ok(())
    }

    fn station(&self, who: &str) -> Result<PeerId, CaptainError> {
        let peer = station_named(who).ok_or_else(|| CaptainError::NotAStation(who.to_owned()))?;
        if peer == self.options.own {
            return Err(CaptainError::Ourselves);
        }
        Ok(peer)
    }

    /// Writes the ledger; if that fails, nothing was said.
    fn keep_ledger(&self, inner: &mut Holdings, before: Ledger) -> Result<(), StateError> {
        let path = self.options.state.join("trust.json");
        inner
            .ledger
            .save(&path)
            .inspect_err(|_| inner.ledger = before)
    }

    fn keep_added(
        &self,
        inner: &mut Holdings,
        added: Vec<PeerAddress>,
    ) -> Result<(), CaptainError> {
        added::save(&self.options.state.join("peers.json"), &added)?;
        inner.added = added;
        Ok(())
    }

    fn forget_added(
        &self,
        inner: &mut Holdings,
        matches: impl Fn(&PeerAddress) -> bool,
    ) -> Result<bool, CaptainError> {
        let kept: Vec<PeerAddress> = inner
            .added
            .iter()
            .filter(|address| !matches(address))
            .cloned()
            .collect();
        let changed = kept.len() != inner.added.len();
        if changed {
            self.keep_added(inner, kept)?;
        }
        Ok(changed)
    }
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
