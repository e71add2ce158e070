//! Range fingerprints kept in memory: for each kind, the canonical order cut into segments with count and sum.
//!
//! Takes the changes of a batch, gives a new immutable version that shares what did not change. Invariants: the
//! segments of a kind cover all positions without gap or overlap, each sums exactly the shared events in it, and
//! none holds more than [`ITEMS_MAX`]. Boundaries are positions, not events, so removing an event moves none.
//! Does not know LMDB: items are read through a closure. Worst case of an update: reading again the segments
//! that overflowed, a constant factor of what was inserted.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use constellation_event::CanonicalKey;
use constellation_reconcile::Summary;

/// A segment with more items is cut.
pub(crate) const ITEMS_MAX: u64 = 256;
/// A segment with fewer is merged with a neighbour, where both fit together.
const ITEMS_MIN: u64 = 64;
/// Size of the pieces when a segment in the middle is cut: room to grow and to shrink.
const CUT_MIDDLE: usize = 160;
/// Size of the pieces at the newest end, where only the last one will grow.
const CUT_NEWEST: usize = 240;
/// Merging stops here, so that the next insertion does not cut again.
const MERGED_MAX: u64 = 192;
const SEGMENTS_PER_CHUNK_MAX: usize = 128;

const LOWEST: CanonicalKey = CanonicalKey {
    created_at: 0,
    id: [0; 32],
};

/// All items from `first` to the `first` of the next segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) first: CanonicalKey,
    pub(crate) summary: Summary,
}

/// Neighbouring segments; the unit of sharing between versions.
#[derive(Debug, Clone)]
struct Chunk {
    segments: Vec<Segment>,
    total: Summary,
}

impl Chunk {
    fn new(segments: Vec<Segment>) -> Self {
        let mut total = Summary::default();
        for segment in &segments {
            total.merge(&segment.summary);
        }
        Self { segments, total }
    }

    fn first(&self) -> CanonicalKey {
        self.segments[0].first
    }

    fn index_of(&self, position: CanonicalKey) -> usize {
        self.segments
            .partition_point(|segment| segment.first <= position)
            .saturating_sub(1)
    }
}

/// The segments of one kind. Never without a segment.
#[derive(Debug, Clone)]
pub(crate) struct KindSegments {
    chunks: Vec<Arc<Chunk>>,
}

/// One version of all segments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    kinds: BTreeMap<u16, Arc<KindSegments>>,
}

/// One event that came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) kind: u16,
    pub(crate) position: CanonicalKey,
    pub(crate) inserted: bool,
}

/// Reads the items of a kind from a position up to (not including) another, ascending.
pub(crate) type ReadItems<'r, E> =
    dyn FnMut(u16, CanonicalKey, Option<CanonicalKey>) -> Result<Vec<CanonicalKey>, E> + 'r;

impl KindSegments {
    fn empty() -> Self {
        let segment = Segment {
            first: LOWEST,
            summary: Summary::default(),
        };
        Self {
            chunks: vec![Arc::new(Chunk::new(vec![segment]))],
        }
    }

    pub(crate) fn total(&self) -> Summary {
        let mut total = Summary::default();
        for chunk in &self.chunks {
            total.merge(&chunk.total);
        }
        total
    }

