//! The runs that a running station makes by itself: when one is due, and making it.
//!
//! Takes the timetable, who is found and whom the last run missed; gives runs, one after another. A run is due by the
//! timetable, a moment after a station was found that no run has met, and when what carries the tunnels is back: these do
//! not wait for the hour. Whom a run did not reach is tried again by itself a minute later, until the circuit breaker of runs has it rest. Invariants: what becomes due
//! while a run is in progress is remembered once, not queued; when the timetable last made one is on disk, so that a
//! station that was off knows what it missed. Deliberately absent: what a run does. Worst case: one run a minute, while
//! somebody new is found each time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::station::{Station, StationError};
use crate::control::TunnelState;
use crate::peer::PeerAddress;
use crate::random::Random;
use crate::schedule::{Due, DueReason, NextRuns, ScheduleOptions, Timetable};
use crate::state_file;
use crate::sync::{Neighbours, Outcome, RunReport, Runner, SyncRequest};
use crate::time::Clock;
use crate::tunnel::CarrierState;

/// Stations are found in swarms: whom else the next moment brings is met by the same run.
const FOUND_GATHER_FOR: Duration = Duration::from_secs(3);
/// Whom a run did not reach is tried again so soon.
const MISSED_TRIED_AFTER: Duration = Duration::from_secs(60);
/// Whatever is found, runs for its sake are no closer together than this.
const FOUND_RUN_EVERY: Duration = Duration::from_secs(60);
/// The clock is looked at this often at least: while a machine sleeps, waiting stands still.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(15);
/// Of the file that says when a run last took place.
const RECORD_BYTES_MAX: u64 = 4_096;

/// Starts the tasks of the schedule: three that know when a run is due, one that makes runs.
///
/// # Errors
/// [`StationError::Start`].
pub(super) fn start(
    station: &Station,
    schedule: watch::Receiver<ScheduleOptions>,
) -> Result<(), StationError> {
    let wanted = Arc::new(Wanted::default());
    let record = Record::at(station.schedule_record());
    let making = RunMaker {
        runner: station.runner().clone(),
        wanted: Arc::clone(&wanted),
        next_runs: station.next_runs(),
        clock: station.clock().clone(),
        record: record.clone(),
    };
    let meeting = meet_found(station.found(), schedule.clone(), Arc::clone(&wanted));
    let returning = await_carrier(
        station.tunnel_state(),
        schedule.clone(),
        Arc::clone(&wanted),
    );
    let keeping = TimeKeeper {
        schedule,
        wanted,
        next_runs: station.next_runs(),
        clock: station.clock().clone(),
        random: station.random().clone(),
    };
    let start = |error: crate::tasks::GroupFull| StationError::Start(error.to_string());
    let tasks = station.tasks();
    tasks.spawn(making.make_runs()).map_err(start)?;
    tasks
        .spawn(async move { keeping.keep_time(record.read().await).await })
        .map_err(start)?;
    tasks.spawn(meeting).map_err(start)?;
    tasks.spawn(returning).map_err(start)?;
    Ok(())
}

/// That a run is due, and why: the first reason counts, until somebody takes it.
#[derive(Debug, Default)]
struct Wanted {
    why: Mutex<Option<DueReason>>,
    told: Notify,
}

impl Wanted {
    fn want(&self, why: DueReason) {
        let mut wanted = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get_or_insert(why);
        drop(wanted);
        self.told.notify_one();
    }

    fn take(&self) -> Option<DueReason> {
        let mut wanted = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.take()
    }

    /// Cancel safety: nothing is taken before it is given.
    async fn next(&self) -> DueReason {
        loop {
            if let Some(why) = self.take() {
                return why;
            }
            self.told.notified().await;
        }
    }
}

/// Knows when a run is due by the timetable.
struct TimeKeeper {
    schedule: watch::Receiver<ScheduleOptions>,
    wanted: Arc<Wanted>,
    next_runs: watch::Sender<NextRuns>,
    clock: Clock,
    random: Random,
}

impl TimeKeeper {
    async fn keep_time(mut self, last_run: Option<u64>) {
        let options = self.schedule.borrow_and_update().clone();
        let now = self.clock.unix_seconds();
        let mut timetable = Timetable::at_start(options, last_run, now, &self.random);
        loop {
            let now = self.clock.unix_seconds();
            if let Some(due) = timetable.due(now, &self.random) {
                tracing::debug!(why = due.why.as_str(), "a run is due");
                self.wanted.want(due.why);
            }
            let next = timetable.next();
            self.next_runs.send_modify(|runs| runs.by_timetable = next);
            let wait = next.map_or(LOOKED_AT_EVERY, |next| {
                Duration::from_secs(next.at.saturating_sub(now))
            });
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOKED_AT_EVERY)) => {}
                changed = self.schedule.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let options = self.schedule.borrow_and_update().clone();
                    timetable.change(options, self.clock.unix_seconds(), &self.random);
                }
            }
        }
    }
}

/// Makes a run due when somebody is found who was not known at the start or since.
async fn meet_found(
    mut neighbours: watch::Receiver<Arc<Neighbours>>,
    schedule: watch::Receiver<ScheduleOptions>,
    wanted: Arc<Wanted>,
) {
    // Those that are known now are met by the first run.
    let mut met = found(&neighbours.borrow_and_update());
    while neighbours.changed().await.is_ok() {
        tokio::time::sleep(FOUND_GATHER_FOR).await;
        let now = found(&neighbours.borrow_and_update());
        let somebody_is_new = now.difference(&met).next().is_some();
        // Who goes and comes back is met anew: it may have missed much.
        met = now;
        if somebody_is_new && schedule.borrow().is_on() {
            wanted.want(DueReason::Found);
            tokio::time::sleep(FOUND_RUN_EVERY).await;
        }
    }
}

