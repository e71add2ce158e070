//! The reading of capped relays, against an oracle that knows what each withheld.

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_assume,
    prop_oneof, proptest,
};

use super::*;

/// A relay that gives at most `cap` events, the newest first, and then disturbs its answers.
#[derive(Debug, Clone)]
struct Capped {
    events: Vec<Listed>,
    cap: usize,
    repeats: bool,
    unwanted: usize,
    /// What happened at `until` itself is left out.
    excludes_until: bool,
}

impl Capped {
    fn answer(&self, question: &Question) -> Answer {
        let mut found: Vec<Listed> = self
            .events
            .iter()
            .filter(|event| match question {
                Question::Anything => true,
                Question::Of(slice) => {
                    covers(slice, event)
                        && !(self.excludes_until && slice.until == Some(event.created_at))
                }
            })
            .copied()
            .collect();
        found.sort_by_key(|event| (std::cmp::Reverse(event.created_at), event.id));
        found.truncate(self.cap);
        let repeated = if self.repeats {
            2 * found.len()
        } else {
            found.len()
        };
        Answer {
            count: repeated + self.unwanted,
            listed: found,
        }
    }
}

fn covers(slice: &Slice, event: &Listed) -> bool {
    slice.kinds.contains(event.kind)
        && slice.set_scope().contains_time(event.created_at)
        && slice
            .authors
            .as_ref()
            .is_none_or(|authors| authors.contains(&event.author))
}

fn gap_covers(gap: &Gap, event: &Listed) -> bool {
    gap.since.is_none_or(|since| event.created_at >= since)
        && gap.until.is_none_or(|until| event.created_at <= until)
        && gap
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&event.kind))
        && gap
            .authors
            .as_ref()
            .is_none_or(|authors| authors.contains(&hex::encode(&event.author)))
}

fn read(relay: &Capped, slice: Slice) -> (Enumeration, Vec<Gap>, usize) {
    let mut enumeration = Enumeration::new(slice);
    let mut questions = 0;
    while let Some(question) = enumeration.question() {
        questions += 1;
        assert!(questions < 100_000, "no end");
        enumeration.take(&relay.answer(&question));
    }
    let gaps = enumeration.take_gaps();
    (enumeration, gaps, questions)
}

fn event(number: u32, created_at: u64, kind: u16, author: u8) -> Listed {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Listed {
        id,
        created_at,
        kind,
        author: [author; 32],
    }
}

fn kinds(kinds: &[u16]) -> Slice {
    Slice::of_kinds(KindSet::Only(kinds.iter().copied().collect()))
}

#[test]
fn a_cap_far_below_what_is_stated_withholds_nothing() {
    let events = (0..10_603u32)
        .zip((0..100u8).cycle())
        .map(|(n, author)| event(n, 1_000_000 + u64::from(n) / 3, 1, author));
    let relay = Capped {
        events: events.collect(),
        cap: 500,
        repeats: false,
        unwanted: 0,
        excludes_until: false,
    };
    let (reading, gaps, questions) = read(&relay, kinds(&[1, 7]));
    assert!(gaps.is_empty(), "{gaps:?}");
    assert!(
        relay
            .events
            .iter()
            .all(|event| reading.seen().contains(&event.id))
    );
    assert!(questions < 30, "{questions} questions");
}

#[test]
fn few_events_of_one_second_are_whole_where_the_relay_gives_more_at_a_time() {
    // All in one second: only what lies outside the question shows that the relay could have given more.
    let mut events: Vec<Listed> = (0..8u8).map(|n| event(n.into(), 5_000, 1, n)).collect();
    events.extend((100..120).map(|n| event(n, 10, 9, 1)));
    let mut relay = Capped {
        events,
        cap: 500,
        repeats: false,
        unwanted: 0,
        excludes_until: false,
    };
    let (_, gaps, _) = read(&relay, kinds(&[1]));
    assert!(gaps.is_empty(), "{gaps:?}");
    relay.cap = 8;
    let (_, gaps, _) = read(&relay, kinds(&[1]));
    assert_eq!(gaps.len(), 1, "it might have withheld something: {gaps:?}");
}

