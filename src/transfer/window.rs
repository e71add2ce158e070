//! How much may be under way: grows while answers come in time, shrinks when they come late.
//!
//! Takes the delay of each answer; gives a size, in whatever unit its user counts (bytes asked for, events offered).
//! At first it grows by all that was answered, so it doubles with each round trip; after the first late answer by a
//! step for each size's worth. Thus the round trip does not matter, and no queue builds up before a slow peer that
//! other answers would have to wait behind. Pure: time is an argument. Never below its least, never above its most.

use std::time::Duration;

use tokio::time::Instant;

/// What may be under way.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    size: usize,
    least: usize,
    most: usize,
    late: Duration,
    /// When it last shrank; before that it grows fast.
    shrunk: Option<Instant>,
}

impl Window {
    /// Begins at `first`; an answer after `late` is late.
    pub(crate) fn new(first: usize, least: usize, most: usize, late: Duration) -> Self {
        Self {
            size: first.clamp(least, most),
            least,
            most,
            late,
            shrunk: None,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// An answer to `amount` came after `delay`; `full` says whether the window was used.
    pub(crate) fn answered(&mut self, amount: usize, delay: Duration, full: bool, now: Instant) {
        if delay > self.late {
            // What was under way at the last cut says nothing about the size since.
            if self
                .shrunk
                .is_none_or(|cut| now.saturating_duration_since(cut) > delay)
            {
                self.shrink(now);
            }
        } else if full {
            let more = match self.shrunk {
                None => amount,
                Some(_) => self.least.saturating_mul(amount).div_ceil(self.size),
            };
            self.size = self.size.saturating_add(more).min(self.most);
        }
    }

    /// To the half.
    pub(crate) fn shrink(&mut self, now: Instant) {
        self.size = (self.size / 2).max(self.least);
        self.shrunk = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_doubles_with_each_round_trip_until_something_is_late() {
        let now = Instant::now();
        let mut window = Window::new(64, 8, 2_000, LATE);
        for expected in [128, 256, 512, 1_024, 2_000, 2_000] {
            window.answered(window.size(), Duration::from_millis(50), true, now);
            assert_eq!(window.size(), expected);
        }
        window.answered(1, Duration::from_secs(2), true, now);
        window.answered(1, Duration::from_secs(2), true, now);
        assert_eq!(window.size(), 1_000, "one late batch is one cut");
        let later = now + Duration::from_secs(3);
        window.answered(1_000, Duration::from_millis(50), true, later);
        assert_eq!(window.size(), 1_008, "then by a step at a time");
        window.answered(1_000, Duration::from_millis(50), false, later);
        assert_eq!(window.size(), 1_008, "not by what it was not needed for");
        for _ in 0..20 {
            window.shrink(later);
        }
        assert_eq!(window.size(), 8);
    }
}
