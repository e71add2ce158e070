//! A peer's address, in one normal form: a relay's URL, or a station by its PeerID.
//!
//! Takes what captains write; gives something that can be dialled, and the key under which the peer is known. A station
//! is known by its PeerID whatever the address it was written with: addresses change, a station does not.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use multiaddr::{Multiaddr, PeerId, Protocol};
use url::{Host, Url};

/// Why a text is no address that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a WebSocket URL.
    #[error(
        "{0}: not a peer address; expected ws://host:port, wss://host, /ip4/…/tcp/…/p2p/<PeerID> or /p2p/<PeerID>"
    )]
    NotAnAddress(String),
    /// A libp2p address that is malformed.
    #[error(
        "{text}: not a multiaddr ({why}); expected for instance /ip4/192.0.2.1/tcp/4011/p2p/<PeerID>"
    )]
    NotAMultiaddr {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A libp2p address that does not say whose it is.
    #[error("{0}: does not say which station it leads to; add /p2p/<PeerID> at its end")]
    NoPeerId(String),
}

/// A station: its PeerID, and where it may be found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StationAddress {
    /// Who it is.
    pub peer: PeerId,
    /// Where it may be reached, with `/p2p/<PeerID>` at its end; `None` if others know.
    pub hint: Option<Multiaddr>,
}

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A relay, dialled over TCP or TLS.
    Relay(Url),
    /// A station, reached through a tunnel.
    Station(StationAddress),
}

/// `ws://host:port/path` or `wss://host/path`, normalised: lower-case host, no default port, no credentials or
/// fragment, no slash at the end; or `/p2p/<PeerID>`, with or without an address before it. Dialled as it was written,
/// compared by its normal form, in which this machine has one name (127.0.0.1): who takes the home relay under another
/// spelling for one more relay sends it events past its import.
#[derive(Debug, Clone)]
pub struct PeerAddress(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    target: Target,
    /// The URL of the conversation: the relay's own, or one that stands for the station.
    url: Url,
    text: String,
}

impl PeerAddress {
    /// A station that others know how to reach.
    pub fn of_station(peer: PeerId) -> Self {
        Self::from_station(StationAddress { peer, hint: None })
    }

    fn from_station(station: StationAddress) -> Self {
        let url = Url::parse(&format!("ws://{}.p2p", station.peer))
            .expect("a PeerID has letters and digits only");
        Self(Arc::new(Parts {
            url,
            text: format!("/p2p/{}", station.peer),
            target: Target::Station(station),
        }))
    }

    /// What to dial.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// The station's PeerID, if it is one.
    pub fn peer_id(&self) -> Option<PeerId> {
        match &self.0.target {
            Target::Station(station) => Some(station.peer),
            Target::Relay(_) => None,
        }
    }

    /// Host and path of the conversation's request. For a station the host is only a name.
    pub fn url(&self) -> &Url {
        &self.0.url
    }

    /// The normal form: the key under which a peer is known.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// As it can be dialled: for a station with its hint.
    pub fn written(&self) -> String {
        match &self.0.target {
            Target::Station(StationAddress {
                hint: Some(hint), ..
            }) => hint.to_string(),
            Target::Station(_) => self.0.text.clone(),
            Target::Relay(url) => without_slash(url).to_owned(),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let trimmed = text.trim();
        if trimmed.starts_with('/') {
            return station_address(trimmed).map(Self::from_station);
        }
        let not_an_address = || AddressError::NotAnAddress(trimmed.to_owned());
        let mut url = Url::parse(trimmed).map_err(|_| not_an_address())?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() || has_credentials {
            return Err(not_an_address());
        }
        url.set_fragment(None);
        let text = without_slash(&normal_form(&url)).to_owned();
        Ok(Self(Arc::new(Parts {
            target: Target::Relay(url.clone()),
            url,
            text,
        })))
    }
}

fn without_slash(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// The same URL, with the usual name of this machine's loopback for its other spellings.
fn normal_form(url: &Url) -> Url {
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.') == "localhost",
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Ipv4(_)) | None => false,
    };
    let mut normal = url.clone();
    if is_here {
        normal
            .set_host(Some("127.0.0.1"))
            .expect("a URL with a host takes another one");
    }
    normal
}

/// Reads a multiaddr that ends in `/p2p/<PeerID>`; `/ipfs/<PeerID>`, its older spelling, means the same.
fn station_address(text: &str) -> Result<StationAddress, AddressError> {
    let address: Multiaddr =
        text.parse()
            .map_err(|error: multiaddr::Error| AddressError::NotAMultiaddr {
                text: text.to_owned(),
                why: error.to_string(),
            })?;
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err(AddressError::NoPeerId(text.to_owned()));
    };
    let hint = (address.iter().count() > 1).then_some(address);
    Ok(StationAddress { peer, hint })
}

impl PartialEq for PeerAddress {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
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
        self.0.text.cmp(&other.0.text)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl serde::Serialize for PeerAddress {
    /// As it can be dialled: whoever reads it must be able to.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written())
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

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

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
    fn this_machine_is_one_relay_however_it_is_spelled_and_dialled_as_it_was_written() {
        let usual: PeerAddress = "ws://127.0.0.1:7777".parse().expect("an address");
        for text in [
            "ws://localhost:7777",
            "ws://LOCALHOST.:7777/",
            "ws://[::1]:7777",
            "ws://[::ffff:127.0.0.1]:7777",
            "ws://127.1:7777",
        ] {
            let address: PeerAddress = text.parse().expect("an address");
            assert_eq!(address, usual, "{text}");
        }
        let address: PeerAddress = "ws://[::1]:7777/".parse().expect("an address");
        assert_eq!(address.written(), "ws://[::1]:7777");
        for text in ["ws://127.0.0.1:7778", "ws://localhost.example:7777"] {
            let address: PeerAddress = text.parse().expect("an address");
            assert_ne!(address, usual, "{text}");
        }
    }

    #[test]
    fn a_station_is_known_by_its_peer_id_and_dialled_as_it_was_written() {
        let known: PeerAddress = format!("/p2p/{PEER}").parse().expect("an address");
        for text in [
            format!("/ip4/192.0.2.1/tcp/4011/p2p/{PEER}"),
            format!("/dns4/a.example/udp/4011/quic-v1/p2p/{PEER}"),
            format!(" /ip4/192.0.2.1/tcp/4011/ipfs/{PEER} "),
        ] {
            let address: PeerAddress = text.parse().expect("an address");
            assert_eq!(address, known);
            assert_eq!(address.to_string(), format!("/p2p/{PEER}"));
            assert!(
                address.written().starts_with("/ip4") || address.written().starts_with("/dns4")
            );
            let json = serde_json::to_string(&address).expect("a text");
            let again: PeerAddress = serde_json::from_str(&json).expect("an address");
            assert_eq!(again.target(), address.target(), "the hint is not lost");
        }
        assert_eq!(known.written(), format!("/p2p/{PEER}"));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_in_words() {
        for text in ["/ip4/127.0.0.1/tcp/x", "/p2p/12D3KooW", "/nonsense"] {
            let error = text.parse::<PeerAddress>().expect_err("refused");
            assert!(
                matches!(error, AddressError::NotAMultiaddr { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(matches!(
            "/ip4/127.0.0.1/tcp/4011".parse::<PeerAddress>(),
            Err(AddressError::NoPeerId(_))
        ));
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
