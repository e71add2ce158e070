//! One transaction: records, indexes, tombstones and authors as they change together.
//!
//! Takes what the rules decide; changes tables, and notes what the segments must learn. Index entries of new records
//! are held back and written in the order of their keys, at the end or before something must read them. Nothing here
//! judges an event. Worst case of a removal: one delete for each index entry of the record.

use std::collections::HashMap;

use constellation_event::{CanonicalKey, VerifiedEvent};
use heed::{PutFlags, RwTxn};

use crate::StoreError;
use crate::environment::Tables;
use crate::index::{
    address_deleted_up_to, at_coordinate, coordinate_of_record, decode_time,
    encode_address_tombstone, find_by_id_unless, index_keys,
};
use crate::keys::{self, AuthorNumber, CoordinateKey, Sequence};
use crate::pending::Pending;
use crate::record::{self, Header, Record};
use crate::segments::Change;
use crate::store::{Options, author_number, read_record};

/// Authors remembered with their numbers, so that a busy author is not looked up for each event.
pub(crate) const AUTHORS_CACHED_MAX: usize = 65_536;

/// What went with a record.
pub(crate) struct Removed {
    pub(crate) key: CanonicalKey,
    pub(crate) kind: u16,
    pub(crate) author: AuthorNumber,
    pub(crate) coordinate: Option<CoordinateKey>,
}

/// Changes that become visible together, or not at all.
pub struct Transaction<'t> {
    pub(crate) txn: RwTxn<'t>,
    pub(crate) tables: &'t Tables,
    options: &'t Options,
    known_authors: HashMap<[u8; 32], AuthorNumber>,
    new_authors: HashMap<[u8; 32], AuthorNumber>,
    pending: Pending,
    changes: Vec<Change>,
    last_sequence: Sequence,
    /// It was looked that no record has a number after the last one.
    appends: bool,
    pub(crate) ephemeral: Vec<VerifiedEvent>,
}

/// What a transaction leaves to be committed.
pub(crate) struct Finished<'t> {
    pub(crate) txn: RwTxn<'t>,
    pub(crate) changes: Vec<Change>,
    pub(crate) last_sequence: Sequence,
    pub(crate) ephemeral: Vec<VerifiedEvent>,
    pub(crate) known_authors: HashMap<[u8; 32], AuthorNumber>,
    pub(crate) new_authors: HashMap<[u8; 32], AuthorNumber>,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("last_sequence", &self.last_sequence)
            .finish()
    }
}

impl<'t> Transaction<'t> {
    pub(crate) fn begin(
        txn: RwTxn<'t>,
        tables: &'t Tables,
        options: &'t Options,
        known_authors: HashMap<[u8; 32], AuthorNumber>,
        last_sequence: Sequence,
    ) -> Self {
        Self {
            txn,
            tables,
            options,
            known_authors,
            new_authors: HashMap::new(),
            pending: Pending::default(),
            changes: Vec::new(),
            last_sequence,
            appends: false,
            ephemeral: Vec::new(),
        }
    }

    /// Writes what was held back. Nothing is committed yet.
    pub(crate) fn finish(mut self) -> Result<Finished<'t>, StoreError> {
        self.flush()?;
        Ok(Finished {
            txn: self.txn,
            changes: self.changes,
            last_sequence: self.last_sequence,
            ephemeral: self.ephemeral,
            known_authors: self.known_authors,
            new_authors: self.new_authors,
        })
    }
}

