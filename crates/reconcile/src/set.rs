//! What the protocol asks of a set, and a set in memory.
//!
//! Invariant: within one message a set does not change, and its three answers agree: the summary
//! of a range is that of the items a scan of it visits, and select picks among those.
//!
//! Does not say where items live or how a summary comes about; a store overrides what it can do
//! better than a scan. Worst case: the provided `select` scans up to the last offset asked for.

use std::convert::Infallible;
use std::ops::ControlFlow;

use crate::bound::Bound;
use crate::item::Item;
use crate::summary::{IdSum, Summary};

/// Items in ascending order, addressed by bounds.
///
/// Ranges are `[lower, upper)`; one whose `lower` is not below its `upper` is empty, not an error.
/// All calls made for one message must see the same items (one read transaction, one snapshot).
pub trait SortedSet {
    /// Why the set could not be read.
    type Error: std::error::Error + 'static;

    /// Count and id sum of the range. Called up to 17 times for a range that differs, so it
    /// should cost far less than visiting the items.
    ///
    /// # Errors
    ///
    /// The set could not be read.
    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, Self::Error>;

    /// Visits the items of the range in ascending order until the visitor breaks.
    ///
    /// # Errors
    ///
    /// The set could not be read.
    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// The items at these offsets from the start of the range; 0 is its first item.
    ///
    /// Offsets are strictly ascending; those at or past the end of the range are left out. Asked
    /// for 30 offsets spread over a range that is split.
    ///
    /// # Errors
    ///
    /// The set could not be read.
    fn select(
        &self,
        lower: &Bound,
        upper: &Bound,
        offsets: &[u64],
    ) -> Result<Vec<Item>, Self::Error> {
        let mut items = Vec::with_capacity(offsets.len());
        let mut wanted = offsets.iter().copied().peekable();
        let mut offset = 0u64;
        if wanted.peek().is_none() {
            return Ok(items);
        }
        self.scan(lower, upper, &mut |item| {
            if wanted.next_if_eq(&offset).is_some() {
                items.push(item);
            }
            offset += 1;
            if wanted.peek().is_some() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(items)
    }
}

/// A set in memory, for filters no store keeps sums for, for overlays, and for tests.
///
/// 72 bytes an item; a summary costs two binary searches.
#[derive(Debug, Clone)]
pub struct VecSet {
    items: Vec<Item>,
    /// At `n`, the sum of the first `n` ids: one longer than `items`.
    sums: Vec<IdSum>,
}

impl VecSet {
    /// Sorts the items and drops repetitions (same timestamp and same id).
    pub fn from_unsorted(mut items: Vec<Item>) -> Self {
        items.sort_unstable();
        items.dedup();
        let mut total = IdSum::ZERO;
        let mut sums = Vec::with_capacity(items.len() + 1);
        sums.push(total);
        sums.extend(items.iter().map(|item| {
            total = total.wrapping_add(IdSum::from_le_bytes(&item.id));
            total
        }));
        Self { items, sums }
    }

    /// All items, ascending.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The items of the range, ascending.
    pub fn range(&self, lower: &Bound, upper: &Bound) -> &[Item] {
        &self.items[self.indices(lower, upper)]
    }

    fn indices(&self, lower: &Bound, upper: &Bound) -> std::ops::Range<usize> {
        let start = self.items.partition_point(|item| lower.is_above(item));
        let end = self.items.partition_point(|item| upper.is_above(item));
        start..end.max(start)
    }
}

impl Default for VecSet {
    fn default() -> Self {
        Self::from_unsorted(Vec::new())
    }
}

impl SortedSet for VecSet {
    type Error = Infallible;

    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, Infallible> {
        let range = self.indices(lower, upper);
        let sum = self.sums[range.end].wrapping_sub(self.sums[range.start]);
        Ok(Summary {
            count: range.len() as u64,
            sum,
        })
    }

    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        // A visitor that breaks has seen enough; that is no error of the scan.
        let _ = self
            .range(lower, upper)
            .iter()
            .try_for_each(|item| visit(*item));
        Ok(())
    }

    fn select(
        &self,
        lower: &Bound,
        upper: &Bound,
        offsets: &[u64],
    ) -> Result<Vec<Item>, Infallible> {
        let range = self.range(lower, upper);
        let at = |offset: &u64| range.get(usize::try_from(*offset).ok()?).copied();
        Ok(offsets.iter().map_while(at).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::ops::ControlFlow;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::{any, proptest};

    use super::{SortedSet, VecSet};
    use crate::bound::{Bound, IdPrefix};
    use crate::item::Item;
    use crate::summary::Summary;

    /// Nothing but scans, and the provided `select`.
    struct Naive(BTreeSet<Item>);

    impl SortedSet for Naive {
        type Error = Infallible;

        fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, Infallible> {
            let mut summary = Summary::EMPTY;
            self.scan(lower, upper, &mut |item| {
                summary.add(&item.id);
                ControlFlow::Continue(())
            })?;
            Ok(summary)
        }

        fn scan(
            &self,
            lower: &Bound,
            upper: &Bound,
            visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
        ) -> Result<(), Infallible> {
            for item in &self.0 {
                let inside = upper.is_above(item) && !lower.is_above(item);
                if inside && visit(*item).is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    fn item((timestamp, byte): (u64, u8)) -> Item {
        Item {
            timestamp,
            id: [byte; 32],
        }
    }

    #[test]
    fn sorts_and_drops_repetitions() {
        let set = VecSet::from_unsorted([(2, 1), (1, 9), (2, 1), (2, 0)].map(item).to_vec());
        assert_eq!(set.items(), [(1, 9), (2, 0), (2, 1)].map(item));
        assert!(VecSet::default().items().is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_set(
            pairs in vec((0u64..6, 0u8..8), 0..40),
            low in (0u64..7, vec(0u8..8, 0..2)),
            high in (0u64..7, vec(0u8..8, 0..2)),
            offsets in btree_set(0u64..50, 0..8),
            infinite: bool,
        ) {
            let items: Vec<Item> = pairs.into_iter().map(item).collect();
            let naive = Naive(items.iter().copied().collect());
            let set = VecSet::from_unsorted(items);
            let bound = |(at, prefix): &(u64, Vec<u8>)| {
                Bound::new(*at, IdPrefix::new(prefix).expect("short"))
            };
            let lower = bound(&low);
            let upper = if infinite { Bound::INFINITY } else { bound(&high) };
            let offsets: Vec<u64> = offsets.into_iter().collect();
            assert_eq!(set.summary(&lower, &upper), naive.summary(&lower, &upper));
            assert_eq!(
                set.select(&lower, &upper, &offsets),
                naive.select(&lower, &upper, &offsets)
            );
        }

        #[test]
        fn a_scan_stops_when_told(count in 1usize..20, stop in any::<proptest::sample::Index>()) {
            let items = (0..count).map(|at| item((at as u64, 1))).collect();
            let stop = stop.index(count);
            let mut seen = 0;
            let set = VecSet::from_unsorted(items);
            let Ok(()) = set.scan(&Bound::MIN, &Bound::INFINITY, &mut |_| {
                seen += 1;
                if seen > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(seen, stop + 1);
        }
    }
}
