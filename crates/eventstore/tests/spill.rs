//! Transactions of more pages than the database keeps in memory: it writes some of them early, and nobody must notice.

mod common;

use common::{NOW, event, open};
use constellation_event::VerifiedEvent;
use constellation_eventstore::StoreError;

/// About 90 pages of the tag index each, spread all over it.
fn tagged(number: u64) -> VerifiedEvent {
    let values: Vec<String> = (0..5_000)
        .map(|value| format!("{number}.{value}"))
        .collect();
    let tags: Vec<[&str; 2]> = values.iter().map(|value| ["t", value.as_str()]).collect();
    let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
    event(1, 1, number, &tags, "")
}

#[test]
fn a_transaction_larger_than_memory_is_kept_whole_or_not_at_all() {
    // Some 12,000 pages.
    let events: Vec<VerifiedEvent> = (0..140).map(tagged).collect();
    let mut store = open();
    let failed = store.writer.transact(|transaction| {
        for event in &events {
            transaction.admit(event, NOW)?;
        }
        // Writes the indexes; and then it comes to nothing.
        transaction.sweep(NOW, 1)?;
        Err::<(), _>(StoreError::SnapshotExpired)
    });
    assert!(matches!(failed, Err(StoreError::SnapshotExpired)));
    assert_eq!(store.ids().len(), 0);
    store.assert_consistent();

    let (first, rest) = events.split_at(20);
    store.admit(first);
    store.admit(rest);
    assert_eq!(store.ids().len(), events.len());
    store.assert_consistent();
    let store = store.reopen();
    assert_eq!(store.ids().len(), events.len());
    assert_eq!(store.query(r##"{"#t":["77.4999"]}"##), [tagged(77).id()]);
    store.assert_consistent();
}

#[test]
fn what_is_removed_after_pages_were_written_early_is_gone() {
    let mut store = open();
    let events: Vec<VerifiedEvent> = (0..240).map(tagged).collect();
    let targets: Vec<String> = events
        .iter()
        .map(|note| note.to_event().id.to_hex())
        .collect();
    let tags: Vec<[&str; 2]> = targets.iter().map(|id| ["e", id.as_str()]).collect();
    let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
    let deletion = event(1, 5, 1_000, &tags, "");
    store.admit(&events);
    // More than a million entries go in one transaction.
    store.admit(std::slice::from_ref(&deletion));
    assert_eq!(store.ids(), [deletion.id()]);
    store.assert_consistent();
}
