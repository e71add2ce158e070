//! Which of a list of ids are really to be fetched: the one place that looks ids up before they are asked for.
//!
//! Takes ids that a peer lists and we did not show; gives those that we neither store nor refuse, in the same order,
//! and for the others what follows for the peer's overlay. Also tells which stored events are not to be offered. Reads snapshots, a bounded slice each. Blocks: it is called
//! off the runtime's threads.

use constellation_event::{CanonicalKey, Rejection};
use constellation_eventstore::{Known, Lapse, NewOverlayEntry, OverlayReason, Store, StoreError};
use constellation_reconcile::Item;

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
                author: None,
            }),
            Known::Stored => {
                let record = snapshot.by_id(id)?.ok_or_else(|| {
                    StoreError::Damaged("an event of this snapshot is gone from it".to_owned())
                })?;
                let key = CanonicalKey {
                    created_at: record.created_at(),
                    id: *id,
                };
                let is_covered = |author| scope.covers(record.kind(), author);
                if !record.is_shared() {
                    sorted.enter.push(NewOverlayEntry {
                        key,
                        reason: OverlayReason::Refused(Rejection::Protected),
                        kind: Some(record.kind()),
                        expires_at: None,
                        author: Some(snapshot.author_of(&record)?),
                    });
                } else if scope.authors.is_some() && !is_covered(&snapshot.author_of(&record)?) {
                    // Taken out of our set as long as the peer did not list it: now it is on both sides.
                    sorted.enter.push(NewOverlayEntry {
                        key,
                        reason: OverlayReason::Refused(Rejection::OutOfScope),
                        kind: Some(record.kind()),
                        expires_at: None,
                        author: None,
                    });
                } else {
                    // Taken out of our set because the peer once refused it, or stored a moment ago: it is on both
                    // sides.
                    sorted.leave.push(key);
                }
            }
        }
    }
    Ok(())
}

/// Drops from `have` what was stored out of scope since the overlay was loaded: nobody is offered it.
pub(super) fn keep_covered(
    store: &Store,
    scope: &Scope,
    have: &mut Vec<Item>,
) -> Result<(), TransferError> {
    if scope.authors.is_none() {
        return Ok(());
    }
    let mut kept = Vec::with_capacity(have.len());
    for items in have.chunks(IDS_PER_SNAPSHOT) {
        let snapshot = store.snapshot()?;
        for item in items {
            // One that is gone meanwhile is left out when it is to be sent.
            let is_outside = match snapshot.by_id(&item.id)? {
                Some(record) => !scope.covers(record.kind(), &snapshot.author_of(&record)?),
                None => false,
            };
            if !is_outside {
                kept.push(*item);
            }
        }
    }
    *have = kept;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use constellation_event::UnverifiedEvent;
    use constellation_eventstore::{KindSet, Options, open};

    use super::*;
    use crate::samples::uniform;

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn what_is_stored_out_of_scope_is_neither_fetched_nor_offered() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(Arc::new(|| Duration::ZERO));
        let (store, mut writer) = open(folder.path(), options).unwrap();
        let events: Vec<_> = uniform(1, NOW, 200)
            .iter()
            .map(|event| UnverifiedEvent::from_event(event).verify().unwrap())
            .collect();
        writer
            .transact(|transaction| {
                events
                    .iter()
                    .try_for_each(|event| transaction.admit(event, NOW).map(drop))
            })
            .unwrap();
        let author = *events[0].author();
        let inside = |event: &&constellation_event::VerifiedEvent| *event.author() == author;
        let scope = Scope {
            kinds: KindSet::all(),
            authors: Some(Arc::new([author].into())),
        };
        let kept: Vec<[u8; 32]> = {
            let snapshot = store.snapshot().unwrap();
            let is_stored = |event: &&_| {
                let event: &constellation_event::VerifiedEvent = event;
                snapshot.by_id(&event.id()).unwrap().is_some()
            };
            events
                .iter()
                .filter(is_stored)
                .map(|event| event.id())
                .collect()
        };
        let of_author = |id: &[u8; 32]| events.iter().filter(inside).any(|event| event.id() == *id);
        let outside = kept.iter().filter(|id| !of_author(id)).count();
        assert!(outside > 0 && outside < kept.len(), "{outside}");

        let sorted = sort_known(&store, &scope, NOW, &kept).unwrap();
        assert_eq!(sorted.missing, [[0; 32]; 0]);
        assert_eq!(sorted.enter.len(), outside);
        for entry in &sorted.enter {
            assert_eq!(entry.reason, OverlayReason::Refused(Rejection::OutOfScope));
            assert!(!of_author(&entry.key.id) && entry.kind.is_some());
        }
        assert_eq!(sorted.leave.len(), kept.len() - outside);

        let unknown = [7; 32];
        let items = kept.iter().chain([&unknown]).map(|id| Item {
            timestamp: NOW,
            id: *id,
        });
        let mut have: Vec<Item> = items.collect();
        keep_covered(&store, &scope, &mut have).unwrap();
        assert_eq!(have.len(), kept.len() - outside + 1);
        assert!(
            have.iter()
                .all(|item| of_author(&item.id) || item.id == unknown)
        );
        let mut all = have.clone();
        keep_covered(&store, &Scope::everything(), &mut all).unwrap();
        assert_eq!(all, have, "nothing is looked up where all are in scope");
    }
}
