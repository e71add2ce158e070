//! Many ids asked at once are answered as they are one by one.

mod common;

use common::{NOW, event, open};
use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::{Known, Lapse, Snapshot};
use proptest::prelude::*;

fn one_by_one(snapshot: &Snapshot<'_>, id: &[u8; 32], lapse: &Lapse<'_>) -> Known {
    if snapshot.by_id(id).expect("readable").is_some() {
        return Known::Stored;
    }
    let refusal = snapshot.standing_refusal(id, lapse).expect("readable");
    refusal.map_or(Known::Unknown, Known::Refused)
}

/// What becomes of an event: stored, refused for one of these reasons, or never heard of.
fn fates() -> impl Strategy<Value = Vec<(u8, u16, u8)>> {
    let kinds = prop_oneof![Just(0u16), Just(1), Just(30_023)];
    proptest::collection::vec((1u8..4, kinds, 0u8..6), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn many_ids_are_answered_as_one_by_one(
        fates in fates(),
        order in any::<prop::sample::Index>(),
        covered in any::<bool>(),
    ) {
        let mut store = open();
        let mut ids = Vec::new();
        let made: Vec<VerifiedEvent> = (0u64..)
            .zip(&fates)
            .map(|(at, (author, kind, _))| event(*author, *kind, 1_000 + at, &[], &at.to_string()))
            .collect();
        store
            .writer
            .transact(|transaction| {
                for (event, (_, _, fate)) in made.iter().zip(&fates) {
                    match fate {
                        0 => transaction.refuse(event, Rejection::OutOfScope)?,
                        1 => transaction.refuse(event, Rejection::Future)?,
                        2 => transaction.refuse(event, Rejection::Deleted)?,
                        3 => {}
                        // Some of these supersede earlier ones, which are refused from then on.
                        _ => {
                            transaction.admit(event, NOW)?;
                        }
                    }
                }
                Ok(())
            })
            .expect("healthy");
        for event in &made {
            ids.push(event.id());
            // The index holds eight bytes of an id: one that begins as another is another still.
            let mut similar = event.id();
            similar[31] ^= 1;
            ids.push(similar);
        }
        let first = order.index(ids.len());
        ids.rotate_left(first);
        ids.push(ids[0]);
        let lapse = Lapse { now: 900, covers: &|_, _| covered };
        let snapshot = store.store.snapshot().expect("readable");
        let expected: Vec<Known> =
            ids.iter().map(|id| one_by_one(&snapshot, id, &lapse)).collect();
        prop_assert_eq!(snapshot.known(&ids, &lapse).expect("readable"), expected);
        prop_assert_eq!(snapshot.known(&[], &lapse).expect("readable"), vec![]);
    }
}
