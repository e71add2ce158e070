//! Bytes nobody honest sends: no panic, no answer the oracle would not give, and no more work than
//! the headers of `responder.rs` and `initiator.rs` promise.

use std::cell::Cell;
use std::convert::Infallible;
use std::ops::ControlFlow;

use constellation_reconcile::{
    Bound, Difference, FrameLimit, Initiator, Item, Malformed, ReconcileError, SortedSet, Step,
    Summary, VecSet, respond,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

#[path = "support/initiating.rs"]
mod initiating;
mod support;
use initiating::oracle_step;
use support::{Pair, Random, ids_of, limits, oracle, ours_limit};

/// Feeds both roles. What we accept, the oracle must accept, with the same outcome; we may refuse
/// more than it does, but then leave the difference alone.
fn feed(set: &VecSet, message: &[u8], limit: usize) -> Result<(), TestCaseError> {
    if let Ok(answer) = respond(set, message, ours_limit(limit)) {
        prop_assert_eq!(Ok(answer), oracle(set.items(), limit).reconcile(message));
    }
    let mut found = Difference {
        have: set.items().to_vec(),
        need: vec![Item {
            timestamp: 1,
            id: [5; 32],
        }],
    };
    let before = found.clone();
    match Initiator::new(ours_limit(limit)).reconcile(set, message, &mut found) {
        Ok(step) => {
            let mut their_initiator = oracle(set.items(), limit);
            their_initiator.set_initiator();
            let told = oracle_step(&mut their_initiator, message).expect("we accepted it");
            prop_assert_eq!(step, told.next.map_or(Step::Done, Step::Continue));
            let new_need = ids_of(&found.need[before.need.len()..]);
            prop_assert_eq!(ids_of(&found.have[before.have.len()..]), told.have);
            prop_assert_eq!(new_need, told.need);
        }
        Err(_) => prop_assert_eq!(found, before),
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Delete(Index),
    Insert(Index, u8),
    Truncate(Index),
    Repeat(Index, Index),
}

fn mutation() -> impl proptest::strategy::Strategy<Value = Mutation> {
    use proptest::prelude::{Just, Strategy, prop_oneof};
    // Bytes that mean something to the format, more often than others.
    let byte = || {
        prop_oneof![
            0u8..4,
            Just(32),
            Just(33),
            Just(0x80),
            Just(0xff),
            any::<u8>()
        ]
    };
    prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => any::<Index>().prop_map(Mutation::Delete),
        2 => (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

fn mutate(message: &mut Vec<u8>, mutation: &Mutation) {
    // The version byte stays: without it there is nothing left to test.
    let place = |index: &Index, length: usize| 1 + index.index(length - 1);
    if message.len() < 2 {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => {
            let at = place(at, message.len());
            message[at] = *byte;
        }
        Mutation::Delete(at) => {
            message.remove(place(at, message.len()));
        }
        Mutation::Insert(at, byte) => message.insert(place(at, message.len()), *byte),
        Mutation::Truncate(at) => message.truncate(place(at, message.len())),
        Mutation::Repeat(from, to) => {
            let (from, to) = (place(from, message.len()), place(to, message.len()));
            message.extend_from_within(from.min(to)..from.max(to));
        }
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(3_000))]
    #[test]
    fn arbitrary_bytes(
        pair in Pair::up_to(60), limit in limits(), mut message in vec(any::<u8>(), 0..300),
        versioned: bool, small: bool,
    ) {
        if small {
            for byte in &mut message {
                *byte %= 4;
            }
        }
        if versioned {
            message.insert(0, 0x61);
        }
        feed(&pair.sets().0, &message, limit)?;
    }
}

proptest! {
    #![proptest_config(cases(3_000))]
    #[test]
    fn mutated_messages(
        pair in Pair::up_to(150), limit in limits(), mutations in vec(mutation(), 1..4),
        answer: bool,
    ) {
        let (first, second) = pair.sets();
        let mut message = Initiator::new(FrameLimit::NONE).open(&first).expect("sound");
        if answer {
            message = respond(&second, &message, FrameLimit::NONE).expect("valid");
        }
        for change in &mutations {
            mutate(&mut message, change);
        }
        feed(&first, &message, limit)?;
        feed(&second, &message, limit)?;
    }
}

/// A set that counts what is asked of it.
#[derive(Default)]
struct Metered {
    set: VecSet,
    summaries: Cell<usize>,
    selects: Cell<usize>,
    scans: Cell<usize>,
    visited: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

impl Metered {
    fn of(size: u64) -> Self {
        let mut random = Random(size);
        let items = (0..size)
            .map(|at| Item {
                timestamp: at,
                id: random.bytes(),
            })
            .collect();
        Self {
            set: VecSet::from_unsorted(items),
            ..Self::default()
        }
    }

    fn used(&self) -> (usize, usize, usize, usize) {
        (
            self.summaries.get(),
            self.selects.get(),
            self.scans.get(),
            self.visited.get(),
        )
    }
}

impl SortedSet for Metered {
    type Error = Infallible;

    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, Infallible> {
        count(&self.summaries);
        self.set.summary(lower, upper)
    }

    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        count(&self.scans);
        self.set.scan(lower, upper, &mut |item| {
            count(&self.visited);
            visit(item)
        })
    }

    fn select(
        &self,
        lower: &Bound,
        upper: &Bound,
        offsets: &[u64],
    ) -> Result<Vec<Item>, Infallible> {
        count(&self.selects);
        self.set.select(lower, upper, offsets)
    }
}

const ITEMS: u64 = 100_000;
const FRAME: usize = 60_000;

fn frame() -> FrameLimit {
    FrameLimit::new(FRAME).expect("4096 at least")
}

/// Forty bytes that claim 2^20 and 2^62 ids.
#[test]
fn a_claim_of_a_million_ids_costs_nothing() {
    let set = Metered::of(ITEMS);
    let million = [0x61, 0, 0, 2, 0xc0, 0x80, 0x00];
    let more = [
        0x61, 0, 0, 2, 0xc0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00,
    ];
    for (head, claimed, available) in [(&million[..], 1 << 20, 1), (&more, 1 << 62, 0)] {
        let mut message = head.to_vec();
        message.resize(40, 0xaa);
        let refusal = ReconcileError::Malformed(Malformed::IdListTooLong { claimed, available });
        let mut found = Difference::default();
        assert_eq!(
            respond(&set, &message, FrameLimit::NONE),
            Err(refusal.clone())
        );
        let step = Initiator::new(FrameLimit::NONE).reconcile(&set, &message, &mut found);
        assert_eq!(step, Err(refusal));
    }
    assert_eq!(set.used(), (0, 0, 0, 0), "the set was not even asked");
}

/// As many ranges as fit, each with a wrong fingerprint, every one advancing by `step` items.
fn fingerprints(bytes: usize, step: u8) -> Vec<u8> {
    let mut message = vec![0x61];
    while message.len() + 19 <= bytes {
        message.extend_from_slice(&[step + 1, 0, 1]);
        message.extend_from_slice(&[7; 16]);
    }
    message
}

#[test]
fn many_tiny_fingerprint_ranges_cost_one_summary_each() {
    let bytes = 128 * 1024;
    for step in [0, 1, 15, 40, 100] {
        let set = Metered::of(ITEMS);
        let message = fingerprints(bytes, step);
        let answer = respond(&set, &message, frame()).expect("valid");
        assert!(answer.len() <= FRAME);
        let (summaries, selects, scans, visited) = set.used();
        let splits = FRAME / 300 + 1;
        assert!(selects <= splits, "{selects} splits");
        assert!(
            summaries <= bytes / 19 + 16 * selects + 1,
            "{summaries} summaries"
        );
        assert!(scans <= bytes / 19, "{scans} scans");
        assert!(visited <= FRAME / 32 + 32, "{visited} items");
    }
}

#[test]
fn id_lists_visit_each_item_once_at_most() {
    // Empty lists over ranges of one item, then one over everything that is left.
    let mut message = vec![0x61];
    for _ in 0..20_000 {
        message.extend_from_slice(&[2, 0, 2, 0]);
    }
    message.extend_from_slice(&[0, 0, 2, 0]);

    let set = Metered::of(ITEMS);
    let answer = respond(&set, &message, frame()).expect("valid");
    let (summaries, _, scans, visited) = set.used();
    assert!(answer.len() <= FRAME && summaries == 1);
    assert!(
        scans <= FRAME / 4 && visited <= FRAME / 32 + 32,
        "{scans} scans, {visited} items"
    );

    let set = Metered::of(ITEMS);
    let all = usize::try_from(ITEMS).expect("small");
    let answer = respond(&set, &message, FrameLimit::NONE).expect("valid");
    assert!(set.visited.get() == all && answer.len() <= 32 * all + message.len() * 50);

    let set = Metered::of(ITEMS);
    let mut found = Difference::default();
    let step = Initiator::new(frame())
        .reconcile(&set, &message, &mut found)
        .expect("valid");
    assert_eq!(
        (step, found.have.len(), found.need.len()),
        (Step::Done, all, 0)
    );
    assert_eq!(set.used(), (0, 0, 20_001, all));
}

#[test]
fn ranges_cannot_be_made_to_overlap() {
    // Two lists up to the same timestamp, the second with the smaller prefix.
    let message = [0x61, 9, 1, 5, 2, 0, 1, 1, 4, 2, 0];
    let set = Metered::of(ITEMS);
    let refusal = Err(ReconcileError::Malformed(Malformed::DescendingBounds));
    assert_eq!(respond(&set, &message, FrameLimit::NONE), refusal);
}

#[test]
fn other_versions_are_answered_with_ours() {
    let set = VecSet::default();
    for version in 0..=u8::MAX {
        let message = [version, 0xff, 0xff];
        let answer = respond(&set, &message, FrameLimit::NONE);
        let step =
            Initiator::new(FrameLimit::NONE).reconcile(&set, &message, &mut Difference::default());
        match version {
            0x61 => assert_eq!(answer, Err(ReconcileError::Malformed(Malformed::Truncated))),
            0x60..=0x6f => {
                assert_eq!(answer, Ok(vec![0x61]));
                let refusal = ReconcileError::UnsupportedVersion { offered: version };
                assert_eq!(step, Err(refusal));
            }
            found => {
                let refusal = ReconcileError::Malformed(Malformed::InvalidVersion { found });
                assert_eq!((answer, step), (Err(refusal.clone()), Err(refusal)));
            }
        }
    }
}

/// A set that counts more than it can show.
struct Liar;

impl SortedSet for Liar {
    type Error = Infallible;

    fn summary(&self, _: &Bound, _: &Bound) -> Result<Summary, Infallible> {
        Ok(Summary {
            count: u64::MAX,
            ..Summary::EMPTY
        })
    }

    fn scan(
        &self,
        _: &Bound,
        _: &Bound,
        _: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn a_set_that_contradicts_itself_is_an_error() {
    let opened = Initiator::new(FrameLimit::NONE).open(&Liar);
    assert_eq!(opened, Err(ReconcileError::InconsistentSet));
}
