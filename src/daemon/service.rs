//! The running station: the schedule and the signals.
//!
//! SIGINT and SIGTERM end it in order; SIGHUP reads the configuration again: what is wrong in it changes nothing. Deliberately
//! absent: when runs are due (`runs.rs`).

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::relay::StationRelay;
use super::runs;
use super::station::{Station, StationError};
use crate::config::{Config, ConfigError};

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
    let schedule = watch::Sender::new(config.schedule.clone());
    runs::start(station, schedule.subscribe())?;
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
                        let is_new = *current != config.schedule;
                        current.clone_from(&config.schedule);
                        is_new
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
