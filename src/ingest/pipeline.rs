//! The pipeline around the stages: threads for work, bounded queues between, or everything inline.
//!
//! Threads: one per core examines, one writes; the writer takes all that has queued up, up to a bound, and commits
//! it together ("the busier, the cheaper"). Inline: the caller's thread does it all, for simulations. Both give
//! the same verdicts. Shutdown follows the flow: no more submissions, examiners drain, the writer commits the rest.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use constellation_event::{CanonicalKey, UnverifiedEvent};
use constellation_eventstore::{NewOverlayEntry, Sequence, Store, StoreError, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::origin::{Origin, Verdict};
use super::stages::{self, OverlayChange};
use super::threads::{Committer, Examiner, Job, Reply, join, start_thread};
use crate::limits::{INGEST_BYTES_IN_FLIGHT, INGEST_QUEUE, SUBMISSION_EVENTS_MAX};
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
    /// This many examiner threads, and the writer's.
    Threads(usize),
    /// The submitting thread, before `submit` returns for the first time.
    Inline,
}

/// What live subscribers watch: where the store and the ring of ephemeral events stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Number of the last record on disk.
    pub sequence: Sequence,
    /// Cursor of the ring.
    pub ephemeral: u64,
}

/// The handle on the pipeline. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    engine: Engine,
    room: Arc<Semaphore>,
    published: watch::Sender<Published>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Engine {
    Threads {
        submissions: async_channel::Sender<Submission>,
        jobs: async_channel::Sender<Job>,
    },
    Inline(Mutex<Option<Writer>>),
}

#[derive(Debug)]
pub(super) struct Submission {
    pub(super) events: Vec<UnverifiedEvent>,
    pub(super) bytes: usize,
    pub(super) origin: Origin,
    pub(super) reply: Reply<Vec<Verdict>>,
    pub(super) room: OwnedSemaphorePermit,
}

impl Ingest {
    /// Starts the pipeline over a store's one writer.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started; the store's, if it cannot be read.
    pub fn start(
        store: Store,
        writer: Writer,
        clock: Clock,
        mode: Mode,
    ) -> Result<Self, IngestError> {
        let first = Published {
            sequence: store.snapshot()?.last_sequence(),
            ephemeral: store.ephemeral_cursor(),
        };
        let published = watch::Sender::new(first);
        let mut threads = Vec::new();
        let engine = match mode {
            Mode::Inline => Engine::Inline(Mutex::new(Some(writer))),
            Mode::Threads(examiners) => {
                let (submissions, inbox) = async_channel::bounded(INGEST_QUEUE);
                let (jobs, writer_inbox) = async_channel::bounded(INGEST_QUEUE);
                for number in 0..examiners.max(1) {
                    let examiner = Examiner {
                        store: store.clone(),
                        clock: clock.clone(),
                        inbox: inbox.clone(),
                        jobs: jobs.clone(),
                    };
                    threads.push(start_thread(format!("examine-{number}"), move || {
                        examiner.run();
                    })?);
                }
                let committer = Committer {
                    store: store.clone(),
                    writer,
                    clock: clock.clone(),
                    inbox: writer_inbox,
                    published: published.clone(),
                };
                threads.push(start_thread("write".into(), move || committer.run())?);
                Engine::Threads { submissions, jobs }
            }
        };
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                clock,
                engine,
                room: Arc::new(Semaphore::new(INGEST_BYTES_IN_FLIGHT)),
                published,
                threads: Mutex::new(threads),
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

    /// Offers events; returns once their fate is decided and, where stored, durable. One verdict for each, in order.
    ///
    /// Cancel safety: events already taken are still processed.
    ///
    /// # Errors
    /// [`IngestError`]: then none of them is known to be stored.
    pub async fn submit(
        &self,
        events: Vec<UnverifiedEvent>,
        origin: Origin,
    ) -> Result<Vec<Verdict>, IngestError> {
        let mut verdicts = Vec::with_capacity(events.len());
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let piece: Vec<_> = events.by_ref().take(SUBMISSION_EVENTS_MAX).collect();
            verdicts.extend(self.submit_piece(piece, origin.clone()).await?);
        }
        Ok(verdicts)
    }

