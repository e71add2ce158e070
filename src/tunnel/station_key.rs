//! The public half of a station's key: what cards are checked with, and what a PeerID is made of.
//!
//! Takes libp2p's protobuf form in hex, or a line of OpenSSH; gives a key that verifies signatures and names its PeerID.
//! Deliberately absent: private keys, and what is signed. Worst case: an RSA key of 8,192 bits, a kilobyte.

use std::fmt;
use std::str::FromStr;

use libp2p::identity::{PublicKey, ed25519};

use super::PeerId;
use crate::protocol::hex;

/// Bytes of a key in libp2p's form: an RSA key of 8,192 bits has 1,068, one of Ed25519 36.
const KEY_BYTES_MAX: usize = 1_100;
/// Characters of an OpenSSH line: an Ed25519 key has 80, the rest is a comment.
const SSH_LINE_CHARS_MAX: usize = 1_024;

/// A text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StationKeyError {
    /// Not libp2p's form in hex.
    #[error("not a libp2p public key: expected its protobuf form in lower-case hex")]
    NotAKey,
    /// Not a line of OpenSSH with a key that a station may have.
    #[error("not an OpenSSH public key of type ed25519: expected `ssh-ed25519 AAAA… comment`")]
    NotAnSshLine,
}

/// A station's public key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationKey(PublicKey);

impl StationKey {
    pub(super) fn new(key: PublicKey) -> Self {
        Self(key)
    }

    /// The key of a line such as `ssh-ed25519 AAAA… captain@home`: the station whose identity it is has its PeerID.
    ///
    /// # Errors
    /// [`StationKeyError::NotAnSshLine`].
    pub fn from_ssh_line(line: &str) -> Result<Self, StationKeyError> {
        let line = line.trim();
        if line.len() > SSH_LINE_CHARS_MAX {
            return Err(StationKeyError::NotAnSshLine);
        }
        ssh_key::PublicKey::from_openssh(line)
            .ok()
            .and_then(|key| ed25519::PublicKey::try_from_bytes(&key.key_data().ed25519()?.0).ok())
            .map(|key| Self(PublicKey::from(key)))
            .ok_or(StationKeyError::NotAnSshLine)
    }

    /// The PeerID of the station whose identity this is.
    pub fn peer_id(&self) -> PeerId {
        self.0.to_peer_id()
    }

    /// Whether it is one of the short kind: Ed25519.
    pub fn is_ed25519(&self) -> bool {
        self.0.clone().try_into_ed25519().is_ok()
    }

    /// Whether `signature` was made over `message` with the private half.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify(message, signature)
    }
}

impl fmt::Display for StationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0.encode_protobuf()))
    }
}

impl FromStr for StationKey {
    type Err = StationKeyError;

    fn from_str(text: &str) -> Result<Self, StationKeyError> {
        if text.len() > 2 * KEY_BYTES_MAX {
            return Err(StationKeyError::NotAKey);
        }
        hex::decode(text)
            .and_then(|bytes| PublicKey::try_decode_protobuf(&bytes).ok())
            .map(Self)
            .ok_or(StationKeyError::NotAKey)
    }
}

impl serde::Serialize for StationKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for StationKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::Identity;

    #[test]
    fn a_key_survives_its_text_and_verifies_only_what_it_signed() {
        let (ours, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let key = ours.public_key();
        assert_eq!(key.peer_id().to_string(), ours.peer_id());
        let again: StationKey = key.to_string().parse().expect("its own text");
        assert_eq!(again, key);
        assert_eq!(key.to_string().len(), 72);
        let signature = ours.sign(b"message").expect("signed");
        assert!(again.verify(b"message", &signature));
        assert!(!again.verify(b"massage", &signature));
        assert!(!again.verify(b"message", &[]));
        assert!(!other.public_key().verify(b"message", &signature));
        for text in ["", "00", "zz", &"00".repeat(5_000)] {
            assert_eq!(text.parse::<StationKey>(), Err(StationKeyError::NotAKey));
        }
    }

    /// The key is from RFC 8032, test 1; the PeerID was worked out by hand from libp2p's specification of PeerIDs:
    /// base58 of `00 24 08 01 12 20 ‖ key`.
    #[test]
    fn an_ssh_line_has_the_peer_id_of_the_key_in_it() {
        let bytes = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let multihash = hex::decode(&format!("002408011220{bytes}")).expect("hex");
        let expected = bs58::encode(multihash).into_string();
        let line = "ssh-ed25519 \
             AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea captain@home";
        let key = StationKey::from_ssh_line(line).expect("a key");
        assert_eq!(key.peer_id().to_string(), expected);
        assert!(key.is_ed25519());
        for wrong in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAB3NzaC1yc2E=",
        ] {
            let refused = StationKey::from_ssh_line(wrong);
            assert_eq!(refused, Err(StationKeyError::NotAnSshLine));
        }
    }
}
