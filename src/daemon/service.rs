//! The running station: the schedule and the signals.
//!
//! SIGINT and SIGTERM end it in order; SIGHUP reads the configuration again. A run is due at start, every so often, and a
//! moment after a station was found that no run has met: it does not wait for the hour. Whom a run did not reach is tried again
//! by itself a minute later, until the circuit breaker of runs has it rest. A run that is due while another is
//! in progress is remembered once, not queued: `Notify` holds one permit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::relay::StationRelay;
use super::station::{Station, StationError};
use crate::config::{Config, ConfigError};
use crate::peer::PeerAddress;
use crate::schedule::ScheduleOptions;
use crate::sync::{Neighbours, Outcome, RunReport, Runner, SyncRequest};

/// Stations are found in swarms: whom else the next moment brings is met by the same run.
const FOUND_GATHER_FOR: Duration = Duration::from_secs(3);
/// Whom a run did not reach is tried again so soon.
const MISSED_TRIED_AFTER: Duration = Duration::from_secs(60);
/// Whatever is found, runs for its sake are no closer together than this.
const FOUND_RUN_EVERY: Duration = Duration::from_secs(60);

/// Why a running station stops by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The system does not deliver signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// A part does not start.
    #[error(transparent)]
    Station(#[from] StationError),
}

/// Runs the schedule until SIGINT or SIGTERM. `reload` reads the configuration again.
///
/// # Errors
/// [`ServiceError`].
pub async fn serve_until_signalled(
    station: &Station,
    config: &Config,
    relay: &StationRelay,
    reload: impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), ServiceError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let schedule = watch::Sender::new(config.schedule);
    start_schedule(station, schedule.subscribe())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => match reload() {
                Ok(config) => {
                    if let Err(error) = station.reconfigure(&config).await {
                        tracing::error!(%error, "the configuration in force stays");
                        continue;
                    }
                    // A timer that every reload set back might never run out.
                    schedule.send_if_modified(|current| {
                        std::mem::replace(current, config.schedule) != config.schedule
                    });
                    relay.reconfigure(&config);
                    tracing::info!("configuration read again; listen, connections_max, own_urls for requests to vanish, and how tunnels are carried change at the next start");
                }
                Err(error) => tracing::error!(%error, "the configuration in force stays"),
            },
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, ServiceError> {
    signal(kind).map_err(ServiceError::Signals)
}

/// Starts the tasks of the schedule: two that know when a run is due, one that makes runs.
fn start_schedule(
    station: &Station,
    schedule: watch::Receiver<ScheduleOptions>,
) -> Result<(), StationError> {
    let due = Arc::new(Notify::new());
    let runner = station.runner().clone();
    let (next_run, clock) = (station.next_run_sender(), station.clock().clone());
    let making = make_runs(runner, Arc::clone(&due));
    let meeting = meet_found(station.found(), schedule.clone(), Arc::clone(&due));
    let keeping = keep_time(schedule, due, move |wait: Option<Duration>| {
        next_run.send_replace(wait.map(|wait| clock.unix_seconds() + wait.as_secs()));
    });
    let start = |error: crate::tasks::GroupFull| StationError::Start(error.to_string());
    station.tasks().spawn(making).map_err(start)?;
    station.tasks().spawn(keeping).map_err(start)?;
    station.tasks().spawn(meeting).map_err(start)?;
    Ok(())
}

async fn keep_time(
    mut schedule: watch::Receiver<ScheduleOptions>,
    due: Arc<Notify>,
    tell: impl Fn(Option<Duration>),
) {
    let mut first = true;
    loop {
        let interval = schedule.borrow_and_update().interval();
        if first && interval.is_some() {
            due.notify_one();
        }
        first = false;
        tell(interval);
        let wait = async {
            match interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => due.notify_one(),
            changed = schedule.changed() => if changed.is_err() { return },
        }
    }
}

/// Makes a run due when somebody is found who was not known at the start or since.
async fn meet_found(
    mut neighbours: watch::Receiver<Arc<Neighbours>>,
    schedule: watch::Receiver<ScheduleOptions>,
    due: Arc<Notify>,
) {
    // Those that are known now are met by the first run.
    let mut met = found(&neighbours.borrow_and_update());
    while neighbours.changed().await.is_ok() {
        tokio::time::sleep(FOUND_GATHER_FOR).await;
        let now = found(&neighbours.borrow_and_update());
        let somebody_is_new = now.difference(&met).next().is_some();
        // Who goes and comes back is met anew: it may have missed much.
        met = now;
        if somebody_is_new && schedule.borrow().interval().is_some() {
            due.notify_one();
            tokio::time::sleep(FOUND_RUN_EVERY).await;
        }
    }
}

fn found(neighbours: &Neighbours) -> BTreeSet<PeerAddress> {
    neighbours.found.iter().cloned().collect()
}

async fn make_runs(runner: Runner, due: Arc<Notify>) {
    let mut missed = Vec::new();
    loop {
        if missed.is_empty() {
            due.notified().await;
        } else {
            // A run that is due meets them too.
            tokio::select! {
                () = due.notified() => missed.clear(),
                () = tokio::time::sleep(MISSED_TRIED_AFTER) => {}
            }
        }
        // A station without peers serves its clients, and that is all.
        if runner.peers().is_empty() {
            missed.clear();
            continue;
        }
        let request = SyncRequest {
            peers: std::mem::take(&mut missed),
            scheduled: true,
            ..SyncRequest::default()
        };
        match runner.trigger_in_turn(&request).await {
            Ok(report) => missed = missed_in(&report),
            Err(error) => tracing::error!(%error, "the scheduled run did not take place"),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_run_is_due_for_whom_nobody_has_met_and_at_most_once_a_minute() {
        let address = |number: u8| -> PeerAddress {
            let relay = format!("ws://127.0.0.1:{number}");
            relay.parse().unwrap()
        };
        let known = |numbers: &[u8]| {
            Arc::new(Neighbours {
                found: numbers.iter().copied().map(address).collect(),
                ..Neighbours::default()
            })
        };
        let found = watch::Sender::new(known(&[1]));
        let schedule = watch::Sender::new(ScheduleOptions::default());
        let due = Arc::new(Notify::new());
        let tasks = crate::tasks::TaskGroup::new(1);
        tasks
            .spawn(meet_found(
                found.subscribe(),
                schedule.subscribe(),
                Arc::clone(&due),
            ))
            .unwrap();
        let is_due = |within: u64| {
            let due = Arc::clone(&due);
            async move {
                timeout(Duration::from_secs(within), due.notified())
                    .await
                    .is_ok()
            }
        };
        assert!(!is_due(600).await, "whom the first run meets");
        found.send_replace(known(&[1, 2]));
        assert!(is_due(5).await);
        found.send_replace(known(&[1, 2, 3]));
        assert!(!is_due(50).await);
        assert!(is_due(20).await);
        found.send_replace(known(&[2, 3]));
        assert!(!is_due(600).await, "one that went");
        schedule.send_replace(ScheduleOptions {
            every: Duration::ZERO,
        });
        found.send_replace(known(&[2, 3, 4]));
        assert!(!is_due(600).await, "runs are only made when asked for");
        tasks.end().await;
    }
}
