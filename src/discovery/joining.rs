//! Joining: what a newcomer with a token says and is told, and what it belongs to afterwards.
//!
//! Takes tokens and cards; changes our own word, kept on disk before it counts (`keeping.rs`). Invariant: a newcomer's
//! card is proved before its token is used up. Deliberately absent: the streams (`exchange.rs`). Worst case: one card and
//! what the ledger holds for each that knocks.

use super::captain::CaptainError;
use super::registry::Registry;
use super::roster::Sighting;
use crate::peer::PeerId;
use crate::protocol::hex;
use crate::trust::{
    CardError, Evidence, Invitation, Membership, Newcomer, Origin, Secret, SignedCard, StateError,
    TokenRefusal, UnverifiedCard, VouchedKeys,
};
use crate::tunnel::{Source, StationKey};

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
        let pen = self.pen();
        let ledger_file = self.options.state.join("trust.json");
        let (membership, mut ledger) = {
            let inner = self.lock();
            (inner.membership, inner.ledger.clone())
        };
        let joined = (membership.id != invitation.constellation)
            .then(|| Membership::new(invitation.constellation, Origin::Joined));
        if let Some(joined) = joined {
            // First what we said in the one that we leave: said in the new one it would let strangers in.
            ledger.leave();
            ledger.save(&ledger_file)?;
            joined.save(&self.options.state.join("constellation.json"))?;
        }
        let without_host = ledger.clone();
        let key = key_of_host(invitation, &cards, now);
        let entered = ledger
            .joined_through(invitation.peer, key, now)
            .map_err(CaptainError::from)
            .and_then(|()| Ok(ledger.save(&ledger_file)?));
        if entered.is_err() {
            ledger = without_host;
        }
        // At once: nobody of the one that we leave must hear that our word for those who came in through us is gone.
        self.change(|inner| {
            if let Some(joined) = joined {
                inner.leave_for(joined, &self.random);
            }
            inner.ledger = ledger;
            inner.roster.take(Sighting {
                peer: invitation.peer,
                name: None,
                addresses: invitation.addresses.clone(),
                relay: None,
                source: Source::Static,
                at: now,
            })
        });
        drop(pen);
        entered?;
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
        let pen = self.pen();
        let ours = self.lock().membership.id;
        // Proved before the token is used up. It comes from the newcomer itself: nobody else need name its key.
        let verified = newcomer_card.verify(&Evidence {
            now,
            constellation: ours,
            carried_by: Some(peer),
            keys: &VouchedKeys::new(),
        })?;
        let newcomer = Newcomer {
            peer,
            key: verified.key(),
            constellation: verified.statement().id,
        };
        self.say(&pen, |ledger| {
            Ok::<_, JoinRefusal>(ledger.redeem(&secret, &newcomer, ours, now)?)
        })?;
        drop(pen);
        tracing::info!(%peer, "a station has joined with a token");
        self.receive(vec![card], peer);
        Ok(())
    }
}

/// What the station that let us in signs its cards with, if that is another key than its PeerID's.
fn key_of_host(invitation: &Invitation, cards: &[SignedCard], now: u64) -> Option<StationKey> {
    let evidence = Evidence {
        now,
        constellation: invitation.constellation,
        carried_by: Some(invitation.peer),
        keys: &VouchedKeys::new(),
    };
    cards
        .iter()
        .filter_map(|card| UnverifiedCard::of(card.clone()).ok())
        .find(|card| card.claimed_peer() == invitation.peer)
        .and_then(|card| card.verify(&evidence).ok())
        .map(|card| card.key().clone())
        .filter(|key| key.peer_id() != invitation.peer)
}
