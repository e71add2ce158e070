//! Every message of every dialogue equals, byte for byte, what the `negentropy` crate would have
//! sent in the same role; and the dialogue finds the true difference.
//!
//! As all messages are equal, one lockstep dialogue stands for all pairings: ours with the
//! oracle's responder, the oracle's initiator with ours, and ours with ours.

use constellation_reconcile::{Bound, VecSet};
use constellation_reconcile::{Difference, Initiator, Item, Overlaid, SortedSet, Step, respond};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

#[path = "support/initiating.rs"]
mod initiating;
mod support;
use initiating::oracle_step;
use support::{Pair, Random, ids_of, limits, oracle, ours_limit};

/// Far beyond any honest exchange of these sizes.
const MOST_ROUNDS: u64 = 2_000;

fn converse<A: SortedSet, B: SortedSet>(
    pair: &Pair,
    (first, second): (&A, &B),
    limits: (usize, usize),
) -> Result<(), TestCaseError> {
    let [_, only_first, only_second] = pair.parts();
    let (first_items, second_items) = pair.sets();
    let mut their_initiator = oracle(first_items.items(), limits.0);
    let mut their_responder = oracle(second_items.items(), limits.1);
    let mut initiator = Initiator::new(ours_limit(limits.0));
    let mut total = Difference::default();

    let mut message = initiator.open(first).expect("our set is sound");
    prop_assert_eq!(&message, &their_initiator.initiate().expect("fresh"));
    loop {
        let answer = respond(second, &message, ours_limit(limits.1)).expect("valid");
        prop_assert_eq!(
            &answer,
            &their_responder.reconcile(&message).expect("valid")
        );
        assert!(limits.1 == 0 || answer.len() <= limits.1);

        let mut found = Difference::default();
        let step = initiator
            .reconcile(first, &answer, &mut found)
            .expect("valid");
        let told = oracle_step(&mut their_initiator, &answer).expect("valid");
        prop_assert_eq!(
            (ids_of(&found.have), ids_of(&found.need)),
            (told.have, told.need)
        );
        for guess in &found.need {
            let listed = only_second.iter().find(|item| item.id == guess.id);
            let listed = listed.expect("nothing but what only the responder has");
            prop_assert!(guess <= listed, "{:?} for {:?}", guess, listed);
        }
        total.have.append(&mut found.have);
        total.need.append(&mut found.need);

        match (step, told.next) {
            (Step::Done, None) => break,
            (Step::Continue(ours), Some(theirs)) => {
                prop_assert_eq!(&ours, &theirs);
                assert!(limits.0 == 0 || ours.len() <= limits.0);
                message = ours;
            }
            (ours, theirs) => panic!("we: {ours:?}, the oracle: {theirs:?}"),
        }
        assert!(initiator.rounds() < MOST_ROUNDS, "no end in sight");
    }
    if limits == (0, 0) {
        // The bound `Initiator::rounds` documents.
        assert!(initiator.rounds() <= u64::from(first_items.items().len().max(1).ilog2() / 4 + 2));
    }

    total.sort_dedup();
    let sorted = |mut items: Vec<Item>| {
        items.sort_unstable();
        items
    };
    prop_assert_eq!(total.have, sorted(only_first));
    prop_assert_eq!(ids_of(&total.need), ids_of(&only_second));
    Ok(())
}

fn plain(pair: &Pair, limits: (usize, usize)) -> Result<(), TestCaseError> {
    let (first, second) = pair.sets();
    converse(pair, (&first, &second), limits)
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.next() % end.max(1) as u64).expect("below a usize")
}

