//! [`KuboCarrier`]: opens streams through kubo's forwards, and starts and ends what serves the others.
//!
//! Takes where kubo answers, who may enter, and a file to remember in; gives a [`Carrier`] and the streams that stations
//! open. Invariant: it opens nothing in kubo that it has not written down, and closes nothing else. A stream that cannot
//! be opened at the other end is accepted by kubo and then closed: whoever reads finds its end at once, which is also
//! what [`OpenError::NotOffered`](crate::tunnel::OpenError) looks like here. When kubo ends, another program may take
//! the port of a forward: in the moment until the end is noticed, whoever opens a stream would speak to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::KuboApi;
use super::callers::Callers;
use super::connections::{Connections, DIALS_MAX};
use super::doors::{Entrance, QUEUE};
use super::forwards::{FORWARDS_MAX, Forwards};
use super::ledger::Ledger;
use super::places::PlacedStream;
use super::rpc::{KuboError, Rpc};
use super::shared::{Shared, hold};
use super::supervisor::{Supervisor, cut_who_left};
use crate::peer::ByteStream;
use crate::random::Random;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::{
    Carrier, CarrierKind, CarrierState, GuestList, InboundStream, Multiaddr, OpenError, Opening,
    PeerId, ServiceName, Source,
};

/// The supervisor. What it starts has groups of its own, which it ends.
const TASKS_MAX: usize = 1;
/// Its dials, and the task that cuts the streams of those who left.
const HELPERS_MAX: usize = DIALS_MAX + 1;
/// Attempts to reach a forward's port: as remembered, and once more after having made kubo listen.
const PORT_ATTEMPTS: usize = 2;

/// A kubo daemon that carries our streams.
#[derive(Debug)]
pub struct KuboCarrier {
    shared: Arc<Shared>,
    state: watch::Receiver<Arc<CarrierState>>,
    ending: CancellationToken,
    tasks: TaskGroup,
}

impl KuboCarrier {
    /// Starts with the kubo that answers at `api`: closes what an earlier start left behind, opens a listener for each
    /// service of `guests`, and keeps both as they should be until [`close`](Self::close) or until `tasks` is
    /// cancelled. `memory` is a file of ours; its folder must be there. Gives also the streams that stations open; what
    /// is not taken from there in time is refused.
    ///
    /// Not cancel safe: what was opened until then stays until the next start.
    ///
    /// # Errors
    /// [`KuboError`]: kubo does not answer, or is not set up for streams.
    pub async fn start(
        api: KuboApi,
        guests: watch::Receiver<Arc<GuestList>>,
        memory: &Path,
        clock: Clock,
        random: Random,
        tasks: &TaskGroup,
    ) -> Result<(Self, mpsc::Receiver<InboundStream>), KuboError> {
        let rpc = Rpc::new(api);
        let daemon = rpc.daemon().await?;
        let listed = rpc.mounts().await?;
        let (mut ledger, ports) = Ledger::load(memory).await;
        let mut forwards = Forwards::default();
        // Those used last are the ones to remember, should there be too many.
        let excess = ports.len().saturating_sub(FORWARDS_MAX);
        for (key, port) in ports.into_iter().skip(excess) {
            forwards.remember(key, port);
        }
        let left = ledger.opened();
        for mount in left.iter().filter(|mount| listed.contains(mount)) {
            rpc.close(mount).await?;
        }
        ledger.closed(&left, forwards.by_use()).await;
        let shared = Arc::new(Shared {
            peer: daemon.peer,
            guests: guests.clone(),
            clock,
            random,
            places: Arc::default(),
            ledger: tokio::sync::Mutex::new(ledger),
            wake: Notify::new(),
            forwards: Mutex::new(forwards),
            connections: Mutex::new(Connections::default()),
            dialled: Mutex::default(),
            mouths: Mutex::default(),
            down: Mutex::new(None),
            rpc,
        });
        let callers = Arc::new(Callers::new(shared.rpc.api().clone()));
        let (queue, inbound) = mpsc::channel(QUEUE);
        let places = Arc::clone(&shared.places);
        let entrance = Entrance::new(
            guests.clone(),
            places,
            Arc::clone(&callers),
            queue,
            shared.clock.clone(),
        );
        let (state, seen) = watch::channel(Arc::new(CarrierState::new(CarrierKind::Kubo)));
        // Not a child of the station's: closing what we opened takes a moment after that one was cancelled.
        let own_tasks = TaskGroup::new(TASKS_MAX);
        let helpers = own_tasks.child(HELPERS_MAX);
        helpers
            .spawn(cut_who_left(Arc::clone(&shared.places), guests.clone()))
            .map_err(|_| KuboError::Ending)?;
        let mut supervisor = Supervisor {
            shared: Arc::clone(&shared),
            entrance: Arc::new(entrance),
            callers,
            doors: BTreeMap::new(),
            state,
            guests,
            tasks: own_tasks.clone(),
            helpers,
            problem: None,
            has_looked: false,
            tether: None,
        };
        // Listeners are there when this returns; what cannot be done now is tried again.
        if let Err(error) = supervisor.look().await {
            tracing::warn!(%error, "kubo stopped answering");
        }
        let ending = CancellationToken::new();
        let supervising = supervisor.run(ending.clone(), tasks.token().clone());
        own_tasks
            .spawn(supervising)
            .map_err(|_| KuboError::Ending)?;
        let carrier = Self {
            shared,
            state: seen,
            ending,
            tasks: own_tasks,
        };
        Ok((carrier, inbound))
    }

