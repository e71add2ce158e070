//! Gives each connection its handler, and passes requests to them.
//!
//! Takes [`OpenRequest`]s for a connection; forgets a connection when it closes. Deliberately absent: choosing the
//! connection. Worst case: requests wait in the queue while the swarm delivers them one by one; the driver bounds how
//! many there are.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, ToSwarm,
};

use tokio::time::Instant;

use super::door::Door;
use super::handler::{Handler, OpenFailure, OpenRequest};
use super::wrapper::ConnectionShare;
use crate::tunnel::{Multiaddr, PeerId};

/// Streams of a node.
#[derive(Debug)]
pub(crate) struct Behaviour {
    door: Arc<Door>,
    connections: HashMap<ConnectionId, (PeerId, Arc<ConnectionShare>)>,
    requests: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(door: Arc<Door>) -> Self {
        Self {
            door,
            connections: HashMap::new(),
            requests: VecDeque::new(),
            waker: None,
        }
    }

    /// Asks for a stream on this connection; answered at once if there is no such connection any more.
    pub(crate) fn open(&mut self, connection: ConnectionId, request: OpenRequest) {
        let Some((peer, _)) = self.connections.get(&connection) else {
            drop(request.reply.send(Err(OpenFailure::Lost)));
            return;
        };
        self.requests.push_back((*peer, connection, request));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Since when a connection has carried no stream; `None` while it carries one, or where there is none.
    pub(crate) fn unused_since(&self, connection: ConnectionId) -> Option<Instant> {
        let (_, share) = self.connections.get(&connection)?;
        share.unused_since()
    }

    /// Makes all streams of a peer fail.
    pub(crate) fn cut(&self, peer: &PeerId) {
        for (whose, share) in self.connections.values() {
            if whose == peer {
                share.cut();
            }
        }
    }

    /// Makes all streams of one connection fail.
    pub(crate) fn cut_one(&self, connection: ConnectionId) {
        if let Some((_, share)) = self.connections.get(&connection) {
            share.cut();
        }
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let share = Arc::new(ConnectionShare::default());
        self.connections
            .insert(connection, (peer, Arc::clone(&share)));
        Handler::new(peer, Arc::clone(&self.door), share)
    }
}

/// The connection that is no more, if that is what happened. One that another behaviour denies after us never closes: it
/// fails.
pub(crate) fn ended(event: &FromSwarm<'_>) -> Option<ConnectionId> {
    match event {
        FromSwarm::ConnectionClosed(closed) => Some(closed.connection_id),
        FromSwarm::DialFailure(failure) => Some(failure.connection_id),
        FromSwarm::ListenFailure(failure) => Some(failure.connection_id),
        _ => None,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some(ended) = ended(&event)
            && let Some((_, share)) = self.connections.remove(&ended)
        {
            share.ended();
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Infallible, OpenRequest>> {
        if let Some((peer_id, connection, event)) = self.requests.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
