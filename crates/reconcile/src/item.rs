//! The element that is reconciled: a timestamp and an id.
//!
//! Invariant: items are ordered by timestamp, then by id bytes; both peers rely on it.
//! Does not know what the id identifies, nor that an id belongs to one timestamp only.

/// A 32-byte identifier (in NIP-77: the event id).
pub type Id = [u8; 32];

/// One element of a reconciled set, ordered by `(timestamp, id)` (negentropy protocol v1).
///
/// A timestamp of `u64::MAX` is the protocol's infinity: such an item lies above
/// [`Bound::INFINITY`](crate::Bound::INFINITY), hence in no range, and is never reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// The unit is the sets' own (in NIP-77: seconds since 1970, `created_at`).
    pub timestamp: u64,
    /// Unique within a set at this timestamp.
    pub id: Id,
}
