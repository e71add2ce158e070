//! A full disk: a child process under a limit on the size of files meets it, its parent finds all that was promised.

#![cfg(unix)]

mod common;

use std::process::Command;

use common::{NOW, event, options};
use constellation_event::VerifiedEvent;
use constellation_eventstore::{Store, StoreError, check};

const FOLDER: &str = "CONSTELLATION_TEST_FULL_DISK_FOLDER";
const TAGS: &str = "CONSTELLATION_TEST_FULL_DISK_TAGS";
const BATCH: u64 = 60;

fn note(number: u64, tags: u64) -> VerifiedEvent {
    let content = "x".repeat(1_000);
    let values: Vec<String> = (0..tags).map(|tag| format!("{number}.{tag}")).collect();
    let tags: Vec<[&str; 2]> = values.iter().map(|value| ["t", value.as_str()]).collect();
    let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
    event(1, 1, number, &tags, &content)
}

fn batch(number: u64, tags: u64) -> Vec<VerifiedEvent> {
    (number * BATCH..(number + 1) * BATCH)
        .map(|number| note(number, tags))
        .collect()
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
    let tags = std::env::var(TAGS).expect("set with the folder");
    let tags = tags.parse().expect("a number");
    let (store, mut writer) =
        constellation_eventstore::open(folder.as_ref(), options()).expect("there is room for this");
    let mut acknowledged = 0;
    loop {
        let events = batch(acknowledged, tags);
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
        let events = batch(acknowledged, tags);
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
    // Limits in blocks of 512 bytes, odd ones too: so that writes end early at different places. In the last ones the
    // disk is full while a transaction has more pages than fit into memory and writes some of them early.
    for (blocks, tags) in [
        (1_999, 1),
        (3_001, 1),
        (4_608, 1),
        (150_001, 5_000),
        (190_000, 5_000),
    ] {
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
            .env(TAGS, tags.to_string())
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
        for event in (0..acknowledged)
            .flat_map(|number| batch(number, tags))
            .step_by(17)
        {
            assert!(snapshot.by_id(&event.id()).expect("readable").is_some());
        }
        drop(snapshot);
        let events = batch(acknowledged, tags);
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
