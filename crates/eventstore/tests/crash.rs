//! `kill -9` at random instants: what was acknowledged is there, and the store is consistent.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{NOW, event, options};
use constellation_event::VerifiedEvent;
use constellation_eventstore::check;

const FOLDER: &str = "CONSTELLATION_TEST_CRASH_FOLDER";
const FIRST: &str = "CONSTELLATION_TEST_CRASH_FIRST";
const KILLS: u64 = 50;

/// Mostly notes; every fifth a profile, which supersedes the author's last one.
fn numbered(number: u64) -> VerifiedEvent {
    let author = u8::try_from(number % 3).expect("small") + 1;
    let kind = if number.is_multiple_of(5) { 0 } else { 1 };
    event(
        author,
        kind,
        number,
        &[&["t", "topic"]],
        &number.to_string(),
    )
}

/// Runs in the child process only; in the parent's own run it does nothing.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let first = std::env::var(FIRST).expect("set with the folder");
    let mut number: u64 = first.parse().expect("a number");
    let mut small = options();
    small.map_bytes = 256 << 10;
    let (_store, mut writer) =
        constellation_eventstore::open(folder.as_ref(), small).expect("it opens after a crash");
    let mut output = std::io::stdout();
    // Ended by the parent; the bound is for a parent that died.
    for _ in 0..100_000 {
        let end = number + 1 + number % 6;
        let events: Vec<VerifiedEvent> = (number..end).map(numbered).collect();
        writer
            .transact(|transaction| {
                for event in &events {
                    transaction.admit(event, NOW)?;
                }
                Ok(())
            })
            .expect("a healthy disk");
        number = end;
        if writeln!(output, "acknowledged {number}")
            .and_then(|()| output.flush())
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut acknowledged = 0; // all numbers below
    let mut random = u64::from(std::process::id()) | 1;
    for kill in 0..KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let patience = (random >> 33) % 9;
        let mut child = Command::new(std::env::current_exe().expect("running"))
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(FIRST, acknowledged.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test runs itself");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut heard = 0;
        for line in lines {
            let line = line.expect("text");
            // The harness prints the test's name before the first.
            let Some((_, number)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged = number.parse().expect("a number");
            heard += 1;
            if heard > patience {
                break;
            }
        }
        // Somewhere within one of the next batches.
        for _ in 0..(random >> 40) % 200_000 {
            std::hint::spin_loop();
        }
        child.kill().expect("it runs");
        child.wait().expect("it was killed");

        let (store, writer) =
            constellation_eventstore::open(folder.path(), options()).expect("it opens");
        let report = check(&store, false).expect("readable");
        assert!(
            report.is_consistent(),
            "kill {kill}: {:#?}",
            report.problems
        );
        let snapshot = store.snapshot().expect("readable");
        let stored_last = snapshot.last_sequence().0;
        assert!(
            stored_last >= acknowledged,
            "kill {kill}: {stored_last} < {acknowledged}"
        );
        // The child may have committed more than the parent heard of: numbers and sequences agree.
        acknowledged = stored_last;
        let mut profiles: BTreeMap<u64, u64> = BTreeMap::new();
        let mut expected = 0;
        for number in 0..acknowledged {
            if number % 5 == 0 {
                profiles.insert(number % 3, number);
            } else {
                expected += 1;
            }
        }
        assert_eq!(
            snapshot.event_count().expect("readable"),
            expected + profiles.len() as u64
        );
        // All were there after earlier kills; the last ones are news.
        let notes =
            (acknowledged.saturating_sub(40)..acknowledged).filter(|number| number % 5 != 0);
        for number in notes.chain(profiles.into_values()) {
            let id = numbered(number).id();
            assert!(
                snapshot.by_id(&id).expect("readable").is_some(),
                "kill {kill}: {number}"
            );
        }
        drop(snapshot);
        drop((store, writer));
    }
    assert!(acknowledged > KILLS);
}
