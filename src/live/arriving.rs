//! Events that a peer tells of as they happen: on their way to the store, and what is to be remembered of those refused.
//!
//! Takes raw JSON; every event goes through ingest in the prompt lane, known ones are found out there before anything is
//! verified. What is refused for its content enters the peer's overlay, as after an exchange. A few forgeries are borne,
//! many end the link. Bounded by events and bytes between arrival and verdict: above, the link is not read from. Dropping
//! it loses no event that was taken.

use std::sync::Arc;

use bytes::Bytes;
use constellation_event::{CanonicalKey, EventLimits, KindClass, Rejection, UnverifiedEvent};
use constellation_eventstore::NewOverlayEntry;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use nostr::filter::Filter;
use tokio::sync::watch;

use super::board::{LinkStats, count};
use super::link::Link;
use crate::ingest::{Ingest, IngestError, Lane, Origin, Scope, Source, Verdict};
use crate::limits::{
    FORGERIES_MAX, FORGERIES_SHARE, LIVE_ARRIVAL_BYTES_IN_FLIGHT, LIVE_ARRIVALS_IN_FLIGHT,
};
use crate::plugin::Screen;
use crate::recent_ids::Brought;
use crate::time::Clock;
use crate::transfer::remembered;

/// Why no more is taken from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArrivalError {
    /// Our own store.
    #[error("our store: {0}")]
    Ingest(#[from] IngestError),
    /// No honest relay sends so many.
    #[error("{forged} of {delivered} events were forged, unreadable or not asked for")]
    Forgeries { forged: u64, delivered: u64 },
}

/// What an event says it is.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    key: CanonicalKey,
    kind: u16,
}

struct Settled {
    claimed: Vec<Claimed>,
    verdicts: Vec<Verdict>,
    bytes: usize,
}

