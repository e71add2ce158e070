//! What waits for the writer thread.
//!
//! A queue that is taken whole. Pushing never waits, since everything in it is bounded by what its sender holds:
//! submissions by room in bytes, other work by slots. Whoever waits on it wakes for work, for [`Inbox::wake`], when
//! it closes, or when its time is up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::committer::Job;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    prompt: usize,
    woken: bool,
    closed: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) jobs: VecDeque<Job>,
    /// Nothing more will come.
    pub(super) closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// The job, if the writer takes no more.
    #[allow(clippy::result_large_err)] // happens while ending only
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.prompt += usize::from(job.is_prompt());
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Whether somebody waits for an acknowledgement.
    pub(super) fn has_prompt(&self) -> bool {
        self.lock().prompt > 0
    }

    /// Lets the writer look again at what it has.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Takes all there is, waiting for something to happen for as long as `patience` (for ever without).
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken {
        let idle = |state: &mut State| state.jobs.is_empty() && !state.woken && !state.closed;
        let state = self.lock();
        let mut state = match patience {
            None => self
                .changed
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.changed
                    .wait_timeout_while(state, patience, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.woken = false;
        state.prompt = 0;
        Taken {
            jobs: std::mem::take(&mut state.jobs),
            closed: state.closed,
        }
    }
}
