//! NIP-42: which keys a client has proven to hold.
//!
//! Takes AUTH events; keeps a bounded set of keys. An event proves its key if it is genuine, fresh, carries this
//! connection's challenge and names this relay. Invariant: the relay's name never comes from the client alone. The
//! `Host` header counts only where it is an address on which the connection in fact arrived, or the client is on
//! this machine; else another relay could pass our challenge on to its own users and come back with their proof.

use std::collections::BTreeSet;
use std::sync::Arc;

use constellation_event::{EventLimits, UnverifiedEvent};
use constellation_eventstore::Readership;
use nostr::event::Event;
use nostr::key::PublicKey;
use url::{Host, Url};

use super::bounds::{AUTH_BYTES_MAX, AUTH_SECONDS_MAX, AUTHENTICATED_KEYS_MAX};
use super::context::RemoteParty;
use super::publish::{AUTHENTICATION_KIND, Answer};
use crate::protocol::{ReasonPrefix, hex};
use crate::random::Random;

/// Who a client has shown to be.
#[derive(Debug)]
pub(super) struct Authentication {
    challenge: String,
    keys: Arc<BTreeSet<PublicKey>>,
    readership: Readership,
}

/// The refusal of an AUTH whose event has no readable id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Authentication {
    /// Nobody yet; whoever is trusted without proof may read everything.
    pub(super) fn new(party: &RemoteParty, random: &Random) -> Self {
        Self {
            challenge: hex::encode(&random.bytes::<16>()),
            keys: Arc::default(),
            readership: if party.is_trusted() {
                Readership::Full
            } else {
                Readership::public()
            },
        }
    }

    /// What the client has to sign.
    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// The keys that were proven.
    pub(super) fn keys(&self) -> &Arc<BTreeSet<PublicKey>> {
        &self.keys
    }

    /// What the client may read now.
    pub(super) fn readership(&self) -> &Readership {
        &self.readership
    }

    /// Whether the client may be shown any private event at all.
    pub(super) fn may_ask_for_private(&self) -> bool {
        self.readership == Readership::Full || !self.keys.is_empty()
    }

    /// Takes the event of an AUTH.
    pub(super) fn authenticate(
        &mut self,
        json: &str,
        names: &RelayNames<'_>,
        now: u64,
    ) -> Result<Answer, Unreadable> {
        let limits = EventLimits {
            bytes_max: AUTH_BYTES_MAX,
            ..EventLimits::default()
        };
        let event = UnverifiedEvent::parse(json.as_bytes(), &limits).map_err(|_| Unreadable)?;
        let id = event.id();
        let refused = |text| Ok(Answer::refused(id, ReasonPrefix::Invalid, text));
        if let Err(text) = self.check(&event.to_event(), names, now) {
            return refused(text);
        }
        let Ok(event) = event.verify() else {
            return refused("bad id or signature");
        };
        if self.keys.len() >= AUTHENTICATED_KEYS_MAX {
            return refused("too many keys");
        }
        let key = PublicKey::from_byte_array(*event.author());
        Arc::make_mut(&mut self.keys).insert(key);
        if let Readership::Keys(keys) = &mut self.readership {
            keys.insert(key);
        }
        Ok(Answer {
            id,
            accepted: true,
            reason: String::new(),
        })
    }

    fn check(&self, event: &Event, names: &RelayNames<'_>, now: u64) -> Result<(), &'static str> {
        let tag = |name: &str| {
            let tag = event.tags.iter().find(|tag| tag.kind() == name);
            tag.and_then(|tag| tag.content())
        };
        if event.kind.as_u16() != AUTHENTICATION_KIND {
            return Err("not an event of kind 22242");
        }
        if event.created_at.as_secs().abs_diff(now) > AUTH_SECONDS_MAX {
            return Err("created_at is not within ten minutes");
        }
        if tag("challenge") != Some(self.challenge.as_str()) {
            return Err("not the challenge of this connection");
        }
        if !tag("relay").is_some_and(|relay| names.include(relay)) {
            return Err(
                "the relay tag names another relay; its operator lists our names in own_urls",
            );
        }
        Ok(())
    }
}

