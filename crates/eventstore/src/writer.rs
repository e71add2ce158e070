//! The one writer: transactions that change records, indexes, tombstones and segments together.
//!
//! [`Writer::transact`] runs a closure in a write transaction, publishes the segments that result, commits
//! (durable when it returns) and only then lets ephemeral events go. When the memory map is full it grows and
//! the closure runs again, so it must not count on running once. Any error leaves the store as it was.
//! There is one `Writer` per store, it is not `Clone`, and nothing else opens a write transaction.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use constellation_event::{CanonicalKey, VerifiedEvent};
use heed::{PutFlags, RoTxn, RwTxn, WithoutTls};

use crate::StoreError;
use crate::environment::Tables;
use crate::keys::{self, AuthorNumber, CoordinateKey, Sequence, Suffix};
use crate::record::{self, Header, Record};
use crate::rules::{KIND_GIFT_WRAP, KIND_VANISH};
use crate::segments::Change;
use crate::store::{Options, Shared, Version, author_key, author_number, find_by_id, read_record};

const META_LAST_SEQUENCE: &[u8] = b"last_sequence";
/// Authors remembered with their numbers, so that a busy author is not looked up for each event.
const AUTHORS_CACHED_MAX: usize = 65_536;

/// The only way to change the store.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    version: Version,
    authors: HashMap<[u8; 32], AuthorNumber>,
}

