//! Files that are not ours, not of this version, or damaged: typed errors, and a check that finds what is wrong.

mod common;

use std::path::Path;

use common::{TestStore, event, keys, open, options};
use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::{
    Admission, Block, BlockTarget, CheckReport, FORMAT, Known, Lapse, OpenError, StoreError, check,
};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};

type Table<'e> = Database<'e, Bytes, Bytes>;

/// Changes a table of a closed store behind its back.
fn tamper(
    folder: &Path,
    name: Option<&str>,
    change: impl for<'e> FnOnce(Table<'e>, &mut RwTxn<'e>),
) {
    // SAFETY: nobody else has it open; the store was dropped.
    #[allow(unsafe_code)]
    let env = unsafe {
        EnvOpenOptions::new()
            .max_dbs(64)
            .map_size(64 << 20)
            .open(folder)
    }
    .expect("LMDB opens");
    let txn = env.write_txn().expect("writable");
    env.create_databases_and_commit(txn, |opener, txn| {
        let table = opener.create_database::<Bytes, Bytes>(txn, name)?;
        change(table, txn);
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(()))
    })
    .expect("writable");
}

fn close(store: TestStore) -> tempfile::TempDir {
    let TestStore {
        store,
        writer,
        folder,
    } = store;
    drop((store, writer));
    folder
}

/// A store with a few events, one table changed behind its back: what does a check say?
fn check_after(name: &str, change: impl for<'e> FnOnce(Table<'e>, &mut RwTxn<'e>)) -> CheckReport {
    let mut store = open();
    store.admit(&[
        event(1, 1, 100, &[&["t", "a"]], "note"),
        event(1, 0, 100, &[], "profile"),
        event(2, 1, 200, &[&["expiration", "99999999999"]], "another"),
    ]);
    store.assert_consistent();
    let folder = close(store);
    tamper(folder.path(), Some(name), change);
    let (store, _writer) =
        constellation_eventstore::open(folder.path(), options()).expect("it still opens");
    check(&store, true).expect("readable")
}

fn remove_first<'e>(table: Table<'e>, txn: &mut RwTxn<'e>) {
    let first = table.first(txn).expect("readable").expect("not empty");
    let key = first.0.to_vec();
    table.delete(txn, &key).expect("writable");
}

fn assert_found(report: &CheckReport, words: &str) {
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.contains(words)),
        "{words}: {report:#?}"
    );
}

#[test]
fn another_format_is_refused_by_its_number() {
    let folder = close(open());
    tamper(folder.path(), Some("meta"), |meta, txn| {
        let next = (FORMAT + 1).to_be_bytes();
        meta.put(txn, b"format", &next).expect("writable");
    });
    for _ in 0..2 {
        match constellation_eventstore::open(folder.path(), options()) {
            Err(OpenError::UnknownFormat { found, supported }) => {
                assert_eq!((found, supported), (FORMAT + 1, FORMAT));
            }
            other => panic!("{other:?}"),
        }
    }
    tamper(folder.path(), Some("meta"), |meta, txn| {
        meta.put(txn, b"format", b"?").expect("writable");
    });
    let opened = constellation_eventstore::open(folder.path(), options());
    assert!(matches!(opened, Err(OpenError::NotAStore)), "{opened:?}");
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tamper(folder.path(), Some("theirs"), |theirs, txn| {
        theirs.put(txn, b"key", b"value").expect("writable");
    });
    let opened = constellation_eventstore::open(folder.path(), options());
    assert!(matches!(opened, Err(OpenError::NotAStore)), "{opened:?}");
    tamper(folder.path(), None, |root, txn| {
        assert_eq!(root.len(txn).expect("readable"), 1, "nothing was added");
    });
    // Without named databases, but with a key that is named like one of ours.
    let folder = tempfile::tempdir().expect("a temporary folder");
    tamper(folder.path(), None, |root, txn| {
        root.put(txn, b"meta", b"value").expect("writable");
    });
    let opened = constellation_eventstore::open(folder.path(), options());
    assert!(matches!(opened, Err(OpenError::NotAStore)), "{opened:?}");
}

