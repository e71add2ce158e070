//! Our own news on their way to a peer: read from the store, offered, answered.
//!
//! Scans the store from where it stood, as the relay does for its subscribers, so nothing is offered that is not stored;
//! only what is in scope, shared and did not come from that peer, over the link or in an exchange. Many EVENTs are under way at a time,
//! within a window. What the peer refuses or does not answer is not offered again: the next exchange covers it, and
//! learns why; one is asked for where it refused for the moment only. Whoever falls too far behind jumps to the present and asks for an exchange. Bounded by the window.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use constellation_eventstore::{Record, Sequence, Store, StoreError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::board::{LinkStats, count};
use super::link::Link;
use crate::ingest::{Ingest, IngestError, Scope};
use crate::limits::{
    AUTH_REFUSALS_MAX, LIVE_BACKLOG_MAX, LIVE_EXCHANGE_AGAIN_MAX, LIVE_PUSH_BYTES_IN_FLIGHT,
    LIVE_PUSHES_IN_FLIGHT, PAUSE_MAX, STEP_DEADLINE,
};
use crate::protocol::{ReasonPrefix, hex};
use crate::recent_ids::Brought;
use crate::relay_client::{Conversation, ConversationError, Publication, PublishError};
use crate::time::Clock;

/// What was read of what is new.
struct Slice {
    events: Vec<([u8; 32], String)>,
    reached: Sequence,
    finished: bool,
    /// Too much is new: nothing was read, and what was reached is the present.
    behind: bool,
}

/// What became of an event that was offered.
enum Offered {
    Answered(Publication),
    Unanswered,
    Withdrawn,
    Ended(ConversationError),
}

/// Why nothing more is offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PushError {
    /// Our own store.
    #[error("our store: {0}")]
    Ingest(#[from] IngestError),
    /// The peer took an event and said nothing of it.
    #[error("no answer to an event within the step deadline")]
    Unanswered,
    /// The conversation ended.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
}

/// What there is to say after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pushed {
    /// The peer said something: it is there.
    pub(super) heard: bool,
    /// Not all that was new was offered, or is offered by nobody any more: an exchange is needed.
    pub(super) behind: bool,
}

type Reading = BoxFuture<'static, Result<Slice, IngestError>>;
type Answer = BoxFuture<'static, (usize, Duration, Offered)>;

/// Events on their way to one peer.
pub(super) struct Pushing {
    conversation: Conversation,
    ingest: Ingest,
    scope: watch::Receiver<Arc<Scope>>,
    clock: Clock,
    /// What the peer has.
    brought: Brought,
    stats: Arc<LinkStats>,
    position: Sequence,
    /// When we learnt of the news that are being offered.
    news_at: Option<Duration>,
    /// When we learnt of more, which a reading under way may not see.
    more_at: Option<Duration>,
    /// One at most.
    reading: FuturesUnordered<Reading>,
    answers: FuturesUnordered<Answer>,
    bytes: usize,
    /// Nothing is offered before.
    paused_until: Option<Instant>,
    /// When an exchange is to offer what was refused for the moment.
    owes_at: Option<Instant>,
    /// How long after the next such refusal.
    owed_after: Duration,
    /// `auth-required:` in a row.
    unauthenticated: u32,
}

impl std::fmt::Debug for Pushing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushing")
            .field("position", &self.position)
            .field("under_way", &self.answers.len())
            .finish_non_exhaustive()
    }
}

impl Pushing {
    /// Offers over this link what is stored after `position`.
    pub(super) fn over(link: &Link, conversation: &Conversation, position: Sequence) -> Self {
        Self {
            conversation: conversation.clone(),
            ingest: link.ingest.clone(),
            scope: link.scope.clone(),
            clock: link.clock.clone(),
            brought: link.brought.clone(),
            stats: Arc::clone(&link.stats),
            position,
            news_at: None,
            more_at: None,
            reading: FuturesUnordered::new(),
            answers: FuturesUnordered::new(),
            bytes: 0,
            paused_until: None,
            owes_at: None,
            owed_after: PAUSE_MAX,
            unauthenticated: 0,
        }
    }

    /// Something is new in the store.
    pub(super) fn hear(&mut self) {
        let heard = if self.reading.is_empty() {
            &mut self.news_at
        } else {
            &mut self.more_at
        };
        heard.get_or_insert_with(|| self.clock.monotonic());
        self.read_on();
    }

    fn has_room(&self) -> bool {
        self.answers.len() < LIVE_PUSHES_IN_FLIGHT && self.bytes < LIVE_PUSH_BYTES_IN_FLIGHT
    }

    /// Reads on, if there is something new, and room.
    fn read_on(&mut self) {
        let waits = self.news_at.is_none() || self.paused_until.is_some();
        if waits || !self.reading.is_empty() || !self.has_room() {
            return;
        }
        if self.unauthenticated >= AUTH_REFUSALS_MAX {
            (self.news_at, self.more_at) = (None, None);
            return;
        }
        let store = self.ingest.store().clone();
        let wanted = Wanted {
            after: self.position,
            scope: Arc::clone(&self.scope.borrow()),
            brought: self.brought.clone(),
            now: self.clock.unix_seconds(),
            events_max: LIVE_PUSHES_IN_FLIGHT - self.answers.len(),
            bytes_max: LIVE_PUSH_BYTES_IN_FLIGHT - self.bytes,
        };
        self.reading.push(Box::pin(async move {
            match tokio::task::spawn_blocking(move || wanted.read(&store)).await {
                Ok(read) => Ok(read?),
                Err(failure) if failure.is_panic() => {
                    std::panic::resume_unwind(failure.into_panic())
                }
                Err(_) => Err(IngestError::Closed),
            }
        }));
    }

