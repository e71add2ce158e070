//! Links that come back: addresses that survive failures, stations that restart, news that cuts pauses short.

use std::time::Duration;

use tokio::time::Instant;

use super::super::NodeOptions;
use super::support::{TCP, identity, name, on, pair, station, station_of};
use crate::tunnel::{Carrier, OpenError, Source};

#[tokio::test]
async fn a_station_that_restarts_is_linked_again_by_its_old_address() {
    let host = identity();
    let guest = station(on(TCP)).await;
    let first_life = station_of(&host, on(TCP)).await;
    first_life.admit(guest.id());
    guest.admit(first_life.id());
    guest.knows(&first_life);
    let far = first_life.id();
    guest.keep([far]);
    guest.until_linked(far).await;
    let address = first_life.addresses().remove(0);
    first_life.tasks.end().await;
    drop(first_life);
    guest.until(|state| state.links.is_empty()).await;
    // Not there: the address fails, more than once, and is not forgotten.
    let error = guest.try_open(far, "strfry").await.err().expect("gone");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let known = guest.node.addresses();
    assert!(
        known
            .iter()
            .any(|one| one.address == address.to_string() && one.failures > 0)
    );
    let again = NodeOptions {
        listen: vec![address],
        ..on(TCP)
    };
    let second_life = station_of(&host, again).await;
    second_life.admit(guest.id());
    let began = Instant::now();
    guest.until_linked(far).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let known = guest.node.addresses();
    assert!(
        known
            .iter()
            .any(|one| one.failures == 0 && one.last_success.is_some())
    );
}

#[tokio::test]
async fn a_kept_station_is_linked_as_soon_as_its_address_is_learnt() {
    let (first, second) = (station(on(TCP)).await, station(on(TCP)).await);
    first.admit(second.id());
    second.admit(first.id());
    first.keep([second.id()]);
    let error = first
        .node
        .open(second.id(), &name("strfry"), Duration::from_secs(5))
        .await;
    assert_eq!(error.err(), Some(OpenError::NoAddress(second.id())));
    first.knows(&second);
    first.until_linked(second.id()).await;
    // The one that was called has learnt the caller's address.
    let listening: Vec<String> = first.addresses().iter().map(ToString::to_string).collect();
    let began = Instant::now();
    while !second
        .node
        .addresses()
        .iter()
        .any(|one| listening.contains(&one.address))
    {
        assert!(began.elapsed() < super::support::PATIENCE, "not learnt");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_node_knew_serves_the_next_one() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    drop(first.open(second.id(), "strfry").await);
    let known = first.node.addresses();
    let json = serde_json::to_string(&known).expect("a text");
    let next = NodeOptions {
        known: serde_json::from_str(&json).expect("the same"),
        ..on(TCP)
    };
    let next = station(next).await;
    second.admit(next.id());
    drop(next.open(second.id(), "strfry").await);
}

#[tokio::test]
async fn another_station_at_a_known_address_is_not_taken_for_the_one_meant() {
    let (first, impostor) = (station(on(TCP)).await, station(on(TCP)).await);
    let meant = identity().keypair().public().to_peer_id();
    let there = impostor.addresses();
    first.node.learn(meant, &there, Source::Card);
    let error = first.try_open(meant, "strfry").await.err().expect("not it");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn nobody_opens_a_stream_to_itself() {
    let alone = station(on(TCP)).await;
    let error = alone
        .try_open(alone.id(), "strfry")
        .await
        .err()
        .expect("refused");
    assert!(error.to_string().contains("itself"), "{error}");
}
