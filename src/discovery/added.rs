//! Peers that the captain added by a command: `state/peers.json`.

use std::path::Path;

use crate::peer::PeerAddress;
use crate::state_file;
use crate::trust::StateError;

/// Peers that can be added.
pub(super) const ADDED_MAX: usize = 1_024;

/// What was kept; nobody on a station that has just been set up.
///
/// # Errors
/// [`StateError`].
pub(super) fn load(path: &Path) -> Result<Vec<PeerAddress>, StateError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(StateError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| StateError::Damaged {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// Keeps them, durably.
///
/// # Errors
/// [`StateError`].
pub(super) fn save(path: &Path, added: &[PeerAddress]) -> Result<(), StateError> {
    serde_json::to_vec_pretty(added)
        .map_err(std::io::Error::other)
        .and_then(|bytes| state_file::replace(path, &bytes))
        .map_err(|source| StateError::Io {
            path: path.to_owned(),
            source,
        })
}
