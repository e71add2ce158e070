//! A station's card: what Astroport's `12345.json` has, and what stations of a constellation tell each other besides.
//!
//! Takes JSON; gives the fields we know, all optional but the PeerID. A card by itself is hearsay: it may say where a
//! station is, never who may enter; that is for signed ones (`signed.rs`). Deliberately absent: fetching, and the fields
//! of Astroport that we have no use for (unknown fields are passed over). Worst case: [`CARD_BYTES_MAX`] of JSON.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ConstellationId;
use super::signed::CardError;
use crate::tunnel::{Multiaddr, PeerId, ServiceName, StationKey};

/// Bytes of a card. One with as many vouches and revocations as there may be has 250 kB.
pub const CARD_BYTES_MAX: usize = 256 << 10;
/// Addresses of a station: every network that a machine may have, over two transports, and some relayed ones.
pub const CARD_ADDRESSES_MAX: usize = 16;
/// Bytes of an address, as text: one through a relay has about 200.
const CARD_ADDRESS_BYTES_MAX: usize = 256;
/// Services of a station.
pub const CARD_SERVICES_MAX: usize = 32;
/// Stations that one station lets into the constellation; those let others in.
pub(super) const CARD_VOUCHES_MAX: usize = 1_024;
/// Stations that one station revokes.
pub(super) const CARD_REVOCATIONS_MAX: usize = 1_024;
/// Bytes of a name or URL.
pub const CARD_TEXT_BYTES_MAX: usize = 256;
/// The version of a [`Statement`].
const STATEMENT_VERSION: u32 = 1;

/// A station lets another in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// Whom.
    pub peer: PeerId,
    /// What it signs its cards with, if that is not the key of its PeerID (beside kubo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<StationKey>,
    /// Unix seconds.
    pub since: u64,
}

/// A station wants another to be out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which.
    pub peer: PeerId,
    /// Unix seconds.
    pub at: u64,
}

/// What stations of a constellation tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Of this form: 1.
    pub version: u32,
    /// Which constellation.
    pub id: ConstellationId,
    /// What people call the station.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Grows with every card that a station signs ([`next_sequence`]): by it an old one is known.
    pub sequence: u64,
    /// Where it may be reached. Those of a kind that we do not know are passed over.
    #[serde(default, deserialize_with = "known_addresses")]
    pub addresses: Vec<Multiaddr>,
    /// Where its relay may be reached without a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_url: Option<String>,
    /// What it offers.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Whether it relays for those who cannot be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relays: bool,
    /// The key that signs the card, if it is not the PeerID's (beside kubo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station_key: Option<StationKey>,
    /// Whom it lets in.
    #[serde(default)]
    pub vouches: Vec<Vouch>,
    /// Whom it wants out.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
}

impl Statement {
    /// One that says nothing yet.
    pub fn new(id: ConstellationId, sequence: u64) -> Self {
        Self {
            version: STATEMENT_VERSION,
            id,
            name: None,
            sequence,
            addresses: Vec::new(),
            relay_url: None,
            services: Vec::new(),
            relays: false,
            station_key: None,
            vouches: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// Whether it is of a form that we know and within the bounds.
    pub(super) fn check(&self) -> Result<(), CardError> {
        if self.version != STATEMENT_VERSION {
            return Err(CardError::Version(self.version));
        }
        let long = |text: &Option<String>| {
            text.as_ref()
                .is_some_and(|text| text.len() > CARD_TEXT_BYTES_MAX)
        };
        let too_much = [
            (self.addresses.len() > CARD_ADDRESSES_MAX, "addresses"),
            (self.services.len() > CARD_SERVICES_MAX, "services"),
            (self.vouches.len() > CARD_VOUCHES_MAX, "vouches"),
            (self.revocations.len() > CARD_REVOCATIONS_MAX, "revocations"),
            (long(&self.name), "bytes in its name"),
            (long(&self.relay_url), "bytes in its relay's URL"),
        ];
        match too_much.into_iter().find(|(is_too_much, _)| *is_too_much) {
            Some((_, what)) => Err(CardError::TooMany(what)),
            None => Ok(()),
        }
    }
}

/// As much of a station's name as a card has room for.
pub fn name_in_a_card(name: &str) -> &str {
    &name[..name.floor_char_boundary(CARD_TEXT_BYTES_MAX)]
}

/// Whether a card has room for an address: of a longer one others would learn nothing.
pub fn fits_in_a_card(address: &Multiaddr) -> bool {
    address.to_string().len() <= CARD_ADDRESS_BYTES_MAX
}

/// The sequence of the card after `previous`: the time, so that it also grows if the last one was forgotten.
pub fn next_sequence(previous: u64, now: u64) -> u64 {
    now.max(previous.saturating_add(1))
}

/// A card as it is served, and as Astroport publishes it. Texts that are missing or no text are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The form of Astroport's fields: `12345.0.2`.
    #[serde(rename = "version", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// When it was made, in Unix seconds. A text, as the scripts write it; also read as a number.
    #[serde(default, deserialize_with = "seconds", serialize_with = "as_text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// The machine's name.
    #[serde(default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The relay's URL; one of loopback means: through the tunnel.
    #[serde(rename = "myRELAY", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Which station.
    #[serde(rename = "ipfsnodeid")]
    pub peer: PeerId,
    /// The station's Nostr key.
    #[serde(rename = "NODEHEX", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_pubkey: Option<String>,
    /// Its captain's.
    #[serde(rename = "captainHEX", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captain_pubkey: Option<String>,
    /// Which UPlanet it is of: one of another is never a peer (D16).
    #[serde(rename = "UPLANETG1PUB", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplanet: Option<String>,
    /// Its SSH key.
    #[serde(rename = "SSHPUB", default, deserialize_with = "text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// What Astroport does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constellation: Option<Statement>,
}

impl Card {
    /// One that says nothing but whose it is.
    pub fn of(peer: PeerId) -> Self {
        Self {
            form: None,
            created: None,
            hostname: None,
            relay: None,
            peer,
            node_pubkey: None,
            captain_pubkey: None,
            uplanet: None,
            ssh_key: None,
            constellation: None,
        }
    }

