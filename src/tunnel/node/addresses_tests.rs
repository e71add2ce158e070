//! The address book: ranks, bounds, what survives, what it refuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::{ADDRESSES_PER_PEER, AddressBook, PEERS_MAX, is_loopback, is_relayed, without_peer};
use crate::tunnel::{Multiaddr, PeerId, Source};

fn address(number: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{number}")
        .parse()
        .expect("an address")
}

#[test]
fn what_served_last_comes_first_and_what_failed_most_last() {
    let mut book = AddressBook::default();
    let peer = PeerId::random();
    for number in 1..=4 {
        assert!(book.learn(peer, &address(number), Source::Card));
        assert!(!book.learn(peer, &address(number), Source::Card), "known");
    }
    book.succeeded(peer, &address(2), 100);
    book.succeeded(peer, &address(3), 200);
    book.failed(peer, &address(1));
    assert_eq!(book.direct(&peer), [3, 2, 4, 1].map(address));
    // A failure does not make it forgotten, nor less than what never served.
    for _ in 0..100 {
        book.failed(peer, &address(3));
    }
    assert_eq!(book.direct(&peer)[0], address(3));
}

#[test]
fn relayed_addresses_are_kept_apart() {
    let (peer, relay) = (PeerId::random(), PeerId::random());
    let circuit: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}")
        .parse()
        .expect("an address");
    let mut book = AddressBook::default();
    book.learn(peer, &circuit, Source::Card);
    book.learn(peer, &address(1), Source::Card);
    assert_eq!(book.direct(&peer), [address(1)]);
    assert_eq!(
        book.relayed(&peer),
        [without_peer(&circuit, &peer).expect("one")]
    );
    assert!(is_relayed(&circuit) && !is_relayed(&address(1)));
}

#[test]
fn an_address_of_another_station_is_refused() {
    let (peer, other) = (PeerId::random(), PeerId::random());
    let mut book = AddressBook::default();
    let foreign: Multiaddr = format!("{}/p2p/{other}", address(1)).parse().expect("one");
    assert!(!book.learn(peer, &foreign, Source::Card));
    let bare: Multiaddr = format!("/p2p/{peer}").parse().expect("one");
    assert!(!book.learn(peer, &bare, Source::Card));
    assert!(book.snapshot().is_empty());
    let local: Multiaddr = "/ip6/::1/tcp/1".parse().expect("one");
    assert!(is_loopback(&local) && !is_loopback(&address(1)));
}

#[test]
fn stations_nobody_wants_make_room_for_others() {
    let wanted = PeerId::random();
    let named = PeerId::random();
    let mut book = AddressBook::default();
    book.set_wanted(Arc::new(BTreeSet::from([wanted])));
    book.learn(wanted, &address(1), Source::Card);
    book.learn(named, &address(1), Source::Static);
    for _ in 0..2 * PEERS_MAX {
        book.learn(PeerId::random(), &address(1), Source::Mdns);
    }
    assert_eq!(book.snapshot().len(), PEERS_MAX);
    assert!(!book.direct(&wanted).is_empty() && !book.direct(&named).is_empty());
}

proptest! {
    #[test]
    fn a_station_has_few_addresses_and_the_best_survive(
        learnt in proptest::collection::vec((1_u16..200, 0_u8..4), 1..200)
    ) {
        let mut book = AddressBook::default();
        let peer = PeerId::random();
        let mut best = None;
        for (time, (number, what)) in (1_u64..).zip(learnt) {
            match what {
                0 => { book.learn(peer, &address(number), Source::Card); }
                1 => book.failed(peer, &address(number)),
                2 => {
                    book.succeeded(peer, &address(number), time);
                    best = Some(number);
                }
                _ => { book.learn(peer, &address(number), Source::Static); }
            }
            prop_assert!(book.direct(&peer).len() <= ADDRESSES_PER_PEER);
        }
        if let Some(best) = best {
            prop_assert_eq!(book.direct(&peer)[0].clone(), address(best));
        }
        let again = AddressBook::restore(&book.snapshot());
        let (mut before, mut after) = (book.snapshot(), again.snapshot());
        before.sort_by(|a, b| a.address.cmp(&b.address));
        after.sort_by(|a, b| a.address.cmp(&b.address));
        prop_assert_eq!(before, after);
    }
}
