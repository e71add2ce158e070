//! What the driver looks after at every tick: dials that are due, places at relays, listeners that closed, links that
//! could be better, links that are dead.
//!
//! Invariant: what it begins by itself leaves room for what others ask for: [`DIALS_MAX`]. Deliberately absent: when
//! something is due, which the parts decide that it asks. Worst case: with more stations out of reach than there is
//! room for, those that failed least go first and the rest wait some ticks.

use std::net::IpAddr;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use tokio::time::Instant;

use super::addresses::{is_public, opened};
use super::driver::Driver;
use super::links::Link;
use crate::tunnel::{Multiaddr, Path, PeerId};

/// Dials that are begun without anybody waiting for them. The gate lets 64 through: the rest is for streams that are
/// asked for, the hash table and hole punching.
const DIALS_MAX: usize = 48;
/// How long a superfluous connection must have carried no stream before it is closed.
const UNUSED_FOR: Duration = Duration::from_secs(2);
/// Ticks between two looks at refusals that were not logged yet.
const TICKS_PER_SWEEP: u32 = 40;

impl Driver {
    pub(super) fn on_tick(&mut self) {
        let now = Instant::now();
        self.notice_silence(now);
        self.carry_out_due();
        self.hold_places(now);
        self.listen_again(now);
        self.improve_links(now);
        self.look_around(now);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_SWEEP) {
            self.door.sweep();
        }
        self.publish();
    }

    /// Dials for which there is room now.
    pub(super) fn room_for_dials(&self) -> usize {
        let info = self.swarm.network_info();
        let under_way = info.connection_counters().num_pending_outgoing();
        DIALS_MAX.saturating_sub(usize::try_from(under_way).unwrap_or(usize::MAX))
    }

    /// Links that do not answer are not used: whoever is kept is dialled again. They close when libp2p says that they are
    /// dead; if they answer before, they were only slow.
    fn notice_silence(&mut self, now: Instant) {
        for peer in self.links.fallen_silent(now) {
            tracing::debug!(%peer, "does not answer");
            self.dirty = true;
        }
    }

    /// Not used from now on. Its streams fail at once: a connection that nothing gets through may take long to close.
    pub(super) fn give_up(&mut self, peer: PeerId, connection: ConnectionId) {
        self.links.dead(&peer, connection);
        self.swarm.behaviour().streams.cut_one(connection);
        self.swarm.close_connection(connection);
        self.dirty = true;
    }

    /// This machine has lost an address, and with it what was connected there.
    pub(super) fn address_lost(&mut self, ip: IpAddr) {
        for (peer, connection) in self.links.at(ip) {
            tracing::debug!(%peer, %ip, "connected at an address that is gone");
            self.give_up(peer, connection);
        }
    }

    /// Whether nobody beyond our own network can be expected to reach us.
    fn needs_relay(&self) -> bool {
        !self.serve_relay && !self.has_external && !self.swarm.listeners().any(is_public)
    }

    fn hold_places(&mut self, now: Instant) {
        let is_needed = self.needs_relay();
        let (swarm, links) = (&mut self.swarm, &self.links);
        let connected = |relay: &PeerId| {
            let best = links.best(relay)?;
            (best.path == Path::Direct).then(|| best.address.clone())
        };
        let listen = |address| {
            swarm
                .listen_on(address)
                .inspect_err(|error| tracing::debug!(%error, "no place at a relay"))
                .ok()
        };
        self.reservations
            .renew(now, &self.random, is_needed, connected, listen);
    }

    fn listen_again(&mut self, now: Instant) {
        let swarm = &mut self.swarm;
        let listen = |address: Multiaddr| {
            tracing::info!(%address, "is listened on again");
            swarm.listen_on(address).map_err(|error| error.to_string())
        };
        self.listeners.renew(now, &self.random, listen);
    }

    /// Tries directly who is reached through a relay, and closes connections that a better one has replaced.
    fn improve_links(&mut self, now: Instant) {
        let mut relayed = Vec::new();
        let mut close = Vec::new();
        for (peer, links) in self.links.iter() {
            let trusted = self.door.is_trusted(peer);
            if trusted && self.links.is_only_relayed(peer) {
                relayed.push(*peer);
            }
            let replaced = links.replaced(now);
            // What is relayed on a direct one is nobody's stream here.
            let may_close =
                |link: &&Link| link.path == Path::Relayed || !self.relays_for_or_through(peer);
            close.extend(replaced.filter(may_close).map(|link| link.id));
            let is_stale = |link: &Link| {
                let too_narrow = trusted && !link.wide;
                // Who may ask a connection for a place is decided when it is made.
                let gets_no_place = self.serve_relay && link.admitted && !link.admitted_when_made;
                too_narrow || gets_no_place
            };
            // Circuits on it are nobody's stream here either.
            let bears_circuits =
                self.links.lead_through(peer) || self.swarm.behaviour().serves(peer);
            let stale = links
                .iter()
                .filter(|link| is_stale(link) && !bears_circuits);
            close.extend(stale.map(|link| link.id));
        }
        for peer in relayed {
            if self.room_for_dials() == 0 {
                break;
            }
            if self.dialler.is_direct_due(&peer, now) {
                self.try_directly(peer, now);
            }
        }
        self.close_unused(&close, now);
    }

    /// Closes those of these connections that nothing has used for a while: what was written last may still be on its way,
    /// and kubo drops what it has not handed on when a connection closes.
    fn close_unused(&mut self, superfluous: &[ConnectionId], now: Instant) {
        let known = superfluous
            .iter()
            .map(|id| (*id, self.superfluous.get(id).copied().unwrap_or(now)));
        self.superfluous = known.collect();
        let streams = &self.swarm.behaviour().streams;
        let is_due = |(id, since): &(&ConnectionId, &Instant)| {
            let unused = streams.unused_since(**id);
            unused.is_some_and(|unused| unused.max(**since) + UNUSED_FOR <= now)
        };
        let due = self.superfluous.iter().filter(is_due);
        let due: Vec<ConnectionId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.swarm.close_connection(id);
        }
    }

    /// Whether one of us relays for the other.
    fn relays_for_or_through(&self, peer: &PeerId) -> bool {
        self.swarm.behaviour().serves(peer)
            || self.reservations.holds(peer)
            || self.links.lead_through(peer)
    }

    /// Where it listens; and by another relayed connection, since both ends try to meet past their routers only when one
    /// is made. What fails is in the address book; the relayed connection stays.
    fn try_directly(&mut self, peer: PeerId, now: Instant) {
        let options = || DialOpts::peer_id(peer).condition(PeerCondition::Always);
        if !opened(&self.book).direct(&peer).is_empty() {
            drop(self.swarm.dial(options().build()));
        }
        if let Some(way) = self.links.way_to_punch(&peer, now) {
            tracing::debug!(%peer, "is tried directly again");
            drop(self.swarm.dial(options().addresses(vec![way]).build()));
        }
    }
}
