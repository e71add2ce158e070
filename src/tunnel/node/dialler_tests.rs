//! Who is dialled when: rounds, pauses, answers to everyone who waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{
    DIRECT_PAUSE_FIRST, DIRECT_PAUSE_MAX, Dialler, PAUSE_FIRST, PROVEN_AFTER, RELAY_AFTER, Step,
    WAITING_MAX,
};
use crate::random::Random;
use crate::tunnel::node::streams::{OpenFailure, OpenRequest, Tunnelled};
use crate::tunnel::{PeerId, ServiceName};

/// Room for as many dials as one likes.
const ROOM: usize = usize::MAX;

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
        if dialler
            .due(now, ROOM, |_| false)
            .contains(&Step::Direct(peer))
        {
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
    assert_eq!(dialler.due(now, ROOM, |_| false), [Step::Direct(peer)]);
}

#[test]
fn a_station_that_is_connected_or_not_kept_any_more_is_not_dialled() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let now = Instant::now();
    dialler.keep(Arc::new(BTreeSet::from([peer])), now);
    assert_eq!(dialler.due(now, ROOM, |_| true), []);
    dialler.keep(Arc::default(), now);
    assert_eq!(dialler.due(now, ROOM, |_| false), []);
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
    assert_eq!(dialler.due(now, ROOM, |_| false), []);
    assert_eq!(
        dialler.due(now + RELAY_AFTER, ROOM, |_| false),
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
    dialler.due(now, ROOM, |_| false);
    assert_eq!(dialler.connected(&peer).len(), 10);
    assert_eq!(dialler.waiting, 0);
    assert!(dialler.targets.is_empty());
}

/// When a station is tried directly, in seconds from the first look.
fn direct_attempts(dialler: &mut Dialler, peer: PeerId, from: Instant, hours: u64) -> Vec<u64> {
    let mut tried = Vec::new();
    for second in 0..hours * 3_600 {
        if dialler.is_direct_due(&peer, from + Duration::from_secs(second)) {
            tried.push(second);
        }
    }
    tried
}

#[test]
fn a_relayed_link_is_tried_directly_soon_and_then_with_pauses_that_grow_to_ten_minutes() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let tried = direct_attempts(&mut dialler, peer, Instant::now(), 10);
    assert_eq!(tried[0], 1, "soon");
    let pauses: Vec<u64> = tried.windows(2).map(|two| two[1] - two[0]).collect();
    let about = |pause: Duration| pause.as_secs() * 3 / 4..=pause.as_secs() * 5 / 4 + 1;
    assert!(about(DIRECT_PAUSE_FIRST).contains(&pauses[0]), "{pauses:?}");
    let (growing, longest) = pauses.split_at(5);
    assert!(growing.is_sorted(), "{pauses:?}");
    for pause in longest {
        assert!(about(DIRECT_PAUSE_MAX).contains(pause), "{pauses:?}");
    }
}

#[test]
fn news_and_a_link_that_was_direct_make_the_next_direct_attempt_soon() {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let start = Instant::now();
    let changes: [fn(&mut Dialler, PeerId, Instant); 4] = [
        |dialler, peer, now| dialler.hurry(&peer, now),
        |dialler, _, now| dialler.hurry_all(now),
        |dialler, peer, _| dialler.reached_directly(&peer),
        |dialler, peer, now| dialler.lost(&peer, PROVEN_AFTER, now),
    ];
    for (hour, change) in (0..).zip(changes) {
        let from = start + Duration::from_secs(hour * 7_200);
        direct_attempts(&mut dialler, peer, from, 1);
        let later = from + Duration::from_secs(3_600);
        change(&mut dialler, peer, later);
        assert!(!dialler.is_direct_due(&peer, later));
        assert!(dialler.is_direct_due(&peer, later + PAUSE_FIRST));
    }
}

/// Connections that end after `lasted`, one after the other: gives the pauses before the next dial.
fn pauses_between_links(lasted: Duration, links: usize) -> Vec<Duration> {
    let (mut dialler, peer) = (dialler(), PeerId::random());
    let mut now = Instant::now();
    dialler.keep(Arc::new(BTreeSet::from([peer])), now);
    let mut pauses = Vec::new();
    for _ in 0..links {
        let ended = now;
        while dialler.due(now, ROOM, |_| false).is_empty() {
            now += Duration::from_millis(50);
        }
        pauses.push(now - ended);
        dialler.dialling(peer, dial(1));
        assert!(dialler.connected(&peer).is_empty());
        now += lasted;
        dialler.lost(&peer, lasted, now);
    }
    pauses
}

#[test]
fn whoever_refuses_us_after_the_handshake_is_called_less_and_less_often() {
    let pauses = pauses_between_links(Duration::from_millis(20), 8);
    assert!(pauses[1] < Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[7] > Duration::from_secs(5), "{pauses:?}");
    let served = pauses_between_links(PROVEN_AFTER, 8);
    assert!(
        served.iter().all(|pause| *pause < Duration::from_secs(1)),
        "{served:?}"
    );
}

#[test]
fn many_stations_that_are_gone_do_not_keep_one_that_is_there_from_being_dialled() {
    const AT_ONCE: usize = 4;
    let mut dialler = dialler();
    let mut now = Instant::now();
    let gone: BTreeSet<PeerId> = (0..64).map(|_| PeerId::random()).collect();
    dialler.keep(Arc::new(gone.clone()), now);
    let mut dialled = BTreeSet::new();
    for _ in 0..1_000 {
        for step in dialler.due(now, AT_ONCE, |_| false) {
            let (Step::Direct(peer) | Step::Relayed(peer)) = step;
            dialled.insert(peer);
            while dialler.failed(peer, None, None, now).is_some() {}
        }
        now += Duration::from_millis(250);
    }
    assert_eq!(dialled, gone, "each has its turn");
    // All of them are due, and so is one that has not failed yet, whatever its PeerID.
    now += Duration::from_secs(60);
    let there = PeerId::random();
    let mut kept = gone;
    kept.insert(there);
    dialler.keep(Arc::new(kept), now);
    let (request, _answer) = request();
    let asked_for = PeerId::random();
    assert!(dialler.wait(asked_for, request, now).is_some());
    now += RELAY_AFTER;
    let steps = dialler.due(now, AT_ONCE, |_| false);
    assert_eq!(steps.len(), AT_ONCE);
    assert_eq!(
        steps[..2],
        [Step::Relayed(asked_for), Step::Direct(there)],
        "first whom somebody waits for, then who has not failed"
    );
}
