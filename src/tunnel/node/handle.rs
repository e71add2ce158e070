//! A node, as the rest of the program holds it.
//!
//! [`Node::start`] listens, then hands the swarm to its driver; from then on everything goes through bounded channels.
//! Invariant: when it returns, the addresses are known. Deliberately absent: supervision of what streams carry. Worst
//! case: a stream that cannot be opened costs its deadline.

use std::collections::BTreeSet;
use std::io;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::core::upgrade::Version;
use libp2p::futures::StreamExt;
use libp2p::pnet::PnetConfig;
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{Swarm, TransportError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::addresses::{AddressBook, KnownAddress, SharedBook, opened};
use super::behaviour::Behaviour;
use super::driver::{Command, Driver, Ends};
use super::ending::{ENDED, to_the_end};
use super::gate::ESTABLISHED_MAX;
use super::options::{NodeOptions, OptionsError};
use super::probe::probe;
use super::streams::{Door, OpenFailure, OpenRequest, Tunnelled};
use super::transport;
use crate::random::Random;
use crate::tasks::{GroupFull, TaskGroup};
use crate::time::Clock;
use crate::tunnel::{
    Carrier, CarrierKind, CarrierState, Found, GuestList, Identity, InboundStream, Multiaddr,
    OpenError, Opening, PeerId, ServiceName, Source,
};

/// Inbound streams that nobody has taken yet.
const INBOUND_QUEUE: usize = 4_096;
/// Stations found that nobody has taken yet.
const FOUND_QUEUE: usize = 256;
/// Requests that the driver has not taken yet.
const COMMAND_QUEUE: usize = 4_096;
/// Peers that are to be disconnected since they knock too often.
const WEARY_QUEUE: usize = 64;
/// Streams that a connection may be negotiating with its peer: as many as it bears, since more are reset.
const NEGOTIATING_MAX: usize = 4_096;
/// How long a connection without streams stays, unless its station is admitted or wanted: those stay.
const IDLE_DEADLINE: Duration = Duration::from_secs(120);
/// How long listening may take to begin.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// Tasks of connections: one for each, one for each that is being made, with some to spare.
const CONNECTION_TASKS_MAX: usize = 2 * ESTABLISHED_MAX as usize;
/// Events that the swarm keeps for a connection that is busy.
const NOTIFY_BUFFER: usize = 64;
/// Addresses of a peer that are dialled at the same time.
const DIAL_AT_ONCE: u8 = 8;
/// How often a stream is asked for again when the peer declines it or the connection is lost: kubo declines what it
/// offers when it is overloaded.
const RETRIES: u32 = 2;
/// The pause before the first of them; twice that before the next.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The options contradict themselves.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The identity cannot be used.
    #[error("this identity cannot prove itself: {0}")]
    Identity(String),
    /// It cannot listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The station is ending, or has too many tasks.
    #[error(transparent)]
    Tasks(#[from] GroupFull),
}

/// A node that runs.
#[derive(Debug)]
pub struct NodeStarted {
    /// The carrier.
    pub node: Arc<Node>,
    /// Streams that others opened, and that were let in.
    pub inbound: mpsc::Receiver<InboundStream>,
    /// Stations that it has come across.
    pub found: mpsc::Receiver<Found>,
}

/// Our own libp2p node. It ends when it is dropped, or when its task group ends.
#[derive(Debug)]
pub struct Node {
    local: PeerId,
    commands: mpsc::Sender<Command>,
    kept: watch::Sender<Arc<BTreeSet<PeerId>>>,
    relays: watch::Sender<Arc<Vec<PeerId>>>,
    meeting: watch::Sender<Option<[u8; 32]>>,
    state: watch::Receiver<Arc<CarrierState>>,
    book: SharedBook,
}

impl Node {
    /// Listens, and begins.
    ///
    /// Cancel safe: dropping it closes what was begun.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(
        identity: &Identity,
        options: NodeOptions,
        guests: watch::Receiver<Arc<GuestList>>,
        clock: Clock,
        random: Random,
        tasks: &TaskGroup,
    ) -> Result<NodeStarted, NodeError> {
        options.check()?;
        let keypair = identity.keypair();
        let local = keypair.public().to_peer_id();
        let (inbound, inbound_streams) = mpsc::channel(INBOUND_QUEUE);
        let (weary, weary_peers) = mpsc::channel(WEARY_QUEUE);
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (found, found_stations) = mpsc::channel(FOUND_QUEUE);
        let (kept, kept_peers) = watch::channel(Arc::default());
        let (relays, offered_relays) = watch::channel(Arc::default());
        let (meeting, meeting_changes) = watch::channel(options.rendezvous);
        let (publish, state) = watch::channel(Arc::new(CarrierState::new(CarrierKind::Libp2p)));
        let door = Door::new(local, guests.clone(), inbound, weary, clock.clone());
        let door = Arc::new(door);
        let book: SharedBook = Arc::new(Mutex::new(AddressBook::restore(&options.known)));

        let key = options.swarm_key.as_ref();
        let key = key.map(|key| PnetConfig::new(key.pre_shared()));
        let (transport, relay_client) =
            transport::build(keypair, key, options.memory_transport, &door)
                .map_err(|error| NodeError::Identity(error.to_string()))?;
        let behaviour = Behaviour::new(
            keypair,
            &options,
            &door,
            Arc::clone(&book),
            &clock,
            relay_client,
        );
        let swarm = Swarm::new(transport, behaviour, local, swarm_config(tasks));
        let ends = Ends {
            commands: command_queue,
            kept: kept_peers,
            relays: offered_relays,
            meeting: meeting_changes,
            guests,
            weary: weary_peers,
            found,
            state: publish.clone(),
        };
        let mut driver = Driver::new(
            swarm,
            ends,
            door,
            Arc::clone(&book),
            &options,
            clock,
            random,
        );
        listen(&mut driver, &options).await?;
        driver.publish();
        tasks.spawn(to_the_end(Box::pin(driver.run()), publish))?;
        let node = Self {
            local,
            commands,
            kept,
            relays,
            meeting,
            state,
            book,
        };
        Ok(NodeStarted {
            node: Arc::new(node),
            inbound: inbound_streams,
            found: found_stations,
        })
    }

    /// All known addresses of stations, to be given to the next start.
    pub fn addresses(&self) -> Vec<KnownAddress> {
        opened(&self.book).snapshot()
    }

    /// Admitted stations that offer to relay, those to be asked first first. A station that nobody beyond its own network
    /// can be expected to reach asks some of them for a place.
    pub fn use_relays(&self, relays: Arc<Vec<PeerId>>) {
        self.relays.send_replace(relays);
    }

    /// Under which hash stations meet in the hash table from now on: this one has left for another constellation.
    pub fn meet_under(&self, hash: [u8; 32]) {
        self.meeting
            .send_if_modified(|meeting| meeting.replace(hash) != Some(hash));
    }

    async fn try_open(&self, peer: PeerId, service: &ServiceName) -> Result<Tunnelled, OpenError> {
        let ended = || OpenError::CarrierDown(ENDED.to_owned());
        let mut retries = 0;
        loop {
            let (reply, answer) = oneshot::channel();
            let request = OpenRequest {
                service: service.clone(),
                reply,
            };
            self.commands
                .send(Command::Open(peer, request))
                .await
                .map_err(|_| ended())?;
            let failure = match answer.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failure)) => failure,
                Err(_) if self.commands.is_closed() => return Err(ended()),
                // The connection has closed with the request in it.
                Err(_) => OpenFailure::Lost,
            };
            let again = matches!(failure, OpenFailure::Declined | OpenFailure::Lost);
            if !again || retries >= RETRIES {
                return Err(open_error(peer, service, failure));
            }
            sleep(RETRY_PAUSE * 2_u32.pow(retries)).await;
            retries += 1;
        }
    }
}

