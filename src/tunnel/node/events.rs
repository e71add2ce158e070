//! What the driver does about each event of the swarm, and about being found and finding others.
//!
//! Learns addresses of admitted and wanted stations only: a stranger cannot fill the book or the table. Deliberately
//! absent: streams, which go from connection to queue without passing here.

use std::collections::HashSet;

use libp2p::core::Endpoint;
use libp2p::core::transport::ListenerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, InboundRequest, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::ping;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{identify, mdns, upnp};
use tokio::time::Instant;

use super::addresses::{ADDRESSES_PER_PEER, is_loopback, is_relayed, opened, without_peer};
use super::behaviour::{BehaviourEvent, kademlia_protocol};
use super::driver::Driver;
use super::links::Made;
use super::options::KademliaMode;
use super::rendezvous::Rendezvous;
use super::routes::{ip_of, local_ip};
use crate::tunnel::{Found, Multiaddr, PeerId, Source};

/// Where the public hash table of IPFS is entered.
const IPFS_ENTRANCES: [&str; 4] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
];

impl Driver {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let made = Made {
                    id: connection_id,
                    endpoint: &endpoint,
                    local_ip: local_ip(&endpoint),
                    now: Instant::now(),
                    unix_seconds: self.clock.unix_seconds(),
                };
                self.links.established(peer_id, made, &self.door);
                if !self.links.is_only_relayed(&peer_id) {
                    self.dialler.reached_directly(&peer_id);
                    self.reservations.connected(&peer_id, Instant::now());
                }
                self.dirty = true;
                self.serve_waiting(peer_id);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                let now = Instant::now();
                if let Some(lasted) = self.links.closed(&peer_id, connection_id, now) {
                    tracing::debug!(%peer_id, ?cause, "no connection any more");
                    self.dialler.lost(&peer_id, lasted, now);
                }
                self.dirty = true;
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id: Some(peer),
                error,
            } => self.dial_failed(peer, connection_id, &error),
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => self.on_listening(listener_id, address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_address_gone(&address),
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => self.on_listener_closed(listener_id, &reason),
            SwarmEvent::ListenerError { error, .. } => {
                // Of one call: the listener goes on.
                tracing::debug!(%error, "a listener had an error");
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, %error, "no connection was made"),
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.dirty = true;
            }
            _ => {}
        }
    }

    fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        tracing::info!(%address, "listening");
        if is_relayed(&address) {
            self.reservations.reserved(listener);
            self.dirty = true;
            return;
        }
        self.listeners.is_open(listener);
        if self.serve_relay {
            // Whoever reserves a place is told our addresses, and a relay without any is of no use.
            self.swarm.add_external_address(address);
        }
        self.on_network_change();
    }

    fn on_address_gone(&mut self, address: &Multiaddr) {
        self.dirty = true;
        if is_relayed(address) {
            // A place at a relay has ended. The network is the same, and a relay could end many.
            return;
        }
        if self.serve_relay {
            self.swarm.remove_external_address(address);
        }
        if let Some(ip) = ip_of(address) {
            self.address_lost(ip);
        }
        self.on_network_change();
    }

    fn on_listener_closed(&mut self, listener: ListenerId, reason: &Result<(), std::io::Error>) {
        self.dirty = true;
        let (now, random) = (Instant::now(), &self.random);
        let why = match reason {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        };
        if !self.listeners.closed(listener, &why, now, random)
            && self.reservations.ended(listener, now, random)
        {
            tracing::debug!(?reason, "no place at a relay any more");
        }
    }

    fn on_network_change(&mut self) {
        let now = Instant::now();
        self.dialler.hurry_all(now);
        self.reservations.hurry(now);
        self.dirty = true;
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => self.on_identified(peer_id, connection_id, &info),
            BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result,
            }) => match result {
                Ok(rtt) => {
                    self.links.measured(&peer, connection, rtt, Instant::now());
                    self.dirty = true;
                }
                Err(ping::Failure::Unsupported) => {
                    self.links.answers_no_pings(&peer, connection);
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "is given up");
                    self.give_up(peer, connection);
                }
            },
            BehaviourEvent::Kademlia(event) => self.on_kademlia(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(seen)) => {
                let mut peers: Vec<PeerId> = seen.iter().map(|(peer, _)| *peer).collect();
                peers.sort_unstable();
                peers.dedup();
                for peer in peers {
                    let of_peer = seen.iter().filter(|(whose, _)| *whose == peer);
                    let addresses = of_peer.map(|(_, address)| address.clone()).collect();
                    self.on_found(peer, addresses, Source::Mdns);
                }
            }
            BehaviourEvent::Upnp(upnp::Event::GatewayNotFound) => {
                tracing::info!("no router here forwards ports (UPnP)");
            }
            BehaviourEvent::Upnp(upnp::Event::NonRoutableGateway) => {
                tracing::info!("the router is itself behind another: no ports are forwarded");
            }
            BehaviourEvent::Dcutr(event) => {
                let peer = event.remote_peer_id;
                match event.result {
                    Ok(_) => tracing::info!(%peer, "reached directly, past the routers"),
                    Err(error) => tracing::debug!(%peer, %error, "not reached directly"),
                }
            }
            _ => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(links) = self.links.of(&peer) else {
            return;
        };
        let Some(link) = links.iter().find(|link| link.id == connection) else {
            return;
        };
        if !self.door.is_trusted(&peer) {
            return;
        }
        let local = is_loopback(&link.address);
        let reached_us = link.called_us && link.admitted && !is_relayed(&link.address);
        let ours = *self.swarm.local_peer_id();
        let useful = info.listen_addrs.iter().filter(|address| {
            (local || !is_loopback(address))
                && !address.iter().any(|part| part == Protocol::P2p(ours))
        });
        let useful: Vec<&Multiaddr> = useful.take(ADDRESSES_PER_PEER).collect();
        let mut news = false;
        for address in &useful {
            news |= opened(&self.book).learn(peer, address, Source::Connection);
        }
        let speaks = kademlia_protocol(self.kademlia)
            .is_some_and(|protocol| info.protocols.contains(&protocol));
        if speaks && let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            for address in &useful {
                if let Some(address) = without_peer(address, &peer) {
                    kademlia.add_address(&peer, address);
                }
            }
            if let Some(rendezvous) = &mut self.rendezvous
                && news
            {
                rendezvous.new_entry(Instant::now());
            }
        }
        // Whoever called us has seen an address that works; what they see when we call says nothing about that.
        if reached_us && (local || !is_loopback(&info.observed_addr)) {
            self.observe(info.observed_addr.clone());
        }
    }

    fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                result:
                    QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
                ..
            } => self.on_providers(providers),
            kad::Event::InboundRequest {
                request:
                    InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => self.on_announced(record),
            kad::Event::RoutingUpdated {
                is_new_peer: true, ..
            } if self.kademlia == KademliaMode::Constellation => {
                // Its address may have been known for long: what counts is that it was not told that we are here.
                if let Some(rendezvous) = &mut self.rendezvous {
                    rendezvous.new_entry(Instant::now());
                }
            }
            _ => {}
        }
    }

    /// A station says "here". It is remembered for those who ask, if it may enter and says so under our hash.
    fn on_announced(&mut self, record: kad::ProviderRecord) {
        let key = self.rendezvous.as_ref().map(Rendezvous::key);
        let is_ours = key.is_some_and(|key| record.key == kad::RecordKey::new(&key));
        if !is_ours || !self.door.is_trusted(&record.provider) {
            return;
        }
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut()
            && let Err(error) = kademlia.store_mut().add_provider(record)
        {
            tracing::debug!(%error, "a station that is here is not remembered");
        }
    }

    fn on_providers(&mut self, providers: HashSet<PeerId>) {
        let ours = *self.swarm.local_peer_id();
        for peer in providers.into_iter().filter(|peer| *peer != ours) {
            if let Some(rendezvous) = &mut self.rendezvous {
                rendezvous.found(Instant::now());
            }
            // The table gives addresses only to whoever dials; asking it does not dial.
            let addresses = self
                .swarm
                .behaviour_mut()
                .kademlia
                .as_mut()
                .and_then(|kademlia| {
                    let nobody = ConnectionId::new_unchecked(usize::MAX);
                    kademlia
                        .handle_pending_outbound_connection(
                            nobody,
                            Some(peer),
                            &[],
                            Endpoint::Dialer,
                        )
                        .ok()
                })
                .unwrap_or_default();
            self.on_found(peer, addresses, Source::Kademlia);
        }
    }

    fn on_found(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>, source: Source) {
        addresses.truncate(ADDRESSES_PER_PEER);
        if self.door.is_trusted(&peer) {
            let mut news = false;
            for address in &addresses {
                news |= opened(&self.book).learn(peer, address, source);
            }
            if news {
                self.dialler.hurry(&peer, Instant::now());
            }
        }
        let found = Found {
            peer,
            addresses,
            source,
        };
        if self.ends.found.try_send(found).is_err() {
            // Whoever takes them is behind; the next announcement or search finds it again.
            tracing::debug!(%peer, "found, but nobody takes it");
        }
    }

    /// Stations meet under another hash from now on; nobody is to find us under the one before.
    pub(super) fn meet_elsewhere(&mut self) {
        let key = *self.ends.meeting.borrow_and_update();
        let (Some(rendezvous), Some(key)) = (&mut self.rendezvous, key) else {
            return;
        };
        let before = std::mem::replace(rendezvous, Rendezvous::new(key, Instant::now())).key();
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            kademlia.stop_providing(&kad::RecordKey::new(&before));
        }
    }

    /// Says "here" in the hash table and asks who else is, when it is time.
    pub(super) fn look_around(&mut self, now: Instant) {
        let Some(rendezvous) = &mut self.rendezvous else {
            return;
        };
        let Some(tell) = rendezvous.due(now) else {
            return;
        };
        let key = kad::RecordKey::new(&rendezvous.key());
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() else {
            return;
        };
        if self.kademlia == KademliaMode::Ipfs {
            for entrance in IPFS_ENTRANCES {
                let entrance: Multiaddr = entrance.parse().expect("a constant that is an address");
                if let Some(Protocol::P2p(peer)) = entrance.iter().last() {
                    kademlia.add_address(&peer, entrance);
                }
            }
        }
        if tell && let Err(error) = kademlia.start_providing(key.clone()) {
            tracing::warn!(%error, "cannot be found in the hash table");
        }
        kademlia.get_providers(key);
    }
}
