//! Which of a list of ids are really to be fetched: the one place that looks ids up before they are asked for.
//!
//! Takes ids that a peer lists and we did not show; gives those that we neither store nor refuse, in the same order,
//! and for the others what follows for the peer's overlay. Reads snapshots, a bounded slice each. Blocks: it is called
//! off the runtime's threads.

use constellation_event::{CanonicalKey, Rejection};
use constellation_eventstore::{Known, Lapse, NewOverlayEntry, OverlayReason, Store, StoreError};

use super::TransferError;
use crate::ingest::Scope;

/// Look-ups on one snapshot: some milliseconds.
const IDS_PER_SNAPSHOT: usize = 1_000;

/// Ids by what we know of them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Neither stored nor refused.
    pub(super) missing: Vec<[u8; 32]>,
    /// Not wanted, for a reason that stands: to be entered.
    pub(super) enter: Vec<NewOverlayEntry>,
    /// On both sides after all: an entry of it is to be removed.
    pub(super) leave: Vec<CanonicalKey>,
}

/// Sorts `ids` by what the store knows of them at `now`.
pub(super) fn sort_known(
    store: &Store,
    scope: &Scope,
    now: u64,
    ids: &[[u8; 32]],
) -> Result<Sorted, TransferError> {
    let mut sorted = Sorted::default();
    for ids in ids.chunks(IDS_PER_SNAPSHOT) {
        sort_slice(store, scope, now, ids, &mut sorted)?;
    }
    Ok(sorted)
}

fn sort_slice(
    store: &Store,
    scope: &Scope,
    now: u64,
    ids: &[[u8; 32]],
    sorted: &mut Sorted,
) -> Result<(), TransferError> {
    let snapshot = store.snapshot()?;
    let covers = |kind: u16, author: &[u8; 32]| scope.covers(kind, author);
    let lapse = Lapse {
        now,
        covers: &covers,
    };
    for (id, known) in ids.iter().zip(snapshot.known(ids, &lapse)?) {
        match known {
            Known::Unknown => sorted.missing.push(*id),
            Known::Refused(refusal) => sorted.enter.push(NewOverlayEntry {
                key: refusal.key,
                reason: OverlayReason::Refused(refusal.reason),
                kind: None,
                expires_at: None,
            }),
            Known::Stored => {
                let record = snapshot.by_id(id)?.ok_or_else(|| {
                    StoreError::Damaged("an event of this snapshot is gone from it".to_owned())
                })?;
                let key = CanonicalKey {
                    created_at: record.created_at(),
                    id: *id,
                };
                if record.is_shared() {
                    // Taken out of our set because the peer once refused it, or stored a moment ago: it is on both
                    // sides.
                    sorted.leave.push(key);
                } else {
                    sorted.enter.push(NewOverlayEntry {
                        key,
                        reason: OverlayReason::Refused(Rejection::Protected),
                        kind: Some(record.kind()),
                        expires_at: None,
                    });
                }
            }
        }
    }
    Ok(())
}
