//! Who may seal a `VerifiedEvent`: the proofs of an event's id and of its signature, as types.
//!
//! ```text
//! UnverifiedEvent ─► IdProven ─┬─► alone ──────────────► SignatureProven ─► VerifiedEvent::seal
//!                              └─► claim ─► together ──►
//! ```
//!
//! Takes unverified events; gives [`SignatureProven`], the only thing that can be sealed. Invariant: its field is
//! private to this file, which makes one in two places: [`IdProven::alone`], by libsecp256k1, and [`together`], by
//! the equation of a batch that was made from the very events that it proves. Deliberately not here: arithmetic,
//! and what to do about a batch that fails. Worst case: one verification, or one multiplication over the batch.

use std::sync::LazyLock;

use secp256k1::{Secp256k1, VerifyOnly, XOnlyPublicKey, schnorr};

use crate::batch::claim::Claim;
use crate::batch::coefficients::Coefficients;
use crate::batch::equation;
use crate::batch::points::LiftedAuthors;
use crate::canonical::CanonicalEvent;
use crate::{Rejection, UnverifiedEvent};

/// An event whose id is the hash of its content.
#[derive(Debug)]
pub(crate) struct IdProven(UnverifiedEvent);

/// An event whose id is proven, and its signature as numbers of the right form.
#[derive(Debug)]
pub(crate) struct Claimed {
    event: IdProven,
    claim: Claim,
}

/// An event whose id and signature are proven.
#[derive(Debug)]
pub(crate) struct SignatureProven(IdProven);

impl IdProven {
    /// Checks the id of NIP-01.
    ///
    /// # Errors
    /// [`Rejection::BadId`], with the event.
    #[allow(clippy::result_large_err)] // the rejected event goes back by value; rejections are rare
    pub(crate) fn of(event: UnverifiedEvent) -> Result<Self, (UnverifiedEvent, Rejection)> {
        if event.has_genuine_id() {
            Ok(Self(event))
        } else {
            Err((event, Rejection::BadId))
        }
    }

    /// The author it claims: an x coordinate, if it is one at all.
    pub(crate) fn author(&self) -> &[u8; 32] {
        self.0.author()
    }

    /// Checks the signature by itself, by libsecp256k1.
    ///
    /// # Errors
    /// The event, if the signature is not the author's.
    #[allow(clippy::result_large_err)] // as above
    pub(crate) fn alone(self) -> Result<SignatureProven, Self> {
        static VERIFIER: LazyLock<Secp256k1<VerifyOnly>> =
            LazyLock::new(Secp256k1::verification_only);
        let is_genuine = XOnlyPublicKey::from_slice(self.author()).is_ok_and(|author| {
            schnorr::Signature::from_slice(&self.0.signature()).is_ok_and(|signature| {
                VERIFIER
                    .verify_schnorr(&signature, &self.0.id(), &author)
                    .is_ok()
            })
        });
        if is_genuine {
            Ok(SignatureProven(self))
        } else {
            Err(self)
        }
    }

    /// Reads author and signature as numbers, for a proof together with others.
    ///
    /// # Errors
    /// The event, if its author or signature has a form that BIP-340 refuses.
    #[allow(clippy::result_large_err)] // as above
    pub(crate) fn claim(self, authors: &LiftedAuthors) -> Result<Claimed, Self> {
        let (id, signature) = (self.0.id(), self.0.signature());
        match Claim::read(self.author(), authors, &id, &signature) {
            Some(claim) => Ok(Claimed { event: self, claim }),
            None => Err(self),
        }
    }

    /// The event, no longer said to be anything.
    pub(crate) fn into_unverified(self) -> UnverifiedEvent {
        self.0
    }
}

impl Claimed {
    /// The event, to be proven otherwise.
    pub(crate) fn into_event(self) -> IdProven {
        self.event
    }
}

impl SignatureProven {
    pub(crate) fn into_event(self) -> CanonicalEvent {
        self.0.0.into_canonical()
    }
}

/// Proves all signatures at once, with coefficients that depend on `entropy` and on every one of them.
///
/// # Errors
/// The events, if at least one signature is not its author's (BIP-340). A batch with such a signature passes with
/// a probability of at most 2^-128.
pub(crate) fn together(
    batch: Vec<Claimed>,
    entropy: &[u8; 32],
) -> Result<Vec<SignatureProven>, Vec<Claimed>> {
    let claims: Vec<&Claim> = batch.iter().map(|claimed| &claimed.claim).collect();
    let coefficients = Coefficients::draw(entropy, &claims);
    if equation::holds(&claims, &coefficients) {
        Ok(batch
            .into_iter()
            .map(|claimed| SignatureProven(claimed.event))
            .collect())
    } else {
        Err(batch)
    }
}