/// Events between arrival and verdict.
pub(super) struct Arriving {
    ingest: Ingest,
    source: Source,
    scope: watch::Receiver<Arc<Scope>>,
    filter: Filter,
    peer: String,
    clock: Clock,
    /// What came does not go back.
    brought: Brought,
    screen: Screen,
    stats: Arc<LinkStats>,
    submissions: FuturesUnordered<BoxFuture<'static, Result<Settled, IngestError>>>,
    /// What is being remembered: one change at a time.
    remembering: FuturesUnordered<BoxFuture<'static, Result<(), IngestError>>>,
    to_remember: Vec<NewOverlayEntry>,
    events: usize,
    bytes: usize,
    delivered: u64,
    forged: u64,
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving")
            .field("peer", &self.peer)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl Arriving {
    /// What comes over this link; `filter` is what the peer is asked for, authors aside: they come and go.
    pub(super) fn over(link: &Link, filter: Filter) -> Self {
        Self {
            ingest: link.ingest.clone(),
            source: link.ingest.source(Lane::Prompt),
            scope: link.scope.clone(),
            filter,
            peer: link.plan.address.as_str().to_owned(),
            clock: link.clock.clone(),
            brought: link.brought.clone(),
            screen: link.screen.clone(),
            stats: Arc::clone(&link.stats),
            submissions: FuturesUnordered::new(),
            remembering: FuturesUnordered::new(),
            to_remember: Vec::new(),
            events: 0,
            bytes: 0,
            delivered: 0,
            forged: 0,
        }
    }

    /// Whether more may be taken from the peer.
    pub(super) fn has_room(&self) -> bool {
        self.events < LIVE_ARRIVALS_IN_FLIGHT && self.bytes < LIVE_ARRIVAL_BYTES_IN_FLIGHT
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.submissions.is_empty() && self.remembering.is_empty()
    }

    /// Events have come.
    ///
    /// # Errors
    /// [`ArrivalError::Forgeries`].
    pub(super) fn take(&mut self, came: Vec<Bytes>) -> Result<(), ArrivalError> {
        let mut events = Vec::with_capacity(came.len());
        for json in came {
            self.delivered += 1;
            match UnverifiedEvent::parse(&json, &EventLimits::default()) {
                Err(reason) => self.refuse(None, reason),
                Ok(event) if !event.matches(&self.filter) => {
                    self.refuse(Some(claimed_by(&event)), Rejection::OutsideFilter);
                }
                // They are for those who listen at the peer: handed on, they would go round for ever.
                Ok(event) if KindClass::of(event.kind()) == KindClass::Ephemeral => {
                    count(&self.stats.refused_in);
                }
                Ok(event) => events.push(event),
            }
        }
        self.submit(events);
        self.remember();
        self.mind_forgeries()
    }

    fn submit(&mut self, events: Vec<UnverifiedEvent>) {
        if events.is_empty() {
            return;
        }
        // Before they are stored: whoever scans the store must find them here.
        self.brought.note(events.iter().map(UnverifiedEvent::id));
        let claimed: Vec<Claimed> = events.iter().map(claimed_by).collect();
        let bytes = events.iter().map(UnverifiedEvent::bytes).sum();
        (self.events, self.bytes) = (self.events + events.len(), self.bytes + bytes);
        let (ingest, source, screen) = (
            self.ingest.clone(),
            self.source.clone(),
            self.screen.clone(),
        );
        let origin = Origin::Peer {
            scope: Arc::clone(&self.scope.borrow()),
        };
        self.submissions.push(Box::pin(async move {
            let verdicts = screen.submit(&ingest, &source, origin, events).await?;
            Ok(Settled {
                claimed,
                verdicts,
                bytes,
            })
        }));
    }

    /// Waits until something more is decided or remembered; never returns when nothing is under way. Cancel safe.
    ///
    /// # Errors
    /// [`ArrivalError`].
    pub(super) async fn progress(&mut self) -> Result<(), ArrivalError> {
        tokio::select! {
            biased;
            Some(settled) = self.submissions.next() => self.settle(&settled?),
            Some(written) = self.remembering.next() => written?,
            else => std::future::pending().await,
        }
        self.remember();
        self.mind_forgeries()
    }

    fn settle(&mut self, settled: &Settled) {
        self.events -= settled.claimed.len();
        self.bytes -= settled.bytes;
        for (claimed, verdict) in settled.claimed.iter().zip(&settled.verdicts) {
            match verdict {
                Verdict::Stored => count(&self.stats.events_in),
                Verdict::Duplicate => count(&self.stats.duplicates_in),
                // What the policy did not rule on is for the next exchange.
                Verdict::Ephemeral | Verdict::Undecided | Verdict::Postponed => {
                    count(&self.stats.refused_in)
                }
                Verdict::Rejected(reason) => self.refuse(Some(*claimed), *reason),
            }
        }
    }

    fn refuse(&mut self, claimed: Option<Claimed>, reason: Rejection) {
        count(&self.stats.refused_in);
        self.forged += u64::from(reason.is_forgery());
        if let Some(Claimed { key, kind }) = claimed {
            let now = self.clock.unix_seconds();
            self.to_remember
                .push(remembered(key, Some(kind), reason, now));
        }
    }

    fn remember(&mut self) {
        if self.to_remember.is_empty() || !self.remembering.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.to_remember);
        let (ingest, peer) = (self.ingest.clone(), self.peer.clone());
        self.remembering.push(Box::pin(async move {
            ingest.change_overlay(&peer, entries, Vec::new()).await
        }));
    }

    fn mind_forgeries(&self) -> Result<(), ArrivalError> {
        let (forged, delivered) = (self.forged, self.delivered);
        if forged > FORGERIES_MAX && forged.saturating_mul(FORGERIES_SHARE) > delivered {
            return Err(ArrivalError::Forgeries { forged, delivered });
        }
        Ok(())
    }
}

fn claimed_by(event: &UnverifiedEvent) -> Claimed {
    Claimed {
        key: event.canonical_key(),
        kind: event.kind(),
    }
}