fn open_error(peer: PeerId, service: &ServiceName, failure: OpenFailure) -> OpenError {
    let unreachable = |detail: &str| OpenError::Unreachable {
        peer,
        detail: detail.to_owned(),
    };
    match failure {
        OpenFailure::NoAddress => OpenError::NoAddress(peer),
        OpenFailure::Unreachable(detail) => OpenError::Unreachable { peer, detail },
        OpenFailure::Declined => OpenError::NotOffered {
            peer,
            service: service.clone(),
        },
        OpenFailure::Lost => unreachable("the connection was lost"),
        OpenFailure::Silent => OpenError::Timeout,
        OpenFailure::TooMany => unreachable("too many streams are open, or waiting to be opened"),
    }
}

impl Carrier for Node {
    fn peer_id(&self) -> PeerId {
        self.local
    }

    fn open<'c>(
        &'c self,
        peer: PeerId,
        service: &'c ServiceName,
        deadline: Duration,
    ) -> Opening<'c> {
        Box::pin(async move {
            if peer == self.local {
                let detail = "that is this station itself".to_owned();
                return Err(OpenError::Unreachable { peer, detail });
            }
            match timeout(deadline, self.try_open(peer, service)).await {
                Ok(Ok(stream)) => Ok(Box::new(stream) as crate::peer::ByteStream),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(OpenError::Timeout),
            }
        })
    }

    fn learn(&self, peer: PeerId, addresses: &[Multiaddr], source: Source) {
        if peer == self.local {
            return;
        }
        let mut news = false;
        for address in addresses {
            news |= opened(&self.book).learn(peer, address, source);
        }
        if news && self.commands.try_send(Command::Learnt(peer)).is_err() {
            // A driver with so much to do dials it a little later, when its pause is over.
            tracing::debug!(%peer, "not dialled at once");
        }
    }

    fn keep(&self, mut peers: BTreeSet<PeerId>) {
        peers.remove(&self.local);
        self.kept.send_replace(Arc::new(peers));
    }

    fn state(&self) -> watch::Receiver<Arc<CarrierState>> {
        self.state.clone()
    }
}

