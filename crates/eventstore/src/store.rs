//! The store as everyone but the writer sees it: snapshots to read from, and the ring of ephemeral events.
//!
//! A [`Snapshot`] is one read transaction with the segments that belong to it: the writer publishes a version
//! under its transaction's id before it commits, and keeps the last few, so what is read and what is summed up
//! always agree. Snapshots are short-lived by type: long work asks [`Snapshot::should_yield`] and resumes by key.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use constellation_event::{CanonicalKey, VerifiedEvent};

use crate::environment::{Environment, ReadTxn, Tables};
use crate::ephemeral::{EphemeralNews, EphemeralRing};
use crate::index::find_by_id;
use crate::keys::{self, AuthorNumber, Sequence};
use crate::old_tombstones;
use crate::record::Record;
use crate::segments::{Builder, Segments};
use crate::writer::Writer;
use crate::{OpenError, StoreError};

/// How long a snapshot may live. Older ones make the file grow by all that is written meanwhile (D2).
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(100);
/// How long a snapshot may live to answer one message of a reconciliation. It cannot be resumed: a machine too slow
/// for [`SNAPSHOT_AGE_MAX`] would never converge. What one message can ask for is bounded by its length.
const MESSAGE_AGE_MAX: Duration = Duration::from_secs(5);
/// When work on a snapshot should pause and resume on a new one.
const SLICE: Duration = Duration::from_millis(25);
/// Versions kept for readers that opened their transaction just before a commit.
const VERSIONS_KEPT: usize = 3;

/// Monotonic time, passed in: this crate has no clock.
pub type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Initial size of the memory map in bytes; it grows by itself.
    pub map_bytes: usize,
    /// Ephemeral events kept for live subscribers.
    pub ephemeral_events_max: usize,
    /// Their JSON in bytes.
    pub ephemeral_bytes_max: usize,
    /// Relay URLs that stand for this store in requests to vanish (NIP-62).
    pub own_urls: Vec<String>,
    /// Refusals remembered for all peers together, and overlay entries per peer.
    pub refused_max: u64,
    /// Overlay entries kept for one peer.
    pub overlay_max: u64,
    /// Keys that may be blocked, and ids.
    pub blocked_max: u64,
    /// Monotonic time.
    pub monotonic: Monotonic,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("map_bytes", &self.map_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, over a given clock.
    pub fn new(monotonic: Monotonic) -> Self {
        Self {
            map_bytes: 64 << 20,
            ephemeral_events_max: 4_096,
            ephemeral_bytes_max: 8 << 20,
            own_urls: Vec::new(),
            refused_max: 1_000_000,
            overlay_max: 200_000,
            blocked_max: 100_000,
            monotonic,
        }
    }
}

/// What a transaction id stands for.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) segments: Arc<Segments>,
    pub(crate) last_sequence: Sequence,
}

pub(crate) struct Shared {
    pub(crate) environment: Environment,
    pub(crate) options: Options,
    versions: Mutex<VecDeque<(usize, Version)>>,
    ephemeral: Mutex<EphemeralRing>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// A handle for reading. Cheap to clone; many may read at a time.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// Opens the store in `folder`, creating it if need be. There is exactly one [`Writer`] for it.
///
/// Reads the canonical index once, to build the segments: about 0.1 s per million events.
///
/// # Errors
/// See [`OpenError`]. Opening the same folder twice in a process is refused by the database.
pub fn open(folder: &Path, options: Options) -> Result<(Store, Writer), OpenError> {
    let environment = Environment::open(folder, options.map_bytes)?;
    let (txn_id, version, old) = {
        let txn = environment.read()?;
        let mut builder = Builder::default();
        for entry in environment
            .tables
            .canonical
            .iter(&txn)
            .map_err(StoreError::from)?
        {
            let (key, _) = entry.map_err(StoreError::from)?;
            let (kind, created_at, id) = keys::parse_canonical(key)
                .ok_or_else(|| StoreError::damaged("canonical index: key of the wrong length"))?;
            builder.push(kind, CanonicalKey { created_at, id });
        }
        let last_sequence = Writer::read_last_sequence(&environment.tables, &txn)?;
        (
            txn.id(),
            Version {
                segments: Arc::new(builder.finish()),
                last_sequence,
            },
            old_tombstones::find(&environment.tables, &txn)?,
        )
    };
    let shared = Arc::new(Shared {
        environment,
        versions: Mutex::new(VecDeque::from([(txn_id, version.clone())])),
        ephemeral: Mutex::new(EphemeralRing::default()),
        options,
    });
    let mut writer = Writer::new(Arc::clone(&shared), version)?;
    old_tombstones::replace(&mut writer, &old)?;
    Ok((Store { shared }, writer))
}

impl Shared {
    fn versions(&self) -> MutexGuard<'_, VecDeque<(usize, Version)>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `version` what readers of transaction `txn_id` see. Called before that transaction commits.
    pub(crate) fn publish(&self, txn_id: usize, version: Version) {
        let mut versions = self.versions();
        versions.retain(|(id, _)| *id != txn_id);
        versions.push_back((txn_id, version));
        while versions.len() > VERSIONS_KEPT {
            versions.pop_front();
        }
    }

