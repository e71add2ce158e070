//! Which ids are asked for next: claimed among the exchanges of the run, and known not to be here.
//!
//! Takes findings in their order, and what is to be asked for again; gives ids that are ready to be asked for. What
//! other exchanges hold is put off and looked at again when something was let go, or may be overdue. Invariant: every
//! id that was found is new, put off, to be asked again, being looked up, ready, or given out. Only as much is claimed
//! as can be asked for soon. Bounded by the findings; looking again is bounded in time.

use std::collections::VecDeque;
use std::sync::Arc;

use constellation_eventstore::NewOverlayEntry;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::asked::Wanted;
use super::claims::Claimant;
use super::known::{Sorted, sort_known};
use super::{Findings, Transfer, TransferError, off_runtime};
use crate::limits::{CLAIM_LOOK_EVERY, DEFERRED_LOOK_EVERY};

/// Of what was put off, so many times as many ids are looked at as there is room for.
const DEFERRED_LOOKED_AT: usize = 4;
/// Ids claimed and looked up at a time.
const LOT: usize = 2_000;

/// Ids on their way to a request.
pub(super) struct Lots<'t> {
    transfer: &'t Transfer,
    findings: &'t Findings,
    /// Place of the next id that was not looked at yet.
    next: usize,
    /// Held by other exchanges when they were looked at.
    deferred: VecDeque<Wanted>,
    /// When they may be looked at again.
    next_look: Option<Instant>,
    again: VecDeque<Wanted>,
    /// One lot at most.
    looking_up: FuturesUnordered<BoxFuture<'t, Result<LookedUp, TransferError>>>,
    ready: VecDeque<Wanted>,
}

/// A lot, and what the store knows of it.
pub(super) type LookedUp = (Vec<Wanted>, Sorted);

impl<'t> Lots<'t> {
    pub(super) fn new(transfer: &'t Transfer, findings: &'t Findings) -> Self {
        Self {
            transfer,
            findings,
            next: 0,
            deferred: VecDeque::new(),
            next_look: None,
            again: VecDeque::new(),
            looking_up: FuturesUnordered::new(),
            ready: VecDeque::new(),
        }
    }

