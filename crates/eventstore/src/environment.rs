//! The LMDB environment: opening, the databases' names, the map that grows, and snapshots to read from.
//!
//! The only file with `unsafe`: LMDB must be opened by one process at a time (the station's kernel lock sees to
//! that) and resized while nobody reads (the [`Gate`] sees to that: every [`ReadTxn`] is counted, and whatever else
//! looks at the map). Pages that a transaction changed wait in memory, at most 4,095 of them (16 MB; a feature of the
//! library, set in Cargo.toml): what is over goes to the file early, where nothing refers to it before the commit.
//! Not through a writable map: there a full disk is a signal, not an error. Worst case: growing waits for the longest
//! snapshot, at most its deadline.

use std::cell::Cell;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};

use crate::error::is_disk_full;
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
    pub(crate) blocked_authors: Table,
    pub(crate) blocked_events: Table,
    pub(crate) moderating: Table,
}

const TABLE_NAMES: [&str; 24] = [
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
    "blocked_authors",
    "blocked_events",
    "moderating",
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
            blocked_authors,
            blocked_events,
            moderating,
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
            blocked_authors,
            blocked_events,
            moderating,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    folder: PathBuf,
    pub(crate) tables: Tables,
    gate: Gate,
}

/// A read transaction that keeps the map from being resized under it.
pub(crate) struct ReadTxn<'e> {
    txn: RoTxn<'e, WithoutTls>, // goes before its pass
    _pass: Pass<'e>,
}

/// Lets readers in, or the one that resizes.
///
/// Not a `RwLock`: there a thread that holds a snapshot and opens another one waits for ever as soon as somebody
/// waits to resize. Here readers give way to a waiting resize, but not those whose thread it is waiting for.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    readers: usize,
    resize_waits: bool,
    /// Resizing failed half-way: LMDB has no map any more, and would follow a null pointer.
    unmapped: bool,
}

thread_local! {
    /// Passes that this thread holds.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Stays on its thread, as the count does.
struct Pass<'g>(&'g Gate, PhantomData<*const ()>);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
        let mut state = self.0.lock();
        state.readers -= 1;
        if state.readers == 0 && state.resize_waits {
            self.0.changed.notify_all();
        }
    }
}

impl Gate {
    /// A panic elsewhere leaves no count half-done, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Pass<'_>, StoreError> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.resize_waits && HELD.get() == 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_mapped()?;
        state.readers += 1;
        HELD.set(HELD.get() + 1);
        Ok(Pass(self, PhantomData))
    }

    /// Runs `resize` while nobody reads, and nobody can begin to.
    fn alone(&self, resize: impl FnOnce() -> heed::Result<()>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.resize_waits = true;
        let mut state = self
            .changed
            .wait_while(state, |state| state.readers > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.resize_waits = false;
        let resized = resize();
        state.unmapped = resized.is_err();
        self.changed.notify_all();
        Ok(resized?)
    }
}

impl GateState {
    fn is_mapped(&self) -> Result<(), StoreError> {
        if self.unmapped {
            return Err(StoreError::Unmapped);
        }
        Ok(())
    }
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
        let env = unsafe { options.open(folder) }.map_err(not_a_store)?;
        let is_new = env.info().last_txn_id == 0;

        let txn = env.write_txn()?;
        let opened = env
            .create_databases_and_commit::<_, _, _, OpenError>(txn, |opener, txn| {
                let mut tables = Vec::with_capacity(TABLE_NAMES.len());
                for name in TABLE_NAMES {
                    let table = opener.create_database::<Bytes, Bytes>(txn, Some(name));
                    tables.push(table.map_err(not_a_store)?);
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
            folder: folder.to_owned(),
            tables: Tables::from_array(opened),
            gate: Gate::default(),
        })
    }

