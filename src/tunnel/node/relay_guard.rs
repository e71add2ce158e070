//! Relaying for admitted stations only, and for them without the caps of public relays.
//!
//! Wraps libp2p's relay: a connection of anybody else gets a handler that speaks no relay protocol, so that a stranger
//! can neither reserve nor be a source; the destination of a circuit has reserved, so it is admitted too. Whoever is
//! admitted later gets in with the next connection: the driver closes the present one as soon as nothing uses it.
//! It counts for whom it relays, so that a connection that bears a place or a circuit is not closed as idle.
//! Invariant: the inner behaviour never addresses a handler that it
//! was not given: its status is set before the first connection and stays. Worst case: [`CIRCUITS_MAX`] circuits, each
//! with 8 KiB in flight each way.

use std::collections::BTreeMap;
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
    served: Served,
}

/// Places and circuits that stations have here.
#[derive(Debug, Default)]
struct Served(BTreeMap<PeerId, usize>);

impl Served {
    fn note(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted {
                src_peer_id,
                renewed: false,
            } => self.more(*src_peer_id),
            relay::Event::ReservationClosed { src_peer_id }
            | relay::Event::ReservationTimedOut { src_peer_id } => self.less(src_peer_id),
            relay::Event::CircuitReqAccepted {
                src_peer_id,
                dst_peer_id,
            } => {
                self.more(*src_peer_id);
                self.more(*dst_peer_id);
            }
            relay::Event::CircuitClosed {
                src_peer_id,
                dst_peer_id,
                ..
            } => {
                self.less(src_peer_id);
                self.less(dst_peer_id);
            }
            // What was refused or failed is nobody's.
            _ => {}
        }
    }

    fn more(&mut self, peer: PeerId) {
        *self.0.entry(peer).or_default() += 1;
    }

    fn less(&mut self, peer: &PeerId) {
        if let Some(count) = self.0.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(peer);
            }
        }
    }
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
        Self {
            inner,
            door,
            served: Served::default(),
        }
    }

    /// Whether a station has a place or a circuit here.
    pub(super) fn serves(&self, peer: &PeerId) -> bool {
        self.served.0.contains_key(peer)
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
        if !self.door.is_one_of_us(&peer) {
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
        if !self.door.is_one_of_us(&peer) {
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
        let event = self.inner.poll(context);
        if let Poll::Ready(ToSwarm::GenerateEvent(event)) = &event {
            self.served.note(event);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_served_while_it_has_a_place_or_a_circuit() {
        let [source, destination] = [(); 2].map(|()| PeerId::random());
        let mut served = Served::default();
        let place = |renewed| relay::Event::ReservationReqAccepted {
            src_peer_id: destination,
            renewed,
        };
        let is_served =
            |served: &Served| [source, destination].map(|peer| served.0.contains_key(&peer));
        served.note(&place(false));
        served.note(&place(true));
        assert_eq!(is_served(&served), [false, true]);
        served.note(&relay::Event::CircuitReqAccepted {
            src_peer_id: source,
            dst_peer_id: destination,
        });
        served.note(&relay::Event::ReservationClosed {
            src_peer_id: destination,
        });
        assert_eq!(is_served(&served), [true, true], "the circuit is left");
        for _ in 0..2 {
            served.note(&relay::Event::CircuitClosed {
                src_peer_id: source,
                dst_peer_id: destination,
                error: None,
            });
        }
        assert_eq!(is_served(&served), [false, false]);
    }
}