#[test]
fn a_store_from_before_events_could_be_blocked_opens() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "note");
    store.admit(std::slice::from_ref(&note));
    let folder = close(store);
    for name in ["blocked_authors", "blocked_events", "moderating"] {
        tamper(folder.path(), Some(name), |table, txn| {
            // SAFETY: the handle is not used again.
            #[allow(unsafe_code)]
            unsafe {
                table.remove(txn).expect("writable");
            }
        });
    }
    let (store, mut writer) =
        constellation_eventstore::open(folder.path(), options()).expect("it opens");
    let block = Block {
        target: BlockTarget::Event(note.id()),
        purged: false,
        since: 0,
        reason: String::new(),
    };
    writer
        .transact(|transaction| {
            transaction.block(&block)?;
            transaction.sweep(0, 10)
        })
        .expect("writable");
    let record_of = |store: &constellation_eventstore::Store| {
        let snapshot = store.snapshot().expect("readable");
        let record = snapshot.by_id(&note.id()).expect("readable");
        record.expect("kept").is_hidden()
    };
    assert!(record_of(&store));
    assert!(check(&store, true).expect("readable").is_consistent());
}

/// Deletions by id once left a tombstone "up to this version" at the address, in the place of what a deletion of the
/// address had left there.
#[test]
fn in_a_store_from_before_a_deletion_by_id_no_longer_keeps_older_versions_away() {
    let mut store = open();
    let version = |kind, time| event(1, kind, time, &[&["d", "post"]], "");
    let address = format!("30023:{}:post", keys(1).public_key());
    let of_address = event(1, 5, 150, &[&["a", &address]], "");
    let newest = [version(30_023, 200), version(30_024, 200)];
    let id = |event: &VerifiedEvent| event.to_event().id.to_hex();
    let by_id = event(
        1,
        5,
        300,
        &[&["e", &id(&newest[0])], &["e", &id(&newest[1])]],
        "",
    );
    store.admit(&[of_address, by_id]);
    store.admit(&newest);
    let away = [version(30_023, 160), version(30_024, 100)];
    store
        .writer
        .transact(|transaction| {
            away.iter()
                .try_for_each(|event| transaction.refuse(event, Rejection::Deleted))
        })
        .expect("healthy");
    let folder = close(store);
    tamper(folder.path(), Some("deleted_addresses"), |table, txn| {
        let (key, value) = table.first(txn).expect("readable").expect("a tombstone");
        let (mut key, mut value) = (key.to_vec(), value.to_vec());
        for event in &newest {
            value[3..5].copy_from_slice(&200u16.to_be_bytes());
            value[5..].copy_from_slice(&event.id());
            key[4..6].copy_from_slice(&event.kind().to_be_bytes());
            table.put(txn, &key, &value).expect("writable");
        }
        assert_eq!(table.len(txn).expect("readable"), 2);
    });
    for _opening in 0..2 {
        let (store, _writer) =
            constellation_eventstore::open(folder.path(), options()).expect("it opens");
        assert!(check(&store, true).expect("readable").is_consistent());
        let lapse = Lapse {
            now: common::NOW,
            covers: &|_, _| true,
        };
        let snapshot = store.snapshot().expect("readable");
        let ids = away.each_ref().map(VerifiedEvent::id);
        let known = snapshot.known(&ids, &lapse).expect("readable");
        assert_eq!(known, [Known::Unknown; 2], "they are asked for again");
    }
    let (store, mut writer) =
        constellation_eventstore::open(folder.path(), options()).expect("it opens");
    let refused = Admission::Refused(Rejection::Deleted);
    for (version, expected) in [
        (version(30_023, 140), Some(refused)),
        (newest[0].clone(), Some(refused)),
        (newest[1].clone(), Some(refused)),
        (away[0].clone(), None),
        (away[1].clone(), None),
    ] {
        let admission = writer
            .transact(|transaction| transaction.admit(&version, common::NOW))
            .expect("healthy")
            .value;
        match expected {
            Some(expected) => assert_eq!(admission, expected),
            None => assert!(matches!(admission, Admission::Stored(_)), "{admission:?}"),
        }
    }
    assert!(check(&store, true).expect("readable").is_consistent());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("data.mdb"), [b'x'; 10_000]).expect("writable");
    let opened = constellation_eventstore::open(folder.path(), options());
    assert!(matches!(opened, Err(OpenError::NotAStore)), "{opened:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let opened = constellation_eventstore::open(&file.join("store"), options());
    assert!(
        matches!(opened, Err(OpenError::Folder { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_second_opening_is_refused() {
    let store = open();
    assert!(constellation_eventstore::open(store.folder.path(), options()).is_err());
    store.assert_consistent();
}

#[test]
fn a_missing_index_entry_is_found() {
    for name in [
        "by_id",
        "by_time",
        "by_author",
        "by_kind",
        "by_tag",
        "expiry",
        "coordinates",
    ] {
        let report = check_after(name, remove_first);
        assert_eq!(report.problems_total, 2, "it and the count: {report:#?}");
        assert_found(&report, name);
    }
    // Segments are built from this one at opening, so nothing else disagrees with it.
    assert_found(&check_after("canonical", remove_first), "canonical");
}

#[test]
fn an_index_entry_too_many_is_found() {
    for name in [
        "by_id",
        "by_time",
        "by_author",
        "by_kind",
        "by_tag",
        "canonical",
        "expiry",
        "coordinates",
        "refused_order",
        "overlay",
    ] {
        let report = check_after(name, |table, txn| {
            let first = table.first(txn).expect("readable");
            let length = first.map_or(8, |(key, _)| key.len());
            table.put(txn, &vec![0xab; length], &[]).expect("writable");
        });
        assert_eq!(report.problems_total, 1, "{report:#?}");
        assert_found(&report, name.trim_end_matches("_order"));
    }
}

#[test]
fn a_changed_byte_in_a_record_is_found_wherever_it_is() {
    let mut store = open();
    store.admit(&[event(1, 0, 100, &[&["t", "a"]], "content")]);
    let folder = close(store);
    let mut length = 0;
    tamper(folder.path(), Some("records"), |records, txn| {
        length = records
            .first(txn)
            .expect("readable")
            .expect("stored")
            .1
            .len();
    });
    let flip = |at: usize| {
        tamper(folder.path(), Some("records"), |records, txn| {
            let (key, value) = records.first(txn).expect("readable").expect("stored");
            let (key, mut value) = (key.to_vec(), value.to_vec());
            value[at] ^= 1;
            records.put(txn, &key, &value).expect("writable");
        });
    };
    for at in (0..length).step_by(3).chain([length - 1]) {
        flip(at);
        let (store, writer) =
            constellation_eventstore::open(folder.path(), options()).expect("it still opens");
        let report = check(&store, true).expect("readable");
        assert!(!report.is_consistent(), "byte {at}");
        drop((store, writer));
        flip(at);
    }
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_to_whoever_asks_for_it() {
    let mut store = open();
    let note = event(1, 1, 100, &[], "note");
    store.admit(std::slice::from_ref(&note));
    let folder = close(store);
    tamper(folder.path(), Some("records"), |records, txn| {
        let key = records
            .first(txn)
            .expect("readable")
            .expect("stored")
            .0
            .to_vec();
        records.put(txn, &key, b"short").expect("writable");
    });
    let (store, mut writer) =
        constellation_eventstore::open(folder.path(), options()).expect("it still opens");
    let snapshot = store.snapshot().expect("readable");
    assert!(matches!(
        snapshot.by_id(&note.id()),
        Err(StoreError::Damaged(_))
    ));
    assert!(matches!(
        snapshot.scan_after(
            Default::default(),
            &mut |_| std::ops::ControlFlow::Continue(())
        ),
        Err(StoreError::Damaged(_))
    ));
    drop(snapshot);
    let deletion = event(1, 5, 200, &[&["e", &note.to_event().id.to_hex()]], "");
    let failed = writer.transact(|transaction| transaction.admit(&deletion, common::NOW));
    assert!(matches!(failed, Err(StoreError::Damaged(_))));
    // What has nothing to do with it goes on.
    writer
        .transact(|transaction| transaction.admit(&event(2, 1, 100, &[], ""), common::NOW))
        .expect("healthy");
    assert_eq!(keys(1).public_key(), note.to_event().pubkey);
}
