//! The stages as plain functions, so that threads, or a simulation, can run them.
//!
//! `examine` is gate, verification and policy on a snapshot; `write` commits what came through. Both take several
//! submissions at a time: the more, the cheaper for each. Invariant: an event reaches `write` only as a
//! `VerifiedEvent`. Neither waits for anything but the disk. Worst case of `write`: a batch over what one transaction
//! holds is halved until it fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use constellation_event::{CanonicalKey, Portion, Rejection, UnverifiedEvent, VerifiedEvent};
use constellation_eventstore::{
    Admission, Known, Lapse, NewOverlayEntry, Sequence, Store, StoreError, SweepReport, Writer,
};

use super::origin::{Origin, Scope, Verdict};
use super::source::{Source, Standing};
use super::verifier::SharedVerifier;
use crate::limits::SWEEP_EVENTS_MAX;

/// Ids looked up on one snapshot: some milliseconds, or a second on a cold, slow disk.
const GATED_PER_SNAPSHOT: usize = 1_000;

/// Randomness for the coefficients of a batch: drawn when the batch is complete, and never again.
pub(super) type Entropy<'e> = &'e mut dyn FnMut() -> [u8; 32];

/// A submission as it comes in.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) events: Vec<UnverifiedEvent>,
    pub(super) origin: Origin,
    pub(super) source: Source,
}

/// A submission between examination and commit.
#[derive(Debug)]
pub(super) struct Examined {
    /// One for each event submitted; `None` is for the writer to decide.
    pub(super) verdicts: Vec<Option<Verdict>>,
    /// Those undecided, with their place in `verdicts`.
    pub(super) accepted: Vec<(usize, VerifiedEvent)>,
    /// Verified, but refused for their content: to be remembered.
    refused: Vec<(VerifiedEvent, Rejection)>,
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

/// Gate, verification and policy for a batch of submissions, one answer each. `entropy` gives fresh bytes for each call.
///
/// # Errors
/// The store's, from the gate.
pub(super) fn examine(
    store: &Store,
    verifier: &SharedVerifier,
    batch: Vec<Submitted>,
    entropy: Entropy<'_>,
    now: u64,
) -> Result<Vec<Examined>, StoreError> {
    let mut examined = Vec::with_capacity(batch.len());
    let mut portions = Vec::with_capacity(batch.len());
    let gated = gate(store, &batch, now)?;
    for (submitted, verdicts) in batch.into_iter().zip(gated) {
        let Submitted {
            events,
            origin,
            source,
        } = submitted;
        let unknown = events
            .into_iter()
            .zip(&verdicts)
            .filter_map(|(event, verdict)| verdict.is_none().then_some(event))
            .collect();
        let portion = Portion {
            events: unknown,
            source: source.number(),
            suspect: source.is_suspect(),
        };
        let remembers = origin.remembers_refusals();
        portions.push((portion, origin, source));
        examined.push(Examined {
            verdicts,
            accepted: Vec::new(),
            refused: Vec::new(),
            remembers,
            kind_62: false,
        });
    }
    for (place, results, (origin, source)) in prove(verifier, portions, entropy) {
        examined[place].judge(store, results, &origin, &source, now)?;
    }
    Ok(examined)
}

type Proven = Vec<Result<VerifiedEvent, (UnverifiedEvent, Rejection)>>;

/// Verifies portions together, but those of each new source by themselves; gives their results with their places.
fn prove(
    verifier: &SharedVerifier,
    portions: Vec<(Portion, Origin, Source)>,
    entropy: Entropy<'_>,
) -> Vec<(usize, Proven, (Origin, Source))> {
    let mut groups: BTreeMap<Option<u64>, Vec<_>> = BTreeMap::new();
    for (place, (portion, origin, source)) in portions.into_iter().enumerate() {
        let alone = (source.standing() == Standing::New).then(|| source.number());
        let group = groups.entry(alone).or_default();
        group.push((portion, (place, origin, source)));
    }
    let mut proven = Vec::new();
    for group in groups.into_values() {
        let (portions, doors): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcomes = verifier.verify(portions, entropy());
        for (outcome, (place, origin, source)) in outcomes.into_iter().zip(doors) {
            if outcome.guilty {
                source.found(Standing::Suspect);
            } else if outcome.results.iter().any(Result::is_ok) {
                source.found(Standing::Trusted);
            }
            proven.push((place, outcome.results, (origin, source)));
        }
    }
    proven
}

impl Examined {
    /// The verdicts, if none of it is for the writer: nothing to admit, nothing to remember.
    #[allow(clippy::result_large_err)] // it goes on as it is
    pub(super) fn settled(self) -> Result<Vec<Verdict>, Self> {
        if self.accepted.is_empty() && self.refused.is_empty() {
            Ok(decided(self.verdicts))
        } else {
            Err(self)
        }
    }

