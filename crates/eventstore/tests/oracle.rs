//! The store against a slow and obvious one, under random events, batches and restarts.

mod common;

use std::collections::BTreeSet;

use common::{NOW, TestStore, event, keys, open, query};
use constellation_event::{KindClass, Rejection, VerifiedEvent};
use constellation_eventstore::{Admission, KindSet, Readership, SetScope, StoredSet};
use constellation_reconcile::{Bound, Item, SortedSet, VecSet};
use nostr::event::Kind;
use nostr::filter::{Filter, SingleLetterTag};
use nostr::types::Timestamp;
use proptest::prelude::*;

const KINDS: [u16; 10] = [0, 1, 1, 1, 3, 5, 62, 1059, 30_023, 20_001];

/// What makes an event; targets are indices into all events made before.
#[derive(Debug, Clone)]
struct Draft {
    author: u8,
    kind: usize,
    time: u64,
    tag: u8,
    target: proptest::sample::Index,
    flavour: u8,
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let draft = (
        1u8..5,
        0..KINDS.len(),
        0u64..30,
        0u8..4,
        any::<proptest::sample::Index>(),
        0u8..12,
    )
        .prop_map(|(author, kind, time, tag, target, flavour)| Draft {
            author,
            kind,
            time,
            tag,
            target,
            flavour,
        });
    proptest::collection::vec(draft, 1..160)
}

/// How a deletion names what has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// By its address.
    Address,
    /// By its id, its address, or both.
    Any,
}

fn make(drafts: &[Draft], naming: Naming) -> Vec<VerifiedEvent> {
    let mut events: Vec<VerifiedEvent> = Vec::new();
    for (number, draft) in drafts.iter().enumerate() {
        let kind = KINDS[draft.kind];
        let mut tags: Vec<Vec<String>> = vec![
            vec!["t".into(), format!("topic{}", draft.tag)],
            vec!["d".into(), format!("d{}", draft.tag % 2)],
            vec!["p".into(), keys(draft.tag + 1).public_key().to_hex()],
        ];
        if draft.flavour == 0 {
            tags.push(vec!["-".into()]);
        }
        if draft.flavour == 1 {
            tags.push(vec![
                "expiration".into(),
                (NOW + draft.time - 15).to_string(),
            ]);
        }
        if kind == 5 && !events.is_empty() {
            let target = &events[draft.target.index(events.len())];
            let has_address = target.class().has_coordinate();
            let by_address_alone = match naming {
                Naming::Address => has_address,
                Naming::Any => has_address && draft.flavour % 3 == 2,
            };
            if !by_address_alone {
                tags.push(vec!["e".into(), target.to_event().id.to_hex()]);
            }
            if by_address_alone || draft.flavour % 3 == 0 {
                tags.push(vec![
                    "a".into(),
                    format!(
                        "{}:{}:{}",
                        target.kind(),
                        target.to_event().pubkey,
                        target.identifier()
                    ),
                ]);
            }
        }
        if kind == 62 {
            let relay = if draft.flavour > 9 {
                "ALL_RELAYS"
            } else {
                "wss://other.example"
            };
            tags.push(vec!["relay".into(), relay.into()]);
        }
        let tags: Vec<Vec<&str>> = tags
            .iter()
            .map(|tag| tag.iter().map(String::as_str).collect())
            .collect();
        let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
        let time = 1_000 + draft.time;
        events.push(event(draft.author, kind, time, &tags, &number.to_string()));
    }
    events
}

/// The obvious store: a list, and every deletion ever accepted.
#[derive(Default)]
struct Model {
    stored: Vec<VerifiedEvent>,
    deletions: Vec<VerifiedEvent>,
    vanished: Vec<VerifiedEvent>,
}

impl Model {
    fn is_deleted(&self, event: &VerifiedEvent) -> bool {
        let names = |deletion: &VerifiedEvent, name: &str, value: &str| {
            deletion
                .to_event()
                .tags
                .iter()
                .any(|tag| tag.kind() == name && tag.content() == Some(value))
        };
        let may_speak = |key: &nostr::key::PublicKey| {
            *key == event.to_event().pubkey
                || (event.kind() == 1059 && event.to_event().tags.public_keys().any(|p| p == *key))
        };
        let vanished = event.kind() != 62
            && self.vanished.iter().any(|request| {
                may_speak(&request.to_event().pubkey) && event.created_at() <= request.created_at()
            });
        if vanished {
            return true;
        }
        if matches!(event.kind(), 5 | 62) {
            return false;
        }
        let address = format!(
            "{}:{}:{}",
            event.kind(),
            event.to_event().pubkey,
            event.identifier()
        );
        self.deletions.iter().any(|deletion| {
            (may_speak(&deletion.to_event().pubkey)
                && names(deletion, "e", &event.to_event().id.to_hex()))
                || (event.class().has_coordinate()
                    && deletion.to_event().pubkey == event.to_event().pubkey
                    && names(deletion, "a", &address)
                    && event.created_at() <= deletion.created_at())
        })
    }

