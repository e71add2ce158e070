//! Which connections there are, and which of several with one station is the best.
//!
//! Takes what the driver sees; gives the connection to open a stream on, and the state to publish. Pure. Direct ones
//! come before relayed ones, of those the newest: an older one may be dead without knowing.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;

use super::addresses::is_relayed;
use super::streams::Door;
use crate::tunnel::{LinkState, Multiaddr, Path, PeerId};

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) path: Path,
    pub(super) address: Multiaddr,
    /// Whether the other end called.
    pub(super) called_us: bool,
    /// Whether the station was admitted or wanted when it began: else it bears few streams.
    pub(super) wide: bool,
    /// Whether the station was admitted when last looked.
    pub(super) admitted: bool,
    pub(super) rtt: Option<Duration>,
}

/// All connections with one station.
#[derive(Debug, Default)]
pub(super) struct PeerLinks {
    links: Vec<Link>,
    since: u64,
}

impl PeerLinks {
    pub(super) fn best(&self) -> Option<&Link> {
        self.links
            .iter()
            .enumerate()
            .max_by_key(|(age, link)| (link.path == Path::Direct, *age))
            .map(|(_, link)| link)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<PeerId, PeerLinks>);

impl Links {
    pub(super) fn of(&self, peer: &PeerId) -> Option<&PeerLinks> {
        self.0.get(peer)
    }

    pub(super) fn best(&self, peer: &PeerId) -> Option<&Link> {
        self.of(peer)?.best()
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// Whether there is a connection, and none is direct.
    pub(super) fn is_only_relayed(&self, peer: &PeerId) -> bool {
        self.best(peer)
            .is_some_and(|link| link.path == Path::Relayed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &PeerLinks)> {
        self.0.iter()
    }

    pub(super) fn established(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        door: &Door,
        now: u64,
    ) {
        let address = endpoint.get_remote_address().clone();
        let relayed = endpoint.is_relayed() || is_relayed(&address);
        let peers = self.0.entry(peer).or_insert_with(|| PeerLinks {
            links: Vec::new(),
            since: now,
        });
        peers.links.push(Link {
            id,
            path: if relayed { Path::Relayed } else { Path::Direct },
            address,
            called_us: endpoint.is_listener(),
            wide: door.is_trusted(&peer),
            admitted: door.is_admitted(&peer),
            rtt: None,
        });
    }

    /// Whether it was the last one with this station.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        let Some(peers) = self.0.get_mut(peer) else {
            return false;
        };
        peers.links.retain(|link| link.id != id);
        let last = peers.links.is_empty();
        if last {
            self.0.remove(peer);
        }
        last
    }

    pub(super) fn measured(&mut self, peer: &PeerId, id: ConnectionId, rtt: Duration) {
        let links = self.0.get_mut(peer).map(|peers| &mut peers.links);
        if let Some(link) = links.and_then(|links| links.iter_mut().find(|link| link.id == id)) {
            link.rtt = Some(rtt);
        }
    }

    /// Looks again who is admitted; gives those who are not any more.
    pub(super) fn not_admitted_any_more(&mut self, door: &Door) -> Vec<PeerId> {
        let mut out = Vec::new();
        for (peer, peers) in &mut self.0 {
            let admitted = door.is_admitted(peer);
            let was = peers.links.iter().any(|link| link.admitted);
            if door.is_banned(peer) || (was && !admitted) || door.has_unwelcome_streams(peer) {
                out.push(*peer);
            }
            for link in &mut peers.links {
                link.admitted = admitted;
            }
        }
        out
    }

    pub(super) fn states(&self, door: &Door) -> BTreeMap<String, LinkState> {
        let state = |(peer, peers): (&PeerId, &PeerLinks)| {
            let best = peers.best()?;
            let counts = door.counts(peer);
            let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let state = LinkState {
                path: best.path,
                address: best.address.to_string(),
                rtt_ms: best.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                streams_out: narrow(counts.outward),
                streams_in: narrow(counts.inward),
                since: peers.since,
            };
            Some((peer.to_string(), state))
        };
        self.0.iter().filter_map(state).collect()
    }
}
