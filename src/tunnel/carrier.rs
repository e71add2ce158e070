//! What carries streams between stations: our own libp2p node, or a kubo daemon. The seam that tests replace.
//!
//! Takes a PeerID and the name of a service; gives a byte stream. What others open comes out of a bounded queue, with
//! the PeerID of whoever opened it proved by the carrier, and let in by the [`GuestList`](super::GuestList).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Multiaddr, PeerId, Refusal, ServiceName};
use crate::peer::ByteStream;

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nobody knows where this station is.
    #[error("no address is known of {0}")]
    NoAddress(PeerId),
    /// None of its addresses answers.
    #[error("cannot reach {peer}: {detail}")]
    Unreachable {
        /// The station.
        peer: PeerId,
        /// What was tried, and what came of it.
        detail: String,
    },
    /// It does not offer this service, at least not to us. kubo also says so when it is overloaded.
    #[error("{peer} does not offer {service} to us")]
    NotOffered {
        /// The station.
        peer: PeerId,
        /// The service.
        service: ServiceName,
    },
    /// Nothing came in time.
    #[error("timed out")]
    Timeout,
    /// The carrier is not there: a kubo that does not run, a station that ends.
    #[error("{0}")]
    CarrierDown(String),
}

impl OpenError {
    /// The name of [`Self::CarrierDown`].
    pub const CARRIER_DOWN_LABEL: &'static str = "carrier_down";

    /// A stable name for reports and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "no_address",
            Self::Unreachable { .. } => "unreachable",
            Self::NotOffered { .. } => "not_offered",
            Self::Timeout => "timeout",
            Self::CarrierDown(_) => Self::CARRIER_DOWN_LABEL,
        }
    }
}

/// A stream that a station opened to one of our services, and that was let in.
pub struct InboundStream {
    /// Who opened it, as the carrier has proved.
    pub peer: PeerId,
    /// What for.
    pub service: ServiceName,
    /// The bytes.
    pub stream: ByteStream,
}

impl std::fmt::Debug for InboundStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundStream")
            .field("peer", &self.peer)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// Where an address was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The captain named it.
    Static,
    /// A card.
    Card,
    /// Multicast on the local network.
    Mdns,
    /// The distributed hash table.
    Kademlia,
    /// The folder of an Astroport swarm.
    SwarmFolder,
    /// A connection with it.
    Connection,
}

impl Source {
    /// The name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Card => "card",
            Self::Mdns => "mdns",
            Self::Kademlia => "kademlia",
            Self::SwarmFolder => "swarm_folder",
            Self::Connection => "connection",
        }
    }
}

/// A station that the carrier has come across by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who.
    pub peer: PeerId,
    /// Where, as far as is known.
    pub addresses: Vec<Multiaddr>,
    /// How: [`Source::Mdns`] or [`Source::Kademlia`].
    pub source: Source,
}

/// How bytes go to a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// From station to station.
    Direct,
    /// Through a third one. It keeps trying to become direct.
    Relayed,
}

/// A connection with a station; the best, if there are several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkState {
    /// Direct or relayed.
    pub path: Path,
    /// The other end's address.
    pub address: String,
    /// Round-trip time, as last measured.
    pub rtt_ms: Option<f64>,
    /// Streams open that we opened.
    pub streams_out: u32,
    /// Streams open that it opened.
    pub streams_in: u32,
    /// Unix seconds since when there is this connection; beside kubo, since when the station is connected.
    pub since: u64,
}

/// Which carrier it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarrierKind {
    /// Our own libp2p node.
    Libp2p,
    /// A kubo daemon on this machine.
    Kubo,
}

/// What a carrier lets be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarrierState {
    /// Which one.
    pub kind: CarrierKind,
    /// Where others may reach us: what we listen on and what others say they see, without `/p2p/…`.
    pub addresses: Vec<String>,
    /// Connected stations.
    pub links: BTreeMap<String, LinkState>,
    /// Streams let in.
    pub accepted: u64,
    /// Streams not let in, by reason.
    pub refused: BTreeMap<Refusal, u64>,
    /// What the captain must mend; `None` if all is well.
    pub problem: Option<String>,
}

impl CarrierState {
    /// Of a carrier that has just begun.
    pub fn new(kind: CarrierKind) -> Self {
        Self {
            kind,
            addresses: Vec::new(),
            links: BTreeMap::new(),
            accepted: 0,
            refused: BTreeMap::new(),
            problem: None,
        }
    }
}

/// A stream on its way.
pub type Opening<'c> = Pin<Box<dyn Future<Output = Result<ByteStream, OpenError>> + Send + 'c>>;

/// Opens streams to stations.
pub trait Carrier: std::fmt::Debug + Send + Sync {
    /// Our PeerID, as others know us.
    fn peer_id(&self) -> PeerId;

    /// Opens a stream to a service of a station, connecting first if need be.
    ///
    /// Cancel safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open<'c>(
        &'c self,
        peer: PeerId,
        service: &'c ServiceName,
        deadline: Duration,
    ) -> Opening<'c>;

    /// Remembers where a station may be reached (bounded; what serves is tried first), and asks for its
    /// redialling if it is wanted.
    fn learn(&self, peer: PeerId, addresses: &[Multiaddr], source: Source);

    /// Which stations to stay connected with: a connection that ends is made again, with growing pauses of at most ten
    /// seconds, cut short when a new address is learnt or the network changes.
    fn keep(&self, peers: BTreeSet<PeerId>);

    /// Local ports that lead through the carrier to other stations, whoever opened them.
    fn mouths(&self) -> BTreeSet<u16> {
        BTreeSet::new()
    }

    /// Follows what the carrier lets be seen. Changes at most a few times a second.
    fn state(&self) -> watch::Receiver<Arc<CarrierState>>;
}
