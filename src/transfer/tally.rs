//! What an exchange counts. The names are those of `sync --json`.

use std::collections::{BTreeMap, HashMap, HashSet};

use constellation_event::Rejection;
use serde::{Deserialize, Serialize};

use crate::limits::{FORGERIES_MAX, FORGERIES_SHARE, GAPS_NAMED, UNRESOLVED_IDS_NAMED};
use crate::protocol::{ReasonPrefix, hex};

/// Something that could not be achieved, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Unresolved {
    /// Events.
    Events {
        /// Hex ids, at most a hundred.
        ids: Vec<String>,
        /// How many there are, named or not.
        count: u64,
        /// Why.
        why: String,
    },
    /// A range of which nobody knows what the peer has in it.
    Range(Gap),
}

impl Unresolved {
    /// Why.
    pub fn why(&self) -> &str {
        match self {
            Self::Events { why, .. } => why,
            Self::Range(gap) => &gap.why,
        }
    }
}

/// A range of events that the peer could not be made to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Unix seconds of the oldest; `null` is the beginning.
    pub since: Option<u64>,
    /// Unix seconds of the newest; `null` is the end.
    pub until: Option<u64>,
    /// Which kinds; `null` means any.
    pub kinds: Option<Vec<u16>>,
    /// Hex keys of the authors; `null` means anybody.
    pub authors: Option<Vec<String>>,
    /// Why.
    pub why: String,
}

impl Gap {
    /// Covers another one too.
    fn widen(&mut self, other: Self) {
        self.since = self.since.zip(other.since).map(|(one, two)| one.min(two));
        self.until = self.until.zip(other.until).map(|(one, two)| one.max(two));
        self.kinds = self.kinds.take().zip(other.kinds).map(union);
        self.authors = self.authors.take().zip(other.authors).map(union);
        if self.why != other.why {
            "several reasons".clone_into(&mut self.why);
        }
    }
}

fn union<T: Ord>((mut one, two): (Vec<T>, Vec<T>)) -> Vec<T> {
    one.extend(two);
    one.sort_unstable();
    one.dedup();
    one
}

/// Counts of one exchange. Everything adds up over its passes, but `need` and `have`.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Events that came.
    pub downloaded: u64,
    /// Events that the peer listed as a whole, each once, whether they were known here or not.
    pub listed: u64,
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
    /// Events that the peer listed as a whole, without NIP-77, and that were new here.
    pub listed_needed: u64,
    /// Ids that another exchange of the run brought, so that they needed no fetching from this peer.
    pub brought_by_others: u64,
    /// Ids that the peer refused for the moment: not offered again in this exchange.
    pub held_back: HashSet<[u8; 32]>,
    /// Ids that the peer refused, as its overlay remembers.
    pub refused_now: HashSet<[u8; 32]>,
    /// Events that the peer said to have taken, where nothing but looking for them tells whether it did.
    pub taken: Option<HashMap<[u8; 32], u64>>,
    /// The last pass offered nothing, because something was not fetched.
    pub offering_waited: bool,
    unresolved: Named,
    /// All that is in it, named or only counted.
    left: HashSet<[u8; 32]>,
    /// Of slices that were compared before.
    unresolved_before: Named,
    /// What the peer does not take, for good or for a while: told also when nothing else differs.
    refused: Named,
    /// All that is in it, named or only counted.
    refused_for_good: HashSet<[u8; 32]>,
    gaps: Vec<Gap>,
    /// Events that we refuse, and for which there is no room in what is remembered of the peer.
    pub unremembered: u64,
}

/// Why a converged exchange costs more than it need.
const UNREMEMBERED: &str = "refused here, and more than is remembered of one peer: listed and sorted out again in each run";

/// Reasons told apart; all others are one.
const REASONS_NAMED: usize = 32;

/// By reason: ids up to a bound, and how many there are.
type Named = BTreeMap<String, (HashSet<[u8; 32]>, u64)>;

fn name(list: &mut Named, id: [u8; 32], why: &str) {
    let is_full = list.len() >= REASONS_NAMED && !list.contains_key(why);
    let why = if is_full { "other" } else { why };
    let (named, count) = list.entry(why.to_owned()).or_default();
    if named.len() < UNRESOLVED_IDS_NAMED {
        named.insert(id);
    }
    *count += 1;
}

impl Tally {
    /// What is left over so far stays so, whatever becomes of the next slice.
    pub fn begin_slice(&mut self) {
        for (why, (named, count)) in std::mem::take(&mut self.unresolved) {
            let before = self.unresolved_before.entry(why).or_default();
            let room = UNRESOLVED_IDS_NAMED.saturating_sub(before.0.len());
            before.0.extend(named.into_iter().take(room));
            before.1 += count;
        }
        self.left.clear();
    }

