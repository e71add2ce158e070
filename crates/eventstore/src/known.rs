//! Which of many ids are known already: stored, or refused by a verdict that still stands.
//!
//! Takes ids in any order, gives an answer for each. The index of ids is walked once, in the order of its keys, so that
//! neighbours share the pages they are found on; then the records that it names, in the order they lie in. Agrees with
//! [`Snapshot::by_id`] and [`Snapshot::standing_refusal`] asked one by one. Looks at no events: an id says nothing of
//! whether what bears it is genuine. Worst case: two look-ups for each id.

use heed::{RoTxn, WithoutTls};

use crate::StoreError;
use crate::environment::Tables;
use crate::index::{next_with_prefix, record_named};
use crate::keys::Sequence;
use crate::record::{Header, has_id};
use crate::refusal::{Lapse, StandingRefusal};
use crate::store::Snapshot;

/// What the store knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing, or a verdict that has lapsed.
    Unknown,
    /// An event with this id is stored, and not blocked.
    Stored,
    /// It was refused, and still would be.
    Refused(StandingRefusal),
}

impl Snapshot<'_> {
    /// What is known of each of `ids`, in their order.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn known(&self, ids: &[[u8; 32]], lapse: &Lapse<'_>) -> Result<Vec<Known>, StoreError> {
        let mut known = vec![Known::Unknown; ids.len()];
        let order = in_order(ids);
        for found in stored_among(self.tables(), &self.txn, ids, &order)? {
            let (header, _) = Header::decode(found.sequence, found.bytes)?;
            known[found.place] = if header.hidden {
                Known::Refused(StandingRefusal::of_hidden(&header))
            } else {
                Known::Stored
            };
        }
        if self.tables().refused.is_empty(&self.txn)? {
            return Ok(known);
        }
        for place in order {
            if known[place] == Known::Unknown
                && let Some(refusal) = self.recorded_refusal(&ids[place], lapse)?
            {
                known[place] = Known::Refused(refusal);
            }
        }
        Ok(known)
    }
}

/// A stored event among those that were asked for.
pub(crate) struct Found<'t> {
    /// Where its id stands in what was asked.
    pub(crate) place: usize,
    pub(crate) sequence: Sequence,
    pub(crate) bytes: &'t [u8],
}

/// The places of `ids`, by ascending id.
pub(crate) fn in_order(ids: &[[u8; 32]]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|place| &ids[*place]);
    order
}

/// Those of `ids` that are stored, in the order of their numbers. `order` is that of [`in_order`].
pub(crate) fn stored_among<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_, WithoutTls>,
    ids: &[[u8; 32]],
    order: &[usize],
) -> Result<Vec<Found<'t>>, StoreError> {
    let mut named = Vec::new();
    for place in order {
        let mut from = Sequence::default();
        while let Some(sequence) = next_with_prefix(tables, txn, &ids[*place], from)? {
            named.push((sequence, *place));
            from = sequence.next();
        }
    }
    named.sort_unstable();
    let mut found = Vec::with_capacity(named.len());
    for (sequence, place) in named {
        let bytes = record_named(tables, txn, sequence)?;
        // The index holds a part of the id only.
        if has_id(sequence, bytes, &ids[place])? {
            found.push(Found {
                place,
                sequence,
                bytes,
            });
        }
    }
    Ok(found)
}