    /// The transaction failed: nobody will ever read it, and a later one takes its id.
    pub(crate) fn retract(&self, txn_id: usize, previous: Version, previous_id: usize) {
        let mut versions = self.versions();
        versions.retain(|(id, _)| *id != txn_id);
        if !versions.iter().any(|(id, _)| *id == previous_id) {
            versions.push_back((previous_id, previous));
        }
    }

    pub(crate) fn push_ephemeral(&self, events: Vec<VerifiedEvent>) {
        let mut ring = self
            .ephemeral
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for event in events {
            ring.push(event, &self.options);
        }
    }
}

impl Store {
    /// A consistent view of the store as of the last commit.
    ///
    /// While the map is about to grow this waits for the snapshots of other threads to go.
    ///
    /// # Errors
    /// The database's; in particular too many readers at a time.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        // A transaction opened just before several commits can miss its version; the next one will not.
        for _ in 0..64 {
            let txn = self.shared.environment.read()?;
            let id = txn.id();
            let version = self
                .shared
                .versions()
                .iter()
                .find(|(txn_id, _)| *txn_id == id)
                .map(|(_, version)| version.clone());
            if let Some(version) = version {
                return Ok(Snapshot {
                    shared: &self.shared,
                    txn,
                    version,
                    opened: (self.shared.options.monotonic)(),
                });
            }
        }
        Err(StoreError::damaged("no segments for the last commit"))
    }

    /// Where the ring of ephemeral events stands: pass it to [`Store::ephemeral_since`] to hear what comes next.
    pub fn ephemeral_cursor(&self) -> u64 {
        self.shared
            .ephemeral
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cursor()
    }

    /// Ephemeral events after `cursor`, at most what the ring holds.
    pub fn ephemeral_since(&self, cursor: u64) -> EphemeralNews {
        self.shared
            .ephemeral
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .since(cursor)
    }

    /// Bytes of the memory map, and bytes in use; zero if the map was lost ([`StoreError::Unmapped`]).
    pub fn sizes(&self) -> (u64, u64) {
        self.shared.environment.sizes().unwrap_or_default()
    }
}

/// A consistent, short-lived view of the store.
pub struct Snapshot<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) txn: ReadTxn<'s>,
    pub(crate) version: Version,
    opened: Duration,
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("last_sequence", &self.last_sequence())
            .finish()
    }
}

