//! What is wrong with a station and its surroundings, and what to do.
//!
//! ```text
//! Surroundings (configuration, data directory, who holds it) ─► checks, each by itself ─► findings: verdict, what was seen, remedy
//! ```
//!
//! Works beside a running station, which it asks what only that knows, and without one. Invariants: what is not well has a
//! remedy that can be done literally; nothing is changed; no tunnel is started; the station's lock is held for as long as it
//! takes to open the store, and no longer. Deliberately absent: how findings are shown, and the thorough check of the store
//! (`archive::check`). Worst case: the deadlines of `peers.rs`, eight peers at a time.
//!
//! Another part adds a check by a name in [`CheckName`] and a line in [`examine`].

mod clock;
mod configuration;
mod files;
mod holders;
mod home;
mod kubo;
mod lock;
mod machine;
mod mail;
mod peers;
mod ports;
mod relay;
mod remedy;
mod store;
mod swarm_key;

use std::path::PathBuf;

use serde::Serialize;

pub use remedy::Remedy;

use crate::config::{Config, ConfigError};
use crate::control::{ControlClient, StatusReport};
use crate::daemon::DataDirectory;
use crate::time::Clock;

/// What is looked at. Its names are also JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// The file and the variables that override it.
    Configuration,
    /// There, ours, and nobody else's to write.
    DataDirectory,
    /// `identity.key`, `nostr.key`, and another identity that is configured.
    Keys,
    /// Who has the data directory open.
    Lock,
    /// Bytes that are free where the data is.
    DiskSpace,
    /// Files that can still be made where the data is.
    DiskInodes,
    /// Whether the store can be mapped into memory.
    MapSize,
    /// Whether the store opens.
    Store,
    /// How many files the process may open.
    OpenFiles,
    /// Where the relay listens.
    RelayPort,
    /// Where libp2p listens.
    TunnelPorts,
    /// The key of the private swarm.
    SwarmKey,
    /// The daemon that carries tunnels.
    Kubo,
    /// The relay that the station serves.
    HomeRelay,
    /// The command that writes into it.
    HomeWriter,
    /// Each peer: whether it is reached.
    Peer,
    /// Each peer: when the last exchange succeeded.
    LastSuccess,
    /// The mail server that reports go to.
    Mail,
    /// The time.
    Clock,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Well.
    Ok,
    /// Worth knowing; the station works.
    Warning,
    /// Something must be done.
    Problem,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: CheckName,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen, in a line.
    pub seen: String,
    /// What to do; `null` where all is well.
    pub remedy: Option<Remedy>,
}

impl CheckName {
    /// The name as JSON has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::DataDirectory => "data_directory",
            Self::Keys => "keys",
            Self::Lock => "lock",
            Self::DiskSpace => "disk_space",
            Self::DiskInodes => "disk_inodes",
            Self::MapSize => "map_size",
            Self::Store => "store",
            Self::OpenFiles => "open_files",
            Self::RelayPort => "relay_port",
            Self::TunnelPorts => "tunnel_ports",
            Self::SwarmKey => "swarm_key",
            Self::Kubo => "kubo",
            Self::HomeRelay => "home_relay",
            Self::HomeWriter => "home_writer",
            Self::Peer => "peer",
            Self::LastSuccess => "last_success",
            Self::Mail => "mail",
            Self::Clock => "clock",
        }
    }

    fn ok(self, seen: impl Into<String>) -> Finding {
        Finding {
            check: self,
            verdict: Verdict::Ok,
            seen: seen.into(),
            remedy: None,
        }
    }

    fn warning(self, seen: impl Into<String>, remedy: Remedy) -> Finding {
        Finding {
            check: self,
            verdict: Verdict::Warning,
            seen: seen.into(),
            remedy: Some(remedy),
        }
    }

    fn problem(self, seen: impl Into<String>, remedy: Remedy) -> Finding {
        Finding {
            check: self,
            verdict: Verdict::Problem,
            seen: seen.into(),
            remedy: Some(remedy),
        }
    }
}

/// What is examined.
#[derive(Debug)]
pub struct Surroundings {
    /// The configuration file.
    pub file: PathBuf,
    /// Whether it was named, so that it must be there.
    pub file_is_named: bool,
    /// Where the data is.
    pub directory: DataDirectory,
    /// The words with which this program finds the two again: `constellation --data …`.
    pub command: Vec<String>,
    /// The captain's home, where other programs keep their things.
    pub home: Option<PathBuf>,
    /// Wall time.
    pub clock: Clock,
}

/// The same, with what is known of it: what the checks are given.
#[derive(Debug)]
struct Scene<'s> {
    around: &'s Surroundings,
    config: &'s Config,
    /// Who has the data directory open, if that one answers.
    holder: Option<(ControlClient, StatusReport)>,
}

impl Scene<'_> {
    /// The station that runs.
    fn running(&self) -> Option<&StatusReport> {
        let status = self.holder.as_ref().map(|(_, status)| status);
        status.filter(|status| status.running)
    }

    /// A command of this program, for the same station.
    fn command(&self, words: &[&str]) -> Remedy {
        Remedy::own_command(&self.around.command, words)
    }

    /// A key of the configuration file.
    fn setting(&self, section: &str, key: &str, value: impl ToString) -> Remedy {
        Remedy::Setting {
            file: self.around.file.display().to_string(),
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_string(),
        }
    }
}

/// Examines a station. `loaded` is its configuration: where that is wrong, only what does not depend on it is looked at.
///
/// Cancel safe: nothing is changed.
pub async fn examine(around: &Surroundings, loaded: Result<&Config, &ConfigError>) -> Vec<Finding> {
    let mut found = vec![configuration::check(around, loaded)];
    found.extend(off_runtime(around, files::check).await);
    let (lock, holder) = lock::check(around).await;
    found.push(lock);
    found.extend(off_runtime(around, machine::check).await);
    let Ok(config) = loaded else {
        return found;
    };
    let scene = Scene {
        around,
        config,
        holder,
    };
    let stored = store::check(&scene).await;
    found.extend(stored.finding);
    found.extend(ports::check(&scene).await);
    let (swarm_key, kubo) = (swarm_key::check(&scene), kubo::check(&scene).await);
    found.push(swarm_key);
    found.push(kubo);
    let mut dates = Vec::new();
    found.extend(home::check(&scene, &mut dates).await);
    found.extend(peers::check(&scene, &mut dates).await);
    found.push(mail::check(&scene).await);
    found.push(clock::check(&scene, stored.from_the_future, &dates));
    found
}

/// Checks that ask the disk.
async fn off_runtime(
    around: &Surroundings,
    check: impl FnOnce(&Place) -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    let place = Place {
        directory: around.directory.clone(),
    };
    let checked = tokio::task::spawn_blocking(move || check(&place));
    match checked.await {
        Ok(found) => found,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        // The runtime is ending, and nobody reads this any more.
        Err(_) => Vec::new(),
    }
}

/// What checks of the disk are given.
#[derive(Debug)]
struct Place {
    directory: DataDirectory,
}
