//! Reaching the station's data: through the process that has it open, or by opening it here.

use std::path::PathBuf;
use std::time::Duration;

use super::arguments::Global;
use super::exit::Failure;
use crate::config::Config;
use crate::control::{ControlClient, ControlError, StatusReport};
use crate::daemon::{DataDirectory, Station, StationError};
use crate::time::Clock;

/// How long the process that holds the data directory may take to answer, or to let go.
const HOLDER_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who does the work.
pub(super) enum Access {
    /// The process that has the data directory open.
    Running(ControlClient),
    /// This process; to be closed in the end.
    Own(Box<Station>),
}

impl Global {
    /// Refuses what a command with stations of its own cannot heed.
    pub(super) fn refuse_for(&self, command: &str) -> Result<(), Failure> {
        if self.data.is_some() || self.config.is_some() {
            return Err(Failure::usage(format!(
                "{command} makes stations of its own: --data and --config do not apply to it"
            )));
        }
        Ok(())
    }

    pub(super) fn data_directory(&self) -> Result<DataDirectory, Failure> {
        let root = match &self.data {
            Some(root) => root.clone(),
            None => base_folder("XDG_DATA_HOME", ".local/share")?.join("constellation"),
        };
        Ok(DataDirectory::at(root))
    }

    /// The configuration file, and whether it was named.
    pub(super) fn config_file(&self) -> Result<(PathBuf, bool), Failure> {
        match &self.config {
            Some(path) => Ok((path.clone(), true)),
            None => {
                let folder = base_folder("XDG_CONFIG_HOME", ".config")?;
                Ok((folder.join("constellation/constellation.toml"), false))
            }
        }
    }

    pub(super) fn load_config(&self) -> Result<Config, Failure> {
        let (path, named) = self.config_file()?;
        Config::load(&path, named, environment())
            .map_err(|error| Failure::usage(error).see_doctor())
    }

    /// Opens the station, or finds out who has it.
    pub(super) async fn access(&self) -> Result<Access, Failure> {
        let config = self.load_config()?;
        let directory = self.data_directory()?;
        let client = ControlClient::new(&directory.control_socket());
        let clock = Clock::system();
        let started = clock.monotonic();
        loop {
            match Station::open(directory.clone(), &config, clock.clone()).await {
                Ok(station) => return Ok(Access::Own(Box::new(station))),
                Err(StationError::InUse(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match answer(&client, &directory).await {
                Ok(_) => return Ok(Access::Running(client)),
                // It may be about to open its socket, or about to let go of the lock.
                Err(error) if clock.monotonic().saturating_sub(started) > HOLDER_DEADLINE => {
                    return Err(error.into());
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Opens the station to run it. A command that holds the data directory for a moment is waited for; another
    /// running station is not.
    pub(super) async fn open_to_run(&self, config: &Config) -> Result<Station, Failure> {
        let directory = self.data_directory()?;
        let client = ControlClient::new(&directory.control_socket());
        let clock = Clock::system();
        let started = clock.monotonic();
        loop {
            let error = match Station::open(directory.clone(), config, clock.clone()).await {
                Ok(station) => return Ok(station),
                Err(error @ StationError::InUse(_)) => error,
                Err(error) => return Err(error.into()),
            };
            if answer(&client, &directory)
                .await
                .is_ok_and(|status| status.running)
            {
                return Err(Failure::local(format!(
                    "{error}: the station is running already (constellation status shows it)"
                )));
            }
            if clock.monotonic().saturating_sub(started) > HOLDER_DEADLINE {
                return Err(error.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Asks the holder how it is. One that hangs takes the connection and never says anything.
async fn answer(
    client: &ControlClient,
    directory: &DataDirectory,
) -> Result<StatusReport, ControlError> {
    let answered = tokio::time::timeout(HOLDER_DEADLINE, client.status());
    answered.await.unwrap_or_else(|_| {
        Err(ControlError::Unreachable {
            path: directory.control_socket(),
            source: std::io::ErrorKind::TimedOut.into(),
        })
    })
}

/// The environment as text; what is no text cannot be meant for us.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn base_folder(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let named = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    named
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home)))
        .ok_or_else(|| {
            Failure::usage("neither HOME nor XDG_DATA_HOME is set: name --data and --config")
        })
}
