//! What outlives files and cards: `state/graph.json`.
//!
//! Keys of files that were there in the last 48 hours, of cards, and what we wrote into the merged file. A memory of what
//! is found again: a file that cannot be read is as good as none. Worst case: `GRAPH_FILE_KEYS_MAX` keys, 14 MB.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use constellation_event::hex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keys::AuthorKey;
use crate::state_file;

const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What a file's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Members,
    Friends,
    Blacklist,
}

/// Keys, as hexadecimal texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyList(pub(super) BTreeSet<AuthorKey>);

impl Serialize for KeyList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|key| hex::encode(key)))
    }
}

impl<'de> Deserialize<'de> for KeyList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let keys = texts.iter().map(|text| {
            hex::decode_array(text).ok_or_else(|| serde::de::Error::custom("not a key"))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }
}

/// Keys, and when they were last there in Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptKeys {
    pub(super) seen_at: u64,
    pub(super) keys: KeyList,
}

/// A file's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptFile {
    pub(super) role: Role,
    pub(super) path: PathBuf,
    #[serde(flatten)]
    pub(super) kept: KeptKeys,
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    pub(super) files: Vec<KeptFile>,
    pub(super) cards: KeptKeys,
    /// What of the merged file is ours.
    pub(super) merged: KeyList,
}

impl Kept {
    pub(super) fn read(path: &Path) -> Self {
        let read = state_file::read_up_to(path, KEPT_BYTES_MAX).and_then(|bytes| match bytes {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None => Ok(Self::default()),
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the last known keys of files and cards are unreadable");
            Self::default()
        })
    }

    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        state_file::replace(path, &serde_json::to_vec(self)?)
    }
}
