//! What is to be remembered about the peer, written as it comes and never more than one change at a time.
//!
//! Takes entries; whatever gathers while a change is being written goes into the next one, so that a flood of small
//! batches does not become a flood of commits. Bounded by what its user has under way. Dropping it loses what was not
//! written: that is found out again in the next run.

use constellation_eventstore::NewOverlayEntry;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::{Transfer, TransferError};

/// Entries of the peer's overlay on their way to the store.
pub(super) struct Memory<'t> {
    transfer: &'t Transfer,
    waiting: Vec<NewOverlayEntry>,
    /// One at most.
    writing: FuturesUnordered<BoxFuture<'t, Result<(), TransferError>>>,
}

impl std::fmt::Debug for Memory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<'t> Memory<'t> {
    pub(super) fn new(transfer: &'t Transfer) -> Self {
        Self {
            transfer,
            waiting: Vec::new(),
            writing: FuturesUnordered::new(),
        }
    }

    pub(super) fn enter(&mut self, entries: impl IntoIterator<Item = NewOverlayEntry>) {
        self.waiting.extend(entries);
    }

    /// Writes on, until there is nothing to write; never returns while there never was. Cancel safe.
    pub(super) async fn written(&mut self) -> Result<(), TransferError> {
        loop {
            if self.writing.is_empty() && !self.waiting.is_empty() {
                let entries = std::mem::take(&mut self.waiting);
                let transfer = self.transfer;
                self.writing.push(Box::pin(async move {
                    let changed =
                        transfer
                            .ingest
                            .change_overlay(&transfer.peer, entries, Vec::new());
                    Ok(changed.await?)
                }));
            }
            match self.writing.next().await {
                Some(written) => written?,
                None => return Ok(()),
            }
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_empty()
    }
}
