//! The registry of claims against a model, and what time and dropping do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::claims::{Claimant, Claims};
use crate::limits::CLAIM_OVERDUE;

fn id(number: u8) -> [u8; 32] {
    [number; 32]
}

#[derive(Debug, Clone)]
enum Action {
    Claim(usize, Vec<u8>, usize),
    Deliver(usize, u8),
    Release(usize, Vec<u8>),
    /// Leaves, and another one takes part.
    Replace(usize),
    Wait,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let ids = || prop::collection::vec(0..12u8, 0..8);
    let action = prop_oneof![
        4 => (0..3usize, ids(), 0..9usize).prop_map(|(who, ids, most)| Action::Claim(who, ids, most)),
        2 => (0..3usize, 0..12u8).prop_map(|(who, id)| Action::Deliver(who, id)),
        2 => (0..3usize, ids()).prop_map(|(who, ids)| Action::Release(who, ids)),
        1 => (0..3usize).prop_map(Action::Replace),
        1 => Just(Action::Wait),
    ];
    prop::collection::vec(action, 0..60)
}

/// Who holds an id, whether its event has come, and whether its claim is overdue.
type Model = BTreeMap<u8, (usize, bool, bool)>;

fn claim(model: &mut Model, who: usize, ids: &[u8], most: usize) -> Vec<bool> {
    let mut answers = Vec::new();
    let mut taken = 0;
    for id in ids {
        if taken == most {
            break;
        }
        let free = match model.get(id) {
            None => true,
            Some((holder, delivered, overdue)) => *holder != who && !delivered && *overdue,
        };
        if free {
            model.insert(*id, (who, false, false));
            taken += 1;
        }
        answers.push(free);
    }
    answers
}

proptest! {
    #[test]
    fn an_id_has_one_holder_and_none_is_lost(actions in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let claims = Arc::new(Claims::default());
            let mut claimants: Vec<Claimant> = (0..3).map(|_| claims.join()).collect();
            let mut model = Model::new();
            for action in actions {
                let released = claimants[0].watch();
                let before = model.clone();
                match action {
                    Action::Claim(who, ids, most) => {
                        let asked: Vec<[u8; 32]> = ids.iter().map(|number| id(*number)).collect();
                        let answers = claimants[who].claim(&asked, most);
                        assert_eq!(answers, claim(&mut model, who, &ids, most));
                    }
                    Action::Deliver(who, number) => {
                        let ours = model.get_mut(&number).filter(|(holder, ..)| *holder == who);
                        assert_eq!(claimants[who].delivered(&id(number)), ours.is_some());
                        if let Some((_, delivered, _)) = ours {
                            *delivered = true;
                        }
                    }
                    Action::Release(who, ids) => {
                        let asked: Vec<[u8; 32]> = ids.iter().map(|number| id(*number)).collect();
                        claimants[who].release(&asked);
                        model.retain(|number, (holder, ..)| *holder != who || !ids.contains(number));
                    }
                    Action::Replace(who) => {
                        claimants[who] = claims.join();
                        model.retain(|_, (holder, ..)| *holder != who);
                    }
                    Action::Wait => {
                        tokio::time::advance(CLAIM_OVERDUE + Duration::from_millis(1)).await;
                        for (_, _, overdue) in model.values_mut() {
                            *overdue = true;
                        }
                    }
                }
                assert_eq!(claims.held(), model.len());
                let freed = before.keys().any(|number| !model.contains_key(number));
                assert!(!freed || released.has_changed().unwrap(), "whoever waits is told");
            }
            // When all have left, everything is free.
            let last = claims.join();
            drop(claimants);
            assert_eq!(claims.held(), 0);
            let all: Vec<[u8; 32]> = (0..12).map(id).collect();
            assert!(last.claim(&all, usize::MAX).iter().all(|claimed| *claimed));
        });
    }

    /// Claimants that take the next free part of their lists, and put off what others hold, bring every id that any of
    /// them lists, each once, although some fail.
    #[test]
    fn sharing_loses_nothing_and_fetches_nothing_twice(
        lists in prop::collection::vec(prop::collection::btree_set(0..40u8, 0..40), 1..4),
        lots in prop::collection::vec((0..4usize, 1..6usize, any::<bool>()), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let claims = Arc::new(Claims::default());
            let mut waiting: Vec<BTreeSet<u8>> = lists.clone();
            let mut claimants: Vec<Claimant> = lists.iter().map(|_| claims.join()).collect();
            let mut fetching: Vec<BTreeSet<u8>> = vec![BTreeSet::new(); lists.len()];
            let mut fetched: BTreeSet<u8> = BTreeSet::new();
            // After the made-up turns, as many honest ones as bring all to an end.
            let honest = (0..400).map(|turn| (turn, 3, true));
            for (turn, most, delivers) in lots.into_iter().chain(honest) {
                let who = turn % lists.len();
                if delivers {
                    let done = std::mem::take(&mut fetching[who]);
                    for number in &done {
                        assert!(fetched.insert(*number), "{number} was fetched twice");
                    }
                    let ids: Vec<[u8; 32]> = done.into_iter().map(id).collect();
                    claimants[who].release(&ids);
                } else {
                    // Its peer fails; what was under way is to be had again.
                    waiting[who].append(&mut fetching[who]);
                    claimants[who] = claims.join();
                }
                let wanted: Vec<u8> = waiting[who].iter().copied().collect();
                let ids: Vec<[u8; 32]> = wanted.iter().map(|number| id(*number)).collect();
                let mut got = Vec::new();
                for (number, claimed) in wanted.iter().zip(claimants[who].claim(&ids, most)) {
                    if claimed {
                        waiting[who].remove(number);
                        // Looked up after it was claimed: what is there by now needs no fetching.
                        if fetched.contains(number) {
                            got.push(id(*number));
                        } else {
                            fetching[who].insert(*number);
                        }
                    }
                }
                claimants[who].release(&got);
            }
            let all: BTreeSet<u8> = lists.iter().flatten().copied().collect();
            assert_eq!(fetched, all);
            assert_eq!(claims.held(), 0);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_overdue_claim_is_taken_over_unless_the_event_has_come() {
    let claims = Arc::new(Claims::default());
    let (slow, quick) = (claims.join(), claims.join());
    assert!(!slow.is_alone());
    assert_eq!(slow.claim(&[id(1), id(2)], 2), [true, true]);
    assert!(slow.delivered(&id(2)));
    assert_eq!(quick.claim(&[id(1), id(2)], 2), [false, false]);
    tokio::time::advance(CLAIM_OVERDUE + Duration::from_millis(1)).await;
    assert_eq!(quick.claim(&[id(1), id(2)], 2), [true, false]);
    assert!(!slow.delivered(&id(1)), "it is the other one's now");
    slow.release(&[id(1), id(2)]);
    assert_eq!(claims.held(), 1);
    assert_eq!(slow.claim(&[id(1)], 1), [false]);
}

#[test]
fn bytes_are_counted_for_all_and_go_with_their_claimant() {
    let claims = Arc::new(Claims::default());
    let (mut one, mut two) = (claims.join(), claims.join());
    one.add_unsettled(100);
    two.add_unsettled(10);
    assert_eq!((one.unsettled(), two.unsettled()), ((100, 110), (10, 110)));
    two.settle(50);
    assert_eq!(claims.unsettled(), 100);
    drop(one);
    assert_eq!(claims.unsettled(), 0);
}
