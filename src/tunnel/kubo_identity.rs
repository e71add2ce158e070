//! The identity of a kubo repository, for a station that takes over from it.
//!
//! Takes the repository's `config` file; gives the key in `Identity.PrivKey` (base64 of libp2p's protobuf: Ed25519, or
//! RSA in older ones). Deliberately absent: using it while that kubo runs, which the caller must prevent: two nodes
//! with one PeerID take each other's connections.

use std::path::Path;

use data_encoding::BASE64;
use libp2p::identity::Keypair;
use serde::Deserialize;

use super::identity::{Identity, IdentityError, read_private};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    identity: ConfigIdentity,
}

#[derive(Deserialize)]
struct ConfigIdentity {
    #[serde(rename = "PeerID")]
    peer: String,
    #[serde(rename = "PrivKey")]
    key: String,
}

impl Identity {
    /// Reads the `config` file of a kubo repository.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_kubo_config(path: &Path) -> Result<Self, IdentityError> {
        let text = read_private(path)?;
        let unusable = |why: &str| IdentityError::Unusable {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        // The parser's own words could quote the key.
        let config: Config = serde_json::from_slice(&text)
            .map_err(|_| unusable("no kubo configuration with Identity.PeerID and PrivKey"))?;
        let pair = BASE64
            .decode(config.identity.key.as_bytes())
            .ok()
            .and_then(|bytes| Keypair::from_protobuf_encoding(&bytes).ok())
            .ok_or_else(|| unusable("Identity.PrivKey is no Ed25519 or RSA key"))?;
        let identity = Self::from_keypair(pair);
        if identity.peer_id() != config.identity.peer {
            return Err(unusable(
                "Identity.PrivKey does not belong to Identity.PeerID",
            ));
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::test_keys::{KUBO_ED25519, KUBO_RSA, KUBO_RSA_PEER, OPENSSH_PEER};
    use super::*;

    fn identity_of(peer: &str, key: &str) -> Result<Identity, IdentityError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config");
        let json = serde_json::json!({"Identity": {"PeerID": peer, "PrivKey": key}, "Swarm": {}});
        fs::write(&path, json.to_string()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        Identity::from_kubo_config(&path)
    }

    #[test]
    fn a_kubo_repository_gives_its_own_peer_id() {
        for (peer, key) in [(OPENSSH_PEER, KUBO_ED25519), (KUBO_RSA_PEER, KUBO_RSA)] {
            assert_eq!(identity_of(peer, key).expect("an identity").peer_id(), peer);
        }
    }

    #[test]
    fn what_is_no_key_or_another_station_s_is_refused_without_telling_the_key() {
        let halved = &KUBO_ED25519[..40];
        for (peer, key) in [
            (OPENSSH_PEER, KUBO_RSA),
            (OPENSSH_PEER, halved),
            (OPENSSH_PEER, "?"),
            (OPENSSH_PEER, ""),
        ] {
            let error = identity_of(peer, key).expect_err("refused");
            assert!(matches!(error, IdentityError::Unusable { .. }), "{error}");
            assert!(!error.to_string().contains(halved), "{error}");
        }
    }
}
