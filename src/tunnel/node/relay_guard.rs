//! Relaying for admitted stations only, and for them without the caps of public relays.
//!
//! Wraps libp2p's relay: a connection of anybody else gets a handler that speaks no relay protocol, so that a stranger
//! can neither reserve nor be a source; the destination of a circuit has reserved, so it is admitted too. Whoever is
//! admitted later gets in with the next connection. Invariant: the inner behaviour never addresses a handler that it
//! was not given: its status is set before the first connection and stays. Worst case: [`CIRCUITS_MAX`] circuits, each
//! with 8 KiB in flight each way.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::relay;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::dummy;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};

use super::streams::Door;
use crate::tunnel::{Multiaddr, PeerId};

/// Stations that may wait to be called.
const RESERVATIONS_MAX: usize = 256;
/// Reservations of one station beyond its first: it may have several connections.
const RESERVATIONS_PER_PEER: usize = 4;
/// How long a reservation lasts; libp2p renews it.
const RESERVATION_LASTS: Duration = Duration::from_secs(3_600);
/// Circuits at a time.
const CIRCUITS_MAX: usize = 512;
/// Circuits that one station may ask for: one for each of many others.
const CIRCUITS_PER_PEER: usize = 64;
/// How long a circuit may last: a day, then it is made again.
const CIRCUIT_LASTS: Duration = Duration::from_secs(24 * 3_600);
/// Bytes of a circuit: as many as they want.
const CIRCUIT_BYTES_UNLIMITED: u64 = 0;

/// A relay for those who are admitted.
pub(super) struct RelayGuard {
    inner: relay::Behaviour,
    door: Arc<Door>,
}

impl RelayGuard {
    pub(super) fn new(local: PeerId, door: Arc<Door>) -> Self {
        let config = relay::Config {
            max_reservations: RESERVATIONS_MAX,
            max_reservations_per_peer: RESERVATIONS_PER_PEER,
            reservation_duration: RESERVATION_LASTS,
            reservation_rate_limiters: Vec::new(),
            max_circuits: CIRCUITS_MAX,
            max_circuits_per_peer: CIRCUITS_PER_PEER,
            max_circuit_duration: CIRCUIT_LASTS,
            max_circuit_bytes: CIRCUIT_BYTES_UNLIMITED,
            circuit_src_rate_limiters: Vec::new(),
        };
        let mut inner = relay::Behaviour::new(local, config);
        inner.set_status(Some(relay::Status::Enable));
        Self { inner, door }
    }
}

impl NetworkBehaviour for RelayGuard {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.door.is_admitted(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.door.is_admitted(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<relay::Event, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}
