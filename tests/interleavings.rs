//! Five stations of one process, and whatever may befall them in whatever order: publishing, replacing, deleting,
//! expiring, partitions, restarts, runs. After two quiet rounds all show the same, nothing deleted is anywhere, and
//! nothing is lost.
//!
//! A failing case prints the shortest list of what happened that still fails, and the command that replays it.
//! `PROPTEST_CASES` makes it try more.

mod common;
#[path = "interleavings/oracle.rs"]
mod oracle;
#[path = "interleavings/world.rs"]
mod world;

use std::collections::BTreeSet;

use constellation::ingest::Verdict;
use constellation::random::Random;
use constellation::sync::Outcome;
use constellation_event::Rejection;
use nostr::event::Event;
use proptest::collection::{btree_set, vec};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::Index;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};

use common::{author, deletion, event, note, notes};
use oracle::{beside_each_other, expected};
use world::{BEGINNING, World, in_paused_time};

const STATIONS: usize = 5;
const AUTHORS: u8 = 3;
/// Unless `PROPTEST_CASES` says otherwise: each takes about a second.
const CASES: u32 = 24;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Action {
    /// A client publishes something new.
    Publish {
        at: usize,
        by: u8,
        what: What,
        /// How many seconds ago it was made.
        age: u64,
        /// After how many seconds it expires.
        expires_in: Option<u64>,
    },
    /// A client deletes something that somebody published somewhere, or tries to.
    Delete {
        at: usize,
        by: u8,
        target: Index,
        naming: Naming,
        age: u64,
    },
    /// What was published before comes again, elsewhere.
    Repeat { at: usize, what: Index },
    /// Time passes.
    Pass { seconds: u64 },
    /// The network falls apart, or comes together.
    Split { one_side: BTreeSet<usize> },
    /// A station is closed and opened again.
    Restart { station: usize },
    /// A run of a station with one other, or with all.
    Sync { station: usize, with: Option<usize> },
    /// Two stations at once, each with all others.
    SyncTogether { one: usize, other: usize },
}

#[derive(Debug, Clone, Copy)]
enum What {
    Note,
    Profile,
    Article { name: u8 },
}

/// How a deletion names what has an address; anything else is named by its id.
#[derive(Debug, Clone, Copy)]
enum Naming {
    /// All versions up to that time.
    Address,
    /// This version alone.
    Id,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let station = || 0..STATIONS;
    let by = || 1..=AUTHORS;
    let age = || 0..20u64;
    let what = prop_oneof![
        2 => (0..1u8).prop_map(|_| What::Note),
        2 => (0..1u8).prop_map(|_| What::Profile),
        3 => (0..2u8).prop_map(|name| What::Article { name }),
    ];
    let expires_in = proptest::option::weighted(0.2, 1..60u64);
    let publish =
        (station(), by(), what, age(), expires_in).prop_map(|(at, by, what, age, expires_in)| {
            Action::Publish {
                at,
                by,
                what,
                age,
                expires_in,
            }
        });
    let naming = prop_oneof![
        (0..1u8).prop_map(|_| Naming::Address),
        (0..1u8).prop_map(|_| Naming::Id),
    ];
    let delete = (station(), by(), any::<Index>(), naming, age()).prop_map(
        |(at, by, target, naming, age)| Action::Delete {
            at,
            by,
            target,
            naming,
            age,
        },
    );
    let action = prop_oneof![
        8 => publish,
        4 => delete,
        2 => (station(), any::<Index>()).prop_map(|(at, what)| Action::Repeat { at, what }),
        2 => prop_oneof![4 => 1..40u64, 1 => 80_000..200_000u64]
            .prop_map(|seconds| Action::Pass { seconds }),
        2 => btree_set(station(), 0..STATIONS).prop_map(|one_side| Action::Split { one_side }),
        2 => station().prop_map(|station| Action::Restart { station }),
        5 => (station(), proptest::option::of(station()))
            .prop_map(|(station, with)| Action::Sync { station, with }),
        1 => (station(), station()).prop_map(|(one, other)| Action::SyncTogether { one, other }),
    ];
    vec(action, 1..40)
}

/// What was published, and what became of it.
#[derive(Default)]
struct Told {
    published: Vec<Event>,
    /// Ids that a station said to have stored.
    stored: BTreeSet<String>,
}