    /// Whether every id that was found so far has been given out.
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.findings.found().need
            && self.deferred.is_empty()
            && self.again.is_empty()
            && self.looking_up.is_empty()
            && self.ready.is_empty()
    }

    /// Ids that are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether ids will become ready besides those that are.
    pub(super) fn has_more(&self) -> bool {
        let found = self.findings.found();
        !found.over
            || self.next < found.need
            || !self.again.is_empty()
            || !self.looking_up.is_empty()
    }

    /// Gives out up to `count` of the next ids: those that are still ours. What another exchange took over while they
    /// waited here is put off.
    pub(super) fn take(&mut self, claimant: &Claimant, count: usize) -> Vec<Wanted> {
        let taken: Vec<Wanted> = self.ready.drain(..count.min(self.ready.len())).collect();
        let ids: Vec<[u8; 32]> = taken.iter().map(|wanted| wanted.id).collect();
        let mut wanted = Vec::with_capacity(taken.len());
        for (taken, ours) in taken.into_iter().zip(claimant.renew(&ids)) {
            if ours {
                wanted.push(taken);
            } else {
                self.deferred.push_back(taken);
            }
        }
        wanted
    }

    /// Gives all that is left up: the ids that were claimed, and the others.
    pub(super) fn give_up(&mut self) -> (Vec<[u8; 32]>, Vec<[u8; 32]>) {
        let ids = |wanted: &mut VecDeque<Wanted>| -> Vec<[u8; 32]> {
            std::mem::take(wanted)
                .into_iter()
                .map(|wanted| wanted.id)
                .collect()
        };
        let ready = ids(&mut self.ready);
        let mut others = ids(&mut self.again);
        others.extend(ids(&mut self.deferred));
        let new = self.findings.needs(self.next, usize::MAX);
        self.next += new.len();
        others.extend(new);
        (ready, others)
    }

    /// An id is to be asked for once more.
    pub(super) fn again(&mut self, wanted: Wanted) {
        self.again.push_back(wanted);
    }

    /// Some exchange let something go.
    pub(super) fn released(&mut self, now: Instant) {
        if !self.deferred.is_empty() {
            let soon = now + DEFERRED_LOOK_EVERY;
            self.next_look = Some(self.next_look.map_or(soon, |due| due.min(soon)));
        }
    }

    /// When something is due that nobody tells: claims of others become overdue without a word.
    pub(super) fn wake(&mut self, now: Instant) -> Option<Instant> {
        (!self.deferred.is_empty()).then(|| *self.next_look.get_or_insert(now + CLAIM_LOOK_EVERY))
    }

    /// Claims up to `room` ids: what is to be asked again, what is new, what was put off.
    pub(super) fn prepare(&mut self, claimant: &Claimant, room: usize, now: Instant) {
        let room = room.min(LOT);
        if room == 0 || !self.looking_up.is_empty() {
            return;
        }
        let mut lot = Vec::new();
        let again = self.again.drain(..room.min(self.again.len())).collect();
        self.claim(claimant, again, room, &mut lot, now);
        while lot.len() < room {
            let new = self.findings.needs(self.next, room - lot.len());
            if new.is_empty() {
                break;
            }
            self.next += new.len();
            let new = new.into_iter().map(|id| Wanted { id, asked: 0 });
            self.claim(claimant, new.collect(), room, &mut lot, now);
        }
        if lot.len() < room && self.next_look.is_some_and(|due| due <= now) {
            self.next_look = None;
            // A part at a time: what is still held goes to the end of the line.
            let before = lot.len();
            let look = (DEFERRED_LOOKED_AT * room).min(self.deferred.len());
            let deferred = self.deferred.drain(..look).collect();
            self.claim(claimant, deferred, room, &mut lot, now);
            if lot.len() > before {
                self.next_look = Some(now);
            }
        }
        if lot.is_empty() {
            return;
        }
        if claimant.is_alone() {
            // They were looked up when they were found.
            self.ready.extend(lot);
            return;
        }
        // After they are claimed: whoever had them before let them go when they were stored.
        let store = self.transfer.ingest.store().clone();
        let scope = Arc::clone(&self.transfer.scope);
        let now = self.transfer.clock.unix_seconds();
        let ids: Vec<[u8; 32]> = lot.iter().map(|wanted| wanted.id).collect();
        self.looking_up.push(Box::pin(async move {
            let sorted = off_runtime(move || sort_known(&store, &scope, now, &ids)).await?;
            Ok((lot, sorted))
        }));
    }

    /// Claims of `wanted` what is free, until there is a full lot; the others are put off.
    fn claim(
        &mut self,
        claimant: &Claimant,
        wanted: Vec<Wanted>,
        room: usize,
        lot: &mut Vec<Wanted>,
        now: Instant,
    ) {
        let ids: Vec<[u8; 32]> = wanted.iter().map(|wanted| wanted.id).collect();
        let claimed = claimant.claim(&ids, room.saturating_sub(lot.len()));
        for (place, wanted) in wanted.into_iter().enumerate() {
            if claimed.get(place) == Some(&true) {
                lot.push(wanted);
            } else {
                self.deferred.push_back(wanted);
            }
        }
        if claimed.len() < ids.len() {
            // The lot was full before all were looked at.
            self.next_look = Some(now);
        }
    }

    /// The next lot that was looked up; `None` when none is being looked up. Cancel safe.
    pub(super) async fn looked_up(&mut self) -> Option<Result<LookedUp, TransferError>> {
        self.looking_up.next().await
    }

    /// Makes ready what of a lot is not here. Gives the other ids, which another exchange has brought meanwhile, and
    /// what follows from them for the peer's overlay.
    pub(super) fn make_ready(
        &mut self,
        (lot, sorted): LookedUp,
    ) -> (Vec<[u8; 32]>, Vec<NewOverlayEntry>) {
        let mut missing = sorted.missing.into_iter().peekable();
        let mut known = Vec::new();
        for wanted in lot {
            if missing.next_if_eq(&wanted.id).is_some() {
                self.ready.push_back(wanted);
            } else {
                known.push(wanted.id);
            }
        }
        (known, sorted.enter)
    }
}