impl Transaction<'_> {
    pub(crate) fn options(&self) -> &Options {
        self.options
    }

    pub(crate) fn contains(&self, id: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.find(id)?.is_some())
    }

    pub(crate) fn find(&self, id: &[u8; 32]) -> Result<Option<Record<'_>>, StoreError> {
        if let Some(sequence) = self.pending.find(id) {
            return read_record(self.tables, &self.txn, sequence);
        }
        find_by_id_unless(self.tables, &self.txn, id, |sequence| {
            self.pending.is_gone(sequence)
        })
    }

    pub(crate) fn known_author(
        &self,
        pubkey: &[u8; 32],
    ) -> Result<Option<AuthorNumber>, StoreError> {
        if let Some(number) = self
            .known_authors
            .get(pubkey)
            .or_else(|| self.new_authors.get(pubkey))
        {
            return Ok(Some(*number));
        }
        author_number(self.tables, &self.txn, pubkey)
    }

    /// As [`Transaction::known_author`], and remembers the number: an author seldom sends one event.
    pub(crate) fn find_author(
        &mut self,
        pubkey: &[u8; 32],
    ) -> Result<Option<AuthorNumber>, StoreError> {
        let found = self.known_author(pubkey)?;
        if let Some(number) = found
            && self.new_authors.len() < AUTHORS_CACHED_MAX
            && !self.known_authors.contains_key(pubkey)
        {
            self.new_authors.insert(*pubkey, number);
        }
        Ok(found)
    }

    /// The author's number, given one now if it has none.
    pub(crate) fn intern_author(&mut self, pubkey: &[u8; 32]) -> Result<AuthorNumber, StoreError> {
        if let Some(number) = self.find_author(pubkey)? {
            return Ok(number);
        }
        let number = match self.tables.author_keys.last(&self.txn)? {
            None => 0,
            Some((key, _)) => {
                let last = key
                    .try_into()
                    .map(u32::from_be_bytes)
                    .map_err(|_| StoreError::damaged("author_keys: key of the wrong length"))?;
                last.checked_add(1)
                    .ok_or_else(|| StoreError::damaged("author_keys: out of numbers"))?
            }
        };
        let key = number.to_be_bytes();
        self.tables.authors.put(&mut self.txn, pubkey, &key)?;
        self.tables.author_keys.put(&mut self.txn, &key, pubkey)?;
        self.new_authors.insert(*pubkey, AuthorNumber(number));
        Ok(AuthorNumber(number))
    }

    /// The stored event at a coordinate, with its place in time.
    pub(crate) fn at_coordinate(
        &self,
        coordinate: &CoordinateKey,
    ) -> Result<Option<(Sequence, CanonicalKey)>, StoreError> {
        at_coordinate(self.tables, &self.txn, coordinate)
    }

    pub(crate) fn insert(
        &mut self,
        header: &Header,
        event: &VerifiedEvent,
        coordinate: Option<&CoordinateKey>,
    ) -> Result<Sequence, StoreError> {
        if self.pending.is_large() {
            self.flush()?;
        }
        let sequence = self.last_sequence.next();
        let tables = self.tables;
        let key = sequence.key();
        if !self.appends {
            // LMDB would refuse an earlier key in a way that looks like success.
            if let Some((last, _)) = tables.records.last(&self.txn)?
                && *last >= key[..]
            {
                return Err(StoreError::damaged(format!(
                    "there is a record {} after the last one",
                    sequence.0
                )));
            }
            self.appends = true;
        }
        let txn = &mut self.txn;
        // Appending fills pages to the end; the largest number so far is always the last key.
        let already = tables.records.get_or_put_reserved_with_flags(
            txn,
            PutFlags::APPEND,
            &key,
            header.encoded_len(event.json()),
            |space| header.write_with(event.json(), space),
        )?;
        debug_assert!(already.is_none(), "numbers ascend");
        let prefixes = record::indexed_tags_of_event(event);
        let keys = index_keys(header, sequence, &prefixes);
        self.pending.add(header.id, sequence, keys);
        if let Some(coordinate) = coordinate {
            tables.coordinates.put(txn, coordinate, &sequence.key())?;
        }
        self.note_change(header, true);
        self.last_sequence = sequence;
        Ok(sequence)
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) -> Result<Removed, StoreError> {
        let tables = self.tables;
        let (header, prefixes, coordinate) = {
            let record = read_record(tables, &self.txn, sequence)?.ok_or_else(|| {
                StoreError::damaged(format!("an index names record {}", sequence.0))
            })?;
            let parts = record.parse()?;
            let prefixes = record::indexed_tags_of_record(&parts.tags);
            (
                record.header,
                prefixes,
                coordinate_of_record(&record, &parts),
            )
        };
        let keys = || index_keys(&header, sequence, &prefixes);
        if !self.pending.take_back(&header.id, keys()) {
            self.pending.remove(sequence, keys());
        }
        let txn = &mut self.txn;
        if let Some(coordinate) = coordinate {
            tables.coordinates.delete(txn, &coordinate)?;
        }
        tables.records.delete(txn, &sequence.key())?;
        self.note_change(&header, false);
        Ok(Removed {
            key: header.canonical_key(),
            kind: header.kind,
            author: header.author,
            coordinate,
        })
    }

    /// Writes the index entries that wait. Whoever reads an index but by id or coordinate calls this first.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        std::mem::take(&mut self.pending).write(self.tables, &mut self.txn)
    }

    pub(crate) fn note_change(&mut self, header: &Header, inserted: bool) {
        if header.is_shared() {
            self.changes.push(Change {
                kind: header.kind,
                position: header.canonical_key(),
                inserted,
            });
        }
    }

    pub(crate) fn has_id_tombstone(
        &self,
        target: &[u8; 32],
        deleter: AuthorNumber,
    ) -> Result<bool, StoreError> {
        let key = keys::deleted_id_key(target, deleter);
        Ok(self.tables.deleted_ids.get(&self.txn, &key)?.is_some())
    }

    pub(crate) fn put_id_tombstone(
        &mut self,
        target: &[u8; 32],
        deleter: AuthorNumber,
    ) -> Result<(), StoreError> {
        let key = keys::deleted_id_key(target, deleter);
        Ok(self.tables.deleted_ids.put(&mut self.txn, &key, &[])?)
    }

    /// The time up to which the versions of an address are deleted.
    pub(crate) fn address_deleted_up_to(
        &self,
        coordinate: &CoordinateKey,
    ) -> Result<Option<u64>, StoreError> {
        address_deleted_up_to(self.tables, &self.txn, coordinate)
    }

    pub(crate) fn put_address_tombstone(
        &mut self,
        coordinate: &CoordinateKey,
        until: u64,
    ) -> Result<(), StoreError> {
        let value = encode_address_tombstone(until);
        Ok(self
            .tables
            .deleted_addresses
            .put(&mut self.txn, coordinate, &value)?)
    }

    pub(crate) fn vanished_until(&self, author: AuthorNumber) -> Result<Option<u64>, StoreError> {
        decode_time(
            self.tables
                .vanished
                .get(&self.txn, &author.0.to_be_bytes())?,
        )
    }

    pub(crate) fn put_vanished(
        &mut self,
        author: AuthorNumber,
        until: u64,
    ) -> Result<(), StoreError> {
        let (key, until) = (author.0.to_be_bytes(), keys::time_key(until));
        self.tables.vanished.put(&mut self.txn, &key, &until)?;
        Ok(self.tables.vanishing.put(&mut self.txn, &key, &until)?)
    }
}
