//! Identities from OpenSSH: a station whose PeerID is that of its `ssh-keygen -t ed25519` key.
//!
//! Takes a private key file; gives what kubo would make of the same key.
//! Deliberately absent: passphrases, since a station starts alone, and other kinds of key.

use std::path::Path;

use libp2p::identity::Keypair;

use super::identity::{Identity, IdentityError, read_private};

impl Identity {
    /// Reads an OpenSSH private key file: Ed25519, without a passphrase.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_openssh(path: &Path) -> Result<Self, IdentityError> {
        let text = read_private(path)?;
        let unusable = |why: String| IdentityError::Unusable {
            path: path.to_owned(),
            why,
        };
        let key = ssh_key::PrivateKey::from_openssh(text)
            .map_err(|error| unusable(format!("no OpenSSH private key ({error})")))?;
        if key.is_encrypted() {
            return Err(unusable(format!(
                "protected by a passphrase, and a station starts alone; make a copy without one: \
                 cp {0} {0}.station && ssh-keygen -p -N '' -f {0}.station",
                path.display()
            )));
        }
        let pair = key.key_data().ed25519().ok_or_else(|| {
            unusable(format!(
                "a key of kind {}; expected ssh-ed25519",
                key.algorithm()
            ))
        })?;
        Keypair::ed25519_from_bytes(pair.private.to_bytes())
            .map(Self::from_keypair)
            .map_err(|error| unusable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::test_keys::{OPENSSH, OPENSSH_ENCRYPTED, OPENSSH_PEER, OPENSSH_PUBLIC};
    use super::*;
    use crate::tunnel::StationKey;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("id_ed25519");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        (folder, path)
    }

    #[test]
    fn an_openssh_key_gives_the_peer_id_that_kubo_would_have() {
        let (_folder, path) = file(OPENSSH, 0o600);
        let identity = Identity::from_openssh(&path).expect("an identity");
        assert_eq!(identity.peer_id(), OPENSSH_PEER);
        let of_line = StationKey::from_ssh_line(OPENSSH_PUBLIC)
            .expect("a key")
            .peer_id();
        assert_eq!(of_line.to_string(), OPENSSH_PEER);
        // The identity multihash of the protobuf with the key's 32 bytes, written out by hand.
        let key = ssh_key::PublicKey::from_openssh(OPENSSH_PUBLIC).expect("a key");
        let raw = key.key_data().ed25519().expect("of this kind").0;
        let by_hand = [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20], &raw[..]].concat();
        assert_eq!(of_line.to_bytes(), by_hand);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_needs_a_passphrase_is_refused_with_the_remedy() {
        let (_folder, path) = file(OPENSSH, 0o644);
        let error = Identity::from_openssh(&path).expect_err("refused");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        let (_folder, path) = file(OPENSSH_ENCRYPTED, 0o600);
        let error = Identity::from_openssh(&path).expect_err("refused");
        assert!(error.to_string().contains("passphrase"), "{error}");
        let (_folder, path) = file("no key", 0o600);
        let error = Identity::from_openssh(&path).expect_err("refused");
        assert!(
            error.to_string().contains("no OpenSSH private key"),
            "{error}"
        );
    }
}
