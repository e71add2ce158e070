//! Stored events that match a filter: as JSON lines, or counted.

use std::ops::ControlFlow;

use constellation_eventstore::{Progress, Query, Readership, Store, StoreError};
use nostr::filter::Filter;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Bytes of results gathered before they are written.
const SLICE_BYTES: usize = 1 << 20;

/// Why an export or count broke off.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(std::io::Error),
    /// The station is shutting down.
    #[error("the station is shutting down")]
    Closed,
}

/// Writes the events that match, newest first, one JSON line each. Gives how many.
///
/// Cancel safety: whole lines may be written already.
///
/// # Errors
/// [`ArchiveError`].
pub async fn export(
    store: &Store,
    filter: Filter,
    now: u64,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, ArchiveError> {
    let mut query = begin(store, filter, now).await?;
    let mut written = 0;
    loop {
        let slice = {
            let store = store.clone();
            off_runtime(move || {
                let mut lines = Vec::with_capacity(SLICE_BYTES);
                let mut events = 0;
                let progress = query.advance(&store.snapshot()?, &mut |record| {
                    lines.extend_from_slice(record.json().as_bytes());
                    lines.push(b'\n');
                    events += 1;
                    if lines.len() >= SLICE_BYTES {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                Ok((query, lines, events, progress))
            })
            .await?
        };
        let (next, lines, events, progress) = slice;
        query = next;
        output
            .write_all(&lines)
            .await
            .map_err(ArchiveError::Output)?;
        written += events;
        if progress == Progress::Done {
            output.flush().await.map_err(ArchiveError::Output)?;
            return Ok(written);
        }
    }
}

/// Counts the events that match.
///
/// # Errors
/// [`ArchiveError`].
pub async fn count(store: &Store, filter: Filter, now: u64) -> Result<u64, ArchiveError> {
    let mut query = begin(store, filter, now).await?;
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

async fn begin(store: &Store, filter: Filter, now: u64) -> Result<Query, ArchiveError> {
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
