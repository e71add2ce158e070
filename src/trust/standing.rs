//! Who is admitted, and why: what follows from our own word and from signed cards (D17).
//!
//! Takes what was said; gives a [`Standing`]. Pure and independent of the order in which cards came. We are level 0.
//! Whom our captain allowed, or who came in through us, is level 1; whom a station of level n vouches for and nobody
//! before it, is level n + 1. Levels are judged one after another, and nobody judges those through whom it came in:
//!
//! 1. Whom we revoked is out, whatever others say; whom our captain allowed is in, whatever others say.
//! 2. An admitted station of a lower level (a senior) puts out whom it revokes. Their own revocations never counted then.
//! 3. Those of one level who remain put out each other, all at once: whoever revokes each other, both are out. The
//!    revocations of those who are out now go no further.
//! 4. Whoever was put out by us or by a station through which it came in, directly or along the chain, is silenced:
//!    those it vouched for need another who vouches for them. Put out by others, its vouches still count.
//! 5. Of those who are still in, a station of a higher level (a junior) puts out whom it revokes too, unless it came in through
//!    that one alone, directly or along the chain: another who vouches for it, or for one of the chain, makes it free. The most senior juniors are heard first, and all
//!    is judged again with whom they put out, until nobody has more to say. So any captain can put out a station everywhere,
//!    and where two want each other out, the word of the one nearer to us holds.
//!
//! Invariant: every admitted station has a chain of vouches from us, and nobody is admitted whom we revoked. To revoke
//! one station may let others in again: those whom it had revoked.
//! Deliberately absent: time. A vouch or revocation holds while it is in the newest card; whoever keeps cards takes no
//! newer one of a station that is out (`cards.rs`), or it would let itself in under another name. Worst case:
//! [`STATIONS_MAX`] stations with all the vouches that kept cards have room for: some ten milliseconds for each of at most
//! [`ROUNDS_MAX`] rounds, of which there is one where no junior revokes a senior.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::judgement::{self, Own, Word};
use super::{Ledger, VerifiedCard, VouchedKeys};
use crate::tunnel::PeerId;

/// Stations that are judged; the nearest ones, and those of one level by PeerID.
pub(super) const STATIONS_MAX: usize = 4_096;
/// Levels that are judged: a chain of so many stations, each of which let in the next, is nobody's constellation.
pub(super) const LEVELS_MAX: u32 = 64;
/// How often all is judged: what juniors say after so many rounds is no more than a dispute.
pub(super) const ROUNDS_MAX: u32 = 16;
/// Stations remembered as revoked that nobody vouched for; what seniors say goes first.
pub(super) const STRANGERS_MAX: usize = 16_384;

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// Our captain allowed it.
    Allowed,
    /// A station vouched for it: we, or an admitted one.
    Vouched,
}

/// Why a station is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// On what ground.
    pub ground: Ground,
    /// The station that let it in; at level 1 ourselves. [`Standing::chain`] has those before it.
    pub through: PeerId,
    /// 1 for those whom we let in ourselves.
    pub level: u32,
}

/// Why a station is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokedBy {
    /// Who put it out: ourselves, or else the most senior one.
    pub by: PeerId,
    /// Unix seconds, by its word.
    pub at: u64,
    /// Whether its vouches do not count any more.
    pub silenced: bool,
}

/// Who is in and who is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Ourselves.
    pub me: PeerId,
    /// Stations that may enter; not ourselves.
    pub admitted: BTreeMap<PeerId, Why>,
    /// Stations that may not, whoever vouches for them.
    pub revoked: BTreeMap<PeerId, RevokedBy>,
    /// Revocations by admitted stations that do not count: whom, and who wants it out. We may be among those wanted out.
    pub disputed: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Whether there are more stations than are judged.
    pub crowded: bool,
    /// Of all that were judged, admitted or not: through whom each came in.
    #[serde(skip)]
    pub(super) through: BTreeMap<PeerId, PeerId>,
    #[serde(skip)]
    pub(super) keys: VouchedKeys,
}

impl Standing {
    /// The keys of stations whose PeerID has another, as those say through whom they came in. A station that let
    /// somebody in is believed; others are not, or they could sign for it.
    pub fn keys(&self) -> &VouchedKeys {
        &self.keys
    }

    /// Whether somebody whose word counts has ever let it in: what its card says matters, or did.
    pub fn is_judged(&self, peer: &PeerId) -> bool {
        self.through.contains_key(peer)
    }

    /// Through whom an admitted station came in: from the one that we let in ourselves to the one that let it in. Empty
    /// at level 1 and for others.
    pub fn chain(&self, peer: &PeerId) -> Vec<PeerId> {
        let mut chain = Vec::new();
        let mut at = peer;
        while let Some(through) = self.through.get(at)
            && *through != self.me
        {
            chain.push(*through);
            at = through;
        }
        chain.reverse();
        chain
    }
}

/// Judges everybody.
///
/// `configured` are the stations that the configuration allows; `cards` are of our constellation, and of two of one
/// station the newer counts. Our own card is not asked: our word is the ledger.
pub fn evaluate<'c>(
    me: PeerId,
    ledger: &Ledger,
    configured: &BTreeSet<PeerId>,
    cards: impl IntoIterator<Item = &'c VerifiedCard>,
) -> Standing {
    let mut newest: BTreeMap<PeerId, &VerifiedCard> = BTreeMap::new();
    for card in cards {
        let kept = newest.entry(card.peer()).or_insert(card);
        if kept.age_key() < card.age_key() {
            *kept = card;
        }
    }
    let words = newest
        .into_iter()
        .map(|(peer, card)| (peer, Word::of(card)))
        .collect();
    let (vouches, revocations) = (ledger.vouches(), ledger.revocations());
    let own = Own {
        me,
        allowed: ledger.allowed().keys().chain(configured).copied().collect(),
        word: Word {
            vouches: &vouches,
            revocations: &revocations,
            vouched_key: None,
        },
    };
    judgement::judge(&own, &words)
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
