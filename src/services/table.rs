//! Which services are exposed and which tunnels are open: configured, asked for by commands, remembered.
//!
//! What commands ask for is kept in `state/services.json` and is there again after a restart, on the same ports. What is
//! configured cannot be undone by a command. Invariants: nothing on the private list is exposed; no port that is the
//! mouth of a tunnel is exposed; a local port once given to (service, station) is tried first ever after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::detect::port_of;
use super::known::KNOWN;
use super::mouth::{Mouth, MouthStatus, bind};
use super::options::{ExposedOptions, OpenOptions};
use crate::peer::{PeerAddress, PeerId, Target};
use crate::state_file;
use crate::tasks::TaskGroup;
use crate::tunnel::{Carrier, CarrierState, Guests, ServiceName, Source};

/// Mouths that may be open at a time.
const MOUTHS_MAX: usize = 64;
/// Services that may be exposed at a time.
const EXPOSED_MAX: usize = 64;
/// Local ports that are remembered; the oldest are forgotten first.
const PORTS_REMEMBERED_MAX: usize = 256;

/// Why a service is not exposed or opened.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The captain said never.
    #[error("{0} is on the list of private services ([tunnel] private): it is never exposed")]
    Private(ServiceName),
    /// Part of the program.
    #[error("{0} is the constellation's own service: it needs no exposing")]
    Reserved(ServiceName),
    /// No port is known for it.
    #[error("{0} is not one of the known services: name the port on which it listens")]
    PortNeeded(ServiceName),
    /// Would lead others through us to somebody else.
    #[error(
        "port {port} is the mouth of a tunnel to {to}: what is reached through a tunnel is not exposed again"
    )]
    MouthOfATunnel {
        /// The port.
        port: u16,
        /// Where it leads.
        to: String,
    },
    /// A command cannot undo it.
    #[error("{0} is in the configuration: take it out there, and send SIGHUP")]
    Configured(ServiceName),
    /// Nothing to close.
    #[error("{0} is neither exposed nor opened here")]
    NotOpen(ServiceName),
    /// Several mouths bear this name.
    #[error("{0} is opened from several stations: name the one to close")]
    Ambiguous(ServiceName),
    /// Not a station.
    #[error("{0} is no station: name it by /p2p/<PeerID>")]
    NotAStation(String),
    /// Ourselves.
    #[error("that is this station itself")]
    Ourselves,
    /// Too many.
    #[error("no more than {0} at a time")]
    TooMany(usize),
    /// No port for a mouth.
    #[error("cannot listen on {port}: {source}")]
    Port {
        /// Which, or what was looked for.
        port: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What commands asked for cannot be kept.
    #[error("cannot keep {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged ({why}): mend it, or move it away to start without opened and exposed services", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Where an exposed service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Our own relay.
    Relay,
    /// A port on loopback.
    Port(u16),
}

/// An exposed service, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedStatus {
    /// Its name.
    pub name: ServiceName,
    /// Its port; `null` for our own relay.
    pub port: Option<u16>,
    /// The stations it is for; `null`: all that are admitted.
    pub allow: Option<Vec<String>>,
    /// Whether the configuration says so, rather than a command or the default.
    pub configured: bool,
}

/// What `tunnel ls` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesStatus {
    /// What others may open.
    pub exposed: Vec<ExposedStatus>,
    /// What is open here.
    pub open: Vec<MouthStatus>,
}

/// What commands asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    exposed: Vec<ExposedOptions>,
    /// Exposed by default, but not here.
    hidden: BTreeSet<ServiceName>,
    open: Vec<OpenOptions>,
    ports: Vec<KeptPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPort {
    name: ServiceName,
    peer: String,
    port: u16,
}

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Configured {
    exposed: Vec<ExposedOptions>,
    open: Vec<OpenOptions>,
    private: BTreeSet<ServiceName>,
}

#[derive(Debug, Default)]
struct Table {
    configured: Configured,
    kept: Kept,
    mouths: Vec<Mouth>,
}

/// Exposes and opens services. One for each station.
#[derive(Debug)]
pub struct Services {
    carrier: Arc<dyn Carrier>,
    path: PathBuf,
    tasks: TaskGroup,
    /// Where services without a named port are.
    places: Places,
    table: Mutex<Table>,
    guests: watch::Sender<BTreeMap<ServiceName, Guests>>,
}

