//! Offering events to a home relay through its own import: written in batches, each read back, what is missing then
//! remembered.
//!
//! Takes findings when they are whole, in order of time, and a [`HomeWriter`]. **An event counts as uploaded only when
//! a reconciliation of the batch's span of time, after the import, no longer finds it missing**: neither the exit code nor
//! the counts are believed by themselves. (Not a REQ by ids: strfry omits private messages from those, but lists them.)
//! What is missing although the import came to its end enters the peer's overlay like a refusal, for a while, and is
//! named in the report; why follows from the import's counts and the event's kind. Where more is missing than the import says
//! it did not take, none of that is remembered: the next pass tries again, and names what is still missing then. Where
//! nothing at all is there, or the import fails, that ends the exchange, and the batch counts for nothing. Never sends an EVENT. Bounded: events and bytes of a batch. Worst case: the importer's deadline for each
//! batch, under the exchange's.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use constellation_event::{CanonicalKey, KindClass};
use constellation_eventstore::{NewOverlayEntry, OverlayReason};
use constellation_reconcile::Item;

use super::offering::{HomeWriter, ImportCounts, ImportError};
use super::{Findings, Slice, Tally, Transfer, TransferError, off_runtime, reconcile};
use crate::limits::{
    IMPORT_BATCH_BYTES, IMPORT_BATCH_EVENTS, IMPORT_READ_BACKS_MAX, POLICY_REMEMBERED,
};
use crate::protocol::ReasonPrefix;

const KIND_DELETION: u16 = 5;

/// Look-ups on one snapshot: some milliseconds.
const EVENTS_PER_SNAPSHOT: usize = 1_000;

/// Imports what was found, batch by batch, and counts what is at the relay afterwards.
///
/// Cancel safety: what the relay took it has; a batch that was not read back is not counted.
///
/// # Errors
/// [`TransferError`]; what was counted before stays counted.
pub(super) async fn import(
    transfer: &Transfer,
    writer: &dyn HomeWriter,
    findings: &Findings,
    tally: &Mutex<&mut Tally>,
) -> Result<(), TransferError> {
    let mut found = findings.watch();
    // It cannot close while the findings are there. In order of time a batch is one span, which is cheap to read back.
    if found.wait_for(|found| found.over).await.is_err() {
        return Ok(());
    }
    let mut items = findings.haves(0, usize::MAX);
    items.sort_unstable();
    let mut rest = items.as_slice();
    while !rest.is_empty() {
        let next = rest[..rest.len().min(IMPORT_BATCH_EVENTS)].to_vec();
        let batch = read(transfer, next).await?;
        rest = &rest[batch.items..];
        if !batch.events.is_empty() {
            carry_over(transfer, writer, batch, tally).await?;
        }
    }
    Ok(())
}

/// What was read: events in order of time, and how many items they were read for.
struct Batch {
    events: Vec<Offered>,
    lines: Vec<String>,
    items: usize,
}

#[derive(Debug, Clone, Copy)]
struct Offered {
    key: CanonicalKey,
    kind: u16,
}

/// Reads events up to a bound of bytes, but one at least. Those that are gone meanwhile need no import.
async fn read(transfer: &Transfer, items: Vec<Item>) -> Result<Batch, TransferError> {
    let store = transfer.ingest.store().clone();
    off_runtime(move || {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        let (mut bytes, mut taken) = (0, 0);
        for slice in items.chunks(EVENTS_PER_SNAPSHOT) {
            let snapshot = store.snapshot()?;
            for item in slice {
                if bytes >= IMPORT_BATCH_BYTES {
                    break;
                }
                taken += 1;
                let found = snapshot.by_id(&item.id)?;
                let Some(record) = found.filter(|record| !record.is_hidden()) else {
                    continue;
                };
                bytes += record.json().len();
                events.push(Offered {
                    key: CanonicalKey {
                        created_at: item.timestamp,
                        id: item.id,
                    },
                    kind: record.kind(),
                });
                lines.push(record.json().to_owned());
            }
        }
        Ok(Batch {
            events,
            lines,
            items: taken,
        })
    })
    .await
}

