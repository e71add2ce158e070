//! Versions of one address: which gives way, and which may come again once what stood above it is gone.

mod common;

use common::{NOW, TestStore, event, open};
use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::Admission::Refused;
use constellation_eventstore::{
    Block, BlockTarget, Lapse, NewOverlayEntry, OverlayReason, SetScope, Transaction,
};

/// The verdict on an event that is remembered and still stands.
fn refusal(store: &TestStore, event: &VerifiedEvent) -> Option<Rejection> {
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let snapshot = store.store.snapshot().expect("readable");
    let refusal = snapshot
        .standing_refusal(&event.id(), &lapse)
        .expect("readable");
    refusal.map(|refusal| refusal.reason)
}

#[test]
fn a_deletion_by_id_deletes_one_version_and_an_older_one_may_come_again() {
    let old = event(1, 30_023, 100, &[&["d", "post"]], "old");
    let new = event(1, 30_023, 200, &[&["d", "post"]], "new");
    let deletion = event(1, 5, 300, &[&["e", &new.to_event().id.to_hex()]], "");
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut store = open();
        for index in order {
            store.admit(&[[&old, &new, &deletion][index].clone()]);
        }
        let is_stored = store.ids().contains(&old.id());
        // It is gone where it had given way before; nothing else keeps it away.
        let gave_way = matches!(order, [0, 1, 2] | [1, 0, 2]);
        assert_eq!(is_stored, !gave_way, "{order:?}");
        assert_eq!(refusal(&store, &old), None, "{order:?}");
        store.admit(std::slice::from_ref(&old));
        assert_eq!(store.ids(), [deletion.id(), old.id()], "{order:?}");
        assert_eq!(
            store.admit(std::slice::from_ref(&new)),
            [Refused(Rejection::Deleted)],
            "{order:?}"
        );
        store.assert_consistent();
        let newest = event(1, 30_023, 201, &[&["d", "post"]], "newest");
        store.admit(std::slice::from_ref(&newest));
        assert_eq!(store.ids(), [deletion.id(), newest.id()], "{order:?}");
        assert_eq!(refusal(&store, &old), Some(Rejection::Superseded));
        store.assert_consistent();
    }
}

#[test]
fn what_gave_way_comes_and_goes_within_one_transaction() {
    let old = event(1, 0, 100, &[], "old");
    let new = event(1, 0, 200, &[], "new");
    let deletion = event(1, 5, 300, &[&["e", &new.to_event().id.to_hex()]], "");
    for stored_before in [0, 1, 2] {
        let all = [
            old.clone(),
            new.clone(),
            old.clone(),
            deletion.clone(),
            old.clone(),
        ];
        let mut store = open();
        store.admit(&all[..stored_before]);
        store.admit(&all[stored_before..]);
        assert_eq!(store.ids(), [deletion.id(), old.id()]);
        store.assert_consistent();
        store.reopen().assert_consistent();
    }
}

#[test]
fn a_version_is_refused_for_a_newer_one_only_as_long_as_that_is_there() {
    let old = event(1, 0, 100, &[], "old");
    let soon = (NOW + 10).to_string();
    let new = event(1, 0, 200, &[&["expiration", &soon]], "new");
    let by_id = event(1, 5, 300, &[&["e", &new.to_event().id.to_hex()]], "");
    let purge = Block {
        target: BlockTarget::Event(new.id()),
        purged: true,
        since: NOW,
        reason: String::new(),
    };
    type Way<'w> = (&'w str, &'w dyn Fn(&mut TestStore));
    let ways: [Way<'_>; 3] = [
        ("deleted by its id", &|store| {
            store.admit(std::slice::from_ref(&by_id));
        }),
        ("expired", &|store| {
            store.admit_at(&[], NOW + 10);
        }),
        ("purged", &|store| {
            let block = |transaction: &mut Transaction<'_>| transaction.block(&purge);
            store.writer.transact(block).expect("healthy");
            store.admit(&[]);
        }),
    ];
    for (way, goes) in ways {
        let mut store = open();
        store.admit(&[old.clone(), new.clone()]);
        let peer = "wss://relay.example";
        let entry = NewOverlayEntry {
            key: old.canonical_key(),
            reason: OverlayReason::Refused(Rejection::Superseded),
            kind: None,
            expires_at: None,
            author: None,
        };
        store
            .writer
            .transact(|transaction| transaction.add_to_overlay(peer, &[entry]))
            .expect("healthy");
        let overlay = |store: &TestStore| {
            let lapse = Lapse {
                now: NOW,
                covers: &|_, _| true,
            };
            let snapshot = store.store.snapshot().expect("readable");
            let overlay = snapshot.overlay(peer, &SetScope::everything(), &lapse);
            let overlay = overlay.expect("readable");
            (overlay.refused.items().len(), overlay.lapsed)
        };
        assert_eq!(refusal(&store, &old), Some(Rejection::Superseded));
        assert_eq!(overlay(&store), (1, vec![]));
        goes(&mut store);
        assert_eq!(refusal(&store, &old), None, "{way}");
        assert_eq!(
            overlay(&store),
            (0, vec![old.canonical_key()]),
            "{way}: it is a difference from the peer again"
        );
        store.admit(std::slice::from_ref(&old));
        assert!(store.ids().contains(&old.id()), "{way}");
        store.assert_consistent();
    }
}
