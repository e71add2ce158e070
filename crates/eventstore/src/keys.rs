//! How keys are laid out on disk. Part of the file format: a change here is a new format number.
//!
//! All integers are big-endian, so that byte order is numeric order. Query indexes end in one common suffix,
//! `inverted time (5) ‖ first 8 bytes of the id ‖ sequence (6)`: ascending keys are newest first, then by lower
//! id (NIP-01), whatever the index. The canonical index has time and whole id instead, ascending (NIP-77).
//! Prefixes (id, tag value) are shorter than what they stand for: whoever looks up checks the record.

use sha2::{Digest, Sha256};

/// Largest `created_at` that the store holds: 2^40 − 1, the year 36812.
pub const TIME_MAX: u64 = (1 << 40) - 1;

pub(crate) const SEQUENCE_LEN: usize = 6;
/// More than a station commits in a thousand years; larger numbers, which callers may make up, are cut to it.
const SEQUENCE_MAX: u64 = (1 << 48) - 1;
pub(crate) const SUFFIX_LEN: usize = 5 + 8 + SEQUENCE_LEN;

/// Number of a record, in the order of commits. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    pub(crate) fn key(self) -> [u8; SEQUENCE_LEN] {
        let bytes = self.0.min(SEQUENCE_MAX).to_be_bytes();
        [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
    }

    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; SEQUENCE_LEN] = key.try_into().ok()?;
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(key);
        Some(Self(u64::from_be_bytes(bytes)))
    }

    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Four bytes that stand for a public key in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AuthorNumber(pub(crate) u32);

/// Time as five bytes, ascending. `time` must not exceed [`TIME_MAX`]; larger ones are cut to it.
pub(crate) fn time_key(time: u64) -> [u8; 5] {
    let bytes = time.min(TIME_MAX).to_be_bytes();
    [bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

pub(crate) fn time_from_key(key: [u8; 5]) -> u64 {
    let mut bytes = [0; 8];
    bytes[3..].copy_from_slice(&key);
    u64::from_be_bytes(bytes)
}

fn inverted_time_key(time: u64) -> [u8; 5] {
    time_key(TIME_MAX - time.min(TIME_MAX))
}

/// The common end of every query index's keys: newest first, then lower id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suffix(pub(crate) [u8; SUFFIX_LEN]);

impl Suffix {
    pub(crate) fn new(created_at: u64, id: &[u8; 32], sequence: Sequence) -> Self {
        let mut bytes = [0; SUFFIX_LEN];
        bytes[..5].copy_from_slice(&inverted_time_key(created_at));
        bytes[5..13].copy_from_slice(&id[..8]);
        bytes[13..].copy_from_slice(&sequence.key());
        Self(bytes)
    }

    /// Where the entries at `time` begin; older ones follow.
    pub(crate) fn newest_at(time: u64) -> Self {
        let mut bytes = [0; SUFFIX_LEN];
        bytes[..5].copy_from_slice(&inverted_time_key(time));
        Self(bytes)
    }

    pub(crate) fn from_end_of(key: &[u8]) -> Option<Self> {
        let start = key.len().checked_sub(SUFFIX_LEN)?;
        key[start..].try_into().ok().map(Self)
    }

    pub(crate) fn created_at(&self) -> u64 {
        let mut time = [0; 5];
        time.copy_from_slice(&self.0[..5]);
        TIME_MAX - time_from_key(time)
    }

    pub(crate) fn sequence(&self) -> Sequence {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[13..]);
        Sequence(u64::from_be_bytes(bytes))
    }
}

fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N, "a key has the length of its parts");
    key
}

pub(crate) fn id_key(id: &[u8; 32], sequence: Sequence) -> [u8; 8 + SEQUENCE_LEN] {
    join(&[&id[..8], &sequence.key()])
}

pub(crate) fn author_prefix(author: AuthorNumber, kind: u16) -> [u8; 6] {
    join(&[&author.0.to_be_bytes(), &kind.to_be_bytes()])
}