/// Imports one batch, reads it back, counts, and remembers.
async fn carry_over(
    transfer: &Transfer,
    writer: &dyn HomeWriter,
    batch: Batch,
    tally: &Mutex<&mut Tally>,
) -> Result<(), TransferError> {
    let Batch { events, lines, .. } = batch;
    let counts = writer.write(lines).await?;
    let absent = read_back(transfer, &events).await?;
    let (missing, arrived): (Vec<Offered>, Vec<Offered>) = events
        .into_iter()
        .partition(|event| absent.contains(&event.key.id));
    let (missed, came) = (missing.len() as u64, arrived.len() as u64);
    // More is missing than it says that it did not take.
    let claimed = counts.is_some_and(|counts| missed > counts.not_added());
    if came == 0 && (claimed || counts.is_none()) {
        return Err(ImportError::NotStored(missed).into());
    }
    let missing = if claimed { Vec::new() } else { missing };
    // A deletion that arrived may have taken the newer version for which an older one was left out: the next pass, in
    // which it is there already, tries again.
    let came_with_deletions = arrived.iter().any(|event| event.kind == KIND_DELETION);
    let is_undecided =
        |event: &Offered| came_with_deletions && KindClass::of(event.kind).has_coordinate();
    let expires_at = Some(transfer.clock.unix_seconds() + POLICY_REMEMBERED.as_secs());
    let judged: Vec<(Offered, NotTaken)> = missing
        .into_iter()
        .filter(|event| !is_undecided(event))
        .map(|event| (event, NotTaken::of(counts, event.kind)))
        .collect();
    let entries = judged.iter().map(|(event, why)| NewOverlayEntry {
        key: event.key,
        reason: OverlayReason::RefusedBy(why.prefix().code()),
        kind: Some(event.kind),
        expires_at,
        author: None,
    });
    transfer
        .ingest
        .change_overlay(&transfer.peer, entries.collect(), Vec::new())
        .await?;
    // Counting does not panic.
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.uploaded += came;
    for (event, why) in judged {
        *tally.refused_by_peer.entry(why.prefix()).or_default() += 1;
        tally.name_refused(event.key.id, why.as_str());
    }
    transfer
        .progress
        .send_modify(|progress| progress.uploaded += came + missed);
    Ok(())
}

/// Which events of the batch the relay still lacks: one more reconciliation, over the batch's span of time, or one for
/// each part of it where the relay holds too much in it.
async fn read_back(
    transfer: &Transfer,
    events: &[Offered],
) -> Result<HashSet<[u8; 32]>, TransferError> {
    let mut absent = HashSet::new();
    let mut parts = vec![events];
    while let Some(events) = parts.pop() {
        match read_back_at_once(transfer, events).await {
            Err(TransferError::TooBig { .. }) if events.len() > 1 => {
                let (first, second) = events.split_at(events.len() / 2);
                parts.extend([second, first]);
            }
            part => absent.extend(part?),
        }
    }
    Ok(absent)
}

async fn read_back_at_once(
    transfer: &Transfer,
    events: &[Offered],
) -> Result<HashSet<[u8; 32]>, TransferError> {
    let looking = Transfer {
        fetches: false,
        offers: false,
        slice: Slice {
            since: events.first().map(|event| event.key.created_at),
            until: events.last().map(|event| event.key.created_at),
            ..transfer.slice.clone()
        },
        ..transfer.clone()
    };
    for _ in 0..IMPORT_READ_BACKS_MAX {
        let findings = Findings::default();
        let seen = reconcile(&looking, &findings).await?;
        let absent = findings.haves(0, usize::MAX);
        // Otherwise the sets changed under it, or more is missing than is kept: then nothing is known.
        if seen.complete && seen.have == absent.len() as u64 {
            return Ok(absent.into_iter().map(|item| item.id).collect());
        }
    }
    Err(TransferError::SetMoved)
}

/// Why an event is not at the home relay after an import that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotTaken {
    /// By its own rules.
    Rejected,
    /// It has a newer version.
    Superseded,
    /// It knows that it was deleted.
    Deleted,
    /// The counts do not say.
    Unexplained,
}

impl NotTaken {
    /// What the counts of the import say of those that are missing. They speak of the whole batch: where they give two
    /// reasons, neither is taken.
    fn of(counts: Option<ImportCounts>, kind: u16) -> Self {
        match counts {
            Some(ImportCounts {
                rejected: 1..,
                duplicates: 0,
                ..
            }) => Self::Rejected,
            Some(ImportCounts {
                rejected: 0,
                duplicates: 1..,
                ..
            }) if KindClass::of(kind).has_coordinate() => Self::Superseded,
            Some(ImportCounts {
                rejected: 0,
                duplicates: 1..,
                ..
            }) => Self::Deleted,
            _ => Self::Unexplained,
        }
    }

    const fn prefix(self) -> ReasonPrefix {
        match self {
            Self::Rejected => ReasonPrefix::Invalid,
            Self::Superseded => ReasonPrefix::Replaced,
            Self::Deleted => ReasonPrefix::Deleted,
            Self::Unexplained => ReasonPrefix::Other,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected by the home relay's import",
            Self::Superseded => "superseded at the home relay",
            Self::Deleted => "deleted at the home relay",
            Self::Unexplained => "not at the home relay after its import",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_follows_from_the_counts_and_two_reasons_are_none() {
        let counts = |rejected, duplicates| {
            Some(ImportCounts {
                processed: 10,
                added: 10 - rejected - duplicates,
                rejected,
                duplicates,
            })
        };
        for (counts, kind, why) in [
            (counts(2, 0), 1, NotTaken::Rejected),
            (counts(0, 2), 1, NotTaken::Deleted),
            (counts(0, 2), 0, NotTaken::Superseded),
            (counts(0, 2), 30_023, NotTaken::Superseded),
            (counts(1, 1), 0, NotTaken::Unexplained),
            (counts(0, 0), 1, NotTaken::Unexplained),
            (None, 1, NotTaken::Unexplained),
        ] {
            assert_eq!(NotTaken::of(counts, kind), why, "{counts:?} {kind}");
        }
    }
}
