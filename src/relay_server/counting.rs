//! COUNT (NIP-45): exactly how many stored events match, in slices.
//!
//! Gives the number of events that a REQ with the same filters, but without their limits, would return to the same
//! reader: an event that several filters match counts once. `limit` is ignored, as a count is asked for to learn
//! what a limit would hide. Worst case of a slice: 25 ms; memory does not grow with the count.

use std::ops::ControlFlow;
use std::sync::Arc;

use constellation_eventstore::{Progress, Query, Readership, Store, StoreError};
use nostr::filter::Filter;

use super::filter_memory::FilterHold;
use super::matching::Given;

/// What a COUNT is answered under.
#[derive(Debug, Clone)]
pub(super) struct CountTicket {
    pub(super) name: String,
    /// What its filters take of memory.
    pub(super) _held: Arc<FilterHold>,
}

/// A COUNT being answered.
#[derive(Debug)]
pub(super) struct CountRequest {
    pub(super) ticket: CountTicket,
    filters: Vec<Filter>,
    readership: Readership,
    queries: Option<Vec<Query>>,
    given: Given,
    count: u64,
}

impl CountRequest {
    pub(super) fn new(
        ticket: CountTicket,
        mut filters: Vec<Filter>,
        readership: Readership,
    ) -> Self {
        for filter in &mut filters {
            filter.limit = None;
        }
        Self {
            ticket,
            filters,
            readership,
            queries: None,
            given: Given::default(),
            count: 0,
        }
    }

    /// Reads one slice; gives the count when it is known.
    pub(super) fn advance(&mut self, store: &Store, now: u64) -> Result<Option<u64>, StoreError> {
        let snapshot = store.snapshot()?;
        let Self {
            filters,
            readership,
            queries,
            given,
            count,
            ..
        } = self;
        let queries = queries.get_or_insert_with(|| {
            filters
                .iter()
                .map(|filter| Query::new(filter.clone(), readership.clone(), &snapshot, now))
                .collect()
        });
        while let Some(query) = queries.get_mut(given.filters_done()) {
            let mut failed = None;
            let progress = query.advance(&snapshot, &mut |record| {
                match given.contains(filters, record) {
                    Ok(already) => *count += u64::from(!already),
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            if progress == Progress::More {
                return Ok(None);
            }
            given.finish(&filters[given.filters_done()], 0, None);
        }
        Ok(Some(*count))
    }
}
