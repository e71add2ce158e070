//! What is remembered of peers from one run to the next, besides their overlays: how they can be asked, how far their
//! history was read, and how long one that fails is left alone. On disk: one JSON file, replaced whole.
//!
//! All of it is a hint: losing it costs time and no event, so a file that cannot be read is begun anew, with a warning.
//! Bounded: peers, those that were not met for longest dropped first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{
    LEARNT_REMEMBERED, PEERS_REMEMBERED, REST_FIRST, REST_MAX, RESTS_AFTER_FAILURES,
    SILENT_TO_NIP77_MAX,
};
use crate::random::Random;
use crate::state_file;

/// Larger than [`PEERS_REMEMBERED`] peers ever are.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is remembered of one peer. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// When the peer showed that it does not speak NIP-77.
    pub without_nip77_since: Option<u64>,
    /// The largest message that it was found to take, in bytes.
    pub message_bytes_max: Option<usize>,
    /// When that was found out.
    pub message_bytes_found_at: Option<u64>,
    /// It was compared with by NIP-77.
    pub spoke_nip77: bool,
    /// Exchanges in a row in which it did not answer NIP-77, though it once did.
    pub silent_to_nip77: u32,
    /// Most of what it lists is by authors that we do not share: it is asked by author.
    pub asked_by_author: bool,
    /// When an exchange with it last converged.
    pub last_success: Option<u64>,
    /// When an exchange with it last achieved something, converged or not.
    pub achieved_at: Option<u64>,
    /// How far its whole history was read, where it cannot be compared.
    pub history: HistoryRead,
    /// Exchanges in a row that did not reach it.
    pub failures: u32,
    /// Its last exchange was cut off when its time was up: others have their turn before it.
    pub was_cut_off: bool,
    /// Until when it is left alone by scheduled runs.
    pub rests_until: Option<u64>,
    /// When it was last met.
    pub met_at: u64,
}

/// How far a whole history was read backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryRead {
    /// What is older than this second is still to be read; `None`: it was not begun, or read to its end.
    pub back_to: Option<u64>,
    /// When it was last read to its end.
    pub finished_at: Option<u64>,
}

impl Remembered {
    /// The largest message that it was found to take lately: a limit may be lifted, or have been something else.
    pub fn message_bytes_at(&self, now: u64) -> Option<usize> {
        let found_at = self.message_bytes_found_at?;
        let is_fresh = now.saturating_sub(found_at) < LEARNT_REMEMBERED.as_secs();
        self.message_bytes_max.filter(|_| is_fresh)
    }

    /// The peer broke off after a message that was larger than this.
    pub fn takes_only(&mut self, bytes: usize, now: u64) {
        (self.message_bytes_max, self.message_bytes_found_at) = (Some(bytes), Some(now));
    }

    /// It was compared with by NIP-77.
    pub fn compared(&mut self) {
        (self.spoke_nip77, self.silent_to_nip77) = (true, 0);
        self.without_nip77_since = None;
    }

    /// It did not answer NIP-77. Whether that shows that it does not speak it: one failure of a peer that did so before
    /// does not.
    pub fn did_not_answer(&mut self) -> bool {
        self.silent_to_nip77 = self.silent_to_nip77.saturating_add(1);
        !self.spoke_nip77 || self.silent_to_nip77 >= SILENT_TO_NIP77_MAX
    }

    /// The peer was reached.
    pub fn was_reached(&mut self, now: u64) {
        self.failures = 0;
        self.rests_until = None;
        self.met_at = now;
    }

    /// The peer was not reached: after some times in a row it rests, longer each time.
    pub fn was_missed(&mut self, now: u64, random: &Random) {
        self.failures = self.failures.saturating_add(1);
        let Some(rests) = self.failures.checked_sub(RESTS_AFTER_FAILURES) else {
            return;
        };
        let rest = REST_FIRST.saturating_mul(1 << rests.min(16)).min(REST_MAX);
        self.rests_until = Some(now + jittered(rest, random).as_secs());
    }
}

/// Between three quarters and five quarters of it: what failed together is not tried again together.
pub(super) fn jittered(time: Duration, random: &Random) -> Duration {
    let [byte] = random.bytes::<1>();
    time * 3 / 4 + time * u32::from(byte) / 510
}

