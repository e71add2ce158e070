//! Batches against one by one: whatever is sent, by whomever, the results are those of `UnverifiedEvent::verify`.

mod adversary;
mod common;

use std::collections::HashSet;

use adversary::{forged, forms_refused};
use common::events;
use constellation_event::{
    BATCH_SIGNATURES_BEST, BatchVerifier, BreakEven, Portion, PortionOutcome, Rejection,
    UnverifiedEvent, VerifiedEvent,
};
use proptest::prelude::*;

/// Above this many points, the multiplication takes another path.
const ANOTHER_PATH: usize = 8_103;

fn portion(source: u64, events: &[UnverifiedEvent]) -> Portion {
    Portion {
        events: events.to_vec(),
        source,
        suspect: false,
    }
}

fn verify(break_even: BreakEven, portions: Vec<Portion>) -> Vec<PortionOutcome> {
    BatchVerifier::new(break_even).verify(portions, [5; 32])
}

/// What became of an event: its id, and the reason if it was rejected.
type Verdict = ([u8; 32], Option<Rejection>);

fn verdict(result: &Result<VerifiedEvent, (UnverifiedEvent, Rejection)>) -> Verdict {
    match result {
        Ok(event) => (event.id(), None),
        Err((event, reason)) => (event.id(), Some(*reason)),
    }
}

fn verdicts(outcome: &PortionOutcome) -> Vec<Verdict> {
    outcome.results.iter().map(verdict).collect()
}

fn one_by_one(events: &[UnverifiedEvent]) -> Vec<Verdict> {
    let each = events.iter().cloned().map(UnverifiedEvent::verify);
    each.map(|result| verdict(&result)).collect()
}

fn genuine(events: &[UnverifiedEvent]) -> Vec<Verdict> {
    events.iter().map(|event| (event.id(), None)).collect()
}

#[test]
fn genuine_events_are_proven_whatever_the_number_and_the_authors() {
    let few = events(ANOTHER_PATH + 50, 20);
    let counts = [0, 1, 2, 31, 32, 1_000, ANOTHER_PATH - 21, ANOTHER_PATH - 20];
    for count in counts.into_iter().chain([few.len()]) {
        let outcomes = verify(BreakEven::From(1), vec![portion(1, &few[..count])]);
        assert_eq!(outcomes.len(), 1);
        assert_eq!(verdicts(&outcomes[0]), genuine(&few[..count]));
        assert!(!outcomes[0].guilty);
    }
    for authors in [1, 4_100] {
        let events = events(4_100, authors);
        let outcomes = verify(BreakEven::From(1), vec![portion(1, &events)]);
        assert_eq!(verdicts(&outcomes[0]), genuine(&events));
    }
}

#[test]
fn one_false_signature_in_a_large_batch_is_found_and_only_its_source_is_guilty() {
    let good = events(ANOTHER_PATH + 50, 20);
    let mut large = good.clone();
    large[432] = forged(&large[432]);
    let mut expected = genuine(&good);
    expected[432].1 = Some(Rejection::BadSignature);
    let portions = vec![portion(1, &large[..500]), portion(2, &large[500..])];
    let outcomes = verify(BreakEven::From(64), portions);
    assert_eq!(verdicts(&outcomes[0]), expected[..500]);
    assert_eq!(verdicts(&outcomes[1]), expected[500..]);
    assert!(outcomes[0].guilty);
    assert!(!outcomes[1].guilty);
}

#[test]
fn the_same_event_many_thousand_times_is_judged_each_time() {
    let one = events(1, 1).remove(0);
    let copies = vec![one.clone(); ANOTHER_PATH + 100];
    let outcomes = verify(BreakEven::From(1), vec![portion(1, &copies)]);
    assert_eq!(verdicts(&outcomes[0]), genuine(&copies));

    let mut copies = vec![one.clone(); 200];
    copies.extend(vec![forged(&one); 100]);
    let outcomes = verify(BreakEven::From(1), vec![portion(1, &copies)]);
    assert_eq!(verdicts(&outcomes[0]), one_by_one(&copies));
}

#[test]
fn more_than_the_best_size_is_cut_into_several() {
    let few = events(300, 3);
    let many = few.iter().cycle().take(BATCH_SIGNATURES_BEST + 1);
    let mut many: Vec<_> = many.cloned().collect();
    let mut expected = genuine(&many);
    many.push(forged(&few[0]));
    expected.push((few[0].id(), Some(Rejection::BadSignature)));
    let cut = many.len() - 100;
    let portions = vec![portion(1, &many[..cut]), portion(2, &many[cut..])];
    let outcomes = verify(BreakEven::From(1), portions);
    assert_eq!(verdicts(&outcomes[0]), expected[..cut]);
    assert_eq!(verdicts(&outcomes[1]), expected[cut..]);
    assert!(!outcomes[0].guilty);
    assert!(outcomes[1].guilty);
}

