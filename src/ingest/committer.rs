//! The writer thread: gathers what was examined, and commits it in the order of who waits for it.
//!
//! - Prompt submissions are committed at once, together with all others that wait.
//! - Bulk submissions gather until they are many, or large, or old, or until nothing more is coming; a bulk commit is
//!   cut short when somebody waits for an acknowledgement, but never below a size worth a commit.
//! - Changes to overlays are committed together.
//!
//! "The busier, the cheaper": what queues up meanwhile goes together. Everything held here is bounded by the room that
//! submissions hold. Worst case for a prompt submission: if it comes when all records of a bulk commit are written,
//! what that commit still takes (the index entries and the disk), and its own; before that, the smallest cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use constellation_eventstore::{Blocking, Sequence, Store, StoreError, Writer};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::flow::Flow;
use super::inbox::Inbox;
use super::list::{ListChange, write_list};
use super::origin::Verdict;
use super::pipeline::{IngestError, Published, announce, sweep};
use super::stages::{self, Cut, Examined, OverlayChange};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_CUT_EVENTS_MIN, COMMIT_EVENTS_MAX, COMMIT_GATHERS_FOR,
};
use crate::time::Clock;

pub(super) type Reply<T> = oneshot::Sender<Result<T, IngestError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Admit(Admit),
    Overlay {
        change: OverlayChange,
        reply: Reply<()>,
        _slot: OwnedSemaphorePermit,
    },
    List {
        change: ListChange,
        reply: Reply<Blocking>,
        _slot: OwnedSemaphorePermit,
    },
    Sweep {
        reply: Reply<bool>,
        _slot: OwnedSemaphorePermit,
    },
}

/// An examined submission.
#[derive(Debug)]
pub(super) struct Admit {
    pub(super) is_prompt: bool,
    pub(super) examined: Examined,
    pub(super) bytes: usize,
    pub(super) reply: Reply<Vec<Verdict>>,
    pub(super) _room: OwnedSemaphorePermit,
}

impl Job {
    /// Whether somebody waits for this very job.
    pub(super) fn is_prompt(&self) -> bool {
        match self {
            Self::Admit(admit) => admit.is_prompt,
            Self::Overlay { .. } | Self::List { .. } | Self::Sweep { .. } => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) writer: Writer,
    pub(super) clock: Clock,
    pub(super) inbox: Arc<Inbox>,
    pub(super) flow: Arc<Flow>,
    pub(super) published: watch::Sender<Published>,
    pub(super) backlog: Backlog,
    /// An author has vanished whose events are still there.
    pub(super) vanishing: bool,
}

/// Bulk submissions that gather.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    admits: VecDeque<Admit>,
    events: usize,
    bytes: usize,
    /// When the oldest came, by the monotonic clock.
    since: Duration,
}

impl Backlog {
    fn push(&mut self, admit: Admit, now: Duration) {
        if self.admits.is_empty() {
            self.since = now;
        }
        self.events += admit.examined.accepted.len();
        self.bytes += admit.bytes;
        self.admits.push_back(admit);
    }

    /// As much as one commit takes.
    fn take(&mut self, now: Duration) -> Vec<Admit> {
        let (mut events, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        while events < COMMIT_EVENTS_MAX
            && bytes < COMMIT_BYTES_MAX
            && let Some(admit) = self.admits.pop_front()
        {
            events += admit.examined.accepted.len();
            bytes += admit.bytes;
            batch.push(admit);
        }
        self.events -= events;
        self.bytes -= bytes;
        self.since = now;
        batch
    }

    /// Puts back what a commit that was cut short did not take; it is as old as it was.
    fn put_back(&mut self, rest: Vec<Admit>, since: Duration) {
        if !rest.is_empty() {
            self.since = since;
        }
        for admit in rest.into_iter().rev() {
            self.events += admit.examined.accepted.len();
            self.bytes += admit.bytes;
            self.admits.push_front(admit);
        }
    }

    /// How long the writer may wait for more before it commits; `None` if there is nothing to commit.
    fn patience(&self, now: Duration, flow: &Flow) -> Option<Duration> {
        if self.admits.is_empty() {
            return None;
        }
        if self.events >= COMMIT_EVENTS_MAX || self.bytes >= COMMIT_BYTES_MAX || !flow.brings_more()
        {
            return Some(Duration::ZERO);
        }
        Some((self.since + COMMIT_GATHERS_FOR).saturating_sub(now))
    }
}

impl Committer {
    pub(super) fn run(mut self) {
        loop {
            let patience = if self.vanishing {
                Some(Duration::ZERO)
            } else {
                self.backlog.patience(self.clock.monotonic(), &self.flow)
            };
            let taken = self.inbox.take(patience);
            self.work(taken.jobs);
            if self.vanishing {
                self.sweep_vanished();
            }
            let patience = self.backlog.patience(self.clock.monotonic(), &self.flow);
            if patience.is_some_and(|patience| taken.closed || patience.is_zero()) {
                self.commit_backlog();
            } else if taken.closed {
                return;
            }
        }
    }

