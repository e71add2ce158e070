//! Index entries that wait to be written in the order of their keys: at random, each would be looked for all over its
//! tree, and in a transaction of many pages LMDB would bring the same page back again and again.
//!
//! Takes entries as events are admitted, and takes them back when an event goes again before it was written; takes the
//! entries of stored events that go; writes each index in one ascending pass. Records come and go at once: only their
//! entries wait. Does not read an index: whoever does has this written first. Removing in order matters beyond speed:
//! at random, or in several passes, the pages that fall empty pile up in LMDB until the transaction is full. So new
//! entries are written before they are many ([`Pending::is_large`]), those that go in one pass at the end. Worst case
//! of memory: 28 bytes for each tag of all events that one transaction removes, up to 5,000 events of 5,000 tags for
//! one deletion.

use std::collections::{HashMap, HashSet};

use heed::RwTxn;

use crate::StoreError;
use crate::environment::{Table, Tables, put_ascending};
use crate::index::{
    AuthorKey, CanonicalIndexKey, ExpiryKey, IdKey, IndexKey, KindKey, TagKey, TimeKey,
};
use crate::keys::Sequence;

/// Entries above which they are to be written: about 16 MB. Events of few tags come to half of that in a bulk commit.
const ENTRIES_LARGE: usize = 500_000;

/// What waits.
#[derive(Default)]
pub(crate) struct Pending {
    entries: usize,
    added: Entries,
    /// Of events that were removed before their entries were written: each takes back an equal one of `added`.
    dropped: Entries,
    /// The events whose entries wait.
    ids: HashMap<[u8; 32], Sequence>,
    /// Of events that were stored and are gone.
    removed: Entries,
    gone: HashSet<Sequence>,
}

/// Keys by index; of fixed lengths, so that they lie and are sorted side by side.
#[derive(Default)]
struct Entries {
    by_id: Vec<IdKey>,
    by_time: Vec<TimeKey>,
    by_author: Vec<AuthorKey>,
    by_kind: Vec<KindKey>,
    by_tag: Vec<TagKey>,
    canonical: Vec<CanonicalIndexKey>,
    expiry: Vec<ExpiryKey>,
}

impl Entries {
    /// Gives how many there were.
    fn extend(&mut self, keys: impl Iterator<Item = IndexKey>) -> usize {
        keys.map(|key| self.push(key)).count()
    }

    fn push(&mut self, key: IndexKey) {
        match key {
            IndexKey::Id(key) => self.by_id.push(key),
            IndexKey::Time(key) => self.by_time.push(key),
            IndexKey::Author(key) => self.by_author.push(key),
            IndexKey::Kind(key) => self.by_kind.push(key),
            IndexKey::Tag(key) => self.by_tag.push(key),
            IndexKey::Canonical(key) => self.canonical.push(key),
            IndexKey::Expiry(key) => self.expiry.push(key),
        }
    }
}

impl Pending {
    /// The number of an event whose entries wait.
    pub(crate) fn find(&self, id: &[u8; 32]) -> Option<Sequence> {
        self.ids.get(id).copied()
    }

    /// Takes the entries of an event.
    pub(crate) fn add(
        &mut self,
        id: [u8; 32],
        sequence: Sequence,
        keys: impl Iterator<Item = IndexKey>,
    ) {
        self.ids.insert(id, sequence);
        self.entries += self.added.extend(keys);
    }

    /// Takes the entries of an event back. `false` if they are not here: then they are written.
    pub(crate) fn take_back(
        &mut self,
        id: &[u8; 32],
        keys: impl Iterator<Item = IndexKey>,
    ) -> bool {
        let waits = self.ids.remove(id).is_some();
        if waits {
            self.entries += self.dropped.extend(keys);
        }
        waits
    }

    /// Takes the written entries of an event that is gone.
    pub(crate) fn remove(&mut self, sequence: Sequence, keys: impl Iterator<Item = IndexKey>) {
        self.gone.insert(sequence);
        keys.for_each(|key| self.removed.push(key));
    }

    /// Whether so much waits that it is to be written before the next event is taken. Not while something goes: that is
    /// for one pass.
    pub(crate) fn is_large(&self) -> bool {
        self.entries >= ENTRIES_LARGE && self.gone.is_empty()
    }

    /// Whether the event with this number is gone, though indexes still name it.
    pub(crate) fn is_gone(&self, sequence: Sequence) -> bool {
        self.gone.contains(&sequence)
    }

    /// Writes all that waits.
    pub(crate) fn write(self, tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), StoreError> {
        let Self {
            added,
            dropped,
            removed,
            ..
        } = self;
        // First: an event that went and came again stands under the same key in the canonical index.
        erase(tables.by_id, txn, removed.by_id)?;
        erase(tables.by_time, txn, removed.by_time)?;
        erase(tables.by_author, txn, removed.by_author)?;
        erase(tables.by_kind, txn, removed.by_kind)?;
        erase(tables.by_tag, txn, removed.by_tag)?;
        erase(tables.canonical, txn, removed.canonical)?;
        erase(tables.expiry, txn, removed.expiry)?;
        write(tables.by_id, txn, added.by_id, dropped.by_id)?;
        write(tables.by_time, txn, added.by_time, dropped.by_time)?;
        write(tables.by_author, txn, added.by_author, dropped.by_author)?;
        write(tables.by_kind, txn, added.by_kind, dropped.by_kind)?;
        write(tables.by_tag, txn, added.by_tag, dropped.by_tag)?;
        write(tables.canonical, txn, added.canonical, dropped.canonical)?;
        write(tables.expiry, txn, added.expiry, dropped.expiry)
    }
}

fn erase<const N: usize>(
    table: Table,
    txn: &mut RwTxn<'_>,
    mut removed: Vec<[u8; N]>,
) -> Result<(), StoreError> {
    removed.sort_unstable();
    for key in &removed {
        if !table.delete(txn, key)? {
            return Err(StoreError::damaged(
                "a record that was removed is missing from an index",
            ));
        }
    }
    Ok(())
}

fn write<const N: usize>(
    table: Table,
    txn: &mut RwTxn<'_>,
    mut added: Vec<[u8; N]>,
    mut dropped: Vec<[u8; N]>,
) -> Result<(), StoreError> {
    added.sort_unstable();
    if !dropped.is_empty() {
        dropped.sort_unstable();
        let mut dropped = dropped.into_iter().peekable();
        added.retain(|key| dropped.next_if_eq(key).is_none());
    }
    put_ascending(table, txn, &added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_takes_one_equal_entry_with_it() {
        let mut pending = Pending::default();
        let key = || IndexKey::Kind([1; 2 + crate::keys::SUFFIX_LEN]);
        pending.add([1; 32], Sequence(1), [key()].into_iter());
        pending.add([2; 32], Sequence(2), [key()].into_iter());
        assert_eq!(pending.find(&[1; 32]), Some(Sequence(1)));
        assert!(pending.take_back(&[1; 32], [key()].into_iter()));
        assert_eq!(pending.find(&[1; 32]), None);
        assert!(!pending.take_back(&[1; 32], [key()].into_iter()));
        assert_eq!(
            (pending.added.by_kind.len(), pending.dropped.by_kind.len()),
            (2, 1)
        );
    }
}