    fn same_address(a: &VerifiedEvent, b: &VerifiedEvent) -> bool {
        a.class().has_coordinate()
            && a.kind() == b.kind()
            && a.to_event().pubkey == b.to_event().pubkey
            && a.identifier() == b.identifier()
    }

    fn admit(&mut self, event: &VerifiedEvent) -> Option<Rejection> {
        if event.expiration().is_some_and(|at| at <= NOW) {
            return Some(Rejection::Expired);
        }
        if event.class() == KindClass::Ephemeral
            || self.stored.iter().any(|stored| stored.id() == event.id())
        {
            return None;
        }
        if self.is_deleted(event) {
            if event.kind() == 5 {
                self.deletions.push(event.clone());
            }
            self.purge();
            return Some(Rejection::Deleted);
        }
        if let Some(current) = self
            .stored
            .iter()
            .position(|stored| Self::same_address(stored, event))
        {
            if !event
                .canonical_key()
                .supersedes(&self.stored[current].canonical_key())
            {
                return Some(Rejection::Superseded);
            }
            self.stored.remove(current);
        }
        self.stored.push(event.clone());
        if event.kind() == 5 {
            self.deletions.push(event.clone());
        }
        let for_all = event
            .to_event()
            .tags
            .iter()
            .any(|tag| tag.content() == Some("ALL_RELAYS"));
        if event.kind() == 62 && for_all {
            self.vanished.push(event.clone());
        }
        self.purge();
        None
    }

    fn purge(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        self.stored = stored
            .into_iter()
            .filter(|event| !self.is_deleted(event))
            .collect();
    }

    fn query(&self, filter: &Filter, readership: &Readership) -> Vec<[u8; 32]> {
        let mut found: Vec<&VerifiedEvent> = self
            .stored
            .iter()
            .filter(|event| event.matches(filter))
            .filter(|event| match readership {
                Readership::Full => true,
                Readership::Keys(keys) => {
                    !matches!(event.kind(), 4 | 1059)
                        || keys.contains(&event.to_event().pubkey)
                        || event
                            .to_event()
                            .tags
                            .public_keys()
                            .any(|key| keys.contains(&key))
                }
            })
            .collect();
        found.sort_by_key(|event| (std::cmp::Reverse(event.created_at()), event.id()));
        found.truncate(filter.limit.unwrap_or(usize::MAX));
        found.into_iter().map(VerifiedEvent::id).collect()
    }

    fn shared(&self, scope: &SetScope) -> VecSet {
        VecSet::from_unsorted(
            self.stored
                .iter()
                .filter(|event| {
                    let for_one_relay = event.kind() == 62
                        && !event
                            .to_event()
                            .tags
                            .iter()
                            .any(|tag| tag.content() == Some("ALL_RELAYS"));
                    !event.is_protected()
                        && !for_one_relay
                        && scope.kinds.contains(event.kind())
                        && scope.contains_time(event.created_at())
                })
                .map(|event| Item {
                    timestamp: event.created_at(),
                    id: event.id(),
                })
                .collect(),
        )
    }
}

