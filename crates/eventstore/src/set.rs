//! The shared events of a scope as a sorted set that knows its own range fingerprints (NIP-77, D3).
//!
//! Takes a snapshot and a scope of kinds and time; gives a [`SortedSet`] for `reconcile`. Whole segments are summed
//! in memory, at most two partial ones per kind are read. Keeps no state between messages. Choosing the items at
//! which a range is split walks segments, not items. Worst case: a range of few items over many kinds reads one
//! partial segment of each.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::Arc;

use constellation_event::CanonicalKey;
use constellation_reconcile::{Bound, Item, SortedSet, Summary};

use crate::StoreError;
use crate::keys::TIME_MAX;
use crate::segments::KindSegments;
use crate::store::Snapshot;
use crate::writer::canonical_range;

/// A set of kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindSet {
    /// Every kind but these.
    AllExcept(BTreeSet<u16>),
    /// These kinds.
    Only(BTreeSet<u16>),
}

impl KindSet {
    /// Every kind.
    pub fn all() -> Self {
        Self::AllExcept(BTreeSet::new())
    }

    /// Whether `kind` is in the set.
    pub fn contains(&self, kind: u16) -> bool {
        match self {
            Self::AllExcept(left_out) => !left_out.contains(&kind),
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }

    /// The set without `kinds`.
    #[must_use]
    pub fn without(self, kinds: &[u16]) -> Self {
        match self {
            Self::AllExcept(mut left_out) => {
                left_out.extend(kinds);
                Self::AllExcept(left_out)
            }
            Self::Only(mut only) => {
                only.retain(|kind| !kinds.contains(kind));
                Self::Only(only)
            }
        }
    }
}

/// Which events take part: kinds and span of `created_at`, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetScope {
    /// The kinds.
    pub kinds: KindSet,
    /// Unix seconds of the oldest.
    pub since: Option<u64>,
    /// Unix seconds of the newest.
    pub until: Option<u64>,
}

impl SetScope {
    /// Every kind, at any time.
    pub fn everything() -> Self {
        Self {
            kinds: KindSet::all(),
            since: None,
            until: None,
        }
    }

    /// Whether `time` is in the span.
    pub fn contains_time(&self, time: u64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// The shared events of a scope, as one snapshot sees them.
#[derive(Debug)]
pub struct StoredSet<'s> {
    snapshot: &'s Snapshot<'s>,
    kinds: Vec<(u16, Arc<KindSegments>)>,
    lower: CanonicalKey,
    upper: Option<CanonicalKey>,
}

impl<'s> StoredSet<'s> {
    /// The set of `scope` in `snapshot`.
    pub fn new(snapshot: &'s Snapshot<'s>, scope: &SetScope) -> Self {
        let kinds = match &scope.kinds {
            KindSet::AllExcept(_) => snapshot
                .version
                .segments
                .kinds()
                .filter(|(kind, _)| scope.kinds.contains(*kind))
                .map(|(kind, segments)| (kind, Arc::clone(segments)))
                .collect(),
            KindSet::Only(kinds) => kinds
                .iter()
                .filter_map(|kind| {
                    Some((*kind, Arc::clone(snapshot.version.segments.kind(*kind)?)))
                })
                .collect(),
        };
        let at = |created_at| CanonicalKey {
            created_at,
            id: [0; 32],
        };
        Self {
            snapshot,
            kinds,
            lower: at(scope.since.unwrap_or(0)),
            upper: scope
                .until
                .filter(|until| *until < TIME_MAX)
                .map(|until| at(until + 1)),
        }
    }

    /// The part of `[lower, upper)` that is in the window; `None` if there is none.
    fn clamp(&self, lower: &Bound, upper: &Bound) -> Option<(CanonicalKey, Option<CanonicalKey>)> {
        let lower = position(lower).max(self.lower);
        let upper = match (ceiling(upper), self.upper) {
            (Some(asked), Some(window)) => Some(asked.min(window)),
            (asked, window) => asked.or(window),
        };
        (lower.created_at <= TIME_MAX && upper.is_none_or(|upper| lower < upper))
            .then_some((lower, upper))
    }

    fn count_between(
        &self,
        kind: u16,
        from: CanonicalKey,
        to: Option<CanonicalKey>,
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        for item in self.items(kind, from, to)? {
            item?;
            count += 1;
        }
        Ok(count)
    }

    fn items(
        &self,
        kind: u16,
        from: CanonicalKey,
        to: Option<CanonicalKey>,
    ) -> Result<impl Iterator<Item = Result<CanonicalKey, StoreError>> + '_, StoreError> {
        canonical_range(self.snapshot.tables(), &self.snapshot.txn, kind, from, to)
    }

    fn merged(
        &self,
        from: CanonicalKey,
        to: Option<CanonicalKey>,
    ) -> Result<Merged<impl Iterator<Item = Result<CanonicalKey, StoreError>> + '_>, StoreError>
    {
        let mut sources = Vec::with_capacity(self.kinds.len());
        for (kind, _) in &self.kinds {
            sources.push(self.items(*kind, from, to)?);
        }
        Merged::new(sources)
    }

