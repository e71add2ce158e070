//! The one writer: transactions that change records, indexes, tombstones and segments together.
//!
//! [`Writer::transact`] runs a closure in a write transaction, publishes the segments that result, commits
//! (durable when it returns) and only then lets ephemeral events go. When the memory map is full it grows and
//! the closure runs again, so it must not count on running once. Any error leaves the store as it was.
//! There is one `Writer` per store, it is not `Clone`, and nothing else opens a write transaction.

use std::collections::HashMap;
use std::sync::Arc;

use heed::{RoTxn, WithoutTls};

use crate::StoreError;
use crate::environment::Tables;
use crate::index::read_canonical;
use crate::keys::{AuthorNumber, Sequence};
use crate::store::{Shared, Version};
use crate::transaction::{AUTHORS_CACHED_MAX, Finished, Transaction};

const META_LAST_SEQUENCE: &[u8] = b"last_sequence";

/// The only way to change the store.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    version: Version,
    authors: HashMap<[u8; 32], AuthorNumber>,
    /// Bytes by which a transaction made the file longer of late: the next one may take as many.
    recent_growth: u64,
}

/// A transaction that is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Committed<R> {
    /// What the closure gave.
    pub value: R,
    /// Number of the last record now.
    pub last_sequence: Sequence,
}
impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, version: Version) -> Result<Self, StoreError> {
        Ok(Self {
            shared,
            version,
            authors: HashMap::new(),
            recent_growth: 0,
        })
    }

    pub(crate) fn read_last_sequence(
        tables: &Tables,
        txn: &RoTxn<'_, WithoutTls>,
    ) -> Result<Sequence, StoreError> {
        match tables.meta.get(txn, META_LAST_SEQUENCE)? {
            None => Ok(Sequence::default()),
            Some(key) => Sequence::from_key(key)
                .ok_or_else(|| StoreError::damaged("meta: last_sequence of the wrong length")),
        }
    }

    /// Runs `work` in one transaction and commits it, durably. The calling thread must hold no snapshot: growing
    /// waits until there is none.
    ///
    /// # Errors
    /// What `work` gives, or the database; then nothing of it is kept. [`StoreError::DiskFull`] leaves the store
    /// readable and writable again as soon as there is room.
    pub fn transact<R>(
        &mut self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<Committed<R>, StoreError> {
        let environment = &Arc::clone(&self.shared).environment;
        environment.grow_ahead(self.recent_growth.saturating_mul(2))?;
        let (_, used_before) = environment.sizes()?;
        for attempt in 0.. {
            match self.attempt(&mut work) {
                Ok(committed) => {
                    // It is committed: what the sizes are may no longer make an error of it.
                    let used = environment.sizes().map_or(used_before, |(_, used)| used);
                    // Halved each time: a large batch long ago asks for no room today.
                    let grown = used.saturating_sub(used_before);
                    self.recent_growth = grown.max(self.recent_growth / 2);
                    return Ok(committed);
                }
                Err(error) if error.is_map_full() => environment.grow(attempt)?,
                Err(error) if error.is_short_write() && environment.has_no_room() => {
                    return Err(StoreError::DiskFull);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the map cannot grow that often")
    }

    fn attempt<R>(
        &mut self,
        work: &mut impl FnMut(&mut Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<Committed<R>, StoreError> {
        let shared = Arc::clone(&self.shared);
        if self.authors.len() > AUTHORS_CACHED_MAX {
            self.authors.clear();
        }
        let tables = &shared.environment.tables;
        let mut transaction = Transaction::begin(
            shared.environment.write()?,
            tables,
            &shared.options,
            std::mem::take(&mut self.authors),
            self.version.last_sequence,
        );
        let value = work(&mut transaction)?;
        let Finished {
            mut txn,
            changes,
            last_sequence,
            ephemeral,
            known_authors,
            new_authors,
        } = transaction.finish()?;
        if last_sequence != self.version.last_sequence {
            tables
                .meta
                .put(&mut txn, META_LAST_SEQUENCE, &last_sequence.key())?;
        }
        let segments = if changes.is_empty() {
            Arc::clone(&self.version.segments)
        } else {
            let mut changes = changes;
            Arc::new(
                self.version
                    .segments
                    .with_changes(&mut changes, &mut |kind, from, to| {
                        read_canonical(tables, &txn, kind, from, to)
                    })?,
            )
        };
        let next = Version {
            segments,
            last_sequence,
        };
        let txn_id = txn.id();
        shared.publish(txn_id, next.clone());
        if let Err(error) = txn.commit() {
            shared.retract(txn_id, self.version.clone(), txn_id.saturating_sub(1));
            return Err(error.into());
        }
        self.version = next;
        // Only what is committed is remembered: a number given in a failed transaction is given again.
        self.authors = known_authors;
        self.authors.extend(new_authors);
        shared.push_ephemeral(ephemeral);
        Ok(Committed {
            value,
            last_sequence,
        })
    }
}
