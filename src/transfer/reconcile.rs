//! One reconciliation: our set with the peer's overlay against the peer's set, by NIP-77.
//!
//! Adds to the findings, round by round and in the order of the peer's lists, what is really to be fetched and offered;
//! of a side that is not to be moved, a bounded part. Ids whose absence has a known reason are sorted out: they enter
//! the peer's overlay, or leave it when the reason is gone. What is stored out of scope is no part of our set, also when it
//! is stored meanwhile: it is never offered. Stops early, and says so, when the difference is larger
//! than one pass takes. Every message works on a fresh snapshot, off the runtime: what is stored meanwhile is no
//! difference in the ranges that come later, and changes nothing about those that are settled. The overlay is the one
//! of the beginning; what is entered meanwhile counts in the next reconciliation.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use constellation_eventstore::{
    Lapse, OutsiderWalk, Overlay, OverlayReason, Progress, SetScope, Store, StoreError, StoredSet,
};
use constellation_reconcile::{
    Difference, FrameLimit, Initiator, Overlaid, ReconcileError, Step, VecSet,
};

use super::own::read_own;
use super::sorting::{Changes, sort_out};
use super::{Findings, Found, Transfer, TransferError, off_runtime};
use crate::limits::{DIFFERENCE_IDS_MAX, RECONCILE_ROUNDS_MAX};
use crate::protocol::ReasonPrefix;
use crate::relay_client::NegReply;

/// What one reconciliation brought to light; the ids are in the findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// How many events the peer has and we lack.
    pub need: u64,
    /// How many events we have and the peer lacks.
    pub have: u64,
    /// Whether the peers' sets were compared to the end.
    pub complete: bool,
    /// Whether the overlay had to be changed, so that only the next reconciliation can tell whether the sets are equal.
    pub overlay_changed: bool,
    /// How many events the peer lists, did not deliver, and is not asked for again yet; the ids are in the findings. Where
    /// there are any the sets are not equal, whatever else is.
    pub undelivered: u64,
    /// How many more events we refuse than there is room for in the peer's overlay: they are sorted out each time.
    pub unremembered: u64,
}

impl Reconciled {
    /// D8: the fingerprints with overlay are equal; or, where the overlay is full, all that differs is refused.
    pub fn is_equal(&self) -> bool {
        self.complete && !self.overlay_changed && self.need == 0 && self.have == 0
    }
}

/// Reconciles once, and finishes the findings if it comes to its end.
///
/// Cancel safety: nothing is moved; changes to the overlay are made whole or not at all.
///
/// # Errors
/// [`TransferError`].
pub async fn reconcile(
    transfer: &Transfer,
    findings: &Findings,
) -> Result<Reconciled, TransferError> {
    transfer.ingest.sweep().await?;
    let overlay = load_overlay(transfer).await?;
    let outcome = converse(transfer, &overlay, findings).await?;
    let mut changes = outcome.changes;
    let undelivered = changes.undelivered(&overlay);
    let undelivered_count = undelivered.len() as u64;
    findings.set_undelivered(undelivered);
    findings.finish(outcome.complete);
    let unremembered = changes.keep_to(overlay.room);
    let overlay_changed = !changes.enter.is_empty() || !changes.leave.is_empty();
    transfer
        .ingest
        .change_overlay(&transfer.peer, changes.enter, changes.leave)
        .await?;
    let found = findings.found();
    Ok(Reconciled {
        need: found.need as u64 + outcome.unkept.need,
        have: found.have as u64 + outcome.unkept.have,
        complete: outcome.complete,
        overlay_changed,
        undelivered: undelivered_count,
        unremembered,
    })
}