    pub(crate) fn read(&self) -> Result<ReadTxn<'_>, StoreError> {
        let pass = self.gate.enter()?;
        Ok(ReadTxn {
            txn: self.env.read_txn()?,
            _pass: pass,
        })
    }

    /// A write transaction. Only the one writer calls this, and it is the one that resizes: no lock is needed.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>, StoreError> {
        self.gate.lock().is_mapped()?;
        Ok(self.env.write_txn()?)
    }

    /// Makes the map half as large again; more each time that was not enough. The writer must have no transaction
    /// open.
    pub(crate) fn grow(&self, attempt: u32) -> Result<(), StoreError> {
        self.gate.alone(|| {
            let now = self.env.info().map_size;
            let larger = now.saturating_add((now / 2).saturating_mul(1 << attempt.min(8)));
            // SAFETY: no transaction is open: readers hold a pass for as long as theirs lives, and the only
            // writer is the caller, which has none. If it fails, the gate lets nobody near LMDB again.
            #[allow(unsafe_code)]
            unsafe {
                self.env.resize(round_up(larger))
            }
        })
    }

    /// Grows before a transaction that may take this many bytes more, so that it need not run a second time.
    pub(crate) fn grow_ahead(&self, bytes: u64) -> Result<(), StoreError> {
        let (map, used) = self.sizes()?;
        if map.saturating_sub(used) < bytes {
            self.grow(0)?;
        }
        Ok(())
    }

    /// Whether there is no room to write more. Asked after LMDB could write a part only, which it calls an I/O error:
    /// what writes there next learns why. A file with a hole as long as the data meets every limit that those met.
    pub(crate) fn has_no_room(&self) -> bool {
        const PROBE_BYTES: usize = 1 << 20;
        let path = self.folder.join("room.tmp");
        let probe = || {
            let data = std::fs::metadata(self.folder.join("data.mdb"))?.len();
            let mut file = File::create(&path)?;
            file.seek(SeekFrom::Start(data))?;
            file.write_all(&vec![0; PROBE_BYTES])?;
            file.sync_data()
        };
        let probed: std::io::Result<()> = probe();
        // What is left of it is overwritten by the next probe.
        let _ = std::fs::remove_file(&path);
        probed.is_err_and(|error| is_disk_full(&error))
    }

    /// Bytes of the map, and bytes of it in use.
    pub(crate) fn sizes(&self) -> Result<(u64, u64), StoreError> {
        // LMDB reads both from the map, which a resize would pull away.
        let _pass = self.gate.enter()?;
        let info = self.env.info();
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        Ok((
            info.map_size as u64,
            (info.last_page_number as u64 + 1) * page,
        ))
    }
}

/// Puts keys with empty values, ascending. One cursor for all of them: a key that belongs on the page of the one before
/// it is put there without a walk from the root.
pub(crate) fn put_ascending<const N: usize>(
    table: Table,
    txn: &mut RwTxn<'_>,
    keys: &[[u8; N]],
) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut cursor = table.iter_mut(txn)?;
    for key in keys {
        // SAFETY: the caller's keys are no references into the database. Without a flag LMDB looks the key up by
        // itself, so it does not matter which entry the cursor stands on.
        #[allow(unsafe_code)]
        unsafe {
            cursor.put_current_with_options::<Bytes>(PutFlags::empty(), key, &[])?;
        }
    }
    Ok(())
}

/// What LMDB says to a file that is none of its, or to one that somebody else made.
fn not_a_store(error: heed::Error) -> OpenError {
    match error {
        heed::Error::Mdb(
            heed::MdbError::Invalid
            | heed::MdbError::VersionMismatch
            | heed::MdbError::Incompatible,
        ) => OpenError::NotAStore,
        other => other.into(),
    }
}

/// Map sizes are whole pages; 64 KiB is a multiple of every page size in use.
fn round_up(bytes: usize) -> usize {
    const STEP: usize = 64 << 10;
    bytes.div_ceil(STEP).saturating_mul(STEP)
}
