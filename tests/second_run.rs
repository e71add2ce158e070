//! A run right after another moves nothing and costs next to nothing, however much either side refuses (D8).
//!
//! What a conversation that moves nothing sends and receives is its negentropy messages: the report's bytes.

mod common;

use std::time::Duration;

use common::fake_relay::{FakeRelay, Publishing, Script};
use common::runs::run_within;
use common::{Home, author, event, notes, now};
use constellation::sync::{Deadlines, Outcome, RunReport};
use nostr::event::Event;

/// Signing and moving ten thousand events in a debug build takes its time on a loaded machine.
const PATIENT: Deadlines = Deadlines {
    connect: Duration::from_secs(5),
    step: Duration::from_secs(20),
    exchange: Duration::from_secs(110),
    run: Duration::from_secs(120),
};
const REFUSED: u64 = 10_000;
const NEGENTROPY_BYTES_MAX: u64 = 2_000;

#[track_caller]
fn assert_quiet(report: &RunReport) {
    let totals = &report.totals;
    assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
    assert_eq!(report.peers[0].method, "negentropy", "{report:#?}");
    assert_eq!(
        (totals.need, totals.have, totals.downloaded, totals.uploaded),
        (0, 0, 0, 0),
        "{report:#?}"
    );
    let bytes = totals.bytes_in + totals.bytes_out;
    assert!(
        bytes > 0 && bytes < NEGENTROPY_BYTES_MAX,
        "{bytes} bytes: {report:#?}"
    );
}

/// Deleted, superseded and expired ones: the peer keeps them all, and lists them in every run.
#[test]
fn ten_thousand_events_that_we_refuse_cost_nothing_the_second_time() {
    let keys = author(1);
    let long_ago = now() - 1_000_000;
    let deleted = notes(&keys, long_ago, 4_000);
    let deletions = deleted.chunks(1_000).map(|targets| {
        let ids: Vec<String> = targets.iter().map(|target| target.id.to_hex()).collect();
        let tags: Vec<[&str; 2]> = ids.iter().map(|id| ["e", id.as_str()]).collect();
        let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
        event(&keys, 5, now() - 100, &tags, "")
    });
    let article = |number: u64, at: u64| {
        let name = number.to_string();
        event(&keys, 30_023, at, &[&["d", &name]], "")
    };
    let older: Vec<Event> = (0..3_000).map(|n| article(n, long_ago + n)).collect();
    let newer: Vec<Event> = (0..3_000).map(|n| article(n, now() - 10_000 + n)).collect();
    let over = (now() - 1_000).to_string();
    let expired = (0..3_000).map(|n| {
        let tags: [&[&str]; 1] = [&["expiration", &over]];
        event(&keys, 1, long_ago + n, &tags, "for a while")
    });
    let home = Home::new();
    home.import(&deletions.chain(newer).collect::<Vec<Event>>());
    let theirs = [deleted, older, expired.collect()].concat();
    assert_eq!(theirs.len() as u64, REFUSED);
    let (relay, played) = FakeRelay::scripted(Script::holding(&theirs));
    let first = run_within(&home, &[relay.address()], PATIENT);
    assert_eq!(first.outcome, Outcome::Converged, "{first:#?}");
    let rejected: u64 = first.totals.rejected.values().sum();
    assert_eq!(rejected, REFUSED, "{first:#?}");
    assert_eq!(first.totals.stored, 0);
    played.take_requested();
    assert_quiet(&run_within(&home, &[relay.address()], PATIENT));
    assert!(played.take_requested().is_empty());
}

#[test]
fn ten_thousand_events_that_the_peer_refuses_cost_nothing_the_second_time() {
    let home = Home::new();
    home.import(&notes(&author(1), now() - 1_000_000, REFUSED));
    // So many that sums of them are compared: a handful is listed by its ids, which are no less for being equal.
    let theirs = notes(&author(2), now() - 1_000, 200);
    let (relay, played) = FakeRelay::scripted(Script {
        publishing: Publishing::Refuses("blocked: not here"),
        ..Script::holding(&theirs)
    });
    let first = run_within(&home, &[relay.address()], PATIENT);
    assert_eq!(first.outcome, Outcome::Converged, "{first:#?}");
    let refused: u64 = first.totals.refused_by_peer.values().sum();
    assert_eq!((refused, first.totals.stored), (REFUSED, 200), "{first:#?}");
    played.take_offered();
    assert_quiet(&run_within(&home, &[relay.address()], PATIENT));
    assert!(played.take_offered().is_empty());
}
