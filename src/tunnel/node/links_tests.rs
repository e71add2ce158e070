//! Links: which of several is used, which are closed, and how a dead one is noticed.

use std::sync::Arc;
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::ConnectionId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Links, Made, PING_EVERY, PUNCH_LASTS, SILENT_AFTER};
use crate::time::Clock;
use crate::tunnel::node::streams::Door;
use crate::tunnel::{GuestList, Multiaddr, Path, PeerId};

const RTT: Duration = Duration::from_millis(20);

fn door() -> Door {
    let guests = watch::channel(Arc::new(GuestList::default())).1;
    let (inbound, weary) = (mpsc::channel(1).0, mpsc::channel(1).0);
    Door::new(PeerId::random(), guests, inbound, weary, Clock::system())
}

/// Two PeerIDs, the smaller one first.
fn two() -> [PeerId; 2] {
    let mut two = [PeerId::random(), PeerId::random()];
    two.sort_unstable();
    two
}

fn direct() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/4011".parse().expect("an address")
}

fn circuit() -> Multiaddr {
    let relay = PeerId::random();
    format!("/ip4/192.0.2.9/tcp/4011/p2p/{relay}/p2p-circuit")
        .parse()
        .expect("an address")
}

/// One connection, as the end that dialled sees it and as the other does.
fn both_ends(address: &Multiaddr) -> [ConnectedPoint; 2] {
    [
        ConnectedPoint::Dialer {
            address: address.clone(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        },
        ConnectedPoint::Listener {
            local_addr: address.clone(),
            send_back_addr: address.clone(),
        },
    ]
}

/// Both ends' views of what connects two stations.
struct Pair {
    ids: [PeerId; 2],
    views: [Links; 2],
    start: Instant,
}

impl Pair {
    fn new() -> Self {
        let ids = two();
        Self {
            ids,
            views: ids.map(Links::new),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// Made by one of them; `seen` are the seconds at which each of them sees it.
    fn made(&mut self, number: usize, by: usize, address: &Multiaddr, seen: [u64; 2]) {
        let door = door();
        let [dialled, called] = both_ends(address);
        for who in [0, 1] {
            let endpoint = if who == by { &dialled } else { &called };
            let made = Made {
                id: id(number),
                endpoint,
                local_ip: None,
                now: self.at(seen[who]),
                unix_seconds: seen[who],
            };
            self.views[who].established(self.ids[1 - who], made, &door);
        }
    }

    fn answers(&mut self, number: usize, at: u64) {
        let now = self.at(at);
        for who in [0, 1] {
            self.views[who].measured(&self.ids[1 - who], id(number), RTT, now);
        }
    }

    fn best(&self, who: usize) -> Option<ConnectionId> {
        self.views[who].best(&self.ids[1 - who]).map(|link| link.id)
    }

    /// What one of them would close if nothing used it.
    fn closes(&self, who: usize, at: u64) -> Vec<ConnectionId> {
        let links = self.views[who].of(&self.ids[1 - who]).expect("links");
        links.replaced(self.at(at)).map(|link| link.id).collect()
    }
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

#[test]
fn of_two_links_that_were_dialled_at_once_both_ends_keep_the_same() {
    let mut pair = Pair::new();
    // Each sees its own first.
    pair.made(1, 0, &direct(), [0, 1]);
    pair.made(2, 1, &direct(), [1, 0]);
    pair.answers(1, 5);
    pair.answers(2, 5);
    for who in [0, 1] {
        assert_eq!(pair.best(who), Some(id(1)), "the smaller one's");
        assert_eq!(pair.closes(who, 5), [id(2)]);
    }
}

#[test]
fn of_two_links_that_one_end_dialled_only_that_end_closes_one() {
    let mut pair = Pair::new();
    // The order is not the same at both ends: if both decided, both links would be gone.
    pair.made(1, 1, &direct(), [0, 1]);
    pair.made(2, 1, &direct(), [1, 0]);
    assert_eq!(pair.closes(0, 9), []);
    assert_eq!(pair.closes(1, 9), [id(2)]);
}

#[test]
fn a_link_that_may_be_dead_is_no_reason_to_close_the_new_one() {
    let mut pair = Pair::new();
    pair.made(1, 0, &direct(), [0, 0]);
    // The other one was away and calls again; here nobody knows that the old link is dead.
    pair.made(2, 1, &direct(), [4, 4]);
    assert_eq!(pair.best(0), Some(id(2)));
    assert_eq!(pair.closes(0, 9), []);
}

#[test]
fn a_link_that_does_not_answer_hides_no_other_and_counts_again_when_it_does() {
    let mut pair = Pair::new();
    pair.made(1, 0, &circuit(), [0, 0]);
    pair.made(2, 0, &direct(), [0, 0]);
    pair.answers(2, 1);
    assert_eq!(pair.best(0), Some(id(2)));
    let late = pair.at(1) + SILENT_AFTER;
    pair.views[0].measured(&pair.ids[1], id(1), RTT, late);
    assert_eq!(pair.views[0].fallen_silent(late), [pair.ids[1]]);
    assert_eq!(pair.views[0].fallen_silent(late), [], "said once");
    assert_eq!(pair.best(0), Some(id(1)), "the relayed one serves");
    assert_eq!(pair.closes(0, 60), [], "its streams may still come back");

    pair.views[0].dead(&pair.ids[1], id(1));
    assert!(!pair.views[0].is_connected(&pair.ids[1]), "to be dialled");
    assert!(pair.views[0].states(&door()).is_empty(), "not shown");
    pair.views[0].measured(&pair.ids[1], id(2), RTT, late);
    assert_eq!(pair.best(0), Some(id(2)));
}

#[test]
fn a_dead_link_is_noticed_within_a_dozen_seconds() {
    assert!(SILENT_AFTER > PING_EVERY * 2, "one late answer is no death");
    assert!(SILENT_AFTER <= Duration::from_secs(12));
}

#[test]
fn whoever_answers_no_pings_is_not_taken_for_dead() {
    let mut pair = Pair::new();
    pair.made(1, 0, &direct(), [0, 0]);
    let (peer, later) = (pair.ids[1], pair.at(600));
    pair.views[0].answers_no_pings(&peer, id(1));
    assert_eq!(pair.views[0].fallen_silent(later), []);
    assert_eq!(pair.best(0), Some(id(1)));
}

#[test]
fn a_relayed_link_is_repeated_by_who_made_it_and_stays_while_the_copy_goes() {
    let mut pair = Pair::new();
    let way = circuit();
    pair.made(1, 1, &way, [0, 0]);
    let (peer, soon, later) = (pair.ids[0], pair.at(1), pair.start + PUNCH_LASTS);
    assert_eq!(pair.views[1].way_to_punch(&peer, soon), None, "under way");
    assert_eq!(pair.views[1].way_to_punch(&peer, later), Some(way.clone()));
    assert_eq!(pair.views[0].way_to_punch(&pair.ids[1], later), None);

    let again = PUNCH_LASTS.as_secs();
    pair.made(2, 1, &way, [again, again]);
    pair.answers(1, again + 5);
    for who in [0, 1] {
        assert_eq!(pair.best(who), Some(id(1)), "the one in use");
        assert_eq!(pair.closes(who, again + 5), [], "time to become direct");
    }
    assert_eq!(pair.closes(0, 2 * again), [], "whoever made it closes it");
    assert_eq!(pair.closes(1, 2 * again), [id(2)]);

    pair.made(3, 0, &direct(), [60, 60]);
    for who in [0, 1] {
        assert_eq!(pair.best(who), Some(id(3)));
        assert_eq!(pair.closes(who, 60), [id(1), id(2)], "both are superfluous");
        let other = pair.ids[1 - who];
        assert_eq!(pair.views[who].way_to_punch(&other, pair.at(600)), None);
    }
}

#[test]
fn a_punched_link_is_dialled_by_both_and_belongs_to_one() {
    let [smaller, larger] = two();
    let (door, now) = (door(), Instant::now());
    let mut owners = Vec::new();
    for (local, remote, role_override) in [
        (smaller, larger, Endpoint::Dialer),
        (larger, smaller, Endpoint::Listener),
    ] {
        let endpoint = ConnectedPoint::Dialer {
            address: direct(),
            role_override,
            port_use: PortUse::Reuse,
        };
        let made = Made {
            id: id(1),
            endpoint: &endpoint,
            local_ip: None,
            now,
            unix_seconds: 0,
        };
        let mut links = Links::new(local);
        links.established(remote, made, &door);
        owners.push(links.best(&remote).expect("one").is_of_smaller);
    }
    assert_eq!(owners, [true, true]);
}

#[test]
fn links_at_an_address_that_is_gone_are_found() {
    let [local, peer] = two();
    let mut links = Links::new(local);
    let here = "192.0.2.7".parse().expect("an address");
    for (number, local_ip) in [(1, Some(here)), (2, None)] {
        let [endpoint, _] = both_ends(&direct());
        let made = Made {
            id: id(number),
            endpoint: &endpoint,
            local_ip,
            now: Instant::now(),
            unix_seconds: 0,
        };
        links.established(peer, made, &door());
    }
    assert_eq!(links.at(here), [(peer, id(1))]);
    assert_eq!(links.best(&peer).map(|link| link.path), Some(Path::Direct));
}

#[test]
fn the_last_link_that_closes_tells_how_long_there_were_any() {
    let mut pair = Pair::new();
    pair.made(1, 0, &direct(), [0, 0]);
    pair.made(2, 0, &direct(), [3, 3]);
    let peer = pair.ids[1];
    let (soon, later) = (pair.at(5), pair.at(8));
    assert_eq!(pair.views[0].closed(&peer, id(1), soon), None);
    let lasted = pair.views[0].closed(&peer, id(2), later);
    assert_eq!(lasted, Some(Duration::from_secs(8)));
    assert!(!pair.views[0].is_connected(&peer));
}