    /// Reads a card. Nothing in it is proved.
    ///
    /// # Errors
    /// [`CardError::TooLarge`], [`CardError::NotACard`].
    pub fn parse(json: &[u8]) -> Result<Self, CardError> {
        if json.len() > CARD_BYTES_MAX {
            return Err(CardError::TooLarge);
        }
        serde_json::from_slice(json).map_err(|error| CardError::NotACard(error.to_string()))
    }
}

/// What Astroport's scripts leave in a field.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Text(String),
    Other(IgnoredAny),
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Text(text) if text.is_empty() => None,
        Value::Text(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Other(_) => None,
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Text(text) => text.trim().parse().ok(),
        Value::Number(number) => Some(number),
        Value::Other(_) => None,
    })
}

fn as_text<S: Serializer>(seconds: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => serializer.collect_str(seconds),
        None => serializer.serialize_none(),
    }
}

fn known_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Multiaddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let known = texts
        .iter()
        .filter(|text| text.len() <= CARD_ADDRESS_BYTES_MAX)
        .filter_map(|text| text.parse().ok());
    Ok(known.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn a_card_of_astroport_is_read_as_its_scripts_write_it() {
        let json = format!(
            r#"{{"version": "12345.0.2", "created": "1700000000", "hostname": "one", "myIP": "192.0.2.1",
                "myRELAY": "wss://relay.example", "ipfsnodeid": "{PEER}", "captain": "", "captainHEX": "ab",
                "NODEHEX": 7, "SSHPUB": null, "UPLANETG1PUB": "", "services": {{"ipfs": {{"active": true}}}},
                "capacities": {{}}, "economy": [1, 2]}}"#
        );
        let card = Card::parse(json.as_bytes()).expect("a card");
        assert_eq!(card.created, Some(1_700_000_000));
        assert_eq!(card.relay.as_deref(), Some("wss://relay.example"));
        assert_eq!(card.peer.to_string(), PEER);
        assert_eq!(card.node_pubkey.as_deref(), Some("7"));
        assert_eq!((card.ssh_key.as_ref(), card.uplanet.as_ref()), (None, None));
        assert_eq!(card.constellation, None);
        for (created, expected) in [
            ("1700000000", Some(1_700_000_000)),
            ("[]", None),
            ("-1", None),
        ] {
            let json = format!(r#"{{"created": {created}, "ipfsnodeid": "{PEER}"}}"#);
            let card = Card::parse(json.as_bytes()).expect("a card");
            assert_eq!(card.created, expected, "{created}");
        }
    }

    #[test]
    fn what_we_write_the_scripts_can_read_and_so_can_we() {
        let peer: PeerId = PEER.parse().expect("a PeerID");
        let mut statement = Statement::new(ConstellationId::of_name("x"), 7);
        statement.addresses = vec!["/ip4/192.0.2.1/tcp/4011".parse().expect("an address")];
        statement.services = vec![ServiceName::strfry()];
        let card = Card {
            created: Some(5),
            relay: Some("ws://127.0.0.1:7777".into()),
            constellation: Some(statement),
            ..Card::of(peer)
        };
        let json = serde_json::to_string(&card).expect("JSON");
        assert!(json.contains(r#""created":"5""#), "{json}");
        assert!(!json.contains("null"), "{json}");
        assert_eq!(Card::parse(json.as_bytes()), Ok(card));
    }

    #[test]
    fn half_a_file_and_a_huge_one_are_refused_and_an_unknown_address_is_not() {
        let statement = Statement::new(ConstellationId::of_name("x"), 7);
        let card = Card {
            constellation: Some(statement),
            ..Card::of(PEER.parse().expect("a PeerID"))
        };
        let json = serde_json::to_string(&card).expect("JSON");
        for end in 0..json.len() {
            let refused = Card::parse(&json.as_bytes()[..end]);
            assert!(matches!(refused, Err(CardError::NotACard(_))), "{end}");
        }
        let huge = format!("{json}{}", " ".repeat(CARD_BYTES_MAX));
        assert_eq!(Card::parse(huge.as_bytes()), Err(CardError::TooLarge));
        let long = format!("/dns4/{}/tcp/1", "x".repeat(CARD_ADDRESS_BYTES_MAX));
        let odd = json.replace(
            r#""addresses":[]"#,
            &format!(r#""addresses":["/warp/9","{long}","/ip4/192.0.2.1/tcp/1"]"#),
        );
        let read = Card::parse(odd.as_bytes()).expect("a card");
        let statement = read.constellation.expect("a statement");
        let known: Vec<_> = statement
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(known, ["/ip4/192.0.2.1/tcp/1"]);
    }

    #[test]
    fn a_sequence_always_grows() {
        assert_eq!(next_sequence(0, 100), 100);
        assert_eq!(next_sequence(100, 100), 101);
        assert_eq!(
            next_sequence(500, 100),
            501,
            "also when the clock was set back"
        );
    }
}
