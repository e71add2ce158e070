//! All behaviours of a node, composed, with their settings.
//!
//! The gate comes first: what it denies, no other is asked about. Deliberately absent: reacting to events, which the
//! driver does.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, connection_limits, dcutr, identify, kad, mdns, ping, relay, upnp};

use super::addresses::{self, SharedBook};
use super::gate::{Gate, connection_limits};
use super::identify_guard::IdentifyGuard;
use super::options::{KademliaMode, NodeOptions};
use super::relay_guard::RelayGuard;
use super::streams::{self, Door};
use crate::time::Clock;

/// What we call ourselves in identify.
const PROTOCOL_VERSION: &str = "/constellation/1.0.0";
/// How often the round trip is measured, and a dead connection noticed.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer that does not answer for so long is not used; one that does so twice is gone.
pub(super) const PING_DEADLINE: Duration = Duration::from_secs(5);
/// The hash table of stations, and that of IPFS.
const KAD_CONSTELLATION: StreamProtocol = StreamProtocol::new("/constellation/kad/1.0.0");
const KAD_IPFS: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");
/// What the hash table may hold for others: stations look for each other, nothing else.
const KAD_KEYS_MAX: usize = 1_024;
const KAD_VALUE_BYTES_MAX: usize = 1_024;
const KAD_PROVIDERS_PER_KEY: usize = 256;
/// How long one search may take.
const KAD_QUERY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a provider is believed in, and how often we say that we are one.
const KAD_PROVIDER_LASTS: Duration = Duration::from_secs(3_600);
const KAD_PROVIDE_EVERY: Duration = Duration::from_secs(600);
/// Addresses that identify remembers itself: none, the address book does.
const IDENTIFY_CACHE: usize = 0;

/// All behaviours.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Behaviour {
    gate: Gate,
    limits: connection_limits::Behaviour,
    pub(super) streams: streams::Behaviour,
    addresses: addresses::Behaviour,
    identify: IdentifyGuard,
    ping: ping::Behaviour,
    pub(super) kademlia: Toggle<kad::Behaviour<MemoryStore>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    relay_client: relay::client::Behaviour,
    pub(super) relay: Toggle<RelayGuard>,
    dcutr: dcutr::Behaviour,
    upnp: Toggle<upnp::tokio::Behaviour>,
}

impl Behaviour {
    /// Whether we relay for this station, or hold a place for it.
    pub(super) fn serves(&self, peer: &crate::tunnel::PeerId) -> bool {
        let relay = self.relay.as_ref();
        relay.is_some_and(|relay| relay.serves(peer))
    }

    pub(super) fn new(
        keypair: &Keypair,
        options: &NodeOptions,
        door: &Arc<Door>,
        book: SharedBook,
        clock: &Clock,
        relay_client: relay::client::Behaviour,
    ) -> Self {
        let local = keypair.public().to_peer_id();
        let agent = format!("constellation/{}", env!("CARGO_PKG_VERSION"));
        let identify = identify::Config::new(PROTOCOL_VERSION.to_owned(), keypair.public())
            .with_agent_version(agent)
            .with_cache_size(IDENTIFY_CACHE)
            .with_push_listen_addr_updates(true);
        let ping = ping::Config::new()
            .with_interval(PING_EVERY)
            .with_timeout(PING_DEADLINE);
        // A machine without multicast works all the same; only this way of discovery does not.
        let mdns = options.mdns.then(|| mdns_of(local)).flatten();
        Self {
            gate: Gate::new(Arc::clone(door), clock.clone(), options.memory_bytes_max),
            limits: connection_limits::Behaviour::new(connection_limits()),
            streams: streams::Behaviour::new(Arc::clone(door)),
            addresses: addresses::Behaviour::new(book, Arc::clone(door), clock.clone()),
            identify: IdentifyGuard::new(identify, Arc::clone(door)),
            ping: ping::Behaviour::new(ping),
            kademlia: kademlia_of(local, options.kademlia).into(),
            mdns: mdns.into(),
            relay_client,
            relay: options
                .serve_relay
                .then(|| RelayGuard::new(local, Arc::clone(door)))
                .into(),
            dcutr: dcutr::Behaviour::new(local),
            upnp: options.upnp.then(upnp::tokio::Behaviour::default).into(),
        }
    }

    /// To be called when the guest list or the wanted stations have changed.
    pub(super) fn reconsider(&mut self) {
        self.gate.reconsider();
    }
}

/// The protocol of a hash table; `None` if there is none.
pub(super) fn kademlia_protocol(mode: KademliaMode) -> Option<StreamProtocol> {
    match mode {
        KademliaMode::Off => None,
        KademliaMode::Constellation => Some(KAD_CONSTELLATION),
        KademliaMode::Ipfs => Some(KAD_IPFS),
    }
}

fn kademlia_of(
    local: crate::tunnel::PeerId,
    mode: KademliaMode,
) -> Option<kad::Behaviour<MemoryStore>> {
    let store = MemoryStoreConfig {
        max_records: KAD_KEYS_MAX,
        max_value_bytes: KAD_VALUE_BYTES_MAX,
        max_providers_per_key: KAD_PROVIDERS_PER_KEY,
        max_provided_keys: KAD_KEYS_MAX,
    };
    let store = MemoryStore::with_config(local, store);
    let mut config = kad::Config::new(kademlia_protocol(mode)?);
    config.set_query_timeout(KAD_QUERY_DEADLINE);
    config.set_provider_record_ttl(Some(KAD_PROVIDER_LASTS));
    config.set_provider_publication_interval(Some(KAD_PROVIDE_EVERY));
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    if mode == KademliaMode::Constellation {
        // Only admitted stations are put into the table, by the driver.
        config.set_kbucket_inserts(kad::BucketInserts::Manual);
    }
    config.set_parallelism(NonZeroUsize::MIN.saturating_add(2));
    let mut kademlia = kad::Behaviour::with_config(local, store, config);
    kademlia.set_mode(Some(kad::Mode::Server));
    Some(kademlia)
}

fn mdns_of(local: crate::tunnel::PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), local)
        .inspect_err(|error| tracing::warn!(%error, "no discovery on the local network"))
        .ok()
}
