//! Signed cards made to order, for the tests of the card book.

use std::collections::BTreeSet;

use super::signed::{SignedCard, UnverifiedCard, VerifiedCard};
use super::{
    Card, CardError, ConstellationId, Evidence, Ledger, Standing, Statement, VouchedKeys, evaluate,
};
use crate::tunnel::{Identity, PeerId};

pub(super) const NOW: u64 = 1_700_000_000;
pub(super) const DAY: u64 = 24 * 3_600;

pub(super) fn identity(number: u16) -> Identity {
    let mut seed = [0x55; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(seed)
}

pub(super) fn peer(number: u16) -> PeerId {
    identity(number).public_key().peer_id()
}

pub(super) fn ours() -> ConstellationId {
    ConstellationId::of_name("ours")
}

/// A card of station `of`, signed with the key of `signer`.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) of: u16,
    pub(super) signer: u16,
    pub(super) sequence: u64,
    pub(super) created: u64,
    pub(super) hostname: String,
}

impl Draft {
    pub(super) fn plain(of: u16, sequence: u64) -> Self {
        Self {
            of,
            signer: of,
            sequence,
            created: NOW,
            hostname: "host".to_owned(),
        }
    }

    pub(super) fn signed(&self) -> SignedCard {
        let signer = identity(self.signer);
        let mut statement = Statement::new(ours(), self.sequence);
        statement.addresses = vec!["/ip4/192.0.2.1/tcp/4011".parse().expect("an address")];
        if self.signer != self.of {
            statement.station_key = Some(signer.public_key());
        }
        let card = Card {
            created: Some(self.created),
            hostname: Some(self.hostname.clone()),
            constellation: Some(statement),
            ..Card::of(peer(self.of))
        };
        SignedCard::sign(&card, &signer).expect("signed")
    }

    pub(super) fn verified(
        &self,
        carried_by: Option<u16>,
        keys: &VouchedKeys,
    ) -> Result<VerifiedCard, CardError> {
        let evidence = Evidence {
            now: NOW,
            constellation: ours(),
            carried_by: carried_by.map(peer),
            keys,
        };
        UnverifiedCard::of(self.signed()).and_then(|card| card.verify(&evidence))
    }

    pub(super) fn own(&self) -> VerifiedCard {
        let carried_by = Some(self.of);
        self.verified(carried_by, &VouchedKeys::new())
            .expect("genuine")
    }
}

/// We are 0, and our captain allowed these.
pub(super) fn allowing(numbers: impl IntoIterator<Item = u16>) -> Standing {
    let allowed: BTreeSet<PeerId> = numbers.into_iter().map(peer).collect();
    evaluate(peer(0), &Ledger::default(), &allowed, [])
}
