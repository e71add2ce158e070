//! What others say they see us at counts only if they are admitted or wanted.
//!
//! Wraps libp2p's identify, which calls every such address a candidate: hole punching has room for a few, and tells
//! them to whoever is to dial us, so that strangers could crowd out the true ones and send our stations to anybody.
//! Invariant: identify says who was heard just before it names what it learnt from them, in one queue. Deliberately
//! absent: what they say of themselves, which the driver judges. Worst case: an admitted station lies.

use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identify;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};

use super::streams::Door;
use crate::tunnel::{Multiaddr, PeerId};

/// Identify, with candidates from trusted stations only.
pub(super) struct IdentifyGuard {
    inner: identify::Behaviour,
    door: Arc<Door>,
    /// Whether the station that was heard last is trusted.
    is_trusted: bool,
}

impl IdentifyGuard {
    pub(super) fn new(config: identify::Config, door: Arc<Door>) -> Self {
        Self {
            inner: identify::Behaviour::new(config),
            door,
            is_trusted: false,
        }
    }
}

impl NetworkBehaviour for IdentifyGuard {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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
    ) -> Poll<ToSwarm<identify::Event, THandlerInEvent<Self>>> {
        while let Poll::Ready(event) = self.inner.poll(context) {
            match &event {
                ToSwarm::GenerateEvent(identify::Event::Received { peer_id, .. }) => {
                    self.is_trusted = self.door.is_trusted(peer_id);
                }
                ToSwarm::NewExternalAddrCandidate(_) if !self.is_trusted => continue,
                _ => {}
            }
            return Poll::Ready(event);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::Swarm;
    use libp2p::futures::StreamExt;
    use libp2p::identity::Keypair;
    use libp2p::swarm::{self, SwarmEvent};
    use tokio::sync::{mpsc, watch};
    use tokio::time::timeout;

    use super::*;
    use crate::tasks::TaskGroup;
    use crate::time::Clock;
    use crate::tunnel::GuestList;
    use crate::tunnel::node::transport;

    fn swarm(
        keypair: &Keypair,
        admitted: Option<PeerId>,
        tasks: &TaskGroup,
    ) -> Swarm<IdentifyGuard> {
        let local = keypair.public().to_peer_id();
        let list = GuestList {
            admitted: admitted.into_iter().collect(),
            ..GuestList::default()
        };
        let guests = watch::channel(Arc::new(list)).1;
        let (inbound, weary) = (mpsc::channel(1).0, mpsc::channel(1).0);
        let door = Arc::new(Door::new(local, guests, inbound, weary, Clock::system()));
        let (ways, _) = transport::build(keypair, None, true, &door).expect("built");
        let config = identify::Config::new("/test".to_owned(), keypair.public());
        let group = tasks.clone();
        let spawn = move |task| drop(group.spawn(task));
        let config_of_swarm = swarm::Config::with_executor(spawn)
            .with_idle_connection_timeout(Duration::from_secs(60));
        Swarm::new(
            ways,
            IdentifyGuard::new(config, door),
            local,
            config_of_swarm,
        )
    }

    /// Addresses that a station which calls us, admitted or not, makes us believe we have.
    async fn candidates(is_admitted: bool) -> usize {
        let tasks = TaskGroup::new(16);
        let keypairs = [(); 2].map(|()| Keypair::generate_ed25519());
        let caller = keypairs[1].public().to_peer_id();
        let mut called = swarm(&keypairs[0], is_admitted.then_some(caller), &tasks);
        let mut calling = swarm(&keypairs[1], None, &tasks);
        let anywhere = "/memory/0".parse().expect("an address");
        called.listen_on(anywhere).expect("listens");
        let mut candidates = 0;
        let heard = async {
            let mut is_identified = false;
            loop {
                let event = tokio::select! {
                    event = called.select_next_some() => event,
                    _ = calling.select_next_some() => continue,
                };
                match event {
                    SwarmEvent::NewListenAddr { address, .. } => {
                        calling.dial(address).expect("dials");
                    }
                    SwarmEvent::Behaviour(identify::Event::Received { .. }) => is_identified = true,
                    SwarmEvent::NewExternalAddrCandidate { .. } => candidates += 1,
                    // What it says of us comes right after what it says of itself; this is later.
                    SwarmEvent::ConnectionClosed { .. } => return,
                    _ => {}
                }
                if is_identified && calling.disconnect_peer_id(*called.local_peer_id()).is_err() {
                    tracing::trace!("disconnected already");
                }
            }
        };
        timeout(Duration::from_secs(20), heard)
            .await
            .expect("in time");
        tasks.end().await;
        candidates
    }

    #[tokio::test]
    async fn what_strangers_say_they_see_us_at_is_no_candidate() {
        assert_eq!(candidates(false).await, 0);
        assert!(candidates(true).await > 0, "an admitted one is believed");
    }
}
