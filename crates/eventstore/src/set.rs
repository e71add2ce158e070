//! The shared events of a scope as a sorted set that knows its own range fingerprints (NIP-77, D3).
//!
//! Takes a snapshot and a scope of kinds and time; gives a [`SortedSet`] for `reconcile`. Whole segments are summed
//! in memory, at most two partial ones per kind are read. Keeps no state between messages; within one it remembers
//! what it read. Choosing the items at
//! which a range is split walks segments, not items. Worst case: a range of few items over many kinds reads one
//! partial segment of each.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use constellation_event::CanonicalKey;
use constellation_reconcile::{Bound, Item, SortedSet, Summary, VecSet};

use crate::StoreError;
use crate::index::canonical_range;
use crate::keys::TIME_MAX;
use crate::segments::KindSegments;
use crate::store::Snapshot;

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
    memory: RefCell<Memory>,
}

/// Ranges of no more items are read whole when they are split.
const SMALL_RANGE_MAX: u64 = 4_096;
const READ_ON_BELOW: u64 = 64;
const SUMS_REMEMBERED_MAX: usize = 4_096;

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
            memory: RefCell::new(Memory {
                sums: HashMap::new(),
                small: (at(0), Some(at(0)), VecSet::default()),
            }),
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

    /// Positions from which to start looking for an item, each with a guess of how many items lie before it.
    fn landmarks(&self, lower: CanonicalKey, upper: Option<CanonicalKey>) -> Vec<Landmark> {
        let mut steps: Vec<(CanonicalKey, u64, u64)> = Vec::new();
        let (mut known, mut open) = (0, 0);
        for (_, segments) in &self.kinds {
            // Of the segment that `lower` falls into about a half lies in the range.
            let mut open_here = segments.locate(lower).segment.summary.count / 2;
            open += open_here;
            for segment in segments.starting_within(lower, upper) {
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
                about: known + open / 2,
            });
        }
        landmarks
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
            let Some(upper) = upper else {
                total.merge(&segments.total());
                total.remove(&self.sum_before(*kind, segments, lower)?);
                continue;
            };
            let end = segments.locate(lower).end;
            if end.is_none_or(|end| upper <= end) {
                total.merge(&self.read_sum(*kind, lower, Some(upper))?);
            } else {
                total.merge(&self.sum_before(*kind, segments, upper)?);
                total.remove(&self.sum_before(*kind, segments, lower)?);
            }
        }
        Ok(total)
    }

    /// The sum of all items of a kind before `position`. Neighbouring ranges share their bounds, so it is remembered.
    fn sum_before(
        &self,
        kind: u16,
        segments: &KindSegments,
        position: CanonicalKey,
    ) -> Result<Summary, StoreError> {
        if let Some(known) = self.memory.borrow().sums.get(&(kind, position)) {
            return Ok(*known);
        }
        let place = segments.locate(position);
        let mut sum = place.before;
        let first = place.segment.first;
        match place.end {
            // The shorter part is read, as far as times tell.
            Some(end) if is_nearer_to_end(first, position, end) => {
                sum.merge(&place.segment.summary);
                sum.remove(&self.read_sum(kind, position, Some(end))?);
            }
            _ if position > first => {
                sum.merge(&self.read_sum(kind, first, Some(position))?);
            }
            _ => {}
        }
        let sums = &mut self.memory.borrow_mut().sums;
        if sums.len() >= SUMS_REMEMBERED_MAX {
            sums.clear();
        }
        sums.insert((kind, position), sum);
        Ok(sum)
    }

    fn read_sum(
        &self,
        kind: u16,
        from: CanonicalKey,
        to: Option<CanonicalKey>,
    ) -> Result<Summary, StoreError> {
        let mut sum = Summary::default();
        for item in self.items(kind, from, to)? {
            sum.add(&item?.id);
        }
        Ok(sum)
    }

    /// Whether `[lower, upper)` lies in the small range whose items are at hand.
    fn is_at_hand(&self, lower: CanonicalKey, upper: Option<CanonicalKey>) -> bool {
        let (from, to, _) = &self.memory.borrow().small;
        lower >= *from
            && match (upper, to) {
                (Some(upper), Some(to)) => upper <= *to,
                (Some(_), None) => true,
                (None, to) => to.is_none(),
            }
    }

    /// Reads a small range once; its parts are asked for next.
    fn take_at_hand(
        &self,
        lower: CanonicalKey,
        upper: Option<CanonicalKey>,
    ) -> Result<(), StoreError> {
        let mut items = Vec::new();
        for key in self.merged(lower, upper)? {
            items.push(item(key?));
        }
        self.memory.borrow_mut().small = (lower, upper, VecSet::from_unsorted(items));
        Ok(())
    }
}

/// Whether `position` is in the second half of the time from `first` to `end`.
fn is_nearer_to_end(first: CanonicalKey, position: CanonicalKey, end: CanonicalKey) -> bool {
    position.created_at.saturating_sub(first.created_at)
        > end.created_at.saturating_sub(position.created_at)
}

/// What was read for earlier questions: valid as long as the snapshot.
#[derive(Debug)]
struct Memory {
    /// By kind and position: the sum of all items before.
    sums: HashMap<(u16, CanonicalKey), Summary>,
    /// All items of a range.
    small: (CanonicalKey, Option<CanonicalKey>, VecSet),
}

struct Landmark {
    position: CanonicalKey,
    /// Grows with the position, and errs by less than the segments that are open there hold.
    about: u64,
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
        let Some((from, to)) = self.clamp(lower, upper) else {
            return Ok(Summary::default());
        };
        if self.is_at_hand(from, to) {
            let Ok(summary) = self.memory.borrow().small.2.summary(lower, upper);
            return Ok(summary);
        }
        self.summary_between(from, to)
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
        let Some((from, to)) = self.clamp(lower, upper) else {
            return Ok(selected);
        };
        if !self.is_at_hand(from, to) && self.summary_between(from, to)?.count <= SMALL_RANGE_MAX {
            self.take_at_hand(from, to)?;
        }
        if self.is_at_hand(from, to) {
            let Ok(selected) = self.memory.borrow().small.2.select(lower, upper, offsets);
            return Ok(selected);
        }
        let (lower, upper) = (from, to);
        let landmarks = self.landmarks(lower, upper);
        let mut reader = self.merged(lower, upper)?;
        let mut next = 0; // offset of the item that the reader gives next
        for offset in offsets {
            let passed = landmarks.partition_point(|mark| mark.about <= *offset);
            for mark in landmarks[..passed].iter().rev() {
                // The next one is that close: reading on finds it sooner than looking around.
                if offset.saturating_sub(next) < READ_ON_BELOW {
                    break;
                }
                let rank = self.rank(lower, mark.position)?;
                if rank > *offset {
                    continue; // guessed too far
                }
                if rank > next {
                    reader = self.merged(mark.position, upper)?;
                    next = rank;
                }
                break;
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
