//! Which connections there may be: how often an address may call, who is out, how many strangers.
//!
//! Takes the swarm's questions about each connection; answers yes, or no with a reason, and counts the callers that it
//! turns away. Strangers are whoever is neither admitted nor wanted: they may connect (to join, or as part of a hash
//! table), but few of them, and the one that has been idle longest makes room. Deliberately absent: streams, which the
//! door looks after. Worst case: [`STRANGERS_MAX`] strangers with narrow connections, 8 MiB of unread bytes each, of whom
//! [`STRANGERS_OVER_QUIC_MAX`] may have wide ones, 15 MB each; and it takes [`PENDING_IN_MAX`] connections that say
//! nothing, from 32 networks, to keep others from connecting.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dummy;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent,
    ToSwarm,
};

use super::addresses::is_relayed;
use super::memory::MemoryBound;
use super::streams::{Door, ended};
use crate::time::Clock;
use crate::tunnel::{Multiaddr, PeerId, Refusal};

/// Connections with whoever is neither admitted nor wanted.
const STRANGERS_MAX: usize = 64;
/// Those of them over QUIC, which does not tell strangers apart: its windows and its number of streams are set before it
/// is known who calls. Together 120 MB of unread bytes at most.
const STRANGERS_OVER_QUIC_MAX: usize = 8;
/// Calls from one network (see [`network_of`]): at once, and a second. Some stations share one.
const CALLS_AT_ONCE: f64 = 64.0;
const CALLS_A_SECOND: f64 = 4.0;
/// The same from this machine: programs that test, several stations.
const LOCAL_CALLS_AT_ONCE: f64 = 1_024.0;
const LOCAL_CALLS_A_SECOND: f64 = 256.0;
/// Networks remembered; the one that called longest ago is forgotten first.
const CALLERS_MAX: usize = 4_096;
/// Connections that others are making and that have not said who they are: some 80 KiB each.
const PENDING_IN_MAX: u32 = 256;
/// Those of one network: else one address that says nothing would keep all others out.
const PENDING_IN_OF_ONE_MAX: usize = 8;
/// The same from this machine, where several stations may be, and through relays, which have no address to tell apart.
const PENDING_IN_LOCAL_MAX: usize = 128;
/// Those over QUIC, whose callers can forge their addresses: the rest stays for TCP, where they cannot.
const PENDING_IN_OVER_QUIC_MAX: usize = 128;
/// Connections that we are making.
const PENDING_OUT_MAX: u32 = 64;
/// Connections that others made.
const ESTABLISHED_IN_MAX: u32 = 512;
/// All connections.
pub(super) const ESTABLISHED_MAX: u32 = 640;
/// Connections with one station: some relayed, some made by both at once.
const PER_PEER_MAX: u32 = 8;

/// The bounds that libp2p's own behaviour keeps.
pub(super) fn connection_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_IN_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUT_MAX))
        .with_max_established_incoming(Some(ESTABLISHED_IN_MAX))
        .with_max_established(Some(ESTABLISHED_MAX))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("this station is banned")]
    Banned,
    #[error("called too often")]
    CalledTooOften,
    #[error("too many connections that have not said who they are")]
    TooManyPending,
    #[error("too many connections with stations that are not admitted")]
    TooManyStrangers,
    #[error("not enough memory")]
    NoMemory,
}

impl Denied {
    /// As what a caller that is turned away is counted.
    fn refusal(self) -> Refusal {
        match self {
            Self::Banned => Refusal::NotAdmitted,
            Self::CalledTooOften | Self::TooManyPending | Self::TooManyStrangers => {
                Refusal::TooMany
            }
            Self::NoMemory => Refusal::Overloaded,
        }
    }
}

/// A connection of somebody who has not said who it is.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// `None`: through a relay.
    network: Option<IpAddr>,
    over_quic: bool,
}

/// A connection of somebody who is neither admitted nor wanted.
#[derive(Debug, Clone, Copy)]
struct Stranger {
    peer: PeerId,
    since: Duration,
    over_quic: bool,
}

#[derive(Debug)]
struct Caller {
    credit: f64,
    seen: Duration,
}

/// The gate of a node.
#[derive(Debug)]
pub(super) struct Gate {
    door: Arc<Door>,
    clock: Clock,
    memory: MemoryBound,
    callers: HashMap<IpAddr, Caller>,
    /// Connections that others are making.
    pending: HashMap<ConnectionId, Pending>,
    strangers: HashMap<ConnectionId, Stranger>,
    leaving: Vec<(PeerId, ConnectionId)>,
}

