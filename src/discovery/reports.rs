//! What captains are shown of who there is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::holdings::Holdings;
use super::registry::Registry;
use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::time::rfc3339;
use crate::tunnel::Source;

/// What `constellation invite` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationReport {
    /// For `constellation join`.
    pub token: String,
    /// RFC 3339, UTC.
    pub expires_at: String,
    /// Where the newcomer will look for us.
    pub addresses: Vec<String>,
}

/// A station or relay, as `constellation peers` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// `/p2p/<PeerID>`, or a relay's URL.
    pub address: String,
    /// What it calls itself.
    pub name: Option<String>,
    /// Whether it may enter: `admitted`, `revoked`, or `stranger`; `null` for relays.
    pub standing: Option<String>,
    /// Why: `allowed` here, or through whom it came in, or who revoked it.
    pub why: Option<String>,
    /// Sources that know of it.
    pub sources: Vec<Source>,
    /// Where it may be reached.
    pub addresses: Vec<String>,
    /// Its relay, where that is not reached through its tunnel.
    pub relay: Option<String>,
    /// RFC 3339, UTC: when its card was signed.
    pub card_at: Option<String>,
}

impl Registry {
    /// Every station and relay that is known of.
    pub fn peers(&self) -> Vec<PeerReport> {
        let inner = self.lock();
        let mut peers: BTreeSet<PeerId> = inner.roster.iter().map(|(peer, _)| *peer).collect();
        peers.extend(inner.standing.admitted.keys());
        peers.extend(inner.standing.revoked.keys());
        peers.remove(&self.options.own);
        let relays = inner.settings.peers.iter().chain(&inner.added);
        let relays = relays.filter(|address| address.peer_id().is_none());
        let stations = peers.iter().map(|peer| inner.report(peer));
        stations.chain(relays.map(relay_report)).collect()
    }
}

/// How it is said that our captain put a station out.
pub(super) const REVOKED_HERE: &str = "revoked here";

fn relay_report(address: &PeerAddress) -> PeerReport {
    PeerReport {
        address: address.to_string(),
        name: None,
        standing: None,
        why: None,
        sources: vec![Source::Static],
        addresses: Vec::new(),
        relay: None,
        card_at: None,
    }
}

impl Holdings {
    /// By whom a station is out, in words.
    pub(super) fn revoked_by(&self, peer: &PeerId) -> Option<String> {
        let revoked = self.standing.revoked.get(peer)?;
        Some(if revoked.by == self.standing.me {
            REVOKED_HERE.to_owned()
        } else {
            format!("revoked by {}", revoked.by)
        })
    }

    fn report(&self, peer: &PeerId) -> PeerReport {
        let entry = self.roster.get(peer);
        let (standing, why) = if let Some(by) = self.revoked_by(peer) {
            ("revoked", Some(by))
        } else if let Some(why) = self.standing.admitted.get(peer) {
            let through = if why.through == self.standing.me {
                "by our word".to_owned()
            } else {
                format!("{} vouches for it", why.through)
            };
            ("admitted", Some(through))
        } else if self.may_enter(peer) {
            let by_key = "whoever holds the swarm key may enter".to_owned();
            ("admitted", Some(by_key))
        } else {
            ("stranger", None)
        };
        PeerReport {
            address: PeerAddress::of_station(*peer).to_string(),
            name: entry.and_then(|entry| entry.name.clone()),
            standing: Some(standing.to_owned()),
            why,
            sources: entry
                .map(|entry| entry.seen.keys().copied().collect())
                .unwrap_or_default(),
            addresses: entry
                .map(|entry| entry.addresses.iter().map(Multiaddr::to_string).collect())
                .unwrap_or_default(),
            relay: entry
                .and_then(|entry| entry.relay.as_ref())
                .map(PeerAddress::to_string),
            card_at: self.book.get(peer).map(|card| rfc3339(card.created())),
        }
    }
}
