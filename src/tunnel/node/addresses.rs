//! Where stations are: an address book that survives failures.
//!
//! Takes addresses from captains, cards, discovery and connections; gives them ranked: first what has not failed since
//! it served, then what was never tried, then what failed least. Where another station answered is tried only when
//! nothing else is left: it answers at once, and the whole dial ends with it. An address is never dropped for failing,
//! only for room: [`ADDRESSES_PER_PEER`] of each of [`PEERS_MAX`] stations; what served last and what the captain named go
//! last, as do wanted stations. Dials that other behaviours begin get the direct ones. Of stations that are neither
//! admitted nor wanted nothing is learnt from connections. Deliberately absent: when to dial. Worst case: a peer that
//! lists thousands of addresses fills its own 16 places.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dummy;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandlerInEvent,
    ToSwarm,
};
use serde::{Deserialize, Serialize};

use super::streams::Door;
use crate::time::Clock;
use crate::tunnel::{Multiaddr, PeerId, Source};

/// Addresses of one station.
pub(super) const ADDRESSES_PER_PEER: usize = 16;
/// Stations of which addresses are known.
pub(super) const PEERS_MAX: usize = 1_024;

/// An address of a station, as it is kept between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAddress {
    /// The station's PeerID.
    pub peer: String,
    /// Where it may be reached, without its PeerID.
    pub address: String,
    /// Who said so.
    pub source: Source,
    /// Unix seconds of the last connection by it.
    pub last_success: Option<u64>,
    /// Attempts that failed since then.
    pub failures: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    address: Multiaddr,
    source: Source,
    last_success: Option<u64>,
    failures: u32,
    /// Another station answered there when it was last tried.
    is_of_another: bool,
}

/// How good an address is: the first part that differs decides, greater is better.
type Rank = (bool, std::cmp::Reverse<u32>, Option<u64>, bool);

impl Entry {
    /// One that served once must not keep those from being tried that are new: the station may have moved.
    fn rank(&self) -> Rank {
        let serves = self.last_success.is_some() && self.failures == 0;
        let by_captain = self.source == Source::Static;
        let fewest_failures = std::cmp::Reverse(self.failures);
        (serves, fewest_failures, self.last_success, by_captain)
    }
}

#[derive(Debug, Default)]
struct Known {
    entries: Vec<Entry>,
    /// Grows with every use, over all stations.
    touched: u64,
}

impl Known {
    /// The first to make room: neither what served last nor what the captain named, if there is another; of the rest the
    /// one that ranks last.
    fn least_worth(&self) -> usize {
        let served_last = self.entries.iter().filter_map(|one| one.last_success).max();
        let worth = |entry: &Entry| {
            let is_last = served_last.is_some() && entry.last_success == served_last;
            (is_last, entry.source == Source::Static, entry.rank())
        };
        let least = (0..self.entries.len()).min_by_key(|&at| worth(&self.entries[at]));
        least.unwrap_or_default()
    }
}

/// All addresses. Pure.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    peers: HashMap<PeerId, Known>,
    wanted: Arc<BTreeSet<PeerId>>,
    uses: u64,
}

impl AddressBook {
    pub(super) fn restore(known: &[KnownAddress]) -> Self {
        let mut book = Self::default();
        for one in known {
            // What cannot be read was written by another version: it is learnt anew.
            let (Ok(peer), Ok(address)) = (one.peer.parse(), one.address.parse()) else {
                continue;
            };
            book.learn(peer, &address, one.source);
            book.change(peer, &address, |entry| {
                entry.last_success = one.last_success;
                entry.failures = one.failures;
            });
        }
        book
    }

    pub(super) fn snapshot(&self) -> Vec<KnownAddress> {
        let of_peer = |(peer, known): (&PeerId, &Known)| {
            let peer = peer.to_string();
            let kept = move |entry: &Entry| KnownAddress {
                peer: peer.clone(),
                address: entry.address.to_string(),
                source: entry.source,
                last_success: entry.last_success,
                failures: entry.failures,
            };
            known.entries.iter().map(kept).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(of_peer).collect()
    }

    pub(super) fn set_wanted(&mut self, wanted: Arc<BTreeSet<PeerId>>) {
        self.wanted = wanted;
    }

    /// Whether it was unknown.
    pub(super) fn learn(&mut self, peer: PeerId, address: &Multiaddr, source: Source) -> bool {
        let Some(address) = without_peer(address, &peer) else {
            return false;
        };
        self.make_room(&peer);
        self.uses += 1;
        let known = self.peers.entry(peer).or_default();
        known.touched = self.uses;
        if let Some(entry) = known.entries.iter_mut().find(|one| one.address == address) {
            entry.source = entry.source.min(source);
            return false;
        }
        if known.entries.len() >= ADDRESSES_PER_PEER {
            known.entries.remove(known.least_worth());
        }
        known.entries.push(Entry {
            address,
            source,
            last_success: None,
            failures: 0,
            is_of_another: false,
        });
        true
    }

    /// A known address has served.
    pub(super) fn succeeded(&mut self, peer: PeerId, address: &Multiaddr, now: u64) {
        self.change(peer, address, |entry| {
            entry.last_success = Some(now);
            entry.failures = 0;
            entry.is_of_another = false;
        });
    }

    /// Another station answers there; perhaps one on the same kind of network at home.
    pub(super) fn is_of_another(&mut self, peer: PeerId, address: &Multiaddr) {
        self.change(peer, address, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.is_of_another = true;
        });
    }

