//! A run right after another moves nothing and costs next to nothing, however much either side refuses (D8).
//!
//! What a conversation that moves nothing sends and receives is its negentropy messages: the report's bytes.

mod common;

use std::time::Duration;

use common::fake_relay::{FakeRelay, Publishing, Script};
use common::runs::{Later, run_at, run_bounded, run_with, run_within};
use common::{Home, author, event, notes, now};
use constellation::sync::{AuthorsSpec, Deadlines, Outcome, RunReport, ScopeOptions, SyncOptions};
use constellation::time::Clock;
use constellation::transfer::Unresolved;
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

/// Deleted, superseded and expired ones: what we hold against them, and what a peer keeps and lists in every run.
fn refused_by_us() -> (Vec<Event>, Vec<Event>) {
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
    let ours = deletions.chain(newer).collect();
    let theirs = [deleted, older, expired.collect()].concat();
    assert_eq!(theirs.len() as u64, REFUSED);
    (ours, theirs)
}

#[test]
fn ten_thousand_events_that_we_refuse_cost_nothing_the_second_time() {
    let (ours, theirs) = refused_by_us();
    let home = Home::new();
    home.import(&ours);
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

/// A relay that is no station is asked by author: what it lists under them and we refuse is known there too, be it judged
/// by its content or by how it came.
#[test]
fn ten_thousand_refused_events_of_authors_that_are_asked_for_cost_nothing_the_second_time() {
    let (ours, theirs) = refused_by_us();
    let home = Home::new();
    home.import(&ours);
    let another = notes(&author(1), now() - 5_000, 40);
    let forged = notes(&author(1), now() - 9_000, 20);
    let script = Script::holding(&[&theirs[..], &another[..]].concat());
    let script = forged.iter().fold(script, |script, event| {
        let genuine = event.as_json();
        script.and(
            event,
            genuine.replace(&event.sig.to_string(), &"ab".repeat(64)),
        )
    });
    let (relay, played) = FakeRelay::scripted(script);
    let authors = [author(1), author(2)].map(|keys| keys.public_key().to_bytes());
    let by_author = || SyncOptions {
        scope: ScopeOptions {
            authors: Some(AuthorsSpec::List(std::sync::Arc::new(authors.into()))),
            ..ScopeOptions::default()
        },
        deadlines: PATIENT,
        ..SyncOptions::default()
    };
    let first = run_with(&home, &[relay.address()], by_author());
    assert_eq!(first.outcome, Outcome::Converged, "{first:#?}");
    let rejected: u64 = first.totals.rejected.values().sum();
    assert_eq!(
        (rejected, first.totals.stored),
        (REFUSED + 20, 40),
        "{first:#?}"
    );
    played.take_requested();
    assert_quiet(&run_with(&home, &[relay.address()], by_author()));
    assert!(played.take_requested().is_empty());
}

#[test]
fn what_is_listed_and_never_delivered_costs_next_to_nothing_stays_named_and_is_asked_for_after_a_pause()
 {
    let home = Home::new();
    let good = notes(&author(1), now() - 10_000, 300);
    let missing = notes(&author(2), now() - 8_000, 100);
    let script = missing
        .iter()
        .step_by(2)
        .fold(Script::holding(&good), Script::and_only_lists);
    let (relay, played) = FakeRelay::scripted(script);
    let run_after = |seconds| {
        let options = SyncOptions {
            deadlines: PATIENT,
            ..SyncOptions::default()
        };
        let report = run_at(
            &home,
            &[relay.address()],
            options,
            Clock::new(Later(seconds)),
        );
        assert_eq!(report.outcome, Outcome::Partial, "{report:#?}");
        let peer = &report.peers[0];
        assert_eq!(peer.error, None, "{report:#?}");
        assert_eq!(
            (peer.need_after, peer.have_after),
            (Some(50), Some(0)),
            "{report:#?}"
        );
        let [Unresolved::Events { ids, count, why }] = peer.unresolved.as_slice() else {
            panic!("{report:#?}");
        };
        assert_eq!((ids.len(), *count, why.as_str()), (50, 50, "undelivered"));
        let bytes = report.totals.bytes_in + report.totals.bytes_out;
        (played.take_requested().len(), bytes)
    };
    const MINUTE: u64 = 60;
    run_after(0);
    let (asked, bytes) = run_after(MINUTE);
    assert!(
        asked == 0 && bytes < NEGENTROPY_BYTES_MAX,
        "{asked} asked, {bytes} bytes"
    );
    let (asked, _) = run_after(70 * MINUTE);
    assert!(
        asked >= 50,
        "after an hour it is asked for once more: {asked}"
    );
    let (asked, bytes) = run_after(150 * MINUTE);
    assert!(
        asked == 0 && bytes < NEGENTROPY_BYTES_MAX,
        "then after two: {asked} asked, {bytes} bytes"
    );
    assert!(run_after(200 * MINUTE).0 >= 50);

    // Delivered at last, it is no difference any more.
    played.change(|script| {
        for event in missing.iter().step_by(2) {
            script
                .delivered
                .insert(event.id.to_bytes(), event.as_json());
        }
    });
    let options = SyncOptions {
        deadlines: PATIENT,
        ..SyncOptions::default()
    };
    let last = run_at(
        &home,
        &[relay.address()],
        options,
        Clock::new(Later(1_000 * MINUTE)),
    );
    assert_eq!(
        (last.outcome, last.totals.stored),
        (Outcome::Converged, 50),
        "{last:#?}"
    );
}

/// More than is remembered of one peer: nothing is fetched again, what is remembered stays, and the report says so.
#[test]
fn more_refused_events_than_are_remembered_of_a_peer_are_sorted_out_and_told_in_each_run() {
    const REMEMBERED: u64 = 60;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let over = (now() - 1_000).to_string();
    let expired = (0..100).map(|n| {
        let tags: [&[&str]; 1] = [&["expiration", &over]];
        event(&author(1), 1, now() - 9_000 + n, &tags, "for a while")
    });
    let expired: Vec<Event> = expired.collect();
    let (relay, played) = FakeRelay::scripted(Script::holding(&expired));
    for run in 0..3 {
        let report = run_bounded(folder.path(), REMEMBERED, relay.address(), PATIENT);
        assert_eq!(report.outcome, Outcome::Converged, "{report:#?}");
        let [Unresolved::Events { count, .. }] = report.peers[0].unresolved.as_slice() else {
            panic!("run {run}: {report:#?}");
        };
        assert_eq!(*count, 100 - REMEMBERED, "run {run}: {report:#?}");
        let asked = played.take_requested().len();
        assert_eq!(asked > 0, run == 0, "run {run}: {asked}");
    }
}
