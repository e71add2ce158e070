//! One reconciliation: our set with the peer's overlay against the peer's set, by NIP-77.
//!
//! Gives what is really to be fetched and offered; of a side that is not to be moved, a bounded part. Ids whose absence has a known reason are sorted out: they enter
//! the peer's overlay, or leave it when the reason is gone, before anything is moved. Stops early, and says so,
//! when the difference is larger than one pass takes. Every message works on a fresh snapshot, off the runtime.

use std::sync::Arc;

use constellation_event::{CanonicalKey, Rejection};
use constellation_eventstore::{
    Lapse, NewOverlayEntry, Overlay, OverlayReason, SetScope, Store, StoreError, StoredSet,
};
use constellation_reconcile::{
    Difference, FrameLimit, Initiator, Item, Overlaid, ReconcileError, Step,
};

use super::{Transfer, TransferError, off_runtime};
use crate::ingest::Scope;
use crate::limits::{DIFFERENCE_IDS_MAX, RECONCILE_ROUNDS_MAX};
use crate::protocol::ReasonPrefix;
use crate::relay_client::NegReply;

/// What one reconciliation brought to light.
#[derive(Debug, Clone, Default)]
pub struct Reconciled {
    /// Ids to fetch.
    pub need: Vec<[u8; 32]>,
    /// Our events to offer.
    pub have: Vec<Item>,
    /// More ids that the peer has and we lack: counted and not kept, since they are not to be fetched.
    pub more_need: u64,
    /// More events that we have and the peer lacks: counted and not kept, since they are not to be offered.
    pub more_have: u64,
    /// Rounds it took.
    pub rounds: u64,
    /// Whether the peers' sets were compared to the end.
    pub complete: bool,
    /// Whether the overlay had to be changed, so that only the next reconciliation can tell whether the sets are equal.
    pub overlay_changed: bool,
}

impl Reconciled {
    /// D8: the fingerprints with overlay are equal.
    pub fn is_equal(&self) -> bool {
        self.complete && !self.overlay_changed && self.need_count() == 0 && self.have_count() == 0
    }

    /// How many events the peer has and we lack.
    pub fn need_count(&self) -> u64 {
        self.need.len() as u64 + self.more_need
    }

    /// How many events we have and the peer lacks.
    pub fn have_count(&self) -> u64 {
        self.have.len() as u64 + self.more_have
    }
}

/// Reconciles once.
///
/// Cancel safety: nothing is moved; changes to the overlay are made whole or not at all.
///
/// # Errors
/// [`TransferError`].
pub async fn reconcile(transfer: &Transfer) -> Result<Reconciled, TransferError> {
    transfer.ingest.sweep().await?;
    let overlay = load_overlay(transfer).await?;
    let found = converse(transfer, &overlay).await?;
    let sorted = sort_out(transfer, overlay, found.difference).await?;
    transfer
        .ingest
        .change_overlay(&transfer.peer, sorted.enter, sorted.leave)
        .await?;
    Ok(Reconciled {
        need: sorted.need,
        have: sorted.have,
        more_need: found.unkept.need,
        more_have: found.unkept.have,
        rounds: found.rounds,
        complete: found.complete,
        overlay_changed: sorted.changed,
    })
}

/// The overlay as it stands; what has lapsed is removed on the way.
async fn load_overlay(transfer: &Transfer) -> Result<Arc<Overlay>, TransferError> {
    let store = transfer.ingest.store().clone();
    let (peer, set_scope) = (transfer.peer.clone(), transfer.set_scope());
    let scope = Arc::clone(&transfer.scope);
    let now = transfer.clock.unix_seconds();
    let mut overlay = off_runtime(move || {
        let covers = |kind: u16, author: &[u8; 32]| scope.covers(kind, author);
        let lapse = Lapse {
            now,
            covers: &covers,
        };
        Ok(store.snapshot()?.overlay(&peer, &set_scope, &lapse)?)
    })
    .await?;
    let lapsed = std::mem::take(&mut overlay.lapsed);
    transfer
        .ingest
        .change_overlay(&transfer.peer, Vec::new(), lapsed)
        .await?;
    Ok(Arc::new(overlay))
}

