//! What a reconciliation has found so far, for those who fetch and offer it meanwhile.
//!
//! Takes ids in the order in which they are reported (by time, roughly), each once; gives them by place, and says when
//! there are more or no more. Invariant: what is in it stays, at its place. Bounded by the reconciliation, which stops
//! at `DIFFERENCE_IDS_MAX`, and lets no side in that is not moved beyond half of that. Duplicates are told apart by a
//! keyed hash of 64 bits: a collision, of one in 2^25 passes of the largest size, leaves an id to the next pass.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use constellation_eventstore::Undelivered;
use constellation_reconcile::Item;
use tokio::sync::watch;

/// How much was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Ids to fetch.
    pub need: usize,
    /// Events to offer.
    pub have: usize,
    /// Nothing more will be found.
    pub over: bool,
    /// The sets were compared to the end.
    pub complete: bool,
}

/// The two lists of one reconciliation, growing.
#[derive(Debug, Default)]
pub struct Findings {
    lists: Mutex<Lists>,
    found: watch::Sender<Found>,
}

#[derive(Debug, Default)]
struct Lists {
    need: Vec<Item>,
    have: Vec<Item>,
    /// What the peer was asked for in vain before, and is to be asked for once more.
    again: HashMap<[u8; 32], Undelivered>,
    /// What the peer lists, did not deliver, and is not asked for again yet.
    undelivered: Vec<[u8; 32]>,
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Findings {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        // Lists are whole after every line.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are never to be offered.
    pub fn leave_out<'i>(&self, ids: impl IntoIterator<Item = &'i [u8; 32]>) {
        let mut lists = self.lists();
        let Lists { seen, hasher, .. } = &mut *lists;
        seen.extend(ids.into_iter().map(|id| hasher.hash_one((1, *id))));
    }

    /// Drops from `need` and `have` what was reported before, in this call or an earlier one.
    pub(super) fn keep_new(&self, need: &mut Vec<Item>, have: &mut Vec<Item>) {
        let mut lists = self.lists();
        let Lists { seen, hasher, .. } = &mut *lists;
        need.retain(|item| seen.insert(hasher.hash_one((0, item.id))));
        have.retain(|item| seen.insert(hasher.hash_one((1, item.id))));
    }

    /// Adds what is to be moved.
    pub(super) fn add(&self, need: &[Item], have: &[Item]) {
        if need.is_empty() && have.is_empty() {
            return;
        }
        let mut lists = self.lists();
        lists.need.extend_from_slice(need);
        lists.have.extend_from_slice(have);
        let (need, have) = (lists.need.len(), lists.have.len());
        drop(lists);
        self.found.send_modify(|found| {
            (found.need, found.have) = (need, have);
        });
    }

    /// Says that nothing more will be found, and whether the sets were compared to the end.
    pub fn finish(&self, complete: bool) {
        self.lists().seen = HashSet::new();
        self.found
            .send_modify(|found| (found.over, found.complete) = (true, complete));
    }

    /// How much there is now.
    pub fn found(&self) -> Found {
        *self.found.borrow()
    }

    /// Changes when there is more, or no more.
    pub(super) fn watch(&self) -> watch::Receiver<Found> {
        self.found.subscribe()
    }

    /// Ids to fetch, from a place on.
    pub fn needs(&self, from: usize, at_most: usize) -> Vec<[u8; 32]> {
        let lists = self.lists();
        lists
            .need
            .iter()
            .skip(from)
            .take(at_most)
            .map(|item| item.id)
            .collect()
    }

    /// Says how often the peer was asked in vain for ids that are to be fetched once more.
    pub(super) fn ask_again(&self, ids: impl IntoIterator<Item = ([u8; 32], Undelivered)>) {
        self.lists().again.extend(ids);
    }

    /// Of ids that the peer did not deliver: where it lists them, at the earliest, and how it was asked for them before.
    pub(super) fn asked_in_vain(
        &self,
        ids: &HashSet<[u8; 32]>,
    ) -> Vec<(Item, Option<Undelivered>)> {
        let lists = self.lists();
        let among = lists.need.iter().filter(|item| ids.contains(&item.id));
        among
            .map(|item| (*item, lists.again.get(&item.id).copied()))
            .collect()
    }

    /// Notes what the peer lists, did not deliver, and is not asked for again yet.
    pub(super) fn set_undelivered(&self, ids: Vec<[u8; 32]>) {
        self.lists().undelivered = ids;
    }

    /// What the peer lists, did not deliver, and is not asked for again yet; known when nothing more will be found.
    pub fn undelivered(&self) -> Vec<[u8; 32]> {
        self.lists().undelivered.clone()
    }

    /// Events to offer, from a place on.
    pub fn haves(&self, from: usize, at_most: usize) -> Vec<Item> {
        let lists = self.lists();
        lists
            .have
            .iter()
            .skip(from)
            .take(at_most)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_what_is_told_twice_counts_once() {
        let findings = Findings::default();
        let id = |number| [number; 32];
        let item = |number| Item {
            timestamp: u64::from(number),
            id: id(number),
        };
        let mut need = vec![item(9), item(3), item(9)];
        // We have what the peer lacks and the other way round: a liar's business, and two lists here.
        let mut have = vec![item(9)];
        findings.keep_new(&mut need, &mut have);
        findings.add(&need, &have);
        let (mut need, mut have) = (vec![item(3), item(1)], vec![item(9), item(2)]);
        findings.keep_new(&mut need, &mut have);
        findings.add(&need, &have);
        findings.finish(true);
        assert_eq!(findings.needs(0, 10), [id(9), id(3), id(1)]);
        assert_eq!(findings.needs(1, 1), [id(3)]);
        assert_eq!(findings.haves(0, 10), [item(9), item(2)]);
        let found = Found {
            need: 3,
            have: 2,
            over: true,
            complete: true,
        };
        assert_eq!(findings.found(), found);
    }
}