#[test]
fn a_form_that_is_refused_costs_no_batch_and_makes_nobody_guilty() {
    let good = events(40, 5);
    for break_even in [BreakEven::From(1), BreakEven::Never] {
        for (what, bad) in forms_refused(&good[0]) {
            let mut events = good.clone();
            events.insert(20, bad);
            let expected = one_by_one(&events);
            assert_eq!(expected[20].1, Some(Rejection::BadSignature), "{what}");
            let outcomes = verify(break_even, vec![portion(1, &events)]);
            assert_eq!(verdicts(&outcomes[0]), expected, "{what}");
            assert!(!outcomes[0].guilty, "{what}");
        }
    }
}

#[test]
fn a_suspect_stays_suspect_and_others_are_not_guilty_of_it() {
    let mut events = events(60, 5);
    events[3] = forged(&events[3]);
    let suspect = Portion {
        suspect: true,
        ..portion(1, &events[..30])
    };
    let outcomes = verify(BreakEven::From(1), vec![portion(2, &events[30..]), suspect]);
    assert!(!outcomes[0].guilty);
    assert!(outcomes[1].guilty);
    assert_eq!(verdicts(&outcomes[0]), genuine(&events[30..]));
    assert_eq!(verdicts(&outcomes[1]), one_by_one(&events[..30]));
}

#[test]
fn all_portions_of_a_source_share_its_guilt() {
    let good = events(60, 5);
    let bad = [forged(&good[0])];
    for break_even in [BreakEven::From(1), BreakEven::From(10), BreakEven::Never] {
        let portions = vec![
            portion(1, &good[..30]),
            portion(2, &good[30..]),
            portion(1, &bad),
        ];
        let outcomes = verify(break_even, portions);
        let guilty: Vec<bool> = outcomes.iter().map(|outcome| outcome.guilty).collect();
        assert_eq!(guilty, [true, false, true]);
    }
}

#[test]
fn threads_share_one_verifier() {
    let events = events(400, 100);
    let verifier = BatchVerifier::new(BreakEven::From(1));
    std::thread::scope(|scope| {
        for quarter in events.chunks(100) {
            scope.spawn(|| {
                let outcomes = verifier.verify(vec![portion(1, quarter)], [5; 32]);
                assert_eq!(verdicts(&outcomes[0]), genuine(quarter));
            });
        }
    });
}

/// What an adversary does to an event.
#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    Forged,
    OtherContent,
    Form(usize),
}

fn damaged(event: &UnverifiedEvent, damage: Damage) -> UnverifiedEvent {
    match damage {
        Damage::None => event.clone(),
        Damage::Forged => forged(event),
        Damage::OtherContent => {
            let mut claimed = event.to_event();
            claimed.content.push('!');
            UnverifiedEvent::from_event(&claimed)
        }
        Damage::Form(which) => {
            let mut forms = forms_refused(event);
            let which = which % forms.len();
            forms.swap_remove(which).1
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        20 => Just(Damage::None),
        1 => Just(Damage::Forged),
        1 => Just(Damage::OtherContent),
        1 => (0usize..10).prop_map(Damage::Form),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn results_are_those_of_one_by_one_and_guilt_is_of_those_who_forged(
        sent in proptest::collection::vec(
            (
                0u64..4,
                proptest::bool::weighted(0.2),
                proptest::collection::vec((0usize..40, damage()), 0..20),
            ),
            0..6,
        ),
        least in 1usize..40,
    ) {
        let good = events(40, 7);
        let mut guilty = HashSet::new();
        let mut portions = Vec::new();
        for (source, suspect, list) in sent {
            if suspect || list.iter().any(|(_, damage)| matches!(damage, Damage::Forged)) {
                guilty.insert(source);
            }
            let events: Vec<_> = list
                .iter()
                .map(|(which, damage)| damaged(&good[*which], *damage))
                .collect();
            portions.push((Portion { suspect, ..portion(source, &[]) }, events));
        }
        let expected: Vec<_> = portions
            .iter()
            .map(|(portion, events)| (one_by_one(events), guilty.contains(&portion.source)))
            .collect();
        for break_even in [BreakEven::From(least), BreakEven::Never] {
            let portions = portions
                .iter()
                .map(|(portion, events)| Portion { events: events.clone(), ..*portion })
                .collect();
            let got: Vec<_> = verify(break_even, portions)
                .iter()
                .map(|outcome| (verdicts(outcome), outcome.guilty))
                .collect();
            prop_assert_eq!(&got, &expected);
        }
    }
}
