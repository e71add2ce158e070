//! The only place that spawns: every task belongs to a group that can be cancelled and waited for.
//!
//! A [`TaskGroup`] is a cancellation token, a tracker and a bound. A stage is handed a group, spawns into it, and
//! whoever owns the group ends it, with all groups below it; nothing is detached. A full or closed group refuses, and the
//! caller says so.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A bounded set of tasks that end together.
#[derive(Debug, Clone)]
pub struct TaskGroup {
    token: CancellationToken,
    /// Tasks of this group.
    tracker: TaskTracker,
    /// Of each group above this one, nearest first: those that end must wait for our tasks too.
    above: Arc<[TaskTracker]>,
    /// Tasks of this group and of all below it.
    family: TaskTracker,
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
            above: Arc::default(),
            family: TaskTracker::new(),
            room: Arc::new(Semaphore::new(tasks_max)),
        }
    }

    /// A group that ends when this one does, with a bound of its own.
    pub fn child(&self, tasks_max: usize) -> Self {
        let above = std::iter::once(&self.family).chain(self.above.iter());
        Self {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
            above: above.cloned().collect(),
            family: TaskTracker::new(),
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
        let families = std::iter::once(&self.family).chain(self.above.iter());
        let counted: Vec<TaskTrackerToken> = families.map(TaskTracker::token).collect();
        Ok(self.tracker.spawn(async move {
            let (_permit, _counted) = (permit, counted);
            token.run_until_cancelled(future).await
        }))
    }

    /// Takes no more tasks, and waits until those there are, and those of the groups below, have ended by themselves.
    ///
    /// Cancel safety: the group stays closed.
    pub async fn drain(&self) {
        self.tracker.close();
        self.family.close();
        self.family.wait().await;
    }

    /// Asks every task to end, and waits until all have, also those of the groups below. Not from one of them.
    pub async fn end(&self) {
        self.token.cancel();
        self.drain().await;
    }

    /// Tasks of this group alive now.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task of this group is alive.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Takes a moment to be dropped, as what holds a file or a port does.
    struct Slow(Arc<AtomicBool>);

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_ends_a_group_waits_for_the_tasks_of_all_groups_below_it() {
        let top = TaskGroup::new(1);
        let below = top.child(1).child(1);
        let ended = Arc::new(AtomicBool::new(false));
        let slow = Slow(Arc::clone(&ended));
        let held = async move {
            let _slow = slow;
            std::future::pending::<()>().await;
        };
        below.spawn(held).unwrap();
        top.end().await;
        assert!(ended.load(Ordering::SeqCst));
        assert_eq!(below.spawn(async {}).err(), Some(GroupFull));
    }
}
