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
use crate::record::{self, Header, Record};
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
    pub(crate) fn place(&self) -> u8 {
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

    pub(crate) fn into_entries(self) -> Vec<IndexKey> {
        self.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IndexKey> {
        self.0.iter()
    }
}