    /// Positions from which to start looking for an item, each with how many items lie before it at most.
    fn landmarks(
        &self,
        lower: CanonicalKey,
        upper: Option<CanonicalKey>,
    ) -> Result<Vec<Landmark>, StoreError> {
        let mut steps: Vec<(CanonicalKey, u64, u64)> = Vec::new();
        let mut known = 0;
        let mut open = 0;
        for (kind, segments) in &self.kinds {
            let mut starts = segments.starting_within(lower, upper).peekable();
            // What of the segment that `lower` falls into lies in the range. Where no other begins in the range,
            // that is all of the kind, and it counts as well: the bound must hold for all kinds together.
            let first_end = starts.peek().map_or(upper, |segment| Some(segment.first));
            let mut open_here = self.count_between(*kind, lower, first_end)?;
            open += open_here;
            for segment in starts {
                steps.push((segment.first, open_here, segment.summary.count));
                open_here = segment.summary.count;
            }
        }
        steps.sort_unstable_by_key(|step| step.0);
        let mut landmarks = Vec::with_capacity(steps.len());
        for (position, closed, opened) in steps {
            known += closed;
            open = open - closed + opened;
            landmarks.push(Landmark {
                position,
                at_most: known + open,
            });
        }
        Ok(landmarks)
    }

    /// How many items lie in `[lower, position)`.
    fn rank(&self, lower: CanonicalKey, position: CanonicalKey) -> Result<u64, StoreError> {
        Ok(self.summary_between(lower, Some(position))?.count)
    }

    fn summary_between(
        &self,
        lower: CanonicalKey,
        upper: Option<CanonicalKey>,
    ) -> Result<Summary, StoreError> {
        let mut total = Summary::default();
        for (kind, segments) in &self.kinds {
            let cover = segments.cover(lower, upper);
            total.merge(&cover.whole);
            for (from, to) in cover.edges {
                for item in self.items(*kind, from, to)? {
                    total.add(&item?.id);
                }
            }
        }
        Ok(total)
    }
}

struct Landmark {
    position: CanonicalKey,
    /// No more items than this lie before it.
    at_most: u64,
}

/// Where a lower bound begins.
fn position(bound: &Bound) -> CanonicalKey {
    let mut id = [0; 32];
    let prefix = bound.prefix().as_bytes();
    id[..prefix.len()].copy_from_slice(prefix);
    CanonicalKey {
        created_at: bound.timestamp(),
        id,
    }
}

/// Where an upper bound ends; `None` beyond everything that can be stored.
fn ceiling(bound: &Bound) -> Option<CanonicalKey> {
    (bound.timestamp() <= TIME_MAX).then(|| position(bound))
}

fn item(key: CanonicalKey) -> Item {
    Item {
        timestamp: key.created_at,
        id: key.id,
    }
}

impl SortedSet for StoredSet<'_> {
    type Error = StoreError;

    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, StoreError> {
        self.snapshot.check_age_of_message()?;
        match self.clamp(lower, upper) {
            Some((lower, upper)) => self.summary_between(lower, upper),
            None => Ok(Summary::default()),
        }
    }

    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.snapshot.check_age_of_message()?;
        let Some((lower, upper)) = self.clamp(lower, upper) else {
            return Ok(());
        };
        for key in self.merged(lower, upper)? {
            if visit(item(key?)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn select(
        &self,
        lower: &Bound,
        upper: &Bound,
        offsets: &[u64],
    ) -> Result<Vec<Item>, StoreError> {
        self.snapshot.check_age_of_message()?;
        let mut selected = Vec::with_capacity(offsets.len());
        let Some((lower, upper)) = self.clamp(lower, upper) else {
            return Ok(selected);
        };
        let landmarks = self.landmarks(lower, upper)?;
        let mut reader = self.merged(lower, upper)?;
        let mut next = 0; // offset of the item that the reader gives next
        for offset in offsets {
            let passed = landmarks.partition_point(|mark| mark.at_most <= *offset);
            if let Some(mark) = passed.checked_sub(1).map(|index| &landmarks[index]) {
                let rank = self.rank(lower, mark.position)?;
                if rank > next {
                    reader = self.merged(mark.position, upper)?;
                    next = rank;
                }
            }
            let ahead = offset
                .checked_sub(next)
                .and_then(|ahead| usize::try_from(ahead).ok())
                .ok_or_else(|| StoreError::damaged("segments count other items than are there"))?;
            match reader.nth(ahead) {
                Some(found) => selected.push(item(found?)),
                None => break,
            }
            next = offset + 1;
        }
        Ok(selected)
    }
}

/// Merges the items of several kinds into one ascending order.
struct Merged<I: Iterator<Item = Result<CanonicalKey, StoreError>>> {
    heads: BinaryHeap<Reverse<(CanonicalKey, usize)>>,
    sources: Vec<I>,
    failed: Option<StoreError>,
}

impl<I: Iterator<Item = Result<CanonicalKey, StoreError>>> Merged<I> {
    fn new(sources: Vec<I>) -> Result<Self, StoreError> {
        let mut merged = Self {
            heads: BinaryHeap::with_capacity(sources.len()),
            sources,
            failed: None,
        };
        for index in 0..merged.sources.len() {
            merged.refill(index);
        }
        match merged.failed.take() {
            Some(error) => Err(error),
            None => Ok(merged),
        }
    }

    fn refill(&mut self, index: usize) {
        match self.sources[index].next() {
            Some(Ok(key)) => self.heads.push(Reverse((key, index))),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

impl<I: Iterator<Item = Result<CanonicalKey, StoreError>>> Iterator for Merged<I> {
    type Item = Result<CanonicalKey, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        let mut head = self.heads.peek_mut()?;
        let Reverse((key, index)) = *head;
        match self.sources[index].next() {
            // Most runs come from one source: replacing the head is cheaper than taking it out.
            Some(Ok(next)) => *head = Reverse((next, index)),
            Some(Err(error)) => {
                PeekMut::pop(head);
                self.failed = Some(error);
            }
            None => {
                PeekMut::pop(head);
            }
        }
        Some(Ok(key))
    }
}
