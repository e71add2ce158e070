//! What an exchange counts. The names are those of `sync --json`.

use std::collections::{BTreeMap, HashSet};

use constellation_event::Rejection;
use serde::{Deserialize, Serialize};

use crate::limits::{FORGERIES_MAX, FORGERIES_SHARE, UNRESOLVED_IDS_NAMED};
use crate::protocol::{ReasonPrefix, hex};

/// Something that could not be achieved, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// Hex ids, at most a hundred.
    pub ids: Vec<String>,
    /// How many there are, named or not.
    pub count: u64,
    /// Why.
    pub why: String,
}

/// Counts of one exchange. Everything adds up over its passes, but `need` and `have`.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Events that came.
    pub downloaded: u64,
    /// Events that are in our store because of this exchange.
    pub stored: u64,
    /// Events that came though we had them.
    pub duplicates: u64,
    /// Events that came and were not taken.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Events that the peer took.
    pub uploaded: u64,
    /// Events that the peer did not take.
    pub refused_by_peer: BTreeMap<ReasonPrefix, u64>,
    /// Stored events by kind.
    pub by_kind: BTreeMap<u16, u64>,
    /// Authors of stored events.
    pub authors: HashSet<[u8; 32]>,
    /// Ids that another exchange of the run brought, so that they needed no fetching from this peer.
    pub brought_by_others: u64,
    /// Ids that the peer refused for the moment: not offered again in this exchange.
    pub held_back: HashSet<[u8; 32]>,
    /// The last pass offered nothing, because something was not fetched.
    pub offering_waited: bool,
    unresolved: BTreeMap<String, (HashSet<[u8; 32]>, u64)>,
}

impl Tally {
    /// Counts a rejection.
    pub fn reject(&mut self, reason: Rejection) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    /// Notes an id that could not be dealt with.
    pub fn leave(&mut self, id: [u8; 32], why: &str) {
        if !self.unresolved.contains_key(why) && self.unresolved.len() >= 32 {
            return self.leave(id, "other");
        }
        let (named, count) = self.unresolved.entry(why.to_owned()).or_default();
        if named.len() < UNRESOLVED_IDS_NAMED {
            if named.insert(id) {
                *count += 1;
            }
        } else if !named.contains(&id) {
            *count += 1;
        }
    }

    /// Notes an id that the peer refused for a reason of the moment.
    pub fn hold_back(&mut self, id: [u8; 32], why: &str) {
        self.held_back.insert(id);
        self.leave(id, why);
    }

    /// Forgets what was left over and is tried again by the next pass; what is held back is not.
    pub fn forget_unresolved(&mut self) {
        let held_back = &self.held_back;
        // What stands under one reason is held back as a whole, or not at all.
        self.unresolved
            .retain(|_, (named, _)| named.iter().any(|id| held_back.contains(id)));
    }

    /// Forgets all that was left over: there is nothing any more.
    pub fn clear_unresolved(&mut self) {
        self.unresolved.clear();
    }

    /// Ids that are named as left over.
    pub fn explained(&self) -> HashSet<[u8; 32]> {
        let named = self.unresolved.values().flat_map(|(named, _)| named);
        named.copied().collect()
    }

    /// What is left over, by reason.
    pub fn unresolved(&self) -> Vec<Unresolved> {
        self.unresolved
            .iter()
            .map(|(why, (named, count))| {
                let mut ids: Vec<String> = named.iter().map(|id| hex::encode(id)).collect();
                ids.sort_unstable();
                Unresolved {
                    ids,
                    count: *count,
                    why: why.clone(),
                }
            })
            .collect()
    }

    fn forged(&self) -> u64 {
        self.rejected
            .iter()
            .filter(|(reason, _)| reason.is_forgery())
            .map(|(_, count)| count)
            .sum()
    }

    /// Whether so much is forged that no honest relay could hold it (D8): more than 100, and more than 5 %.
    pub fn too_many_forgeries(&self) -> Option<(u64, u64)> {
        let forged = self.forged();
        (forged > FORGERIES_MAX && forged.saturating_mul(FORGERIES_SHARE) > self.downloaded)
            .then_some((forged, self.downloaded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_events_are_borne_and_many_are_not() {
        let mut tally = Tally {
            downloaded: 100,
            ..Tally::default()
        };
        for _ in 0..100 {
            tally.reject(Rejection::BadSignature);
        }
        assert_eq!(
            tally.too_many_forgeries(),
            None,
            "a hundred may be old imports"
        );
        tally.reject(Rejection::BadId);
        assert_eq!(tally.too_many_forgeries(), Some((101, 100)));
        tally.downloaded = 2_020;
        assert_eq!(
            tally.too_many_forgeries(),
            None,
            "five per cent of much is borne too"
        );
        tally.rejected.insert(Rejection::Deleted, 5_000);
        assert_eq!(
            tally.too_many_forgeries(),
            None,
            "what was deleted is no forgery"
        );
    }

    #[test]
    fn unresolved_ids_are_named_up_to_a_bound_and_counted_beyond() {
        let mut tally = Tally::default();
        for number in 0..250u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            tally.leave(id, "undelivered");
        }
        let left = tally.unresolved();
        assert_eq!(
            (left.len(), left[0].ids.len(), left[0].count),
            (1, 100, 250)
        );
    }
}
