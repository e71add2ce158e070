//! Range limits: a timestamp and the first bytes of an id.
//!
//! Invariant: the bytes of a prefix past its length are zero, so a bound orders among items and
//! bounds exactly like the item `(timestamp, prefix padded with zeros)`. The length takes no part
//! in any comparison; it is kept because answers repeat a peer's bounds as the peer wrote them.
//!
//! Does not encode itself (`codec` does). Everything here is constant time and inline.

use std::cmp::Ordering;
use std::fmt;

use crate::item::{Id, Item};

/// The first 0 to 32 bytes of an id, the rest being zeros.
#[derive(Clone, Copy)]
pub struct IdPrefix {
    padded: Id,
    length: u8,
}

impl IdPrefix {
    /// No bytes: below or equal to every id.
    pub const EMPTY: Self = Self {
        padded: [0; 32],
        length: 0,
    };

    /// A prefix of these bytes, or `None` if there are more than 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; 32];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self {
            padded,
            length: u8::try_from(bytes.len()).ok()?,
        })
    }

    /// The bytes given, without padding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.padded[..usize::from(self.length)]
    }

    /// The smallest id that has this prefix.
    pub const fn padded(&self) -> &Id {
        &self.padded
    }
}

impl PartialEq for IdPrefix {
    fn eq(&self, other: &Self) -> bool {
        self.padded == other.padded
    }
}

impl Eq for IdPrefix {}

impl PartialOrd for IdPrefix {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for IdPrefix {
    fn cmp(&self, other: &Self) -> Ordering {
        self.padded.cmp(&other.padded)
    }
}

impl fmt::Debug for IdPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdPrefix(")?;
        for byte in self.as_bytes() {
            write!(formatter, "{byte:02x}")?;
        }
        formatter.write_str(")")
    }
}

/// A limit of a range; ranges take in their lower bound and leave out their upper one.
///
/// Compares by `(timestamp, prefix padded with zeros)`; see [`Bound::is_above`] for items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    timestamp: u64,
    prefix: IdPrefix,
}

impl Bound {
    /// Not above any item: where the first range of a message starts.
    pub const MIN: Self = Self::from_timestamp(0);

    /// Above every item whose timestamp is below `u64::MAX`.
    pub const INFINITY: Self = Self::from_timestamp(u64::MAX);

    /// The bound `(timestamp, prefix)`.
    pub const fn new(timestamp: u64, prefix: IdPrefix) -> Self {
        Self { timestamp, prefix }
    }

    /// The bound below all items of this timestamp and above all earlier ones.
    pub const fn from_timestamp(timestamp: u64) -> Self {
        Self::new(timestamp, IdPrefix::EMPTY)
    }

    /// The bound at an item, with its whole id: above everything before the item, not above it.
    pub const fn at(item: &Item) -> Self {
        Self::new(
            item.timestamp,
            IdPrefix {
                padded: item.id,
                length: 32,
            },
        )
    }

    /// The shortest bound above `previous` and not above `current`, two neighbouring items with
    /// `previous < current`: the timestamp alone if it differs, else also the bytes of
    /// `current`'s id up to the first that differs.
    pub fn minimal(previous: &Item, current: &Item) -> Self {
        if previous.timestamp != current.timestamp {
            return Self::from_timestamp(current.timestamp);
        }
        let shared = previous
            .id
            .iter()
            .zip(&current.id)
            .take_while(|(a, b)| a == b)
            .count();
        // Two equal items have no bound between them; a full id is then the nearest to it.
        let prefix = current.id.get(..=shared).and_then(IdPrefix::new);
        prefix.map_or_else(
            || Self::at(current),
            |prefix| Self::new(current.timestamp, prefix),
        )
    }

    /// In the unit of the items' timestamps; `u64::MAX` is infinity.
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The id part.
    pub const fn prefix(&self) -> &IdPrefix {
        &self.prefix
    }

    /// Whether the item is below this bound: `(timestamp, id) < (bound timestamp, padded prefix)`.
    pub fn is_above(&self, item: &Item) -> bool {
        (item.timestamp, &item.id) < (self.timestamp, self.prefix.padded())
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, IdPrefix};
    use crate::item::Item;

    fn item(timestamp: u64, head: &[u8]) -> Item {
        let prefix = IdPrefix::new(head).expect("test prefixes are short");
        Item {
            timestamp,
            id: *prefix.padded(),
        }
    }

    #[test]
    fn minimal_is_above_the_previous_and_not_above_the_current() {
        let pairs = [
            (item(1, &[9]), item(2, &[0]), 0),
            (item(2, &[1]), item(2, &[2]), 1),
            (item(2, &[1, 2, 3]), item(2, &[1, 2, 4]), 3),
            (item(2, &[7; 31]), item(2, &[7; 32]), 32),
        ];
        for (previous, current, length) in pairs {
            let bound = Bound::minimal(&previous, &current);
            assert!(bound.is_above(&previous) && !bound.is_above(&current));
            assert_eq!(bound.prefix().as_bytes().len(), length);
        }
    }

    #[test]
    fn minimal_of_equal_items_does_not_panic() {
        let same = item(4, &[1; 32]);
        assert_eq!(Bound::minimal(&same, &same), Bound::at(&same));
    }

    #[test]
    fn order_ignores_the_length_of_a_prefix() {
        let short = Bound::new(5, IdPrefix::new(&[1]).expect("short"));
        let long = Bound::new(5, IdPrefix::new(&[1, 0, 0]).expect("short"));
        assert_eq!(short, long);
        assert!(Bound::MIN < short && short < Bound::INFINITY);
        assert!(IdPrefix::new(&[0; 33]).is_none());
    }
}
