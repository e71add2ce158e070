//! kill -9 fifty times at random instants, in the middle of imports and syncs, on one data directory: after each one
//! every index and segment equals a rebuild from the records, nothing acknowledged is lost, and in the end a further
//! sync converges.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Home, Process, clock, ids_of, json_lines, now};
use constellation::samples::uniform;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const KILLS: usize = 50;
/// Events that the station holds at first, and gets before each sync.
const AT_FIRST: usize = 3_000;
const BEFORE_EACH_SYNC: usize = 100;
/// Events of one import: several submissions.
const PER_IMPORT: usize = 600;

/// Says how to replay the test that fails while this lives.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: CRASH_SEED={} cargo test --test crash", self.0);
        }
    }
}

fn seed() -> u64 {
    let named = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| rand::rng().random())
}

/// Opens the store as the next process would, and compares indexes and segments with a rebuild.
#[track_caller]
fn assert_consistent(data: &Path, after: &str) {
    let options = constellation_eventstore::Options::new(Arc::new(|| clock().monotonic()));
    let (store, writer) =
        constellation_eventstore::open(&data.join("events"), options).expect("the store opens");
    let report = constellation_eventstore::check(&store, false).expect("the store is readable");
    assert_eq!(report.problems, Vec::<String>::new(), "after {after}");
    drop(writer);
}

/// Waits for the command as long as given, then kills it. Gives its exit code if it was faster.
fn kill_after(mut process: Process, delay: Duration) -> Option<i32> {
    let started = clock().monotonic();
    while clock().monotonic().saturating_sub(started) < delay {
        if let Some(code) = process.exited() {
            return Some(code.expect("an exit code: nobody else kills it"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    process.kill();
    None
}

/// How long a command takes when nobody kills it: instants are drawn from a bit more than that.
fn timed(run: impl FnOnce()) -> Duration {
    let started = clock().monotonic();
    run();
    clock().monotonic().saturating_sub(started)
}

fn draw(random: &mut StdRng, longest: Duration) -> Duration {
    longest.mul_f64(random.random_range(0.0..1.2))
}

#[test]
fn fifty_kills_lose_nothing_acknowledged_and_block_nothing() {
    let seed = seed();
    let _replay = Replay(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let (peer, home) = (Home::new(), Home::new());
    let station = peer.start();
    peer.import(&uniform(seed, now(), AT_FIRST));

    // One of each undisturbed, in a home of its own, to know how long they take.
    let trial = Home::new();
    let an_import = timed(|| trial.import(&uniform(seed.wrapping_sub(1), now(), PER_IMPORT)));
    trial.sync(&["--peer", station.address()], 0);
    peer.import(&uniform(seed.wrapping_sub(2), now(), BEFORE_EACH_SYNC));
    let a_sync = timed(|| drop(trial.sync(&["--peer", station.address()], 0)));
    let mut acknowledged = BTreeSet::new();

    let (mut attempt, mut killed) = (0, 0);
    while killed < KILLS {
        attempt += 1;
        assert!(
            attempt < 3 * KILLS as u64,
            "only {killed} were killed while they ran"
        );
        let made = seed.wrapping_add(attempt);
        let after;
        if attempt % 2 == 1 {
            let events = uniform(made, now(), PER_IMPORT);
            let delay = draw(&mut random, an_import);
            after = format!("attempt {attempt}: import, {delay:?}");
            let import = Process::start(home.command(&["import"]), Some(json_lines(&events)));
            match kill_after(import, delay) {
                Some(code) => {
                    assert_eq!(code, 0, "an import before {after}");
                    acknowledged.extend(ids_of(&events));
                }
                None => killed += 1,
            }
        } else {
            peer.import(&uniform(made, now(), BEFORE_EACH_SYNC));
            let delay = draw(&mut random, a_sync);
            after = format!("attempt {attempt}: sync, {delay:?}");
            match kill_after(home.spawn(&["sync", "--peer", station.address()]), delay) {
                Some(code) => assert_eq!(code, 0, "a sync before {after}"),
                None => killed += 1,
            }
        }
        if home.data().join("events").exists() {
            assert_consistent(&home.data(), &after);
        }
    }

    let last = home.sync(&["--peer", station.address()], 0);
    assert_eq!(last["outcome"], "converged", "{last}");
    let again = home.sync(&["--peer", station.address()], 0);
    assert_eq!(
        (&again["totals"]["need"], &again["totals"]["have"]),
        (&0.into(), &0.into())
    );
    let ids = home.ids();
    assert_eq!(ids, peer.ids());
    assert!(
        acknowledged.is_subset(&ids),
        "something acknowledged is lost"
    );
    home.verify();
    peer.verify();
    station.stop();
}

#[test]
fn a_station_that_is_killed_while_it_serves_goes_on_where_it_was() {
    let seed = seed();
    let _replay = Replay(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let events = uniform(seed, now(), 1_500);
    let (ours, theirs) = events.split_at(750);
    let (peer, home) = (Home::new(), Home::new());
    home.import(ours);
    peer.import(theirs);
    for kill in 0..8 {
        let station = peer.start();
        let sync = home.spawn(&["sync", "--peer", station.address()]);
        let delay = draw(&mut random, Duration::from_millis(400));
        let started = clock().monotonic();
        common::wait_until("its time has come", || {
            clock().monotonic().saturating_sub(started) >= delay
        });
        station.kill();
        let ended = sync.finish();
        assert!(matches!(ended.code, Some(0 | 1 | 3)), "{ended:?}");
        assert_consistent(
            &peer.data(),
            &format!("kill {kill} of the station, {delay:?}"),
        );
    }
    let station = peer.start();
    assert_eq!(
        home.sync(&["--peer", station.address()], 0)["outcome"],
        "converged"
    );
    assert_eq!(home.ids(), ids_of(&events));
    assert_eq!(home.export(), peer.export());
    home.verify();
    peer.verify();
    station.stop();
}