    fn work(&mut self, jobs: VecDeque<Job>) {
        let now = self.clock.monotonic();
        let mut prompt = Vec::new();
        let mut overlays = Vec::new();
        let mut lists = Vec::new();
        let mut sweeps = Vec::new();
        for job in jobs {
            match job {
                Job::Admit(admit) if admit.is_prompt => prompt.push(admit),
                Job::Admit(admit) => self.backlog.push(admit, now),
                Job::Overlay {
                    change,
                    reply,
                    _slot,
                } => overlays.push((change, reply, _slot)),
                Job::List {
                    change,
                    reply,
                    _slot,
                } => lists.push((change, reply, _slot)),
                Job::Sweep { reply, _slot } => sweeps.push((reply, _slot)),
            }
        }
        if !prompt.is_empty() {
            let rest = self.commit(prompt, &Cut::NEVER);
            debug_assert!(rest.is_empty(), "only an interruption leaves a rest");
        }
        if !overlays.is_empty() {
            self.change_overlays(overlays);
        }
        for (change, reply, _slot) in lists {
            let result = write_list(&mut self.writer, &change);
            drop(reply.send(result.map_err(Into::into)));
        }
        for (reply, _slot) in sweeps {
            let now = self.clock.unix_seconds();
            let result = sweep(&self.store, &mut self.writer, now, &self.published);
            drop(reply.send(result.map(|report| report.unfinished).map_err(Into::into)));
        }
    }

    fn commit_backlog(&mut self) {
        let since = self.backlog.since;
        let batch = self.backlog.take(self.clock.monotonic());
        let inbox = Arc::clone(&self.inbox);
        let cut = Cut {
            events_min: COMMIT_CUT_EVENTS_MIN,
            wanted: &|| inbox.has_prompt(),
        };
        let rest = self.commit(batch, &cut);
        self.backlog.put_back(rest, since);
    }

    /// Commits `batch`, or its first part if it is cut short; gives back the rest.
    fn commit(&mut self, batch: Vec<Admit>, cut: &Cut<'_>) -> Vec<Admit> {
        let now = self.clock.unix_seconds();
        let mut examined = Vec::with_capacity(batch.len());
        let mut waiting = VecDeque::with_capacity(batch.len());
        for admit in batch {
            examined.push(admit.examined);
            waiting.push_back((admit.is_prompt, admit.bytes, admit.reply, admit._room));
        }
        let result = stages::write(&mut self.writer, &mut examined, now, cut);
        let rest = match &result {
            Ok(written) => examined.split_off(written.submissions),
            Err(_) => Vec::new(),
        };
        match &result {
            Ok(written) => announce(&self.published, &self.store, written.last_sequence),
            // Of a batch that was halved the first half may be on disk.
            Err(_) => self.announce_what_is_there(),
        }
        self.vanishing |= result.is_ok() && stages::wants_sweep(&examined);
        let result = result.map_err(IngestError::from);
        let taken = examined.len();
        for (examined, (_, _, reply, _room)) in examined.into_iter().zip(waiting.drain(..taken)) {
            let answer = result.clone().map(|_| stages::decided(examined.verdicts));
            drop(reply.send(answer)); // the submitter may have gone
        }
        rest.into_iter()
            .zip(waiting)
            .map(|(examined, (is_prompt, bytes, reply, _room))| Admit {
                is_prompt,
                examined,
                bytes,
                reply,
                _room,
            })
            .collect()
    }

    fn change_overlays(&mut self, overlays: Vec<(OverlayChange, Reply<()>, OwnedSemaphorePermit)>) {
        let (changes, replies): (Vec<_>, Vec<_>) = overlays
            .into_iter()
            .map(|(change, reply, slot)| (change, (reply, slot)))
            .unzip();
        let result = stages::write_overlays(&mut self.writer, &changes);
        let result = self.announced(result);
        for (reply, _slot) in replies {
            drop(reply.send(result.clone()));
        }
    }

    fn announced(&self, result: Result<Sequence, StoreError>) -> Result<(), IngestError> {
        let sequence = result?;
        announce(&self.published, &self.store, sequence);
        Ok(())
    }

    fn announce_what_is_there(&self) {
        match self.store.snapshot() {
            Ok(snapshot) => announce(&self.published, &self.store, snapshot.last_sequence()),
            Err(error) => tracing::error!(%error, "the store cannot be read after a failed commit"),
        }
    }

    /// The verdicts are out; what an author who vanished left behind goes now: a slice, and then others have their turn.
    fn sweep_vanished(&mut self) {
        let now = self.clock.unix_seconds();
        match sweep(&self.store, &mut self.writer, now, &self.published) {
            Ok(report) => self.vanishing = report.unfinished,
            Err(error) => {
                tracing::error!(%error, "cannot remove what an author who vanished left; it is tried again");
                self.vanishing = false;
            }
        }
    }
}
