//! Exposes and opens services, and remembers what commands asked for.
//!
//! That is kept in `state/services.json` and is there again after a restart, on the same ports. What is configured cannot
//! be undone by a command. A change that cannot be kept is not made. Changes write files: they belong off the runtime, but
//! need it to listen. Questions are answered from what was last published, and never wait for a change or the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::ServiceError;
use super::mouth::{Mouth, MouthStatus, bind};
use super::options::{ExposedOptions, OpenOptions};
use super::published::Published;
use super::status::{ExposedStatus, ServicesStatus};
use super::table::{Configured, Exposure, Kept, Places, Table};
use crate::peer::{PeerAddress, PeerId, Target};
use crate::state_file;
use crate::tasks::TaskGroup;
use crate::tunnel::{Carrier, CarrierState, Guests, ServiceName, Source};

/// Mouths that may be open at a time.
const MOUTHS_MAX: usize = 64;
/// Services that may be exposed at a time.
const EXPOSED_MAX: usize = 64;

/// Exposes and opens services. One for each station.
#[derive(Debug)]
pub struct Services {
    carrier: Arc<dyn Carrier>,
    path: PathBuf,
    tasks: TaskGroup,
    /// Where services without a named port are.
    places: Places,
    /// Whether our relay is served while this process lives: a command that has the station open for a moment serves none.
    relay_is_served: bool,
    /// Held by changes, also while they are written and ports are waited for.
    table: Mutex<Table>,
    published: watch::Sender<Arc<Published>>,
    guests: watch::Sender<BTreeMap<ServiceName, Guests>>,
}

/// What opening a mouth comes to.
enum Opening {
    /// It is open already.
    There(PeerId),
    /// To be entered in the table.
    New(Mouth),
}

impl Services {
    /// Reads what commands asked for in the past. Nothing is exposed or opened before [`Self::configure`]. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Damaged`], or the file cannot be read.
    pub fn load(
        carrier: Arc<dyn Carrier>,
        path: PathBuf,
        relay_is_served: bool,
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
            places: Places::look_up(),
            relay_is_served,
            table: Mutex::new(Table {
                kept,
                ..Table::default()
            }),
            published: watch::Sender::default(),
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
        table.carriers_mouths = self.carrier.mouths();
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
                options.peer.peer_id() == Some(mouth.peer)
                    && mouth.fits(&options.name, options.port)
            })
        };
        table.mouths.retain(is_wanted);
        let mut failed = Vec::new();
        for (options, configured) in wanted {
            match self.open_mouth(&mut table, &options, configured) {
                Ok(Opening::There(_)) => {}
                Ok(Opening::New(mouth)) => table.enter(mouth),
                Err(error) => failed.push(error),
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
        table.carriers_mouths = self.carrier.mouths();
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
        let opening = self.open_mouth(&mut table, &options, false)?;
        let same = |other: &OpenOptions| other.name == options.name && other.peer == options.peer;
        if !table.configured.open.iter().any(same) {
            table.kept.open.retain(|other| !same(other));
            table.kept.open.push(options.clone());
        }
        self.keep(&mut table, before)?;
        // Only now: a mouth that cannot be kept is closed again, and an earlier one stays.
        let peer = match opening {
            Opening::There(peer) => peer,
            Opening::New(mouth) => {
                let peer = mouth.peer;
                table.enter(mouth);
                peer
            }
        };
        self.publish(&table);
        let state = self.carrier.state().borrow().clone();
        let mouth = table
            .mouths
            .iter()
            .find(|mouth| mouth.name == options.name && mouth.peer == peer);
        mouth
            .map(|mouth| mouth.view().status(&state))
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
        self.keep(&mut table, before)?;
        table
            .mouths
            .retain(|mouth| !(mouth.name == *name && mouth.peer == peer));
        self.publish(&table);
        Ok(())
    }

    /// What is exposed and open.
    pub fn status(&self) -> ServicesStatus {
        let state: Arc<CarrierState> = self.carrier.state().borrow().clone();
        self.published.borrow().status(&state)
    }

    /// Stations to which tunnels are open: those to stay connected with.
    pub fn stations(&self) -> BTreeSet<PeerId> {
        self.published.borrow().stations()
    }

    /// As if the process had ended: only the file is left.
    #[cfg(test)]
    pub(super) fn forget_mouths(&self) {
        self.lock().mouths.clear();
    }

    /// Where a service is that others ask for now. A port that has become the mouth of a tunnel meanwhile is none.
    pub(super) fn exposure(&self, name: &ServiceName) -> Option<Exposure> {
        let exposure = self.published.borrow().exposure(name)?;
        match exposure {
            Exposure::Port(port) if self.carrier.mouths().contains(&port) => None,
            Exposure::Relay if !self.relay_is_served => None,
            open => Some(open),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // What a panic left behind is whole: every change is one assignment or follows a check.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        let exposed = table.exposed(&self.places);
        self.published
            .send_replace(Arc::new(Published::new(table, &exposed, &self.places)));
        let is_served = |options: &ExposedOptions| {
            self.relay_is_served || self.places.of(options) != Some(Exposure::Relay)
        };
        let guests = exposed
            .into_iter()
            .filter(|(options, _)| is_served(options))
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
    ) -> Result<Opening, ServiceError> {
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
        let fits =
            |mouth: &&mut Mouth| mouth.peer == peer && mouth.fits(&options.name, options.port);
        if let Some(mouth) = table.mouths.iter_mut().find(fits) {
            mouth.configured |= configured;
            return Ok(Opening::There(peer));
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
        Ok(Opening::New(mouth))
    }
}
