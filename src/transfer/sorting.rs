//! What a difference means: which of it is to be moved, and what has a reason and is remembered of the peer instead.
//!
//! Takes what a round told; adds the rest to the findings, and gathers changes of the peer's overlay. What the peer lists,
//! has not delivered and is not asked for again yet is moved to where it proves to be listed. Where the overlay is full,
//! what has a verdict of its own is not entered any more: it is sorted out in each run, which costs its ids and nothing
//! else. Reads the store off the runtime.

use std::collections::HashSet;
use std::sync::Arc;

use constellation_event::CanonicalKey;
use constellation_eventstore::{NewOverlayEntry, Overlay, OverlayReason};
use constellation_reconcile::{Difference, Item};

use super::known::{keep_covered, sort_known};
use super::{Findings, Slice, Transfer, TransferError, off_runtime};

/// What is to be changed in the peer's overlay.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) enter: Vec<NewOverlayEntry>,
    pub(super) leave: Vec<CanonicalKey>,
    /// What was not delivered, and turned out to be listed in another place than was guessed.
    moved: HashSet<[u8; 32]>,
    /// What was not delivered, and is not listed where it was guessed to be.
    gone: HashSet<[u8; 32]>,
}

impl Changes {
    /// What the peer lists and did not deliver, and is not asked for again yet.
    pub(super) fn undelivered(&self, overlay: &Overlay) -> Vec<[u8; 32]> {
        let known = overlay.undelivered.iter();
        let stands = known.filter(|(id, entry)| {
            self.moved.contains(*id) || (entry.is_in_set && !self.gone.contains(*id))
        });
        stands.map(|(id, _)| *id).collect()
    }

    /// Drops, of what is to be entered, what has a verdict of its own and no room: were older entries to go for it, they
    /// would take its place the next time. Gives how many.
    pub(super) fn keep_to(&mut self, room: u64) -> u64 {
        let is_global = |entry: &NewOverlayEntry| matches!(entry.reason, OverlayReason::Refused(reason) if reason.is_global());
        let others = self.enter.iter().filter(|entry| !is_global(entry)).count();
        let mut room = (room + self.leave.len() as u64).saturating_sub(others as u64);
        let before = self.enter.len();
        self.enter.retain(|entry| {
            let stays = !is_global(entry) || room > 0;
            room = room.saturating_sub(u64::from(is_global(entry)));
            stays
        });
        (before - self.enter.len()) as u64
    }
}

/// Adds a part of the difference to the findings, less what has a known reason.
pub(super) async fn sort_out(
    transfer: &Transfer,
    overlay: &Overlay,
    findings: &Findings,
    difference: Difference,
    changes: &mut Changes,
) -> Result<(), TransferError> {
    let Difference { mut need, mut have } = difference;
    let now = transfer.clock.unix_seconds();
    need.retain(|item| !is_explained(transfer, overlay, item, now, changes));
    have.retain(|item: &Item| {
        let is_ours = !overlay.reasons.contains_key(&item.id);
        if !is_ours {
            // We counted it as the peer's, but the peer does not have it (any more).
            changes.leave.push(CanonicalKey {
                created_at: item.timestamp,
                id: item.id,
            });
            if overlay.undelivered.contains_key(&item.id) {
                changes.gone.insert(item.id);
            }
        }
        is_ours
    });
    if !have.is_empty() && transfer.scope.authors.is_some() {
        let store = transfer.ingest.store().clone();
        let scope = Arc::clone(&transfer.scope);
        have = off_runtime(move || {
            keep_covered(&store, &scope, &mut have)?;
            Ok(have)
        })
        .await?;
    }
    let mut missing = Vec::new();
    if !need.is_empty() {
        let store = transfer.ingest.store().clone();
        let scope = Arc::clone(&transfer.scope);
        let ids: Vec<[u8; 32]> = need.iter().map(|item| item.id).collect();
        let sorted = off_runtime(move || sort_known(&store, &scope, now, &ids)).await?;
        // What has a reason now has it in its true place.
        let known = sorted.enter.iter().map(|entry| entry.key);
        let known = known.chain(sorted.leave.iter().copied());
        let guesses = known.filter_map(|key| overlay.undelivered.get(&key.id));
        changes.leave.extend(guesses.map(|guess| guess.key));
        changes.enter.extend(sorted.enter);
        changes.leave.extend(sorted.leave);
        let mut left = sorted.missing.into_iter().peekable();
        missing = need;
        missing.retain(|item| left.next_if_eq(&item.id).is_some());
        let again = missing.iter().filter_map(|item| {
            let before = overlay.undelivered.get(&item.id);
            before.map(|before| (item.id, *before))
        });
        findings.ask_again(again);
    }
    transfer.progress.send_modify(|progress| {
        if transfer.fetches {
            progress.need += missing.len() as u64;
        }
        if transfer.offers {
            progress.have += have.len() as u64;
        }
    });
    findings.add(&missing, &have);
    Ok(())
}

/// Whether it is known why this is listed and not here, besides what the store knows of it.
fn is_explained(
    transfer: &Transfer,
    overlay: &Overlay,
    item: &Item,
    now: u64,
    changes: &mut Changes,
) -> bool {
    let slice = &transfer.slice;
    if let Some(entry) = overlay.undelivered.get(&item.id)
        && entry.until > now
    {
        // Listed elsewhere than was guessed: from below, so the guess gets closer each time.
        changes.leave.push(entry.key);
        changes.enter.push(NewOverlayEntry {
            key: place_in(slice, item),
            reason: OverlayReason::Undelivered(entry.times),
            kind: None,
            expires_at: Some(entry.until),
            author: slice.listed_under(&[0; 32]),
        });
        changes.moved.insert(item.id);
        return true;
    }
    if slice.authors.is_none() {
        return false;
    }
    if let Some(entry) = overlay.of_nobody.get(&item.id) {
        // Now it is known under whom it is listed.
        changes.enter.push(NewOverlayEntry {
            author: slice.listed_under(&[0; 32]),
            ..*entry
        });
        return true;
    }
    matches!(
        overlay.reasons.get(&item.id),
        Some(OverlayReason::Refused(_))
    )
}

/// Where an event of which only the id is known is listed, at the earliest.
pub(super) fn place_in(slice: &Slice, item: &Item) -> CanonicalKey {
    CanonicalKey {
        created_at: item.timestamp.max(slice.since.unwrap_or(0)),
        id: item.id,
    }
}

#[cfg(test)]
mod tests {
    use constellation_event::Rejection;

    use super::*;

    #[test]
    fn what_has_a_verdict_of_its_own_gives_way_where_there_is_no_room() {
        let entry = |number: u8, reason| NewOverlayEntry {
            key: CanonicalKey {
                created_at: 1,
                id: [number; 32],
            },
            reason,
            kind: None,
            expires_at: None,
            author: None,
        };
        let deleted = OverlayReason::Refused(Rejection::Deleted);
        let forged = OverlayReason::Refused(Rejection::BadSignature);
        let mut changes = Changes {
            enter: [deleted, forged, deleted, deleted]
                .into_iter()
                .zip(0..)
                .map(|(reason, number)| entry(number, reason))
                .collect(),
            leave: vec![entry(9, deleted).key],
            ..Changes::default()
        };
        assert_eq!(changes.keep_to(1), 2);
        let kept: Vec<u8> = changes.enter.iter().map(|entry| entry.key.id[0]).collect();
        assert_eq!(kept, [0, 1]);
        assert_eq!(
            changes.keep_to(0),
            1,
            "what nothing else remembers is entered all the same"
        );
        assert_eq!(changes.enter.len(), 1);
    }
}
