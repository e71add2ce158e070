//! Transfers under all sorts of peers: several that share the work of one run, stingy ones, slow ones, distant ones;
//! and under a store that is slower than they are.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::delay::Distance;
use common::fake_relay::{Crowded, Delivery, FakeRelay, Played, Publishing, Script};
use common::runs::{SHORT, run_within};
use common::{
    Home, author, clock, deletion, ids_of, note, notes, now, wait_until, with_bad_signature,
};
use constellation::config::Config;
use constellation::daemon::{DataDirectory, Station};
use constellation::graph::Graph;
use constellation::limits::{
    CLAIM_OVERDUE, DOWNLOAD_BYTES_MAX, UNSETTLED_BYTES_MAX, UPLOADS_FIRST,
};
use constellation::peer::Visitors;
use constellation::random::Random;
use constellation::recent_ids::BroughtByPeers;
use constellation::relay_client::{Dialer, NostrKey};
use constellation::sync::{
    Deadlines, ExchangeContext, Outcome, PeerReport, Reached, Remembered, RunReport, ScopeOptions,
    Stations, SyncRequest, exchange, plan,
};
use constellation::time::{Clock, TimeSource};
use constellation::transfer::{Claims, Offering, Tally, Unresolved};
use nostr::event::Event;
use tokio::sync::watch;

/// Nothing of these runs is to end by a deadline.
const PATIENT: Deadlines = Deadlines {
    connect: Duration::from_secs(10),
    step: Duration::from_secs(30),
    exchange: Duration::from_secs(50),
    run: Duration::from_secs(55),
};

fn some_notes(count: u64) -> Vec<Event> {
    notes(&author(1), now() - 10_000, count)
}

/// How often each id was delivered.
fn deliveries(relays: &[&Arc<Played>]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for id in relays.iter().flat_map(|played| played.take_delivered()) {
        *times.entry(id).or_default() += 1;
    }
    times
}

#[track_caller]
fn assert_converged(report: &RunReport) {
    assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
    for peer in &report.peers {
        assert!(peer.unresolved.is_empty(), "{peer:#?}");
        assert_eq!(
            (peer.need_after, peer.have_after),
            (Some(0), Some(0)),
            "{peer:#?}"
        );
    }
}

#[test]
fn peers_of_a_run_that_hold_the_same_share_the_work() {
    let home = Home::new();
    let events = some_notes(3_000);
    let (one, played_one) = FakeRelay::scripted(Script::holding(&events));
    let (two, played_two) = FakeRelay::scripted(Script::holding(&events));
    // The third has the newer half only.
    let (three, played_three) = FakeRelay::scripted(Script::holding(&events[1_500..]));
    // At a distance, so that none is done before the others have begun.
    let distant = [one, two, three].map(|relay| {
        let distance = Distance::to(relay.address(), Duration::from_millis(200));
        (distance, relay)
    });
    let addresses = distant.each_ref().map(|(distance, _)| distance.address());
    let report = run_within(&home, &addresses, PATIENT);
    assert_converged_but_for_uploads(&report);
    let times = deliveries(&[&played_one, &played_two, &played_three]);
    assert_eq!(times.len(), 3_000);
    assert!(
        times.values().all(|times| *times == 1),
        "each once: {report:#?}"
    );
    assert_eq!((report.totals.stored, report.totals.duplicates), (3_000, 0));
    assert!(
        report.peers[..2]
            .iter()
            .all(|peer| peer.downloaded > 0 && peer.need == 3_000),
        "both worked: {report:#?}"
    );
    assert_eq!(home.ids(), ids_of(&events));
    home.verify();
}

/// What one lacks may have been offered to it before another one's events came: then it is for the next run.
#[track_caller]
fn assert_converged_but_for_uploads(report: &RunReport) {
    for peer in &report.peers {
        assert_eq!(
            (&peer.error, peer.need_after),
            (&None, Some(0)),
            "{peer:#?}"
        );
    }
}

