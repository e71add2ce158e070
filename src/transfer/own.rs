//! What we share of a slice: read from the store, a snapshot's slice of time at a time.
//!
//! Takes a transfer; hands over each shared event's place, newest first. What is protected, ephemeral or expired is left
//! out, and so is what the scope does not cover. Blocks only off the runtime. Worst case: every event of the coarsest
//! index that the filter has.

use std::ops::ControlFlow;
use std::sync::Arc;

use constellation_eventstore::{Progress, Query, Readership, Record, Snapshot, StoreError};
use constellation_reconcile::Item;

use super::{Slice, Transfer, TransferError, off_runtime};
use crate::ingest::Scope;

/// Hands what we share of `slice` to `receive`, in pieces, newest first.
///
/// # Errors
/// Our own store's.
pub(super) async fn read_own(
    transfer: &Transfer,
    slice: &Slice,
    receive: &mut (dyn FnMut(&[Item]) -> ControlFlow<()> + Send),
) -> Result<(), TransferError> {
    let now = transfer.clock.unix_seconds();
    let (store, filter) = (transfer.ingest.store().clone(), slice.filter());
    let mut query = off_runtime(move || {
        let snapshot = store.snapshot()?;
        Ok(Query::new(filter, Readership::Full, &snapshot, now))
    })
    .await?;
    loop {
        let store = transfer.ingest.store().clone();
        let scope = Arc::clone(&transfer.scope);
        let (next, items, progress) = off_runtime(move || {
            let mut items = Vec::new();
            let mut failed = None;
            let snapshot = store.snapshot()?;
            let progress = query.advance(&snapshot, &mut |record| {
                match is_ours_to_share(&snapshot, record, &scope) {
                    Ok(true) => items.push(Item {
                        timestamp: record.created_at(),
                        id: *record.id(),
                    }),
                    Ok(false) => {}
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
            match failed {
                Some(error) => Err(error.into()),
                None => Ok((query, items, progress)),
            }
        })
        .await?;
        query = next;
        if receive(&items).is_break() || progress == Progress::Done {
            return Ok(());
        }
    }
}

fn is_ours_to_share(
    snapshot: &Snapshot<'_>,
    record: &Record<'_>,
    scope: &Scope,
) -> Result<bool, StoreError> {
    if !record.is_shared() {
        return Ok(false);
    }
    if scope.authors.is_none() {
        return Ok(scope.kinds.contains(record.kind()));
    }
    Ok(scope.covers(record.kind(), &snapshot.author_of(record)?))
}
