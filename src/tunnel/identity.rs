//! The station's identity: an Ed25519 key in `identity.key`, in libp2p's protobuf form, readable by its owner alone.
//!
//! Made at first need; never overwritten. A key that others may read, or that cannot be decoded, is refused with the
//! remedy, since going on with another one would make this another station.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;

use crate::state_file;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{} can be read by others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key.
    #[error("{} holds no libp2p key: restore it from a backup, or move it away to become another station", .0.display())]
    NotAKey(PathBuf),
}

/// A station's key.
#[derive(Debug, Clone)]
pub struct Identity(Keypair);

impl Identity {
    /// Reads the key, or makes one.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let io_error = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(io_error)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(IdentityError::Exposed {
                        path: path.to_owned(),
                        mode,
                    });
                }
                Keypair::from_protobuf_encoding(&bytes)
                    .map(Self)
                    .map_err(|_| IdentityError::NotAKey(path.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = Keypair::generate_ed25519();
                let bytes = pair
                    .to_protobuf_encoding()
                    .map_err(|_| IdentityError::NotAKey(path.to_owned()))?;
                state_file::replace(path, &bytes).map_err(io_error)?;
                Ok(Self(pair))
            }
            Err(error) => Err(io_error(error)),
        }
    }

    /// The PeerID that others know this station by.
    pub fn peer_id(&self) -> String {
        self.0.public().to_peer_id().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("identity.key");
        let first = Identity::load_or_create(&path).expect("made");
        assert!(first.peer_id().starts_with("12D3KooW"));
        let again = Identity::load_or_create(&path).expect("read");
        assert_eq!(first.peer_id(), again.peer_id());
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(matches!(
            Identity::load_or_create(&path),
            Err(IdentityError::Exposed { mode: 0o644, .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, b"not a key").expect("ours");
        assert!(matches!(
            Identity::load_or_create(&path),
            Err(IdentityError::NotAKey(_))
        ));
    }
}
