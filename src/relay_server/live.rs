//! What is new since each subscription was told last: one scan of the store for all of a connection.
//!
//! Takes the listening subscriptions with their positions; gives EVENT frames in the order of commits, then those
//! of the ring of ephemeral events, and the position reached. Starts at the hindmost and tells each only what it
//! has not heard. Nothing is queued for slow readers: they are scanned for later (the ring forgets, NIP-01 allows
//! it). A live link of another station is told of what is shared, not of what that station published, and nothing of
//! the ring; one that is more than `LIVE_BACKLOG_MAX` behind is named instead: reconciling is cheaper then. Worst case
//! of a slice: 25 ms of reading, or `SLICE_BYTES` and one event for each subscription.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use constellation_eventstore::{Readership, Record, Store, StoreError};

use super::bounds::SLICE_BYTES;
use super::matching::Candidate;
use super::subscriptions::{Position, Subscription};
use crate::limits::LIVE_BACKLOG_MAX;
use crate::protocol::relay_message;

/// A scan for what is new.
#[derive(Debug)]
pub(super) struct LiveScan {
    pub(super) listeners: Vec<(Arc<Subscription>, Position)>,
    pub(super) readership: Readership,
}

/// What a scan brought.
#[derive(Debug, Default)]
pub(super) struct LiveSlice {
    /// Each with the index of its listener.
    pub(super) frames: Vec<(usize, Bytes)>,
    pub(super) reached: Position,
    /// Whether nothing new was left.
    pub(super) finished: bool,
    /// Indexes of live links for which too much is new.
    pub(super) behind: Vec<usize>,
    bytes: usize,
}

impl LiveSlice {
    fn push(&mut self, listener: usize, subscription: &Subscription, json: &str) {
        let frame = relay_message::encode_event(&subscription.name, json);
        self.bytes += frame.len();
        self.frames.push((listener, frame.into()));
    }

    fn is_full(&self) -> bool {
        self.bytes >= SLICE_BYTES
    }
}

impl LiveScan {
    /// Reads one slice.
    pub(super) fn advance(&self, store: &Store, now: u64) -> Result<LiveSlice, StoreError> {
        let mut slice = LiveSlice::default();
        // The ring first: what is pushed between the two looks is then announced by another change.
        let ring = self
            .listeners
            .iter()
            .map(|(_, position)| position.ephemeral);
        let news = store.ephemeral_since(ring.min().unwrap_or_default());
        let snapshot = store.snapshot()?;
        let last = snapshot.last_sequence();
        let is_behind = |(subscription, position): &(Arc<Subscription>, Position)| {
            let backlog = last.0.saturating_sub(position.sequence.0);
            subscription.link.is_some() && backlog > LIVE_BACKLOG_MAX
        };
        for (index, listener) in self.listeners.iter().enumerate() {
            if is_behind(listener) {
                slice.behind.push(index);
            }
        }
        let hearing = self.listeners.iter().filter(|one| !is_behind(one));
        let Some(start) = hearing.map(|(_, position)| position.sequence).min() else {
            slice.finished = true;
            return Ok(slice);
        };
        let mut failed = None;
        let (sequence, finished) = snapshot.scan_after(start, &mut |record| match self
            .tell(record, now, &mut slice)
        {
            Ok(()) if slice.is_full() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        slice.reached.sequence = sequence;
        slice.reached.ephemeral = news.cursor;
        slice.finished = finished;
        let first = news.cursor.saturating_sub(news.events.len() as u64);
        for (number, event) in (first..).zip(&news.events) {
            if slice.is_full() {
                slice.reached.ephemeral = number;
                slice.finished = false;
                break;
            }
            for (index, (subscription, position)) in self.listeners.iter().enumerate() {
                if number >= position.ephemeral
                    && subscription.link.is_none()
                    && subscription
                        .filters
                        .iter()
                        .any(|filter| event.matches(filter))
                {
                    slice.push(index, subscription, event.json());
                }
            }
        }
        Ok(slice)
    }

    /// Tells every listener that has not heard of `record`, matches it and may read it.
    fn tell(&self, record: &Record<'_>, now: u64, slice: &mut LiveSlice) -> Result<(), StoreError> {
        if record.is_expired(now) || !self.readership.may_read(record)? {
            return Ok(());
        }
        let mut candidate = Candidate::new(record);
        for (index, (subscription, position)) in self.listeners.iter().enumerate() {
            if record.sequence() <= position.sequence || slice.behind.contains(&index) {
                continue;
            }
            let link = subscription.link.as_ref();
            if link.is_some_and(|link| !record.is_shared() || link.has_brought(record.id())) {
                continue;
            }
            for filter in &subscription.filters {
                if candidate.matches(filter)? {
                    slice.push(index, subscription, record.json());
                    if let Some(link) = link {
                        link.events_out.fetch_add(1, Ordering::Relaxed);
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}