impl Services {
    /// Reads what commands asked for in the past. Nothing is exposed or opened before [`Self::configure`].
    ///
    /// # Errors
    /// [`ServiceError::Damaged`], or the file cannot be read.
    pub fn load(
        carrier: Arc<dyn Carrier>,
        path: PathBuf,
        has_relay: bool,
        tasks: TaskGroup,
    ) -> Result<Self, ServiceError> {
        let kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ServiceError::Damaged {
                path: path.clone(),
                why: error.to_string(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(ServiceError::State { path, source }),
        };
        Ok(Self {
            carrier,
            path,
            tasks,
            places: Places::look_up(has_relay),
            table: Mutex::new(Table {
                kept,
                ..Table::default()
            }),
            guests: watch::Sender::default(),
        })
    }

    /// What is exposed, and to whom: one half of the guest list.
    pub fn guests(&self) -> watch::Receiver<BTreeMap<ServiceName, Guests>> {
        self.guests.subscribe()
    }

    /// Takes over what is configured, at start and again after a change: closes what is no longer wanted, opens what is
    /// new. Gives what could not be done; the rest is done.
    pub fn configure(
        &self,
        exposed: &[ExposedOptions],
        open: &[OpenOptions],
        private: &[ServiceName],
    ) -> Vec<ServiceError> {
        let mut table = self.lock();
        let before = table.kept.clone();
        table.configured = Configured {
            exposed: exposed.to_vec(),
            open: open.to_vec(),
            private: private.iter().cloned().collect(),
        };
        let mut wanted: Vec<(OpenOptions, bool)> =
            open.iter().map(|options| (options.clone(), true)).collect();
        wanted.extend(
            table
                .kept
                .open
                .iter()
                .map(|options| (options.clone(), false)),
        );
        let is_wanted = |mouth: &Mouth| {
            wanted.iter().any(|(options, _)| {
                options.name == mouth.name
                    && options.peer.peer_id() == Some(mouth.peer)
                    && options.port.is_none_or(|port| port == mouth.address.port())
            })
        };
        table.mouths.retain(is_wanted);
        let mut failed = Vec::new();
        for (options, configured) in wanted {
            if let Err(error) = self.open_mouth(&mut table, &options, configured) {
                failed.push(error);
            }
        }
        for options in exposed {
            if let Err(error) = table.check_exposable(options, &self.places) {
                failed.push(error);
            }
        }
        if let Err(error) = self.keep(&mut table, before) {
            failed.push(error);
        }
        self.publish(&table);
        failed
    }

    /// Exposes a service, and remembers it.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn expose(&self, options: ExposedOptions) -> Result<ExposedStatus, ServiceError> {
        let mut table = self.lock();
        table.check_exposable(&options, &self.places)?;
        if table
            .configured
            .exposed
            .iter()
            .any(|other| other.name == options.name)
        {
            return Err(ServiceError::Configured(options.name));
        }
        let before = table.kept.clone();
        table
            .kept
            .exposed
            .retain(|other| other.name != options.name);
        if table.kept.exposed.len() >= EXPOSED_MAX {
            return Err(ServiceError::TooMany(EXPOSED_MAX));
        }
        table.kept.hidden.remove(&options.name);
        table.kept.exposed.push(options.clone());
        self.keep(&mut table, before)?;
        self.publish(&table);
        Ok(table.shown(&options, false, &self.places))
    }

