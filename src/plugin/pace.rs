//! How many questions a plugin has before it at a time: as many as it answers well in time.
//!
//! Most plugins rule about one event after another, some of them slowly, so that a question that waits behind many others in
//! their input is ruled about when nobody wants to know any more, and so is every one after it. Questions therefore wait on our
//! side, where one whose time is up is dropped. The number grows by one with each quick answer and is halved by a slow one
//! (additive increase, multiplicative decrease), between one and `PLUGIN_QUESTIONS_MAX`.

use std::time::Duration;

use crate::limits::PLUGIN_QUESTIONS_MAX;

/// At first: more than one, in case it likes company.
const FIRST: usize = 2;
/// An answer that took less than this part of the time for one is quick.
const QUICK_PART: u32 = 16;
/// One that took more than this part of it is slow.
const SLOW_PART: u32 = 4;

/// See above.
#[derive(Debug)]
pub(super) struct Pace {
    at_a_time: usize,
    quick: Duration,
    slow: Duration,
}

impl Pace {
    /// For a plugin whose answers may take so long.
    pub(super) fn within(timeout: Duration) -> Self {
        Self {
            at_a_time: FIRST,
            quick: timeout / QUICK_PART,
            slow: timeout / SLOW_PART,
        }
    }

    /// Questions that it may have without an answer.
    pub(super) fn at_a_time(&self) -> usize {
        self.at_a_time
    }

    /// An answer came so long after its question was handed over.
    pub(super) fn answered_after(&mut self, delay: Duration) {
        if delay > self.slow {
            self.at_a_time = (self.at_a_time / 2).max(1);
        } else if delay < self.quick {
            self.at_a_time = (self.at_a_time + 1).min(PLUGIN_QUESTIONS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that takes so long for each, one after another, as many as it has before it.
    fn settles_at(each: Duration) -> usize {
        let mut pace = Pace::within(Duration::from_secs(5));
        for _ in 0..1_000 {
            let before_it = u32::try_from(pace.at_a_time()).expect("few");
            pace.answered_after(each * before_it);
        }
        pace.at_a_time()
    }

    #[test]
    fn a_quick_plugin_gets_many_at_a_time_and_a_slow_one_one() {
        assert_eq!(settles_at(Duration::from_micros(50)), PLUGIN_QUESTIONS_MAX);
        assert!((20..=100).contains(&settles_at(Duration::from_millis(10))));
        assert_eq!(settles_at(Duration::from_secs(1)), 1);
        assert_eq!(settles_at(Duration::from_secs(4)), 1);
    }
}
