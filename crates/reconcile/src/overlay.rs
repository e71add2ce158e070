//! A set seen through changes that are not in it yet: base + added - removed.
//!
//! Invariant, the caller's to keep: no added item is in the base, every removed item is. Then
//! summaries are plain arithmetic, and scan and select agree with them.
//!
//! Does not check that invariant (it would cost a look-up per change) and keeps nothing of its
//! own. Worst case: a summary is one of the base and four binary searches; a scan is one of the
//! base plus the changes in the range; a select of k offsets is one of the base plus
//! k * (log added + log removed) summaries of the base.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::bound::Bound;
use crate::item::Item;
use crate::set::{SortedSet, VecSet};
use crate::summary::Summary;

/// A base set with some items added and some removed.
#[derive(Debug)]
pub struct Overlaid<'a, S: ?Sized> {
    base: &'a S,
    added: &'a VecSet,
    removed: &'a VecSet,
}

/// Where the item at an offset comes from.
enum Pick {
    Added(Item),
    Base,
}

impl<'a, S: SortedSet + ?Sized> Overlaid<'a, S> {
    /// `base` and `added`, without `removed`.
    ///
    /// No item of `added` may be in `base`, and every item of `removed` must be; otherwise
    /// counts, sums, and offsets are wrong (nothing panics).
    pub const fn new(base: &'a S, added: &'a VecSet, removed: &'a VecSet) -> Self {
        Self {
            base,
            added,
            removed,
        }
    }
}

impl<S: SortedSet + ?Sized> SortedSet for Overlaid<'_, S> {
    type Error = S::Error;

    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, S::Error> {
        let mut summary = self.base.summary(lower, upper)?;
        let Ok(added) = self.added.summary(lower, upper);
        let Ok(removed) = self.removed.summary(lower, upper);
        summary.merge(&added);
        summary.remove(&removed);
        Ok(summary)
    }

    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), S::Error> {
        let mut added = self.added.range(lower, upper).iter().copied().peekable();
        let mut removed = self.removed.range(lower, upper).iter().copied().peekable();
        let mut broken = false;
        self.base.scan(lower, upper, &mut |item| {
            let mut step = || {
                while let Some(earlier) = added.next_if(|earlier| *earlier < item) {
                    visit(earlier)?;
                }
                // One that is not in the base (any more) must not keep those after it from being left out.
                while removed.next_if(|earlier| *earlier < item).is_some() {}
                if removed.next_if_eq(&item).is_some() {
                    return ControlFlow::Continue(());
                }
                visit(item)
            };
            let flow = step();
            broken = flow.is_break();
            flow
        })?;
        if !broken {
            // As in every scan, a visitor that breaks has merely seen enough.
            let _ = added.try_for_each(visit);
        }
        Ok(())
    }

    fn select(&self, lower: &Bound, upper: &Bound, offsets: &[u64]) -> Result<Vec<Item>, S::Error> {
        let added = self.added.range(lower, upper);
        let removed = self.removed.range(lower, upper);
        let base_before = |item: &Item| {
            let before = self.base.summary(lower, &Bound::at(item))?;
            Ok::<u64, S::Error>(before.count)
        };
        // The offset of an added item: the added and the remaining base items before it.
        let added_offset = |index: usize| {
            let removed_before = removed.partition_point(|item| *item < added[index]);
            let base = base_before(&added[index])?.saturating_sub(removed_before as u64);
            Ok(base + index as u64)
        };
        // How many base items remain before a removed one: this many offsets it does not move.
        let remaining_before = |index: usize| {
            let before = base_before(&removed[index])?;
            Ok(before.saturating_sub(index as u64))
        };

        let mut picks = Vec::with_capacity(offsets.len());
        let mut base_offsets = Vec::with_capacity(offsets.len());
        // Both only grow, as the offsets do, so each search starts where the last one ended.
        let (mut added_passed, mut removed_passed) = (0, 0);
        for &offset in offsets {
            let mut found = false;
            added_passed = first_not(added_passed..added.len(), |index| {
                let order = added_offset(index)?.cmp(&offset);
                found |= order == Ordering::Equal;
                Ok(order == Ordering::Less)
            })?;
            if found {
                picks.push(Pick::Added(added[added_passed]));
                continue;
            }
            let remaining = offset.saturating_sub(added_passed as u64);
            removed_passed = first_not(removed_passed..removed.len(), |index| {
                Ok(remaining_before(index)? <= remaining)
            })?;
            picks.push(Pick::Base);
            base_offsets.push(remaining.saturating_add(removed_passed as u64));
        }

        // Where the base runs out, so do the added items: they were all passed before that.
        let mut base = self.base.select(lower, upper, &base_offsets)?.into_iter();
        let resolve = |pick| match pick {
            Pick::Added(item) => Some(item),
            Pick::Base => base.next(),
        };
        Ok(picks.into_iter().map_while(resolve).collect())
    }
}