fn swarm_config(tasks: &TaskGroup) -> swarm::Config {
    let connections = tasks.child(CONNECTION_TASKS_MAX);
    let spawn = move |task| {
        if connections.spawn(task).is_err() {
            // Ending; or more connections than the gate lets through, which cannot be.
            tracing::debug!("no task for a connection");
        }
    };
    swarm::Config::with_executor(spawn)
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        .with_idle_connection_timeout(IDLE_DEADLINE)
        .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(NOTIFY_BUFFER - 1))
        .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(DIAL_AT_ONCE - 1))
}

/// Listens everywhere, and waits until each place has an address.
async fn listen(driver: &mut Driver, options: &NodeOptions) -> Result<(), NodeError> {
    for address in &options.external {
        driver.swarm.add_external_address(address.clone());
    }
    for address in &options.listen {
        let failed = |source| NodeError::Listen {
            address: address.clone(),
            source,
        };
        // libp2p shares ports, so that another program there would go unnoticed.
        probe(address).map_err(failed)?;
        let listener = driver
            .swarm
            .listen_on(address.clone())
            .map_err(|error| failed(io_error(error)))?;
        let now = Instant::now();
        driver.listeners.made(address.clone(), listener, now);
        let began = async {
            loop {
                let event = driver.swarm.select_next_some().await;
                let began = match &event {
                    SwarmEvent::NewListenAddr { listener_id, .. } => *listener_id == listener,
                    SwarmEvent::ListenerClosed { listener_id, .. } if *listener_id == listener => {
                        return Err(io::Error::other("closed at once"));
                    }
                    _ => false,
                };
                driver.on_event(event);
                if began {
                    return Ok(());
                }
            }
        };
        match timeout(LISTEN_DEADLINE, began).await {
            Ok(began) => began.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }
    Ok(())
}

fn io_error(error: TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => io::Error::new(
            io::ErrorKind::Unsupported,
            "expected /ip4/…/tcp/PORT or /ip4/…/udp/PORT/quic-v1",
        ),
        TransportError::Other(error) => error,
    }
}
