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
use super::stages::{self, Examined, OverlayChange};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX, INGEST_BYTES_IN_FLIGHT, INGEST_QUEUE,
    SUBMISSION_EVENTS_MAX,
};
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

type Reply<T> = oneshot::Sender<Result<T, IngestError>>;

#[derive(Debug)]
struct Submission {
    events: Vec<UnverifiedEvent>,
    bytes: usize,
    origin: Origin,
    reply: Reply<Vec<Verdict>>,
    room: OwnedSemaphorePermit,
}

enum Job {
    Admit {
        examined: Examined,
        bytes: usize,
        reply: Reply<Vec<Verdict>>,
        _room: OwnedSemaphorePermit,
    },
    Overlay {
        change: OverlayChange,
        reply: Reply<()>,
    },
    Sweep {
        reply: Reply<bool>,
    },
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

fn start_thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, IngestError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| IngestError::Store(format!("cannot start a thread: {error}")))
}

/// A panic in a stage is a bug: it is passed on, not buried.
fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn announce(published: &watch::Sender<Published>, store: &Store, sequence: Sequence) {
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
fn decided(verdicts: Vec<Option<Verdict>>) -> Vec<Verdict> {
    verdicts
        .into_iter()
        .map(|verdict| verdict.expect("the writer decides what was left open"))
        .collect()
}

struct Examiner {
    store: Store,
    clock: Clock,
    inbox: async_channel::Receiver<Submission>,
    jobs: async_channel::Sender<Job>,
}

impl Examiner {
    fn run(self) {
        while let Ok(submission) = self.inbox.recv_blocking() {
            let Submission {
                events,
                bytes,
                origin,
                reply,
                room,
            } = submission;
            match stages::examine(&self.store, events, &origin, self.clock.unix_seconds()) {
                // Nobody may be listening any more; the events are stored all the same.
                Ok(examined) => {
                    let job = Job::Admit {
                        examined,
                        bytes,
                        reply,
                        _room: room,
                    };
                    if self.jobs.send_blocking(job).is_err() {
                        return;
                    }
                }
                Err(error) => drop(reply.send(Err(error.into()))),
            }
        }
    }
}

struct Committer {
    store: Store,
    writer: Writer,
    clock: Clock,
    inbox: async_channel::Receiver<Job>,
    published: watch::Sender<Published>,
}

impl Committer {
    fn run(mut self) {
        let mut held_over = None;
        while let Some(first) = held_over.take().or_else(|| self.inbox.recv_blocking().ok()) {
            match first {
                Job::Admit {
                    examined,
                    bytes,
                    reply,
                    _room,
                } => {
                    let mut batch = vec![examined];
                    let mut waiting = vec![(reply, _room)];
                    held_over = self.gather(&mut batch, &mut waiting, bytes);
                    self.commit(batch, waiting);
                }
                Job::Overlay { change, reply } => {
                    let result = stages::write_overlays(&mut self.writer, &[change]);
                    self.finish(result.map(|sequence| (sequence, ())), reply);
                }
                Job::Sweep { reply } => {
                    let now = self.clock.unix_seconds();
                    let result = stages::sweep(&self.store, &mut self.writer, now);
                    drop(reply.send(result.map(|report| report.unfinished).map_err(Into::into)));
                }
            }
        }
    }

    /// Adds what has queued up meanwhile, as far as one commit holds. Gives back a job of another sort.
    fn gather(
        &self,
        batch: &mut Vec<Examined>,
        waiting: &mut Vec<(Reply<Vec<Verdict>>, OwnedSemaphorePermit)>,
        mut bytes: usize,
    ) -> Option<Job> {
        let mut events: usize = batch.iter().map(|examined| examined.accepted.len()).sum();
        while events < COMMIT_EVENTS_MAX && bytes < COMMIT_BYTES_MAX {
            match self.inbox.try_recv() {
                Ok(Job::Admit {
                    examined,
                    bytes: more,
                    reply,
                    _room,
                }) => {
                    events += examined.accepted.len();
                    bytes += more;
                    batch.push(examined);
                    waiting.push((reply, _room));
                }
                Ok(other) => return Some(other),
                Err(_) => return None,
            }
        }
        None
    }

    fn commit(
        &mut self,
        mut batch: Vec<Examined>,
        waiting: Vec<(Reply<Vec<Verdict>>, OwnedSemaphorePermit)>,
    ) {
        let now = self.clock.unix_seconds();
        let result = stages::write(&mut self.writer, &mut batch, now);
        if let Ok(sequence) = &result {
            announce(&self.published, &self.store, *sequence);
        }
        let wants_sweep = result.is_ok() && stages::wants_sweep(&batch);
        let result = result.map_err(IngestError::from);
        for (examined, (reply, _room)) in batch.into_iter().zip(waiting) {
            let answer = result.clone().map(|_| decided(examined.verdicts));
            drop(reply.send(answer)); // the submitter may have gone
        }
        if wants_sweep {
            self.sweep_vanished(now);
        }
    }

    /// The verdicts are out; what an author who vanished left behind goes now, in slices.
    fn sweep_vanished(&mut self, now: u64) {
        loop {
            match stages::sweep(&self.store, &mut self.writer, now) {
                Ok(report) if report.unfinished => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot remove what an author who vanished left; it is tried again");
                    return;
                }
            }
        }
    }

    fn finish<T>(&self, result: Result<(Sequence, T), StoreError>, reply: Reply<T>) {
        let answer = result.map(|(sequence, value)| {
            announce(&self.published, &self.store, sequence);
            value
        });
        drop(reply.send(answer.map_err(Into::into)));
    }
}
