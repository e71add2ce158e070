//! Cards that others hand us: proved, and judged until nothing more of a batch is accepted.
//!
//! Beside kubo a card is signed with a key that only a voucher names. In one batch the cards of a whole chain may come, in
//! any order: each card that is accepted may name the keys of others, so those are looked at again. A card whose key nobody
//! has named yet waits for the batches after it. Invariant: none is taken that is not proved by what was judged before it.
//! Deliberately absent: fetching. Worst case: [`ROUNDS_MAX`] judgements of everybody for one batch, and
//! [`UNBOUND_BYTES_MAX`] of cards that wait.

use std::collections::VecDeque;

use super::registry::Registry;
use crate::peer::PeerId;
use crate::trust::{
    CardError, Evidence, HANDOVER_CARDS_MAX, SignedCard, UnverifiedCard, VerifiedCard,
};

/// A chain of so many stations is judged; a longer one is nobody's constellation.
const ROUNDS_MAX: usize = 64;
/// Cards that wait until somebody names their keys.
const UNBOUND_MAX: usize = 256;
/// Their bytes.
const UNBOUND_BYTES_MAX: usize = 2 << 20;

/// Cards whose keys nobody has named yet; those that came first make room.
#[derive(Debug, Default)]
pub(super) struct Unbound {
    cards: VecDeque<UnverifiedCard>,
    bytes: usize,
}

impl Unbound {
    /// All of them.
    fn take(&mut self) -> Vec<UnverifiedCard> {
        self.bytes = 0;
        std::mem::take(&mut self.cards).into()
    }

    #[cfg(test)]
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes
    }

    fn put(&mut self, cards: Vec<UnverifiedCard>) {
        for card in cards {
            if self.cards.iter().any(|other| other.is_same(&card)) {
                continue;
            }
            self.bytes += card.len_bytes();
            self.cards.push_back(card);
            while self.cards.len() > UNBOUND_MAX || self.bytes > UNBOUND_BYTES_MAX {
                let first = self.cards.pop_front();
                self.bytes -= first.map_or(0, |card| card.len_bytes());
            }
        }
    }
}

impl Registry {
    /// Takes over cards that a station handed us; gives how many were new. What is not proved is left out, and so is
    /// what is more than one answer has.
    pub fn receive(&self, cards: Vec<SignedCard>, from: PeerId) -> usize {
        let note = |error: CardError| {
            tracing::debug!(%from, reason = error.label(), "a card is not taken: {error}");
        };
        let id = self.lock().membership.id;
        // Who hands something over proves nothing of what others handed over before.
        let waiting = self.lock().unbound.take();
        let mut pending: Vec<(UnverifiedCard, Option<PeerId>)> =
            waiting.into_iter().map(|card| (card, None)).collect();
        for card in cards.into_iter().take(HANDOVER_CARDS_MAX) {
            match UnverifiedCard::of(card) {
                Ok(card) => pending.push((card, Some(from))),
                Err(error) => note(error),
            }
        }
        let mut taken = 0;
        for _ in 0..ROUNDS_MAX {
            let keys = self.lock().standing.keys().clone();
            let now = self.clock.unix_seconds();
            let mut proved: Vec<VerifiedCard> = Vec::new();
            let mut unbound = Vec::new();
            for (card, carried_by) in pending {
                let evidence = Evidence {
                    now,
                    constellation: id,
                    carried_by,
                    keys: &keys,
                };
                if !card.is_bound(&evidence) {
                    unbound.push((card, carried_by));
                    continue;
                }
                match card.verify(&evidence) {
                    Ok(card) => proved.push(card),
                    Err(error) => note(error),
                }
            }
            pending = unbound;
            let inserted = self.insert_all(proved, id);
            taken += inserted;
            if inserted == 0 || pending.is_empty() {
                break;
            }
        }
        let mut inner = self.lock();
        if inner.membership.id == id {
            let unbound = pending.into_iter().map(|(card, _)| card);
            inner.unbound.put(unbound.collect());
        }
        taken
    }
}
