//! What all connections of the relay share, and what is known of the other end of one.
//!
//! Gives connections their way into the store: [`RelayContext::read`] runs a slice off the runtime, when its turn
//! has come. Options and scope are watched, so that both may change while the relay runs.

use std::net::SocketAddr;
use std::sync::Arc;

use constellation_eventstore::{Store, StoreError};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::adhoc::Hoard;
use super::bounds::{CLOSING_DEADLINE, READS_AT_ONCE_MAX};
use super::filter_memory::FilterMemory;
use super::links::AcceptedLinks;
use super::options::RelayOptions;
use super::stranger_turns::StrangerTurns;
use crate::ingest::{Ingest, Scope};
use crate::limits::{NEG_ADHOC_IDS_MAX, NEG_ADHOC_IDS_TOTAL};
use crate::peer::{PeerId, Visitors};
use crate::plugin::Plugin;
use crate::random::Random;
use crate::recent_ids::BroughtByPeers;
use crate::time::Clock;

/// Who is at the other end of a byte stream, as far as whoever accepted it knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteParty {
    /// The other end's address, if it has one.
    pub address: Option<SocketAddr>,
    /// Our address on which it reached us, if it did over IP.
    pub reached_at: Option<SocketAddr>,
    /// Whether it is on this machine. False for everything that comes through a tunnel.
    pub loopback: bool,
    /// The PeerID of the admitted station whose tunnel this is.
    pub admitted_station: Option<String>,
}

impl RemoteParty {
    /// The other end of a TCP connection.
    pub fn of_tcp(address: SocketAddr, reached_at: Option<SocketAddr>) -> Self {
        Self {
            address: Some(address),
            reached_at,
            loopback: address.ip().to_canonical().is_loopback(),
            admitted_station: None,
        }
    }

    /// An admitted station, through its tunnel.
    pub fn station(peer_id: impl Into<String>) -> Self {
        Self {
            admitted_station: Some(peer_id.into()),
            ..Self::default()
        }
    }

    /// Whether it may read everything and is exempt from rates.
    pub(super) fn is_trusted(&self) -> bool {
        self.loopback || self.admitted_station.is_some()
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionEnd {
    /// It was no WebSocket: one request, answered.
    #[error("answered over HTTP")]
    Answered,
    /// Its address had as many connections as it may.
    #[error("too many connections from this address")]
    AddressFull,
    /// The client left.
    #[error("the client left")]
    Left,
    /// The relay is closing.
    #[error("the relay is closing")]
    Closing,
    /// No complete HTTP request, or no reader for its answer, in time.
    #[error("no request in time")]
    RequestTimeout,
    /// What came was not HTTP, or no WebSocket handshake.
    #[error("handshake: {0}")]
    Handshake(String),
    /// The client took nothing for too long.
    #[error("the client does not read")]
    SlowReader,
    /// The client sent too much that is no message.
    #[error("too many malformed messages")]
    Malformed,
    /// The socket failed, or the client broke its protocol.
    #[error("socket: {0}")]
    Socket(String),
}

/// Why a read of the store gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime is shutting down, or the read panicked.
    #[error("the read was broken off")]
    BrokenOff,
}

/// What all connections share.
#[derive(Debug)]
pub struct RelayContext {
    pub(super) ingest: Ingest,
    pub(super) clock: Clock,
    pub(super) random: Random,
    options: watch::Receiver<Arc<RelayOptions>>,
    scope: watch::Receiver<Arc<Scope>>,
    pub(super) peer_id: watch::Receiver<PeerId>,
    pub(super) plugin: Option<Plugin>,
    pub(super) hoard: Arc<Hoard>,
    pub(super) links: Arc<AcceptedLinks>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) filters: Arc<FilterMemory>,
    pub(super) turns: StrangerTurns,
    pub(super) closing: CancellationToken,
    pub(super) visitors: Visitors,
    readers: Arc<Semaphore>,
    connections: watch::Sender<usize>,
}

impl RelayContext {
    /// A relay over the store behind `ingest`. `peer_id` is our own, for the information document.
    pub fn new(
        ingest: Ingest,
        clock: Clock,
        random: Random,
        options: watch::Receiver<Arc<RelayOptions>>,
        scope: watch::Receiver<Arc<Scope>>,
        peer_id: watch::Receiver<PeerId>,
    ) -> Self {
        // Twice the cores: a slice may wait for the disk.
        let readers = std::thread::available_parallelism()
            .map_or(4, |cores| cores.get().saturating_mul(2))
            .clamp(4, READS_AT_ONCE_MAX);
        Self {
            ingest,
            clock,
            random,
            options,
            scope,
            peer_id,
            plugin: None,
            hoard: Arc::new(Hoard::new(NEG_ADHOC_IDS_MAX, NEG_ADHOC_IDS_TOTAL)),
            links: Arc::default(),
            addresses: Arc::default(),
            filters: Arc::default(),
            // The other half of the readers is for slices, and for those whom we know.
            turns: StrangerTurns::new(readers / 2),
            closing: CancellationToken::new(),
            visitors: Visitors::default(),
            readers: Arc::new(Semaphore::new(readers)),
            connections: watch::Sender::new(0),
        }
    }

    /// The same relay, which tells there who reconciles with it.
    pub fn with_visitors(mut self, visitors: Visitors) -> Self {
        self.visitors = visitors;
        self
    }

    /// The same relay, whose live links know what exchanges brought.
    pub fn with_brought(mut self, brought: BroughtByPeers) -> Self {
        self.links = Arc::new(AcceptedLinks::knowing(brought));
        self
    }

    /// The same relay, which asks this plugin before it stores an event.
    pub fn with_plugin(mut self, plugin: Plugin) -> Self {
        self.plugin = Some(plugin);
        self
    }

    /// Takes no more connections, lets those there are answer what is due and say goodbye, and waits until they
    /// have ended: at most ten seconds. What is left then is its task group's to end.
    pub async fn close(&self) {
        self.closing.cancel();
        let mut alive = self.connections();
        // Twice: once for the answers that are due, once for the client to take them.
        if timeout(2 * CLOSING_DEADLINE, alive.wait_for(|alive| *alive == 0))
            .await
            .is_err()
        {
            tracing::info!(connections = *alive.borrow(), "some connections do not end");
        }
    }

    /// Live links that other stations opened.
    pub fn accepted_links(&self) -> Arc<AcceptedLinks> {
        Arc::clone(&self.links)
    }

    /// How many connections there are.
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.connections.subscribe()
    }

    /// The options as they are now.
    pub(super) fn options(&self) -> Arc<RelayOptions> {
        Arc::clone(&self.options.borrow())
    }

    /// The scope as it is now.
    pub(super) fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.scope.borrow())
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn enter(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.send_modify(|count| *count += 1);
        ConnectionGuard(Arc::clone(self))
    }

    /// Runs one slice of reading off the runtime. Dropping the future lets a slice that has begun run to its end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn read<T: Send + 'static>(
        &self,
        slice: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = Arc::clone(&self.readers)
            .acquire_owned()
            .await
            .map_err(|_| ReadError::BrokenOff)?;
        let store = self.ingest.store().clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            slice(&store)
        });
        Ok(reading.await.map_err(|_| ReadError::BrokenOff)??)
    }
}

/// One connection, counted.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<RelayContext>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
    }
}
