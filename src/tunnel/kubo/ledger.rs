//! What we made kubo do, written down before we do it; and the ports of forwards and doors, which outlive us.
//!
//! A JSON file, replaced as a whole, on the disk before kubo is told: after a crash at any instant the next start finds
//! in it all that may have been left behind. A file that cannot be read is replaced, with a warning: then what it named
//! stays open in kubo until that restarts. Worst case: a disk that is full; tunnels go on, unrecorded, with a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::forwards::Key;
use super::rpc::Mount;
use crate::state_file;
use crate::tunnel::ServiceName;

/// Bytes of the file that are read: 256 forwards and as many listeners take 150 kB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Ports of services that are remembered: more than anybody exposes.
const DOORS_MAX: usize = 256;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    /// Least recently used first.
    ports: Vec<Port>,
    /// The private port of each service that was ever exposed.
    #[serde(default)]
    doors: BTreeMap<ServiceName, u16>,
    /// Forwards and listeners that we opened, or were about to.
    opened: BTreeSet<Mount>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Port {
    peer: String,
    service: ServiceName,
    port: u16,
}

/// What we made kubo do.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    doors: BTreeMap<ServiceName, u16>,
    opened: BTreeSet<Mount>,
}

impl Ledger {
    /// Reads the file. Gives also the ports, least recently used first.
    pub(super) async fn load(path: &Path) -> (Self, Vec<(Key, u16)>) {
        let file = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let written = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what we left open in kubo is not known");
                Written::default()
            }
        };
        let ports = written.ports.into_iter();
        let ports = ports
            .filter_map(|port| Some(((port.peer.parse().ok()?, port.service), port.port)))
            .collect();
        let ledger = Self {
            path: path.to_owned(),
            doors: written.doors,
            opened: written.opened,
        };
        (ledger, ports)
    }

    /// Whether we opened it.
    pub(super) fn has(&self, mount: &Mount) -> bool {
        self.opened.contains(mount)
    }

    /// All that we opened, or were about to.
    pub(super) fn opened(&self) -> Vec<Mount> {
        self.opened.iter().cloned().collect()
    }

    /// The private port that a service had when it was last exposed.
    pub(super) fn door(&self, service: &ServiceName) -> Option<u16> {
        self.doors.get(service).copied()
    }

    /// Which private port a service has now. On the disk with the next change: its listener, which comes next.
    pub(super) fn remember_door(&mut self, service: &ServiceName, port: u16) {
        if self.doors.len() >= DOORS_MAX && !self.doors.contains_key(service) {
            self.doors.pop_first();
        }
        self.doors.insert(service.clone(), port);
    }

    /// Writes down that this is about to be opened. `ports` as [`load`](Self::load) will give them.
    pub(super) async fn opening(&mut self, mount: Mount, ports: Vec<(Key, u16)>) {
        self.opened.insert(mount);
        self.write(ports).await;
    }

    /// Writes down that these are not there (any more), or not ours.
    pub(super) async fn closed(&mut self, mounts: &[Mount], ports: Vec<(Key, u16)>) {
        let before = self.opened.len();
        self.opened.retain(|mount| !mounts.contains(mount));
        if self.opened.len() != before {
            self.write(ports).await;
        }
    }

    async fn write(&self, ports: Vec<(Key, u16)>) {
        let written = Written {
            ports: ports
                .into_iter()
                .map(|((peer, service), port)| Port {
                    peer: peer.to_string(),
                    service,
                    port,
                })
                .collect(),
            doors: self.doors.clone(),
            opened: self.opened.clone(),
        };
        let path = self.path.clone();
        // It waits for the disk.
        let done = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        if let Err(error) = done.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write down what is opened in kubo");
        }
    }
}

/// The file, or nothing where there is none.
fn read(path: &Path) -> io::Result<Written> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::default()),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("far larger than we write it"));
    }
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

fn write(path: &Path, written: &Written) -> io::Result<()> {
    state_file::replace(path, &serde_json::to_vec_pretty(written)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::PeerId;

    #[tokio::test]
    async fn what_is_written_down_is_there_after_a_crash() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("kubo.json");
        let (peer, service) = (PeerId::random(), ServiceName::strfry());
        let mounts = [1, 2].map(|port| Mount::forward(&peer, &service, port));
        let ports = vec![((peer, service.clone()), 1)];

        let (mut ledger, nothing) = Ledger::load(&path).await;
        assert!(nothing.is_empty() && ledger.opened().is_empty());
        for mount in &mounts {
            ledger.opening(mount.clone(), ports.clone()).await;
        }
        ledger.remember_door(&service, 4_711);
        ledger.closed(&mounts[1..], ports.clone()).await;
        drop(ledger);

        let (ledger, read) = Ledger::load(&path).await;
        assert_eq!(read, ports);
        assert!(ledger.has(&mounts[0]) && !ledger.has(&mounts[1]));
        assert_eq!(ledger.door(&service), Some(4_711));
    }

    #[tokio::test]
    async fn a_damaged_file_does_not_keep_a_station_from_starting() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("kubo.json");
        for damaged in [&b"{\"ports\":["[..], b"", &vec![b' '; 2 << 20]] {
            std::fs::write(&path, damaged).expect("ours");
            let (mut ledger, ports) = Ledger::load(&path).await;
            assert!(ports.is_empty() && ledger.opened().is_empty());
            let mount = Mount::listener(&PeerId::random(), &ServiceName::strfry(), 1);
            ledger.opening(mount.clone(), Vec::new()).await;
            assert!(Ledger::load(&path).await.0.has(&mount));
        }
    }
}