/// What a dialogue brought to light.
struct Found {
    difference: Difference,
    unkept: Unkept,
    rounds: u64,
    /// Whether it came to its end.
    complete: bool,
}

async fn converse(transfer: &Transfer, overlay: &Arc<Overlay>) -> Result<Found, TransferError> {
    let limit = FrameLimit::new(transfer.frame_bytes)
        .map_err(|error| TransferError::Malformed(error.to_string()))?;
    let mut session = Session {
        store: transfer.ingest.store().clone(),
        scope: transfer.set_scope(),
        overlay: Arc::clone(overlay),
        initiator: Initiator::new(limit),
        difference: Difference::default(),
    };
    let mut unkept = Unkept::default();
    let first;
    (session, first) = off_runtime(move || {
        let first = session.with_set(|set, session| session.initiator.open(set))?;
        Ok((session, first))
    })
    .await?;
    let mut negotiation = transfer
        .conversation
        .negotiation()
        .map_err(|busy| TransferError::Refused(busy.to_string()))?;
    let mut reply = transfer
        .step(negotiation.open(&transfer.filter(), &first))
        .await?;
    loop {
        let message = answer_of(reply, session.initiator.rounds())?;
        let step;
        (session, step) = off_runtime(move || {
            let step = session.take(&message)?;
            Ok((session, step))
        })
        .await?;
        let rounds = session.initiator.rounds();
        transfer
            .progress
            .send_modify(|progress| progress.rounds += 1);
        unkept.shed(transfer.fetches, transfer.offers, &mut session.difference);
        let kept = session.difference.need.len() + session.difference.have.len();
        let found = |difference, complete| Found {
            difference,
            unkept,
            rounds,
            complete,
        };
        let next = match step {
            Step::Done => return Ok(found(session.difference, true)),
            Step::Continue(_) if kept > DIFFERENCE_IDS_MAX => {
                return Ok(found(session.difference, false));
            }
            Step::Continue(next) => next,
        };
        if rounds >= RECONCILE_ROUNDS_MAX {
            return Err(TransferError::TooManyRounds(rounds));
        }
        reply = transfer.step(negotiation.message(&next)).await?;
    }
}

/// The negentropy message in a reply, or why there is none. Before the first answer, a complaint means that the
/// peer does not know NIP-77 at all.
fn answer_of(reply: NegReply, rounds: u64) -> Result<Vec<u8>, TransferError> {
    match reply {
        NegReply::Message(message) => Ok(message),
        NegReply::Notice(text) if rounds == 0 => Err(TransferError::NoNip77(text)),
        NegReply::Notice(text) => Err(TransferError::Refused(text)),
        NegReply::Error {
            prefix: ReasonPrefix::Unsupported,
            text,
            ..
        } => Err(TransferError::NoNip77(text)),
        NegReply::Error { text, .. } => Err(TransferError::Refused(text)),
    }
}

/// Counts of what is not to be moved, beyond what is kept: else a side that nobody wants would fill the pass, and the
/// other one would never be seen to its end. (What a cut frame told twice counts twice.)
#[derive(Debug, Clone, Copy, Default)]
struct Unkept {
    need: u64,
    have: u64,
}

impl Unkept {
    fn shed(&mut self, fetches: bool, offers: bool, difference: &mut Difference) {
        const KEPT_MAX: usize = DIFFERENCE_IDS_MAX / 2;
        if !fetches && difference.need.len() > KEPT_MAX {
            self.need += difference.need.len() as u64;
            difference.need.clear();
        }
        if !offers && difference.have.len() > KEPT_MAX {
            self.have += difference.have.len() as u64;
            difference.have.clear();
        }
    }
}

struct Session {
    store: Store,
    scope: SetScope,
    overlay: Arc<Overlay>,
    initiator: Initiator,
    difference: Difference,
}

