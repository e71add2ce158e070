//! When to tell: how things stand after a run, and whether that is news.
//!
//! Takes what was told last and a run's report; gives how things stand and on what occasion to tell. Pure: what is kept
//! ([`Standing`]) is handed in, and time is an argument. Invariant: one occasion for each change of state, none between.
//! A peer that was merely not reached says nothing about itself until it has not been reached for long: stations that are up
//! for an hour a day are not at fault for the other 23. What was last known of it, good or bad, holds meanwhile, so that a
//! fault is not taken for mended because its peer is away. Runs that only compare, or only meet peers that were named, change
//! nothing: they do not speak of the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::options::When;
use super::summary::started;
use crate::limits::PEERS_REMEMBERED;
use crate::sync::{Outcome, PeerReport, RunReport};

/// How things stand.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Equal sets, as far as anybody is there.
    #[default]
    Well,
    /// Something is left over with somebody.
    Partial,
    /// With nobody it went well, or the time was up.
    Failed,
}

/// On what occasion something is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A run ended, and every one is told of.
    Run,
    /// How things stand has changed.
    Change,
    /// A run was not well, and every such one is told of.
    Failure,
    /// The hour of the daily report has come.
    Digest,
    /// Somebody asked.
    Asked,
}

/// What is known of how things stand. Kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    /// How things stand, as far as is known.
    pub(super) state: State,
    /// Peers with whom something is wrong, and what.
    pub(super) troubled: BTreeMap<String, State>,
    /// Since when peers are known with whom no exchange has ever succeeded, in Unix seconds.
    pub(super) unmet_since: BTreeMap<String, u64>,
}

/// Whether a run speaks of the whole: it was with all peers, and moved what there was.
pub(super) fn speaks_of_the_whole(run: &RunReport) -> bool {
    !run.dry_run && !run.named_peers && !run.peers.is_empty()
}

impl State {
    /// How one run by itself went.
    pub const fn of_run(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Converged | Outcome::Skipped => Self::Well,
            Outcome::Partial => Self::Partial,
            Outcome::Failed | Outcome::Deadline => Self::Failed,
        }
    }
}

impl Standing {
    /// Takes a run's report in. A run that tells nothing of anybody leaves everything as it was.
    pub(super) fn take(&mut self, run: &RunReport, unreached_for: Duration) {
        if !speaks_of_the_whole(run) || run.outcome == Outcome::Skipped {
            return;
        }
        let now = started(&run.started_at).saturating_add(run.duration_ms / 1_000);
        let mut states = BTreeMap::new();
        let mut is_news = run.outcome == Outcome::Deadline || run.failed_locally();
        for peer in &run.peers {
            let state = match self.says(peer, now, unreached_for) {
                Some(state) => {
                    is_news = true;
                    Some(state)
                }
                None => self.troubled.get(&peer.address).copied(),
            };
            if let Some(state) = state {
                states.insert(peer.address.clone(), state);
            }
        }
        let all_failed = states.values().all(|state| *state == State::Failed);
        let state = if run.outcome == Outcome::Deadline || run.failed_locally() {
            State::Failed
        } else if states.values().all(|state| *state == State::Well) {
            State::Well
        } else if all_failed {
            State::Failed
        } else {
            State::Partial
        };
        states.retain(|_, state| *state != State::Well);
        self.troubled = states;
        if is_news {
            self.state = state;
        }
    }

    /// What an exchange says of its peer; `None`: nothing.
    fn says(&mut self, peer: &PeerReport, now: u64, unreached_for: Duration) -> Option<State> {
        if peer.lag_s.is_some() {
            self.unmet_since.remove(&peer.address);
        }
        if peer.outcome == Outcome::Converged {
            return Some(State::Well);
        }
        if peer.is_left_alone() {
            return None;
        }
        if !peer.was_reached() {
            let unreached = match peer.lag_s {
                Some(lag) => lag,
                None => now.saturating_sub(self.unmet_since(&peer.address, now)),
            };
            return (unreached >= unreached_for.as_secs()).then_some(State::Failed);
        }
        Some(match peer.outcome {
            Outcome::Failed | Outcome::Deadline => State::Failed,
            _ => State::Partial,
        })
    }

    fn unmet_since(&mut self, peer: &str, now: u64) -> u64 {
        if let Some(since) = self.unmet_since.get(peer) {
            return *since;
        }
        // Whoever is forgotten is only given more time.
        while self.unmet_since.len() >= PEERS_REMEMBERED {
            let oldest = self.unmet_since.iter().min_by_key(|(_, since)| **since);
            let Some(oldest) = oldest.map(|(peer, _)| peer.clone()) else {
                break;
            };
            self.unmet_since.remove(&oldest);
        }
        self.unmet_since.insert(peer.to_owned(), now);
        now
    }
}

/// Whether to tell of a run after which things stand so; `told`: how they stood when somebody was last told.
pub(super) fn occasion(when: When, told: State, now: State) -> Option<Occasion> {
    match when {
        When::Always => Some(Occasion::Run),
        When::Change => (told != now).then_some(Occasion::Change),
        When::Failure => (now != State::Well).then_some(Occasion::Failure),
        When::Daily | When::Never => None,
    }
}

/// The last moment at which the daily report was due, in Unix seconds: not after `now`. Where a clock that is put forward
/// leaves that hour out, it is due an hour later.
pub(super) fn last_due(at: Time, zone: &TimeZone, now: u64) -> u64 {
    due(at, zone, now, 0)
        .filter(|due| *due <= now)
        .or_else(|| due(at, zone, now, -1))
        .unwrap_or_default()
}

/// The next moment at which it is due: after `now`.
pub(super) fn next_due(at: Time, zone: &TimeZone, now: u64) -> Option<u64> {
    due(at, zone, now, 0)
        .filter(|due| *due > now)
        .or_else(|| due(at, zone, now, 1))
}

fn due(at: Time, zone: &TimeZone, now: u64, days_later: i64) -> Option<u64> {
    let now = Timestamp::from_second(i64::try_from(now).ok()?).ok()?;
    let today = now.to_zoned(zone.clone()).date();
    let day = today.checked_add(days_later.days()).ok()?;
    let due = day.to_datetime(at).to_zoned(zone.clone()).ok()?;
    u64::try_from(due.timestamp().as_second()).ok()
}

#[cfg(test)]
#[path = "deciding_tests.rs"]
pub(super) mod tests;
