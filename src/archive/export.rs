//! Stored events that match a filter: as JSON lines, or counted.

use std::ops::ControlFlow;

use constellation_eventstore::{Progress, Query, Readership, Store, StoreError};
use nostr::filter::Filter;

/// Bytes of results gathered before they are handed on.
const SLICE_BYTES: usize = 1 << 20;

/// Why an export or count broke off.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The station is shutting down.
    #[error("the station is shutting down")]
    Closed,
}

/// The events that match a filter, newest first, as JSON lines.
#[derive(Debug)]
pub struct Export {
    store: Store,
    query: Option<Query>,
}

impl Export {
    /// Begins to export what the store holds now; `now` is Unix seconds.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn begin(store: &Store, filter: Filter, now: u64) -> Result<Self, ArchiveError> {
        let query = begin_query(store, filter, now).await?;
        Ok(Self {
            store: store.clone(),
            query: Some(query),
        })
    }

    /// The next lines, each with its line feed; `None` after the last.
    ///
    /// Cancel safety: an export that is dropped while it waits cannot go on.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(mut query) = self.query.take() else {
            return Ok(None);
        };
        let store = self.store.clone();
        let (query, lines, progress) = off_runtime(move || {
            let mut lines = Vec::new();
            let progress = query.advance(&store.snapshot()?, &mut |record| {
                lines.extend_from_slice(record.json().as_bytes());
                lines.push(b'\n');
                if lines.len() >= SLICE_BYTES {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok((query, lines, progress))
        })
        .await?;
        self.query = (progress == Progress::More).then_some(query);
        Ok(Some(lines))
    }
}

/// Counts the events that match.
///
/// # Errors
/// [`ArchiveError`].
pub async fn count(store: &Store, filter: Filter, now: u64) -> Result<u64, ArchiveError> {
    let mut query = begin_query(store, filter, now).await?;
    let mut total = 0u64;
    loop {
        let store = store.clone();
        let (next, found, progress) = off_runtime(move || {
            let mut found = 0;
            let progress = query.advance(&store.snapshot()?, &mut |_| {
                found += 1;
                ControlFlow::Continue(())
            })?;
            Ok((query, found, progress))
        })
        .await?;
        query = next;
        total += found;
        if progress == Progress::Done {
            return Ok(total);
        }
    }
}

async fn begin_query(store: &Store, filter: Filter, now: u64) -> Result<Query, ArchiveError> {
    let store = store.clone();
    off_runtime(move || {
        Ok(Query::new(
            filter,
            Readership::Full,
            &store.snapshot()?,
            now,
        ))
    })
    .await
}

pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(ArchiveError::Closed),
    }
}
