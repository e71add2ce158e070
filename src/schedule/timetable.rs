//! The timetable of one station: what is due next.
//!
//! Takes options and the time at each look, gives what is due, once. Invariants: however long nobody looked (a machine
//! that slept, a station that was off), what was missed is made up for by one run; the times themselves do not drift, as
//! each is reckoned from the last one that was planned and not from when its run began; a clock that is set back
//! postpones nothing beyond one interval. Deliberately absent: waiting, and what makes a run due besides the schedule. Worst case: a cron expression that names no
//! day for years is due no more.

use std::time::Duration;

use super::due::{Due, DueReason};
use super::options::ScheduleOptions;
use crate::random::Random;

/// Whoever looks this much later than a run was due was asleep.
const LATE_S: u64 = 120;
/// Jitter is at most this part of the time between two runs.
const JITTER_PART: u32 = 10;

/// What is due next.
#[derive(Debug)]
pub struct Timetable {
    options: ScheduleOptions,
    /// What the next run was planned for: without jitter.
    planned: u64,
    next: Option<Due>,
}

impl Timetable {
    /// The timetable of a station that starts at `now`, and whose last run by a timetable, if there was one, began
    /// at `last_run` (both Unix seconds).
    ///
    /// A run is due at once; by a cron expression only if one was missed, or none ever took place: it may be there to
    /// spare the day's uplink.
    pub fn at_start(
        options: ScheduleOptions,
        last_run: Option<u64>,
        now: u64,
        random: &Random,
    ) -> Self {
        let mut timetable = Self {
            options,
            planned: now,
            next: None,
        };
        let why = match (&timetable.options.cron, last_run) {
            (None, _) | (Some(_), None) => Some(DueReason::Start),
            (Some(cron), Some(last)) => {
                let missed = cron.next_after(last).is_some_and(|at| at <= now);
                missed.then_some(DueReason::CatchUp)
            }
        };
        match why.filter(|_| timetable.options.is_on()) {
            Some(why) => timetable.next = Some(Due { at: now, why }),
            None => timetable.plan_next(now, random),
        }
        timetable
    }

    /// Other options, from now on; nothing is due only because they changed.
    pub fn change(&mut self, options: ScheduleOptions, now: u64, random: &Random) {
        self.options = options;
        self.planned = now;
        self.plan_next(now, random);
    }

    /// What is due next, if anything ever is.
    pub fn next(&self) -> Option<Due> {
        self.next
    }

    /// What is due by `now`, once; plans what comes after it.
    pub fn due(&mut self, now: u64, random: &Random) -> Option<Due> {
        let next = self.next?;
        if now < next.at {
            self.plan_anew_if_clock_went_back(now, random);
            return None;
        }
        self.plan_next(now, random);
        let is_late = next.why == DueReason::Schedule && now - next.at > LATE_S;
        let why = if is_late {
            DueReason::CatchUp
        } else {
            next.why
        };
        Some(Due { at: next.at, why })
    }

    /// The first planned time after `after`, and after `now`.
    fn following(&self, after: u64, now: u64) -> Option<u64> {
        if let Some(cron) = &self.options.cron {
            return cron.next_after(after.max(now));
        }
        let every = self.options.every.as_secs();
        if every == 0 {
            return None;
        }
        let missed = now.saturating_sub(after) / every;
        Some(after.saturating_add((missed + 1).saturating_mul(every)))
    }

    fn plan_next(&mut self, now: u64, random: &Random) {
        self.next = self.following(self.planned, now).map(|planned| {
            let interval = self.following(planned, planned).unwrap_or(planned) - planned;
            self.planned = planned;
            Due {
                at: planned.saturating_add(self.jitter(interval, random)),
                why: DueReason::Schedule,
            }
        });
    }

    /// Seconds, from none to what is allowed.
    fn jitter(&self, interval: u64, random: &Random) -> u64 {
        let most = Duration::from_secs(interval) / JITTER_PART;
        let most = most.min(self.options.jitter).as_secs();
        u64::from_le_bytes(random.bytes()) % (most + 1)
    }

    fn plan_anew_if_clock_went_back(&mut self, now: u64, random: &Random) {
        // As if the last run had been at this moment: then the next one cannot be further away than this.
        let Some(soonest) = self.following(now, now) else {
            return;
        };
        if self.planned > soonest {
            self.planned = now;
            self.plan_next(now, random);
        }
    }
}

#[cfg(test)]
#[path = "timetable_tests.rs"]
mod tests;