#[test]
fn what_comes_slowly_from_one_peer_goes_on_to_another_in_the_same_run() {
    let home = Home::new();
    let events = some_notes(250);
    let (empty, played_empty) = FakeRelay::scripted(Script::default());
    let (slow, _) = FakeRelay::scripted(Script {
        delivery: Delivery::Slow(Duration::from_millis(10)),
        ..Script::holding(&events)
    });
    // At a distance, so that something is there when it is looked at.
    let distance = Distance::to(empty.address(), Duration::from_millis(100));
    let report = run_within(&home, &[distance.address(), slow.address()], PATIENT);
    assert!(report.peers_without_error(), "{report:#?}");
    assert_eq!(report.peers[1].outcome, Outcome::Converged, "{report:#?}");
    // It was in step with the slow one to the end, or nothing was there yet when it looked.
    let taken = played_empty.take_offered().len();
    assert_eq!(
        report.peers[0].uploaded, taken as u64,
        "each once: {report:#?}"
    );
    let outcome = report.peers[0].outcome;
    assert_eq!(outcome, Outcome::Converged, "{taken} taken: {report:#?}");
}

#[test]
fn what_a_peer_that_stalls_was_asked_for_comes_from_another_one() {
    let home = Home::new();
    let events = some_notes(600);
    let (stalls, played_stalls) = FakeRelay::scripted(Script {
        delivery: Delivery::Stalls(100),
        ..Script::holding(&events)
    });
    let (honest, played_honest) = FakeRelay::scripted(Script::holding(&events));
    // So that it comes second, and finds ids claimed.
    let honest = (
        Distance::to(honest.address(), Duration::from_millis(200)),
        honest,
    );
    let peers = [stalls.address(), honest.0.address()];
    let deadlines = Deadlines {
        exchange: CLAIM_OVERDUE * 2,
        ..PATIENT
    };
    let report = run_within(&home, &peers, deadlines);
    let [stalled, healthy] = &report.peers[..] else {
        panic!("two peers: {report:#?}")
    };
    assert_eq!(stalled.outcome, Outcome::Deadline, "{report:#?}");
    assert_eq!(healthy.outcome, Outcome::Converged, "{report:#?}");
    assert!(
        u128::from(healthy.duration_ms) >= CLAIM_OVERDUE.as_millis(),
        "{report:#?}"
    );
    assert_eq!(home.ids(), ids_of(&events));
    assert_eq!(played_stalls.delivered(), 100);
    let times = deliveries(&[&played_stalls, &played_honest]);
    assert!(times.values().all(|times| *times == 1), "each once");
}

#[test]
fn what_a_peer_that_ends_was_asked_for_comes_from_another_one() {
    let home = Home::new();
    let events = some_notes(600);
    let (stalls, _) = FakeRelay::scripted(Script {
        delivery: Delivery::StopsAfter(7),
        ..Script::holding(&events)
    });
    let (honest, _) = FakeRelay::scripted(Script::holding(&events));
    let distance = Distance::to(honest.address(), Duration::from_millis(200));
    let report = run_within(&home, &[stalls.address(), distance.address()], SHORT);
    let reason = report.peers[0]
        .error
        .as_ref()
        .map(|error| error.reason.as_str());
    assert_eq!(reason, Some("timeout"), "{report:#?}");
    assert_eq!(report.peers[1].outcome, Outcome::Converged, "{report:#?}");
    assert_eq!(home.ids(), ids_of(&events));
}

#[test]
fn what_one_peer_forges_comes_genuine_from_another_one_in_the_same_run() {
    let home = Home::new();
    let (good, forged) = (some_notes(300), notes(&author(2), now() - 500, 20));
    let script = forged.iter().fold(Script::holding(&good), |script, note| {
        script.and(note, with_bad_signature(note))
    });
    let (forger, played_forger) = FakeRelay::scripted(script);
    let all = [good, forged.clone()].concat();
    let (honest, _) = FakeRelay::scripted(Script::holding(&all));
    let distance = Distance::to(honest.address(), Duration::from_millis(300));
    let report = run_within(&home, &[forger.address(), distance.address()], PATIENT);
    assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
    let asked = played_forger.take_requested();
    assert!(
        forged.iter().all(|note| asked.contains(&note.id.to_hex())),
        "the forger was asked first"
    );
    assert_eq!(home.ids(), ids_of(&all));
    assert_eq!(report.peers[1].stored, 20, "{report:#?}");
    home.verify();
}

