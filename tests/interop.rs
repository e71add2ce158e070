//! The real binary against programs that others wrote, over real sockets.
//!
//! `tests/interop/install.sh` installs them; `tests/interop/README.md` tells what they are and how they differ from us.
//! Where one is missing, its test says so and passes; with `CI=true` it fails.

#[path = "interop/events.rs"]
mod events;
#[path = "interop/khatru.rs"]
mod khatru;
#[path = "interop/support.rs"]
mod support;

use std::collections::BTreeSet;

use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::Keys;
use nostr::types::Timestamp;
use serde_json::{Value, json};

use events::{Events, ids_of};
use support::{NostrRelay, RustNostrRelay, Station, Tool, go_nostr_sync, run, rust_nostr_sync};

/// What the suite has; if fewer ran, it did not run to its end.
const NOSTR_TOOLS_TESTS: u64 = 46;

#[test]
fn an_empty_configuration_listens_on_this_machine_at_port_7777() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("constellation.toml");
    std::fs::write(&path, "").expect("a folder of ours");
    let config = constellation::config::Config::load(&path, true, std::iter::empty());
    let listen = config.expect("all keys have defaults").relay_listens();
    assert_eq!(listen.to_string(), "127.0.0.1:7777");
}

/// A station on which nothing but another port is configured.
#[tokio::test]
async fn nostr_tools_uses_our_relay() {
    if !Tool::NostrTools.is_installed() {
        return;
    }
    let mut station = Station::new();
    let relay = station.start().await;

    let mut suite = Tool::NostrTools.command();
    let said = run(
        suite.env("RELAY_URL", relay).env("DEADLINE_MS", "30000"),
        None,
    )
    .await;
    let told = |name: &str| -> u64 {
        let prefix = format!("# {name} ");
        let number = said
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(&prefix));
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    };
    assert!(said.succeeded, "{}", said.everything);
    assert!(told("tests") >= NOSTR_TOOLS_TESTS, "{}", said.everything);
    assert_eq!(told("pass"), told("tests"), "{}", said.everything);
    station.stop().await;
}

/// One `sync` brings everything to both, the next one moves nothing, and deletions made on either side reach the other.
#[tokio::test]
async fn a_station_and_a_rust_nostr_relay_become_equal() {
    if !Tool::RustNostr.is_installed() {
        return;
    }
    let events = Events::load();
    let relay = RustNostrRelay::serve(events.last()).await;
    let station = Station::new();
    station.import(events.first()).await;

    let report = station.sync(&relay.url, "both").await;
    assert_converged(&report);
    assert!(report["totals"]["stored"].as_u64() > Some(0), "{report}");
    assert!(report["totals"]["uploaded"].as_u64() > Some(0), "{report}");
    assert_eq!(report["totals"]["refused_by_peer"], json!({}), "{report}");
    let mut expected = events.expected();
    assert_both_hold(&station, &relay, &expected).await;
    assert_nothing_moved(&station.sync(&relay.url, "both").await);

    // Two events that both sides hold, of which each side deletes one.
    let keys = Keys::generate();
    let (deleted_here, deleted_there) = (note(&keys, "one"), note(&keys, "another"));
    station
        .import(&[deleted_here.as_json(), deleted_there.as_json()])
        .await;
    assert_converged(&station.sync(&relay.url, "both").await);
    expected.extend([deleted_here.id.to_hex(), deleted_there.id.to_hex()]);
    assert_both_hold(&station, &relay, &expected).await;

    let (here, there) = (
        deletion(&keys, &deleted_here),
        deletion(&keys, &deleted_there),
    );
    station.import(&[here.as_json()]).await;
    let published = rust_nostr_sync(&relay.url, &[there.as_json()], "up").await;
    assert_eq!((published.sent, published.refused), (1, Some(0)));

    let report = station.sync(&relay.url, "both").await;
    assert_converged(&report);
    // Of two differences each way, the deletions stay; what they deleted does not.
    assert_eq!(report["totals"]["stored"], 1, "{report}");
    assert_eq!(report["totals"]["uploaded"], 1, "{report}");
    for (deleted, deletion) in [(&deleted_here, &here), (&deleted_there, &there)] {
        expected.remove(&deleted.id.to_hex());
        expected.insert(deletion.id.to_hex());
    }
    assert_both_hold(&station, &relay, &expected).await;
    assert_nothing_moved(&station.sync(&relay.url, "both").await);
}

