//! What is on its way through the pipeline, so that the writer knows whether waiting for more is worth it.
//!
//! Three counts, each held up by a guard and let down by its drop, whatever way that happens: bulk submissions that
//! have not reached the writer, bulk submitters that say more is coming, and bulk submitters that wait for room.
//! The writer is woken when a count falls or a submitter begins to wait. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::inbox::Inbox;

#[derive(Debug)]
pub(super) struct Flow {
    upstream: AtomicUsize,
    streams: AtomicUsize,
    waiting_for_room: AtomicUsize,
    inbox: Arc<Inbox>,
}

/// One of the three counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// A bulk submission that the writer does not have yet.
    Upstream,
    /// A submitter that says more is coming.
    Stream,
    /// A submitter that cannot submit before something is committed.
    WaitingForRoom,
}

/// Holds a count up until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<Flow>, Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.of(self.1).fetch_sub(1, Ordering::AcqRel);
        self.0.inbox.wake();
    }
}

impl Flow {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self {
            upstream: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            waiting_for_room: AtomicUsize::new(0),
            inbox,
        }
    }

    fn of(&self, count: Count) -> &AtomicUsize {
        match count {
            Count::Upstream => &self.upstream,
            Count::Stream => &self.streams,
            Count::WaitingForRoom => &self.waiting_for_room,
        }
    }

    pub(super) fn hold(self: &Arc<Self>, count: Count) -> Counted {
        self.of(count).fetch_add(1, Ordering::AcqRel);
        if matches!(count, Count::WaitingForRoom) {
            self.inbox.wake();
        }
        Counted(Arc::clone(self), count)
    }

    /// Whether more will reach the writer without it doing anything first.
    pub(super) fn brings_more(&self) -> bool {
        let is_any = |count| self.of(count).load(Ordering::Acquire) > 0;
        is_any(Count::Upstream) || (is_any(Count::Stream) && !is_any(Count::WaitingForRoom))
    }
}

/// Says that more will be submitted soon: while it lives, bulk commits wait to grow, up to their bounds.
#[derive(Debug)]
pub struct BulkStream {
    /// There are none where nothing waits: inline.
    pub(super) _counted: Option<Counted>,
}
