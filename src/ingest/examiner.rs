//! The threads that examine: gate, verification and policy, in batches of what has queued up.
//!
//! Each lane has its queue. Prompt submissions have a thread of their own, so that nobody's acknowledgement waits
//! behind a bulk batch; so have suspects, so that one-by-one verification slows nobody else: what they had queued
//! before they were found out is handed over to it, as far as its queue goes. Bulk has one thread for each core, and
//! batches as large as verification likes best. What needs no writing is answered here. Worst case of a batch: its
//! events, parsed.

use std::sync::Arc;

use constellation_eventstore::Store;
use tokio::sync::OwnedSemaphorePermit;

use super::committer::{Admit, Job, Reply};
use super::flow::Counted;
use super::inbox::Inbox;
use super::origin::Verdict;
use super::pipeline::IngestError;
use super::source::Lane;
use super::stages::{self, Submitted};
use super::verifier::SharedVerifier;
use crate::limits::EXAMINE_BYTES_MAX;
use crate::random::Random;
use crate::time::Clock;

/// A submission on its way to be examined.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) submitted: Submitted,
    pub(super) bytes: usize,
    pub(super) reply: Reply<Vec<Verdict>>,
    pub(super) room: OwnedSemaphorePermit,
    /// Bulk only.
    pub(super) upstream: Option<Counted>,
}

#[derive(Debug)]
pub(super) struct Examiner {
    pub(super) store: Store,
    pub(super) verifier: Arc<SharedVerifier>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) queue: async_channel::Receiver<Submission>,
    /// Where suspects' submissions belong; `None` is there.
    pub(super) suspects: Option<async_channel::Sender<Submission>>,
    /// Events of one batch.
    pub(super) events_max: usize,
    pub(super) inbox: Arc<Inbox>,
}

impl Examiner {
    pub(super) fn run(self) {
        while let Ok(first) = self.queue.recv_blocking() {
            let Some(first) = self.hand_over(first) else {
                continue;
            };
            let batch = self.gather(first);
            if self.examine(batch).is_err() {
                return;
            }
        }
    }

    /// Passes what comes from a suspect on to where it belongs; gives back everything else, and what finds no room
    /// there.
    fn hand_over(&self, submission: Submission) -> Option<Submission> {
        match &self.suspects {
            Some(suspects) if submission.submitted.source.is_suspect() => suspects
                .try_send(submission)
                .err()
                .map(async_channel::TrySendError::into_inner),
            _ => Some(submission),
        }
    }

    /// Adds what has queued up meanwhile, as far as a batch goes.
    fn gather(&self, first: Submission) -> Vec<Submission> {
        let mut events = first.submitted.events.len();
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while events < self.events_max && bytes < EXAMINE_BYTES_MAX {
            let Ok(next) = self.queue.try_recv() else {
                break;
            };
            let Some(next) = self.hand_over(next) else {
                continue;
            };
            events += next.submitted.events.len();
            bytes += next.bytes;
            batch.push(next);
        }
        batch
    }

    /// Examines a batch and hands it on; an error says that the writer has ended.
    fn examine(&self, batch: Vec<Submission>) -> Result<(), WriterEnded> {
        let mut submitted = Vec::with_capacity(batch.len());
        let mut waiting = Vec::with_capacity(batch.len());
        for submission in batch {
            let lane = submission.submitted.source.lane();
            submitted.push(submission.submitted);
            waiting.push((
                lane == Lane::Prompt,
                submission.bytes,
                submission.reply,
                submission.room,
                submission.upstream,
            ));
        }
        let examined = stages::examine(
            &self.store,
            &self.verifier,
            submitted,
            &mut || self.random.bytes(),
            self.clock.unix_seconds(),
        );
        let examined = match examined {
            Ok(examined) => examined,
            Err(error) => {
                let error = IngestError::from(error);
                for (_, _, reply, _, _) in waiting {
                    drop(reply.send(Err(error.clone()))); // the submitter may have gone
                }
                return Ok(());
            }
        };
        for (examined, waiting) in examined.into_iter().zip(waiting) {
            let (is_prompt, bytes, reply, room, upstream) = waiting;
            let examined = match examined.settled() {
                // Nothing of it is for the writer, who must not be kept from others' work by what is refused.
                Ok(verdicts) => {
                    drop(reply.send(Ok(verdicts))); // the submitter may have gone
                    continue;
                }
                Err(examined) => examined,
            };
            // Nobody may be listening any more; the events are stored all the same.
            let job = Job::Admit(Admit {
                is_prompt,
                examined,
                bytes,
                reply,
                _room: room,
            });
            self.inbox.push(job).map_err(|_| WriterEnded)?;
            drop(upstream); // after the push: what is not upstream any more is in the inbox
        }
        Ok(())
    }
}

struct WriterEnded;