    pub(super) fn failed(&mut self, peer: PeerId, address: &Multiaddr) {
        self.change(peer, address, |entry| {
            entry.failures = entry.failures.saturating_add(1);
        });
    }

    /// Best first, without relayed ones.
    pub(super) fn direct(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.ranked(peer, |address| !is_relayed(address))
    }

    /// Those that lead through another station, best first.
    pub(super) fn relayed(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.ranked(peer, is_relayed)
    }

    fn ranked(&self, peer: &PeerId, take: impl Fn(&Multiaddr) -> bool) -> Vec<Multiaddr> {
        let entries = self.peers.get(peer).map_or(&[][..], |known| &known.entries);
        let mut taken: Vec<&Entry> = entries.iter().filter(|one| take(&one.address)).collect();
        if taken.iter().any(|entry| !entry.is_of_another) {
            taken.retain(|entry| !entry.is_of_another);
        }
        taken.sort_by_key(|entry| std::cmp::Reverse(entry.rank()));
        taken.into_iter().map(|one| one.address.clone()).collect()
    }

    fn change(&mut self, peer: PeerId, address: &Multiaddr, change: impl FnOnce(&mut Entry)) {
        let Some(address) = without_peer(address, &peer) else {
            return;
        };
        if let Some(known) = self.peers.get_mut(&peer)
            && let Some(entry) = known.entries.iter_mut().find(|one| one.address == address)
        {
            self.uses += 1;
            known.touched = self.uses;
            change(entry);
        }
    }

    fn make_room(&mut self, newcomer: &PeerId) {
        if self.peers.len() < PEERS_MAX || self.peers.contains_key(newcomer) {
            return;
        }
        let wanted = Arc::clone(&self.wanted);
        let oldest = self.peers.iter().min_by_key(|(peer, known)| {
            let named = known.entries.iter().any(|one| one.source == Source::Static);
            (wanted.contains(peer), named, known.touched)
        });
        if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
            self.peers.remove(&oldest);
        }
    }
}

/// Whether it leads through another station.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether it leads through this station.
pub(super) fn leads_through(address: &Multiaddr, station: &PeerId) -> bool {
    let mut until_circuit = address
        .iter()
        .take_while(|part| *part != Protocol::P2pCircuit);
    is_relayed(address) && until_circuit.any(|part| part == Protocol::P2p(*station))
}

/// Whether only this machine can use it.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// Whether anybody may use it: not the addresses of networks at home, and not those that a provider shares out. One of
/// IPv6 says nothing: routers at home let nobody in by it.
pub(super) fn is_public(address: &Multiaddr) -> bool {
    let ip = match address.iter().next() {
        Some(Protocol::Ip4(ip)) if !is_relayed(address) => ip,
        _ => return false,
    };
    let [first, second, ..] = ip.octets();
    let is_shared_out = first == 100 && (64..128).contains(&second);
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_unspecified()
        || is_shared_out)
}

/// Without the PeerID at its end; `None` if that is another's, or nothing remains.
pub(super) fn without_peer(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let mut address = address.clone();
    if let Some(Protocol::P2p(whose)) = address.iter().last() {
        if whose != *peer {
            return None;
        }
        address.pop();
    }
    (!address.is_empty()).then_some(address)
}

/// The address book, shared with whoever saves it.
pub(super) type SharedBook = Arc<Mutex<AddressBook>>;

/// A look into it: for a few operations, never over a wait.
pub(super) fn opened(book: &SharedBook) -> MutexGuard<'_, AddressBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the swarm consult the book, and the book learn from the swarm.
#[derive(Debug)]
pub(super) struct Behaviour {
    book: SharedBook,
    door: Arc<Door>,
    clock: Clock,
}

impl Behaviour {
    pub(super) fn new(book: SharedBook, door: Arc<Door>, clock: Clock) -> Self {
        Self { book, door, clock }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map_or_else(Vec::new, |peer| opened(&self.book).direct(&peer)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let peer = established.peer_id;
                let is_trusted = self.door.is_trusted(&peer);
                let mut book = opened(&self.book);
                for address in established.failed_addresses {
                    book.failed(peer, address);
                }
                if let libp2p::core::ConnectedPoint::Dialer { address, .. } = established.endpoint {
                    if is_trusted {
                        book.learn(peer, address, Source::Connection);
                    }
                    book.succeeded(peer, address, self.clock.unix_seconds());
                }
            }
            FromSwarm::DialFailure(failure) => {
                let Some(peer) = failure.peer_id else {
                    return;
                };
                let mut book = opened(&self.book);
                match failure.error {
                    DialError::Transport(tried) => {
                        for (address, _) in tried {
                            book.failed(peer, address);
                        }
                    }
                    DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                        book.is_of_another(peer, address);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