fn filters() -> impl Strategy<Value = Filter> {
    let ids = proptest::option::weighted(
        0.15,
        proptest::collection::vec(any::<proptest::sample::Index>(), 0..9),
    );
    (
        ids,
        proptest::option::weighted(0.4, proptest::collection::btree_set(1u8..6, 0..4)),
        proptest::option::weighted(0.4, proptest::collection::btree_set(0..KINDS.len(), 0..4)),
        proptest::option::weighted(0.3, proptest::collection::btree_set(0u8..5, 1..3)),
        proptest::option::weighted(0.2, proptest::collection::btree_set(0u8..5, 1..3)),
        proptest::option::weighted(0.3, 990u64..1_040),
        proptest::option::weighted(0.3, 990u64..1_040),
        proptest::option::weighted(0.3, 0usize..30),
    )
        .prop_map(
            |(ids, authors, kinds, topics, people, since, until, limit)| {
                let mut filter = Filter::new();
                if let Some(ids) = ids {
                    // Replaced by real ids once these are known; the index is kept in the id.
                    filter = filter.ids(ids.into_iter().map(|index| {
                        let mut id = [0xee; 32];
                        id[..8].copy_from_slice(&(index.index(1 << 20) as u64).to_be_bytes());
                        nostr::event::EventId::from_byte_array(id)
                    }));
                }
                if let Some(authors) = authors {
                    filter =
                        filter.authors(authors.into_iter().map(|author| keys(author).public_key()));
                }
                if let Some(kinds) = kinds {
                    filter =
                        filter.kinds(kinds.into_iter().map(|kind| Kind::from_u16(KINDS[kind])));
                }
                if let Some(topics) = topics {
                    filter = filter.custom_tags(
                        SingleLetterTag::LOWERCASE_T,
                        topics.into_iter().map(|topic| format!("topic{topic}")),
                    );
                }
                if let Some(people) = people {
                    filter =
                        filter.pubkeys(people.into_iter().map(|key| keys(key + 1).public_key()));
                }
                filter.since = since.map(Timestamp::from_secs);
                filter.until = until.map(Timestamp::from_secs);
                filter.limit = limit;
                filter
            },
        )
}

fn with_real_ids(mut filter: Filter, events: &[VerifiedEvent]) -> Filter {
    if let Some(ids) = filter.ids.take() {
        filter.ids = Some(
            ids.into_iter()
                .map(|id| {
                    let mut number = [0; 8];
                    number.copy_from_slice(&id.as_bytes()[..8]);
                    let number = usize::try_from(u64::from_be_bytes(number)).expect("an index");
                    // One in four stays an id that nobody has.
                    if number.is_multiple_of(4) {
                        id
                    } else {
                        events[number % events.len()].to_event().id
                    }
                })
                .collect(),
        );
    }
    filter
}

fn shuffled(mut events: Vec<VerifiedEvent>, seed: u64) -> Vec<VerifiedEvent> {
    let mut state = seed | 1;
    for index in (1..events.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        events.swap(
            index,
            usize::try_from(state >> 33).expect("31 bits") % (index + 1),
        );
    }
    events
}

fn compare_admissions(
    store: &mut TestStore,
    model: &mut Model,
    batch: &[VerifiedEvent],
) -> Result<(), TestCaseError> {
    let admissions = store.admit(batch);
    for (event, admission) in batch.iter().zip(admissions) {
        let before = model.stored.iter().any(|stored| stored.id() == event.id());
        let expected = model.admit(event);
        let found = match admission {
            Admission::Refused(reason) => Some(reason),
            Admission::Duplicate => {
                prop_assert!(before);
                None
            }
            Admission::Ephemeral | Admission::Stored(_) => None,
        };
        prop_assert_eq!(
            found,
            expected,
            "kind {} at {}",
            event.kind(),
            event.created_at()
        );
    }
    Ok(())
}

