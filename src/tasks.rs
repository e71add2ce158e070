//! The only place that spawns: every task belongs to a group that can be cancelled and waited for.
//!
//! A [`TaskGroup`] is a cancellation token, a tracker and a bound. A stage is handed a group, spawns into it, and
//! whoever owns the group ends it; nothing is detached. A full or closed group refuses, and the caller says so.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A bounded set of tasks that end together.
#[derive(Debug, Clone)]
pub struct TaskGroup {
    token: CancellationToken,
    tracker: TaskTracker,
    room: Arc<Semaphore>,
}

/// The group is full or already ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another task")]
pub struct GroupFull;

impl TaskGroup {
    /// A group of at most `tasks_max` tasks at a time.
    pub fn new(tasks_max: usize) -> Self {
        Self {
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            room: Arc::new(Semaphore::new(tasks_max)),
        }
    }

    /// A group that ends when this one does, with a bound of its own. Waiting for it is its owner's business.
    pub fn child(&self, tasks_max: usize) -> Self {
        Self {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
            room: Arc::new(Semaphore::new(tasks_max)),
        }
    }

    /// Cancelled when the group is to end. Long waits select on it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns `future`; it is dropped at its next wait when the group is cancelled.
    ///
    /// # Errors
    /// [`GroupFull`] when the bound is reached or the group is ending; `future` is dropped unpolled.
    #[allow(clippy::disallowed_methods)] // the one place that spawns
    pub fn spawn<F>(&self, future: F) -> Result<JoinHandle<Option<F::Output>>, GroupFull>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.token.is_cancelled() || self.tracker.is_closed() {
            return Err(GroupFull);
        }
        let permit = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| GroupFull)?;
        let token = self.token.clone();
        Ok(self.tracker.spawn(async move {
            let _permit = permit;
            token.run_until_cancelled(future).await
        }))
    }

    /// Takes no more tasks, and waits until those there are have ended by themselves.
    ///
    /// Cancel safety: the group stays closed.
    pub async fn drain(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Asks every task to end, and waits until all have.
    pub async fn end(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tasks alive now.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is alive.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}
