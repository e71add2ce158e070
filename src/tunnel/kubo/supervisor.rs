//! Compares, every two seconds, what kubo has with what it should have, and mends it.
//!
//! kubo forgets forwards and listeners when it restarts, and others tell it to close them all; both happen daily. Takes
//! the guest list and the wishes in [`Shared`]; gives the carrier's state. Invariant: after a look that succeeded, every
//! wanted forward and every exposed service is there, or the state says what stands in its way. A listener that somebody
//! else made for one of our services is reported, not touched. That kubo has ended is noticed at once, by a connection
//! on which nothing is said: the ports of its forwards are anybody's then. Worst case: a kubo that hangs costs one
//! request in ten seconds; one that is back is noticed within five.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::callers::Callers;
use super::connections::links;
use super::doors::{Door, Entrance};
use super::ledger::Ledger;
use super::places::Places;
use super::rpc::{Daemon, KuboError, Mount};
use super::shared::{Shared, hold};
use crate::limits::CONNECT_DEADLINE;
use crate::tasks::TaskGroup;
use crate::tunnel::{CarrierState, GuestList, LinkState, PeerId, ServiceName};

/// Between two looks: three small requests, some milliseconds of kubo's time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest between two looks at a kubo that does not answer: all must be back ten seconds after its return.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
/// Between two looks at least, however often it is woken.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long closing what we opened may hold up the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Keeps kubo as it should be.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) entrance: Arc<Entrance>,
    pub(super) callers: Arc<Callers>,
    pub(super) doors: BTreeMap<ServiceName, Door>,
    pub(super) state: watch::Sender<Arc<CarrierState>>,
    pub(super) guests: watch::Receiver<Arc<GuestList>>,
    pub(super) tasks: TaskGroup,
    /// Dials, and what must not wait for kubo. They end with the supervisor.
    pub(super) helpers: TaskGroup,
    /// What stood in the way at the last look.
    pub(super) problem: Option<String>,
    pub(super) has_looked: bool,
    /// A connection with kubo on which nothing is said.
    pub(super) tether: Option<TcpStream>,
}