    async fn submit_piece(
        &self,
        events: Vec<UnverifiedEvent>,
        origin: Origin,
    ) -> Result<Vec<Verdict>, IngestError> {
        let bytes: usize = events.iter().map(UnverifiedEvent::bytes).sum();
        match &self.shared.engine {
            Engine::Inline(writer) => self.submit_inline(writer, events, &origin),
            Engine::Threads { submissions, .. } => {
                let permits = u32::try_from(bytes.min(INGEST_BYTES_IN_FLIGHT)).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.shared.room)
                    .acquire_many_owned(permits)
                    .await
                    .map_err(|_| IngestError::Closed)?;
                let (reply, answer) = oneshot::channel();
                submissions
                    .send(Submission {
                        events,
                        bytes,
                        origin,
                        reply,
                        room,
                    })
                    .await
                    .map_err(|_| IngestError::Closed)?;
                answer.await.map_err(|_| IngestError::Closed)?
            }
        }
    }

    fn submit_inline(
        &self,
        writer: &Mutex<Option<Writer>>,
        events: Vec<UnverifiedEvent>,
        origin: &Origin,
    ) -> Result<Vec<Verdict>, IngestError> {
        let now = self.shared.clock.unix_seconds();
        let examined = stages::examine(&self.shared.store, events, origin, now)?;
        let mut batch = [examined];
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().ok_or(IngestError::Closed)?;
        let sequence = stages::write(writer, &mut batch, now)?;
        if stages::wants_sweep(&batch) {
            while stages::sweep(&self.shared.store, writer, now)?.unfinished {}
        }
        announce(&self.shared.published, &self.shared.store, sequence);
        let [examined] = batch;
        Ok(decided(examined.verdicts))
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
            Engine::Inline(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                let writer = writer.as_mut().ok_or(IngestError::Closed)?;
                stages::write_overlays(writer, &[change])?;
                Ok(())
            }
            Engine::Threads { jobs, .. } => {
                let (reply, answer) = oneshot::channel();
                jobs.send(Job::Overlay { change, reply })
                    .await
                    .map_err(|_| IngestError::Closed)?;
                answer.await.map_err(|_| IngestError::Closed)?
            }
        }
    }

    /// Removes what has expired, or whose author vanished, until nothing is left to remove.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn sweep(&self) -> Result<(), IngestError> {
        loop {
            let unfinished = match &self.shared.engine {
                Engine::Inline(writer) => {
                    let now = self.shared.clock.unix_seconds();
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    let writer = writer.as_mut().ok_or(IngestError::Closed)?;
                    stages::sweep(&self.shared.store, writer, now)?.unfinished
                }
                Engine::Threads { jobs, .. } => {
                    let (reply, answer) = oneshot::channel();
                    jobs.send(Job::Sweep { reply })
                        .await
                        .map_err(|_| IngestError::Closed)?;
                    answer.await.map_err(|_| IngestError::Closed)??
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
            Engine::Inline(writer) => {
                writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            Engine::Threads { submissions, jobs } => {
                submissions.close();
                let mut threads = std::mem::take(
                    &mut *self
                        .shared
                        .threads
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner),
                );
                let writer = threads.pop();
                for examiner in threads {
                    join(examiner);
                }
                jobs.close();
                if let Some(writer) = writer {
                    join(writer);
                }
            }
        }
    }
}

pub(super) fn announce(published: &watch::Sender<Published>, store: &Store, sequence: Sequence) {
    let now = Published {
        sequence,
        ephemeral: store.ephemeral_cursor(),
    };
    published.send_if_modified(|last| {
        let changed = *last != now;
        *last = now;
        changed
    });
}

/// After the writer, every event has its verdict.
pub(super) fn decided(verdicts: Vec<Option<Verdict>>) -> Vec<Verdict> {
    verdicts
        .into_iter()
        .map(|verdict| verdict.expect("the writer decides what was left open"))
        .collect()
}