impl Told {
    async fn publish(&mut self, world: &World, at: usize, event: Event) {
        let verdict = world.publish(at, &event).await;
        match verdict {
            Verdict::Stored => {
                self.stored.insert(event.id.to_hex());
            }
            Verdict::Duplicate
            | Verdict::Rejected(Rejection::Deleted | Rejection::Superseded | Rejection::Expired) => {
            }
            other => panic!("{other:?} of {}", event.as_json()),
        }
        if !self.published.contains(&event) {
            self.published.push(event);
        }
    }
}

async fn carry_out(action: &Action, world: &mut World, told: &mut Told) {
    let everybody: Vec<usize> = (0..STATIONS).collect();
    match action {
        Action::Publish {
            at,
            by,
            what,
            age,
            expires_in,
        } => {
            let made_at = world.now() - age;
            let content = told.published.len().to_string();
            let name;
            let expires_at;
            let mut tags: Vec<&[&str]> = Vec::new();
            let article;
            let expiration;
            let kind = match what {
                What::Note => 1,
                What::Profile => 0,
                What::Article { name: number } => {
                    name = number.to_string();
                    article = ["d", name.as_str()];
                    tags.push(&article);
                    30_023
                }
            };
            if let Some(seconds) = expires_in {
                expires_at = (world.now() + seconds).to_string();
                expiration = ["expiration", expires_at.as_str()];
                tags.push(&expiration);
            }
            let event = event(&author(*by), kind, made_at, &tags, &content);
            told.publish(world, *at, event).await;
        }
        Action::Delete {
            at,
            by,
            target,
            naming,
            age,
        } => {
            if told.published.is_empty() {
                return;
            }
            let target = target.get(&told.published);
            let made_at = world.now() - age;
            let event = deletion_of(target, *naming, *by, made_at);
            told.publish(world, *at, event).await;
        }
        Action::Repeat { at, what } => {
            if !told.published.is_empty() {
                let event = what.get(&told.published).clone();
                told.publish(world, *at, event).await;
            }
        }
        Action::Pass { seconds } => world.pass(*seconds),
        Action::Split { one_side } => world.split(one_side.clone()),
        Action::Restart { station } => world.restart(*station).await,
        Action::Sync { station, with } => {
            let with = with.map_or(everybody, |peer| vec![peer]);
            if with != [*station] {
                world.sync(*station, &with).await;
            }
        }
        Action::SyncTogether { one, other } => {
            let (one, other) = (world.sync(*one, &everybody), world.sync(*other, &everybody));
            tokio::join!(one, other);
        }
    }
}

/// Deletes an event, or tries to: nobody but its author can.
fn deletion_of(target: &Event, naming: Naming, by: u8, at: u64) -> Event {
    let keys = author(by);
    let name = target.tags.iter().find(|tag| tag.kind() == "d");
    let name = name.and_then(|tag| tag.content()).unwrap_or_default();
    match (naming, target.kind.as_u16()) {
        (Naming::Address, kind @ (0 | 30_023)) => {
            let address = format!("{kind}:{}:{name}", target.pubkey);
            event(&keys, 5, at, &[&["a", &address]], "")
        }
        _ => deletion(&keys, at, target),
    }
}

async fn play(actions: &[Action]) -> Result<(), String> {
    let mut world = World::new(STATIONS);
    let mut told = Told::default();
    for action in actions {
        carry_out(action, &mut world, &mut told).await;
    }
    world.split(BTreeSet::new());
    let everybody: Vec<usize> = (0..STATIONS).collect();
    let mut last = Vec::new();
    for _round in 0..2 {
        last.clear();
        for station in 0..STATIONS {
            last.push(world.sync(station, &everybody).await);
        }
    }
    let shown: Vec<BTreeSet<String>> = (0..STATIONS)
        .map(|station| world.visible(station))
        .collect();
    let expected = expected(&told.published, world.now());
    world.end().await;
    for (station, shown) in shown.iter().enumerate() {
        let lost: Vec<_> = expected.visible.difference(shown).collect();
        let risen: Vec<_> = expected.gone.intersection(shown).collect();
        if !lost.is_empty() || !risen.is_empty() {
            return Err(format!(
                "station {station} lacks {lost:?} and has {risen:?}; all shown: {shown:?}; {}",
                told.of(lost.iter().chain(&risen))
            ));
        }
    }
    if let Some(other) = shown.iter().position(|set| *set != shown[0]) {
        let differ: Vec<_> = shown[other].symmetric_difference(&shown[0]).collect();
        return Err(format!(
            "stations 0 and {other} differ in {}",
            told.of(differ.iter())
        ));
    }
    if let Some((newer, older)) = beside_each_other(&told.published, &shown[0]) {
        return Err(format!(
            "both are shown: {}\n{}",
            newer.as_json(),
            older.as_json()
        ));
    }
    for report in &last {
        if report.outcome != Outcome::Converged {
            return Err(format!("after two quiet rounds: {report:#?}"));
        }
    }
    Ok(())
}

