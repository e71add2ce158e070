//! Whether the store is consistent: every index and every segment equals a rebuild from the records.
//!
//! Reads everything once, in one long snapshot: meant for a store that is at rest, or rarely. Equality is shown by
//! counting: each entry a record should have is there, and no index has more entries than all records together.
//! Repairs nothing.

use std::collections::BTreeMap;

use constellation_event::{EventLimits, UnverifiedEvent};

use crate::StoreError;
use crate::environment::Table;
use crate::index::{IndexKey, address_deleted_up_to, coordinate_of_record, index_keys};
use crate::keys::{self, Sequence};
use crate::record::{Record, indexed_tags_of_record};
use crate::segments::ITEMS_MAX;
use crate::store::{Snapshot, Store, author_key};

/// Problems named one by one; beyond that they are only counted.
const PROBLEMS_NAMED_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Events looked at.
    pub events: u64,
    /// Segments compared with the events they sum up.
    pub segments: u64,
    /// What is wrong, in words; at most 100.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problems_total: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_consistent(&self) -> bool {
        self.problems_total == 0
    }

    fn problem(&mut self, what: impl FnOnce() -> String) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_NAMED_MAX {
            self.problems.push(what());
        }
    }
}

/// Checks everything; with `signatures`, also that every stored event verifies.
///
/// # Errors
/// The database's. What is inconsistent is in the report instead.
pub fn check(store: &Store, signatures: bool) -> Result<CheckReport, StoreError> {
    let snapshot = store.snapshot()?;
    let mut report = CheckReport::default();
    let mut expected: BTreeMap<&'static str, u64> = BTreeMap::new();
    let limits = EventLimits {
        bytes_max: usize::MAX,
        tags_max: usize::MAX,
    };
    for entry in snapshot.tables().records.iter(&snapshot.txn)? {
        let (key, value) = entry?;
        let Some(sequence) = Sequence::from_key(key) else {
            report.problem(|| format!("records: a key of {} bytes", key.len()));
            continue;
        };
        report.events += 1;
        if sequence > snapshot.last_sequence() {
            report.problem(|| format!("record {} is beyond the last number", sequence.0));
        }
        match Record::decode(sequence, value) {
            Ok(record) => {
                check_record(&snapshot, &record, &mut expected, &mut report)?;
                if signatures {
                    check_signature(&record, &limits, &mut report);
                }
            }
            Err(error) => report.problem(|| error.to_string()),
        }
    }
    for (name, table) in indexes(&snapshot) {
        let (found, wanted) = (
            table.len(&snapshot.txn)?,
            expected.get(name).copied().unwrap_or_default(),
        );
        if found != wanted {
            report.problem(|| format!("{name}: {found} entries where {wanted} belong"));
        }
    }
    check_segments(&snapshot, &mut report)?;
    check_overlays(&snapshot, &mut report)?;
    Ok(report)
}

fn indexes(snapshot: &Snapshot<'_>) -> [(&'static str, Table); 8] {
    let tables = snapshot.tables();
    [
        ("by_id", tables.by_id),
        ("by_time", tables.by_time),
        ("by_author", tables.by_author),
        ("by_kind", tables.by_kind),
        ("by_tag", tables.by_tag),
        ("canonical", tables.canonical),
        ("expiry", tables.expiry),
        ("coordinates", tables.coordinates),
    ]
}

fn name_of(key: &IndexKey) -> &'static str {
    match key {
        IndexKey::Id(_) => "by_id",
        IndexKey::Time(_) => "by_time",
        IndexKey::Author(_) => "by_author",
        IndexKey::Kind(_) => "by_kind",
        IndexKey::Tag(_) => "by_tag",
        IndexKey::Canonical(_) => "canonical",
        IndexKey::Expiry(_) => "expiry",
    }
}

