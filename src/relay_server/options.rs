//! What the operator may set: section `[relay]` of the configuration.
//!
//! Takes TOML (or any serde format); gives [`RelayOptions`], with a default for every key. Unknown keys and values
//! that make no sense are errors, never ignored. Everything but `listen` and `connections_max` may change while the
//! relay runs: connections look at the current options at each message.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use constellation_event::EventLimits;
use nostr::key::PublicKey;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use url::Url;

use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, FILTERS_MAX, NEG_SESSIONS_MAX, PLUGIN_TIMEOUT,
    SUBSCRIPTIONS_MAX,
};
use crate::plugin::{AskedAbout, PluginCommand, PluginFailure, PluginOptions, plugin_timeout};

/// The relay's options.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayOptions {
    /// Address and port to listen on; see [`Self::listens`]. A change takes effect at the next start.
    pub listen: Option<SocketAddr>,
    /// The relay's name, as clients show it.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// How to reach its operator: `mailto:…` or another address.
    pub contact: Option<String>,
    /// The operator's public key: `npub…` or 64 hex digits.
    #[serde(deserialize_with = "optional_key")]
    pub pubkey: Option<PublicKey>,
    /// Addresses by which clients know this relay (`wss://relay.example.org`). Authentication (NIP-42) from elsewhere
    /// than this machine and requests to vanish (NIP-62) must name one of them.
    #[serde(deserialize_with = "relay_addresses")]
    pub own_urls: Vec<String>,
    /// Who may write, besides clients on this machine and admitted stations: `"loopback"` (nobody else), `"scope"`
    /// (the authors and kinds that this station shares), `"anyone"`, or a list of public keys.
    pub write: WritePolicy,
    /// Whether connections from this machine have all rights. Set it to false behind a proxy on this machine that
    /// adds no `X-Forwarded-For`; those that do are recognised.
    pub trust_loopback: bool,
    /// Proxies whose `X-Forwarded-For` is believed to name the client.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether messages are compressed (permessage-deflate) towards clients elsewhere that offer it.
    pub compression: bool,
    /// Connections to the port at a time; a sixteenth of them is kept for programs on this machine. A change takes effect at the next start.
    pub connections_max: usize,
    /// Connections at a time from one address (or IPv6 network of one household); this machine and tunnels are exempt.
    pub connections_per_address_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Filters of one request.
    pub filters_max: usize,
    /// Negentropy sessions of one connection.
    pub negentropy_sessions_max: usize,
    /// Bytes of an event's JSON.
    pub event_bytes_max: usize,
    /// Tags of an event.
    pub event_tags_max: usize,
    /// Events that one connection may publish in a minute; this machine and admitted stations are exempt.
    pub events_per_minute: u32,
    /// A strfry-style write policy plugin, as the words of a command; it is asked before an event is stored.
    pub plugin: Option<PluginCommand>,
    /// How long an event may wait for its answer.
    #[serde(deserialize_with = "plugin_timeout")]
    pub plugin_timeout: Duration,
    /// What is done with an event about which it does not rule.
    pub plugin_on_failure: PluginFailure,
    /// Whose events it is asked about.
    pub plugin_asks: BTreeSet<AskedAbout>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        let event = EventLimits::default();
        Self {
            listen: None,
            name: "constellation".to_owned(),
            description: "A station that keeps its relay equal with those of its constellation."
                .to_owned(),
            contact: None,
            pubkey: None,
            own_urls: Vec::new(),
            write: WritePolicy::Loopback,
            trust_loopback: true,
            trusted_proxies: Vec::new(),
            compression: true,
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            filters_max: FILTERS_MAX,
            negentropy_sessions_max: NEG_SESSIONS_MAX,
            event_bytes_max: event.bytes_max,
            event_tags_max: event.tags_max,
            events_per_minute: 600,
            plugin: None,
            plugin_timeout: PLUGIN_TIMEOUT,
            plugin_on_failure: PluginFailure::default(),
            plugin_asks: BTreeSet::from([AskedAbout::Clients]),
        }
    }
}

