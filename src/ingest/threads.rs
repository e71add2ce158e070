//! The threads of the pipeline: examiners, one per core, and the committer.
//!
//! The committer takes all that has queued up, up to a bound, and commits it together: alone, an event is committed
//! at once; under load, commits grow and the cost per event falls. A panic in a thread is passed on, not buried.

use std::thread::JoinHandle;

use constellation_eventstore::{Sequence, Store, StoreError, Writer};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::origin::Verdict;
use super::pipeline::{IngestError, Published, Submission, announce, decided};
use super::stages::{self, Examined, OverlayChange};
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX};
use crate::time::Clock;

pub(super) type Reply<T> = oneshot::Sender<Result<T, IngestError>>;

/// What the committer is asked to do.
pub(super) enum Job {
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

pub(super) struct Examiner {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) inbox: async_channel::Receiver<Submission>,
    pub(super) jobs: async_channel::Sender<Job>,
}

impl Examiner {
    pub(super) fn run(self) {
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

pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) writer: Writer,
    pub(super) clock: Clock,
    pub(super) inbox: async_channel::Receiver<Job>,
    pub(super) published: watch::Sender<Published>,
}

impl Committer {
    pub(super) fn run(mut self) {
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

pub(super) fn start_thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, IngestError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| IngestError::Store(format!("cannot start a thread: {error}")))
}

/// A panic in a stage is a bug: it is passed on, not buried.
pub(super) fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
