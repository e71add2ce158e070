//! The station's identity: an Ed25519 key in `identity.key`, in libp2p's protobuf form, readable by its owner alone.
//!
//! Made at first need; never overwritten. A key that others may read, or that cannot be decoded, is refused with the
//! remedy, since going on with another one would make this another station.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;

use super::StationKey;
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
    /// A key of another program that cannot serve as identity.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        why: String,
    },
}

impl IdentityError {
    /// Whether the captain has set it up wrongly, rather than that this machine fails.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Exposed { .. })
    }
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
        match read_private(path) {
            Ok(bytes) => Self::from_protobuf(path, &bytes),
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let pair = Keypair::generate_ed25519();
                let bytes = pair
                    .to_protobuf_encoding()
                    .map_err(|_| IdentityError::NotAKey(path.to_owned()))?;
                state_file::replace(path, &bytes).map_err(io_error)?;
                Ok(Self(pair))
            }
            Err(error) => Err(error),
        }
    }

    /// The key itself, for handshakes.
    pub(super) fn keypair(&self) -> &Keypair {
        &self.0
    }

    /// The PeerID that others know this station by.
    pub fn peer_id(&self) -> String {
        self.0.public().to_peer_id().to_string()
    }

    /// Reads an identity that is not the station's own file: an OpenSSH key, a kubo repository or its `config`, or a key
    /// in libp2p's form. Its content tells which; it is never made.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_foreign(path: &Path) -> Result<Self, IdentityError> {
        if path.is_dir() {
            return Self::from_kubo_config(&path.join("config"));
        }
        let bytes = read_private(path)?;
        if bytes.starts_with(b"-----BEGIN") {
            Self::from_openssh(path)
        } else if bytes.trim_ascii_start().starts_with(b"{") {
            Self::from_kubo_config(path)
        } else {
            Self::from_protobuf(path, &bytes)
        }
    }

    fn from_protobuf(path: &Path, bytes: &[u8]) -> Result<Self, IdentityError> {
        Keypair::from_protobuf_encoding(bytes)
            .map(Self)
            .map_err(|_| IdentityError::NotAKey(path.to_owned()))
    }

    pub(super) fn from_keypair(pair: Keypair) -> Self {
        Self(pair)
    }

    /// The public half.
    pub fn public_key(&self) -> StationKey {
        StationKey::new(self.0.public())
    }

    /// Signs a message, which must say itself what it is for: the key signs more than one kind.
    ///
    /// # Errors
    /// [`SigningError`]: an RSA key that is unfit. A key of ours (Ed25519) always signs.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        self.0.sign(message).map_err(|_| SigningError)
    }

    /// Always the same for the same seed: for tests.
    #[cfg(test)]
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(Keypair::ed25519_from_bytes(seed).expect("any 32 bytes are a key"))
    }
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// [`IdentityError::Io`], [`IdentityError::Exposed`].
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let io_error = |source| IdentityError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::read(path).map_err(io_error)?;
    let mode = fs::metadata(path).map_err(io_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(bytes)
}

/// The key cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this station's key cannot sign")]
pub struct SigningError;

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
