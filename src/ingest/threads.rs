//! The threads of the pipeline, their queues, and the room that submissions hold in them.
//!
//! Three queues, each with room of its own in bytes, so that no lane fills another's: prompt, bulk, suspects. A
//! submission takes room first and a place in the queue then. Other work for the writer takes one of a few slots.
//! A panic in a thread ends the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use constellation_event::BATCH_SIGNATURES_BEST;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::committer::{Backlog, Committer, Job, Reply};
use super::examiner::{Examiner, Submission};
use super::flow::{Count, Counted, Flow};
use super::inbox::Inbox;
use super::pipeline::{IngestError, Parts, Published};
use super::source::{Lane, Source};
use super::verifier::SharedVerifier;
use crate::limits::{
    INGEST_BULK_BYTES, INGEST_PROMPT_BYTES, INGEST_QUEUE, INGEST_SLOTS, INGEST_SUSPECT_BYTES,
    SUBMISSION_EVENTS_MAX,
};

/// Which examiners a submission goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Prompt,
    Bulk,
    Suspect,
}

#[derive(Debug)]
pub(super) struct Threads {
    prompt: LaneDoor,
    bulk: LaneDoor,
    suspect: LaneDoor,
    inbox: Arc<Inbox>,
    flow: Arc<Flow>,
    slots: Arc<Semaphore>,
    examiners: Mutex<Vec<JoinHandle<()>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Where a lane begins.
#[derive(Debug)]
struct LaneDoor {
    sender: async_channel::Sender<Submission>,
    room: Arc<Semaphore>,
    bytes_max: usize,
}

impl LaneDoor {
    fn new(bytes_max: usize) -> (Self, async_channel::Receiver<Submission>) {
        let (sender, receiver) = async_channel::bounded(INGEST_QUEUE);
        let door = Self {
            sender,
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        };
        (door, receiver)
    }
}

impl Threads {
    pub(super) fn start(
        parts: Parts,
        bulk_examiners: usize,
        published: watch::Sender<Published>,
    ) -> Result<Self, IngestError> {
        let inbox = Arc::new(Inbox::default());
        let flow = Arc::new(Flow::new(Arc::clone(&inbox)));
        let (prompt, prompt_queue) = LaneDoor::new(INGEST_PROMPT_BYTES);
        let (bulk, bulk_queue) = LaneDoor::new(INGEST_BULK_BYTES);
        let (suspect, suspect_queue) = LaneDoor::new(INGEST_SUSPECT_BYTES);
        let verifier = Arc::new(SharedVerifier::new(parts.break_even));
        let examiner = |queue, suspects, events_max| Examiner {
            store: parts.store.clone(),
            verifier: Arc::clone(&verifier),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
            queue,
            suspects,
            events_max,
            inbox: Arc::clone(&inbox),
        };
        let mut examiners = vec![
            (
                "examine-prompt".to_owned(),
                examiner(
                    prompt_queue,
                    Some(suspect.sender.clone()),
                    SUBMISSION_EVENTS_MAX,
                ),
            ),
            // A batch of one submission: one source's.
            (
                "examine-suspects".to_owned(),
                examiner(suspect_queue, None, 1),
            ),
        ];
        for number in 0..bulk_examiners {
            let suspects = Some(suspect.sender.clone());
            let bulk = examiner(bulk_queue.clone(), suspects, BATCH_SIGNATURES_BEST);
            examiners.push((format!("examine-{number}"), bulk));
        }
        let committer = Committer {
            store: parts.store.clone(),
            writer: parts.writer,
            clock: parts.clock.clone(),
            inbox: Arc::clone(&inbox),
            flow: Arc::clone(&flow),
            published,
            backlog: Backlog::default(),
            vanishing: false,
        };
        let examiners = examiners
            .into_iter()
            .map(|(name, examiner)| start_thread(name, move || examiner.run()))
            .collect::<Result<_, _>>()?;
        let writer = start_thread("write".into(), move || committer.run())?;
        Ok(Self {
            prompt,
            bulk,
            suspect,
            inbox,
            flow,
            slots: Arc::new(Semaphore::new(INGEST_SLOTS)),
            examiners: Mutex::new(examiners),
            writer: Mutex::new(Some(writer)),
        })
    }

    pub(super) fn queue_for(&self, source: &Source) -> Queue {
        match source.lane() {
            _ if source.is_suspect() => Queue::Suspect,
            Lane::Prompt => Queue::Prompt,
            Lane::Bulk => Queue::Bulk,
        }
    }

    fn door(&self, queue: Queue) -> &LaneDoor {
        match queue {
            Queue::Prompt => &self.prompt,
            Queue::Bulk => &self.bulk,
            Queue::Suspect => &self.suspect,
        }
    }

    /// Waits until there is room for `bytes`; what is larger than all room takes all of it.
    pub(super) async fn room_for(
        &self,
        source: &Source,
        queue: Queue,
        bytes: usize,
    ) -> Result<(OwnedSemaphorePermit, Option<Counted>), IngestError> {
        let is_bulk = source.lane() == Lane::Bulk;
        let door = self.door(queue);
        let permits = u32::try_from(bytes.clamp(1, door.bytes_max)).unwrap_or(u32::MAX);
        let room = match Arc::clone(&door.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_) => {
                let _waiting = is_bulk.then(|| self.flow.hold(Count::WaitingForRoom));
                Arc::clone(&door.room)
                    .acquire_many_owned(permits)
                    .await
                    .map_err(|_| IngestError::Closed)?
            }
        };
        let upstream = is_bulk.then(|| self.flow.hold(Count::Upstream));
        Ok((room, upstream))
    }

    pub(super) async fn send(
        &self,
        queue: Queue,
        submission: Submission,
    ) -> Result<(), IngestError> {
        self.door(queue)
            .sender
            .send(submission)
            .await
            .map_err(|_| IngestError::Closed)
    }

    /// Says that bulk submissions will go on.
    pub(super) fn stream(&self) -> Counted {
        self.flow.hold(Count::Stream)
    }

    /// Has the writer do something else than admit, and waits for it.
    pub(super) async fn ask<T>(
        &self,
        job: impl FnOnce(Reply<T>, OwnedSemaphorePermit) -> Job,
    ) -> Result<T, IngestError> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| IngestError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.inbox
            .push(job(reply, slot))
            .map_err(|_| IngestError::Closed)?;
        answer.await.map_err(|_| IngestError::Closed)?
    }

    pub(super) fn close(&self) {
        for door in [&self.prompt, &self.bulk, &self.suspect] {
            door.sender.close();
        }
        for examiner in std::mem::take(&mut *lock(&self.examiners)) {
            let _ = examiner.join(); // a panic has ended the process
        }
        self.inbox.close();
        if let Some(writer) = lock(&self.writer).take() {
            let _ = writer.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic in a stage is a bug, and nobody would answer those who wait for that stage: the process ends, as after a
/// kill. What was acknowledged is on disk.
fn start_thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, IngestError> {
    let thread = name.clone();
    let work = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                thread,
                "a stage of ingest panicked; the station cannot go on"
            );
            std::process::abort();
        }
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| IngestError::Store(format!("cannot start a thread: {error}")))
}