fn check_record(
    snapshot: &Snapshot<'_>,
    record: &Record<'_>,
    expected: &mut BTreeMap<&'static str, u64>,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    let (tables, txn) = (snapshot.tables(), &snapshot.txn);
    let sequence = record.sequence();
    let parts = match record.parse() {
        Ok(parts) => parts,
        Err(error) => {
            report.problem(|| error.to_string());
            return Ok(());
        }
    };
    let prefixes = indexed_tags_of_record(&parts.tags);
    for key in index_keys(&record.header, sequence, &prefixes) {
        *expected.entry(name_of(&key)).or_default() += 1;
        if key.table(tables).get(txn, key.bytes())?.is_none() {
            report.problem(|| format!("record {} is missing from {}", sequence.0, name_of(&key)));
        }
    }
    let author = author_key(tables, txn, record.header.author)
        .map(|key| nostr::key::PublicKey::from_byte_array(key).to_hex());
    if author.as_deref().ok() != Some(parts.pubkey.as_ref()) {
        report.problem(|| format!("record {} has another author than its header", sequence.0));
    }
    if let Some(coordinate) = coordinate_of_record(record, &parts) {
        *expected.entry("coordinates").or_default() += 1;
        if tables.coordinates.get(txn, &coordinate)? != Some(&sequence.key()[..]) {
            report.problem(|| format!("record {} is not the one at its address", sequence.0));
        }
        let deleted = address_deleted_up_to(tables, txn, &coordinate)?;
        if deleted.is_some_and(|until| record.created_at() <= until) {
            report.problem(|| {
                format!(
                    "record {} is stored though its address is deleted",
                    sequence.0
                )
            });
        }
    }
    if author.is_ok() && snapshot.is_hidden_rightly(&record.header)? == Some(false) {
        report.problem(|| {
            format!(
                "record {} is not hidden as the list of what is blocked says",
                sequence.0
            )
        });
    }
    let tombstone = keys::deleted_id_key(record.id(), record.header.author);
    if !matches!(record.kind(), 5 | 62) && tables.deleted_ids.get(txn, &tombstone)?.is_some() {
        report.problem(|| format!("record {} is stored though it is deleted", sequence.0));
    }
    Ok(())
}

fn check_signature(record: &Record<'_>, limits: &EventLimits, report: &mut CheckReport) {
    let verified = UnverifiedEvent::parse(record.json().as_bytes(), limits)
        .and_then(|event| event.verify().map_err(|(_, reason)| reason));
    match verified {
        Ok(event)
            if event.id() == *record.id()
                && event.created_at() == record.created_at()
                && event.kind() == record.kind() => {}
        Ok(_) => {
            report.problem(|| format!("record {} differs from its header", record.sequence().0))
        }
        Err(reason) => {
            report.problem(|| format!("record {} does not verify: {reason}", record.sequence().0))
        }
    }
}

fn check_segments(snapshot: &Snapshot<'_>, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut summed = 0;
    for (kind, segments) in snapshot.version.segments.kinds() {
        let all: Vec<_> = segments.iter().collect();
        for (index, segment) in all.iter().enumerate() {
            let end = all.get(index + 1).map(|next| next.first);
            let mut found = constellation_reconcile::Summary::default();
            for item in crate::index::canonical_range(
                snapshot.tables(),
                &snapshot.txn,
                kind,
                segment.first,
                end,
            )? {
                found.add(&item?.id);
            }
            report.segments += 1;
            summed += segment.summary.count;
            if found != segment.summary {
                report.problem(|| format!("kind {kind}: segment {index} sums up something else"));
            }
            if segment.summary.count > ITEMS_MAX {
                report.problem(|| format!("kind {kind}: segment {index} is too large"));
            }
        }
    }
    let stored = snapshot.tables().canonical.len(&snapshot.txn)?;
    if summed != stored {
        report.problem(|| format!("segments sum up {summed} events, {stored} are shared"));
    }
    Ok(())
}

fn check_overlays(snapshot: &Snapshot<'_>, report: &mut CheckReport) -> Result<(), StoreError> {
    let (tables, txn) = (snapshot.tables(), &snapshot.txn);
    for (name, entries, order) in [
        ("refused", tables.refused, tables.refused_order),
        ("overlay", tables.overlay, tables.overlay_order),
    ] {
        let (entries, order) = (entries.len(txn)?, order.len(txn)?);
        if entries != order {
            report
                .problem(|| format!("{name}: {entries} entries, {order} in the order of eviction"));
        }
    }
    Ok(())
}
