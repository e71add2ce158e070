//! From events that have come to counted verdicts: gathered into batches, submitted to ingest, remembered.
//!
//! Takes events; gives counts in the tally and entries in the peer's overlay, and lets claims go when fates are
//! decided. A submission resolves when it is durable, which may take a while under load, so many are pending at a
//! time. Batches are large when much comes and immediate when little does. It bounds nothing itself: it tells how many
//! bytes are not settled, and whoever asks for more heeds that. Waits for our own store only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use constellation_event::{Rejection, UnverifiedEvent};
use constellation_eventstore::NewOverlayEntry;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::arrivals::Claimed;
use super::claims::Claimant;
use super::memory::Memory;
use super::{Tally, Transfer, TransferError};
use crate::ingest::{BulkStream, Origin, Verdict};
use crate::limits::{
    GATHER_FOR, SUBMISSION_EVENTS_MAX, UNSETTLED_BYTES_EACH, UNSETTLED_BYTES_HARD,
    UNSETTLED_BYTES_MAX,
};

/// Events between arrival and verdict.
pub(super) struct Intake<'t, 'c> {
    transfer: &'t Transfer,
    tally: &'t Mutex<&'c mut Tally>,
    origin: Origin,
    claimant: Claimant,
    gathered: Vec<(UnverifiedEvent, Claimed)>,
    gathered_since: Option<Instant>,
    submissions: FuturesUnordered<BoxFuture<'t, Result<Settled, TransferError>>>,
    memory: Memory<'t>,
    /// While more is coming from the peer, commits wait to grow.
    more: Option<BulkStream>,
}

struct Settled {
    claimed: Vec<Claimed>,
    verdicts: Vec<Verdict>,
    bytes: usize,
}

impl<'t, 'c> Intake<'t, 'c> {
    pub(super) fn new(transfer: &'t Transfer, tally: &'t Mutex<&'c mut Tally>) -> Self {
        Self {
            transfer,
            tally,
            origin: Origin::Peer {
                scope: Arc::clone(&transfer.scope),
            },
            claimant: transfer.claims.join(),
            gathered: Vec::new(),
            gathered_since: None,
            submissions: FuturesUnordered::new(),
            memory: Memory::new(transfer),
            more: None,
        }
    }