pub(crate) fn author_key(author: AuthorNumber, kind: u16, suffix: Suffix) -> [u8; 6 + SUFFIX_LEN] {
    join(&[&author_prefix(author, kind), &suffix.0])
}

pub(crate) fn kind_key(kind: u16, suffix: Suffix) -> [u8; 2 + SUFFIX_LEN] {
    join(&[&kind.to_be_bytes(), &suffix.0])
}

/// A tag's name (one letter) and the first 8 bytes of the hash of its first value.
pub(crate) fn tag_prefix(letter: u8, value: &str) -> [u8; 9] {
    join(&[&[letter], &Sha256::digest(value.as_bytes())[..8]])
}

pub(crate) fn tag_key(prefix: [u8; 9], suffix: Suffix) -> [u8; 9 + SUFFIX_LEN] {
    join(&[&prefix, &suffix.0])
}

/// Author, kind and the first 16 bytes of the hash of the `d` tag. A collision takes 2^64 hashes, and whoever
/// makes one only supersedes an event of their own.
pub(crate) type CoordinateKey = [u8; 22];

pub(crate) fn coordinate_key(author: AuthorNumber, kind: u16, identifier: &str) -> CoordinateKey {
    join(&[
        &author.0.to_be_bytes(),
        &kind.to_be_bytes(),
        &Sha256::digest(identifier.as_bytes())[..16],
    ])
}

pub(crate) const CANONICAL_LEN: usize = 2 + 5 + 32;

pub(crate) fn canonical_key(kind: u16, created_at: u64, id: &[u8; 32]) -> [u8; CANONICAL_LEN] {
    join(&[&kind.to_be_bytes(), &time_key(created_at), id])
}

/// Kind, time and id of a canonical key.
pub(crate) fn parse_canonical(key: &[u8]) -> Option<(u16, u64, [u8; 32])> {
    let key: &[u8; CANONICAL_LEN] = key.try_into().ok()?;
    let kind = u16::from_be_bytes([key[0], key[1]]);
    let mut time = [0; 5];
    time.copy_from_slice(&key[2..7]);
    let mut id = [0; 32];
    id.copy_from_slice(&key[7..]);
    Some((kind, time_from_key(time), id))
}

pub(crate) fn expiry_key(expires_at: u64, sequence: Sequence) -> [u8; 5 + SEQUENCE_LEN] {
    join(&[&time_key(expires_at), &sequence.key()])
}

pub(crate) fn deleted_id_key(target: &[u8; 32], deleter: AuthorNumber) -> [u8; 36] {
    join(&[target, &deleter.0.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn suffixes_sort_newest_first_then_by_lower_id(
            a in (0..=TIME_MAX, any::<[u8; 32]>(), 0u64..1 << 48),
            b in (0..=TIME_MAX, any::<[u8; 32]>(), 0u64..1 << 48),
        ) {
            let key = |(time, id, sequence): &(u64, [u8; 32], u64)| {
                Suffix::new(*time, id, Sequence(*sequence))
            };
            let expected = b.0.cmp(&a.0).then_with(|| a.1[..8].cmp(&b.1[..8])).then(a.2.cmp(&b.2));
            prop_assert_eq!(key(&a).cmp(&key(&b)), expected);
            prop_assert_eq!(key(&a).created_at(), a.0);
            prop_assert_eq!(key(&a).sequence(), Sequence(a.2));
        }

        #[test]
        fn canonical_keys_sort_by_kind_time_id(
            a in (any::<u16>(), 0..=TIME_MAX, any::<[u8; 32]>()),
            b in (any::<u16>(), 0..=TIME_MAX, any::<[u8; 32]>()),
        ) {
            let key = |(kind, time, id): &(u16, u64, [u8; 32])| canonical_key(*kind, *time, id);
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            prop_assert_eq!(parse_canonical(&key(&a)), Some(a));
        }
    }
}