/// The overlay as it stands, with what is stored out of scope; what has lapsed is removed on the way.
async fn load_overlay(transfer: &Transfer) -> Result<Arc<Overlay>, TransferError> {
    let store = transfer.ingest.store().clone();
    let (peer, set_scope) = (transfer.peer.clone(), transfer.slice.set_scope());
    let scope = Arc::clone(&transfer.scope);
    let authors = transfer.slice.authors.clone();
    let now = transfer.clock.unix_seconds();
    let mut overlay = off_runtime(move || {
        let covers = |kind: u16, author: &[u8; 32]| scope.covers(kind, author);
        let lapse = Lapse {
            now,
            covers: &covers,
        };
        let mut overlay =
            store
                .snapshot()?
                .overlay_by(&peer, &set_scope, authors.as_deref(), &lapse)?;
        if scope.authors.is_some() && authors.is_none() {
            let mut walk = OutsiderWalk::default();
            let covers_author = |author: &[u8; 32]| scope.covers_author(author);
            while walk.advance(&store.snapshot()?, &set_scope, &covers_author)? == Progress::More {}
            overlay.leave_out(walk.into_items());
        }
        Ok(overlay)
    })
    .await?;
    let lapsed = std::mem::take(&mut overlay.lapsed);
    transfer
        .ingest
        .change_overlay(&transfer.peer, Vec::new(), lapsed)
        .await?;
    Ok(Arc::new(overlay))
}

impl Transfer {
    /// What is remembered of the peer's and our events, whatever the slice.
    pub(super) async fn overlay_reasons(
        &self,
    ) -> Result<HashMap<[u8; 32], OverlayReason>, TransferError> {
        let store = self.ingest.store().clone();
        let (peer, scope) = (self.peer.clone(), Arc::clone(&self.scope));
        let now = self.clock.unix_seconds();
        off_runtime(move || {
            let covers = |kind: u16, author: &[u8; 32]| scope.covers(kind, author);
            let lapse = Lapse {
                now,
                covers: &covers,
            };
            let everything = SetScope::everything();
            Ok(store
                .snapshot()?
                .overlay(&peer, &everything, &lapse)?
                .reasons)
        })
        .await
    }
}

/// How a dialogue ended.
struct Conversed {
    unkept: Unkept,
    changes: Changes,
    /// Whether it came to its end.
    complete: bool,
}

async fn converse(
    transfer: &Transfer,
    overlay: &Arc<Overlay>,
    findings: &Findings,
) -> Result<Conversed, TransferError> {
    let limit = FrameLimit::new(transfer.limits.frame_bytes)
        .map_err(|error| TransferError::Malformed(error.to_string()))?;
    let mut session = Session {
        store: transfer.ingest.store().clone(),
        ours: Ours::of(transfer, overlay).await?,
        initiator: Initiator::new(limit),
        difference: Difference::default(),
    };
    let (mut unkept, mut changes) = (Unkept::default(), Changes::default());
    let first;
    (session, first) = off_runtime(move || {
        let first = session.open()?;
        Ok((session, first))
    })
    .await?;
    let mut negotiation = transfer
        .conversation
        .negotiation()
        .map_err(|busy| TransferError::Refused(busy.to_string()))?;
    let filter = transfer.filter();
    let mut reply = transfer.answered(negotiation.open(&filter, &first)).await?;
    if wants_to_know_us(&reply) && transfer.authenticate().await? {
        reply = transfer.answered(negotiation.open(&filter, &first)).await?;
    }
    loop {
        let message = answer_of(reply, session.initiator.rounds())?;
        let taken = off_runtime(move || {
            let step = session.take(&message)?;
            Ok((session, step))
        });
        let step;
        (session, step) = match taken.await {
            // What is being stored meanwhile took something away that the overlay is about: look again.
            Err(TransferError::SetMoved) => {
                return Ok(Conversed {
                    unkept,
                    changes,
                    complete: false,
                });
            }
            taken => taken?,
        };
        let rounds = session.initiator.rounds();
        transfer
            .progress
            .send_modify(|progress| progress.rounds += 1);
        let mut difference = std::mem::take(&mut session.difference);
        let found = findings.found();
        unkept.shed(transfer.fetches, found, &mut difference);
        findings.keep_new(&mut difference.need, &mut difference.have);
        let kept = found.need + found.have + difference.need.len() + difference.have.len();
        let sorting = sort_out(transfer, overlay, findings, difference, &mut changes);
        let next = match step {
            Step::Continue(next) if kept <= DIFFERENCE_IDS_MAX => next,
            last => {
                sorting.await?;
                return Ok(Conversed {
                    unkept,
                    changes,
                    complete: matches!(last, Step::Done),
                });
            }
        };
        if rounds >= RECONCILE_ROUNDS_MAX {
            return Err(TransferError::TooManyRounds(rounds));
        }
        // The peer works on the next round while we sort out what the last one told.
        let asking = transfer.answered(negotiation.message(&next));
        (reply, ()) = tokio::try_join!(asking, sorting)?;
    }
}

