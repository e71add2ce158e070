//! Which connections there are, and which of several with one station is the best.
//!
//! Takes what the driver sees; gives the connection to open a stream on, those that are superfluous, and the state to
//! publish. Pure. Direct ones come before relayed ones. Of those alike one lasts, by a rule that both ends agree on:
//! what the smaller PeerID dialled; of what the same end dialled the newest direct one (an older one may be dead without
//! knowing) and the oldest relayed one (a newer one only asks for another attempt to become direct). A connection that
//! answers no ping is not used, not published, and hides no other. Worst case: a dead one is believed in for
//! [`SILENT_AFTER`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::addresses::{is_relayed, leads_through};
use super::behaviour::{PING_DEADLINE, PING_EVERY};
use super::streams::Door;
use crate::tunnel::{LinkState, Multiaddr, Path, PeerId};

/// A connection that has answered no ping for so long is taken for dead: one answer is overdue, with a second to spare.
/// libp2p itself reports only the second failure in a row.
pub(super) const SILENT_AFTER: Duration = PING_EVERY
    .saturating_add(PING_DEADLINE)
    .saturating_add(Duration::from_secs(1));
/// How long both ends may try to become direct over a fresh relayed connection: three attempts of eight seconds.
pub(super) const PUNCH_LASTS: Duration = Duration::from_secs(25);
/// Connections with one station, above which no more are made in order to become direct.
const PUNCH_LINKS_MAX: usize = 3;

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) path: Path,
    pub(super) address: Multiaddr,
    /// Whether the other end called.
    pub(super) called_us: bool,
    /// Whether it was our attempt. One that was made from both sides at once has an owner too, and both know which.
    is_ours: bool,
    /// Whether the station with the smaller PeerID made it.
    is_of_smaller: bool,
    /// Whether the station was admitted or wanted when it began: else it bears few streams.
    pub(super) wide: bool,
    /// Whether the station was admitted when it began: else we do not relay on it.
    pub(super) admitted_when_made: bool,
    /// Whether the station was admitted when last looked.
    pub(super) admitted: bool,
    rtt: Option<Duration>,
    /// Our end's IP address, where it is known.
    local_ip: Option<IpAddr>,
    made: Instant,
    since: u64,
    /// When it answered last; whoever answers no pings at all is believed in.
    heard: Option<Instant>,
    is_silent: bool,
    /// It is being closed: whatever it still answers, it is not used again.
    is_given_up: bool,
}

impl Link {
    /// Whether both ends are to keep this one rather than the other. One that has not answered since the other was made
    /// may be dead, which could be why the other was made.
    fn outlasts(&self, other: &Self) -> bool {
        if self.path != other.path {
            return self.path == Path::Direct;
        }
        // A relayed copy is made to become direct, not because the one before is in doubt.
        let may_be_dead = self.path == Path::Direct;
        if may_be_dead && self.heard.is_some_and(|heard| heard < other.made) {
            return false;
        }
        if self.is_of_smaller != other.is_of_smaller {
            return self.is_of_smaller;
        }
        match self.path {
            Path::Direct => self.made > other.made,
            Path::Relayed => self.made < other.made,
        }
    }

    /// Whether it may be closed, since the best one serves. In doubt about the order only who dialled closes, so that
    /// the two ends never close one each.
    fn is_replaced_by(&self, best: &Self, now: Instant) -> bool {
        if self.id == best.id || !best.outlasts(self) {
            return false;
        }
        let agreed = best.is_ours != self.is_ours || self.is_ours;
        let has_served = self.path == Path::Direct || now >= self.made + PUNCH_LASTS;
        best.path != self.path || (agreed && has_served)
    }
}

/// What is known of a connection when it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'e> {
    pub(super) id: ConnectionId,
    pub(super) endpoint: &'e ConnectedPoint,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) now: Instant,
    pub(super) unix_seconds: u64,
}

/// All connections with one station.
#[derive(Debug)]
pub(super) struct PeerLinks {
    links: Vec<Link>,
    since: Instant,
}

