//! The files in which trust is kept: JSON, read within a bound, replaced whole.
//!
//! Takes a path; gives what is in the file, or says what is wrong with it. Invariant: a file that cannot be read is an
//! error, never an empty one: a list of revoked stations that is lost would let them in again. Deliberately absent: a
//! repair. Worst case: one file of [`FILE_BYTES_MAX`] in memory.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state_file;

/// Bytes of one file. All cards together have at most a quarter of it, and JSON within JSON takes up to twice as much.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why what was kept cannot be used, or not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Larger than any that we write.
    #[error("{} has more than {FILE_BYTES_MAX} bytes: restore it from a backup", .0.display())]
    TooLarge(PathBuf),
    /// Not what we write.
    #[error(
        "{} cannot be read ({why}): restore it from a backup, or move it away to start without it",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// The number of a file's form: 1. Reading refuses any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(super) struct Format;

const FORMAT: u32 = 1;

impl From<Format> for u32 {
    fn from(_: Format) -> Self {
        FORMAT
    }
}

impl TryFrom<u32> for Format {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if number == FORMAT {
            Ok(Self)
        } else {
            Err(format!("it has form {number}, this version reads {FORMAT}"))
        }
    }
}

/// What is in the file; `None` if there is none.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = state_file::read_up_to(path, FILE_BYTES_MAX).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(StateError::TooLarge(path.to_owned()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => Err(StateError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        }),
    }
}

/// Replaces the file, durably.
pub(super) fn save<T: Serialize>(path: &Path, kept: &T) -> Result<(), StateError> {
    serde_json::to_vec_pretty(kept)
        .map_err(io::Error::from)
        .and_then(|bytes| state_file::replace(path, &bytes))
        .map_err(|source| StateError::Io {
            path: path.to_owned(),
            source,
        })
}