#[tokio::test]
async fn the_rust_nostr_client_syncs_with_our_relay() {
    if !Tool::RustNostr.is_installed() {
        return;
    }
    let events = Events::load();
    let mut station = Station::new();
    station.import(events.first()).await;
    let relay = station.start().await;

    let client = rust_nostr_sync(&relay, events.last(), "both").await;
    assert!(client.sent > 0 && client.received > 0);
    assert_eq!(client.refused, Some(0));
    let expected = events.expected();
    assert_eq!(client.ids, expected, "the client's");
    let held = station.export().await;
    assert_eq!(ids_of(&held), expected, "ours");

    let again = rust_nostr_sync(&relay, &held, "both").await;
    assert_eq!((again.sent, again.received), (0, 0));
    let newcomer = rust_nostr_sync(&relay, &[], "both").await;
    assert_eq!(newcomer.ids, expected, "those of a client that had none");
    station.stop().await;
}

/// go-nostr's set keeps what is superseded: it has more in the end, and offers that again each time.
#[tokio::test]
async fn the_go_nostr_client_syncs_with_our_relay() {
    if !Tool::GoNostr.is_installed() {
        return;
    }
    let events = Events::load();
    let mut station = Station::new();
    station.import(events.first()).await;
    let relay = station.start().await;

    let client = go_nostr_sync(&relay, events.last()).await;
    assert!(client.sent > 0 && client.received > 0);
    let expected = events.expected();
    assert_eq!(ids_of(&station.export().await), expected, "ours");
    assert!(client.ids.is_superset(&expected), "the client lacks some");
    assert!(
        client.ids.is_subset(&ids_of(events.all())),
        "the client has others"
    );

    let again = go_nostr_sync(&relay, events.all()).await;
    let superseded = ids_of(events.all()).len() - expected.len();
    assert_eq!((again.sent, again.received), (superseded as u64, 0));
    assert_eq!(
        ids_of(&station.export().await),
        expected,
        "ours, after superseded ones came again"
    );

    // All at once: a REQ for every 50 ids, which stays below our limit of subscriptions.
    let newcomer = go_nostr_sync(&relay, &[]).await;
    assert_eq!(newcomer.ids, expected, "those of a client that had none");
    station.stop().await;
}

/// Without NIP-77, at most fifty events an answer whatever is asked for, and no event of more than 4,096 characters.
#[tokio::test]
async fn a_station_and_a_relay_without_nip77_become_equal() {
    if !Tool::NostrRelay.is_installed() {
        return;
    }
    let relay = NostrRelay::serve(&["--max-limit", "50"]).await;
    let now = constellation::time::Clock::system().unix_seconds();
    let keys: Vec<Keys> = (0..20).map(|_| Keys::generate()).collect();
    let crowd = |from: usize, count: usize| -> Vec<Event> {
        let made = (from..from + count).map(|number| {
            let at = now - 20_000 + number as u64 / 3;
            made(&keys[number % 20], 1, at, &[], &format!("note {number}"))
        });
        made.collect()
    };
    let lines = |events: &[Event]| -> Vec<String> { events.iter().map(Event::as_json).collect() };
    let ids = |events: &[Event]| -> BTreeSet<String> {
        events.iter().map(|event| event.id.to_hex()).collect()
    };
    // Thirty in one second, and an old version of a profile.
    let same_second = (0..30).map(|number| {
        let content = format!("all at once {number}");
        made(&keys[number % 20], 1, now - 5_000, &[], &content)
    });
    let (old, new) = (
        made(&keys[0], 0, now - 900, &[], "{\"name\":\"old\"}"),
        made(&keys[0], 0, now - 800, &[], "{\"name\":\"new\"}"),
    );
    let theirs: Vec<Event> = crowd(0, 200)
        .into_iter()
        .chain(same_second)
        .chain([old.clone()])
        .collect();
    let mut ours = [crowd(175, 50), vec![new]].concat();

    // Half of ours are among theirs already.
    let seeding = Station::new();
    seeding.import(&lines(&theirs)).await;
    assert_converged(&seeding.sync(&relay.url, "up").await);
    assert_eq!(relay.ids().await, ids(&theirs), "the relay's, at first");

    let station = Station::new();
    station.import(&lines(&ours)).await;
    let report = station.sync(&relay.url, "both").await;
    assert_converged(&report);
    assert_eq!(report["peers"][0]["method"], "windows", "{report}");
    let mut expected: BTreeSet<String> = ids(&theirs).union(&ids(&ours)).cloned().collect();
    expected.remove(&old.id.to_hex());
    assert_eq!(ids_of(&station.export().await), expected, "ours");
    assert_eq!(relay.ids().await, expected, "the relay's");
    assert_nothing_moved(&station.sync(&relay.url, "both").await);

    // What each side deletes goes on both; what is too large for the relay is refused once.
    let (deleted_here, deleted_there) = (ours.swap_remove(0), theirs[0].clone());
    let author_of = |event: &Event| {
        let author = keys.iter().find(|keys| keys.public_key() == event.pubkey);
        author.expect("one of them").clone()
    };
    let here = deletion(&author_of(&deleted_here), &deleted_here);
    let there = deletion(&author_of(&deleted_there), &deleted_there);
    let too_large = made(&keys[1], 1, now - 700, &[], &"x".repeat(5_000));
    station
        .import(&lines(&[here.clone(), too_large.clone()]))
        .await;
    seeding.import(&lines(std::slice::from_ref(&there))).await;
    // Both ways: the relay would take the old profile back.
    assert_converged(&seeding.sync(&relay.url, "both").await);
    let report = station.sync(&relay.url, "both").await;
    assert_converged(&report);
    assert_eq!(
        report["totals"]["refused_by_peer"],
        json!({"invalid": 1}),
        "{report}"
    );
    for (deleted, deletion) in [(&deleted_here, &here), (&deleted_there, &there)] {
        expected.remove(&deleted.id.to_hex());
        expected.insert(deletion.id.to_hex());
    }
    assert_eq!(relay.ids().await, expected, "the relay's, after deletions");
    expected.insert(too_large.id.to_hex());
    assert_eq!(
        ids_of(&station.export().await),
        expected,
        "ours, after deletions"
    );
    assert_nothing_moved(&station.sync(&relay.url, "both").await);
}

