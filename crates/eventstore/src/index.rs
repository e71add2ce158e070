//! What stands in the indexes: the entries of a record, and the look-ups by which they are read.
//!
//! Takes a record's header and tags; gives the keys of every index that names it. Reading and writing agree because
//! both sides, and the store's check, get their keys here. Decides nothing about what is kept.

use std::ops::Bound;

use constellation_event::{CanonicalKey, KindClass};
use heed::{RoTxn, WithoutTls};

use crate::StoreError;
use crate::environment::{Table, Tables};
use crate::keys::{self, CoordinateKey, Sequence, Suffix};
use crate::record::{self, Header, Record, has_id};
use crate::store::read_record;

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

/// Looks an id up: the index holds its first 8 bytes, the record decides.
pub(crate) fn find_by_id<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_, WithoutTls>,
    id: &[u8; 32],
) -> Result<Option<Record<'t>>, StoreError> {
    find_by_id_unless(tables, txn, id, |_| false)
}

/// As [`find_by_id`], where the index still names records that are `gone`.
pub(crate) fn find_by_id_unless<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_, WithoutTls>,
    id: &[u8; 32],
    gone: impl Fn(Sequence) -> bool,
) -> Result<Option<Record<'t>>, StoreError> {
    let mut from = Sequence::default();
    while let Some(sequence) = next_with_prefix(tables, txn, id, from)? {
        from = sequence.next();
        if gone(sequence) {
            continue;
        }
        let bytes = record_named(tables, txn, sequence)?;
        if has_id(sequence, bytes, id)? {
            return Record::decode(sequence, bytes).map(Some);
        }
    }
    Ok(None)
}

/// The first record from number `from` on whose id begins as this one. Nearly always the only one.
pub(crate) fn next_with_prefix(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    id: &[u8; 32],
    from: Sequence,
) -> Result<Option<Sequence>, StoreError> {
    let start = keys::id_key(id, from);
    let Some((key, _)) = tables.by_id.get_greater_than_or_equal_to(txn, &start)? else {
        return Ok(None);
    };
    match key.split_at_checked(8) {
        Some((prefix, _)) if *prefix != id[..8] => Ok(None),
        Some((_, sequence)) => Sequence::from_key(sequence)
            .map(Some)
            .ok_or_else(|| StoreError::damaged("by_id: key of the wrong length")),
        None => Err(StoreError::damaged("by_id: key of the wrong length")),
    }
}

/// The bytes of a record that the index of ids names.
pub(crate) fn record_named<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_, WithoutTls>,
    sequence: Sequence,
) -> Result<&'t [u8], StoreError> {
    tables
        .records
        .get(txn, &sequence.key())?
        .ok_or_else(|| StoreError::damaged(format!("by_id: no record {}", sequence.0)))
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

/// The time up to which the versions of an address are deleted.
pub(crate) fn address_deleted_up_to(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    coordinate: &CoordinateKey,
) -> Result<Option<u64>, StoreError> {
    match tables.deleted_addresses.get(txn, coordinate)? {
        Some(value) => decode_address_tombstone(value),
        None => Ok(None),
    }
}

/// Time 5 ‖ 32 zeros: the time up to which an address is deleted. `None` for what says nothing of an address any more
/// ([`is_version_tombstone`]).
fn decode_address_tombstone(value: &[u8]) -> Result<Option<u64>, StoreError> {
    let (time, version) = parts_of_tombstone(value)?;
    Ok((version == [0; 32]).then(|| keys::time_from_key(time)))
}

pub(crate) fn encode_address_tombstone(until: u64) -> [u8; 37] {
    let mut value = [0; 37];
    value[..5].copy_from_slice(&keys::time_key(until));
    value
}

/// Whether a tombstone names a version instead of a time alone, as deletions by id once left them.
pub(crate) fn is_version_tombstone(value: &[u8]) -> Result<bool, StoreError> {
    let (_, version) = parts_of_tombstone(value)?;
    Ok(version != [0; 32])
}

fn parts_of_tombstone(value: &[u8]) -> Result<([u8; 5], [u8; 32]), StoreError> {
    let damaged = || StoreError::damaged("deleted_addresses: a value of the wrong length");
    let (time, version) = value.split_first_chunk::<5>().ok_or_else(damaged)?;
    Ok((*time, version.try_into().map_err(|_| damaged())?))
}

pub(crate) fn decode_time(value: Option<&[u8]>) -> Result<Option<u64>, StoreError> {
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
    Id(IdKey),
    Time(TimeKey),
    Author(AuthorKey),
    Kind(KindKey),
    Tag(TagKey),
    Canonical(CanonicalIndexKey),
    Expiry(ExpiryKey),
}

pub(crate) type IdKey = [u8; 8 + keys::SEQUENCE_LEN];
pub(crate) type TimeKey = [u8; keys::SUFFIX_LEN];
pub(crate) type AuthorKey = [u8; 6 + keys::SUFFIX_LEN];
pub(crate) type KindKey = [u8; 2 + keys::SUFFIX_LEN];
pub(crate) type TagKey = [u8; 9 + keys::SUFFIX_LEN];
pub(crate) type CanonicalIndexKey = [u8; keys::CANONICAL_LEN];
pub(crate) type ExpiryKey = [u8; 5 + keys::SEQUENCE_LEN];

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

    pub(crate) fn table(&self, tables: &Tables) -> Table {
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
pub(crate) fn index_keys(
    header: &Header,
    sequence: Sequence,
    tag_prefixes: &[[u8; 9]],
) -> impl Iterator<Item = IndexKey> {
    let suffix = Suffix::new(header.created_at, &header.id, sequence);
    let canonical = || {
        let key = keys::canonical_key(header.kind, header.created_at, &header.id);
        IndexKey::Canonical(key)
    };
    let of_header = [
        Some(IndexKey::Id(keys::id_key(&header.id, sequence))),
        Some(IndexKey::Time(suffix.0)),
        Some(IndexKey::Author(keys::author_key(
            header.author,
            header.kind,
            suffix,
        ))),
        Some(IndexKey::Kind(keys::kind_key(header.kind, suffix))),
        header.is_shared().then(canonical),
        header
            .expires_at
            .map(|at| IndexKey::Expiry(keys::expiry_key(at, sequence))),
    ];
    of_header.into_iter().flatten().chain(
        tag_prefixes
            .iter()
            .map(move |prefix| IndexKey::Tag(keys::tag_key(*prefix, suffix))),
    )
}
