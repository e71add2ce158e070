//! A full disk: a child process under a limit on the size of files meets it, its parent finds all that was promised.

#![cfg(unix)]

mod common;

use std::process::Command;

use common::{NOW, event, options};
use constellation_event::VerifiedEvent;
use constellation_eventstore::{Store, StoreError, check};

const FOLDER: &str = "CONSTELLATION_TEST_FULL_DISK_FOLDER";
const BATCH: u64 = 60;

fn note(number: u64) -> VerifiedEvent {
    let content = "x".repeat(1_000);
    event(1, 1, number, &[&["t", &number.to_string()]], &content)
}

fn batch(number: u64) -> Vec<VerifiedEvent> {
    (number * BATCH..(number + 1) * BATCH).map(note).collect()
}

fn assert_holds(store: &Store, batches: u64) {
    let snapshot = store.snapshot().expect("readable");
    let expected = batches * BATCH;
    assert_eq!(snapshot.event_count().expect("readable"), expected);
    assert_eq!(snapshot.shared_by_kind(), [(1, expected)]);
    drop(snapshot);
    let report = check(store, false).expect("readable");
    assert!(report.is_consistent(), "{:#?}", report.problems);
}

/// Runs in the child process only; in the parent's own run it does nothing.
#[test]
fn child_writes_until_the_disk_is_full() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (store, mut writer) =
        constellation_eventstore::open(folder.as_ref(), options()).expect("there is room for this");
    let mut acknowledged = 0;
    loop {
        let events = batch(acknowledged);
        let written = writer.transact(|transaction| {
            for event in &events {
                transaction.admit(event, NOW)?;
            }
            Ok(())
        });
        match written {
            Ok(_) => acknowledged += 1,
            Err(StoreError::DiskFull) => break,
            Err(other) => panic!("after {acknowledged} batches: {other:?}"),
        }
        assert!(acknowledged < 1_000, "the limit is never met");
    }
    assert!(acknowledged > 0);
    assert_holds(&store, acknowledged);
    // It stays so, and stays readable.
    for _ in 0..3 {
        let events = batch(acknowledged);
        let again = writer.transact(|transaction| {
            for event in &events {
                transaction.admit(event, NOW)?;
            }
            Ok(())
        });
        assert!(matches!(again, Err(StoreError::DiskFull)), "{again:?}");
        assert_holds(&store, acknowledged);
    }
    std::fs::write(
        std::path::Path::new(&folder).join("acknowledged"),
        acknowledged.to_string(),
    )
    .expect("small files have room");
}

#[test]
fn a_full_disk_is_an_error_of_its_own_and_loses_nothing() {
    // Limits in blocks of 512 bytes, odd ones too: so that writes end early at different places.
    for blocks in [1_999, 3_001, 4_608] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The shell sets the limit, and has its signal ignored, which the child inherits.
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                r#"trap "" XFSZ && ulimit -f {blocks} && exec "$@""#
            ))
            .arg("sh")
            .arg(std::env::current_exe().expect("running"))
            .args([
                "--exact",
                "child_writes_until_the_disk_is_full",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .output()
            .expect("a shell");
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let acknowledged = std::fs::read_to_string(folder.path().join("acknowledged"))
            .expect("the child wrote it")
            .parse()
            .expect("a number");
        let (store, mut writer) =
            constellation_eventstore::open(folder.path(), options()).expect("it opens again");
        assert_holds(&store, acknowledged);
        let snapshot = store.snapshot().expect("readable");
        for event in (0..acknowledged).flat_map(batch).step_by(17) {
            assert!(snapshot.by_id(&event.id()).expect("readable").is_some());
        }
        drop(snapshot);
        let events = batch(acknowledged);
        writer
            .transact(|transaction| {
                for event in &events {
                    transaction.admit(event, NOW)?;
                }
                Ok(())
            })
            .expect("there is room again");
        assert_holds(&store, acknowledged + 1);
    }
}
