//! Which connections there may be: how often an address may call, who is out, how many strangers.
//!
//! Takes the swarm's questions about each connection; answers yes, or no with a reason. Strangers are whoever is
//! neither admitted nor wanted: they may connect (to join, or as part of a hash table), but few of them, and the one
//! that has been idle longest makes room. Deliberately absent: streams, which the door looks after. Worst case:
//! [`STRANGERS_MAX`] strangers, each with a narrow connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
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

use super::memory::MemoryBound;
use super::streams::Door;
use crate::time::Clock;
use crate::tunnel::{Multiaddr, PeerId};

/// Connections with whoever is neither admitted nor wanted.
const STRANGERS_MAX: usize = 64;
/// Calls from one IP address: at once, and a second. Some stations share one.
const CALLS_AT_ONCE: f64 = 64.0;
const CALLS_A_SECOND: f64 = 4.0;
/// The same from this machine: programs that test, several stations.
const LOCAL_CALLS_AT_ONCE: f64 = 1_024.0;
const LOCAL_CALLS_A_SECOND: f64 = 256.0;
/// IP addresses remembered; the one that called longest ago is forgotten first.
const CALLERS_MAX: usize = 4_096;
/// Connections being made, each way.
const PENDING_MAX: u32 = 64;
/// Connections that others made.
const ESTABLISHED_IN_MAX: u32 = 512;
/// All connections.
pub(super) const ESTABLISHED_MAX: u32 = 640;
/// Connections with one station: some relayed, some made by both at once.
const PER_PEER_MAX: u32 = 8;

/// The bounds that libp2p's own behaviour keeps.
pub(super) fn connection_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
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
    #[error("too many connections with stations that are not admitted")]
    TooManyStrangers,
    #[error("not enough memory")]
    NoMemory,
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
    /// Connections of strangers, and since when they are there.
    strangers: HashMap<ConnectionId, (PeerId, Duration)>,
    leaving: Vec<(PeerId, ConnectionId)>,
}

impl Gate {
    pub(super) fn new(door: Arc<Door>, clock: Clock, memory_bytes_max: Option<u64>) -> Self {
        Self {
            door,
            clock,
            memory: MemoryBound::new(memory_bytes_max),
            callers: HashMap::new(),
            strangers: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// To be called when the guest list or the wanted stations have changed.
    pub(super) fn reconsider(&mut self) {
        self.strangers
            .retain(|_, (peer, _)| !self.door.is_trusted(peer));
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

    fn take_connection(&mut self, connection: ConnectionId, peer: PeerId) -> Result<(), Denied> {
        if self.door.is_banned(&peer) {
            return Err(Denied::Banned);
        }
        if self.door.is_trusted(&peer) {
            return Ok(());
        }
        if self.strangers.len() >= STRANGERS_MAX {
            let idle = self.strangers.iter().filter(|(_, (peer, _))| {
                let counts = self.door.counts(peer);
                counts.inward == 0 && counts.outward == 0
            });
            let longest = idle.min_by_key(|(_, (_, since))| *since);
            let Some((&leaves, &(whose, _))) = longest else {
                return Err(Denied::TooManyStrangers);
            };
            self.strangers.remove(&leaves);
            self.leaving.push((whose, leaves));
        }
        let since = self.clock.monotonic();
        self.strangers.insert(connection, (peer, since));
        Ok(())
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.memory.is_exceeded(self.clock.monotonic()) {
            return Err(ConnectionDenied::new(Denied::NoMemory));
        }
        match ip_of(from) {
            Some(ip) => self.take_call(ip).map_err(ConnectionDenied::new),
            None => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.take_connection(connection, peer)
            .map_err(ConnectionDenied::new)?;
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
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.take_connection(connection, peer)
            .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let ended = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.strangers.remove(&ended);
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