/// The first index in the range for which the test is false, or the range's end; the test must be
/// true before that index and false from it on.
fn first_not<E>(
    range: std::ops::Range<usize>,
    mut test: impl FnMut(usize) -> Result<bool, E>,
) -> Result<usize, E> {
    let (mut start, mut end) = (range.start, range.end);
    while start < end {
        let middle = start.midpoint(end);
        if test(middle)? {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::ops::ControlFlow;

    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::{any, proptest};

    use super::Overlaid;
    use crate::bound::{Bound, IdPrefix};
    use crate::item::Item;
    use crate::set::{SortedSet, VecSet};
    use crate::summary::Summary;

    fn item(timestamp: u64, byte: u8) -> Item {
        Item {
            timestamp,
            id: [byte; 32],
        }
    }

    fn scanned(set: &impl SortedSet, lower: &Bound, upper: &Bound, most: usize) -> Vec<Item> {
        let mut seen = Vec::new();
        set.scan(lower, upper, &mut |item| {
            seen.push(item);
            if seen.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .expect("a set in memory");
        seen
    }

    /// 0: only in the base, 1: in the base but removed, 2: added.
    type Layout = BTreeMap<(u64, u8), u8>;

    fn part(layout: &Layout, kinds: &[u8]) -> VecSet {
        let chosen = layout.iter().filter(|(_, kind)| kinds.contains(kind));
        VecSet::from_unsorted(chosen.map(|(key, _)| item(key.0, key.1)).collect())
    }

    proptest! {
        #[test]
        fn agrees_with_the_set_it_stands_for(
            layout in btree_map((0u64..8, 0u8..12), 0u8..3, 0..90),
            low in (0u64..9, vec(0u8..12, 0..2)),
            high in (0u64..9, vec(0u8..12, 0..2)),
            whole: bool,
            offsets in btree_set(0u64..70, 0..40),
            most in 1usize..100,
        ) {
            let (base, added) = (part(&layout, &[0, 1]), part(&layout, &[2]));
            let removed = part(&layout, &[1]);
            let overlaid = Overlaid::new(&base, &added, &removed);
            let plain = part(&layout, &[0, 2]);
            let bound = |(at, prefix): &(u64, Vec<u8>)| {
                Bound::new(*at, IdPrefix::new(prefix).expect("short"))
            };
            let (lower, upper) =
                if whole { (Bound::MIN, Bound::INFINITY) } else { (bound(&low), bound(&high)) };
            let offsets: Vec<u64> = offsets.into_iter().collect();
            assert_eq!(overlaid.summary(&lower, &upper), plain.summary(&lower, &upper));
            assert_eq!(
                scanned(&overlaid, &lower, &upper, most),
                scanned(&plain, &lower, &upper, most)
            );
            assert_eq!(
                overlaid.select(&lower, &upper, &offsets),
                plain.select(&lower, &upper, &offsets)
            );
        }

        /// An overlay over something it does not fit answers nonsense, without panicking.
        #[test]
        fn a_broken_promise_does_not_panic(
            layouts in any::<[[bool; 24]; 3]>(), offsets in btree_set(any::<u64>(), 0..9),
        ) {
            let [base, added, removed] = layouts.map(|chosen| {
                let kept = (0u8..).zip(chosen).filter(|(_, kept)| *kept);
                VecSet::from_unsorted(kept.map(|(at, _)| item(u64::from(at / 5), at)).collect())
            });
            let overlaid = Overlaid::new(&base, &added, &removed);
            let offsets: Vec<u64> = offsets.into_iter().chain([u64::MAX]).collect();
            let _ = overlaid.select(&Bound::MIN, &Bound::INFINITY, &offsets);
            let _ = overlaid.summary(&Bound::MIN, &Bound::INFINITY);
        }
    }

    /// Counts what an overlay asks of its base, and refuses scans.
    struct Counting {
        set: VecSet,
        summaries: Cell<usize>,
    }

    impl SortedSet for Counting {
        type Error = Infallible;

        fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, Infallible> {
            self.summaries.set(self.summaries.get() + 1);
            self.set.summary(lower, upper)
        }

        fn scan(
            &self,
            _: &Bound,
            _: &Bound,
            _: &mut dyn FnMut(Item) -> ControlFlow<()>,
        ) -> Result<(), Infallible> {
            panic!("a select must not scan the base")
        }

        fn select(
            &self,
            lower: &Bound,
            upper: &Bound,
            offsets: &[u64],
        ) -> Result<Vec<Item>, Infallible> {
            self.set.select(lower, upper, offsets)
        }
    }

    #[test]
    fn a_select_does_not_walk_the_base() {
        let range = |step: usize, kind: u8| {
            VecSet::from_unsorted(
                (0..100_000)
                    .step_by(step)
                    .map(|at| item(at, kind))
                    .collect(),
            )
        };
        let base = Counting {
            set: range(1, 1),
            summaries: Cell::new(0),
        };
        let (added, removed) = (range(100, 2), range(200, 1));
        let overlaid = Overlaid::new(&base, &added, &removed);
        let offsets: Vec<u64> = (0..30).map(|at| at * 3_000).collect();
        let Ok(items) = overlaid.select(&Bound::MIN, &Bound::INFINITY, &offsets);
        assert_eq!(items.len(), 30);
        // 30 offsets, 1000 added (10 steps) and 500 removed (9 steps).
        assert!(
            base.summaries.get() <= 30 * (10 + 9),
            "{}",
            base.summaries.get()
        );
    }
}