    /// Waits until something was read or answered, and goes on; never returns while there is nothing to do. Cancel safe.
    ///
    /// # Errors
    /// [`PushError`].
    pub(super) async fn progress(&mut self) -> Result<Pushed, PushError> {
        let due = self.paused_until.into_iter().chain(self.owes_at).min();
        let pause = async {
            match due {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut pushed = Pushed::default();
        tokio::select! {
            biased;
            Some((bytes, since, offered)) = self.answers.next() => {
                self.bytes -= bytes;
                pushed.heard = matches!(offered, Offered::Answered(_));
                self.take_answer(since, offered)?;
            }
            Some(slice) = self.reading.next() => pushed.behind = self.offer(slice?),
            () = pause => {
                let now = Instant::now();
                self.paused_until.take_if(|until| *until <= now);
                pushed.behind = self.owes_at.take_if(|at| *at <= now).is_some();
            }
        }
        self.read_on();
        Ok(pushed)
    }

    /// Offers what was read; says whether some of what is new was not read.
    fn offer(&mut self, slice: Slice) -> bool {
        self.position = slice.reached;
        let news_at = self.news_at.unwrap_or_default();
        for (id, json) in slice.events {
            count(&self.stats.events_out);
            self.bytes += json.len();
            self.answers.push(Box::pin(offer(
                self.conversation.clone(),
                id,
                json,
                news_at,
            )));
        }
        if slice.finished {
            self.news_at = self.more_at.take();
        }
        slice.behind
    }

    /// An event was refused for the moment: after a while an exchange offers it again. Each time that is longer, as some peers
    /// say so of the same event for ever.
    fn owe(&mut self) {
        if self.owes_at.is_none() {
            self.owes_at = Some(Instant::now() + self.owed_after);
            self.owed_after = (2 * self.owed_after).min(LIVE_EXCHANGE_AGAIN_MAX);
        }
    }

    fn take_answer(&mut self, since: Duration, offered: Offered) -> Result<(), PushError> {
        let answer = match offered {
            Offered::Answered(answer) => answer,
            Offered::Unanswered => return Err(PushError::Unanswered),
            Offered::Ended(error) => return Err(error.into()),
            Offered::Withdrawn => {
                count(&self.stats.refused_out);
                self.owe();
                return Ok(());
            }
        };
        if answer.prefix == ReasonPrefix::AuthRequired && !answer.accepted {
            self.unauthenticated += 1;
        } else {
            self.unauthenticated = 0;
        }
        match (answer.accepted, answer.prefix) {
            (_, ReasonPrefix::Duplicate) => count(&self.stats.duplicates_out),
            (true, _) => {
                let delay = self.clock.monotonic().saturating_sub(since);
                self.stats.seen_after(delay);
            }
            (false, prefix) => {
                count(&self.stats.refused_out);
                if prefix == ReasonPrefix::RateLimited {
                    self.paused_until = Some(Instant::now() + PAUSE_MAX);
                }
                if matches!(prefix, ReasonPrefix::RateLimited | ReasonPrefix::Error) {
                    self.owe();
                }
            }
        }
        Ok(())
    }
}

/// Offers one event and waits for the answer.
async fn offer(
    conversation: Conversation,
    id: [u8; 32],
    json: String,
    since: Duration,
) -> (usize, Duration, Offered) {
    let bytes = json.len();
    let answered = async {
        match conversation.publish(id, &json).await {
            Ok(pending) => pending.await.map_or_else(Offered::Ended, Offered::Answered),
            Err(PublishError::Conversation(error)) => Offered::Ended(error),
            Err(PublishError::AlreadyInFlight | PublishError::TooManyInFlight) => {
                Offered::Withdrawn
            }
        }
    };
    let offered = timeout(STEP_DEADLINE, answered)
        .await
        .unwrap_or(Offered::Unanswered);
    (bytes, since, offered)
}

/// What is to be read.
struct Wanted {
    after: Sequence,
    scope: Arc<Scope>,
    brought: Brought,
    now: u64,
    events_max: usize,
    bytes_max: usize,
}

impl Wanted {
    /// Reads one slice. Blocks.
    fn read(&self, store: &Store) -> Result<Slice, StoreError> {
        let snapshot = store.snapshot()?;
        let last = snapshot.last_sequence();
        let behind = last.0.saturating_sub(self.after.0) > LIVE_BACKLOG_MAX;
        let mut slice = Slice {
            events: Vec::new(),
            reached: last,
            finished: true,
            behind,
        };
        if behind {
            return Ok(slice);
        }
        let (mut bytes, mut failed) = (0, None);
        let (reached, finished) = snapshot.scan_after(self.after, &mut |record| {
            match self.is_for_peer(record) {
                Ok(true) => {
                    bytes += record.json().len();
                    slice.events.push((*record.id(), record.json().to_owned()));
                }
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
            let is_full = slice.events.len() >= self.events_max || bytes >= self.bytes_max;
            if is_full || failed.is_some() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        (slice.reached, slice.finished) = (reached, finished);
        failed.map_or(Ok(slice), Err)
    }

    fn is_for_peer(&self, record: &Record<'_>) -> Result<bool, StoreError> {
        if !record.is_shared()
            || record.is_expired(self.now)
            || !self.scope.kinds.contains(record.kind())
            || self.brought.contains(record.id())
        {
            return Ok(false);
        }
        if self.scope.authors.is_none() {
            return Ok(true);
        }
        let author = hex::decode_array(&record.parse()?.pubkey);
        Ok(author.is_some_and(|author| self.scope.covers(record.kind(), &author)))
    }
}