impl Snapshot<'_> {
    pub(crate) fn tables(&self) -> &Tables {
        &self.shared.environment.tables
    }

    fn age(&self) -> Duration {
        (self.shared.options.monotonic)().saturating_sub(self.opened)
    }

    /// Whether work should pause here and resume on a new snapshot.
    pub fn should_yield(&self) -> bool {
        self.age() >= SLICE
    }

    /// Refuses to read on when the snapshot has outlived [`SNAPSHOT_AGE_MAX`].
    ///
    /// # Errors
    /// [`StoreError::SnapshotExpired`].
    pub fn check_age(&self) -> Result<(), StoreError> {
        if self.age() > SNAPSHOT_AGE_MAX {
            Err(StoreError::SnapshotExpired)
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_age_of_message(&self) -> Result<(), StoreError> {
        if self.age() > MESSAGE_AGE_MAX {
            Err(StoreError::SnapshotExpired)
        } else {
            Ok(())
        }
    }

    /// Number of the last record in this view.
    pub fn last_sequence(&self) -> Sequence {
        self.version.last_sequence
    }

    /// Number of events stored.
    ///
    /// # Errors
    /// The database's.
    pub fn event_count(&self) -> Result<u64, StoreError> {
        Ok(self.tables().records.len(&self.txn)?)
    }

    /// Whether a sweep at `now` (Unix seconds) would remove anything.
    ///
    /// # Errors
    /// The database's.
    pub fn needs_sweep(&self, now: u64) -> Result<bool, StoreError> {
        if self.tables().vanishing.first(&self.txn)?.is_some()
            || self.tables().moderating.first(&self.txn)?.is_some()
        {
            return Ok(true);
        }
        let end = keys::time_key(now.saturating_add(1));
        Ok(self
            .tables()
            .expiry
            .first(&self.txn)?
            .is_some_and(|(key, _)| key < &end[..]))
    }

    /// How many authors the store has ever heard of: those of events, and of what it will not have.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn authors_heard_of(&self) -> Result<u32, StoreError> {
        let Some((key, _)) = self.tables().author_keys.last(&self.txn)? else {
            return Ok(0);
        };
        let last = key.try_into().map(u32::from_be_bytes);
        let last = last.map_err(|_| StoreError::damaged("author_keys: key of the wrong length"))?;
        Ok(last.saturating_add(1))
    }

    /// The authors that it heard of after the first `after`, in that order, at most `at_most`.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn authors_heard_of_after(
        &self,
        after: u32,
        at_most: usize,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        let until = self.authors_heard_of()?;
        let numbers = (after..until).take(at_most);
        numbers
            .map(|number| self.author_key(AuthorNumber(number)))
            .collect()
    }

    /// Number of shared events of each kind.
    pub fn shared_by_kind(&self) -> Vec<(u16, u64)> {
        self.version
            .segments
            .kinds()
            .map(|(kind, segments)| (kind, segments.total().count))
            .collect()
    }

    /// The event with this id.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn by_id(&self, id: &[u8; 32]) -> Result<Option<Record<'_>>, StoreError> {
        find_by_id(self.tables(), &self.txn, id)
    }

    /// The author of a record of this snapshot.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn author_of(&self, record: &Record<'_>) -> Result<[u8; 32], StoreError> {
        self.author_key(record.header.author)
    }

    /// The record with this number, if it is still there.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn record(&self, sequence: Sequence) -> Result<Option<Record<'_>>, StoreError> {
        read_record(self.tables(), &self.txn, sequence)
    }

    /// Visits records in the order of commits (blocked ones left out), after `after`, until the visitor says stop or the slice is over.
    /// Gives the number to go on after, and whether the end was reached.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn scan_after(
        &self,
        after: Sequence,
        visit: &mut dyn FnMut(&Record<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(Sequence, bool), StoreError> {
        let start = after.next().key();
        let range = (
            std::ops::Bound::Included(&start[..]),
            std::ops::Bound::Unbounded,
        );
        let mut last = after;
        for (count, entry) in self.tables().records.range(&self.txn, &range)?.enumerate() {
            if count % 64 == 63 && self.should_yield() {
                return Ok((last, false));
            }
            let (key, value) = entry?;
            let sequence = Sequence::from_key(key)
                .ok_or_else(|| StoreError::damaged("records: key of the wrong length"))?;
            let record = Record::decode(sequence, value)?;
            last = sequence;
            if record.is_hidden() {
                continue;
            }
            let flow = visit(&record);
            if flow.is_break() {
                return Ok((last, false));
            }
        }
        Ok((last.max(self.last_sequence()), true))
    }

    pub(crate) fn author_number(
        &self,
        pubkey: &[u8; 32],
    ) -> Result<Option<AuthorNumber>, StoreError> {
        author_number(self.tables(), &self.txn, pubkey)
    }

    pub(crate) fn author_key(&self, author: AuthorNumber) -> Result<[u8; 32], StoreError> {
        author_key(self.tables(), &self.txn, author)
    }
}

pub(crate) fn author_key(
    tables: &Tables,
    txn: &heed::RoTxn<'_, heed::WithoutTls>,
    author: AuthorNumber,
) -> Result<[u8; 32], StoreError> {
    tables
        .author_keys
        .get(txn, &author.0.to_be_bytes())?
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| StoreError::damaged(format!("author {} has no key", author.0)))
}

pub(crate) fn author_number(
    tables: &Tables,
    txn: &heed::RoTxn<'_, heed::WithoutTls>,
    pubkey: &[u8; 32],
) -> Result<Option<AuthorNumber>, StoreError> {
    match tables.authors.get(txn, pubkey)? {
        None => Ok(None),
        Some(number) => {
            let number = number
                .try_into()
                .map_err(|_| StoreError::damaged("authors: number of the wrong length"))?;
            Ok(Some(AuthorNumber(u32::from_be_bytes(number))))
        }
    }
}

pub(crate) fn read_record<'t>(
    tables: &Tables,
    txn: &'t heed::RoTxn<'_, heed::WithoutTls>,
    sequence: Sequence,
) -> Result<Option<Record<'t>>, StoreError> {
    tables
        .records
        .get(txn, &sequence.key())?
        .map(|bytes| Record::decode(sequence, bytes))
        .transpose()
}
