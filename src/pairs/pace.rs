//! Pauses after refusals for the moment: each twice as long as the one before, a bounded number in a row.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::limits::{PAUSE_FIRST, PAUSE_MAX, PAUSES_MAX};

/// How long a relay is left alone that says that this was too fast.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pause: Duration,
    /// In a row, since it last took or gave something.
    pauses: u32,
    until: Option<Instant>,
}

impl Pace {
    /// A refusal; those that come while a pause lasts are of the same moment. Says whether it begins a pause.
    pub(super) fn slow_down(&mut self) -> bool {
        let now = Instant::now();
        if self.until.is_some_and(|until| until > now) {
            return false;
        }
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        self.until = Some(now + self.pause);
        self.pauses += 1;
        true
    }

    pub(super) fn went_well(&mut self) {
        (self.pause, self.pauses) = (Duration::ZERO, 0);
    }

    /// Pause after pause nothing came of it.
    pub(super) fn gives_up(&self) -> bool {
        self.pauses > PAUSES_MAX
    }

    pub(super) fn is_paused(&self) -> bool {
        self.until.is_some_and(|until| until > Instant::now())
    }

    /// Waits for the end of the pause. Cancel safe.
    pub(super) async fn over(&self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_with_something_that_went_well() {
        let mut pace = Pace::default();
        let began = Instant::now();
        for _ in 0..=PAUSES_MAX {
            assert!(!pace.gives_up());
            assert!(pace.slow_down());
            assert!(!pace.slow_down(), "one pause for what came together");
            assert!(pace.is_paused());
            pace.over().await;
        }
        assert!(pace.gives_up());
        assert!(began.elapsed() >= PAUSE_FIRST * (1 << PAUSES_MAX));
        pace.went_well();
        assert!(!pace.gives_up() && !pace.is_paused());
    }
}
