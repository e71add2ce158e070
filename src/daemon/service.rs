//! The running station: the schedule and the signals.
//!
//! SIGINT and SIGTERM end it in order; SIGHUP reads the configuration again. A run that is due while another is in
//! progress is remembered once, not queued: `Notify` holds one permit.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::relay::StationRelay;
use super::station::{Station, StationError};
use crate::config::{Config, ConfigError};
use crate::schedule::ScheduleOptions;
use crate::sync::{Runner, SyncRequest};

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
                    if let Err(error) = station.reconfigure_tunnels(&config).await {
                        tracing::error!(%error, "the configuration in force stays");
                        continue;
                    }
                    station.reconfigure(&config);
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

/// Starts the two tasks of the schedule: one that knows when a run is due, one that makes runs.
fn start_schedule(
    station: &Station,
    schedule: watch::Receiver<ScheduleOptions>,
) -> Result<(), StationError> {
    let due = Arc::new(Notify::new());
    let runner = station.runner().clone();
    let (next_run, clock) = (station.next_run_sender(), station.clock().clone());
    let making = make_runs(runner, Arc::clone(&due));
    let keeping = keep_time(schedule, due, move |wait: Option<Duration>| {
        next_run.send_replace(wait.map(|wait| clock.unix_seconds() + wait.as_secs()));
    });
    let start = |error: crate::tasks::GroupFull| StationError::Start(error.to_string());
    station.tasks().spawn(making).map_err(start)?;
    station.tasks().spawn(keeping).map_err(start)?;
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

async fn make_runs(runner: Runner, due: Arc<Notify>) {
    loop {
        due.notified().await;
        // A station without peers serves its clients, and that is all.
        if runner.peers().is_empty() {
            continue;
        }
        match runner.trigger_in_turn(&SyncRequest::default()).await {
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the scheduled run did not take place"),
        }
    }
}