/// The negentropy message in a reply, or why there is none. Before the first answer, a complaint means that the
/// peer does not know NIP-77 at all.
pub(crate) fn answer_of(reply: NegReply, rounds: u64) -> Result<Vec<u8>, TransferError> {
    match reply {
        NegReply::Message(message) => Ok(message),
        NegReply::Notice(text) if rounds == 0 => Err(TransferError::NoNip77(text)),
        NegReply::Notice(text) => Err(TransferError::Refused(text)),
        NegReply::Error {
            prefix: ReasonPrefix::Unsupported,
            text,
            ..
        } => Err(TransferError::NoNip77(text)),
        NegReply::Error { text, cap, .. } if cap.is_some() || says_too_big(&text) => {
            Err(TransferError::TooBig { cap, text })
        }
        NegReply::Error { text, .. } => Err(TransferError::Refused(text)),
    }
}

fn says_too_big(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "too many query results",
        "too many results",
        "too many records",
        "too many events",
        "too big",
        "too large",
        "query too",
    ]
    .iter()
    .any(|words| text.contains(words))
}

pub(crate) fn wants_to_know_us(reply: &NegReply) -> bool {
    let NegReply::Error { prefix, .. } = reply else {
        return false;
    };
    *prefix == ReasonPrefix::AuthRequired
}

/// Our side of the comparison.
#[derive(Debug)]
enum Ours {
    /// All authors' events: sums are at hand, and each message sees what is stored by then.
    Stored {
        scope: SetScope,
        overlay: Arc<Overlay>,
    },
    /// Some authors' events, as they were at the beginning, less what the peer refuses, and what it lists under these
    /// authors and we refuse. What is not known to be listed under them is not in it.
    Listed(Arc<VecSet>),
}

impl Ours {
    async fn of(transfer: &Transfer, overlay: &Arc<Overlay>) -> Result<Self, TransferError> {
        if transfer.slice.authors.is_none() {
            return Ok(Self::Stored {
                scope: transfer.slice.set_scope(),
                overlay: Arc::clone(overlay),
            });
        }
        let mut ours = Vec::new();
        read_own(transfer, &transfer.slice, &mut |items| {
            let shared = items.iter().filter(|item| {
                let reason = overlay.reasons.get(&item.id);
                !matches!(reason, Some(OverlayReason::RefusedBy(_)))
            });
            ours.extend(shared);
            ControlFlow::Continue(())
        })
        .await?;
        ours.extend_from_slice(overlay.refused.items());
        Ok(Self::Listed(Arc::new(VecSet::from_unsorted(ours))))
    }
}

/// Counts of what is not to be moved, beyond what is kept: else a side that nobody wants would fill the pass, and the
/// other one would never be seen to its end.
#[derive(Debug, Clone, Copy, Default)]
struct Unkept {
    need: u64,
    have: u64,
}

impl Unkept {
    fn shed(&mut self, fetches: bool, found: Found, difference: &mut Difference) {
        const KEPT_MAX: usize = DIFFERENCE_IDS_MAX / 2;
        // The part for which there is room is kept: an empty peer answers for everything at once, and were nothing of
        // that kept, no pass would ever move any of it.
        if !fetches {
            let room = KEPT_MAX.saturating_sub(found.need);
            self.need += difference.need.len().saturating_sub(room) as u64;
            difference.need.truncate(room);
        }
        // Also where they are to be offered: that waits until everything was fetched, so they must not be what cuts a
        // pass short. The rest is found by the next one.
        let room = KEPT_MAX.saturating_sub(found.have);
        self.have += difference.have.len().saturating_sub(room) as u64;
        difference.have.truncate(room);
    }
}

struct Session {
    store: Store,
    ours: Ours,
    initiator: Initiator,
    difference: Difference,
}

