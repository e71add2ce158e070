//! `[tunnel]`, `[kubo]`: how other stations are reached, and who may enter.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::discovery::station_named;
use crate::peer::{Multiaddr, PeerAddress};
use crate::services::{ExposedOptions, OpenOptions};
use crate::trust::fits_in_a_card;
use crate::tunnel::ServiceName;

/// Where libp2p listens unless told otherwise.
const LISTEN_PORT: u16 = 4011;

/// How stations are looked for in the distributed hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kademlia {
    /// Not at all.
    Off,
    /// In one that the stations make up among themselves.
    #[default]
    Constellation,
    /// In that of IPFS: that of a private swarm, or the public one.
    Ipfs,
}

/// `[tunnel]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TunnelOptions {
    /// Whether there are tunnels at all.
    pub enabled: bool,
    /// Where to listen. Absent: port 4011 over TCP and, without a swarm key, QUIC.
    #[serde(deserialize_with = "some_multiaddrs")]
    pub listen: Option<Vec<Multiaddr>>,
    /// Addresses by which others reach us besides those that we see ourselves, for instance a forwarded port.
    #[serde(deserialize_with = "told_multiaddrs")]
    pub external: Vec<Multiaddr>,
    /// The key file of a private swarm.
    pub swarm_key: Option<PathBuf>,
    /// Another identity than `identity.key`: an OpenSSH ed25519 key, or a kubo repository.
    pub identity: Option<PathBuf>,
    /// Stations that may enter: PeerIDs, or `ssh-ed25519 …` lines.
    #[serde(deserialize_with = "stations")]
    pub allow: Vec<String>,
    /// Whether whoever holds the swarm key may enter.
    pub swarm_key_admits: bool,
    /// Whether to look for stations on the local network.
    pub mdns: bool,
    /// Whether to look for stations in a distributed hash table.
    pub kademlia: Kademlia,
    /// Whether to relay for stations that cannot reach each other.
    pub serve_relay: bool,
    /// Stations that relay for us.
    pub relays: Vec<PeerAddress>,
    /// Whether to ask the router for a port.
    pub upnp: bool,
    /// Services that are never exposed.
    pub private: Vec<ServiceName>,
    /// Services that others may open.
    pub services: Vec<ExposedOptions>,
    /// Services of others that are open here.
    pub open: Vec<OpenOptions>,
}

/// A multiaddr, refused in words that say what one looks like.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Place(Multiaddr);

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = text.parse().map(Self);
        read.map_err(|why: multiaddr::Error| {
            format!("{text}: not a multiaddr ({why}); expected for instance /ip4/0.0.0.0/tcp/4011")
        })
    }
}

/// An address that others are told of.
#[derive(Deserialize)]
#[serde(try_from = "Place")]
struct ToldPlace(Multiaddr);

impl TryFrom<Place> for ToldPlace {
    type Error = String;

    fn try_from(Place(address): Place) -> Result<Self, String> {
        if fits_in_a_card(&address) {
            return Ok(Self(address));
        }
        Err(format!(
            "{address}: too long for a card, others could not be told of it"
        ))
    }
}

fn told_multiaddrs<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Multiaddr>, D::Error> {
    let places = Vec::<ToldPlace>::deserialize(source)?;
    Ok(places
        .into_iter()
        .map(|ToldPlace(address)| address)
        .collect())
}

fn multiaddrs<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Multiaddr>, D::Error> {
    let places = Vec::<Place>::deserialize(source)?;
    Ok(places.into_iter().map(|Place(address)| address).collect())
}

fn some_multiaddrs<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Vec<Multiaddr>>, D::Error> {
    multiaddrs(source).map(Some)
}

/// What names a station.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct StationName(String);

impl TryFrom<String> for StationName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if station_named(&text).is_some() {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is no station: expected a PeerID, an address with /p2p/<PeerID>, or an ssh-ed25519 line"
        ))
    }
}

fn stations<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<StationName>::deserialize(source)?;
    Ok(names.into_iter().map(|StationName(name)| name).collect())
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: None,
            external: Vec::new(),
            swarm_key: None,
            identity: None,
            allow: Vec::new(),
            swarm_key_admits: false,
            mdns: true,
            kademlia: Kademlia::default(),
            serve_relay: false,
            relays: Vec::new(),
            upnp: false,
            private: Vec::new(),
            services: Vec::new(),
            open: Vec::new(),
        }
    }
}

impl TunnelOptions {
    /// Where to listen: what is configured, or the default for this kind of swarm on this machine.
    pub fn listening(&self) -> Vec<Multiaddr> {
        if let Some(listen) = &self.listen {
            return listen.clone();
        }
        // A machine without IPv6 cannot listen on it, and that is no fault.
        let has_ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
        let mut hosts = vec!["/ip4/0.0.0.0"];
        if has_ipv6 {
            hosts.push("/ip6/::");
        }
        let mut written = Vec::new();
        for host in hosts {
            written.push(format!("{host}/tcp/{LISTEN_PORT}"));
            // A private swarm knows TCP only, as kubo's.
            if self.swarm_key.is_none() {
                written.push(format!("{host}/udp/{LISTEN_PORT}/quic-v1"));
            }
        }
        written
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    }
}

/// Whether a kubo daemon on this machine carries the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KuboUse {
    /// If one answers, or ever did.
    #[default]
    Auto,
    /// Nothing else.
    Always,
    /// Never.
    Never,
}

/// `[kubo]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KuboOptions {
    /// Whether it is used.
    #[serde(rename = "use")]
    pub used: KuboUse,
    /// Where its RPC answers: a URL or a multiaddr.
    pub api: String,
}

impl Default for KuboOptions {
    fn default() -> Self {
        Self {
            used: KuboUse::default(),
            api: "http://127.0.0.1:5001".into(),
        }
    }
}