impl Session {
    fn with_set<T>(
        &mut self,
        work: impl FnOnce(
            &Overlaid<'_, StoredSet<'_>>,
            &mut Self,
        ) -> Result<T, ReconcileError<StoreError>>,
    ) -> Result<T, TransferError> {
        let store = self.store.clone();
        let overlay = Arc::clone(&self.overlay);
        let snapshot = store.snapshot()?;
        let base = StoredSet::new(&snapshot, &self.scope);
        let set = Overlaid::new(&base, &overlay.refused, &overlay.refused_by);
        work(&set, self).map_err(|error| match error {
            ReconcileError::UnsupportedVersion { offered } => {
                TransferError::UnknownVersion(offered)
            }
            ReconcileError::Set(error) => error.into(),
            other => TransferError::Malformed(other.to_string()),
        })
    }

    fn take(&mut self, message: &[u8]) -> Result<Step, TransferError> {
        self.with_set(|set, session| {
            session
                .initiator
                .reconcile(set, message, &mut session.difference)
        })
    }
}

/// A difference after what has a known reason is taken out.
struct SortedOut {
    need: Vec<[u8; 32]>,
    have: Vec<Item>,
    enter: Vec<NewOverlayEntry>,
    leave: Vec<CanonicalKey>,
    changed: bool,
}

async fn sort_out(
    transfer: &Transfer,
    overlay: Arc<Overlay>,
    mut difference: Difference,
) -> Result<SortedOut, TransferError> {
    let store = transfer.ingest.store().clone();
    let scope = Arc::clone(&transfer.scope);
    let now = transfer.clock.unix_seconds();
    off_runtime(move || {
        difference.sort_dedup();
        let mut sorted = SortedOut {
            need: Vec::new(),
            have: Vec::new(),
            enter: Vec::new(),
            leave: Vec::new(),
            changed: false,
        };
        for items in difference.need.chunks(1_000) {
            sort_needs(&store, &scope, now, items, &mut sorted)?;
        }
        for item in difference.have {
            if overlay.reasons.contains_key(&item.id) {
                // We counted it as the peer's, but the peer does not have it (any more).
                sorted.leave.push(CanonicalKey {
                    created_at: item.timestamp,
                    id: item.id,
                });
            } else {
                sorted.have.push(item);
            }
        }
        sorted.changed = !sorted.enter.is_empty() || !sorted.leave.is_empty();
        Ok(sorted)
    })
    .await
}

fn sort_needs(
    store: &Store,
    scope: &Scope,
    now: u64,
    ids: &[[u8; 32]],
    sorted: &mut SortedOut,
) -> Result<(), TransferError> {
    let snapshot = store.snapshot()?;
    let covers = |kind: u16, author: &[u8; 32]| scope.covers(kind, author);
    let lapse = Lapse {
        now,
        covers: &covers,
    };
    for id in ids {
        if let Some(record) = snapshot.by_id(id)? {
            let key = CanonicalKey {
                created_at: record.created_at(),
                id: *id,
            };
            if record.is_shared() {
                // Taken out of our set because the peer once refused it, or stored a moment ago: it is on both sides.
                sorted.leave.push(key);
            } else {
                sorted.enter.push(NewOverlayEntry {
                    key,
                    reason: OverlayReason::Refused(Rejection::Protected),
                    kind: Some(record.kind()),
                    expires_at: None,
                });
            }
        } else if let Some(refusal) = snapshot.standing_refusal(id, &lapse)? {
            sorted.enter.push(NewOverlayEntry {
                key: refusal.key,
                reason: OverlayReason::Refused(refusal.reason),
                kind: None,
                expires_at: None,
            });
        } else {
            sorted.need.push(*id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_not_to_be_moved_is_counted_and_leaves_room_for_the_other() {
        let item = Item {
            timestamp: 1,
            id: [1; 32],
        };
        let mut difference = Difference {
            have: vec![item; DIFFERENCE_IDS_MAX],
            need: vec![[2; 32]; DIFFERENCE_IDS_MAX],
        };
        let mut unkept = Unkept::default();
        unkept.shed(true, false, &mut difference);
        assert_eq!((unkept.need, unkept.have), (0, DIFFERENCE_IDS_MAX as u64));
        assert_eq!(
            (difference.need.len(), difference.have.len()),
            (DIFFERENCE_IDS_MAX, 0)
        );
    }
}