/// A transaction that is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Committed<R> {
    /// What the closure gave.
    pub value: R,
    /// Number of the last record now.
    pub last_sequence: Sequence,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Events whose expiration has passed.
    pub expired: u64,
    /// Events of authors who asked to vanish.
    pub vanished: u64,
    /// More is to be done: sweep again.
    pub unfinished: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, version: Version) -> Result<Self, StoreError> {
        Ok(Self {
            shared,
            version,
            authors: HashMap::new(),
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
        for attempt in 0.. {
            match self.attempt(&mut work) {
                Err(error) if error.is_map_full() => environment.grow(attempt)?,
                Err(error) if error.is_short_write() && environment.has_no_room() => {
                    return Err(StoreError::DiskFull);
                }
                other => return other,
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
        let mut transaction = Transaction {
            txn: shared.environment.write()?,
            tables: &shared.environment.tables,
            options: &shared.options,
            known_authors: std::mem::take(&mut self.authors),
            new_authors: HashMap::new(),
            pending: Pending::default(),
            changes: Vec::new(),
            last_sequence: self.version.last_sequence,
            ephemeral: Vec::new(),
        };
        let value = work(&mut transaction)?;
        transaction.flush()?;
        let Transaction {
            mut txn,
            tables,
            changes,
            last_sequence,
            ephemeral,
            known_authors,
            new_authors,
            ..
        } = transaction;
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

/// Items of a kind in `[from, to)`, ascending.
pub(crate) fn read_canonical(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    kind: u16,
    from: CanonicalKey,
    to: Option<CanonicalKey>,
) -> Result<Vec<CanonicalKey>, StoreError> {
    let mut items = Vec::new();
    for entry in canonical_range(tables, txn, kind, from, to)? {
        items.push(entry?);
    }
    Ok(items)
}

pub(crate) fn canonical_range<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_, WithoutTls>,
    kind: u16,
    from: CanonicalKey,
    to: Option<CanonicalKey>,
) -> Result<impl Iterator<Item = Result<CanonicalKey, StoreError>> + use<'t>, StoreError> {
    let start = keys::canonical_key(kind, from.created_at, &from.id);
    let end = match to {
        Some(to) => Bound::Excluded(keys::canonical_key(kind, to.created_at, &to.id)),
        None => Bound::Included(keys::canonical_key(kind, keys::TIME_MAX, &[0xff; 32])),
    };
    let end = match &end {
        Bound::Excluded(key) => Bound::Excluded(&key[..]),
        Bound::Included(key) => Bound::Included(&key[..]),
        Bound::Unbounded => Bound::Unbounded,
    };
    let range = (Bound::Included(&start[..]), end);
    Ok(tables.canonical.range(txn, &range)?.map(|entry| {
        let (key, _) = entry?;
        let (_, created_at, id) = keys::parse_canonical(key)
            .ok_or_else(|| StoreError::damaged("canonical index: key of the wrong length"))?;
        Ok(CanonicalKey { created_at, id })
    }))
}

/// Index entries that wait to be written in the order of their keys: at random, each would be looked for all over
/// its tree. Their records are written already.
#[derive(Default)]
struct Pending {
    entries: Vec<(Sequence, IndexKey)>,
    ids: HashMap<[u8; 32], Sequence>,
    /// Removed again before they were written.
    dropped: HashSet<Sequence>,
}

/// What went with a record.
pub(crate) struct Removed {
    pub(crate) key: CanonicalKey,
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
    pub(crate) ephemeral: Vec<VerifiedEvent>,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("last_sequence", &self.last_sequence)
            .finish()
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
        if let Some(sequence) = self.pending.ids.get(id) {
            return read_record(self.tables, &self.txn, *sequence);
        }
        find_by_id(self.tables, &self.txn, id)
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
        let sequence = self.last_sequence.next();
        let tables = self.tables;
        let txn = &mut self.txn;
        // Appending fills pages to the end; the largest number so far is always the last key.
        tables.records.put_with_flags(
            txn,
            PutFlags::APPEND,
            &sequence.key(),
            &header.encode_with(event.json()),
        )?;
        let keys = IndexKeys::of(header, sequence, &record::indexed_tags_of_event(event));
        self.pending
            .entries
            .extend(keys.0.into_iter().map(|key| (sequence, key)));
        self.pending.ids.insert(header.id, sequence);
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
        let txn = &mut self.txn;
        if self.pending.ids.remove(&header.id).is_some() {
            self.pending.dropped.insert(sequence);
        } else {
            for key in IndexKeys::of(&header, sequence, &prefixes).iter() {
                if !key.table(tables).delete(txn, key.bytes())? {
                    return Err(StoreError::damaged(format!(
                        "record {} is missing from an index",
                        sequence.0
                    )));
                }
            }
        }
        if let Some(coordinate) = coordinate {
            tables.coordinates.delete(txn, &coordinate)?;
        }
        tables.records.delete(txn, &sequence.key())?;
        self.note_change(&header, false);
        Ok(Removed {
            key: CanonicalKey {
                created_at: header.created_at,
                id: header.id,
            },
            coordinate,
        })
    }

    /// Writes the index entries that wait. Whoever reads an index but by id or coordinate calls this first.
    fn flush(&mut self) -> Result<(), StoreError> {
        let Pending {
            mut entries,
            dropped,
            ..
        } = std::mem::take(&mut self.pending);
        entries
            .sort_unstable_by(|(_, a), (_, b)| (a.place(), a.bytes()).cmp(&(b.place(), b.bytes())));
        for (sequence, key) in entries {
            if !dropped.contains(&sequence) {
                key.table(self.tables)
                    .put(&mut self.txn, key.bytes(), &[])?;
            }
        }
        Ok(())
    }

    fn note_change(&mut self, header: &Header, inserted: bool) {
        if !header.unshared {
            let position = CanonicalKey {
                created_at: header.created_at,
                id: header.id,
            };
            self.changes.push(Change {
                kind: header.kind,
                position,
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

    /// The last version of an address that is deleted, with all before it.
    pub(crate) fn address_deleted_up_to(
        &self,
        coordinate: &CoordinateKey,
    ) -> Result<Option<CanonicalKey>, StoreError> {
        self.tables
            .deleted_addresses
            .get(&self.txn, coordinate)?
            .map(decode_address_tombstone)
            .transpose()
    }

    pub(crate) fn put_address_tombstone(
        &mut self,
        coordinate: &CoordinateKey,
        last: &CanonicalKey,
    ) -> Result<(), StoreError> {
        let value = [&keys::time_key(last.created_at)[..], &last.id].concat();
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

    /// Removes what has expired by `now` and what authors who vanished left, at most `events_max` events.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn sweep(&mut self, now: u64, events_max: usize) -> Result<SweepReport, StoreError> {
        self.flush()?;
        let mut report = SweepReport::default();
        let expired = self.expired_records(now, events_max)?;
        for sequence in &expired {
            self.remove(*sequence)?;
        }
        report.expired = expired.len() as u64;
        let mut room = events_max - expired.len();
        for (author, until) in self.vanishing_authors()? {
            let (left_behind, finished) = self.records_until(author, until, room)?;
            room -= left_behind.len();
            report.vanished += left_behind.len() as u64;
            for sequence in left_behind {
                self.remove(sequence)?;
            }
            if !finished {
                break;
            }
            self.tables
                .vanishing
                .delete(&mut self.txn, &author.0.to_be_bytes())?;
        }
        report.unfinished = room == 0 && events_max > 0;
        Ok(report)
    }

    fn expired_records(&self, now: u64, events_max: usize) -> Result<Vec<Sequence>, StoreError> {
        let end = keys::time_key(now.saturating_add(1));
        let range = (Bound::Unbounded, Bound::Excluded(&end[..]));
        let mut expired = Vec::new();
        for entry in self
            .tables
            .expiry
            .range(&self.txn, &range)?
            .take(events_max)
        {
            let (key, _) = entry?;
            expired.push(
                key.get(5..)
                    .and_then(Sequence::from_key)
                    .ok_or_else(|| StoreError::damaged("expiry: key of the wrong length"))?,
            );
        }
        Ok(expired)
    }

    fn vanishing_authors(&self) -> Result<Vec<(AuthorNumber, u64)>, StoreError> {
        let mut authors = Vec::new();
        for entry in self.tables.vanishing.iter(&self.txn)? {
            let (key, until) = entry?;
            let author = key
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| StoreError::damaged("vanishing: key of the wrong length"))?;
            authors.push((
                AuthorNumber(author),
                decode_time(Some(until))?.unwrap_or_default(),
            ));
        }
        Ok(authors)
    }

    /// Up to `events_max` events of `author` not newer than `until`, requests to vanish left out.
    fn records_until(
        &self,
        author: AuthorNumber,
        until: u64,
        events_max: usize,
    ) -> Result<(Vec<Sequence>, bool), StoreError> {
        let mut found = Vec::new();
        for entry in self
            .tables
            .by_author
            .prefix_iter(&self.txn, &author.0.to_be_bytes())?
        {
            let (key, _) = entry?;
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?;
            let kind = u16::from_be_bytes([key[4], key[5]]);
            if kind == KIND_VANISH || suffix.created_at() > until {
                continue;
            }
            if found.len() == events_max {
                return Ok((found, false));
            }
            found.push(suffix.sequence());
        }
        // Gift wraps are signed by throw-away keys: those for the author go too (NIP-62).
        let pubkey = author_key(self.tables, &self.txn, author)?;
        let addressee = nostr::key::PublicKey::from_byte_array(pubkey).to_hex();
        let prefix = keys::tag_prefix(b'p', &addressee);
        let newest = keys::tag_key(prefix, Suffix::newest_at(until));
        let oldest = keys::tag_key(prefix, Suffix([0xff; keys::SUFFIX_LEN]));
        let range = (Bound::Included(&newest[..]), Bound::Included(&oldest[..]));
        for entry in self.tables.by_tag.range(&self.txn, &range)? {
            let (key, _) = entry?;
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_tag: key of the wrong length"))?;
            if !self.is_gift_from_another(suffix.sequence(), author, &addressee)? {
                continue;
            }
            if found.len() == events_max {
                return Ok((found, false));
            }
            found.push(suffix.sequence());
        }
        Ok((found, true))
    }

    fn is_gift_from_another(
        &self,
        sequence: Sequence,
        author: AuthorNumber,
        addressee: &str,
    ) -> Result<bool, StoreError> {
        let Some(record) = read_record(self.tables, &self.txn, sequence)? else {
            return Ok(false);
        };
        if record.kind() != KIND_GIFT_WRAP || record.header.author == author {
            return Ok(false);
        }
        Ok(record.parse()?.tags.0.iter().any(
            |tag| matches!(tag.as_slice(), [name, value, ..] if name == "p" && value == addressee),
        ))
    }
}

pub(crate) fn at_coordinate(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    coordinate: &CoordinateKey,
) -> Result<Option<(Sequence, CanonicalKey)>, StoreError> {
    let Some(value) = tables.coordinates.get(txn, coordinate)? else {
        return Ok(None);
    };
    let sequence = Sequence::from_key(value)
        .ok_or_else(|| StoreError::damaged("coordinates: number of the wrong length"))?;
    let record = read_record(tables, txn, sequence)?
        .ok_or_else(|| StoreError::damaged(format!("coordinates: no record {}", sequence.0)))?;
    Ok(Some((
        sequence,
        CanonicalKey {
            created_at: record.created_at(),
            id: *record.id(),
        },
    )))
}

pub(crate) fn coordinate_of_record(
    record: &Record<'_>,
    parts: &record::AuthorAndTags<'_>,
) -> Option<CoordinateKey> {
    use constellation_event::KindClass;
    let identifier = match KindClass::of(record.kind()) {
        KindClass::Addressable => parts
            .tags
            .0
            .iter()
            .find(|tag| tag.first().is_some_and(|name| name == "d"))
            .and_then(|tag| tag.get(1))
            .map_or("", |value| value.as_ref()),
        KindClass::Replaceable => "",
        KindClass::Regular | KindClass::Ephemeral => return None,
    };
    Some(keys::coordinate_key(
        record.header.author,
        record.kind(),
        identifier,
    ))
}

/// Time 5 ‖ id 32.
pub(crate) fn decode_address_tombstone(value: &[u8]) -> Result<CanonicalKey, StoreError> {
    let damaged = || StoreError::damaged("deleted_addresses: a value of the wrong length");
    let (time, id) = value.split_at_checked(5).ok_or_else(damaged)?;
    let time: [u8; 5] = time.try_into().map_err(|_| damaged())?;
    Ok(CanonicalKey {
        created_at: keys::time_from_key(time),
        id: id.try_into().map_err(|_| damaged())?,
    })
}

fn decode_time(value: Option<&[u8]>) -> Result<Option<u64>, StoreError> {
    value
        .map(|bytes| {
            let bytes: [u8; 5] = bytes
                .try_into()
                .map_err(|_| StoreError::damaged("a tombstone's time has the wrong length"))?;
            Ok(keys::time_from_key(bytes))
        })
        .transpose()
}

/// One entry of one index.
pub(crate) enum IndexKey {
    Id([u8; 8 + keys::SEQUENCE_LEN]),
    Time([u8; keys::SUFFIX_LEN]),
    Author([u8; 6 + keys::SUFFIX_LEN]),
    Kind([u8; 2 + keys::SUFFIX_LEN]),
    Tag([u8; 9 + keys::SUFFIX_LEN]),
    Canonical([u8; keys::CANONICAL_LEN]),
    Expiry([u8; 5 + keys::SEQUENCE_LEN]),
}

impl IndexKey {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Id(key) => key,
            Self::Time(key) => key,
            Self::Author(key) => key,
            Self::Kind(key) => key,
            Self::Tag(key) => key,
            Self::Canonical(key) => key,
            Self::Expiry(key) => key,
        }
    }

    /// Which index, as a number to sort by.
    fn place(&self) -> u8 {
        match self {
            Self::Id(_) => 0,
            Self::Time(_) => 1,
            Self::Author(_) => 2,
            Self::Kind(_) => 3,
            Self::Tag(_) => 4,
            Self::Canonical(_) => 5,
            Self::Expiry(_) => 6,
        }
    }

    pub(crate) fn table(&self, tables: &Tables) -> crate::environment::Table {
        match self {
            Self::Id(_) => tables.by_id,
            Self::Time(_) => tables.by_time,
            Self::Author(_) => tables.by_author,
            Self::Kind(_) => tables.by_kind,
            Self::Tag(_) => tables.by_tag,
            Self::Canonical(_) => tables.canonical,
            Self::Expiry(_) => tables.expiry,
        }
    }
}

/// Every index entry of a record, but its coordinate (which belongs to the newest version alone).
pub(crate) struct IndexKeys(Vec<IndexKey>);

impl IndexKeys {
    pub(crate) fn of(header: &Header, sequence: Sequence, tag_prefixes: &[[u8; 9]]) -> Self {
        let suffix = Suffix::new(header.created_at, &header.id, sequence);
        let mut keys = Vec::with_capacity(6 + tag_prefixes.len());
        keys.push(IndexKey::Id(keys::id_key(&header.id, sequence)));
        keys.push(IndexKey::Time(suffix.0));
        keys.push(IndexKey::Author(keys::author_key(
            header.author,
            header.kind,
            suffix,
        )));
        keys.push(IndexKey::Kind(keys::kind_key(header.kind, suffix)));
        if !header.unshared {
            keys.push(IndexKey::Canonical(keys::canonical_key(
                header.kind,
                header.created_at,
                &header.id,
            )));
        }
        if let Some(expires_at) = header.expires_at {
            keys.push(IndexKey::Expiry(keys::expiry_key(expires_at, sequence)));
        }
        keys.extend(
            tag_prefixes
                .iter()
                .map(|prefix| IndexKey::Tag(keys::tag_key(*prefix, suffix))),
        );
        Self(keys)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IndexKey> {
        self.0.iter()
    }
}