impl PeerLinks {
    /// The one to be used; `None` if none answers.
    pub(super) fn best(&self) -> Option<&Link> {
        let answering = self.links.iter().filter(|link| !link.is_silent);
        answering.reduce(|best, newer| if best.outlasts(newer) { best } else { newer })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// Those that the best one has replaced.
    pub(super) fn replaced(&self, now: Instant) -> impl Iterator<Item = &Link> {
        let best = self.best();
        let is_replaced =
            move |link: &&Link| best.is_some_and(|best| link.is_replaced_by(best, now));
        self.links.iter().filter(is_replaced)
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Links {
    local: PeerId,
    peers: BTreeMap<PeerId, PeerLinks>,
}

impl Links {
    pub(super) fn new(local: PeerId) -> Self {
        Self {
            local,
            peers: BTreeMap::new(),
        }
    }

    pub(super) fn of(&self, peer: &PeerId) -> Option<&PeerLinks> {
        self.peers.get(peer)
    }

    pub(super) fn best(&self, peer: &PeerId) -> Option<&Link> {
        self.of(peer)?.best()
    }

    /// Whether there is a connection that answers.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.best(peer).is_some()
    }

    /// Whether there is a connection, and none is direct.
    pub(super) fn is_only_relayed(&self, peer: &PeerId) -> bool {
        self.best(peer)
            .is_some_and(|link| link.path == Path::Relayed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &PeerLinks)> {
        self.peers.iter()
    }

    pub(super) fn established(&mut self, peer: PeerId, made: Made<'_>, door: &Door) {
        let address = made.endpoint.get_remote_address().clone();
        let relayed = made.endpoint.is_relayed() || is_relayed(&address);
        let is_ours = is_our_attempt(made.endpoint);
        let peers = self.peers.entry(peer).or_insert_with(|| PeerLinks {
            links: Vec::new(),
            since: made.now,
        });
        peers.links.push(Link {
            id: made.id,
            path: if relayed { Path::Relayed } else { Path::Direct },
            address,
            called_us: made.endpoint.is_listener(),
            is_ours,
            is_of_smaller: is_ours == (self.local < peer),
            wide: door.is_trusted(&peer),
            admitted_when_made: door.is_admitted(&peer),
            admitted: door.is_admitted(&peer),
            rtt: None,
            local_ip: made.local_ip,
            made: made.now,
            since: made.unix_seconds,
            heard: Some(made.now),
            is_silent: false,
            is_given_up: false,
        });
    }

    /// How long there have been connections with this station, if it was the last one.
    pub(super) fn closed(
        &mut self,
        peer: &PeerId,
        id: ConnectionId,
        now: Instant,
    ) -> Option<Duration> {
        let peers = self.peers.get_mut(peer)?;
        peers.links.retain(|link| link.id != id);
        if !peers.links.is_empty() {
            return None;
        }
        let lasted = now.saturating_duration_since(peers.since);
        self.peers.remove(peer);
        Some(lasted)
    }

    pub(super) fn measured(
        &mut self,
        peer: &PeerId,
        id: ConnectionId,
        rtt: Duration,
        now: Instant,
    ) {
        if let Some(link) = self.link_mut(peer, id) {
            link.rtt = Some(rtt);
            link.heard = Some(now);
            link.is_silent = link.is_given_up;
        }
    }

    /// Whoever does not speak the ping protocol is never taken for dead.
    pub(super) fn answers_no_pings(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(link) = self.link_mut(peer, id) {
            link.heard = None;
            link.is_silent = link.is_given_up;
        }
    }

    /// It is dead: not to be used any more.
    pub(super) fn dead(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(link) = self.link_mut(peer, id) {
            link.is_silent = true;
            link.is_given_up = true;
        }
    }

    /// Looks which ones have not answered for too long; gives those that began to be silent.
    pub(super) fn fallen_silent(&mut self, now: Instant) -> Vec<PeerId> {
        let mut fallen = Vec::new();
        for (peer, peers) in &mut self.peers {
            for link in &mut peers.links {
                let heard = link.heard;
                let overdue = heard.is_some_and(|heard| now >= heard + SILENT_AFTER);
                if overdue && !link.is_silent {
                    link.is_silent = true;
                    fallen.push(*peer);
                }
            }
        }
        fallen
    }

    /// Those whose end here has this IP address.
    pub(super) fn at(&self, ip: IpAddr) -> Vec<(PeerId, ConnectionId)> {
        let of_peer = |(peer, peers): (&PeerId, &PeerLinks)| {
            let peer = *peer;
            let there = peers
                .links
                .iter()
                .filter(|link| link.local_ip == Some(ip))
                .map(|link| (peer, link.id));
            there.collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(of_peer).collect()
    }

    /// The way to a station that a fresh relayed connection may take, so that both ends try again to become direct: that
    /// of the present one if we made it, and not only just.
    pub(super) fn way_to_punch(&self, peer: &PeerId, now: Instant) -> Option<Multiaddr> {
        let peers = self.of(peer)?;
        let best = peers.best()?;
        let may = best.path == Path::Relayed
            && best.is_ours
            && now >= best.made + PUNCH_LASTS
            && peers.links.len() < PUNCH_LINKS_MAX;
        may.then(|| best.address.clone())
    }

    /// Whether a connection with another station goes through this one.
    pub(super) fn lead_through(&self, relay: &PeerId) -> bool {
        let all = self.peers.values().flat_map(PeerLinks::iter);
        let mut relayed = all.filter(|link| link.path == Path::Relayed);
        relayed.any(|link| leads_through(&link.address, relay))
    }

    /// Looks again who is admitted; gives those who are not any more.
    pub(super) fn not_admitted_any_more(&mut self, door: &Door) -> Vec<PeerId> {
        let mut out = Vec::new();
        for (peer, peers) in &mut self.peers {
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
                since: best.since,
            };
            Some((peer.to_string(), state))
        };
        self.peers.iter().filter_map(state).collect()
    }

    fn link_mut(&mut self, peer: &PeerId, id: ConnectionId) -> Option<&mut Link> {
        let links = &mut self.peers.get_mut(peer)?.links;
        links.iter_mut().find(|link| link.id == id)
    }
}

/// Through a router both ends may dial at once, and both see themselves as the one that dialled; but one of them takes
/// the part of the one that is called.
fn is_our_attempt(endpoint: &ConnectedPoint) -> bool {
    matches!(
        endpoint,
        ConnectedPoint::Dialer {
            role_override: Endpoint::Dialer,
            ..
        }
    )
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
