//! Which stations kubo is connected with, which it should be, and where they may be reached.
//!
//! Pure: time is an argument. Invariant: a station that is wanted and away is dialled again after pauses that grow to
//! ten seconds, and at once when a new address is learnt. Bounded: 1,024 stations with 16 addresses each; whoever was
//! learnt of first is forgotten first, and those to stay connected with last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use multiaddr::Protocol;

use super::rpc::Connection;
use crate::tunnel::{LinkState, Multiaddr, Path, PeerId};

/// Stations whose addresses are remembered.
const STATIONS_MAX: usize = 1_024;
/// Addresses of one: some interfaces, with two transports each, and relays.
const ADDRESSES_MAX: usize = 16;
/// Stations dialled at a time.
pub(super) const DIALS_MAX: usize = 32;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Redial {
    is_dialling: bool,
    pause: Duration,
    next: Duration,
}

/// What is known of connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Latest first.
    addresses: BTreeMap<PeerId, VecDeque<Multiaddr>>,
    learnt: VecDeque<PeerId>,
    kept: BTreeSet<PeerId>,
    connected: BTreeSet<PeerId>,
    redials: BTreeMap<PeerId, Redial>,
}

impl Connections {
    /// Remembers where a station may be reached. Whether anything of it is new.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> bool {
        let addresses: Vec<Multiaddr> = addresses
            .iter()
            .filter_map(|address| of_station(&peer, address))
            .collect();
        if addresses.is_empty() {
            return false;
        }
        if !self.addresses.contains_key(&peer) {
            if self.learnt.len() >= STATIONS_MAX {
                let unwanted = self.learnt.iter().position(|one| !self.kept.contains(one));
                if let Some(first) = self.learnt.remove(unwanted.unwrap_or_default()) {
                    self.addresses.remove(&first);
                }
            }
            self.learnt.push_back(peer);
        }
        let known = self.addresses.entry(peer).or_default();
        let mut is_new = false;
        for address in addresses {
            if !known.contains(&address) {
                known.push_front(address);
                known.truncate(ADDRESSES_MAX);
                is_new = true;
            }
        }
        if is_new && let Some(redial) = self.redials.get_mut(&peer) {
            *redial = Redial {
                is_dialling: redial.is_dialling,
                ..Redial::default()
            };
        }
        is_new
    }

    /// Where a station may be reached, without `/p2p/…` at the end.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.addresses
            .get(peer)
            .map(|known| known.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Which stations to stay connected with. Whether that has changed.
    pub(super) fn keep(&mut self, peers: BTreeSet<PeerId>) -> bool {
        let has_changed = self.kept != peers;
        self.redials.retain(|peer, _| peers.contains(peer));
        self.kept = peers;
        has_changed
    }

    pub(super) fn kept(&self) -> &BTreeSet<PeerId> {
        &self.kept
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains(peer)
    }

    /// What kubo says of its connections.
    pub(super) fn set_connected(&mut self, peers: BTreeSet<PeerId>) {
        for peer in &peers {
            self.redials.remove(peer);
        }
        self.connected = peers;
    }

    /// Stations to dial now, with where they may be reached. Each must be reported by [`dialled`](Self::dialled).
    pub(super) fn due(
        &mut self,
        now: Duration,
        may_dial: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let dialling = self.redials.values().filter(|redial| redial.is_dialling);
        let room = DIALS_MAX.saturating_sub(dialling.count());
        let mut due: Vec<(Duration, PeerId)> = Vec::new();
        for peer in self.kept.difference(&self.connected) {
            let redial = self.redials.entry(*peer).or_default();
            if !redial.is_dialling && redial.next <= now && may_dial(peer) {
                due.push((redial.next, *peer));
            }
        }
        // Whoever waits longest comes first.
        due.sort();
        due.truncate(room);
        let mut dials = Vec::new();
        for (_, peer) in due {
            if let Some(redial) = self.redials.get_mut(&peer) {
                redial.is_dialling = true;
            }
            dials.push((peer, self.addresses(&peer)));
        }
        dials
    }

    /// How a dial ended.
    pub(super) fn dialled(&mut self, peer: &PeerId, has_succeeded: bool, now: Duration) {
        if has_succeeded {
            self.redials.remove(peer);
            self.connected.insert(*peer);
        } else if let Some(redial) = self.redials.get_mut(peer) {
            redial.is_dialling = false;
            redial.pause = (redial.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
            redial.next = now + redial.pause;
        }
    }
}

/// The address without the PeerID at its end; `None` if it leads to somebody else.
fn of_station(peer: &PeerId, address: &Multiaddr) -> Option<Multiaddr> {
    let mut address = address.clone();
    if let Some(Protocol::P2p(named)) = address.iter().last() {
        (named == *peer).then_some(())?;
        address.pop();
    }
    (!address.is_empty()).then_some(address)
}

/// The best connection with each station that is `shown`: direct before relayed. Streams and times are left to the caller.
pub(super) fn links(
    connections: &[Connection],
    shown: impl Fn(&PeerId) -> bool,
) -> BTreeMap<PeerId, LinkState> {
    let mut links: BTreeMap<PeerId, LinkState> = BTreeMap::new();
    for connection in connections {
        let Some(peer) = connection.peer.parse().ok().filter(&shown) else {
            continue;
        };
        let path = if connection.address.contains("/p2p-circuit") {
            Path::Relayed
        } else {
            Path::Direct
        };
        let link = LinkState {
            path,
            address: connection.address.clone(),
            rtt_ms: milliseconds(&connection.latency),
            streams_out: 0,
            streams_in: 0,
            since: 0,
        };
        let best = links.entry(peer).or_insert_with(|| link.clone());
        if link.path < best.path {
            *best = link;
        }
    }
    links
}

/// A duration as Go writes it (`1m2.5s`, `3.7ms`, `250µs`), in milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_ends);
        let unit_ends = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        let scale = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "µs" | "μs" | "us" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    #[test]
    fn pauses_grow_to_ten_seconds_and_end_with_a_new_address() {
        let mut connections = Connections::default();
        let peer = PeerId::random();
        connections.keep([peer].into());
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(connections.due(now, |_| true).len(), 1);
            assert!(connections.due(now, |_| true).is_empty(), "it is dialled");
            connections.dialled(&peer, false, now);
            let began = now;
            while connections.redials[&peer].next > now {
                now += Duration::from_millis(500);
            }
            pauses.push((now - began).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        connections.due(now, |_| true);
        connections.dialled(&peer, false, now);
        assert!(connections.due(now, |_| true).is_empty());
        assert!(connections.learn(peer, &[address("/ip4/192.0.2.1/tcp/4001")]));
        assert_eq!(connections.due(now, |_| true).len(), 1);
        connections.dialled(&peer, true, now);
        assert!(connections.is_connected(&peer));
        assert!(connections.due(now + PAUSE_MAX, |_| true).is_empty());
        connections.set_connected(BTreeSet::new());
        assert_eq!(connections.due(now, |_| true).len(), 1, "at once");
    }

    #[test]
    fn an_address_is_remembered_once_and_only_its_stations() {
        let mut connections = Connections::default();
        let (peer, other) = (PeerId::random(), PeerId::random());
        let plain = address("/ip4/192.0.2.1/tcp/4001");
        let full = address(&format!("{plain}/p2p/{peer}"));
        let foreign = address(&format!("{plain}/p2p/{other}"));
        let circuit = address(&format!("{foreign}/p2p-circuit"));
        assert!(connections.learn(peer, &[full]));
        assert!(!connections.learn(peer, &[plain.clone(), foreign]));
        assert!(!connections.learn(peer, &[address(&format!("/p2p/{peer}"))]));
        assert!(connections.learn(peer, std::slice::from_ref(&circuit)));
        assert_eq!(connections.addresses(&peer), [circuit, plain]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut connections = Connections::default();
        let first = PeerId::random();
        let of = |number: usize| address(&format!("/ip4/192.0.2.1/tcp/{}", number + 1));
        for number in 0..2 * ADDRESSES_MAX {
            connections.learn(first, &[of(number)]);
        }
        assert_eq!(connections.addresses(&first).len(), ADDRESSES_MAX);
        assert_eq!(
            connections.addresses(&first)[0],
            of(2 * ADDRESSES_MAX - 1),
            "the latest"
        );
        for _ in 0..STATIONS_MAX {
            connections.learn(PeerId::random(), &[of(0)]);
        }
        assert!(connections.addresses(&first).is_empty());
        assert_eq!(connections.addresses.len(), STATIONS_MAX);
    }

    #[test]
    fn stations_that_are_kept_are_not_forgotten_for_others() {
        let mut connections = Connections::default();
        let kept = PeerId::random();
        let somewhere = [address("/ip4/192.0.2.1/tcp/4001")];
        connections.learn(kept, &somewhere);
        connections.keep([kept].into());
        for _ in 0..2 * STATIONS_MAX {
            connections.learn(PeerId::random(), &somewhere);
        }
        assert_eq!(connections.addresses(&kept), somewhere);
        assert_eq!(connections.addresses.len(), STATIONS_MAX);
    }

    #[test]
    fn a_direct_connection_is_shown_before_a_relayed_one() {
        let (peer, stranger) = (PeerId::random(), PeerId::random());
        let connection = |peer: &PeerId, address: &str, latency: &str| Connection {
            peer: peer.to_string(),
            address: address.to_owned(),
            latency: latency.to_owned(),
        };
        let relayed = "/ip4/192.0.2.9/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit";
        let listed = [
            connection(&peer, relayed, "n/a"),
            connection(&peer, "/ip4/192.0.2.1/tcp/4001", "1.5ms"),
            connection(&stranger, "/ip4/192.0.2.2/tcp/4001", "n/a"),
        ];
        let direct = links(&listed, |shown| *shown == peer);
        assert_eq!(direct.len(), 1);
        assert_eq!(direct[&peer].path, Path::Direct);
        assert_eq!(direct[&peer].rtt_ms, Some(1.5));
        let only_relayed = links(&listed[..1], |_| true);
        assert_eq!(only_relayed[&peer].path, Path::Relayed);
        assert_eq!(only_relayed[&peer].rtt_ms, None);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("1.5ms", Some(1.5)),
            ("250µs", Some(0.25)),
            ("1m2.5s", Some(62_500.0)),
            ("2h0m0s", Some(7_200_000.0)),
            ("n/a", None),
            ("", None),
            ("5", None),
            ("5parsecs", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }
}
