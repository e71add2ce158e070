//! The folder in which an Astroport station keeps the cards of its swarm, as a source of peers.
//!
//! Takes `<folder>/<PeerID>/12345.json` and `x_strfry.sh` beside it; gives the stations they describe. The cards are
//! not signed and may be broken, half written or huge: such a one is skipped, with one warning until it changes. A card
//! whose `ipfsnodeid` is not its folder's name, or of another UPlanet, is refused, and what was known of that station is
//! forgotten at once. One that is stale adds nothing to what was known. The network empties the folder every evening, so what was last known stays for 48 hours, over
//! restarts too, as long as our UPlanet is the same. Only changes are told: that a card is still there is none. Worst
//! case: `CARDS_MAX` cards, read again a moment after something changed, and every `RESCAN_EVERY`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::swarm_card::{CardRefusal, SwarmStation, read_card, uplanet_in};
use crate::peer::PeerId;
use crate::state_file;
use crate::time::Clock;

/// Stations of one swarm.
const CARDS_MAX: usize = 4_096;
/// How long a card outlives its file.
const OUTLIVES: Duration = Duration::from_secs(48 * 3600);
/// The watch may miss something, and some file systems have none.
const RESCAN_EVERY: Duration = Duration::from_secs(60);
/// Files are written one after the other: they are read when it has been quiet for so long.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// Bytes of the last known cards, some 1,000 each.
const KEPT_BYTES_MAX: u64 = 16 << 20;

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

/// A station whose card was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownStation {
    station: SwarmStation,
    /// Unix seconds when its card was last there.
    seen_at: u64,
}

/// The last known cards, as they are kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct KeptCards {
    /// Of which UPlanet they are.
    uplanet: Option<String>,
    stations: Vec<KnownStation>,
}

/// The folder, watched.
#[derive(Debug)]
pub struct SwarmFolder {
    options: SwarmFolderOptions,
    clock: Clock,
    /// Of which UPlanet those are that are known.
    uplanet_of_known: Option<String>,
    known: BTreeMap<PeerId, KnownStation>,
    /// Cards that were warned of, with why: a warning for each change, not for each look.
    warned: BTreeMap<String, CardRefusal>,
    warned_of_uplanet: bool,
}

impl SwarmFolder {
    /// Begins with what was last known.
    pub fn new(options: SwarmFolderOptions, clock: Clock) -> Self {
        let kept = read_kept(&options.kept).unwrap_or_else(|error| {
            // Only a memory of what is found again: nothing is lost with it.
            tracing::warn!(path = %options.kept.display(), %error, "the last known cards are unreadable");
            KeptCards::default()
        });
        let known = kept.stations.into_iter();
        Self {
            options,
            clock,
            uplanet_of_known: kept.uplanet,
            known: known.map(|known| (known.station.peer, known)).collect(),
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
            self.tell(&stations);
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

    /// Tells who is known, if that has changed.
    fn tell(&self, stations: &watch::Sender<Arc<Vec<SwarmStation>>>) {
        let now = self.stations();
        stations.send_if_modified(|before| {
            let is_new = **before != now;
            if is_new {
                *before = Arc::new(now);
            }
            is_new
        });
    }

    /// Whom it described when it was last read.
    pub fn stations(&self) -> Vec<SwarmStation> {
        let known = self.known.values();
        known.map(|known| known.station.clone()).collect()
    }

    /// Reads the folder. Blocks.
    pub fn look(&mut self) {
        let now = self.clock.unix_seconds();
        let before = (self.uplanet_of_known.clone(), self.known.clone());
        if let Some(uplanet) = self.uplanet() {
            if self.uplanet_of_known.as_ref() != Some(&uplanet) {
                // Stations of another UPlanet are never peers.
                self.known.clear();
                self.uplanet_of_known = Some(uplanet.clone());
            }
            for (folder, path) in self.folders() {
                match read_card(&path, &folder, &uplanet, now) {
                    Ok(Some(station)) if station.peer != self.options.own => {
                        self.warned.remove(&folder);
                        let seen_at = now;
                        self.known
                            .insert(station.peer, KnownStation { station, seen_at });
                    }
                    Ok(_) => {}
                    Err(refusal) => self.refuse(folder, refusal),
                }
            }
        }
        self.known
            .retain(|_, known| now.saturating_sub(known.seen_at) <= OUTLIVES.as_secs());
        if self.uplanet_of_known != before.0 || !same_but_for_time(&before.1, &self.known) {
            self.keep();
        }
    }

    fn uplanet(&mut self) -> Option<String> {
        if self.options.uplanet.is_some() {
            return self.options.uplanet.clone();
        }
        let beside = self.options.folder.parent()?;
        let own = beside.join(self.options.own.to_string()).join("12345.json");
        let uplanet = uplanet_in(&own);
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

    fn refuse(&mut self, folder: String, refusal: CardRefusal) {
        if refusal.contradicts()
            && let Ok(peer) = folder.parse::<PeerId>()
        {
            self.known.remove(&peer);
        }
        if self.warned.get(&folder) != Some(&refusal) && self.warned.len() < CARDS_MAX {
            tracing::warn!(card = %folder, reason = refusal.label(), "a card of the swarm folder is not taken");
            self.warned.insert(folder, refusal);
        }
    }

    fn keep(&self) {
        let kept = KeptCards {
            uplanet: self.uplanet_of_known.clone(),
            stations: self.known.values().cloned().collect(),
        };
        let written = serde_json::to_vec(&kept)
            .map_err(std::io::Error::other)
            .and_then(|bytes| state_file::replace(&self.options.kept, &bytes));
        if let Err(error) = written {
            tracing::warn!(path = %self.options.kept.display(), %error, "cannot keep the last known cards");
        }
    }
}

fn read_kept(path: &Path) -> std::io::Result<KeptCards> {
    match state_file::read_up_to(path, KEPT_BYTES_MAX)? {
        Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
        None => Ok(KeptCards::default()),
    }
}

fn same_but_for_time(
    one: &BTreeMap<PeerId, KnownStation>,
    other: &BTreeMap<PeerId, KnownStation>,
) -> bool {
    // Cards are written again every hour: the time of the last look is kept to the hour.
    let timeless = |known: &KnownStation| KnownStation {
        seen_at: known.seen_at / 3600,
        ..known.clone()
    };
    one.len() == other.len()
        && one
            .iter()
            .all(|(peer, known)| other.get(peer).map(timeless) == Some(timeless(known)))
}

#[cfg(test)]
#[path = "swarm_folder_tests.rs"]
mod tests;