    /// Opens a service of another station on a local port, and remembers it.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn open(&self, options: OpenOptions) -> Result<MouthStatus, ServiceError> {
        let mut table = self.lock();
        let before = table.kept.clone();
        let peer = self.open_mouth(&mut table, &options, false)?;
        let same = |other: &OpenOptions| other.name == options.name && other.peer == options.peer;
        if !table.configured.open.iter().any(same) {
            table.kept.open.retain(|other| !same(other));
            table.kept.open.push(options.clone());
        }
        self.keep(&mut table, before)?;
        self.publish(&table);
        let state = self.carrier.state().borrow().clone();
        let mouth = table
            .mouths
            .iter()
            .find(|mouth| mouth.name == options.name && mouth.peer == peer);
        mouth
            .map(|mouth| mouth.status(&state))
            .ok_or(ServiceError::NotOpen(options.name))
    }

    /// Stops exposing a service, or closes the tunnel to a station's.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn close(&self, name: &ServiceName, peer: Option<PeerId>) -> Result<(), ServiceError> {
        let mut table = self.lock();
        let before = table.kept.clone();
        if peer.is_none() && table.stop_exposing(name, &self.places)? {
            self.keep(&mut table, before)?;
            self.publish(&table);
            return Ok(());
        }
        let matching: Vec<PeerId> = table
            .mouths
            .iter()
            .filter(|mouth| mouth.name == *name && peer.is_none_or(|peer| mouth.peer == peer))
            .map(|mouth| mouth.peer)
            .collect();
        let peer = match matching.as_slice() {
            [] => return Err(ServiceError::NotOpen(name.clone())),
            [peer] => *peer,
            _ => return Err(ServiceError::Ambiguous(name.clone())),
        };
        let same = |other: &OpenOptions| other.name == *name && other.peer.peer_id() == Some(peer);
        if table.configured.open.iter().any(same) {
            return Err(ServiceError::Configured(name.clone()));
        }
        table.kept.open.retain(|other| !same(other));
        table
            .mouths
            .retain(|mouth| !(mouth.name == *name && mouth.peer == peer));
        self.keep(&mut table, before)?;
        self.publish(&table);
        Ok(())
    }

    /// What is exposed and open.
    pub fn status(&self) -> ServicesStatus {
        let state: Arc<CarrierState> = self.carrier.state().borrow().clone();
        let table = self.lock();
        let exposed = table
            .exposed(&self.places)
            .into_iter()
            .map(|(options, configured)| table.shown(&options, configured, &self.places))
            .collect();
        let open = table
            .mouths
            .iter()
            .map(|mouth| mouth.status(&state))
            .collect();
        ServicesStatus { exposed, open }
    }

    /// Stations to which tunnels are open: those to stay connected with.
    pub fn stations(&self) -> BTreeSet<PeerId> {
        self.lock().mouths.iter().map(|mouth| mouth.peer).collect()
    }

    pub(super) fn exposure(&self, name: &ServiceName) -> Option<Exposure> {
        let table = self.lock();
        let exposed = table.exposed(&self.places);
        let (options, _) = exposed.iter().find(|(options, _)| options.name == *name)?;
        self.places.of(options)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // What a panic left behind is whole: every change is one assignment or follows a check.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        let guests = table
            .exposed(&self.places)
            .into_iter()
            .map(|(options, _)| {
                let guests = options.allow.map_or(Guests::Admitted, |allow| {
                    Guests::Only(allow.iter().filter_map(PeerAddress::peer_id).collect())
                });
                (options.name, guests)
            })
            .collect();
        self.guests.send_replace(guests);
    }

    /// Writes what commands asked for; if that fails, nothing is taken to have been asked.
    fn keep(&self, table: &mut Table, before: Kept) -> Result<(), ServiceError> {
        if table.kept == before {
            return Ok(());
        }
        let written = serde_json::to_vec_pretty(&table.kept)
            .map_err(std::io::Error::other)
            .and_then(|bytes| state_file::replace(&self.path, &bytes));
        written.map_err(|source| {
            table.kept = before;
            ServiceError::State {
                path: self.path.clone(),
                source,
            }
        })
    }

    fn open_mouth(
        &self,
        table: &mut Table,
        options: &OpenOptions,
        configured: bool,
    ) -> Result<PeerId, ServiceError> {
        let Target::Station(station) = options.peer.target() else {
            return Err(ServiceError::NotAStation(options.peer.to_string()));
        };
        let peer = station.peer;
        if peer == self.carrier.peer_id() {
            return Err(ServiceError::Ourselves);
        }
        if let Some(hint) = &station.hint {
            self.carrier
                .learn(peer, std::slice::from_ref(hint), Source::Static);
        }
        let fits = |mouth: &Mouth| {
            mouth.name == options.name
                && mouth.peer == peer
                && options.port.is_none_or(|port| port == mouth.address.port())
        };
        if let Some(mouth) = table.mouths.iter_mut().find(|mouth| fits(mouth)) {
            mouth.configured |= configured;
            return Ok(peer);
        }
        if table.mouths.len() >= MOUTHS_MAX {
            return Err(ServiceError::TooMany(MOUTHS_MAX));
        }
        let remembered = table.remembered(&options.name, peer);
        let failed = |source| ServiceError::Port {
            port: options.port.map_or_else(
                || "any local port".to_owned(),
                |port| format!("127.0.0.1:{port}"),
            ),
            source,
        };
        let listener = bind(&options.name, options.port, remembered).map_err(failed)?;
        let mouth = Mouth::open(
            listener,
            options.name.clone(),
            peer,
            configured,
            Arc::clone(&self.carrier),
            &self.tasks,
        )
        .map_err(failed)?;
        table.remember(&options.name, peer, mouth.address.port());
        // An earlier mouth of the same tunnel on another port gives way to this one.
        table
            .mouths
            .retain(|other| !(other.name == options.name && other.peer == peer));
        table.mouths.push(mouth);
        Ok(peer)
    }
}