impl Session {
    fn open(&mut self) -> Result<Vec<u8>, TransferError> {
        match &self.ours {
            Ours::Listed(ours) => self.initiator.open(&**ours).map_err(failure),
            Ours::Stored { scope, overlay } => {
                let snapshot = self.store.snapshot()?;
                let base = StoredSet::new(&snapshot, scope);
                let set = Overlaid::new(&base, &overlay.refused, &overlay.refused_by);
                self.initiator.open(&set).map_err(failure)
            }
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<Step, TransferError> {
        let Self {
            store,
            ours,
            initiator,
            difference,
        } = self;
        match ours {
            Ours::Listed(ours) => initiator
                .reconcile(&**ours, message, difference)
                .map_err(failure),
            Ours::Stored { scope, overlay } => {
                let snapshot = store.snapshot()?;
                let base = StoredSet::new(&snapshot, scope);
                let set = Overlaid::new(&base, &overlay.refused, &overlay.refused_by);
                let taken = initiator.reconcile(&set, message, difference);
                taken.map_err(|error| match error {
                    // What a message asks for is the peer's doing: our store did not fail. Less at a time takes less time.
                    ReconcileError::Set(StoreError::SnapshotExpired) => TransferError::TooBig {
                        cap: None,
                        text: "its message takes too long to answer here".to_owned(),
                    },
                    error => failure(error),
                })
            }
        }
    }
}

fn failure<E: Into<TransferError>>(error: ReconcileError<E>) -> TransferError {
    match error {
        ReconcileError::UnsupportedVersion { offered } => TransferError::UnknownVersion(offered),
        ReconcileError::Set(error) => error.into(),
        ReconcileError::InconsistentSet => TransferError::SetMoved,
        other => TransferError::Malformed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use constellation_reconcile::Item;

    use super::*;

    /// A message of 137,000 empty lists looked like a failure of our own store.
    #[test]
    fn a_message_that_takes_too_long_is_the_peers_doing_and_asks_for_less_at_a_time() {
        use std::sync::atomic::{AtomicU64, Ordering};
        use std::time::Duration;

        let folder = tempfile::tempdir().unwrap();
        // Seconds that pass with each look at the clock.
        let (pace, time) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let hurried = Arc::clone(&pace);
        let monotonic = move || {
            let passed = hurried.load(Ordering::SeqCst);
            Duration::from_secs(time.fetch_add(passed, Ordering::SeqCst))
        };
        let options = constellation_eventstore::Options::new(Arc::new(monotonic));
        let (store, _writer) = constellation_eventstore::open(folder.path(), options).unwrap();
        let limit = FrameLimit::new(500_000).unwrap();
        let mut session = Session {
            store,
            ours: Ours::Stored {
                scope: SetScope {
                    kinds: constellation_eventstore::KindSet::all(),
                    since: None,
                    until: None,
                },
                overlay: Arc::default(),
            },
            initiator: Initiator::new(limit),
            difference: Difference::default(),
        };
        session.open().unwrap();
        let theirs = (0..1_000)
            .map(|timestamp| Item {
                timestamp,
                id: [7; 32],
            })
            .collect();
        let answer = Initiator::new(limit)
            .open(&VecSet::from_unsorted(theirs))
            .unwrap();
        pace.store(1, Ordering::SeqCst);
        let taken = session.take(&answer);
        assert!(
            matches!(taken, Err(TransferError::TooBig { .. })),
            "{taken:?}"
        );
    }

    #[test]
    fn a_side_that_is_not_to_be_moved_is_counted_and_leaves_room_for_the_other() {
        let item = Item {
            timestamp: 1,
            id: [1; 32],
        };
        let mut difference = Difference {
            have: vec![item; 3],
            need: vec![item; 3],
        };
        let found = Found {
            need: DIFFERENCE_IDS_MAX / 2,
            have: DIFFERENCE_IDS_MAX / 2,
            ..Found::default()
        };
        let mut unkept = Unkept::default();
        unkept.shed(true, found, &mut difference);
        assert_eq!((unkept.need, unkept.have), (0, 3));
        assert_eq!((difference.need.len(), difference.have.len()), (3, 0));
        unkept.shed(false, Found::default(), &mut difference);
        assert_eq!(difference.need.len(), 3, "a bounded part is kept");
        // All at once, from a peer that has nothing yet: what there is room for is offered, the rest by the next pass.
        difference.have = vec![item; DIFFERENCE_IDS_MAX / 2 + 7];
        unkept.shed(true, Found::default(), &mut difference);
        assert_eq!(difference.have.len(), DIFFERENCE_IDS_MAX / 2);
        assert_eq!(unkept.have, 3 + 7);
    }
}