/// A run with one stingy peer that has everything: all of it comes. Gives what was asked for, too.
fn assert_fetches(script: Script, count: u64) -> (PeerReport, Vec<String>) {
    let home = Home::new();
    let events = some_notes(count);
    let script = events
        .iter()
        .fold(script, |script, event| script.and(event, event.as_json()));
    let (relay, played) = FakeRelay::scripted(script);
    let report = run_within(&home, &[relay.address()], PATIENT);
    assert_converged(&report);
    assert_eq!(home.ids(), ids_of(&events));
    let asked = played.take_requested();
    (report.peers[0].clone(), asked)
}

#[test]
fn a_peer_that_bears_one_request_at_a_time_is_asked_one_at_a_time() {
    let crowded = |how| Script {
        crowded: Some((1, how)),
        ..Script::default()
    };
    // It says so.
    let script = Script {
        information: Some(r#"{"limitation":{"max_subscriptions":1}}"#),
        ..crowded(Crowded::Closed("error: nobody should need to see this"))
    };
    let (_, asked) = assert_fetches(script, 1_500);
    assert_eq!(asked.len(), 1_500, "each once");
    // It says so when it is too late.
    assert_fetches(
        crowded(Crowded::Closed("blocked: too many subscriptions")),
        1_500,
    );
    // It says so without saying which request it means.
    assert_fetches(
        crowded(Crowded::Notice("ERROR: too many concurrent REQs")),
        1_500,
    );
}

#[test]
fn a_peer_that_cuts_answers_off_is_asked_again_for_the_rest() {
    let script = Script {
        delivery: Delivery::Capped(100),
        ..Script::default()
    };
    let (peer, asked) = assert_fetches(script, 2_000);
    assert_eq!((peer.stored, peer.downloaded), (2_000, 2_000));
    assert!(asked.len() < 4_000, "asked for {}", asked.len());
    // One that says so is asked for no more.
    let script = Script {
        delivery: Delivery::Capped(37),
        information: Some(r#"{"limitation":{"max_limit":37}}"#),
        ..Script::default()
    };
    let (_, asked) = assert_fetches(script, 500);
    assert_eq!(asked.len(), 500);
}

#[test]
fn a_peer_that_reads_small_messages_gets_small_messages() {
    const KIB_64: Option<&str> = Some(r#"{"limitation":{"max_message_length":65536}}"#);
    let home = Home::new();
    let (ours, theirs) = (notes(&author(2), now() - 9_000, 2_000), some_notes(2_000));
    home.import(&ours);
    let (relay, played) = FakeRelay::scripted(Script {
        information: KIB_64,
        message_bytes_max: Some(65_536),
        ..Script::holding(&theirs)
    });
    let report = run_within(&home, &[relay.address()], PATIENT);
    assert_converged(&report);
    assert_eq!(
        (report.totals.stored, report.totals.uploaded),
        (2_000, 2_000)
    );
    assert!(ours.iter().all(|event| played.holds(event)));
}

#[test]
fn a_peer_that_says_slow_down_gets_it_all_more_slowly() {
    let home = Home::new();
    let ours = some_notes(500);
    home.import(&ours);
    let (relay, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Limits(UPLOADS_FIRST + 50),
        ..Script::default()
    });
    let report = run_within(&home, &[relay.address()], PATIENT);
    assert_converged(&report);
    assert_eq!((report.totals.uploaded, report.totals.have), (500, 500));
    assert!(report.totals.refused_by_peer.is_empty(), "{report:#?}");
    assert_eq!(played.take_offered().len(), 500 + UPLOADS_FIRST + 50);
    assert!(ours.iter().all(|event| played.holds(event)));
}

#[test]
fn what_comes_slowly_is_stored_as_it_comes() {
    let home = Home::new();
    let events = some_notes(40);
    let (relay, played) = FakeRelay::scripted(Script {
        delivery: Delivery::Slow(Duration::from_millis(50)),
        ..Script::holding(&events)
    });
    // Each answer takes longer than a step may; each event less.
    let deadlines = Deadlines {
        run: Duration::from_millis(2_500),
        ..SHORT
    };
    let report = run_within(&home, &[relay.address()], SHORT);
    assert_converged(&report);
    assert_eq!(played.delivered(), 40);

    // And what has come is stored when the time is up.
    let home = Home::new();
    let (relay, _) = FakeRelay::scripted(Script {
        delivery: Delivery::Slow(Duration::from_millis(100)),
        ..Script::holding(&events)
    });
    let report = run_within(&home, &[relay.address()], deadlines);
    assert_eq!(report.outcome, Outcome::Deadline);
    let stored = home.count("{}");
    assert!((5..40).contains(&stored), "{stored} stored: {report:#?}");
    assert_eq!(report.totals.need, 40, "{report:#?}");
}

#[test]
fn an_exchange_over_a_distance_takes_few_round_trips() {
    const ROUND_TRIP: Duration = Duration::from_millis(300);
    let (home, peer) = (Home::new(), Home::new());
    let (ours, theirs) = (notes(&author(2), now() - 9_000, 1_000), some_notes(1_000));
    home.import(&ours);
    let station = peer.start();
    peer.import(&theirs);
    let distance = Distance::to(station.address(), ROUND_TRIP);
    let report = run_within(&home, &[distance.address()], PATIENT);
    assert_converged(&report);
    assert_eq!(
        (report.totals.stored, report.totals.uploaded),
        (1_000, 1_000)
    );
    let round_trips = u128::from(report.duration_ms) / ROUND_TRIP.as_millis();
    assert!(round_trips < 14, "{round_trips} round trips: {report:#?}");
    assert_eq!(home.ids(), peer.ids());
    station.stop();
}

#[test]
fn what_the_peer_has_deleted_is_not_offered_to_it_again_though_it_may_keep_no_tombstones() {
    let home = Home::new();
    let events = some_notes(400);
    let deleted = &events[399];
    let deletion = deletion(&author(1), now() - 100, deleted);
    home.import(&events[200..]);
    let mut theirs = events[..200].to_vec();
    theirs.push(deletion);
    let (relay, played) = FakeRelay::scripted(Script {
        delivery: Delivery::Slow(Duration::from_millis(2)),
        ..Script::holding(&theirs)
    });
    let report = run_within(&home, &[relay.address()], PATIENT);
    assert_converged(&report);
    let offered = played.take_offered();
    assert_eq!(offered.len(), 199, "all that is left of ours");
    assert!(!offered.contains(&deleted.id.to_hex()));
}

#[test]
fn while_a_peer_does_not_give_what_it_has_nothing_is_offered_to_it() {
    let home = Home::new();
    let events = some_notes(40);
    home.import(&events[20..]);
    // A deletion might be among what it does not give.
    let (relay, played) = FakeRelay::scripted(Script {
        crowded: Some((0, Crowded::Closed("rate-limited: slow down"))),
        ..Script::holding(&events[..20])
    });
    let report = run_within(&home, &[relay.address()], PATIENT);
    assert_eq!(report.outcome, Outcome::Partial, "{report:#?}");
    assert_eq!(played.take_offered(), Vec::<String>::new());
    let peer = &report.peers[0];
    assert_eq!((peer.need, peer.have), (20, 20));
    let left: u64 = peer
        .unresolved
        .iter()
        .map(|left| match left {
            Unresolved::Events { count, .. } => *count,
            Unresolved::Range(gap) => panic!("only events are left: {gap:?}"),
        })
        .sum();
    assert_eq!(left, 40, "{peer:#?}");
}

/// A clock that keeps the store's writer waiting while it is held.
#[derive(Debug, Default)]
struct Brake {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Brake {
    fn set(&self, held: bool) {
        *self.held.lock().expect("not poisoned") = held;
        self.changed.notify_all();
    }
}

struct BrakedClock(Arc<Brake>);

impl TimeSource for BrakedClock {
    fn wall(&self) -> Duration {
        if std::thread::current().name() == Some("write") {
            let mut held = self.0.held.lock().expect("not poisoned");
            while *held {
                held = self.0.changed.wait(held).expect("not poisoned");
            }
        }
        clock().wall()
    }

    fn monotonic(&self) -> Duration {
        clock().monotonic()
    }
}

#[test]
fn a_store_that_stands_still_stops_a_fast_peer_within_bounds() {
    // Half as much again as may be fetched and not stored.
    const EVENT_BYTES: usize = 60_000;
    let count = UNSETTLED_BYTES_MAX * 3 / 2 / EVENT_BYTES;
    let at = now() - 10_000;
    let events: Vec<Event> = (0..count)
        .map(|number| {
            let text = format!("{number} {}", "x".repeat(EVENT_BYTES - 500));
            note(&author(1), at + number as u64, &text)
        })
        .collect();
    let (relay, played) = FakeRelay::scripted(Script::holding(&events));
    let (home, brake) = (Home::new(), Arc::new(Brake::default()));
    let claims = Arc::new(Claims::default());
    let watched = {
        let (played, brake, claims) =
            (Arc::clone(&played), Arc::clone(&brake), Arc::clone(&claims));
        std::thread::spawn(move || {
            wait_until("the first events come", || played.delivered() > 0);
            brake.set(true);
            let (mut highest, mut steady, mut before) = (0, 0, 0);
            wait_until("no more is asked for", || {
                highest = claims.unsettled().max(highest);
                let delivered = played.delivered();
                steady = if delivered == before { steady + 1 } else { 0 };
                before = delivered;
                highest >= UNSETTLED_BYTES_MAX && steady > 50
            });
            brake.set(false);
            (highest, before)
        })
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (report, tally) = runtime.block_on(Box::pin(exchange_with(
        &home,
        relay.address(),
        Clock::new(BrakedClock(brake)),
        &claims,
    )));
    let (highest, delivered) = watched.join().expect("no panic");
    assert!(
        delivered < count,
        "it was stopped at {delivered} of {count}"
    );
    let most = UNSETTLED_BYTES_MAX + 2 * DOWNLOAD_BYTES_MAX;
    assert!(highest <= most, "{highest} bytes were not settled");
    assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
    assert_eq!(tally.stored, count as u64);
    assert_eq!((claims.held(), claims.unsettled()), (0, 0));
    let times = deliveries(&[&played]);
    assert!(times.values().all(|times| *times == 1));
    let ids: BTreeSet<String> = times.into_keys().collect();
    assert_eq!(ids, ids_of(&events));
}

/// One exchange by itself, with these claims, into a store with this clock.
async fn exchange_with(
    home: &Home,
    peer: &str,
    store_clock: Clock,
    claims: &Arc<Claims>,
) -> (PeerReport, Tally) {
    let directory = DataDirectory::at(home.data());
    let nostr_key = NostrKey::at(directory.nostr_key(), Random::system());
    let station = Station::open(directory, &Config::default(), store_clock)
        .await
        .expect("the station opens");
    let request = SyncRequest {
        peers: vec![peer.parse().expect("an address")],
        ..SyncRequest::default()
    };
    let planned = plan(
        &request,
        &[],
        &ScopeOptions::default(),
        &Graph::default(),
        PATIENT,
        now(),
    )
    .expect("a plan");
    let tasks = station.tasks().child(2);
    let context = ExchangeContext {
        ingest: station.ingest().clone(),
        dialer: Arc::new(Dialer::new()),
        nostr_key,
        own: *station.known_as().borrow(),
        visitors: Visitors::default(),
        stations: Stations::default(),
        brought: BroughtByPeers::default(),
        plugin: None,
        clock: Clock::system(),
        random: Random::system(),
        tasks: tasks.clone(),
        deadlines: PATIENT,
        claims: Arc::clone(claims),
        offering: Offering::Events,
        progress: watch::Sender::default(),
    };
    let (mut report, mut tally) = (PeerReport::new(peer), Tally::default());
    let (mut reached, mut remembered) = (Reached::default(), Remembered::default());
    let exchanged = exchange(
        &context,
        &planned.exchanges[0],
        &mut reached,
        &mut remembered,
        &mut report,
        &mut tally,
    );
    Box::pin(exchanged)
        .await
        .expect("no other exchange is with it");
    tasks.end().await;
    station.close().await;
    (report, tally)
}