    fn chunk_of(&self, position: CanonicalKey) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.first() <= position)
            .saturating_sub(1)
    }

    /// Every segment, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.chunks.iter().flat_map(|chunk| chunk.segments.iter())
    }

    /// The segments that begin after `lower` and before `upper`, in order.
    pub(crate) fn starting_within(
        &self,
        lower: CanonicalKey,
        upper: Option<CanonicalKey>,
    ) -> impl Iterator<Item = &Segment> {
        self.chunks[self.chunk_of(lower)..]
            .iter()
            .flat_map(|chunk| chunk.segments.iter())
            .skip_while(move |segment| segment.first <= lower)
            .take_while(move |segment| upper.is_none_or(|upper| segment.first < upper))
    }

    /// Where a position lies: the sum of all segments before its own, and that segment with its end.
    pub(crate) fn locate(&self, position: CanonicalKey) -> Place {
        let chunk_index = self.chunk_of(position);
        let chunk = &self.chunks[chunk_index];
        let segment_index = chunk.index_of(position);
        let mut before = Summary::default();
        for chunk in &self.chunks[..chunk_index] {
            before.merge(&chunk.total);
        }
        for segment in &chunk.segments[..segment_index] {
            before.merge(&segment.summary);
        }
        Place {
            before,
            segment: chunk.segments[segment_index],
            end: self.next_first(chunk_index, segment_index),
        }
    }

    fn update(&mut self, position: CanonicalKey, inserted: bool, touched: &mut Vec<CanonicalKey>) {
        let chunk_index = self.chunk_of(position);
        let chunk = Arc::make_mut(&mut self.chunks[chunk_index]);
        let segment_index = chunk.index_of(position);
        let segment = &mut chunk.segments[segment_index];
        if inserted {
            segment.summary.add(&position.id);
            chunk.total.add(&position.id);
        } else {
            let mut gone = Summary::default();
            gone.add(&position.id);
            segment.summary.remove(&gone);
            chunk.total.remove(&gone);
        }
        let count = segment.summary.count;
        if !(ITEMS_MIN..=ITEMS_MAX).contains(&count) && touched.last() != Some(&segment.first) {
            touched.push(segment.first);
        }
    }

    /// Cuts or merges the segment that `first` lies in, if its size asks for it. It need not begin there any more:
    /// its neighbour may have been merged into it, or it may have inherited the range of an empty one.
    fn rebalance<E>(
        &mut self,
        kind: u16,
        first: CanonicalKey,
        read: &mut ReadItems<'_, E>,
    ) -> Result<(), E> {
        let chunk_index = self.chunk_of(first);
        let segment_index = self.chunks[chunk_index].index_of(first);
        let segment = self.chunks[chunk_index].segments[segment_index];
        if segment.summary.count > ITEMS_MAX {
            self.cut(kind, chunk_index, segment_index, read)?;
        } else if segment.summary.count < ITEMS_MIN {
            self.merge(chunk_index, segment_index);
        }
        Ok(())
    }

    fn next_first(&self, chunk_index: usize, segment_index: usize) -> Option<CanonicalKey> {
        match self.chunks[chunk_index].segments.get(segment_index + 1) {
            Some(next) => Some(next.first),
            None => self.chunks.get(chunk_index + 1).map(|chunk| chunk.first()),
        }
    }

    fn cut<E>(
        &mut self,
        kind: u16,
        chunk_index: usize,
        segment_index: usize,
        read: &mut ReadItems<'_, E>,
    ) -> Result<(), E> {
        let first = self.chunks[chunk_index].segments[segment_index].first;
        let end = self.next_first(chunk_index, segment_index);
        let items = read(kind, first, end)?;
        let pieces = cut_items(first, &items, end.is_none());
        let mut segments = self.chunks[chunk_index].segments.clone();
        segments.splice(segment_index..=segment_index, pieces);
        self.replace_chunk(chunk_index, segments);
        Ok(())
    }

    fn merge(&mut self, chunk_index: usize, segment_index: usize) {
        let chunk = &self.chunks[chunk_index];
        let count = chunk.segments[segment_index].summary.count;
        let fits = |other: &Segment| other.summary.count + count <= MERGED_MAX;
        let mut segments = chunk.segments.clone();
        if segment_index > 0 && fits(&segments[segment_index - 1]) {
            let gone = segments.remove(segment_index);
            segments[segment_index - 1].summary.merge(&gone.summary);
        } else if segments.get(segment_index + 1).is_some_and(fits) {
            let gone = segments.remove(segment_index + 1);
            segments[segment_index].summary.merge(&gone.summary);
        } else if segments.len() == 1 && count == 0 && self.chunks.len() > 1 {
            self.chunks.remove(chunk_index);
            if chunk_index == 0 {
                // The range of what was removed goes to the right; elsewhere it goes to the left by itself.
                Arc::make_mut(&mut self.chunks[0]).segments[0].first = LOWEST;
            }
            return;
        } else {
            return;
        }
        self.replace_chunk(chunk_index, segments);
    }

    fn replace_chunk(&mut self, chunk_index: usize, segments: Vec<Segment>) {
        let pieces = segments.len().div_ceil(SEGMENTS_PER_CHUNK_MAX).max(1);
        let per_piece = segments.len().div_ceil(pieces).max(1);
        let chunks: Vec<Arc<Chunk>> = segments
            .chunks(per_piece)
            .map(|piece| Arc::new(Chunk::new(piece.to_vec())))
            .collect();
        self.chunks.splice(chunk_index..=chunk_index, chunks);
    }

    fn is_empty(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.total.count == 0)
    }
}

