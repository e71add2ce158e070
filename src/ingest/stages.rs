//! The stages as plain functions, so that threads, or a simulation, can run them.
//!
//! `examine` is gate, verification and policy on a snapshot; `write` commits what came through, several
//! submissions at a time. Invariant: an event reaches `write` only as a `VerifiedEvent`. Neither waits for
//! anything but the disk. Worst case of `write`: a batch over what one transaction holds is halved until it fits.

use constellation_event::{CanonicalKey, UnverifiedEvent, VerifiedEvent};
use constellation_eventstore::{
    Admission, Lapse, NewOverlayEntry, Sequence, Store, StoreError, SweepReport, Writer,
};

use super::origin::{Origin, Verdict};
use crate::limits::SWEEP_EVENTS_MAX;

/// A submission between examination and commit.
pub(super) struct Examined {
    /// One for each event submitted; `None` is for the writer to decide.
    pub(super) verdicts: Vec<Option<Verdict>>,
    /// Those undecided, with their place in `verdicts`.
    pub(super) accepted: Vec<(usize, VerifiedEvent)>,
    /// Verified, but refused for their content: to be remembered.
    refused: Vec<(VerifiedEvent, constellation_event::Rejection)>,
    remembers: bool,
    kind_62: bool,
}

/// A change to what is remembered about a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct OverlayChange {
    pub(super) peer: String,
    pub(super) add: Vec<NewOverlayEntry>,
    pub(super) remove: Vec<CanonicalKey>,
}

/// Gate, verification and policy for one submission.
///
/// # Errors
/// The store's, from the gate.
pub(super) fn examine(
    store: &Store,
    events: Vec<UnverifiedEvent>,
    origin: &Origin,
    now: u64,
) -> Result<Examined, StoreError> {
    let mut verdicts = gate(store, &events, origin, now)?;
    let mut accepted = Vec::with_capacity(events.len());
    let mut refused = Vec::new();
    let mut kind_62 = false;
    for (place, event) in events.into_iter().enumerate() {
        if verdicts[place].is_some() {
            continue;
        }
        let event = match event.verify() {
            Ok(event) => event,
            Err((_, reason)) => {
                verdicts[place] = Some(Verdict::Rejected(reason));
                continue;
            }
        };
        match origin.check(&event, now) {
            Ok(()) => {
                kind_62 |= event.kind() == 62;
                accepted.push((place, event));
            }
            Err(reason) => {
                verdicts[place] = Some(Verdict::Rejected(reason));
                if origin.remembers_refusals() && reason.is_global() {
                    refused.push((event, reason));
                }
            }
        }
    }
    Ok(Examined {
        verdicts,
        accepted,
        refused,
        remembers: origin.remembers_refusals(),
        kind_62,
    })
}

/// What needs no verification: ids that are stored, or that a standing verdict refuses.
fn gate(
    store: &Store,
    events: &[UnverifiedEvent],
    origin: &Origin,
    now: u64,
) -> Result<Vec<Option<Verdict>>, StoreError> {
    // The captain's file is checked line by line: a forgery that bears a known id is no duplicate.
    if matches!(origin, Origin::Import) {
        return Ok(vec![None; events.len()]);
    }
    let snapshot = store.snapshot()?;
    let covers = |kind: u16, author: &[u8; 32]| match origin {
        Origin::Peer { scope } => scope.covers(kind, author),
        Origin::Import | Origin::Client { .. } => true,
    };
    let lapse = Lapse {
        now,
        covers: &covers,
    };
    let mut verdicts = Vec::with_capacity(events.len());
    for event in events {
        let id = event.id();
        let verdict = if snapshot.by_id(&id)?.is_some() {
            Some(Verdict::Duplicate)
        } else {
            snapshot
                .standing_refusal(&id, &lapse)?
                .map(|refusal| Verdict::Rejected(refusal.reason))
        };
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Commits several submissions together and fills in their verdicts.
///
/// # Errors
/// The store's; then nothing of the batch is stored.
pub(super) fn write(
    writer: &mut Writer,
    batch: &mut [Examined],
    now: u64,
) -> Result<Sequence, StoreError> {
    let outcome = writer.transact(|transaction| {
        let mut admissions = Vec::with_capacity(batch.len());
        for examined in batch.iter() {
            let mut of_submission = Vec::with_capacity(examined.accepted.len());
            for (_, event) in &examined.accepted {
                let admission = transaction.admit(event, now)?;
                if let Admission::Refused(reason) = admission
                    && examined.remembers
                    && reason.is_global()
                {
                    transaction.refuse(event, reason)?;
                }
                of_submission.push(admission);
            }
            for (event, reason) in &examined.refused {
                transaction.refuse(event, *reason)?;
            }
            admissions.push(of_submission);
        }
        Ok(admissions)
    });
    let committed = match outcome {
        Err(error) if error.is_batch_too_large() && batch.len() > 1 => {
            let (first, second) = batch.split_at_mut(batch.len() / 2);
            write(writer, first, now)?;
            return write(writer, second, now);
        }
        Err(error) if error.is_batch_too_large() && can_be_halved(batch) => {
            let half = batch[0].accepted.len() / 2;
            let rest = batch[0].accepted.split_off(half);
            write(writer, batch, now)?;
            batch[0].accepted = rest;
            return write(writer, batch, now);
        }
        other => other?,
    };
    for (examined, admissions) in batch.iter_mut().zip(committed.value) {
        for ((place, _), admission) in examined.accepted.iter().zip(admissions) {
            examined.verdicts[*place] = Some(match admission {
                Admission::Stored(_) => Verdict::Stored,
                Admission::Duplicate => Verdict::Duplicate,
                Admission::Ephemeral => Verdict::Ephemeral,
                Admission::Refused(reason) => Verdict::Rejected(reason),
            });
        }
    }
    Ok(committed.last_sequence)
}

/// One submission can be too much by itself: a few hundred events of thousands of tags touch that many pages.
fn can_be_halved(batch: &[Examined]) -> bool {
    matches!(batch, [only] if only.accepted.len() > 1)
}

/// Whether something was stored that asks for a sweep at once.
pub(super) fn wants_sweep(batch: &[Examined]) -> bool {
    batch.iter().any(|examined| examined.kind_62)
}

/// Enters and removes what is remembered about peers.
///
/// # Errors
/// The store's; then nothing of it is kept.
pub(super) fn write_overlays(
    writer: &mut Writer,
    changes: &[OverlayChange],
) -> Result<Sequence, StoreError> {
    let committed = writer.transact(|transaction| {
        for change in changes {
            transaction.remove_from_overlay(&change.peer, &change.remove)?;
            transaction.add_to_overlay(&change.peer, &change.add)?;
        }
        Ok(())
    })?;
    Ok(committed.last_sequence)
}

/// Removes what has expired or vanished: one slice.
///
/// # Errors
/// The store's.
pub(super) fn sweep(
    store: &Store,
    writer: &mut Writer,
    now: u64,
) -> Result<SweepReport, StoreError> {
    if !store.snapshot()?.needs_sweep(now)? {
        return Ok(SweepReport::default());
    }
    Ok(writer
        .transact(|transaction| transaction.sweep(now, SWEEP_EVENTS_MAX))?
        .value)
}