/// Base, added, removed that together stand for the set. The seed must not be the one the set was
/// drawn from: what is removed must be none of its items.
fn disguise(set: &VecSet, seed: u64) -> [VecSet; 3] {
    let random = &mut Random(seed);
    let (mut base, mut added, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for item in set.items() {
        if below(random, 4) == 0 {
            &mut added
        } else {
            &mut base
        }
        .push(*item);
        if below(random, 4) == 0 {
            let gone = Item {
                timestamp: item.timestamp,
                id: random.bytes(),
            };
            base.push(gone);
            removed.push(gone);
        }
    }
    [base, added, removed].map(VecSet::from_unsorted)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn small_sets(pair in Pair::up_to(70), first in limits(), second in limits()) {
        plain(&pair, (first, second))?;
    }
}

proptest! {
    #![proptest_config(cases(120))]
    #[test]
    fn middling_sets(pair in Pair::up_to(600), first in limits(), second in limits()) {
        plain(&pair, (first, second))?;
    }

    #[test]
    fn overlaid_sets(pair in Pair::up_to(400), limits in (limits(), limits())) {
        let (first, second) = pair.sets();
        let a = disguise(&first, pair.seed ^ (1 << 62));
        let b = disguise(&second, pair.seed ^ (1 << 63));
        let first = Overlaid::new(&a[0], &a[1], &a[2]);
        let second = Overlaid::new(&b[0], &b[1], &b[2]);
        converse(&pair, (&first, &second), limits)?;
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn large_sets(pair in Pair::up_to(3_000), first in limits(), second in limits()) {
        plain(&pair, (first, second))?;
    }
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let groups = (0..10)
        .rev()
        .skip_while(|group| *group > 0 && value >> (7 * group) == 0);
    for group in groups {
        let [bits, ..] = (value >> (7 * group) & 0x7f).to_le_bytes();
        out.push(bits | if group > 0 { 0x80 } else { 0 });
    }
}

/// A valid message no implementation would send: ranges of any kind in any order, empty ones,
/// bounds with needlessly long prefixes, fingerprints that are right by chance of the draw.
fn odd_message(set: &VecSet, random: &mut Random) -> Vec<u8> {
    let mut ends = Vec::new();
    for _ in 0..below(random, 30) {
        let id = random.bytes();
        let stranger = Item {
            timestamp: random.next() % 5,
            id,
        };
        let near = *set
            .items()
            .get(below(random, set.items().len()))
            .unwrap_or(&stranger);
        let end = if below(random, 4) == 0 {
            stranger
        } else {
            near
        };
        ends.push((end.timestamp, end.id[..below(random, 33)].to_vec()));
    }
    ends.push((u64::MAX, Vec::new()));
    if below(random, 3) == 0 {
        ends.push((u64::MAX, vec![0; below(random, 3)]));
    }
    // Not by length: a prefix and the same prefix with zeros after it are one bound.
    let bound = |end: &(u64, Vec<u8>)| {
        let prefix = constellation_reconcile::IdPrefix::new(&end.1).expect("32 at most");
        Bound::new(end.0, prefix)
    };
    ends.sort_by_key(bound);

    let mut message = vec![0x61];
    let mut last = 0;
    let mut lower = Bound::MIN;
    for end in &ends {
        varint(
            &mut message,
            if end.0 == u64::MAX {
                0
            } else {
                end.0 - last + 1
            },
        );
        last = end.0;
        varint(&mut message, end.1.len() as u64);
        message.extend_from_slice(&end.1);
        let upper = bound(end);
        match below(random, 5) {
            0 => message.push(0),
            1 => message.extend_from_slice(&[&[1][..], &[7; 16]].concat()),
            2 => {
                let Ok(summary) = set.summary(&lower, &upper);
                message.push(1);
                message.extend_from_slice(&summary.fingerprint());
            }
            _ => {
                let range = set.range(&lower, &upper);
                let known = range
                    .iter()
                    .filter(|_| below(random, 3) > 0)
                    .map(|item| item.id);
                let mut ids: Vec<_> = known.collect();
                ids.resize_with(ids.len() + below(random, 3), || random.bytes());
                // Repeated ids are odd too.
                ids.extend(ids.first().copied());
                message.push(2);
                varint(&mut message, ids.len() as u64);
                message.extend_from_slice(ids.as_flattened());
            }
        }
        lower = upper;
    }
    message
}

proptest! {
    #![proptest_config(cases(1_500))]
    #[test]
    fn odd_but_valid_messages(
        pair in Pair::up_to(500), limit in limits(), seed in any::<u64>(),
    ) {
        let (set, _) = pair.sets();
        let message = odd_message(&set, &mut Random(seed));
        let answer = respond(&set, &message, ours_limit(limit)).expect("valid");
        let theirs = oracle(set.items(), limit).reconcile(&message).expect("valid");
        prop_assert_eq!(answer, theirs);

        let mut found = Difference::default();
        let step = Initiator::new(ours_limit(limit)).reconcile(&set, &message, &mut found);
        let mut their_initiator = oracle(set.items(), limit);
        their_initiator.set_initiator();
        let told = oracle_step(&mut their_initiator, &message).expect("valid");
        prop_assert_eq!(step.expect("valid"), told.next.map_or(Step::Done, Step::Continue));
        prop_assert_eq!(
            (ids_of(&found.have), ids_of(&found.need)),
            (told.have, told.need)
        );
    }
}