fn compare_sets(store: &TestStore, model: &Model, scope: &SetScope) -> Result<(), TestCaseError> {
    let snapshot = store.store.snapshot().expect("readable");
    let set = StoredSet::new(&snapshot, scope);
    let expected = model.shared(scope);
    let mut all = Vec::new();
    set.scan(&Bound::MIN, &Bound::INFINITY, &mut |item| {
        all.push(item);
        std::ops::ControlFlow::Continue(())
    })
    .expect("readable");
    prop_assert_eq!(&all, expected.items());
    for (index, from) in all.iter().enumerate().step_by(7) {
        for to in all[index..].iter().step_by(5) {
            let (lower, upper) = (Bound::at(from), Bound::at(to));
            prop_assert_eq!(
                set.summary(&lower, &upper).expect("readable"),
                expected.summary(&lower, &upper).expect("in memory")
            );
            let offsets: Vec<u64> = (0..40).step_by(3).collect();
            prop_assert_eq!(
                set.select(&lower, &upper, &offsets).expect("readable"),
                expected
                    .select(&lower, &upper, &offsets)
                    .expect("in memory")
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 400 }))]

    #[test]
    fn the_store_equals_a_slow_and_obvious_one(
        drafts in drafts(),
        order in any::<u64>(),
        batch_size in 1usize..50,
        reopen_at in 0usize..6,
        filters in proptest::collection::vec(filters(), 12),
        per_slice in 1usize..9,
        reader in 1u8..5,
        kinds in proptest::collection::btree_set(0..KINDS.len(), 0..5),
        window in (990u64..1_040, 990u64..1_040),
    ) {
        // A deletion may come before its target, and some events come twice.
        let events = shuffled(make(&drafts, Naming::Any), order);
        let repeated = events[..events.len() / 4].to_vec();
        let mut store = open();
        let mut model = Model::default();
        for (number, batch) in events.chunks(batch_size).chain([&repeated[..]]).enumerate() {
            compare_admissions(&mut store, &mut model, batch)?;
            if number == reopen_at {
                store = store.reopen();
            }
        }
        store.assert_consistent();
        let readers = [
            Readership::Full,
            Readership::public(),
            Readership::Keys(BTreeSet::from([keys(reader).public_key()])),
        ];
        for (filter, readership) in filters.into_iter().zip(readers.iter().cycle()) {
            let filter = with_real_ids(filter, &events);
            let found = query(&store.store, filter.clone(), readership.clone(), per_slice);
            prop_assert_eq!(found, model.query(&filter, readership), "{:?}", filter);
        }
        compare_sets(&store, &model, &SetScope::everything())?;
        let only = KindSet::Only(kinds.into_iter().map(|kind| KINDS[kind]).collect());
        compare_sets(&store, &model, &SetScope {
            kinds: only,
            since: Some(window.0),
            until: Some(window.1),
        })?;
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        drafts in drafts(),
        orders in (any::<u64>(), any::<u64>()),
        batch_sizes in (1usize..50, 1usize..50),
    ) {
        let events = lasting(drafts, Naming::Address);
        prop_assert_eq!(
            arrive(&events, orders.0, batch_sizes.0).ids(),
            arrive(&events, orders.1, batch_sizes.1).ids()
        );
    }

    /// Where a version is deleted by its id, an older one is left in one store and gone from another, by what came first.
    /// Requests to vanish are left out: they take deletions with them, so who comes later does not hear of those.
    #[test]
    fn once_all_that_is_stored_has_travelled_all_stores_are_equal_whatever_came_where(
        drafts in drafts(),
        orders in proptest::collection::vec((any::<u64>(), 1usize..50), 3),
    ) {
        let drafts = drafts.into_iter().filter(|draft| KINDS[draft.kind] != 62);
        let events = lasting(drafts.collect(), Naming::Any);
        let mut stores: Vec<TestStore> = Vec::new();
        for (place, (order, batch_size)) in orders.iter().enumerate() {
            // Each event comes to one store or more.
            let comes = |number: usize| number % 3 == place || order >> (number % 64) & 1 == 1;
            let some: Vec<VerifiedEvent> = events
                .iter()
                .enumerate()
                .filter(|(number, _)| comes(*number))
                .map(|(_, event)| event.clone())
                .collect();
            stores.push(arrive(&some, *order, *batch_size));
        }
        for _round in 0..2 {
            for from in 0..stores.len() {
                let ids = stores[from].ids();
                let stored: Vec<VerifiedEvent> = events
                    .iter()
                    .filter(|event| ids.contains(&event.id()))
                    .cloned()
                    .collect();
                for store in &mut stores {
                    store.admit(&stored);
                }
            }
        }
        let mut model = Model::default();
        for event in &events {
            model.admit(event);
        }
        for store in &stores {
            store.assert_consistent();
            prop_assert_eq!(store.ids(), stores[0].ids());
        }
        // What has no address depends on nothing; of what has one, nothing that is deleted is there.
        let ids = stores[0].ids();
        for event in &events {
            let is_stored = ids.contains(&event.id());
            if event.class() == KindClass::Regular {
                let expected = model.stored.iter().any(|stored| stored.id() == event.id());
                prop_assert_eq!(is_stored, expected, "kind {}", event.kind());
            }
            prop_assert!(!is_stored || !model.is_deleted(event), "kind {}", event.kind());
        }
    }
}

/// Events without expirations: whether a superseder expired before or after matters, by design.
fn lasting(drafts: Vec<Draft>, naming: Naming) -> Vec<VerifiedEvent> {
    let drafts = drafts.into_iter().filter(|draft| draft.flavour != 1);
    make(&drafts.collect::<Vec<_>>(), naming)
}

fn arrive(events: &[VerifiedEvent], order: u64, batch_size: usize) -> TestStore {
    let mut store = open();
    for batch in shuffled(events.to_vec(), order).chunks(batch_size) {
        store.admit(batch);
    }
    store.assert_consistent();
    store
}
