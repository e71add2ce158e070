//! A peer's address, in one normal form.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use url::Url;

/// Why a text is no address that this version can dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A libp2p address: tunnels are not built yet.
    #[error("{0}: tunnels (/ip4/…/p2p/…, /p2p/…) are not built yet; use ws:// or wss://")]
    TunnelsNotBuilt(String),
    /// Not a WebSocket URL.
    #[error("{0}: not a peer address; expected ws://host:port or wss://host")]
    NotAnAddress(String),
}

/// `ws://host:port/path` or `wss://host/path`, normalised: lower-case host, no default port, no credentials or
/// fragment, no slash at the end. Dialled as it was written, compared by its normal form.
#[derive(Debug, Clone)]
pub struct PeerAddress {
    url: Url,
    text: String,
}

impl PeerAddress {
    /// As a URL, for dialling.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The normal form: the key under which a peer is known.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let trimmed = text.trim();
        if trimmed.starts_with('/') {
            return Err(AddressError::TunnelsNotBuilt(trimmed.to_owned()));
        }
        let not_an_address = || AddressError::NotAnAddress(trimmed.to_owned());
        let mut url = Url::parse(trimmed).map_err(|_| not_an_address())?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() || has_credentials {
            return Err(not_an_address());
        }
        url.set_fragment(None);
        let text = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, text })
    }
}

impl PartialEq for PeerAddress {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PeerAddress {}

impl PartialOrd for PeerAddress {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerAddress {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for PeerAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for PeerAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_have_one_key() {
        for text in [
            "ws://Relay.Example:80/",
            " ws://relay.example ",
            "ws://relay.example/#x",
        ] {
            let address: PeerAddress = text.parse().expect("an address");
            assert_eq!(address.as_str(), "ws://relay.example");
        }
        let with_path: PeerAddress = "wss://relay.example:443/nostr/"
            .parse()
            .expect("an address");
        assert_eq!(with_path.as_str(), "wss://relay.example/nostr");
        let without_slash = "wss://relay.example/nostr".parse().expect("an address");
        assert_eq!(with_path, without_slash, "one peer, not two");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_in_words() {
        for text in ["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW", "/p2p/12D3KooW"] {
            assert!(matches!(
                text.parse::<PeerAddress>(),
                Err(AddressError::TunnelsNotBuilt(_))
            ));
        }
        for text in [
            "",
            "http://x",
            "ws://",
            "relay.example",
            "ws://user:pw@relay.example",
        ] {
            assert!(matches!(
                text.parse::<PeerAddress>(),
                Err(AddressError::NotAnAddress(_))
            ));
        }
    }
}
