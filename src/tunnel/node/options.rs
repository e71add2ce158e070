//! What a node is told when it starts.
//!
//! Plain values, checked as a whole by [`NodeOptions::check`]. Deliberately absent: the guest list and the identity,
//! which change or are secret.

use libp2p::multiaddr::Protocol;

use super::addresses::KnownAddress;
use super::swarm_key::SwarmKey;
use crate::tunnel::Multiaddr;

/// Whether and where stations look for each other in a distributed hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KademliaMode {
    /// Not at all.
    #[default]
    Off,
    /// In one that the stations of this constellation form among themselves.
    Constellation,
    /// In the public one of IPFS. Untested against it.
    Ipfs,
}

/// Options of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Where to listen: `/ip4/…/tcp/PORT`, `/ip4/…/udp/PORT/quic-v1`; port 0 takes any.
    pub listen: Vec<Multiaddr>,
    /// Where others may reach us besides: a forwarded port, a name.
    pub external: Vec<Multiaddr>,
    /// The key of a private swarm. With it there is TCP only, as with kubo.
    pub swarm_key: Option<SwarmKey>,
    /// Whether to look for stations by multicast on the local network.
    pub mdns: bool,
    /// Whether to look for stations in a hash table.
    pub kademlia: KademliaMode,
    /// Under which hash they look: it names the constellation.
    pub rendezvous: Option<[u8; 32]>,
    /// Whether admitted stations may reach each other through this one.
    pub serve_relay: bool,
    /// Stations to be reached through, each with `/p2p/<PeerID>` at its end.
    pub relays: Vec<Multiaddr>,
    /// Whether to ask the router to forward our ports. Untested against real routers.
    pub upnp: bool,
    /// Whether `/memory/…` addresses work: for tests.
    pub memory_transport: bool,
    /// Addresses that were known when the station last ran.
    pub known: Vec<KnownAddress>,
    /// Bytes of anonymous memory of this process above which no more connections are taken; `None` for no bound.
    pub memory_bytes_max: Option<u64>,
}

/// Options that contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A private swarm speaks TCP only.
    #[error("{0}: with a swarm key only TCP works; remove this address or the key")]
    NotTcp(Multiaddr),
    /// It does not say which station the relay is.
    #[error("{0}: does not say which station relays; add /p2p/<PeerID> at its end")]
    RelayWithoutPeerId(Multiaddr),
    /// Others would not know under what to look.
    #[error("looking for stations in a hash table needs a rendezvous hash")]
    NoRendezvous,
}

impl NodeOptions {
    /// # Errors
    /// [`OptionsError`]: the first contradiction.
    pub(super) fn check(&self) -> Result<(), OptionsError> {
        if self.swarm_key.is_some() {
            let addresses = self.listen.iter().chain(&self.external);
            let udp = |address: &&Multiaddr| {
                address
                    .iter()
                    .any(|part| matches!(part, Protocol::Udp(_) | Protocol::QuicV1))
            };
            if let Some(address) = addresses.into_iter().find(udp) {
                return Err(OptionsError::NotTcp(address.clone()));
            }
        }
        for relay in &self.relays {
            if !matches!(relay.iter().last(), Some(Protocol::P2p(_))) {
                return Err(OptionsError::RelayWithoutPeerId(relay.clone()));
            }
        }
        if self.kademlia != KademliaMode::Off && self.rendezvous.is_none() {
            return Err(OptionsError::NoRendezvous);
        }
        Ok(())
    }
}
