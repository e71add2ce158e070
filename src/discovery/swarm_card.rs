//! One card of the swarm folder, as Astroport's scripts leave it: what it says of its station.
//!
//! Takes the path of a `12345.json` and what it must agree with; gives the station, or why the card is not taken. Blocks.
//! Invariant: none is taken of another PeerID than its folder's, or of another UPlanet. Deliberately absent: what was known
//! before (`swarm_folder.rs`). Worst case: `CARD_BYTES_MAX` of JSON.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nostr::key::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::peer::{Multiaddr, PeerAddress, PeerId};

/// A card that is larger is not one.
const CARD_BYTES_MAX: u64 = 64 << 10;
/// The network itself forgets a station that has not published for so long.
const STALE_AFTER_SECONDS: u64 = 12 * 3600;
/// Of a file with a time.
const TIME_BYTES_MAX: u64 = 64;
/// Addresses taken from one card.
const ADDRESSES_MAX: usize = 16;
/// Where a kubo, and a station of ours, listen as a rule.
const LIKELY_PORTS: [u16; 2] = [4001, 4011];

/// How a station's relay is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Through its tunnel.
    Tunnel,
    /// Over the network.
    Direct(Box<PeerAddress>),
    /// Not at all: it shares no relay.
    Nowhere,
}

/// A station of the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmStation {
    /// Its PeerID.
    #[serde(with = "as_text")]
    pub peer: PeerId,
    /// Its host's name.
    pub name: String,
    /// How its relay is reached.
    pub reach: Reach,
    /// Where it may be reached.
    pub addresses: Vec<Multiaddr>,
    /// The public keys that it and its captain sign events with.
    #[serde(default)]
    pub keys: BTreeSet<PublicKey>,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::peer::PeerId;

    pub(super) fn serialize<S: Serializer>(
        peer: &PeerId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PeerId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a card is not taken. Its names are also log fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CardRefusal {
    Unreadable,
    TooLarge,
    NotJson,
    /// It does not say whose it is, or of which UPlanet.
    Incomplete,
    NotItsFolder,
    AnotherUplanet,
    /// Its station has not published for half a day.
    Stale,
}

impl CardRefusal {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::Incomplete => "incomplete",
            Self::NotItsFolder => "not_its_folder",
            Self::AnotherUplanet => "another_uplanet",
            Self::Stale => "stale",
        }
    }

    /// Whether it says that what was known of the station is no longer so. Of one that is broken or half written the
    /// station knows nothing.
    pub(super) fn contradicts(self) -> bool {
        matches!(self, Self::NotItsFolder | Self::AnotherUplanet)
    }
}

/// A JSON file within the bounds of a card; `None` if it is not there.
fn read_json(path: &Path) -> Result<Option<Value>, CardRefusal> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(CardRefusal::Unreadable),
    };
    let mut bytes = Vec::new();
    file.take(CARD_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| CardRefusal::Unreadable)?;
    if bytes.len() as u64 > CARD_BYTES_MAX {
        return Err(CardRefusal::TooLarge);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| CardRefusal::NotJson)
}

fn text(card: &Value, key: &str) -> Option<String> {
    let value = card.get(key)?.as_str()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether the file beside the card says that its station last published more than [`STALE_AFTER_SECONDS`] ago. One that
/// is not there, or has no Unix time, says nothing.
fn is_stale(path: &Path, now: u64) -> bool {
    let mut text = String::new();
    let read = File::open(path.with_file_name("_MySwarm.moats"))
        .and_then(|file| file.take(TIME_BYTES_MAX).read_to_string(&mut text));
    let published: Option<u64> = read.ok().and_then(|_| text.trim().parse().ok());
    published.is_some_and(|at| now.saturating_sub(at) > STALE_AFTER_SECONDS)
}

/// What the card of a folder says at `now`, in Unix seconds; `None` if there is none.
pub(super) fn read_card(
    path: &Path,
    folder: &str,
    uplanet: &str,
    now: u64,
) -> Result<Option<SwarmStation>, CardRefusal> {
    let Some(card) = read_json(path)? else {
        return Ok(None);
    };
    let id = text(&card, "ipfsnodeid").ok_or(CardRefusal::Incomplete)?;
    if id != folder {
        return Err(CardRefusal::NotItsFolder);
    }
    if uplanet_of(&card).ok_or(CardRefusal::Incomplete)? != uplanet {
        return Err(CardRefusal::AnotherUplanet);
    }
    let peer: PeerId = id.parse().map_err(|_| CardRefusal::NotItsFolder)?;
    if is_stale(path, now) {
        return Err(CardRefusal::Stale);
    }
    Ok(Some(SwarmStation {
        peer,
        name: text(&card, "hostname").unwrap_or_default(),
        reach: reach(&card, path),
        addresses: addresses(&card),
        keys: keys(&card),
    }))
}

/// Of which UPlanet the station is whose card this is.
pub(super) fn uplanet_in(path: &Path) -> Option<String> {
    uplanet_of(&read_json(path).ok()??)
}

fn uplanet_of(card: &Value) -> Option<String> {
    text(card, "UPLANETG1PUB")
}

/// By tunnel if its relay is on its own loopback and it publishes the tunnel to it; else as its card says.
fn reach(card: &Value, path: &Path) -> Reach {
    let address = text(card, "myRELAY").and_then(|relay| relay.parse::<PeerAddress>().ok());
    match address {
        Some(address) if !is_loopback(&address) => Reach::Direct(Box::new(address)),
        _ if path.with_file_name("x_strfry.sh").exists() => Reach::Tunnel,
        _ => Reach::Nowhere,
    }
}

fn is_loopback(address: &PeerAddress) -> bool {
    match address.url().host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => true,
    }
}

/// Its own and its captain's; one that is none is passed over.
fn keys(card: &Value) -> BTreeSet<PublicKey> {
    let said = ["NODEHEX", "captainHEX"].into_iter();
    said.filter_map(|key| PublicKey::from_hex(&text(card, key)?).ok())
        .collect()
}

/// Where the station says it is; else where its kind usually listens, at its public address.
fn addresses(card: &Value) -> Vec<Multiaddr> {
    let said = card
        .pointer("/constellation/addresses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|address| address.as_str()?.parse().ok());
    let mut addresses: Vec<Multiaddr> = said.take(ADDRESSES_MAX).collect();
    let public = text(card, "myIP").and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
    if let Some(ip) = public.filter(|ip| addresses.is_empty() && !ip.is_loopback()) {
        let protocol = if ip.is_ipv4() { "ip4" } else { "ip6" };
        addresses.extend(
            LIKELY_PORTS
                .iter()
                .filter_map(|port| format!("/{protocol}/{ip}/tcp/{port}").parse().ok()),
        );
    }
    addresses
}
