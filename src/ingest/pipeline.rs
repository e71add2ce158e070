//! The pipeline around the stages: threads for work, bounded queues between, or everything inline.
//!
//! A submission first waits for room (bytes of its lane), then goes to its lane's examiners, then to the writer; its
//! room is free again after the commit. Inline: the caller's thread does it all, for simulations. Both give the same
//! verdicts. Shutdown follows the flow: no more submissions, examiners drain, the writer commits the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use constellation_event::{CanonicalKey, UnverifiedEvent};
use constellation_eventstore::{
    Blocking, NewOverlayEntry, Sequence, Store, StoreError, SweepReport, Writer,
};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{oneshot, watch};

use super::committer::Job;
use super::examiner::Submission;
use super::flow::BulkStream;
use super::list::{ListChange, write_list};
use super::origin::{Origin, Verdict};
use super::source::{Lane, Source};
use super::stages::{self, Cut, OverlayChange, Submitted};
use super::threads::Threads;
use super::verifier::{AskBreakEven, SharedVerifier};
use crate::limits::SUBMISSION_EVENTS_MAX;
use crate::random::Random;
use crate::time::Clock;

/// Why nothing of a submission was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// No room on the device. Reading goes on; try again when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The store is damaged, or the database failed.
    #[error("{0}")]
    Store(String),
    /// The station is shutting down.
    #[error("the station is shutting down")]
    Closed,
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => Self::DiskFull,
            other => Self::Store(other.to_string()),
        }
    }
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This many bulk examiners, and one thread each for what is prompt, for suspects, and for the writer.
    Threads(usize),
    /// The submitting thread, before `submit` returns for the first time.
    Inline,
}

/// What the pipeline is made of.
pub struct Parts {
    /// For reading.
    pub store: Store,
    /// For writing; nobody else has it.
    pub writer: Writer,
    /// Asked once, when it first matters, from how many signatures on batches pay.
    pub break_even: AskBreakEven,
    /// Time.
    pub clock: Clock,
    /// Coefficients of batch verification: nobody may be able to foretell them.
    pub random: Random,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// What live subscribers watch: where the store and the ring of ephemeral events stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Number of the last record on disk.
    pub sequence: Sequence,
    /// Cursor of the ring.
    pub ephemeral: u64,
    /// How many slices of sweeping took, hid or showed again what had been there: by a request to vanish, by the captain's list.
    pub swept: u64,
}

/// The handle on the pipeline. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    engine: Engine,
    published: watch::Sender<Published>,
    sources: AtomicU64,
}

#[derive(Debug)]
enum Engine {
    Threads(Threads),
    Inline(Box<Inline>),
}

/// What inline work needs.
#[derive(Debug)]
struct Inline {
    writer: Mutex<Option<Writer>>,
    verifier: SharedVerifier,
    clock: Clock,
    random: Random,
}

