//! What goes wrong with a plugin: counted, and logged at most once a minute.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::limits::PLUGIN_LOG_EVERY;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A question was not answered in time.
    Late,
    /// A question was asked while the plugin did not run, or it ended before it answered.
    Down,
    /// It did not start.
    NotStarted,
    /// It ended by itself.
    Ended,
    /// It was ended, because it answered nothing for too long.
    Hung,
    /// It was ended, because it answered garbage.
    Garbage,
}

/// Counts since the last line in the log.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    late: u64,
    down: u64,
    not_started: u64,
    ended: u64,
    hung: u64,
    garbage: u64,
    logged: Option<Instant>,
}

impl Troubles {
    /// Counts one, and logs if nothing was logged for a minute.
    pub(super) fn note(&self, trouble: Trouble) {
        // Numbers are whole after every line.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match trouble {
            Trouble::Late => &mut counts.late,
            Trouble::Down => &mut counts.down,
            Trouble::NotStarted => &mut counts.not_started,
            Trouble::Ended => &mut counts.ended,
            Trouble::Hung => &mut counts.hung,
            Trouble::Garbage => &mut counts.garbage,
        };
        *count += 1;
        let now = Instant::now();
        let is_recent = |logged| now.saturating_duration_since(logged) < PLUGIN_LOG_EVERY;
        if counts.logged.is_some_and(is_recent) {
            return;
        }
        let since = std::mem::replace(
            &mut *counts,
            Counts {
                logged: Some(now),
                ..Counts::default()
            },
        );
        drop(counts);
        tracing::warn!(
            late = since.late,
            down = since.down,
            not_started = since.not_started,
            ended = since.ended,
            hung = since.hung,
            garbage = since.garbage,
            "the write policy plugin does not rule on all events: plugin_on_failure decides"
        );
    }
}
