//! What the carrier's calls and its supervisor share: the forwards in kubo, connections, and whether kubo answers.
//!
//! Invariant: only whoever holds the ledger changes what kubo has, and writes it down before; so nothing is opened twice.
//! The locks of the tables are never held over a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::connections::Connections;
use super::forwards::{Forwards, Key};
use super::ledger::Ledger;
use super::places::Places;
use super::rpc::{KuboError, Mount, Rpc};
use crate::random::Random;
use crate::time::Clock;
use crate::tunnel::{GuestList, OpenError, PeerId};

/// Ports tried for one forward, should others take them just then.
const PORT_TRIES: usize = 4;

/// What the calls and the supervisor share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rpc: Rpc,
    pub(super) peer: PeerId,
    pub(super) guests: watch::Receiver<Arc<GuestList>>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) places: Arc<Places>,
    /// Held by whoever changes what kubo has.
    pub(super) ledger: tokio::sync::Mutex<Ledger>,
    /// Something is to be looked at before the supervisor's next turn.
    pub(super) wake: Notify,
    pub(super) forwards: Mutex<Forwards>,
    pub(super) connections: Mutex<Connections>,
    /// Stations that calls are having dialled.
    pub(super) dialled: Mutex<BTreeMap<PeerId, Weak<tokio::sync::Mutex<()>>>>,
    /// Local ports on which kubo listens for its forwards, whoever made them, as last looked at.
    pub(super) mouths: Mutex<BTreeSet<u16>>,
    /// Why nothing can be opened now.
    pub(super) down: Mutex<Option<String>>,
}

/// The tables are changed in single steps: whoever panicked while holding one left it whole.
pub(super) fn hold<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Whether kubo answered when it was last asked.
    pub(super) fn is_up(&self) -> Result<(), OpenError> {
        match &*hold(&self.down) {
            Some(why) => Err(OpenError::CarrierDown(why.clone())),
            None => Ok(()),
        }
    }

    /// Connects kubo with a station, unless it was connected when last looked at.
    pub(super) async fn connect(&self, peer: PeerId, deadline: Duration) -> Result<(), OpenError> {
        if hold(&self.connections).is_connected(&peer) {
            return Ok(());
        }
        // A burst of streams dials once, and whoever cannot be reached delays nobody else.
        let turn = self.turn(peer);
        let _turn = turn.lock().await;
        let addresses = {
            let connections = hold(&self.connections);
            if connections.is_connected(&peer) {
                return Ok(());
            }
            connections.addresses(&peer)
        };
        let connected = self.rpc.connect(&peer, &addresses, deadline).await;
        hold(&self.connections).dialled(&peer, connected.is_ok(), self.clock.monotonic());
        connected.map_err(|error| match error {
            KuboError::Timeout { .. } => OpenError::Timeout,
            KuboError::Status { message, .. } if addresses.is_empty() && is_unknown(&message) => {
                OpenError::NoAddress(peer)
            }
            KuboError::Status { message, .. } => OpenError::Unreachable {
                peer,
                detail: message,
            },
            other => self.carrier_down(&other),
        })
    }

    /// What those wait for who dial the same station.
    fn turn(&self, peer: PeerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut dialled = hold(&self.dialled);
        dialled.retain(|_, turn| turn.strong_count() > 0);
        let turn = dialled.get(&peer).and_then(Weak::upgrade);
        turn.unwrap_or_else(|| {
            let turn = Arc::default();
            dialled.insert(peer, Arc::downgrade(&turn));
            turn
        })
    }

    /// The local port that leads to a service, on which kubo listens.
    pub(super) async fn forward(&self, key: &Key) -> Result<u16, OpenError> {
        if let Some(port) = hold(&self.forwards).use_port(key) {
            return Ok(port);
        }
        let mut ledger = self.ledger.lock().await;
        let remembered = {
            let mut forwards = hold(&self.forwards);
            if let Some(port) = forwards.use_port(key) {
                return Ok(port); // another call was quicker
            }
            forwards.remembered(key)
        };
        let established = self.establish(&mut ledger, key, remembered).await;
        established.map_err(|error| self.carrier_down(&error))
    }

    fn carrier_down(&self, error: &KuboError) -> OpenError {
        self.wake.notify_one();
        OpenError::CarrierDown(error.to_string())
    }

    /// Makes every wanted forward be there, on its port; on another one where somebody has taken it.
    pub(super) async fn mend_forwards(
        &self,
        ledger: &mut Ledger,
        listed: &[Mount],
    ) -> Result<(), KuboError> {
        let wanted = hold(&self.forwards).wanted();
        for (key, port) in wanted {
            let is_up = listed.contains(&Mount::forward(&key.0, &key.1, port));
            hold(&self.forwards).set_up(&key, port, is_up);
            if is_up {
                continue;
            }
            match self.establish(ledger, &key, Some(port)).await {
                Ok(_) => {}
                // The others may still do.
                Err(error @ (KuboError::Status { .. } | KuboError::NoPort(_))) => {
                    tracing::warn!(peer = %key.0, service = %key.1, %error, "cannot forward");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn establish(
        &self,
        ledger: &mut Ledger,
        key: &Key,
        mut remembered: Option<u16>,
    ) -> Result<u16, KuboError> {
        let mut last = KuboError::NoPort("all that were tried are taken".to_owned());
        for _ in 0..PORT_TRIES {
            let (port, removed) = {
                let mut forwards = hold(&self.forwards);
                let port = match remembered.take() {
                    Some(port) => port,
                    None => forwards
                        .free_port(&self.random)
                        .map_err(|error| KuboError::NoPort(error.to_string()))?,
                };
                (port, forwards.want(key.clone(), port))
            };
            if let Some(((peer, service), port)) = removed {
                self.close(ledger, &[Mount::forward(&peer, &service, port)])
                    .await?;
            }
            let mount = Mount::forward(&key.0, &key.1, port);
            ledger.opening(mount.clone(), self.ports()).await;
            match self.rpc.forward(&mount).await {
                Ok(()) => {
                    hold(&self.forwards).set_up(key, port, true);
                    return Ok(port);
                }
                Err(error @ KuboError::Status { .. }) => {
                    ledger
                        .closed(std::slice::from_ref(&mount), self.ports())
                        .await;
                    if !error.to_string().contains("in use") {
                        return Err(error);
                    }
                    last = error;
                }
                // It may have been done all the same: it stays in the ledger, and the next look tells.
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Closes what we opened. What kubo does not have any more is no error.
    pub(super) async fn close(
        &self,
        ledger: &mut Ledger,
        mounts: &[Mount],
    ) -> Result<(), KuboError> {
        for mount in mounts {
            self.rpc.close(mount).await?;
        }
        ledger.closed(mounts, self.ports()).await;
        Ok(())
    }

    /// As the ledger writes them down.
    pub(super) fn ports(&self) -> Vec<(Key, u16)> {
        hold(&self.forwards).by_use()
    }
}

/// Whether kubo says that it does not know where a station is.
fn is_unknown(message: &str) -> bool {
    [
        "routing: not found",
        "failed to find any peer",
        "no addresses",
    ]
    .iter()
    .any(|words| message.contains(words))
}
