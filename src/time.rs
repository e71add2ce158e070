//! The clock, passed in wherever time is read, so that a simulation can hold it.
//!
//! Gives wall time for Nostr's timestamps and a monotonic time for durations. Waiting and timeouts go through
//! `tokio::time`, which tests pause. The only place that asks the operating system what time it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait TimeSource: Send + Sync {
    /// Time since the Unix epoch.
    fn wall(&self) -> Duration;
    /// Time since some fixed instant; never goes back.
    fn monotonic(&self) -> Duration;
}

/// A shared handle on a [`TimeSource`].
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clock").field(&self.0.wall()).finish()
    }
}

impl Clock {
    /// A clock over any source.
    pub fn new(source: impl TimeSource + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The machine's clock.
    #[allow(clippy::disallowed_methods)] // the one place that reads it
    pub fn system() -> Self {
        Self::new(SystemTimeSource {
            started: Instant::now(),
        })
    }

    /// Unix time in whole seconds, as in `created_at`.
    pub fn unix_seconds(&self) -> u64 {
        self.0.wall().as_secs()
    }

    /// Time since the Unix epoch.
    pub fn wall(&self) -> Duration {
        self.0.wall()
    }

    /// Monotonic time, for durations.
    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    /// Unix time as RFC 3339 in UTC, to the second.
    pub fn rfc3339(&self) -> String {
        rfc3339(self.unix_seconds())
    }
}

struct SystemTimeSource {
    started: Instant,
}

impl TimeSource for SystemTimeSource {
    #[allow(clippy::disallowed_methods)] // the one place that reads it
    fn wall(&self) -> Duration {
        // A machine whose clock stands before 1970 has no usable time: everything is "in the future" to it.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Unix seconds as RFC 3339 in UTC; seconds beyond the calendar are given as a number.
pub fn rfc3339(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| unix_seconds.to_string(), |time| time.to_string())
}
