//! Tombstones of addresses that stores from before hold "up to a version": they are no more than a time can say.
//!
//! A deletion by id once left one at the address of its target too, with the target's id in it, so that no older version
//! came back. Stations that never saw the target could not know, and stayed different. Such a tombstone deletes nothing
//! any more ([`decode_address_tombstone`] passes it over); but it may stand in the place of one that a deletion of the
//! address had left, and that one must hold. So at opening each is replaced by what the stored deletions of its author
//! say of the address, or removed. Takes a store that was just opened; changes that one table. Deliberately absent: what
//! is remembered of events that were refused for them, which is looked at again by whoever asks (`refusal.rs`).
//! Worst case: one pass over the table at each opening, 0.1 s for a million addresses; once, every deletion of the
//! authors concerned is read.

use std::collections::{BTreeSet, HashMap};

use crate::StoreError;
use crate::environment::Tables;
use crate::index::is_version_tombstone;
use crate::keys::{self, AuthorNumber, CoordinateKey, Suffix};
use crate::rules::{KIND_DELETION, own_address};
use crate::store::{author_key, read_record};
use crate::transaction::Transaction;
use crate::writer::Writer;

/// Replaces what an earlier version of this program left.
pub(crate) fn replace(writer: &mut Writer, old: &[CoordinateKey]) -> Result<(), StoreError> {
    if !old.is_empty() {
        writer.transact(|transaction| transaction.replace_old_tombstones(old))?;
    }
    Ok(())
}

/// The addresses that have such a tombstone.
pub(crate) fn find(
    tables: &Tables,
    txn: &heed::RoTxn<'_, heed::WithoutTls>,
) -> Result<Vec<CoordinateKey>, StoreError> {
    let mut old = Vec::new();
    for entry in tables.deleted_addresses.iter(txn)? {
        let (key, value) = entry?;
        if is_version_tombstone(value)? {
            let key = key.try_into();
            old.push(key.map_err(|_| {
                StoreError::damaged("deleted_addresses: a key of the wrong length")
            })?);
        }
    }
    Ok(old)
}

impl Transaction<'_> {
    fn replace_old_tombstones(&mut self, old: &[CoordinateKey]) -> Result<(), StoreError> {
        let authors: BTreeSet<u32> = old
            .iter()
            .map(|[a, b, c, d, ..]| u32::from_be_bytes([*a, *b, *c, *d]))
            .collect();
        let mut deleted_until: HashMap<CoordinateKey, Option<u64>> =
            old.iter().map(|coordinate| (*coordinate, None)).collect();
        for author in authors {
            self.read_deleted_addresses(AuthorNumber(author), &mut deleted_until)?;
        }
        for (coordinate, until) in deleted_until {
            match until {
                Some(until) => self.put_address_tombstone(&coordinate, until)?,
                None => {
                    self.tables
                        .deleted_addresses
                        .delete(&mut self.txn, &coordinate)?;
                }
            }
        }
        Ok(())
    }

    /// Enters the times up to which the stored deletions of an author delete addresses that are asked for.
    fn read_deleted_addresses(
        &self,
        author: AuthorNumber,
        deleted_until: &mut HashMap<CoordinateKey, Option<u64>>,
    ) -> Result<(), StoreError> {
        let pubkey = author_key(self.tables, &self.txn, author)?;
        let prefix = keys::author_prefix(author, KIND_DELETION);
        for entry in self.tables.by_author.prefix_iter(&self.txn, &prefix)? {
            let (key, _) = entry?;
            let sequence = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?
                .sequence();
            let record = read_record(self.tables, &self.txn, sequence)?.ok_or_else(|| {
                StoreError::damaged(format!("by_author: no record {}", sequence.0))
            })?;
            let parts = record.parse()?;
            for tag in &parts.tags.0 {
                if let [name, value, ..] = tag.as_slice()
                    && name == "a"
                    && let Some((kind, identifier)) = own_address(value, &pubkey)
                    && let Some(until) =
                        deleted_until.get_mut(&keys::coordinate_key(author, kind, identifier))
                {
                    *until = (*until).max(Some(record.created_at()));
                }
            }
        }
        Ok(())
    }
}