impl Told {
    fn of<'i>(&self, ids: impl Iterator<Item = &'i &'i String>) -> String {
        let ids: BTreeSet<&String> = ids.copied().collect();
        let events = self.published.iter();
        let named = events.filter(|event| ids.contains(&event.id.to_hex()));
        named.map(|event| event.as_json() + "\n").collect()
    }
}

#[test]
fn whatever_happens_in_whatever_order_all_stations_show_the_same_in_the_end() {
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => u64::from_be_bytes(Random::system().bytes()),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let cases = config.cases;
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&actions(), |actions| {
        in_paused_time(play(&actions)).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, actions)) => panic!(
            "{why}\nafter:\n{actions:#?}\nreplay: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} \
             cargo test --test interleavings"
        ),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// What one of three stations lost comes back whole from the others, and what was deleted stays so.
#[test]
fn a_station_that_loses_its_data_directory_gets_everything_back_tombstones_included() {
    in_paused_time(async {
        let mut world = World::new(3);
        let keys = author(1);
        let kept = notes(&keys, BEGINNING - 500, 50);
        let deleted = note(&keys, BEGINNING - 400, "to be deleted");
        let removal = deletion(&keys, BEGINNING - 300, &deleted);
        let (old, new) = (
            event(&keys, 0, BEGINNING - 200, &[], "old"),
            event(&keys, 0, BEGINNING - 100, &[], "new"),
        );
        for event in kept.iter().chain([&deleted, &removal, &old, &new]) {
            world.publish(0, event).await;
        }
        let everybody = [0, 1, 2];
        assert_eq!(world.sync(0, &everybody).await.outcome, Outcome::Converged);
        let before = world.visible(2);
        assert_eq!(before.len(), 52, "the notes, the deletion, the profile");

        world.lose(2).await;
        assert!(world.visible(2).is_empty(), "it is lost");
        let report = world.sync(2, &everybody).await;
        assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
        assert_eq!(world.visible(2), before);
        for (event, why) in [
            (&deleted, Rejection::Deleted),
            (&old, Rejection::Superseded),
        ] {
            let verdict = world.publish(2, event).await;
            assert_eq!(verdict, Verdict::Rejected(why), "it knows again");
        }
        for station in everybody {
            let report = world.sync(station, &everybody).await;
            assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
            assert_eq!((report.totals.stored, report.totals.uploaded), (0, 0));
            assert_eq!(world.visible(station), before, "station {station}");
        }
        world.end().await;
    });
}

/// Who has a version that was deleted by its id refuses older ones, until it hears of the deletion: in the same run.
#[test]
fn an_older_version_and_the_deletion_of_the_newer_one_travel_together_in_either_direction() {
    in_paused_time(async {
        for from in [0, 1] {
            let world = World::new(2);
            let keys = author(1);
            let (old, new) = (
                event(&keys, 0, BEGINNING - 200, &[], "old"),
                event(&keys, 0, BEGINNING - 100, &[], "new"),
            );
            let removal = deletion(&keys, BEGINNING - 50, &new);
            for (station, event) in [(0, &old), (0, &removal), (1, &old), (1, &new)] {
                assert_eq!(world.publish(station, event).await, Verdict::Stored);
            }
            let report = world.sync(from, &[1 - from]).await;
            assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
            let expected = BTreeSet::from([old.id.to_hex(), removal.id.to_hex()]);
            for station in [0, 1] {
                assert_eq!(world.visible(station), expected, "station {station}");
            }
            let again = world.sync(from, &[1 - from]).await;
            assert_eq!(again.outcome, Outcome::Converged, "{again:#?}");
            assert_eq!((again.totals.need, again.totals.have), (0, 0));
            world.end().await;
        }
    });
}