impl Table {
    /// What is exposed: the configuration first, then commands, then the relay by default.
    fn exposed(&self, places: &Places) -> Vec<(ExposedOptions, bool)> {
        let mut all: Vec<(ExposedOptions, bool)> = Vec::new();
        let mut take = |options: &ExposedOptions, configured| {
            let known = all.iter().any(|(other, _)| other.name == options.name);
            if !known && self.check_exposable(options, places).is_ok() {
                all.push((options.clone(), configured));
            }
        };
        for options in &self.configured.exposed {
            take(options, true);
        }
        for options in &self.kept.exposed {
            take(options, false);
        }
        let relay = ServiceName::strfry();
        if places.has_relay && !self.kept.hidden.contains(&relay) {
            let by_default = ExposedOptions {
                name: relay,
                port: None,
                allow: None,
            };
            take(&by_default, false);
        }
        all
    }

    fn check_exposable(
        &self,
        options: &ExposedOptions,
        places: &Places,
    ) -> Result<(), ServiceError> {
        let name = &options.name;
        if name.as_str() == ServiceName::CONSTELLATION {
            return Err(ServiceError::Reserved(name.clone()));
        }
        if self.configured.private.contains(name) {
            return Err(ServiceError::Private(name.clone()));
        }
        if let Some(address) = options
            .allow
            .iter()
            .flatten()
            .find(|address| address.peer_id().is_none())
        {
            return Err(ServiceError::NotAStation(address.to_string()));
        }
        match places.of(options) {
            None => Err(ServiceError::PortNeeded(name.clone())),
            Some(Exposure::Relay) => Ok(()),
            Some(Exposure::Port(port)) => match self.mouth_at(port) {
                None => Ok(()),
                Some(mouth) => Err(ServiceError::MouthOfATunnel {
                    port,
                    to: format!("{} of {}", mouth.name, mouth.peer),
                }),
            },
        }
    }

    fn mouth_at(&self, port: u16) -> Option<&Mouth> {
        self.mouths
            .iter()
            .find(|mouth| mouth.address.port() == port)
    }

    /// Whether something was exposed by this name, and now no longer is.
    fn stop_exposing(&mut self, name: &ServiceName, places: &Places) -> Result<bool, ServiceError> {
        if self
            .configured
            .exposed
            .iter()
            .any(|options| options.name == *name)
        {
            return Err(ServiceError::Configured(name.clone()));
        }
        let was_exposed = self
            .exposed(places)
            .iter()
            .any(|(options, _)| options.name == *name);
        self.kept.exposed.retain(|options| options.name != *name);
        if was_exposed && name.as_str() == ServiceName::STRFRY {
            self.kept.hidden.insert(name.clone());
        }
        Ok(was_exposed)
    }

    fn remembered(&self, name: &ServiceName, peer: PeerId) -> Option<u16> {
        let peer = peer.to_string();
        self.kept
            .ports
            .iter()
            .find(|kept| kept.name == *name && kept.peer == peer)
            .map(|kept| kept.port)
    }

    fn remember(&mut self, name: &ServiceName, peer: PeerId, port: u16) {
        let peer = peer.to_string();
        self.kept
            .ports
            .retain(|kept| !(kept.name == *name && kept.peer == peer));
        if self.kept.ports.len() >= PORTS_REMEMBERED_MAX {
            self.kept.ports.remove(0);
        }
        let name = name.clone();
        self.kept.ports.push(KeptPort { name, peer, port });
    }

    fn shown(&self, options: &ExposedOptions, configured: bool, places: &Places) -> ExposedStatus {
        ExposedStatus {
            name: options.name.clone(),
            port: match places.of(options) {
                Some(Exposure::Port(port)) => Some(port),
                _ => None,
            },
            allow: options
                .allow
                .as_ref()
                .map(|allow| allow.iter().map(PeerAddress::to_string).collect()),
            configured,
        }
    }
}

/// Where services are that are exposed without naming a port. Looked up once.
#[derive(Debug)]
struct Places {
    /// Whether `strfry` is our own relay.
    has_relay: bool,
    ports: BTreeMap<&'static str, u16>,
}

impl Places {
    fn look_up(has_relay: bool) -> Self {
        let ports = KNOWN.iter().map(|service| (service.name, port_of(service)));
        Self {
            has_relay,
            ports: ports.collect(),
        }
    }

    /// Where a service is; `None` if nothing says.
    fn of(&self, options: &ExposedOptions) -> Option<Exposure> {
        if let Some(port) = options.port {
            return Some(Exposure::Port(port));
        }
        if self.has_relay && options.name.as_str() == ServiceName::STRFRY {
            return Some(Exposure::Relay);
        }
        self.ports
            .get(options.name.as_str())
            .map(|port| Exposure::Port(*port))
    }
}