/// All peers.
#[derive(Debug)]
pub struct PeerMemory {
    path: PathBuf,
    peers: BTreeMap<String, Remembered>,
}

impl PeerMemory {
    /// What the station's `state` folder holds. Blocks.
    pub fn load(state: &Path) -> Self {
        let path = state.join("learnt.json");
        let read = state_file::read_up_to(&path, FILE_BYTES_MAX)
            .map_err(|error| error.to_string())
            .and_then(|bytes| match bytes {
                None => Ok(BTreeMap::new()),
                Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            });
        let peers = read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what was remembered of peers is lost; they are asked anew");
            BTreeMap::new()
        });
        Self { path, peers }
    }

    /// What is remembered of a peer.
    pub fn of(&self, peer: &str) -> Remembered {
        self.peers.get(peer).cloned().unwrap_or_default()
    }

    /// Remembers it.
    pub fn put(&mut self, peer: &str, remembered: Remembered) {
        self.peers.insert(peer.to_owned(), remembered);
        while self.peers.len() > PEERS_REMEMBERED {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.met_at);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.peers.remove(&oldest);
        }
    }

    /// Writes it. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self) -> std::io::Result<()> {
        state_file::replace(&self.path, &serde_json::to_vec(&self.peers)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_missed_again_and_again_rests_longer_each_time_and_is_forgiven_at_once() {
        let random = Random::seeded(1);
        let mut peer = Remembered::default();
        let rests: Vec<Option<u64>> = (0..12)
            .map(|_| {
                peer.was_missed(1_000, &random);
                peer.rests_until.map(|until| until - 1_000)
            })
            .collect();
        assert_eq!(rests[..2], [None, None]);
        let first = REST_FIRST.as_secs();
        assert!(rests[2].is_some_and(|rest| rest >= first * 3 / 4 && rest <= first * 5 / 4));
        assert!(rests[4] > rests[2]);
        assert!(rests[11].is_some_and(|rest| rest <= REST_MAX.as_secs() * 5 / 4));
        peer.was_reached(2_000);
        assert_eq!((peer.failures, peer.rests_until), (0, None));
    }

    #[test]
    fn what_was_found_out_of_a_peer_is_tried_again_after_a_day() {
        let mut peer = Remembered::default();
        peer.takes_only(4_096, 1_000);
        assert_eq!(peer.message_bytes_at(1_001), Some(4_096));
        let later = 1_000 + LEARNT_REMEMBERED.as_secs();
        assert_eq!(peer.message_bytes_at(later), None);
    }

    #[test]
    fn a_peer_that_spoke_nip77_is_not_read_by_windows_for_one_silence() {
        let mut peer = Remembered::default();
        assert!(peer.did_not_answer(), "a stranger");
        peer.compared();
        for _ in 1..SILENT_TO_NIP77_MAX {
            assert!(!peer.did_not_answer());
        }
        assert!(peer.did_not_answer(), "it was changed");
        peer.compared();
        assert!(!peer.did_not_answer());
    }

    #[test]
    fn what_is_remembered_survives_and_a_broken_file_costs_only_that() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut memory = PeerMemory::load(folder.path());
        let remembered = Remembered {
            asked_by_author: true,
            ..Remembered::default()
        };
        memory.put("ws://a/", remembered.clone());
        memory.save().expect("written");
        assert_eq!(PeerMemory::load(folder.path()).of("ws://a/"), remembered);
        std::fs::write(folder.path().join("learnt.json"), "{\"ws://a/\":").expect("ours");
        assert_eq!(
            PeerMemory::load(folder.path()).of("ws://a/"),
            Remembered::default()
        );
    }

    #[test]
    fn peers_that_were_not_met_for_longest_are_forgotten_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut memory = PeerMemory::load(folder.path());
        for number in 0..PEERS_REMEMBERED as u64 + 5 {
            let remembered = Remembered {
                met_at: number,
                ..Remembered::default()
            };
            memory.put(&format!("ws://{number}/"), remembered);
        }
        assert_eq!(memory.of("ws://4/").met_at, 0);
        assert_eq!(memory.of("ws://5/").met_at, 5);
    }
}
