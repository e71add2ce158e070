//! Who is dialled when: rounds, pauses, answers to everyone who waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Dialler, PAUSE_FIRST, RELAY_AFTER, Step, WAITING_MAX};
use crate::random::Random;
use crate::tunnel::node::streams::{OpenFailure, OpenRequest, Tunnelled};
use crate::tunnel::{PeerId, ServiceName};

type Answer = oneshot::Receiver<Result<Tunnelled, OpenFailure>>;

fn request() -> (OpenRequest, Answer) {
    let (reply, answer) = oneshot::channel();
    let service = ServiceName::strfry();
    (OpenRequest { service, reply }, answer)
}

fn dialler() -> Dialler {
    Dialler::new(Random::seeded(3))
}

fn dial(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

/// Runs rounds that all fail, and gives the pauses between them.
fn pauses(dialler: &mut Dialler, peer: PeerId, rounds: usize) -> Vec<Duration> {
    let mut now = Instant::now();
    let mut ended = now;
    let mut pauses = Vec::new();
    while pauses.len() < rounds {
        if dialler.due(now, |_| false).contains(&Step::Direct(peer)) {
            pauses.push(now - ended);
            let next = dialler.failed(peer, None, None, now);
            assert_eq!(next, Some(Step::Relayed(peer)), "relays are tried next");
            assert_eq!(dialler.failed(peer, None, None, now), None);
            ended = now;
        }
        now += Duration::from_millis(50);
    }
    pauses
}

#[test]
fn a_kept_station_is_dialled_again_with_growing_pauses_of_ten_seconds_at_most() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    dialler.keep(Arc::new(BTreeSet::from([peer])), Instant::now());
    let pauses = pauses(&mut dialler, peer, 12);
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses[1] < Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[11] > Duration::from_secs(5), "{pauses:?}");
    let most = Duration::from_millis(10_050);
    assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
}

#[test]
fn news_ends_a_pause() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    dialler.keep(Arc::new(BTreeSet::from([peer])), Instant::now());
    pauses(&mut dialler, peer, 8);
    let now = Instant::now();
    dialler.hurry(&peer, now);
    assert_eq!(dialler.due(now, |_| false), [Step::Direct(peer)]);
}

#[test]
fn a_station_that_is_connected_or_not_kept_any_more_is_not_dialled() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let now = Instant::now();
    dialler.keep(Arc::new(BTreeSet::from([peer])), now);
    assert_eq!(dialler.due(now, |_| true), []);
    dialler.keep(Arc::default(), now);
    assert_eq!(dialler.due(now, |_| false), []);
}

#[test]
fn everyone_who_waits_is_answered_when_the_last_dial_has_failed() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let now = Instant::now();
    let (first, mut first_answer) = request();
    let (second, mut second_answer) = request();
    assert_eq!(dialler.wait(peer, first, now), Some(Step::Direct(peer)));
    assert_eq!(dialler.wait(peer, second, now), None, "one round for both");
    dialler.dialling(peer, dial(1));
    // Slow: relays are tried beside it.
    assert_eq!(dialler.due(now, |_| false), []);
    assert_eq!(
        dialler.due(now + RELAY_AFTER, |_| false),
        [Step::Relayed(peer)]
    );
    dialler.dialling(peer, dial(2));
    let why = |text: &str| Some(text.to_owned());
    assert_eq!(
        dialler.failed(peer, Some(dial(9)), why("no"), now),
        None,
        "nobody's"
    );
    assert_eq!(
        dialler.failed(peer, Some(dial(1)), why("refused"), now),
        None
    );
    assert!(first_answer.try_recv().is_err(), "one dial is left");
    assert_eq!(
        dialler.failed(peer, Some(dial(2)), why("too far"), now),
        None
    );
    for answer in [&mut first_answer, &mut second_answer] {
        let failure = answer.try_recv().expect("answered").expect_err("no stream");
        assert_eq!(
            failure,
            OpenFailure::Unreachable("refused; too far".to_owned())
        );
    }
    assert!(dialler.targets.is_empty() && dialler.waiting == 0);
}

#[test]
fn whoever_waits_gets_the_connection_and_whoever_is_too_many_an_answer() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let now = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..WAITING_MAX {
        let (request, answer) = request();
        dialler.wait(peer, request, now);
        answers.push(answer);
    }
    let (request, mut answer) = request();
    dialler.wait(peer, request, now);
    let failure = answer.try_recv().expect("answered").expect_err("no stream");
    assert_eq!(failure, OpenFailure::TooMany);
    // Those who gave up make room, also before there is a connection.
    answers.truncate(10);
    dialler.due(now, |_| false);
    assert_eq!(dialler.connected(&peer, now).len(), 10);
    assert_eq!(dialler.waiting, 0);
    assert!(dialler.targets.is_empty());
}

#[test]
fn a_relayed_link_is_tried_directly_soon_and_then_each_minute() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let start = Instant::now();
    assert!(!dialler.is_direct_due(&peer, start));
    let mut tried = 0;
    for second in 0..=180 {
        let now = start + PAUSE_FIRST + Duration::from_secs(second);
        tried += u32::from(dialler.is_direct_due(&peer, now));
    }
    assert_eq!(tried, 4);
}
