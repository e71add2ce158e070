//! A middleman between two responders, ours and those of the `negentropy` crate, finds exactly what their sets do not
//! share, whatever the sizes of their frames and its own; what answers it gets, it ends or says why not.

use constellation_reconcile::{
    Id, Middleman, MiddlemanBounds, MiddlemanError, Party, VecSet, respond,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

mod support;
use support::{Pair, Random, ids_of, limits, oracle, ours_limit};

const MOST_MESSAGES: usize = 10_000;

const BOUNDS: MiddlemanBounds = MiddlemanBounds {
    ids_max: 1_000_000,
    ranges_max: 1_000_000,
};

/// A responder over a set, by either implementation, with a frame limit of its own.
struct Responder {
    set: VecSet,
    limit: usize,
    is_oracle: bool,
}

impl Responder {
    fn answer(&self, message: &[u8]) -> Vec<u8> {
        if self.is_oracle {
            let mut oracle = oracle(self.set.items(), self.limit);
            return oracle.reconcile(message).expect("a valid message");
        }
        respond(&self.set, message, ours_limit(self.limit)).expect("a valid message")
    }
}

/// What was found, and how many messages and bytes of ours and theirs it took.
#[derive(Debug, Default)]
struct Found {
    only: [Vec<Id>; 2],
    messages: usize,
    bytes: usize,
}

fn compare(
    sides: &[Responder; 2],
    first: Party,
    own_limits: [usize; 2],
) -> Result<Found, MiddlemanError> {
    let mut middleman = Middleman::new(first, own_limits.map(ours_limit), BOUNDS);
    let mut found = Found::default();
    while !middleman.is_done() {
        for party in Party::BOTH {
            let Some(message) = middleman.next_message(party) else {
                continue;
            };
            let limit = own_limits[party.index()];
            assert!(limit == 0 || message.len() <= limit, "{}", message.len());
            assert_eq!(
                middleman.next_message(party),
                None,
                "one message at a time for each"
            );
            let answer = sides[party.index()].answer(&message);
            found.messages += 1;
            found.bytes += message.len() + answer.len();
            middleman.take(party, &answer)?;
        }
        assert!(found.messages < MOST_MESSAGES, "no end in sight");
    }
    found.only = Party::BOTH.map(|party| {
        let mut only = middleman.take_only(party);
        only.sort_unstable();
        only
    });
    Ok(found)
}

fn check(
    pair: &Pair,
    theirs: [usize; 2],
    ours: [usize; 2],
    [first_is_oracle, second_is_oracle, begins_with_second]: [bool; 3],
) -> Result<(), TestCaseError> {
    let [_, only_first, only_second] = pair.parts();
    let (first, second) = pair.sets();
    let sides = [
        Responder {
            set: first,
            limit: theirs[0],
            is_oracle: first_is_oracle,
        },
        Responder {
            set: second,
            limit: theirs[1],
            is_oracle: second_is_oracle,
        },
    ];
    let begins = if begins_with_second {
        Party::Second
    } else {
        Party::First
    };
    let found = compare(&sides, begins, ours).expect("both are honest");
    // Also that nothing is told twice.
    prop_assert_eq!(&found.only[0], &ids_of(&only_first));
    prop_assert_eq!(&found.only[1], &ids_of(&only_second));
    Ok(())
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
    fn small_sets(
        pair in Pair::up_to(70), theirs in [limits(), limits()], ours in [limits(), limits()],
        who in any::<[bool; 3]>(),
    ) {
        check(&pair, theirs, ours, who)?;
    }
}

proptest! {
    #![proptest_config(cases(120))]
    #[test]
    fn middling_sets(
        pair in Pair::up_to(600), theirs in [limits(), limits()], ours in [limits(), limits()],
        who in any::<[bool; 3]>(),
    ) {
        check(&pair, theirs, ours, who)?;
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn large_sets(
        pair in Pair::up_to(3_000), theirs in [limits(), limits()], ours in [limits(), limits()],
        who in any::<[bool; 3]>(),
    ) {
        check(&pair, theirs, ours, who)?;
    }
}

/// Sets of `shared` items and one more on each side.
fn nearly_equal(shared: u32, differing: bool) -> [Responder; 2] {
    let mut random = Random(7);
    let items: Vec<_> = (0..shared)
        .map(|number| constellation_reconcile::Item {
            timestamp: u64::from(number),
            id: random.bytes(),
        })
        .collect();
    [0, 1].map(|side| {
        let mut items = items.clone();
        if differing {
            items[3_000 + 4_000 * side].id = [0x50 + u8::try_from(side).expect("0 or 1"); 32];
        }
        Responder {
            set: VecSet::from_unsorted(items),
            limit: 60_000,
            is_oracle: false,
        }
    })
}

#[test]
fn equal_sets_take_one_message_to_each_side_and_few_differences_few_bytes() {
    let found = compare(&nearly_equal(10_000, false), Party::First, [60_000; 2]).expect("honest");
    assert_eq!((found.messages, found.only), (2, [Vec::new(), Vec::new()]));
    assert!(found.bytes < 1_000, "{}", found.bytes);

    let found = compare(&nearly_equal(10_000, true), Party::First, [60_000; 2]).expect("honest");
    assert_eq!(found.only.map(|only| only.len()), [2, 2]);
    assert!(
        found.bytes < 20_000 && found.messages <= 12,
        "{} bytes in {} messages for ids of 640,000",
        found.bytes,
        found.messages
    );
}

#[test]
fn what_is_too_much_to_hold_is_said() {
    let [one, _] = nearly_equal(10_000, false);
    let mut middleman = Middleman::new(
        Party::First,
        [ours_limit(0); 2],
        MiddlemanBounds {
            ids_max: 100,
            ..BOUNDS
        },
    );
    let nothing = Responder {
        set: VecSet::default(),
        limit: 60_000,
        is_oracle: true,
    };
    let sides = [nothing, one];
    let mut ended = Ok(());
    while ended.is_ok() {
        assert!(!middleman.is_done(), "10,000 ids were held");
        for party in Party::BOTH {
            if let Some(message) = middleman.next_message(party) {
                let answer = sides[party.index()].answer(&message);
                ended = ended.and_then(|()| middleman.take(party, &answer));
            }
        }
    }
    assert_eq!(ended, Err(MiddlemanError::TooMuch(100)));
    assert!(!middleman.take_only(Party::Second).is_empty());
}

#[test]
fn answers_to_something_else_are_named() {
    let asked = || {
        let mut middleman = Middleman::new(Party::First, [ours_limit(0); 2], BOUNDS);
        middleman.next_message(Party::First).expect("the beginning");
        middleman
    };
    let version = asked().take(Party::First, &[0x62]);
    assert_eq!(
        version,
        Err(MiddlemanError::UnsupportedVersion { offered: 0x62 })
    );
    assert!(matches!(
        asked().take(Party::First, &[0x61, 0]),
        Err(MiddlemanError::Malformed(_))
    ));
    // The second side was asked nothing, and lists one id.
    let unasked = [&[0x61, 0, 0, 2, 1][..], &[9; 32]].concat();
    let mut middleman = asked();
    assert_eq!(
        middleman.take(Party::Second, &unasked),
        Err(MiddlemanError::NotAsked)
    );
    // The first lists one thing, and the second answers a request to list by a fingerprint, again and again.
    assert_eq!(middleman.take(Party::First, &unasked), Ok(()));
    middleman.next_message(Party::Second).expect("a list");
    let fingerprint = [&[0x61, 0, 0, 1][..], &[9; 16]].concat();
    assert_eq!(
        middleman.take(Party::Second, &fingerprint),
        Err(MiddlemanError::LeadsNowhere)
    );
}

proptest! {
    #![proptest_config(cases(2_000))]
    /// Whatever a side answers, the other one's share stays what it can be: nothing that it never listed, no panic.
    #[test]
    fn lies_are_no_harm(pair in Pair::up_to(60), seed in any::<u64>(), garbage in vec(any::<u8>(), 0..80)) {
        let (first, second) = pair.sets();
        let random = &mut Random(seed);
        let mut middleman = Middleman::new(Party::First, [ours_limit(4096); 2], BOUNDS);
        for _ in 0..50 {
            let mut ended = false;
            if let Some(message) = middleman.next_message(Party::First) {
                let honest = respond(&first, &message, ours_limit(4096)).expect("valid");
                let answer = match random.next() % 4 {
                    0 => [&[0x61][..], &garbage].concat(),
                    1 => {
                        let cut = usize::try_from(random.next() % 3).expect("small");
                        honest[..honest.len().saturating_sub(cut)].to_vec()
                    }
                    // What it was asked, said back.
                    2 => message,
                    _ => honest,
                };
                ended = middleman.take(Party::First, &answer).is_err();
            }
            if let Some(message) = middleman.next_message(Party::Second) {
                let answer = respond(&second, &message, ours_limit(4096)).expect("what we ask is valid");
                ended |= middleman.take(Party::Second, &answer).is_err();
            }
            if ended || middleman.is_done() {
                break;
            }
        }
        let real = ids_of(second.items());
        for id in middleman.take_only(Party::Second) {
            prop_assert!(real.contains(&id));
        }
    }
}