    /// Counts a rejection.
    pub fn reject(&mut self, reason: Rejection) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    /// Notes an id that could not be dealt with; the first reason stands.
    pub fn leave(&mut self, id: [u8; 32], why: &str) {
        if self.left.insert(id) {
            name(&mut self.unresolved, id, why);
        }
    }

    /// Notes an id that the peer does not take, so that the report names it once. It is no difference any more.
    pub fn name_refused(&mut self, id: [u8; 32], why: &str) {
        if self.refused_for_good.insert(id) {
            name(&mut self.refused, id, why);
        }
    }

    /// Notes a range that the peer could not be made to list. What is beyond the bound widens the last one noted.
    pub fn leave_gap(&mut self, gap: Gap) {
        if self.gaps.contains(&gap) {
            return;
        }
        if self.gaps.len() < GAPS_NAMED {
            self.gaps.push(gap);
        } else if let Some(last) = self.gaps.last_mut() {
            last.widen(gap);
        }
    }

    /// Forgets the ranges: they are looked at anew.
    pub fn forget_gaps(&mut self) {
        self.gaps.clear();
    }

    /// Whether a range is left that the peer could not be made to list.
    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Whether deletions or requests to vanish may lie in such a range.
    pub fn may_hide_a_deletion(&self) -> bool {
        self.gaps.iter().any(|gap| {
            let kinds = gap.kinds.as_ref();
            kinds.is_none_or(|kinds| kinds.iter().any(|kind| matches!(kind, 5 | 62)))
        })
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
        self.left.retain(|id| held_back.contains(id));
    }

    /// Forgets all events that were left over: there are none any more. What the peer does not take is still named.
    pub fn clear_unresolved(&mut self) {
        self.unresolved.clear();
        self.left.clear();
    }

    /// Whether the report tells of this id, by name or in a count.
    pub fn explains(&self, id: &[u8; 32]) -> bool {
        self.left.contains(id) || self.refused_for_good.contains(id)
    }

    /// What is left over, and what the peer does not take, by reason.
    pub fn unresolved(&self) -> Vec<Unresolved> {
        let mut all = self.clone();
        all.begin_slice();
        let reasons = all.unresolved_before.iter().chain(&all.refused);
        let events = reasons.map(|(why, (named, count))| {
            let mut ids: Vec<String> = named.iter().map(|id| hex::encode(id)).collect();
            ids.sort_unstable();
            Unresolved::Events {
                ids,
                count: *count,
                why: why.clone(),
            }
        });
        let gaps = self.gaps.iter().cloned().map(Unresolved::Range);
        let unremembered = (self.unremembered > 0).then(|| Unresolved::Events {
            ids: Vec::new(),
            count: self.unremembered,
            why: UNREMEMBERED.to_owned(),
        });
        events.chain(gaps).chain(unremembered).collect()
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
        // Of what is listed little is new in a second run, and what cannot be read comes each time.
        let delivered = self.downloaded.max(self.listed);
        (forged > FORGERIES_MAX && forged.saturating_mul(FORGERIES_SHARE) > delivered)
            .then_some((forged, delivered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_counted_once_however_much_of_it_is_named() {
        let mut tally = Tally::default();
        let ids: Vec<[u8; 32]> = (0..=255).map(|byte| [byte; 32]).collect();
        for why in ["undelivered", "fetched, but still missing here"] {
            for id in &ids {
                tally.leave(*id, why);
            }
        }
        assert!(ids.iter().all(|id| tally.explains(id)));
        let left = tally.unresolved();
        let [
            Unresolved::Events {
                ids: named, count, ..
            },
        ] = left.as_slice()
        else {
            panic!("one reason: {left:?}");
        };
        assert_eq!((named.len(), *count), (UNRESOLVED_IDS_NAMED, 256));
        tally.forget_unresolved();
        assert!(!tally.explains(&ids[0]) && tally.unresolved().is_empty());
    }

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
        let [Unresolved::Events { ids, count, .. }] = &left[..] else {
            panic!("one entry: {left:?}");
        };
        assert_eq!((ids.len(), *count), (100, 250));
    }

    #[test]
    fn ranges_are_named_up_to_a_bound_and_the_last_one_covers_the_rest() {
        let mut tally = Tally::default();
        let gap = |second: u64, kind: u16| Gap {
            since: Some(second),
            until: Some(second),
            kinds: Some(vec![kind]),
            authors: None,
            why: "full".to_owned(),
        };
        for second in 0..GAPS_NAMED as u64 + 10 {
            tally.leave_gap(gap(1_000 - second, 1));
        }
        tally.leave_gap(gap(5_000, 7));
        let left = tally.unresolved();
        assert_eq!(left.len(), GAPS_NAMED);
        let Some(Unresolved::Range(last)) = left.last() else {
            panic!("a range: {left:?}");
        };
        assert_eq!((last.since, last.until), (Some(891), Some(5_000)));
        assert_eq!(last.kinds, Some(vec![1, 7]));
    }
}