    pub(super) fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, &'c mut Tally> {
        // Counting does not panic, and numbers are whole after every line of it.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch has gathered.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= SUBMISSION_EVENTS_MAX
    }

    /// Whether so much has come and is not stored that no more is to be asked for.
    pub(super) fn is_behind(&self) -> bool {
        let (ours, all) = self.claimant.unsettled();
        ours >= UNSETTLED_BYTES_EACH && all >= UNSETTLED_BYTES_MAX
    }

    /// Whether nothing more is to be read either.
    pub(super) fn is_flooded(&self) -> bool {
        let (ours, all) = self.claimant.unsettled();
        ours >= UNSETTLED_BYTES_EACH && all >= UNSETTLED_BYTES_HARD
    }

    /// Whether the fate of everything that came is decided, and what follows is written.
    pub(super) fn is_settled(&self) -> bool {
        self.gathered.is_empty() && self.submissions.is_empty() && self.memory.is_idle()
    }

    /// When what has gathered is to be submitted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gathered_since.map(|since| since + GATHER_FOR)
    }

    /// An event has come that is to be offered to ingest.
    pub(super) fn offer(&mut self, event: UnverifiedEvent, claimed: Claimed) {
        self.claimant.delivered(&claimed.key.id);
        self.claimant.add_unsettled(event.bytes());
        self.gathered_since.get_or_insert_with(Instant::now);
        self.gathered.push((event, claimed));
    }

    /// An event has come that is not worth offering.
    pub(super) fn refuse(&mut self, claimed: &Claimed, reason: Rejection) {
        self.count(claimed, Verdict::Rejected(reason));
        self.claimant.release([&claimed.key.id]);
    }

    /// What follows from the store for ids that need no fetching.
    pub(super) fn remember(&mut self, entries: Vec<NewOverlayEntry>) {
        self.memory.enter(entries);
    }

    /// Says whether more is coming from the peer: for as long as it is, commits may wait to grow.
    pub(super) fn expect_more(&mut self, more: bool) {
        if !more {
            self.more = None;
        } else if self.more.is_none() {
            self.more = Some(self.transfer.ingest.bulk_stream());
        }
    }

    /// Whether commits wait for more of this peer.
    pub(super) fn expects_more(&self) -> bool {
        self.more.is_some()
    }

    /// Submits what has gathered: at once if ingest is idle or nothing more comes, else when it is much, or was long.
    pub(super) fn submit(&mut self, more_may_come: bool, now: Instant) {
        while !self.gathered.is_empty() {
            let is_due = self.due().is_some_and(|due| due <= now);
            if more_may_come && !is_due && !self.is_full() && !self.submissions.is_empty() {
                return;
            }
            let count = self.gathered.len().min(SUBMISSION_EVENTS_MAX);
            let (events, claimed): (Vec<UnverifiedEvent>, Vec<Claimed>) =
                self.gathered.drain(..count).unzip();
            if self.gathered.is_empty() {
                self.gathered_since = None;
            }
            let bytes = events.iter().map(UnverifiedEvent::bytes).sum();
            let (transfer, origin) = (self.transfer, self.origin.clone());
            self.submissions.push(Box::pin(async move {
                // Before they are stored: whoever scans the store for what the peer lacks must find them there.
                transfer
                    .brought
                    .note(events.iter().map(UnverifiedEvent::id));
                let (ingest, source) = (&transfer.ingest, &transfer.source);
                let verdicts = match &transfer.screen {
                    Some(screen) => screen.submit(ingest, source, origin, events).await?,
                    None => ingest.submit(source, origin, events).await?,
                };
                Ok(Settled {
                    claimed,
                    verdicts,
                    bytes,
                })
            }));
        }
    }

    /// Waits until something more is settled or written; never returns when nothing is under way. Cancel safe.
    ///
    /// # Errors
    /// Our own store's, or [`TransferError::Forgeries`].
    pub(super) async fn progress(&mut self) -> Result<(), TransferError> {
        tokio::select! {
            biased;
            Some(settled) = self.submissions.next() => self.settle(settled?),
            written = self.memory.written(), if !self.memory.is_idle() => written,
            else => std::future::pending().await,
        }
    }

    fn settle(&mut self, settled: Settled) -> Result<(), TransferError> {
        self.claimant.settle(settled.bytes);
        for (claimed, verdict) in settled.claimed.iter().zip(settled.verdicts) {
            self.count(claimed, verdict);
        }
        self.claimant
            .release(settled.claimed.iter().map(|claimed| &claimed.key.id));
        self.mind_forgeries()
    }

    fn count(&mut self, claimed: &Claimed, verdict: Verdict) {
        let now = self.transfer.clock.unix_seconds();
        let entry = claimed.count(verdict, &mut self.tally(), &self.transfer.slice, now);
        self.memory.enter(entry);
    }

    /// After each batch: a peer that goes on for ever with what nobody asked for is left soon.
    ///
    /// # Errors
    /// [`TransferError::Forgeries`].
    pub(super) fn mind_forgeries(&self) -> Result<(), TransferError> {
        match self.tally().too_many_forgeries() {
            Some((forged, delivered)) => Err(TransferError::Forgeries { forged, delivered }),
            None => Ok(()),
        }
    }

    /// Waits until the fate of all that has come is decided.
    ///
    /// # Errors
    /// Our own store's.
    pub(super) async fn settle_all(&mut self) -> Result<(), TransferError> {
        self.expect_more(false);
        loop {
            self.submit(false, Instant::now());
            if self.is_settled() {
                return Ok(());
            }
            match self.progress().await {
                // Known, or of no consequence any more: the peer is being left.
                Ok(()) | Err(TransferError::Forgeries { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
