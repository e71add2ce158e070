//! Where an Astroport station has its things, all below one home.
//!
//! Takes the home; gives paths. Pure: nothing is looked at. Deliberately absent: which of them are there (`detect.rs`).

use std::path::{Path, PathBuf};

/// The paths of an Astroport station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AstroportPaths {
    home: PathBuf,
}

impl AstroportPaths {
    /// The paths below this home.
    pub fn below(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// The home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    fn zen(&self, path: &str) -> PathBuf {
        self.home.join(".zen").join(path)
    }

    /// The script without which the network's scripts do nothing.
    pub fn environment_script(&self) -> PathBuf {
        self.zen("Astroport.ONE/tools/my.sh")
    }

    /// Holds the captain's e-mail address.
    pub fn captain(&self) -> PathBuf {
        self.zen("game/players/.current/.player")
    }

    /// The folder in which each station publishes, ours among them, beside that of the swarm.
    pub fn published(&self) -> PathBuf {
        self.zen("tmp")
    }

    /// The cards of the swarm, a folder for each station.
    pub fn swarm(&self) -> PathBuf {
        self.zen("tmp/swarm")
    }

    /// What the station of this PeerID publishes.
    pub fn published_by(&self, peer: &str) -> PathBuf {
        self.published().join(peer)
    }

    /// Pattern of the files with the keys of members, one each.
    pub fn member_keys(&self) -> PathBuf {
        self.zen("game/nostr/*/HEX")
    }

    /// Pattern of the files with the keys of places, which publish too.
    pub fn place_keys(&self) -> PathBuf {
        self.zen("flashmem/**/HEX")
    }

    /// Friends of friends.
    pub fn friends(&self) -> PathBuf {
        self.zen("strfry/amisOfAmis.txt")
    }

    /// Pattern of the same lists of other stations.
    pub fn friends_of_others(&self) -> PathBuf {
        self.zen("tmp/swarm/*/amisOfAmis.txt")
    }

    /// Keys that are blocked.
    pub fn blacklist(&self) -> PathBuf {
        self.zen("strfry/blacklist.txt")
    }

    /// The relay's folder, which has locks and logs too.
    pub fn relay_folder(&self) -> PathBuf {
        self.zen("strfry")
    }

    /// The relay's program.
    pub fn relay_program(&self) -> PathBuf {
        self.zen("strfry/strfry")
    }

    /// Held by the trigger of the first generation.
    pub fn sync_lock(&self) -> PathBuf {
        self.zen("strfry/constellation-sync.lock")
    }

    /// Held by the backfill of today.
    pub fn backfill_lock(&self) -> PathBuf {
        self.zen("strfry/constellation-backfill.lock")
    }

    /// What the trigger logs.
    pub fn trigger_log(&self) -> PathBuf {
        self.zen("strfry/constellation-trigger.log")
    }

    /// What the backfill logs: of the last run alone.
    pub fn backfill_log(&self) -> PathBuf {
        self.zen("strfry/constellation-backfill.log")
    }

    /// Warnings and errors of past runs, read by the daily mail.
    pub fn error_log(&self) -> PathBuf {
        self.zen("strfry/constellation-backfill.error.log")
    }

    /// Unix time of the last success.
    pub fn last_success(&self) -> PathBuf {
        self.zen("strfry/last_constellation_sync")
    }

    /// Unix time at which a run last began, by the hourly job or by us.
    pub fn last_run(&self) -> PathBuf {
        self.zen("tmp/backfill_constellation.lastrun")
    }

    /// The key of a private swarm.
    pub fn swarm_key(&self) -> PathBuf {
        self.home.join(".ipfs/swarm.key")
    }

    /// kubo's configuration.
    pub fn kubo_config(&self) -> PathBuf {
        self.home.join(".ipfs/config")
    }
}
