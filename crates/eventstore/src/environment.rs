//! The LMDB environment: opening, the databases' names, the map that grows, and snapshots to read from.
//!
//! The only file with `unsafe`: LMDB must be opened by one process at a time (the station's kernel lock sees to
//! that) and resized while no transaction is open (the lock in [`Environment`] sees to that: a [`ReadTxn`] holds
//! it shared, resizing takes it alone). Worst case: growing waits for the longest snapshot, at most its deadline.

use std::path::Path;
use std::sync::{RwLock, RwLockReadGuard};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};

use crate::{OpenError, StoreError};

pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// The number in the store's files. Another number is refused at opening.
pub const FORMAT: u32 = 1;

const META_FORMAT: &[u8] = b"format";
/// Readers at a time: queries, NEG messages and reports of all connections.
const READERS_MAX: u32 = 512;

/// Every table, in the order of [`TABLE_NAMES`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    pub(crate) meta: Table,
    pub(crate) records: Table,
    pub(crate) authors: Table,
    pub(crate) author_keys: Table,
    pub(crate) by_id: Table,
    pub(crate) by_time: Table,
    pub(crate) by_author: Table,
    pub(crate) by_kind: Table,
    pub(crate) by_tag: Table,
    pub(crate) coordinates: Table,
    pub(crate) canonical: Table,
    pub(crate) expiry: Table,
    pub(crate) deleted_ids: Table,
    pub(crate) deleted_addresses: Table,
    pub(crate) vanished: Table,
    pub(crate) vanishing: Table,
    pub(crate) peers: Table,
    pub(crate) refused: Table,
    pub(crate) refused_order: Table,
    pub(crate) overlay: Table,
    pub(crate) overlay_order: Table,
}

const TABLE_NAMES: [&str; 21] = [
    "meta",
    "records",
    "authors",
    "author_keys",
    "by_id",
    "by_time",
    "by_author",
    "by_kind",
    "by_tag",
    "coordinates",
    "canonical",
    "expiry",
    "deleted_ids",
    "deleted_addresses",
    "vanished",
    "vanishing",
    "peers",
    "refused",
    "refused_order",
    "overlay",
    "overlay_order",
];

impl Tables {
    fn from_array(tables: [Table; TABLE_NAMES.len()]) -> Self {
        let [
            meta,
            records,
            authors,
            author_keys,
            by_id,
            by_time,
            by_author,
            by_kind,
            by_tag,
            coordinates,
            canonical,
            expiry,
            deleted_ids,
            deleted_addresses,
            vanished,
            vanishing,
            peers,
            refused,
            refused_order,
            overlay,
            overlay_order,
        ] = tables;
        Self {
            meta,
            records,
            authors,
            author_keys,
            by_id,
            by_time,
            by_author,
            by_kind,
            by_tag,
            coordinates,
            canonical,
            expiry,
            deleted_ids,
            deleted_addresses,
            vanished,
            vanishing,
            peers,
            refused,
            refused_order,
            overlay,
            overlay_order,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    pub(crate) tables: Tables,
    /// Shared by every transaction, taken alone to resize the map.
    resizing: RwLock<()>,
}

/// A read transaction that keeps the map from being resized under it.
pub(crate) struct ReadTxn<'e> {
    txn: RoTxn<'e, WithoutTls>,
    _no_resize: RwLockReadGuard<'e, ()>,
}

impl<'e> std::ops::Deref for ReadTxn<'e> {
    type Target = RoTxn<'e, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

impl Environment {
    pub(crate) fn open(folder: &Path, map_bytes: usize) -> Result<Self, OpenError> {
        let in_folder = |source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(in_folder)?;
        let existing = std::fs::metadata(folder.join("data.mdb")).map_or(0, |file| file.len());
        let map_bytes = round_up(map_bytes.max(usize::try_from(existing).unwrap_or(usize::MAX)));
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options
            .map_size(map_bytes)
            .max_dbs(u32::try_from(TABLE_NAMES.len()).expect("few tables"))
            .max_readers(READERS_MAX);
        // SAFETY: the files are not changed behind LMDB's back: the station holds a kernel lock on the data
        // directory for as long as the store is open, and heed refuses a second opening in this process.
        #[allow(unsafe_code)]
        let env = unsafe { options.open(folder) }?;
        let is_new = env.info().last_txn_id == 0;

        let txn = env.write_txn()?;
        let opened = env
            .create_databases_and_commit::<_, _, _, OpenError>(txn, |opener, txn| {
                let mut tables = Vec::with_capacity(TABLE_NAMES.len());
                for name in TABLE_NAMES {
                    tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
                }
                let meta = tables[0];
                match meta.get(txn, META_FORMAT)? {
                    Some(found) => {
                        let found =
                            u32::from_be_bytes(found.try_into().map_err(|_| OpenError::NotAStore)?);
                        if found != FORMAT {
                            return Err(OpenError::UnknownFormat {
                                found,
                                supported: FORMAT,
                            });
                        }
                    }
                    None if is_new => meta.put(txn, META_FORMAT, &FORMAT.to_be_bytes())?,
                    None => return Err(OpenError::NotAStore),
                }
                let tables: [Database<'_, Bytes, Bytes>; TABLE_NAMES.len()] = tables
                    .try_into()
                    .unwrap_or_else(|_| unreachable!("one table for each name"));
                Ok(CommitOrAbort::<_, ()>::Commit(tables))
            })?
            .commit()
            .ok_or_else(|| StoreError::damaged("opening was not committed"))?;
        // Readers of a process that was killed would keep old pages alive.
        env.clear_stale_readers()?;
        Ok(Self {
            env,
            tables: Tables::from_array(opened),
            resizing: RwLock::new(()),
        })
    }

    pub(crate) fn read(&self) -> Result<ReadTxn<'_>, StoreError> {
        // The lock guards no data: a panic elsewhere leaves nothing half-done behind it.
        let no_resize = self
            .resizing
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(ReadTxn {
            txn: self.env.read_txn()?,
            _no_resize: no_resize,
        })
    }

    /// A write transaction. Only the one writer calls this, and it is the one that resizes: no lock is needed.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>, StoreError> {
        Ok(self.env.write_txn()?)
    }

    /// Makes the map half as large again, at least 64 MiB larger. The writer must have no transaction open.
    pub(crate) fn grow(&self) -> Result<(), StoreError> {
        let _alone = self
            .resizing
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.env.info().map_size;
        let larger = now.saturating_add((now / 2).max(64 << 20));
        // SAFETY: no transaction is open: readers hold `resizing` shared for as long as theirs lives, and the
        // only writer is the caller, which has none.
        #[allow(unsafe_code)]
        unsafe { self.env.resize(round_up(larger)) }?;
        Ok(())
    }

    /// Bytes of the map, and bytes of it in use.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let info = self.env.info();
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        (
            info.map_size as u64,
            (info.last_page_number as u64 + 1) * page,
        )
    }
}

/// Map sizes are whole pages; 64 KiB is a multiple of every page size in use.
fn round_up(bytes: usize) -> usize {
    const STEP: usize = 64 << 10;
    bytes.div_ceil(STEP).saturating_mul(STEP)
}
