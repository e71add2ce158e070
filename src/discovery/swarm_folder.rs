//! The folder in which an Astroport station keeps the cards of its swarm, as a source of peers.
//!
//! Takes `<folder>/<PeerID>/12345.json` and `x_strfry.sh` beside it; gives the stations they describe. The cards are
//! not signed and may be broken, half written or huge: such a one is skipped, with one warning until it changes. A card
//! whose `ipfsnodeid` is not its folder's name, or of another UPlanet, is refused. The network empties the folder every
//! evening, so what was last known stays for 48 hours, over restarts too. Worst case: `CARDS_MAX` files of
//! `CARD_BYTES_MAX`, read again a moment after something changed, and every `RESCAN_EVERY`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::state_file;
use crate::time::Clock;

/// A card that is larger is not one.
const CARD_BYTES_MAX: u64 = 64 << 10;
/// Stations of one swarm.
const CARDS_MAX: usize = 4_096;
/// Addresses taken from one card.
const ADDRESSES_MAX: usize = 16;
/// How long a card outlives its file.
const OUTLIVES: Duration = Duration::from_secs(48 * 3600);
/// The watch may miss something, and some file systems have none.
const RESCAN_EVERY: Duration = Duration::from_secs(60);
/// Files are written one after the other: they are read when it has been quiet for so long.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// Where a kubo, and a station of ours, listen as a rule.
const LIKELY_PORTS: [u16; 2] = [4001, 4011];

/// What is read, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmFolderOptions {
    /// `~/.zen/tmp/swarm`.
    pub folder: PathBuf,
    /// Where the last known cards are kept.
    pub kept: PathBuf,
    /// `UPLANETG1PUB` of ours; `None`: that of the card of `own` beside the folder.
    pub uplanet: Option<String>,
    /// Ourselves: not a peer.
    pub own: PeerId,
}

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
    /// Unix seconds when its card was last there.
    pub seen_at: u64,
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
enum CardRefusal {
    Unreadable,
    TooLarge,
    NotJson,
    NotItsFolder,
    AnotherUplanet,
}

impl CardRefusal {
    fn label(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::NotItsFolder => "not_its_folder",
            Self::AnotherUplanet => "another_uplanet",
        }
    }
}

/// The folder, watched.
#[derive(Debug)]
pub struct SwarmFolder {
    options: SwarmFolderOptions,
    clock: Clock,
    known: BTreeMap<PeerId, SwarmStation>,
    /// Cards that were warned of, with why: a warning for each change, not for each look.
    warned: BTreeMap<String, CardRefusal>,
    warned_of_uplanet: bool,
}