impl Ingest {
    /// Starts the pipeline over a store's one writer.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started; the store's, if it cannot be read.
    pub fn start(parts: Parts, mode: Mode) -> Result<Self, IngestError> {
        let store = parts.store.clone();
        let first = Published {
            sequence: store.snapshot()?.last_sequence(),
            ephemeral: store.ephemeral_cursor(),
            swept: 0,
        };
        let published = watch::Sender::new(first);
        let engine = match mode {
            Mode::Inline => Engine::Inline(Box::new(Inline {
                writer: Mutex::new(Some(parts.writer)),
                verifier: SharedVerifier::new(parts.break_even),
                clock: parts.clock,
                random: parts.random,
            })),
            Mode::Threads(examiners) => {
                Engine::Threads(Threads::start(parts, examiners.max(1), published.clone())?)
            }
        };
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                engine,
                published,
                sources: AtomicU64::new(0),
            }),
        })
    }

    /// The store behind the door, for reading.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Changes whenever something new is on disk or in the ring.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.shared.published.subscribe()
    }

    /// A new counterpart: one for each connection, exchange or import.
    pub fn source(&self, lane: Lane) -> Source {
        Source::new(self.shared.sources.fetch_add(1, Ordering::Relaxed), lane)
    }

    /// Says that bulk submissions will go on: their commits wait to grow for as long as the guard lives. Whoever
    /// waits for verdicts with nothing left to submit drops it first.
    pub fn bulk_stream(&self) -> BulkStream {
        BulkStream {
            _counted: match &self.shared.engine {
                Engine::Threads(threads) => Some(threads.stream()),
                Engine::Inline(_) => None,
            },
        }
    }

    /// Offers events; returns once their fate is decided and, where stored, durable. One verdict for each, in order.
    ///
    /// Cancel safety: events already taken are still processed.
    ///
    /// # Errors
    /// [`IngestError`]: then none of them is known to be stored.
    pub async fn submit(
        &self,
        source: &Source,
        origin: Origin,
        events: Vec<UnverifiedEvent>,
    ) -> Result<Vec<Verdict>, IngestError> {
        if events.len() <= SUBMISSION_EVENTS_MAX {
            return self.submit_piece(source, origin, events).await;
        }
        let mut events = events.into_iter().peekable();
        let mut pieces = FuturesOrdered::new();
        while events.peek().is_some() {
            let piece: Vec<_> = events.by_ref().take(SUBMISSION_EVENTS_MAX).collect();
            pieces.push_back(self.submit_piece(source, origin.clone(), piece));
        }
        pieces.try_concat().await
    }

    async fn submit_piece(
        &self,
        source: &Source,
        origin: Origin,
        events: Vec<UnverifiedEvent>,
    ) -> Result<Vec<Verdict>, IngestError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = events.iter().map(UnverifiedEvent::bytes).sum();
        let submitted = Submitted {
            events,
            origin,
            source: source.clone(),
        };
        match &self.shared.engine {
            Engine::Inline(inline) => self.submit_inline(inline, submitted),
            Engine::Threads(threads) => {
                let queue = threads.queue_for(source);
                let (room, upstream) = threads.room_for(source, queue, bytes).await?;
                let (reply, answer) = oneshot::channel();
                let submission = Submission {
                    submitted,
                    bytes,
                    reply,
                    room,
                    upstream,
                };
                threads.send(queue, submission).await?;
                answer.await.map_err(|_| IngestError::Closed)?
            }
        }
    }

    fn submit_inline(
        &self,
        inline: &Inline,
        submitted: Submitted,
    ) -> Result<Vec<Verdict>, IngestError> {
        let now = inline.clock.unix_seconds();
        let store = &self.shared.store;
        let mut entropy = || inline.random.bytes();
        let mut batch =
            stages::examine(store, &inline.verifier, vec![submitted], &mut entropy, now)?;
        let mut writer = inline.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().ok_or(IngestError::Closed)?;
        let written = stages::write(writer, &mut batch, now, &Cut::NEVER)?;
        if stages::wants_sweep(&batch) {
            while sweep(store, writer, now, &self.shared.published)?.unfinished {}
        }
        announce(&self.shared.published, store, written.last_sequence);
        Ok(batch
            .into_iter()
            .flat_map(|examined| stages::decided(examined.verdicts))
            .collect())
    }

    /// Changes what is remembered about a peer; durable when it returns.
    ///
    /// Cancel safety: a change already taken is still made.
    ///
    /// # Errors
    /// [`IngestError`]: then nothing of it is kept.
    pub async fn change_overlay(
        &self,
        peer: &str,
        add: Vec<NewOverlayEntry>,
        remove: Vec<CanonicalKey>,
    ) -> Result<(), IngestError> {
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let change = OverlayChange {
            peer: peer.to_owned(),
            add,
            remove,
        };
        match &self.shared.engine {
            Engine::Inline(inline) => {
                let mut writer = inline.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let writer = writer.as_mut().ok_or(IngestError::Closed)?;
                stages::write_overlays(writer, &[change])?;
                Ok(())
            }
            Engine::Threads(threads) => {
                threads
                    .ask(|reply, slot| Job::Overlay {
                        change,
                        reply,
                        _slot: slot,
                    })
                    .await
            }
        }
    }

    /// Changes the list of what is blocked, durably and at once; returns when what is stored has been settled too.
    ///
    /// Cancel safety: a change already taken is still made, and settled by the next sweep.
    ///
    /// # Errors
    /// [`IngestError`]: the list may have been changed.
    pub async fn change_list(&self, change: ListChange) -> Result<Blocking, IngestError> {
        let listed = match &self.shared.engine {
            Engine::Inline(inline) => {
                let mut writer = inline.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let writer = writer.as_mut().ok_or(IngestError::Closed)?;
                write_list(writer, &change)?
            }
            Engine::Threads(threads) => {
                threads
                    .ask(|reply, slot| Job::List {
                        change,
                        reply,
                        _slot: slot,
                    })
                    .await?
            }
        };
        self.sweep().await?;
        Ok(listed)
    }

    /// Removes what has expired, or whose author vanished, and settles what was blocked, until nothing is left to do.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn sweep(&self) -> Result<(), IngestError> {
        loop {
            let unfinished = match &self.shared.engine {
                Engine::Inline(inline) => {
                    let now = inline.clock.unix_seconds();
                    let mut writer = inline.writer.lock().unwrap_or_else(PoisonError::into_inner);
                    let writer = writer.as_mut().ok_or(IngestError::Closed)?;
                    sweep(&self.shared.store, writer, now, &self.shared.published)?.unfinished
                }
                Engine::Threads(threads) => {
                    threads
                        .ask(|reply, slot| Job::Sweep { reply, _slot: slot })
                        .await?
                }
            };
            if !unfinished {
                return Ok(());
            }
        }
    }

    /// Takes no more, finishes what was taken, and ends the threads. Blocks: not for the runtime's threads.
    pub fn close(&self) {
        match &self.shared.engine {
            Engine::Inline(inline) => {
                inline
                    .writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
            }
            Engine::Threads(threads) => threads.close(),
        }
    }
}

pub(super) fn announce(published: &watch::Sender<Published>, store: &Store, sequence: Sequence) {
    published.send_if_modified(|last| {
        let now = Published {
            sequence,
            ephemeral: store.ephemeral_cursor(),
            swept: last.swept,
        };
        let changed = *last != now;
        *last = now;
        changed
    });
}

/// One slice of sweeping; who watches what is published hears if it changed what is there.
///
/// # Errors
/// The store's.
pub(super) fn sweep(
    store: &Store,
    writer: &mut Writer,
    now: u64,
    published: &watch::Sender<Published>,
) -> Result<SweepReport, StoreError> {
    let report = stages::sweep(store, writer, now)?;
    if report.vanished + report.moderated > 0 {
        published.send_modify(|published| published.swept += 1);
    }
    Ok(report)
}