/// By which names a client may call this relay.
#[derive(Debug)]
pub(super) struct RelayNames<'a> {
    /// What the operator says.
    pub(super) own_urls: &'a [String],
    /// What the client wrote into its `Host` header.
    pub(super) host: Option<&'a str>,
    /// Who the client is.
    pub(super) party: &'a RemoteParty,
}

impl RelayNames<'_> {
    fn include(&self, relay: &str) -> bool {
        let Some(relay) = RelayName::parse(relay) else {
            return false;
        };
        self.own_urls
            .iter()
            .filter_map(|own| RelayName::parse(own))
            .any(|own| own == relay)
            || self.host_is(&relay)
    }

    fn host_is(&self, relay: &RelayName) -> bool {
        let Some(host) = self
            .host
            .and_then(|host| Url::parse(&format!("ws://{host}")).ok())
        else {
            return false;
        };
        let address = match host.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(std::net::IpAddr::from(ip).to_canonical()),
            _ => None,
        };
        let reached_at = self
            .party
            .reached_at
            .map(|reached| reached.ip().to_canonical());
        let credible = self.party.loopback || (address.is_some() && address == reached_at);
        // Without a port it may have been reached in the clear or through TLS.
        let ports = match host.port() {
            Some(port) => [port, port],
            None => [80, 443],
        };
        credible && host.host_str() == Some(&relay.host) && ports.contains(&relay.port)
    }
}

/// What of an address names a relay.
#[derive(Debug, PartialEq, Eq)]
struct RelayName {
    host: String,
    port: u16,
    path: String,
}

impl RelayName {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return None;
        }
        Some(Self {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(own: &[&str], host: Option<&str>, party: &RemoteParty, relay: &str) -> bool {
        let own_urls: Vec<String> = own.iter().map(|url| (*url).to_owned()).collect();
        RelayNames {
            own_urls: &own_urls,
            host,
            party,
        }
        .include(relay)
    }

    #[test]
    fn own_urls_count_in_any_spelling_and_nothing_else_of_a_stranger_does() {
        let stranger = RemoteParty::of_tcp("198.51.100.7:1".parse().unwrap(), None);
        let own = ["wss://Relay.example.org"];
        let host = Some("evil.example");
        for relay in ["wss://relay.example.org/", "wss://RELAY.example.org:443"] {
            assert!(includes(&own, host, &stranger, relay), "{relay}");
        }
        for relay in [
            "wss://evil.example",
            "ws://evil.example/",
            "wss://relay.example.org.evil.example/",
            "wss://relay.example.org/other",
            "https://relay.example.org/",
            "relay.example.org",
            "",
        ] {
            assert!(!includes(&own, host, &stranger, relay), "{relay}");
        }
    }

    #[test]
    fn the_host_header_counts_where_it_is_true() {
        let here = RemoteParty::of_tcp("127.0.0.1:1".parse().unwrap(), None);
        let host = Some("localhost:7777");
        assert!(includes(&[], host, &here, "ws://localhost:7777/"));
        assert!(!includes(&[], host, &here, "ws://localhost:7778/"));
        assert!(includes(
            &[],
            Some("relay.local"),
            &here,
            "wss://relay.local"
        ));

        let reached = Some("192.0.2.1:7777".parse().unwrap());
        let lan = RemoteParty::of_tcp("192.0.2.9:1".parse().unwrap(), reached);
        assert!(includes(
            &[],
            Some("192.0.2.1:7777"),
            &lan,
            "ws://192.0.2.1:7777"
        ));
        let (other, relay) = (Some("192.0.2.66:7777"), "ws://192.0.2.66:7777");
        assert!(!includes(&[], other, &lan, relay));
        assert!(!includes(&[], None, &lan, "ws://192.0.2.1:7777"));
    }
}