/// A segment among the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) before: Summary,
    pub(crate) segment: Segment,
    pub(crate) end: Option<CanonicalKey>,
}

/// Cuts `items`, which begin at or after `first`, into segments.
fn cut_items(first: CanonicalKey, items: &[CanonicalKey], newest: bool) -> Vec<Segment> {
    let total = items.len().max(1);
    let per_piece = if newest {
        CUT_NEWEST
    } else {
        total.div_ceil(total.div_ceil(CUT_MIDDLE))
    };
    let pieces = total.div_ceil(per_piece);
    let mut segments = Vec::with_capacity(pieces);
    for (index, piece) in items.chunks(per_piece).enumerate() {
        let mut summary = Summary::default();
        for item in piece {
            summary.add(&item.id);
        }
        segments.push(Segment {
            first: if index == 0 { first } else { piece[0] },
            summary,
        });
    }
    if segments.is_empty() {
        segments.push(Segment {
            first,
            summary: Summary::default(),
        });
    }
    segments
}

impl Segments {
    /// The next version: this one with `changes`, which are sorted in place.
    ///
    /// `read` must see the state after the changes.
    pub(crate) fn with_changes<E>(
        &self,
        changes: &mut [Change],
        read: &mut ReadItems<'_, E>,
    ) -> Result<Self, E> {
        changes.sort_unstable();
        let mut next = self.clone();
        for group in changes.chunk_by(|a, b| a.kind == b.kind) {
            let kind = group[0].kind;
            let entry = next
                .kinds
                .entry(kind)
                .or_insert_with(|| Arc::new(KindSegments::empty()));
            let segments = Arc::make_mut(entry);
            let mut touched = Vec::new();
            // A batch may insert an event and delete it again: only what is left of it counts.
            for same in group.chunk_by(|a, b| a.position == b.position) {
                let inserted = same.iter().filter(|change| change.inserted).count();
                match inserted.cmp(&(same.len() - inserted)) {
                    Ordering::Greater => segments.update(same[0].position, true, &mut touched),
                    Ordering::Less => segments.update(same[0].position, false, &mut touched),
                    Ordering::Equal => {}
                }
            }
            for first in touched {
                segments.rebalance(kind, first, read)?;
            }
            if segments.is_empty() {
                next.kinds.remove(&kind);
            }
        }
        Ok(next)
    }

    pub(crate) fn kind(&self, kind: u16) -> Option<&Arc<KindSegments>> {
        self.kinds.get(&kind)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (u16, &Arc<KindSegments>)> {
        self.kinds.iter().map(|(kind, segments)| (*kind, segments))
    }
}

/// Builds all segments in one pass over the canonical index.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    done: BTreeMap<u16, Arc<KindSegments>>,
    kind: u16,
    segments: Vec<Segment>,
}

impl Builder {
    /// Takes the next item; they come ordered by kind, then position.
    pub(crate) fn push(&mut self, kind: u16, position: CanonicalKey) {
        if kind != self.kind {
            self.close_kind();
            self.kind = kind;
        }
        match self.segments.last_mut() {
            Some(last) if last.summary.count < CUT_NEWEST as u64 => last.summary.add(&position.id),
            last => {
                let first = if last.is_none() { LOWEST } else { position };
                let mut summary = Summary::default();
                summary.add(&position.id);
                self.segments.push(Segment { first, summary });
            }
        }
    }

    fn close_kind(&mut self) {
        if self.segments.is_empty() {
            return;
        }
        let mut segments = KindSegments::empty();
        segments.replace_chunk(0, std::mem::take(&mut self.segments));
        self.done.insert(self.kind, Arc::new(segments));
    }

    pub(crate) fn finish(mut self) -> Segments {
        self.close_kind();
        Segments { kinds: self.done }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn position(time: u64, low: u16) -> CanonicalKey {
        let mut id = [7; 32];
        id[..2].copy_from_slice(&low.to_be_bytes());
        CanonicalKey {
            created_at: time,
            id,
        }
    }

    fn sum_of<'i>(items: impl Iterator<Item = &'i CanonicalKey>) -> Summary {
        let mut summary = Summary::default();
        for item in items {
            summary.add(&item.id);
        }
        summary
    }