/// It asks who is there as soon as somebody connects, and never says whether the answer is good.
#[tokio::test]
async fn a_relay_that_asks_who_is_there_and_serves_anybody_is_no_hindrance() {
    if !Tool::NostrRelay.is_installed() {
        return;
    }
    let relay = NostrRelay::serve(&["--ask-who"]).await;
    let keys = Keys::generate();
    let now = constellation::time::Clock::system().unix_seconds();
    let notes: Vec<String> = (0..60)
        .map(|number| made(&keys, 1, now - number, &[], &number.to_string()).as_json())
        .collect();
    let station = Station::new();
    station.import(&notes).await;
    assert_converged(&station.sync(&relay.url, "both").await);
    assert_eq!(relay.ids().await, ids_of(&notes));
    assert_nothing_moved(&station.sync(&relay.url, "both").await);
}

fn made(keys: &Keys, kind: u16, at: u64, tags: &[Tag], content: &str) -> Event {
    EventBuilder::new(Kind::from_u16(kind), content)
        .tags(tags.iter().cloned())
        .custom_created_at(Timestamp::from_secs(at))
        .finalize(keys)
        .expect("a key at hand signs anything")
}

fn note(keys: &Keys, content: &str) -> Event {
    EventBuilder::new(Kind::from_u16(1), content)
        .custom_created_at(Timestamp::from_secs(1_760_000_000))
        .finalize(keys)
        .expect("a key at hand signs anything")
}

fn deletion(keys: &Keys, of: &Event) -> Event {
    let target = Tag::parse(["e", &of.id.to_hex()]).expect("a tag");
    EventBuilder::new(Kind::from_u16(5), "")
        .tags([target])
        .custom_created_at(Timestamp::from_secs(of.created_at.as_secs() + 1))
        .finalize(keys)
        .expect("a key at hand signs anything")
}

#[track_caller]
fn assert_converged(report: &Value) {
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(report["totals"]["need_after"], 0, "{report}");
    assert_eq!(report["totals"]["have_after"], 0, "{report}");
}

#[track_caller]
fn assert_nothing_moved(report: &Value) {
    assert_converged(report);
    for count in ["need", "have", "downloaded", "uploaded"] {
        assert_eq!(report["totals"][count], 0, "{count}: {report}");
    }
}

/// What the relay holds is asked twice: a fresh store of ours takes everything from it, and rust-nostr's client compares
/// it with our export. (That client alone cannot say: of its own relay's events it gets a part in each pass. But its
/// reconciliation is exact: it sends what the relay lacks, and receives at least one if the relay has more.)
async fn assert_both_hold(station: &Station, relay: &RustNostrRelay, expected: &BTreeSet<String>) {
    let held = station.export().await;
    assert_eq!(&ids_of(&held), expected, "ours");

    let reader = Station::new();
    assert_converged(&reader.sync(&relay.url, "down").await);
    assert_eq!(
        &ids_of(&reader.export().await),
        expected,
        "the relay's, by a station that had none"
    );

    let judge = rust_nostr_sync(&relay.url, &held, "both").await;
    assert_eq!(
        (judge.sent, judge.refused),
        (0, Some(0)),
        "the relay lacks some of ours"
    );
    assert_eq!(&judge.ids, expected, "the relay has more than we");
}
