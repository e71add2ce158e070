//! Stations that may enter because they hold the swarm key, and for no other reason.

use super::*;
use crate::peer::PeerAddress;
use crate::tunnel::{Found, Source};

fn holder(hub: &Hub, seed: u8, is_secret: bool) -> Member {
    let id = ConstellationId::of_swarm_key(b"a key");
    let folder = tempfile::tempdir().unwrap();
    Member::with(hub, seed, id, folder, |options, settings| {
        options.swarm_key_is_secret = is_secret;
        settings.swarm_key_admits = true;
    })
}

fn comes_across(one: &Member, other: &Member) {
    one.registry.found_by(vec![Found {
        peer: other.id(),
        addresses: vec![format!("/memory/{}", other.seed).parse().unwrap()],
        source: Source::Mdns,
    }]);
}

fn exchanges_with(member: &Member) -> BTreeSet<PeerId> {
    let found = member.registry.found();
    let found = found.borrow();
    found.iter().filter_map(PeerAddress::peer_id).collect()
}

fn is_linked_with(member: &Member) -> BTreeSet<PeerId> {
    (**member.registry.wanted().borrow()).clone()
}

async fn soon_exchanges_with(member: &Member, expected: &[&Member]) {
    let expected: BTreeSet<PeerId> = expected.iter().map(|other| other.id()).collect();
    let mut found = member.registry.found();
    let are_there = found.wait_for(|found| {
        let found: BTreeSet<PeerId> = found.iter().filter_map(PeerAddress::peer_id).collect();
        found == expected
    });
    let came = timeout(Duration::from_secs(30), are_there).await.is_ok();
    assert!(came, "member {}: {:?}", member.seed, exchanges_with(member));
    let mut wanted = member.registry.wanted();
    let is_wanted = wanted.wait_for(|wanted| **wanted == expected);
    let came = timeout(Duration::from_secs(30), is_wanted).await.is_ok();
    assert!(came, "member {}: {:?}", member.seed, is_linked_with(member));
}

fn standing_of(member: &Member, other: &Member) -> Option<String> {
    let address = PeerAddress::of_station(other.id()).to_string();
    let peers = member.registry.peers();
    let report = peers.into_iter().find(|report| report.address == address);
    report.and_then(|report| report.standing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_the_swarm_key_is_known_and_exchanged_with_unless_it_is_revoked() {
    let hub = Hub::default();
    let [first, second, third] = [1, 2, 3].map(|seed| holder(&hub, seed, true));
    comes_across(&first, &second);
    comes_across(&second, &third);
    // The second learns of the first by its card, the first of the third by the second's.
    soon_exchanges_with(&second, &[&first, &third]).await;
    soon_exchanges_with(&first, &[&second, &third]).await;
    soon_exchanges_with(&third, &[&first, &second]).await;
    assert_eq!(standing_of(&first, &third).as_deref(), Some("admitted"));
    assert!(first.registry.reachable().contains(&second.id()));
    assert!(first.registry.is_admitted(&third.id()));

    let revoked = third.id();
    first.registry.revoke(&revoked.to_string()).unwrap();
    assert_eq!(exchanges_with(&first), [second.id()].into());
    assert_eq!(is_linked_with(&first), [second.id()].into());
    assert_eq!(standing_of(&first, &third).as_deref(), Some("revoked"));
    assert!(!first.registry.is_admitted(&revoked));
    comes_across(&first, &third);
    assert_eq!(exchanges_with(&first), [second.id()].into());
}

#[test]
fn the_key_of_zeros_makes_nobody_a_peer() {
    let hub = Hub::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let [first, second] = [1, 2].map(|seed| holder(&hub, seed, false));
    comes_across(&first, &second);
    assert!(exchanges_with(&first).is_empty());
    assert!(is_linked_with(&first).is_empty());
    assert_eq!(standing_of(&first, &second).as_deref(), Some("stranger"));
}

#[test]
fn a_flood_of_made_up_names_is_tried_within_a_bound_and_after_those_with_cards() {
    let folder = tempfile::tempdir().unwrap();
    let registry = alone(folder.path(), 1, |options, settings| {
        options.swarm_key_is_secret = true;
        settings.swarm_key_admits = true;
    });
    let other_folder = tempfile::tempdir().unwrap();
    let other = alone(other_folder.path(), 2, |_, _| {});
    let found = (0..2_000).map(|_| Found {
        peer: PeerId::random(),
        addresses: vec![],
        source: Source::Mdns,
    });
    registry.found_by(found.collect());
    let card = other.own_card().expect("signed when it was opened");
    assert_eq!(registry.receive(vec![card], other.own()), 1);
    let found = registry.found();
    let found = found.borrow();
    assert_eq!(
        found.first().and_then(PeerAddress::peer_id),
        Some(other.own())
    );
    assert!(found.len() <= 256, "{}", found.len());
    assert!(registry.wanted().borrow().contains(&other.own()));
}
