//! Where a station keeps its things (DESIGN §6).

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The paths of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// A data directory at this path; nothing is made yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The event store.
    pub fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    /// What the station remembers besides events.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// How fast this machine verifies signatures.
    pub fn calibration(&self) -> PathBuf {
        self.state().join("calibration.json")
    }

    /// The station's libp2p key.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// The key by which the station says who it is to relays that ask.
    pub fn nostr_key(&self) -> PathBuf {
        self.root.join("nostr.key")
    }

    /// To which constellation the station belongs.
    pub fn constellation(&self) -> PathBuf {
        self.state().join("constellation.json")
    }

    /// When a run by the timetable last took place.
    pub fn schedule(&self) -> PathBuf {
        self.state().join("schedule.json")
    }

    /// Services that commands exposed and opened.
    pub fn services(&self) -> PathBuf {
        self.state().join("services.json")
    }

    /// Addresses of stations, as our own node knows them.
    pub fn addresses(&self) -> PathBuf {
        self.state().join("addresses.json")
    }

    /// What we have opened in a kubo daemon.
    pub fn kubo(&self) -> PathBuf {
        self.state().join("kubo.json")
    }

    /// There if a kubo daemon has carried the tunnels.
    pub fn carried_by_kubo(&self) -> PathBuf {
        self.state().join("carried-by-kubo.json")
    }

    /// The last known cards of the swarm folder.
    pub fn swarm(&self) -> PathBuf {
        self.state().join("swarm.json")
    }

    /// What we wrote into files of an Astroport station's scripts.
    pub fn astroport(&self) -> PathBuf {
        self.state().join("astroport.json")
    }

    /// The last known keys of files and cards.
    pub fn graph(&self) -> PathBuf {
        self.state().join("graph.json")
    }

    /// Held by the one process that writes.
    pub fn lock(&self) -> PathBuf {
        self.root.join("constellation.lock")
    }

    /// Where that process takes commands.
    pub fn control_socket(&self) -> PathBuf {
        self.state().join("control.sock")
    }

    /// Makes what is missing, readable by its owner alone. Changes nothing that is there: another process may hold it.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn prepare(&self) -> Result<(), (PathBuf, std::io::Error)> {
        for path in [self.root.clone(), self.events(), self.state()] {
            make_private(&path).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Empties `state/tmp`, for whoever holds the lock.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn empty_temporary(&self) -> Result<(), (PathBuf, std::io::Error)> {
        let temporary = self.state().join("tmp");
        match std::fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err((temporary, error));
            }
            _ => {}
        }
        make_private(&temporary).map_err(|error| (temporary, error))
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