impl SwarmFolder {
    /// Begins with what was last known.
    pub fn new(options: SwarmFolderOptions, clock: Clock) -> Self {
        let known = match std::fs::read(&options.kept) {
            Ok(bytes) => serde_json::from_slice::<Vec<SwarmStation>>(&bytes).unwrap_or_else(|error| {
                // Only a memory of what is found again: nothing is lost with it.
                tracing::warn!(path = %options.kept.display(), %error, "the last known cards are unreadable");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self {
            options,
            clock,
            known: known
                .into_iter()
                .map(|station| (station.peer, station))
                .collect(),
            warned: BTreeMap::new(),
            warned_of_uplanet: false,
        }
    }

    /// Tells `stations` whom the folder describes, again whenever that changes.
    pub async fn follow(mut self, stations: watch::Sender<Arc<Vec<SwarmStation>>>) {
        let changed = Arc::new(Notify::new());
        let mut watching = None;
        loop {
            // A folder that was removed and made again is another one to the system.
            if watching.is_none() || !self.options.folder.exists() {
                watching = self.watch(&changed);
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            self = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the swarm folder is no longer read");
                    return;
                }
            };
            let now: Vec<SwarmStation> = self.known.values().cloned().collect();
            stations.send_if_modified(|before| {
                let is_new = **before != now;
                *before = Arc::new(now);
                is_new
            });
            // Something changed, or it is time: either is a reason to look.
            drop(timeout(RESCAN_EVERY, changed.notified()).await);
            sleep(QUIET_FOR).await;
        }
    }

    /// Watches the folder; `None` where it is not there yet, or cannot be watched.
    fn watch(&self, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
        let changed = Arc::clone(changed);
        let tell = move |event: notify::Result<notify::Event>| {
            // Reading is no change: else each look would be the reason for the next.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(tell)
            .inspect_err(
                |error| tracing::warn!(%error, "cannot watch folders; they are read every minute"),
            )
            .ok()?;
        watcher
            .watch(&self.options.folder, RecursiveMode::Recursive)
            .ok()
            .map(|()| watcher)
    }

    /// Reads the folder. Blocks.
    fn look(&mut self) {
        let now = self.clock.unix_seconds();
        let before = self.known.clone();
        if let Some(uplanet) = self.uplanet() {
            for (folder, path) in self.folders() {
                match read_card(&path, &folder, &uplanet, now) {
                    Ok(Some(station)) if station.peer != self.options.own => {
                        self.warned.remove(&folder);
                        self.known.insert(station.peer, station);
                    }
                    Ok(_) => {}
                    Err(refusal) => self.warn(folder, refusal),
                }
            }
        }
        self.known
            .retain(|_, station| now.saturating_sub(station.seen_at) <= OUTLIVES.as_secs());
        if !same_but_for_time(&before, &self.known) || before.is_empty() != self.known.is_empty() {
            self.keep();
        }
    }

    fn uplanet(&mut self) -> Option<String> {
        if self.options.uplanet.is_some() {
            return self.options.uplanet.clone();
        }
        let beside = self.options.folder.parent()?;
        let own = beside.join(self.options.own.to_string()).join("12345.json");
        let uplanet = read_json(&own)
            .ok()
            .flatten()
            .and_then(|card| text(&card, "UPLANETG1PUB"));
        if uplanet.is_none() && !std::mem::replace(&mut self.warned_of_uplanet, true) {
            tracing::warn!(
                card = %own.display(),
                "our own card does not say which UPlanet is ours, so no card of the swarm folder is taken: set \
                 [astroport] uplanet"
            );
        }
        uplanet
    }

    /// The folders of cards: name and path of the card.
    fn folders(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.options.folder) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                // Lists and the like lie there too.
                name.parse::<PeerId>().ok()?;
                Some((name, entry.path().join("12345.json")))
            })
            .take(CARDS_MAX)
            .collect()
    }

    fn warn(&mut self, folder: String, refusal: CardRefusal) {
        if self.warned.get(&folder) != Some(&refusal) && self.warned.len() < CARDS_MAX {
            tracing::warn!(card = %folder, reason = refusal.label(), "a card of the swarm folder is not taken");
            self.warned.insert(folder, refusal);
        }
    }

    fn keep(&self) {
        let known: Vec<&SwarmStation> = self.known.values().collect();
        let written = serde_json::to_vec(&known)
            .map_err(std::io::Error::other)
            .and_then(|bytes| state_file::replace(&self.options.kept, &bytes));
        if let Err(error) = written {
            tracing::warn!(path = %self.options.kept.display(), %error, "cannot keep the last known cards");
        }
    }
}

fn same_but_for_time(
    one: &BTreeMap<PeerId, SwarmStation>,
    other: &BTreeMap<PeerId, SwarmStation>,
) -> bool {
    // Cards are written again every hour: the time of the last look is kept to the hour.
    let timeless = |station: &SwarmStation| SwarmStation {
        seen_at: station.seen_at / 3600,
        ..station.clone()
    };
    one.len() == other.len()
        && one
            .iter()
            .all(|(peer, station)| other.get(peer).map(timeless) == Some(timeless(station)))
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

fn read_card(
    path: &Path,
    folder: &str,
    uplanet: &str,
    now: u64,
) -> Result<Option<SwarmStation>, CardRefusal> {
    let Some(card) = read_json(path)? else {
        return Ok(None);
    };
    let id = text(&card, "ipfsnodeid").ok_or(CardRefusal::NotItsFolder)?;
    if id != folder {
        return Err(CardRefusal::NotItsFolder);
    }
    if text(&card, "UPLANETG1PUB").as_deref() != Some(uplanet) {
        return Err(CardRefusal::AnotherUplanet);
    }
    let peer: PeerId = id.parse().map_err(|_| CardRefusal::NotItsFolder)?;
    Ok(Some(SwarmStation {
        peer,
        name: text(&card, "hostname").unwrap_or_default(),
        reach: reach(&card, path),
        addresses: addresses(&card),
        seen_at: now,
    }))
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

#[cfg(test)]
#[path = "swarm_folder_tests.rs"]
mod tests;