    /// Policy: enters what verification found, for each event that the gate let through.
    fn judge(
        &mut self,
        store: &Store,
        results: Proven,
        origin: &Origin,
        source: &Source,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut results = results.into_iter();
        for (place, verdict) in self.verdicts.iter_mut().enumerate() {
            if verdict.is_some() {
                continue;
            }
            let result = results
                .next()
                .expect("one result for each event that the gate let through");
            let event = match result {
                Ok(event) => event,
                Err((_, reason)) => {
                    *verdict = Some(Verdict::Rejected(reason));
                    continue;
                }
            };
            let mut checked = origin.check(&event, now);
            if checked == Err(Rejection::OutOfScope)
                && origin.may_delete_here(&event)
                && store.snapshot()?.has_any_by(event.author())?
            {
                if !source.takes_stranger_s_deletion(event.json().len()) {
                    *verdict = Some(Verdict::Postponed);
                    continue;
                }
                checked = Ok(());
            }
            match checked {
                Ok(()) => {
                    self.kind_62 |= event.kind() == 62;
                    self.accepted.push((place, event));
                }
                Err(reason) => {
                    *verdict = Some(Verdict::Rejected(reason));
                    if self.remembers && reason.is_global() {
                        self.refused.push((event, reason));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What needs no verification: ids that are stored, or that a standing verdict refuses. One answer for each event of
/// each submission; all that come through the same door are looked up in one pass over the index, a snapshot at a time.
fn gate(
    store: &Store,
    batch: &[Submitted],
    now: u64,
) -> Result<Vec<Vec<Option<Verdict>>>, StoreError> {
    let mut verdicts: Vec<Vec<Option<Verdict>>> = batch
        .iter()
        .map(|submitted| vec![None; submitted.events.len()])
        .collect();
    let mut doors: Vec<(Option<&Arc<Scope>>, Vec<usize>)> = Vec::new();
    for (place, submitted) in batch.iter().enumerate() {
        let scope = match &submitted.origin {
            // The captain's file is checked line by line: a forgery that bears a known id is no duplicate.
            Origin::Import => continue,
            Origin::Client { .. } => None,
            Origin::Peer { scope } => Some(scope),
        };
        let same = |door: &Option<&Arc<Scope>>| match (door, scope) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        match doors.iter_mut().find(|(door, _)| same(door)) {
            Some((_, places)) => places.push(place),
            None => doors.push((scope, vec![place])),
        }
    }
    for (scope, places) in doors {
        let covers =
            |kind: u16, author: &[u8; 32]| scope.is_none_or(|scope| scope.covers(kind, author));
        let lapse = Lapse {
            now,
            covers: &covers,
        };
        let mut asked: Vec<([u8; 32], usize, usize)> = places
            .iter()
            .flat_map(|place| {
                let events = batch[*place].events.iter().enumerate();
                events.map(|(index, event)| (event.id(), *place, index))
            })
            .collect();
        asked.sort_unstable();
        for asked in asked.chunks(GATED_PER_SNAPSHOT) {
            let ids: Vec<[u8; 32]> = asked.iter().map(|(id, ..)| *id).collect();
            let known = store.snapshot()?.known(&ids, &lapse)?;
            for ((_, place, index), known) in asked.iter().zip(known) {
                verdicts[*place][*index] = match known {
                    Known::Unknown => None,
                    Known::Stored => Some(Verdict::Duplicate),
                    Known::Refused(refusal) => Some(Verdict::Rejected(refusal.reason)),
                };
            }
        }
    }
    Ok(verdicts)
}

/// Whether the gate decides about every event of a submission.
pub(super) fn is_decided(
    store: &Store,
    submitted: Submitted,
    now: u64,
) -> Result<bool, StoreError> {
    let verdicts = gate(store, &[submitted], now)?;
    Ok(verdicts.iter().flatten().all(Option::is_some))
}

/// When a commit may end early.
pub(super) struct Cut<'c> {
    /// Not before this many events.
    pub(super) events_min: usize,
    /// Asked after each submission.
    pub(super) wanted: &'c dyn Fn() -> bool,
}

impl Cut<'_> {
    /// Everything is committed.
    pub(super) const NEVER: Cut<'static> = Cut {
        events_min: usize::MAX,
        wanted: &|| false,
    };
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) last_sequence: Sequence,
    /// How many submissions of the batch, from its start.
    pub(super) submissions: usize,
}

/// Commits submissions together, all or the first of them, and fills in their verdicts.
///
/// # Errors
/// The store's; then nothing of the batch is known to be stored.
pub(super) fn write(
    writer: &mut Writer,
    batch: &mut [Examined],
    now: u64,
    cut: &Cut<'_>,
) -> Result<Written, StoreError> {
    let outcome = writer.transact(|transaction| {
        let mut admissions = Vec::with_capacity(batch.len());
        let mut events = 0;
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
            events += of_submission.len();
            admissions.push(of_submission);
            if events >= cut.events_min && (cut.wanted)() {
                break;
            }
        }
        Ok(admissions)
    });
    let committed = match outcome {
        Err(error) if error.is_batch_too_large() && batch.len() > 1 => {
            let (first, second) = batch.split_at_mut(batch.len() / 2);
            let written = write(writer, first, now, cut)?;
            if written.submissions < first.len() {
                return Ok(written);
            }
            let rest = write(writer, second, now, cut)?;
            return Ok(Written {
                submissions: first.len() + rest.submissions,
                ..rest
            });
        }
        Err(error) if error.is_batch_too_large() && can_be_halved(batch) => {
            let half = batch[0].accepted.len() / 2;
            let rest = batch[0].accepted.split_off(half);
            write(writer, batch, now, cut)?;
            batch[0].accepted = rest;
            return write(writer, batch, now, cut);
        }
        other => other?,
    };
    let submissions = committed.value.len();
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
    Ok(Written {
        last_sequence: committed.last_sequence,
        submissions,
    })
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

/// Removes what has expired or vanished, settles what was blocked: one slice.
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

/// After the writer, every event has its verdict.
pub(super) fn decided(verdicts: Vec<Option<Verdict>>) -> Vec<Verdict> {
    verdicts
        .into_iter()
        .map(|verdict| verdict.expect("what was left open is decided by the writer"))
        .collect()
}
