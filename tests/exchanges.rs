//! How exchanges that do not come to their end are told, and how those with one station stand to each other.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::fake_relay::{Delivery, FakeRelay, Listing, Negentropy, Script};
use common::runs::run_within;
use common::{Home, author, notes, now};
use constellation::peer::PeerId;
use constellation::protocol::websocket::{Role, SocketLimits, TextSocket};
use constellation::sync::{Deadlines, Outcome, RunReport};
use constellation::transfer::{Gap, Unresolved};
use nostr::event::Event;

/// The exchange is over long before a step is.
const CUT_OFF_SOON: Deadlines = Deadlines {
    connect: Duration::from_secs(20),
    step: Duration::from_secs(20),
    exchange: Duration::from_secs(3),
    run: Duration::from_secs(30),
};

fn ranges(report: &RunReport) -> Vec<&Gap> {
    let left = report.peers[0].unresolved.iter();
    let ranges = left.filter_map(|left| match left {
        Unresolved::Range(gap) => Some(gap),
        Unresolved::Events { .. } => None,
    });
    ranges.collect()
}

fn is_covered(event: &Event, ranges: &[&Gap]) -> bool {
    let at = event.created_at.as_secs();
    ranges.iter().any(|gap| {
        let kinds = gap.kinds.as_ref();
        gap.since.is_none_or(|since| since <= at)
            && gap.until.is_none_or(|until| at <= until)
            && kinds.is_none_or(|kinds| kinds.contains(&event.kind.as_u16()))
            && gap.authors.is_none()
    })
}

#[test]
fn an_exchange_that_is_cut_off_before_anything_was_compared_names_the_whole() {
    let home = Home::new();
    let mute = FakeRelay::tcp(|stream| async move {
        let _open = stream;
        std::future::pending().await
    });
    let report = run_within(&home, &[mute.address()], CUT_OFF_SOON);
    assert_eq!(report.peers[0].outcome, Outcome::Deadline, "{report:#?}");
    let [whole] = ranges(&report)[..] else {
        panic!("{report:#?}");
    };
    assert_eq!((whole.since, whole.until), (None, None));
}

#[test]
fn an_exchange_that_is_cut_off_names_what_it_did_not_come_to_and_not_what_is_done() {
    let home = Home::new();
    let theirs = notes(&author(1), now() - 10_000, 300);
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::UpTo {
            events: 100,
            is_stated: true,
        },
        delivery: Delivery::Slow(Duration::from_millis(20)),
        ..Script::holding(&theirs)
    });
    let report = run_within(&home, &[relay.address()], CUT_OFF_SOON);
    assert_eq!(report.peers[0].outcome, Outcome::Deadline, "{report:#?}");
    let ranges = ranges(&report);
    let stored = home.ids();
    assert!(
        !stored.is_empty() && stored.len() < theirs.len(),
        "{}",
        stored.len()
    );
    let (here, missing): (Vec<&Event>, Vec<&Event>) = theirs
        .iter()
        .partition(|event| stored.contains(&event.id.to_hex()));
    for event in missing {
        assert!(is_covered(event, &ranges), "{event:?}: {report:#?}");
    }
    assert!(
        here.iter().any(|event| !is_covered(event, &ranges)),
        "slices that were compared and moved are not named: {report:#?}"
    );
}

#[test]
fn reading_windows_that_is_cut_off_names_them() {
    let home = Home::new();
    let theirs = notes(&author(1), now() - 1_000, 30);
    let (relay, _) = FakeRelay::scripted(Script {
        negentropy: Negentropy::Notice("ERROR: unknown command"),
        listing: Listing {
            never_ends: true,
            ..Listing::default()
        },
        ..Script::holding(&theirs)
    });
    let report = run_within(&home, &[relay.address()], CUT_OFF_SOON);
    assert_eq!(report.peers[0].outcome, Outcome::Deadline, "{report:#?}");
    assert_eq!(report.peers[0].method, "windows", "{report:#?}");
    let ranges = ranges(&report);
    for event in &theirs {
        assert!(is_covered(event, &ranges), "{event:?}: {report:#?}");
    }
}

#[test]
fn one_station_under_two_addresses_is_never_exchanged_with_twice_at_once() {
    let home = Home::new();
    // How many compare at this moment, the most that ever did, and how many did.
    let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
    // As far as anybody can tell: both addresses say that they are this station's.
    let document: &'static str = Box::leak(
        format!(
            r#"{{"constellation":{{"version":1,"frame_bytes":60000,"peer_id":"{}"}}}}"#,
            PeerId::random()
        )
        .into_boxed_str(),
    );
    let serve = || {
        let counts = Arc::clone(&counts);
        FakeRelay::informed(Some(document), move |stream| {
            let counts = Arc::clone(&counts);
            async move {
                let socket = TextSocket::over(stream, Role::Server, SocketLimits::default());
                let mut socket = socket.expect("valid options");
                let mut compares = false;
                // It is asked to compare, and never answers.
                while let Ok(Some(_)) = socket.recv().await {
                    if !std::mem::replace(&mut compares, true) {
                        let now = counts[0].fetch_add(1, Ordering::SeqCst) + 1;
                        counts[1].fetch_max(now, Ordering::SeqCst);
                        counts[2].fetch_add(1, Ordering::SeqCst);
                    }
                }
                if compares {
                    counts[0].fetch_sub(1, Ordering::SeqCst);
                }
            }
        })
    };
    let (one, other) = (serve(), serve());
    let report = run_within(&home, &[one.address(), other.address()], CUT_OFF_SOON);
    for peer in &report.peers {
        assert_eq!(peer.outcome, Outcome::Deadline, "{report:#?}");
    }
    let [_, most, all] = &*counts;
    assert_eq!(most.load(Ordering::SeqCst), 1, "{report:#?}");
    assert_eq!(
        all.load(Ordering::SeqCst),
        2,
        "neither is left out: {report:#?}"
    );
}
