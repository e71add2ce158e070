//! Batches of cards: a chain of stations beside kubo, whose keys only those say who let them in.

use super::*;
use crate::trust::{Card, SignedCard, Statement, Vouch};

const LENGTH: u8 = 10;

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn peer(number: u8) -> PeerId {
    identity(number).public_key().peer_id()
}

/// What station `number` signs with: not the key of its PeerID.
fn signer(number: u8) -> Identity {
    identity(100 + number)
}

/// Each vouches for the next.
fn chain() -> Vec<SignedCard> {
    let cards = (1..=LENGTH).map(|number| {
        let mut statement = Statement::new(ConstellationId::of_name("test"), 1);
        statement.station_key = Some(signer(number).public_key());
        statement.vouches = vec![Vouch {
            peer: peer(number + 1),
            key: Some(signer(number + 1).public_key()),
            since: 1,
        }];
        let card = Card {
            created: Some(Clock::system().unix_seconds()),
            constellation: Some(statement),
            ..Card::of(peer(number))
        };
        SignedCard::sign(&card, &signer(number)).unwrap()
    });
    cards.collect()
}

fn shuffled(mut cards: Vec<SignedCard>, seed: u64) -> Vec<SignedCard> {
    let random = Random::seeded(seed);
    cards.sort_by_cached_key(|_| random.bytes::<8>());
    cards
}

/// Which of the chain are admitted; the last one's card names one more.
fn all_are_in(registry: &Registry) -> bool {
    (1..=LENGTH + 1).all(|number| registry.is_admitted(&peer(number)))
}

fn knowing_the_first(folder: &tempfile::TempDir) -> Arc<Registry> {
    alone(folder.path(), 99, |_, settings| {
        settings.allowed = [peer(1)].into();
    })
}

#[test]
fn a_chain_in_one_batch_arrives_at_once_in_whatever_order() {
    for seed in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let registry = knowing_the_first(&folder);
        let taken = registry.receive(shuffled(chain(), seed), peer(1));
        assert_eq!(taken, usize::from(LENGTH), "seed {seed}");
        assert!(all_are_in(&registry), "seed {seed}");
    }
}

#[test]
fn a_card_that_came_before_its_key_was_named_is_taken_when_it_is() {
    for seed in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let registry = knowing_the_first(&folder);
        let mut cards = chain();
        let rest = cards.split_off(1);
        for card in shuffled(rest, seed) {
            assert_eq!(registry.receive(vec![card], peer(1)), 0);
        }
        assert_eq!(registry.receive(cards, peer(1)), usize::from(LENGTH));
        assert!(all_are_in(&registry), "seed {seed}");
    }
}

#[test]
fn whoever_read_to_the_end_is_told_of_a_card_that_counts_since() {
    let folder = tempfile::tempdir().unwrap();
    let registry = knowing_the_first(&folder);
    let stranger = alone(tempfile::tempdir().unwrap().path(), 50, |_, _| {});
    let card = stranger.own_card().unwrap();
    assert_eq!(registry.receive(vec![card.clone()], peer(1)), 1);
    let (told, read, _) = registry.since(crate::trust::Cursor::default());
    assert!(!told.contains(&card), "nobody vouches for it");
    let mut versions = registry.version();
    versions.mark_unchanged();
    registry.allow(&stranger.own().to_string()).unwrap();
    assert!(
        versions.has_changed().unwrap(),
        "gossip has something to tell"
    );
    let (told, _, _) = registry.since(read);
    assert!(told.contains(&card));
}

#[test]
fn cards_that_wait_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let registry = knowing_the_first(&folder);
    for number in 0..6 {
        let cards = (0..100u8).map(|index| {
            let of = Identity::from_seed([[200 + number, index]; 16].concat().try_into().unwrap());
            let mut statement = Statement::new(ConstellationId::of_name("test"), 1);
            statement.station_key = Some(signer(1).public_key());
            let card = Card {
                created: Some(1),
                hostname: Some("h".repeat(20_000)),
                constellation: Some(statement),
                ..Card::of(of.public_key().peer_id())
            };
            SignedCard::sign(&card, &signer(1)).unwrap()
        });
        assert_eq!(registry.receive(cards.collect(), peer(1)), 0);
    }
    let waiting = registry.lock().unbound.len_bytes();
    assert!(waiting > 1 << 20 && waiting <= 2 << 20, "{waiting}");
}

/// A card whose key nobody has named waits; that the station it claims to be of comes later does not prove it.
#[test]
fn a_forged_card_that_waits_is_not_proved_by_whoever_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let (victim, forger) = (peer(1), identity(200));
    let registry = alone(folder.path(), 99, |_, settings| {
        settings.allowed = [victim, peer(2)].into();
    });
    let mut statement = Statement::new(registry.membership().id, 1 << 40);
    statement.station_key = Some(forger.public_key());
    statement.vouches = vec![Vouch {
        peer: forger.public_key().peer_id(),
        key: None,
        since: 1,
    }];
    let forged = Card {
        created: Some(Clock::system().unix_seconds()),
        constellation: Some(statement),
        ..Card::of(victim)
    };
    let forged = SignedCard::sign(&forged, &forger).unwrap();
    assert_eq!(registry.receive(vec![forged], peer(2)), 0);
    assert_eq!(registry.receive(Vec::new(), victim), 0);
    assert!(!registry.is_admitted(&forger.public_key().peer_id()));
}