impl Gate {
    pub(super) fn new(door: Arc<Door>, clock: Clock, memory_bytes_max: Option<u64>) -> Self {
        Self {
            door,
            clock,
            memory: MemoryBound::new(memory_bytes_max),
            callers: HashMap::new(),
            pending: HashMap::new(),
            strangers: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// To be called when the guest list or the wanted stations have changed.
    pub(super) fn reconsider(&mut self) {
        self.strangers
            .retain(|_, stranger| !self.door.is_trusted(&stranger.peer));
    }

    /// A connection that somebody begins to make.
    fn take_caller(&mut self, connection: ConnectionId, caller: Pending) -> Result<(), Denied> {
        if self.memory.is_exceeded(self.clock.monotonic()) {
            return Err(Denied::NoMemory);
        }
        if let Some(network) = caller.network {
            self.take_call(network)?;
        }
        let share = match caller.network {
            Some(network) if !network.is_loopback() => PENDING_IN_OF_ONE_MAX,
            _ => PENDING_IN_LOCAL_MAX,
        };
        // As many as may be pending in all: counting them anew costs nothing that matters.
        let others = || self.pending.values();
        let of_one = others().filter(|one| one.network == caller.network);
        let over_quic = others().filter(|one| one.over_quic);
        if of_one.count() >= share
            || (caller.over_quic && over_quic.count() >= PENDING_IN_OVER_QUIC_MAX)
        {
            return Err(Denied::TooManyPending);
        }
        self.pending.insert(connection, caller);
        Ok(())
    }

    fn forget(&mut self, ended: ConnectionId) {
        self.pending.remove(&ended);
        self.strangers.remove(&ended);
    }

    /// Counts who is turned away.
    fn denied(&self, why: Denied) -> ConnectionDenied {
        self.door.count_refusal(why.refusal());
        ConnectionDenied::new(why)
    }

    fn take_call(&mut self, from: IpAddr) -> Result<(), Denied> {
        let now = self.clock.monotonic();
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&from) {
            let oldest = self.callers.iter().min_by_key(|(_, one)| one.seen);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.callers.remove(&oldest);
            }
        }
        let (at_once, a_second) = if from.is_loopback() {
            (LOCAL_CALLS_AT_ONCE, LOCAL_CALLS_A_SECOND)
        } else {
            (CALLS_AT_ONCE, CALLS_A_SECOND)
        };
        let caller = self.callers.entry(from).or_insert(Caller {
            credit: at_once,
            seen: now,
        });
        let waited = now.saturating_sub(caller.seen).as_secs_f64();
        caller.credit = (caller.credit + waited * a_second).min(at_once);
        caller.seen = now;
        if caller.credit < 1.0 {
            return Err(Denied::CalledTooOften);
        }
        caller.credit -= 1.0;
        Ok(())
    }

    fn take_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        over_quic: bool,
    ) -> Result<(), Denied> {
        self.pending.remove(&connection);
        if self.door.is_banned(&peer) {
            return Err(Denied::Banned);
        }
        if self.door.is_trusted(&peer) {
            return Ok(());
        }
        let wide = self.strangers.values().filter(|one| one.over_quic).count();
        let no_more_wide = over_quic && wide >= STRANGERS_OVER_QUIC_MAX;
        if no_more_wide || self.strangers.len() >= STRANGERS_MAX {
            let idle = self.strangers.iter().filter(|(_, one)| {
                let counts = self.door.counts(&one.peer);
                let makes_room = one.over_quic || !no_more_wide;
                makes_room && counts.inward == 0 && counts.outward == 0
            });
            let longest = idle.min_by_key(|(_, one)| one.since);
            let Some((leaves, whose)) = longest.map(|(&leaves, one)| (leaves, one.peer)) else {
                return Err(Denied::TooManyStrangers);
            };
            self.strangers.remove(&leaves);
            self.leaving.push((whose, leaves));
        }
        let stranger = Stranger {
            peer,
            since: self.clock.monotonic(),
            over_quic,
        };
        self.strangers.insert(connection, stranger);
        Ok(())
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let caller = Pending {
            network: ip_of(from).map(network_of),
            over_quic: is_quic(from),
        };
        self.take_caller(connection, caller)
            .map_err(|why| self.denied(why))
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.take_connection(connection, peer, is_quic(from))
            .map_err(|why| self.denied(why))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if peer.is_some_and(|peer| self.door.is_banned(&peer)) {
            return Err(ConnectionDenied::new(Denied::Banned));
        }
        if self.memory.is_exceeded(self.clock.monotonic()) {
            return Err(ConnectionDenied::new(Denied::NoMemory));
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        to: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.take_connection(connection, peer, is_quic(to))
            .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some(ended) = ended(&event) {
            self.forget(ended);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        // Filled only while the swarm establishes a connection, after which it polls.
        match self.leaving.pop() {
            Some((peer_id, connection)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            None => Poll::Pending,
        }
    }
}

/// Whose calls count together: an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber has.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let subscriber = ip.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(subscriber))
        }
        other => other,
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| matches!(part, Protocol::Quic | Protocol::QuicV1))
        && !is_relayed(address)
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