    /// Applies `changes` to both the segments and a plain set.
    fn apply(
        segments: &Segments,
        model: &mut BTreeSet<CanonicalKey>,
        changes: &[(CanonicalKey, bool)],
    ) -> Segments {
        let mut real = Vec::new();
        for (position, inserted) in changes {
            let changed = if *inserted {
                model.insert(*position)
            } else {
                model.remove(position)
            };
            if changed {
                real.push(Change {
                    kind: 1,
                    position: *position,
                    inserted: *inserted,
                });
            }
        }
        segments
            .with_changes::<Infallible>(&mut real, &mut |_, lower, upper| {
                Ok(model
                    .range(lower..)
                    .take_while(|item| upper.is_none_or(|upper| **item < upper))
                    .copied()
                    .collect())
            })
            .expect("reading a set cannot fail")
    }

    fn sum_before(
        segments: &Segments,
        model: &BTreeSet<CanonicalKey>,
        position: CanonicalKey,
    ) -> Summary {
        let Some(kind) = segments.kind(1) else {
            return Summary::default();
        };
        let place = kind.locate(position);
        assert!(place.segment.first <= position && place.end.is_none_or(|end| position < end));
        let mut summary = place.before;
        summary.merge(&sum_of(model.range(place.segment.first..position)));
        summary
    }

    fn check(segments: &Segments, model: &BTreeSet<CanonicalKey>) {
        let Some(kind) = segments.kind(1) else {
            assert!(model.is_empty());
            return;
        };
        let all: Vec<&Segment> = kind.iter().collect();
        assert_eq!(all[0].first, LOWEST);
        for (index, segment) in all.iter().enumerate() {
            let end = all.get(index + 1).map(|next| next.first);
            assert!(end.is_none_or(|end| end > segment.first), "segments ascend");
            let expected = sum_of(
                model
                    .range(segment.first..)
                    .take_while(|item| end.is_none_or(|end| **item < end)),
            );
            assert_eq!(segment.summary, expected);
            assert!(segment.summary.count <= ITEMS_MAX);
        }
        assert_eq!(kind.total(), sum_of(model.iter()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn segments_equal_a_plain_set_after_any_changes(
            batches in proptest::collection::vec(
                proptest::collection::vec(
                    ((0u64..40, any::<u16>()).prop_map(|(time, low)| position(time, low)), 0u8..4),
                    0..900,
                ),
                1..8,
            ),
            ranges in proptest::collection::vec((0u64..42, any::<u16>(), 0u64..42, any::<u16>()), 8),
        ) {
            let mut model = BTreeSet::new();
            let mut segments = Segments::default();
            for batch in &batches {
                let changes: Vec<_> =
                    batch.iter().map(|(position, choice)| (*position, *choice > 0)).collect();
                segments = apply(&segments, &mut model, &changes);
                check(&segments, &model);
            }
            for (from, low, to, high) in ranges {
                for position in [position(from, low), position(to, high)] {
                    let expected = sum_of(model.range(..position));
                    prop_assert_eq!(sum_before(&segments, &model, position), expected);
                }
            }
            let mut rebuilt = Builder::default();
            for position in &model {
                rebuilt.push(1, *position);
            }
            check(&rebuilt.finish(), &model);
            // Remove everything: nothing may stay behind.
            let rest: Vec<_> = model.iter().map(|position| (*position, false)).collect();
            let emptied = apply(&segments, &mut model, &rest);
            prop_assert!(emptied.kind(1).is_none());
        }
    }

    #[test]
    fn appending_keeps_old_segments_nearly_full() {
        let mut model = BTreeSet::new();
        let mut segments = Segments::default();
        for batch in 0..200u64 {
            let changes: Vec<_> = (0..50u16)
                .map(|low| (position(1_000 + batch, low), true))
                .collect();
            segments = apply(&segments, &mut model, &changes);
        }
        check(&segments, &model);
        let count = segments.kind(1).expect("inserted").iter().count();
        assert!(
            count <= 10_000 / 200 + 2,
            "{count} segments for 10,000 appended items"
        );
    }
}
