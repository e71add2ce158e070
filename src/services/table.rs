//! Which services are exposed and which tunnels are open: configured, asked for by commands, remembered.
//!
//! Invariants: nothing on the private list is exposed; no port that is the mouth of a tunnel is exposed; a local port
//! once given to (service, station) is remembered. Deliberately absent: files and the network.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::detect::port_of;
use super::error::ServiceError;
use super::known::KNOWN;
use super::mouth::Mouth;
use super::options::{ExposedOptions, OpenOptions};
use super::status::ExposedStatus;
use crate::peer::{PeerAddress, PeerId};
use crate::tunnel::ServiceName;

/// Local ports that are remembered; the oldest are forgotten first.
const PORTS_REMEMBERED_MAX: usize = 256;

/// Where an exposed service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Our own relay.
    Relay,
    /// A port on loopback.
    Port(u16),
}

/// What commands asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) exposed: Vec<ExposedOptions>,
    /// Exposed by default, but not here.
    pub(super) hidden: BTreeSet<ServiceName>,
    pub(super) open: Vec<OpenOptions>,
    pub(super) ports: Vec<KeptPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptPort {
    pub(super) name: ServiceName,
    pub(super) peer: String,
    pub(super) port: u16,
}

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) exposed: Vec<ExposedOptions>,
    pub(super) open: Vec<OpenOptions>,
    pub(super) private: BTreeSet<ServiceName>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) configured: Configured,
    pub(super) kept: Kept,
    pub(super) mouths: Vec<Mouth>,
    /// Local ports that lead through the carrier to other stations, as last looked at.
    pub(super) carriers_mouths: BTreeSet<u16>,
}

impl Table {
    /// What is exposed: the configuration first, then commands, then the relay by default.
    pub(super) fn exposed(&self, places: &Places) -> Vec<(ExposedOptions, bool)> {
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
        if !self.kept.hidden.contains(&relay) {
            let by_default = ExposedOptions {
                name: relay,
                port: None,
                allow: None,
            };
            take(&by_default, false);
        }
        all
    }

    pub(super) fn check_exposable(
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
                Some(to) => Err(ServiceError::MouthOfATunnel { port, to }),
            },
        }
    }

    /// Takes a new mouth in; an earlier one of the same tunnel on another port gives way to it.
    pub(super) fn enter(&mut self, mouth: Mouth) {
        self.mouths
            .retain(|other| !(other.name == mouth.name && other.peer == mouth.peer));
        self.mouths.push(mouth);
    }

    /// Where a local port leads, if it is the mouth of a tunnel.
    pub(super) fn mouth_at(&self, port: u16) -> Option<String> {
        let ours = self
            .mouths
            .iter()
            .find(|mouth| mouth.address.port() == port)
            .map(|mouth| format!("{} of {}", mouth.name, mouth.peer));
        ours.or_else(|| {
            self.carriers_mouths
                .contains(&port)
                .then(|| "another station".to_owned())
        })
    }

    /// Whether something was exposed by this name, and now no longer is.
    pub(super) fn stop_exposing(
        &mut self,
        name: &ServiceName,
        places: &Places,
    ) -> Result<bool, ServiceError> {
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

    pub(super) fn remembered(&self, name: &ServiceName, peer: PeerId) -> Option<u16> {
        let peer = peer.to_string();
        self.kept
            .ports
            .iter()
            .find(|kept| kept.name == *name && kept.peer == peer)
            .map(|kept| kept.port)
    }

    pub(super) fn remember(&mut self, name: &ServiceName, peer: PeerId, port: u16) {
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

    pub(super) fn shown(
        &self,
        options: &ExposedOptions,
        configured: bool,
        places: &Places,
    ) -> ExposedStatus {
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

/// Where services are that are exposed without naming a port: `strfry` is our own relay. Looked up once.
#[derive(Debug)]
pub(super) struct Places {
    ports: BTreeMap<&'static str, u16>,
}

impl Places {
    pub(super) fn look_up() -> Self {
        let ports = KNOWN.iter().map(|service| (service.name, port_of(service)));
        Self {
            ports: ports.collect(),
        }
    }

    /// Where a service is; `None` if nothing says.
    pub(super) fn of(&self, options: &ExposedOptions) -> Option<Exposure> {
        if let Some(port) = options.port {
            return Some(Exposure::Port(port));
        }
        if options.name.as_str() == ServiceName::STRFRY {
            return Some(Exposure::Relay);
        }
        self.ports
            .get(options.name.as_str())
            .map(|port| Exposure::Port(*port))
    }
}