    /// Closes in kubo what we opened there, and ends. Streams that are open go on. Takes at most some seconds.
    ///
    /// Cancel safe: the closing goes on unless the carrier is dropped.
    pub async fn close(&self) {
        self.ending.cancel();
        self.tasks.drain().await;
    }

    async fn open_now(&self, peer: PeerId, service: &ServiceName, deadline: Duration) -> Opened {
        self.shared.is_up()?;
        if self.shared.guests.borrow().banned.contains(&peer) {
            let detail = "it is banned here".to_owned();
            return Err(OpenError::Unreachable { peer, detail });
        }
        self.shared.connect(peer, deadline).await?;
        let key = (peer, service.clone());
        let mut refused = String::new();
        for _ in 0..PORT_ATTEMPTS {
            let port = self.shared.forward(&key).await?;
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(stream) => {
                    // Without it small messages wait for acknowledgements; where it cannot be had they do.
                    let _ = stream.set_nodelay(true);
                    let place = self.shared.places.outbound(peer);
                    return Ok(Box::new(PlacedStream::new(stream, place)));
                }
                Err(error) => {
                    refused = error.to_string();
                    hold(&self.shared.forwards).set_up(&key, port, false);
                    self.shared.wake.notify_one();
                }
            }
        }
        let api = self.shared.rpc.api();
        Err(OpenError::CarrierDown(format!(
            "kubo at {api} does not listen where it should: {refused}"
        )))
    }
}

type Opened = Result<ByteStream, OpenError>;

impl Drop for KuboCarrier {
    /// Ends at once, as a crash would: what was opened is closed by the next start.
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Carrier for KuboCarrier {
    fn peer_id(&self) -> PeerId {
        self.shared.peer
    }

    fn open<'c>(
        &'c self,
        peer: PeerId,
        service: &'c ServiceName,
        deadline: Duration,
    ) -> Opening<'c> {
        Box::pin(async move {
            let opened = timeout(deadline, self.open_now(peer, service, deadline)).await;
            opened.unwrap_or(Err(OpenError::Timeout))
        })
    }

    fn learn(&self, peer: PeerId, addresses: &[Multiaddr], _source: Source) {
        let mut connections = hold(&self.shared.connections);
        if connections.learn(peer, addresses) && connections.kept().contains(&peer) {
            self.shared.wake.notify_one();
        }
    }

    fn keep(&self, peers: BTreeSet<PeerId>) {
        if hold(&self.shared.connections).keep(peers) {
            self.shared.wake.notify_one();
        }
    }

    fn mouths(&self) -> BTreeSet<u16> {
        hold(&self.shared.mouths).clone()
    }

    fn state(&self) -> watch::Receiver<Arc<CarrierState>> {
        self.state.clone()
    }
}