impl RelayOptions {
    /// Where it listens: as configured, else on loopback at port 7777, or 7778 beside a home relay.
    pub fn listens(&self, beside_home_relay: bool) -> SocketAddr {
        let port = if beside_home_relay { 7778 } else { 7777 };
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        self.listen.unwrap_or(default)
    }

    /// The write policy plugin, if there is one.
    pub fn plugin_options(&self) -> Option<PluginOptions> {
        Some(PluginOptions {
            command: self.plugin.clone()?,
            timeout: self.plugin_timeout,
            on_failure: self.plugin_on_failure,
            asks: self.plugin_asks.clone(),
        })
    }

    /// How large an event may be.
    pub fn event_limits(&self) -> EventLimits {
        EventLimits {
            bytes_max: self.event_bytes_max,
            tags_max: self.event_tags_max,
        }
    }
}

/// Who may write, besides clients on this machine (anything) and admitted stations (what is in scope).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WritePolicy {
    /// Nobody else.
    Loopback,
    /// The authors of the scope, about its kinds; where the scope has all authors, anyone about its kinds.
    Scope,
    /// Anyone, about anything.
    Anyone,
    /// These authors, about anything.
    Authors(Arc<HashSet<[u8; 32]>>),
}

impl<'de> Deserialize<'de> for WritePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = WritePolicy;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"loopback\", \"scope\", \"anyone\" or a list of public keys (npub or hex)")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<WritePolicy, E> {
        match word {
            "loopback" => Ok(WritePolicy::Loopback),
            "scope" => Ok(WritePolicy::Scope),
            "anyone" => Ok(WritePolicy::Anyone),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut keys: A) -> Result<WritePolicy, A::Error> {
        let mut authors = HashSet::new();
        while let Some(key) = keys.next_element::<String>()? {
            authors.insert(parse_key(&key)?.to_bytes());
        }
        Ok(WritePolicy::Authors(Arc::new(authors)))
    }
}

fn relay_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let addresses = Vec::<String>::deserialize(deserializer)?;
    for address in &addresses {
        let url = Url::parse(address).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host()) {
            return Err(D::Error::invalid_value(
                serde::de::Unexpected::Str(address),
                &"a relay's address (wss://…)",
            ));
        }
    }
    Ok(addresses)
}

fn parse_key<E: Error>(text: &str) -> Result<PublicKey, E> {
    PublicKey::parse(text).map_err(|_| {
        E::invalid_value(
            serde::de::Unexpected::Str(text),
            &"a public key as npub or 64 hex digits",
        )
    })
}

fn optional_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| parse_key(&text))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<RelayOptions, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let options = read("").unwrap();
        assert_eq!(options, RelayOptions::default());
        assert_eq!(options.listens(false).to_string(), "127.0.0.1:7777");
        assert_eq!(options.listens(true).to_string(), "127.0.0.1:7778");
        assert_eq!(options.write, WritePolicy::Loopback);
    }

    #[test]
    fn who_may_write_is_a_word_or_a_list_of_keys() {
        assert_eq!(read("write = 'scope'").unwrap().write, WritePolicy::Scope);
        assert_eq!(read("write = 'anyone'").unwrap().write, WritePolicy::Anyone);
        let npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
        let hex = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
        let policy = read(&format!("write = ['{npub}', '{hex}']")).unwrap().write;
        let key = PublicKey::parse(hex).unwrap().to_bytes();
        assert_eq!(policy, WritePolicy::Authors(Arc::new(HashSet::from([key]))));
        assert_eq!(
            read(&format!("pubkey = '{npub}'")).unwrap().pubkey,
            Some(PublicKey::parse(hex).unwrap())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for toml in [
            "write = 'everybody'",
            "write = ['npub1nonsense']",
            "write = 7",
            "listne = '127.0.0.1:1'",
            "listen = 'here'",
            "own_urls = ['relay.example.org']",
            "plugin = []",
            "plugin = 'policy'",
            "plugin_timeout = '0s'",
            "plugin_timeout = '2h'",
            "plugin_on_failure = 'shrug'",
            "plugin_asks = ['everybody']",
            "pubkey = 'me'",
        ] {
            assert!(read(toml).is_err(), "{toml}");
        }
    }
}