/// Makes a run due when what carries the tunnels is back: whom runs left alone meanwhile does not wait for the hour.
async fn await_carrier(
    mut tunnels: watch::Receiver<TunnelState>,
    schedule: watch::Receiver<ScheduleOptions>,
    wanted: Arc<Wanted>,
) {
    loop {
        // A start that waited for it finds everybody anew: that makes a run due already.
        let started = tunnels.wait_for(|state| state.started().is_some()).await;
        let Some(state) = started.ok().and_then(|state| state.started().cloned()) else {
            return; // the station ends
        };
        follow_carrier(state.carrier.state(), &schedule, &wanted).await;
        if tunnels.changed().await.is_err() {
            return;
        }
    }
}

/// Until the carrier is another one.
async fn follow_carrier(
    mut state: watch::Receiver<Arc<CarrierState>>,
    schedule: &watch::Receiver<ScheduleOptions>,
    wanted: &Wanted,
) {
    while state
        .wait_for(|state| state.problem.is_some())
        .await
        .is_ok()
    {
        if state
            .wait_for(|state| state.problem.is_none())
            .await
            .is_err()
        {
            return;
        }
        if schedule.borrow().is_on() {
            wanted.want(DueReason::Carrier);
            // A daemon that comes and goes all the time brings no more runs than stations that do.
            tokio::time::sleep(FOUND_RUN_EVERY).await;
        }
    }
}

fn found(neighbours: &Neighbours) -> BTreeSet<PeerAddress> {
    neighbours.found.iter().cloned().collect()
}

/// Makes the runs that are due.
struct RunMaker {
    runner: Runner,
    wanted: Arc<Wanted>,
    next_runs: watch::Sender<NextRuns>,
    clock: Clock,
    record: Record,
}

impl RunMaker {
    async fn make_runs(self) {
        let mut missed = Vec::new();
        loop {
            let why = self.due(&missed).await;
            if why != DueReason::Missed {
                // Such a run meets them too.
                missed.clear();
            }
            let peers = self.runner.peers();
            missed.retain(|missed| peers.iter().any(|peer| peer.address == *missed));
            // A station without peers serves its clients, and that is all; whom it no longer has it does not try again.
            if peers.is_empty() || (why == DueReason::Missed && missed.is_empty()) {
                missed.clear();
                continue;
            }
            let begun = self.clock.unix_seconds();
            let request = SyncRequest {
                peers: std::mem::take(&mut missed),
                scheduled: true,
                ..SyncRequest::default()
            };
            match self.runner.trigger_in_turn(&request).await {
                Ok(report) => missed = missed_in(&report),
                Err(error) => tracing::error!(%error, "the scheduled run did not take place"),
            }
            if matches!(
                why,
                DueReason::Start | DueReason::Schedule | DueReason::CatchUp
            ) {
                self.record.write(begun).await;
            }
        }
    }

    /// Why the next run is due, when it is.
    async fn due(&self, missed: &[PeerAddress]) -> DueReason {
        if missed.is_empty() {
            return self.wanted.next().await;
        }
        let again = Due {
            at: self.clock.unix_seconds() + MISSED_TRIED_AFTER.as_secs(),
            why: DueReason::Missed,
        };
        self.next_runs.send_modify(|next| next.again = Some(again));
        let why = tokio::select! {
            why = self.wanted.next() => why,
            () = tokio::time::sleep(MISSED_TRIED_AFTER) => DueReason::Missed,
        };
        self.next_runs.send_modify(|next| next.again = None);
        why
    }
}

/// Whom a run did not reach: somebody who was only just found, or restarts. They are tried again soon, until they rest.
fn missed_in(report: &RunReport) -> Vec<PeerAddress> {
    let missed = report
        .peers
        .iter()
        .filter(|peer| peer.outcome == Outcome::Failed && !peer.was_reached());
    missed
        .filter_map(|peer| peer.address.parse().ok())
        .collect()
}

/// When a run by the timetable last began, on disk. Losing it costs one run too many.
#[derive(Debug, Clone)]
struct Record(PathBuf);

#[derive(Serialize, Deserialize)]
struct Recorded {
    /// Unix seconds.
    last_run: u64,
}

impl Record {
    fn at(path: PathBuf) -> Self {
        Self(path)
    }

    async fn read(&self) -> Option<u64> {
        let path = self.0.clone();
        let read = tokio::task::spawn_blocking(move || read_record(&path)).await;
        match read {
            Ok(Ok(last)) => last,
            Ok(Err(error)) => {
                tracing::warn!(path = %self.0.display(), %error, "when a run last took place is not known any more");
                None
            }
            Err(_) => None, // the station ends
        }
    }

    async fn write(&self, last_run: u64) {
        let path = self.0.clone();
        let write = move || {
            let bytes = serde_json::to_vec(&Recorded { last_run })?;
            state_file::replace(&path, &bytes)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(path = %self.0.display(), %error, "cannot keep when this run took place");
        }
    }
}

fn read_record(path: &Path) -> std::io::Result<Option<u64>> {
    let Some(bytes) = state_file::read_up_to(path, RECORD_BYTES_MAX)? else {
        return Ok(None);
    };
    let recorded: Recorded = serde_json::from_slice(&bytes)?;
    Ok(Some(recorded.last_run))
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