#[test]
fn a_relay_that_does_not_heed_until_is_not_believed() {
    let relay = Capped {
        events: (0..100)
            .map(|n| event(n, 1_000 + u64::from(n), 1, 1))
            .collect(),
        cap: 7,
        repeats: false,
        unwanted: 0,
        excludes_until: false,
    };
    let newest = relay.answer(&Question::Anything);
    let mut enumeration = Enumeration::new(kinds(&[1]));
    while let Some(question) = enumeration.question() {
        let mut answer = newest.clone();
        if let Question::Of(slice) = question {
            answer.listed.retain(|event| covers(&slice, event));
        }
        enumeration.take(&answer);
    }
    let gaps = enumeration.take_gaps();
    let missed = relay
        .events
        .iter()
        .filter(|event| !enumeration.seen().contains(&event.id));
    for event in missed {
        assert!(
            gaps.iter().any(|gap| gap_covers(gap, event)),
            "{event:?} {gaps:?}"
        );
    }
    assert!(!gaps.is_empty());
}

#[test]
fn a_relay_that_leaves_out_the_last_second_is_asked_for_one_more() {
    let relay = Capped {
        // Three in a second, so that answers end in the middle of one.
        events: (0..100)
            .map(|n| event(n, 1_000 + u64::from(n) / 3, 1, 1))
            .collect(),
        cap: 10,
        repeats: false,
        unwanted: 0,
        excludes_until: true,
    };
    let older = Slice {
        until: Some(1_015),
        ..kinds(&[1])
    };
    // Also where the first question names a last second.
    let (reading, gaps, _) = read(&relay, older);
    assert!(gaps.is_empty(), "{gaps:?}");
    let missed = relay
        .events
        .iter()
        .find(|event| event.created_at <= 1_015 && !reading.seen().contains(&event.id));
    assert_eq!(missed, None);
}

fn relays() -> impl Strategy<Value = Capped> {
    let spread = prop_oneof![Just(3u64), Just(30), Just(3_000)];
    let events =
        spread.prop_flat_map(|spread| prop::collection::vec((0..spread, 0..3u16, 0..6u8), 0..120));
    let made = (events, 5..40usize, any::<bool>(), 0..3usize, any::<bool>());
    made.prop_map(|(events, cap, repeats, unwanted, excludes_until)| {
        let events = (0u32..)
            .zip(events)
            .map(|(number, (time, kind, author))| event(number, 1_000 + time, kind, author));
        Capped {
            events: events.collect(),
            cap,
            repeats,
            unwanted,
            excludes_until,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was not listed lies in a gap; and no gap covers a span of which everything was listed with room to spare.
    #[test]
    fn what_is_withheld_is_what_is_reported(
        relay in relays(),
        named in any::<bool>(),
        since in prop_oneof![Just(None), Just(Some(1_010))],
        until in prop_oneof![Just(None), Just(Some(1_015))],
    ) {
        let authors: Vec<Author> = (0..6).map(|author| [author; 32]).collect();
        let slice = Slice {
            authors: named.then(|| Arc::from(authors)),
            since,
            until,
            ..kinds(&[0, 1, 2])
        };
        let asked: Vec<Listed> = relay.events.iter().filter(|event| covers(&slice, event)).copied().collect();
        // A relay that lists nothing at all does not show how it means `until`.
        prop_assume!(!relay.excludes_until || asked.iter().any(|event| Some(event.created_at) != until));
        let (reading, gaps, _) = read(&relay, slice);
        for event in &asked {
            let listed = reading.seen().contains(&event.id);
            prop_assert!(listed || gaps.iter().any(|gap| gap_covers(gap, event)), "{event:?} is lost; {gaps:?}");
        }
        for gap in &gaps {
            prop_assert_eq!(gap.since, gap.until, "a gap is one second");
            let there = asked.iter().filter(|event| gap_covers(gap, event)).count();
            // So many fit into an answer, with what the relay adds.
            prop_assert!(2 * there + relay.unwanted >= relay.cap.min(relay.events.len()).min(CAP_LEAST), "{there} in {gap:?}");
        }
    }
}