impl Supervisor {
    /// Looks until told to end by either token, then closes what we opened.
    pub(super) async fn run(mut self, ending: CancellationToken, station: CancellationToken) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = ending.cancelled() => break,
                () = station.cancelled() => break,
                () = sleep(pause) => self.tie().await,
                () = broken(&mut self.tether) => {}
                () = self.shared.wake.notified() => {}
                changed = self.guests.changed() => {
                    if changed.is_err() {
                        break; // nobody is there to say who may enter
                    }
                }
            }
            pause = match self.look().await {
                Ok(()) => LOOK_EVERY,
                Err(_) => (pause * 3 / 2).min(LOOK_EVERY_MAX),
            };
            sleep(LOOK_PAUSE).await;
        }
        if timeout(CLOSE_DEADLINE, self.close()).await.is_err() {
            tracing::warn!("kubo does not close what we opened; the next start does");
        }
        self.helpers.end().await;
        for door in std::mem::take(&mut self.doors).into_values() {
            door.close().await;
        }
    }

    /// Keeps a connection that breaks when kubo ends. Only at regular turns: should kubo not bear it, little is lost.
    async fn tie(&mut self) {
        if self.tether.is_none() {
            let api = self.shared.rpc.api().authority();
            let tied = timeout(LOOK_PAUSE, TcpStream::connect(api)).await;
            self.tether = tied.ok().and_then(Result::ok);
        }
    }

    /// Looks once, mends, and tells.
    pub(super) async fn look(&mut self) -> Result<(), KuboError> {
        let guests = Arc::clone(&self.guests.borrow_and_update());
        self.entrance.sweep();
        self.shared
            .places
            .cut_unless(|peer, entered| match entered {
                Some(service) => guests.admit(peer, service).is_ok(),
                None => !guests.banned.contains(peer),
            });
        let looked = Box::pin(self.mend(&guests)).await;
        let state = match &looked {
            Ok((daemon, links, straight)) => {
                hold(&self.shared.down).take();
                let problem = (!straight.is_empty()).then(|| straight.join("; "));
                self.tell_problem(problem);
                self.dial(&guests);
                CarrierState {
                    addresses: daemon.addresses.clone(),
                    links: self.with_streams(links),
                    ..self.told()
                }
            }
            Err(error) => {
                *hold(&self.shared.down) = Some(error.to_string());
                hold(&self.shared.connections).set_connected(BTreeSet::new());
                self.tell_problem(Some(error.to_string()));
                CarrierState {
                    addresses: Vec::new(),
                    links: BTreeMap::new(),
                    ..self.told()
                }
            }
        };
        self.state.send_if_modified(|before| {
            let has_changed = **before != state;
            *before = Arc::new(state);
            has_changed
        });
        looked.map(drop)
    }

    async fn mend(
        &mut self,
        guests: &GuestList,
    ) -> Result<(Daemon, BTreeMap<PeerId, LinkState>, Vec<String>), KuboError> {
        let shared = Arc::clone(&self.shared);
        let daemon = shared.rpc.daemon().await?;
        if daemon.peer != shared.peer {
            return Err(KuboError::OtherIdentity {
                before: Box::new(shared.peer),
                now: Box::new(daemon.peer),
            });
        }
        if self.problem.is_some() || !self.has_looked {
            self.callers.look_up_kubo().await;
        }
        let straight = {
            // Held while looking as well: what a call opens meanwhile would be taken for missing.
            let mut ledger = shared.ledger.lock().await;
            let listed = shared.rpc.mounts().await?;
            *hold(&shared.mouths) = listed.iter().filter_map(Mount::local_port).collect();
            shared.mend_forwards(&mut ledger, &listed).await?;
            self.mend_listeners(&mut ledger, &listed, guests).await?
        };
        let connections = shared.rpc.connections().await?;
        let connected = connections
            .iter()
            .filter_map(|connection| connection.peer.parse().ok())
            .collect();
        let links = {
            let mut table = hold(&shared.connections);
            table.set_connected(connected);
            let kept = table.kept();
            links(&connections, |peer| {
                kept.contains(peer) || guests.admitted.contains(peer)
            })
        };
        self.has_looked = true;
        Ok((daemon, links, straight))
    }

    /// Has every exposed service lead to a door of ours, and no other. Gives what others have in its place.
    async fn mend_listeners(
        &mut self,
        ledger: &mut Ledger,
        listed: &[Mount],
        guests: &GuestList,
    ) -> Result<Vec<String>, KuboError> {
        let shared = Arc::clone(&self.shared);
        let hidden: Vec<ServiceName> = self
            .doors
            .keys()
            .filter(|service| !guests.services.contains_key(*service))
            .cloned()
            .collect();
        for service in hidden {
            if let Some(door) = self.doors.remove(&service) {
                let mount = Mount::listener(&shared.peer, &service, door.port);
                // Without the door nobody enters, whether or not kubo obeys.
                door.close().await;
                if ledger.has(&mount) {
                    shared.close(ledger, &[mount]).await?;
                }
            }
        }
        let mut straight = Vec::new();
        for service in guests.services.keys() {
            let port = self.door(service, ledger.door(service)).await?;
            ledger.remember_door(service, port);
            let mount = Mount::listener(&shared.peer, service, port);
            let there = listed
                .iter()
                .find(|there| there.is_listener() && there.protocol == mount.protocol);
            match there {
                Some(there) if *there == mount => continue,
                Some(ours) if ledger.has(ours) => {
                    shared.close(ledger, std::slice::from_ref(ours)).await?;
                }
                Some(foreign) => {
                    straight.push(enters_straight(service, foreign));
                    continue;
                }
                None => {}
            }
            ledger.opening(mount.clone(), shared.ports()).await;
            match shared.rpc.listen(&mount).await {
                Ok(()) => {}
                // Somebody else was quicker; the next look tells who.
                Err(error @ KuboError::Status { .. }) => {
                    ledger.closed(&[mount], shared.ports()).await;
                    straight.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(straight)
    }

    /// The private port of a service: if it can be had, the one of `before`.
    async fn door(&mut self, service: &ServiceName, before: Option<u16>) -> Result<u16, KuboError> {
        if let Some(door) = self.doors.get(service) {
            return Ok(door.port);
        }
        let door = Door::open(service, before, &self.entrance, &self.tasks)
            .await
            .map_err(|error| KuboError::NoPort(error.to_string()))?;
        let port = door.port;
        self.doors.insert(service.clone(), door);
        Ok(port)
    }

    /// Has kubo connect with those that are kept and away.
    fn dial(&self, guests: &GuestList) {
        let now = self.shared.clock.monotonic();
        let may_dial = |peer: &PeerId| !guests.banned.contains(peer);
        let due = hold(&self.shared.connections).due(now, may_dial);
        for (peer, addresses) in due {
            let shared = Arc::clone(&self.shared);
            let dialling = async move {
                let connected = shared.rpc.connect(&peer, &addresses, CONNECT_DEADLINE);
                let connected = connected.await;
                if let Err(error) = &connected {
                    tracing::debug!(%peer, %error, "not connected");
                }
                let now = shared.clock.monotonic();
                hold(&shared.connections).dialled(&peer, connected.is_ok(), now);
                if connected.is_ok() {
                    shared.wake.notify_one();
                }
            };
            if self.helpers.spawn(dialling).is_err() {
                hold(&self.shared.connections).dialled(&peer, false, now);
            }
        }
    }

    /// Links with the streams open on them, and since when they have been there.
    fn with_streams(&self, links: &BTreeMap<PeerId, LinkState>) -> BTreeMap<String, LinkState> {
        let open = self.shared.places.open();
        let now = self.shared.clock.unix_seconds();
        let before = Arc::clone(&self.state.borrow());
        let seen = |(peer, link): (&PeerId, &LinkState)| {
            let name = peer.to_string();
            let streams = open.get(peer).copied().unwrap_or_default();
            let link = LinkState {
                streams_out: streams.outbound,
                streams_in: streams.inbound,
                since: before.links.get(&name).map_or(now, |link| link.since),
                ..link.clone()
            };
            (name, link)
        };
        links.iter().map(seen).collect()
    }

    /// What does not depend on kubo.
    fn told(&self) -> CarrierState {
        CarrierState {
            accepted: self.entrance.accepted(),
            refused: self.entrance.refused(),
            problem: self.problem.clone(),
            ..CarrierState::clone(&self.state.borrow())
        }
    }

    /// Logs what stands in the way when it changes.
    fn tell_problem(&mut self, problem: Option<String>) {
        if self.problem != problem {
            match &problem {
                Some(problem) => tracing::warn!(%problem, "kubo"),
                None => tracing::info!("kubo is as it should be"),
            }
            self.problem = problem;
        }
    }

    /// Closes what we opened, and nothing else.
    async fn close(&self) {
        let mut ledger = self.shared.ledger.lock().await;
        let opened = ledger.opened();
        if let Err(error) = self.shared.close(&mut ledger, &opened).await {
            tracing::warn!(%error, "not everything that we opened in kubo is closed; the next start does it");
        }
    }
}

/// Cuts the streams of those whom a new guest list does not admit. It does not wait for kubo: it may hang just then.
pub(super) async fn cut_who_left(places: Arc<Places>, mut guests: watch::Receiver<Arc<GuestList>>) {
    while guests.changed().await.is_ok() {
        let list = Arc::clone(&guests.borrow_and_update());
        places.cut_unless(|peer, entered| match entered {
            Some(service) => list.admit(peer, service).is_ok(),
            None => !list.banned.contains(peer),
        });
    }
}

/// Waits until kubo ends, or ends this connection.
async fn broken(tether: &mut Option<TcpStream>) {
    let Some(stream) = tether else {
        return std::future::pending().await;
    };
    // kubo has nothing to say here: whatever comes is the end.
    let _ = stream.read(&mut [0]).await;
    *tether = None;
}

/// What the captain must know of a listener that is not ours.
fn enters_straight(service: &ServiceName, foreign: &Mount) -> String {
    let Mount {
        protocol, target, ..
    } = foreign;
    format!(
        "anyone may enter {service}: kubo has a listener that is not ours and leads straight to {target}; close it with: ipfs p2p close --protocol {protocol} --target-address {target}"
    )
}
