//! One REQ for ids: what it still misses, and the wait for what it brings.
//!
//! Takes ids in the order in which they are wanted; gives events as they come, as many as have queued, and one end.
//! Invariant: an event leaves `missing` once. Waits are under the exchange's pulse; dropping it tells the peer CLOSE.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Line, TransferError};
use crate::protocol::ReasonPrefix;
use crate::relay_client::{ConversationError, Request, RequestEnd};

/// Events taken from a request at a time.
const EVENTS_PER_BATCH: usize = 512;

/// An id that is to be asked for, and how often it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: [u8; 32],
    pub(crate) asked: u8,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) since: Instant,
    /// Ids whose events have not come, and how often each was asked for before.
    pub(crate) missing: HashMap<[u8; 32], u8>,
    pub(crate) ids: Vec<[u8; 32]>,
    request: Option<Request>,
    /// The peer was told who we are after it had refused this.
    introduced: bool,
    withdrawn: CancellationToken,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer has sent all that it will.
    Whole,
    /// The peer refused it or broke it off.
    Closed { prefix: ReasonPrefix, text: String },
    /// We gave it up.
    Withdrawn,
}

/// What a request brought.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) events: Vec<Bytes>,
    pub(crate) end: Option<End>,
}

impl Asked {
    pub(crate) fn new(number: u64, wanted: &[Wanted], withdrawn: CancellationToken) -> Self {
        Self {
            number,
            since: Instant::now(),
            missing: wanted
                .iter()
                .map(|wanted| (wanted.id, wanted.asked))
                .collect(),
            ids: wanted.iter().map(|wanted| wanted.id).collect(),
            request: None,
            introduced: false,
            withdrawn,
        }
    }

    /// Asks, the first time; then waits for what comes next.
    pub(crate) async fn listen(mut self, line: Line<'_>) -> (Self, Result<News, TransferError>) {
        let mut events = Vec::new();
        let withdrawn = self.withdrawn.clone();
        let end = withdrawn
            .run_until_cancelled(self.next(line, &mut events))
            .await;
        let news = match end {
            None => Ok(Some(End::Withdrawn)),
            // What came before the connection broke is stored first; the next call says that it broke.
            Some(Err(_)) if !events.is_empty() => Ok(None),
            Some(end) => end,
        };
        (self, news.map(|end| News { events, end }))
    }

    async fn next(
        &mut self,
        line: Line<'_>,
        events: &mut Vec<Bytes>,
    ) -> Result<Option<End>, TransferError> {
        let request = match self.request.as_mut() {
            Some(request) => request,
            None => {
                let ids: Vec<[u8; 32]> = self
                    .ids
                    .iter()
                    .filter(|id| self.missing.contains_key(*id))
                    .copied()
                    .collect();
                let request = line.in_time(line.conversation.fetch(&ids)).await?;
                self.request.insert(request)
            }
        };
        let next = async {
            let end = request.next_batch(events, EVENTS_PER_BATCH).await?;
            Ok::<_, ConversationError>(end)
        };
        let end = match line.answered(next).await? {
            None => return Ok(None),
            Some(RequestEnd::EndOfStored) => return Ok(Some(End::Whole)),
            Some(RequestEnd::Closed { prefix, text }) => End::Closed { prefix, text },
        };
        if matches!(end, End::Closed { prefix, .. } if prefix == ReasonPrefix::AuthRequired)
            && !std::mem::replace(&mut self.introduced, true)
            && line.authenticate().await?
        {
            // Asked again by the next call, for what is missing then.
            self.request = None;
            return Ok(None);
        }
        Ok(Some(end))
    }

    /// Ids whose events have come.
    pub(crate) fn delivered(&self) -> usize {
        self.ids.len() - self.missing.len()
    }
}
