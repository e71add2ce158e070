//! The stored events of one REQ, in slices, ready to be sent.
//!
//! Takes a subscription and a reader's rights; gives EVENT frames filter by filter, each newest first and exactly to
//! its limit, none twice. All filters see the store as it was at the first slice; what comes later is the live
//! scan's, from [`StoredRequest::position`]. Worst case of a slice: 25 ms of reading, or `SLICE_BYTES` and one event.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use constellation_eventstore::{Progress, Query, Readership, Record, Store, StoreError};

use super::bounds::SLICE_BYTES;
use super::matching::{Given, Place};
use super::subscriptions::{Position, Subscription};
use crate::protocol::relay_message;

/// A REQ being answered.
#[derive(Debug)]
pub(super) struct StoredRequest {
    pub(super) subscription: Arc<Subscription>,
    readership: Readership,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    position: Position,
    queries: Vec<Query>,
    given: Given,
    /// Results of the filter that is being answered, and the last of them.
    count: usize,
    last: Option<Place>,
}

/// What a slice brought.
#[derive(Debug)]
pub(super) struct StoredSlice {
    pub(super) frames: Vec<Bytes>,
    pub(super) done: bool,
}

impl StoredRequest {
    pub(super) fn new(subscription: Arc<Subscription>, readership: Readership) -> Self {
        Self {
            subscription,
            readership,
            begun: None,
        }
    }

    /// Where listening is to begin.
    pub(super) fn position(&self) -> Position {
        self.begun
            .as_ref()
            .map(|begun| begun.position)
            .unwrap_or_default()
    }

    /// Reads one slice.
    pub(super) fn advance(&mut self, store: &Store, now: u64) -> Result<StoredSlice, StoreError> {
        let snapshot = store.snapshot()?;
        let Self {
            subscription,
            readership,
            begun,
        } = self;
        let begun = begun.get_or_insert_with(|| Begun {
            position: Position {
                sequence: snapshot.last_sequence(),
                ephemeral: store.ephemeral_cursor(),
            },
            queries: subscription
                .filters
                .iter()
                .map(|filter| Query::new(filter.clone(), readership.clone(), &snapshot, now))
                .collect(),
            given: Given::default(),
            count: 0,
            last: None,
        });
        let mut slice = StoredSlice {
            frames: Vec::new(),
            done: false,
        };
        let mut bytes = 0;
        while begun.given.filters_done() < subscription.filters.len() {
            let progress = begun.advance_filter(subscription, &snapshot, |frame| {
                bytes += frame.len();
                slice.frames.push(frame);
                bytes < SLICE_BYTES
            })?;
            let over = bytes >= SLICE_BYTES || snapshot.should_yield();
            if over || progress == Progress::More {
                break;
            }
        }
        slice.done = begun.given.filters_done() == subscription.filters.len();
        Ok(slice)
    }
}

impl Begun {
    /// Goes on with the filter whose turn it is, until `push` has enough or the slice is over.
    fn advance_filter(
        &mut self,
        subscription: &Subscription,
        snapshot: &constellation_eventstore::Snapshot<'_>,
        mut push: impl FnMut(Bytes) -> bool,
    ) -> Result<Progress, StoreError> {
        let index = self.given.filters_done();
        let (given, count, last) = (&self.given, &mut self.count, &mut self.last);
        let mut failed = None;
        let progress = self.queries[index].advance(snapshot, &mut |record: &Record<'_>| {
            *count += 1;
            *last = Some(Place::of(record));
            match given.contains(&subscription.filters, record) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => {
                    let frame = relay_message::encode_event(&subscription.name, record.json());
                    if push(frame.into()) {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if progress == Progress::Done {
            self.given
                .finish(&subscription.filters[index], self.count, self.last);
            (self.count, self.last) = (0, None);
        }
        Ok(progress)
    }
}
