//! What the captain blocks, against a plain list: whatever comes before or after, in slices, over restarts.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{NOW, TestStore, event, keys, open, open_with, options};
use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::{
    Admission, BLOCK_REASON_BYTES_MAX, Block, BlockTarget, Blocking, Known, Lapse, NewOverlayEntry,
    OverlayReason, SetScope, StoredSet,
};
use constellation_reconcile::{Bound, SortedSet};
use proptest::prelude::*;

const AUTHORS: u8 = 3;

/// Each author: two versions of a profile, notes, a protected note, an ephemeral event, and a deletion of a note.
fn pool() -> Vec<VerifiedEvent> {
    let mut events = Vec::new();
    for author in 1..=AUTHORS {
        let at = 1_000 * u64::from(author);
        let doomed = event(author, 1, at, &[], "doomed");
        let target = doomed.to_event().id.to_hex();
        events.extend([
            event(author, 0, at, &[], "old"),
            event(author, 0, at + 10, &[], "new"),
            event(author, 1, at + 1, &[], "one"),
            event(author, 1, at + 2, &[&["t", "x"]], "two"),
            event(author, 1, at + 3, &[&["-"]], "protected"),
            event(author, 20_001, at + 4, &[], "ephemeral"),
            doomed,
            event(author, 5, at + 5, &[&["e", &target]], ""),
        ]);
    }
    events
}

#[derive(Debug, Clone)]
enum Op {
    Admit(Vec<usize>),
    BlockAuthor(u8, bool),
    BlockEvent(usize, bool),
    UnblockAuthor(u8),
    UnblockEvent(usize),
    /// A slice of so many events, in a transaction of its own.
    Sweep(usize),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pool = usize::from(AUTHORS) * 8;
    let op = prop_oneof![
        5 => proptest::collection::vec(0..pool, 1..8).prop_map(Op::Admit),
        2 => (1..=AUTHORS, any::<bool>()).prop_map(|(author, purge)| Op::BlockAuthor(author, purge)),
        3 => (0..pool, any::<bool>()).prop_map(|(event, purge)| Op::BlockEvent(event, purge)),
        2 => (1..=AUTHORS).prop_map(Op::UnblockAuthor),
        2 => (0..pool).prop_map(Op::UnblockEvent),
        4 => (1..4usize).prop_map(Op::Sweep),
        1 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..60)
}

fn author_of(event: &VerifiedEvent) -> BlockTarget {
    BlockTarget::Author(*event.author())
}

fn author_target(number: u8) -> BlockTarget {
    BlockTarget::Author(keys(number).public_key().to_bytes())
}

fn block(store: &mut TestStore, target: BlockTarget, purged: bool) -> Blocking {
    let block = Block {
        target,
        purged,
        since: NOW,
        reason: String::new(),
    };
    store
        .writer
        .transact(|transaction| transaction.block(&block))
        .expect("healthy")
        .value
}

fn unblock(store: &mut TestStore, target: BlockTarget) -> bool {
    store
        .writer
        .transact(|transaction| transaction.unblock(target))
        .expect("healthy")
        .value
}

fn sweep(store: &mut TestStore, events_max: usize) -> bool {
    store
        .writer
        .transact(|transaction| transaction.sweep(NOW, events_max))
        .expect("healthy")
        .value
        .unfinished
}

fn settle(store: &mut TestStore, events_max: usize) {
    while sweep(store, events_max) {}
    let snapshot = store.store.snapshot().expect("readable");
    assert!(!snapshot.needs_sweep(NOW).expect("readable"));
}

fn shared_ids(store: &TestStore) -> BTreeSet<[u8; 32]> {
    let snapshot = store.store.snapshot().expect("readable");
    let scope = SetScope::everything();
    let set = StoredSet::new(&snapshot, &scope);
    let mut ids = BTreeSet::new();
    set.scan(&Bound::MIN, &Bound::INFINITY, &mut |item| {
        ids.insert(item.id);
        std::ops::ControlFlow::Continue(())
    })
    .expect("readable");
    let count = set
        .summary(&Bound::MIN, &Bound::INFINITY)
        .expect("readable")
        .count;
    assert_eq!(count, ids.len() as u64, "the sums know what is hidden");
    ids
}

fn refusal(store: &TestStore, id: [u8; 32]) -> Option<Rejection> {
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let snapshot = store.store.snapshot().expect("readable");
    let asked = snapshot.standing_refusal(&id, &lapse).expect("readable");
    let known = snapshot.known(&[id], &lapse).expect("readable");
    let of_many = match known[0] {
        Known::Refused(refusal) => Some(refusal),
        Known::Unknown | Known::Stored => None,
    };
    assert_eq!(of_many, asked, "asked alone and among many");
    asked.map(|refusal| refusal.reason)
}

/// Events kept, deletions heard, and the list: nothing else.
#[derive(Default)]
struct Model {
    kept: Vec<VerifiedEvent>,
    deleted: BTreeSet<String>,
    list: BTreeMap<BlockTarget, bool>,
}

impl Model {
    fn words(&self, event: &VerifiedEvent) -> Vec<bool> {
        [author_of(event), BlockTarget::Event(event.id())]
            .iter()
            .filter_map(|target| self.list.get(target).copied())
            .collect()
    }

    fn is_blocked(&self, event: &VerifiedEvent) -> bool {
        !self.words(event).is_empty()
    }

    fn admit(&mut self, event: &VerifiedEvent) -> Option<Rejection> {
        if self.is_blocked(event) {
            return Some(Rejection::Blocked);
        }
        if event.kind() == 20_001 || self.kept.iter().any(|kept| kept.id() == event.id()) {
            return None;
        }
        if self.deleted.contains(&event.to_event().id.to_hex()) {
            return Some(Rejection::Deleted);
        }
        if event.kind() == 0 {
            let same = |kept: &VerifiedEvent| kept.kind() == 0 && kept.author() == event.author();
            if self
                .kept
                .iter()
                .any(|kept| same(kept) && !event.canonical_key().supersedes(&kept.canonical_key()))
            {
                return Some(Rejection::Superseded);
            }
            self.kept.retain(|kept| !same(kept));
        }
        if event.kind() == 5 {
            let targets = event.to_event();
            let targets = targets.tags.iter().filter_map(|tag| tag.content());
            self.deleted.extend(targets.map(str::to_owned));
            let deleted = &self.deleted;
            self.kept
                .retain(|kept| !deleted.contains(&kept.to_event().id.to_hex()));
        }
        self.kept.push(event.clone());
        None
    }

    /// What a purge deletes is gone for good once it was carried out.
    fn settled(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.kept = kept
            .into_iter()
            .filter(|event| !self.words(event).contains(&true))
            .collect();
    }

    fn list(&mut self, target: BlockTarget, purged: bool) {
        *self.list.entry(target).or_default() |= purged;
    }

    fn visible(&self) -> BTreeSet<[u8; 32]> {
        let visible = self.kept.iter().filter(|event| !self.is_blocked(event));
        visible.map(VerifiedEvent::id).collect()
    }

    fn compare(&self, store: &TestStore, pool: &[VerifiedEvent]) -> Result<(), TestCaseError> {
        let visible = self.visible();
        prop_assert_eq!(
            store.ids().into_iter().collect::<BTreeSet<_>>(),
            visible.clone()
        );
        let protected: BTreeSet<_> = pool
            .iter()
            .filter(|event| event.is_protected())
            .map(VerifiedEvent::id)
            .collect();
        prop_assert_eq!(shared_ids(store), &visible - &protected);
        let snapshot = store.store.snapshot().expect("readable");
        let stored = snapshot.event_count().expect("readable");
        prop_assert_eq!(stored, self.kept.len() as u64, "hidden events are kept");
        let mut scanned = BTreeSet::new();
        snapshot
            .scan_after(constellation_eventstore::Sequence(0), &mut |record| {
                scanned.insert(*record.id());
                std::ops::ControlFlow::Continue(())
            })
            .expect("readable");
        prop_assert_eq!(scanned, visible, "nor are they told to live subscribers");
        for event in &self.kept {
            let expected = self.is_blocked(event).then_some(Rejection::Blocked);
            prop_assert_eq!(refusal(store, event.id()), expected);
        }
        let counts = snapshot.blocked_counts().expect("readable");
        let mut listed = Vec::new();
        loop {
            let after = listed.last().map(|block: &Block| block.target);
            let more = snapshot.blocks_after(after, 2).expect("readable");
            if more.is_empty() {
                break;
            }
            listed.extend(more);
        }
        prop_assert_eq!(counts.authors + counts.events, listed.len() as u64);
        let listed: BTreeMap<_, _> = listed
            .into_iter()
            .map(|block| (block.target, block.purged))
            .collect();
        prop_assert_eq!(listed, self.list.clone());
        store.assert_consistent();
        Ok(())
    }

    /// Gives whether the list changed, so that what is stored has to be settled.
    fn apply(
        &mut self,
        store: &mut TestStore,
        pool: &[VerifiedEvent],
        op: &Op,
    ) -> Result<bool, TestCaseError> {
        match op {
            Op::Admit(events) => {
                for index in events {
                    let event = &pool[*index];
                    // Without the sweep that `TestStore::admit` makes.
                    let admission = store
                        .writer
                        .transact(|transaction| {
                            let admission = transaction.admit(event, NOW)?;
                            if let Admission::Refused(reason) = admission {
                                transaction.refuse(event, reason)?;
                            }
                            Ok(admission)
                        })
                        .expect("healthy")
                        .value;
                    let expected = self.admit(event);
                    let found = match admission {
                        Admission::Refused(reason) => Some(reason),
                        _ => None,
                    };
                    prop_assert_eq!(found, expected);
                }
                return Ok(false);
            }
            Op::BlockAuthor(author, purge) => {
                self.list(author_target(*author), *purge);
                block(store, author_target(*author), *purge);
            }
            Op::BlockEvent(event, purge) => {
                let target = BlockTarget::Event(pool[*event].id());
                self.list(target, *purge);
                block(store, target, *purge);
            }
            Op::UnblockAuthor(author) => {
                let was_listed = self.list.remove(&author_target(*author)).is_some();
                prop_assert_eq!(unblock(store, author_target(*author)), was_listed);
            }
            Op::UnblockEvent(event) => {
                let target = BlockTarget::Event(pool[*event].id());
                let was_listed = self.list.remove(&target).is_some();
                prop_assert_eq!(unblock(store, target), was_listed);
            }
            Op::Sweep(_) | Op::Reopen => return Ok(false),
        }
        Ok(true)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 400 }))]

    #[test]
    fn what_is_blocked_equals_a_plain_list(ops in ops(), slice in 1..5usize) {
        let pool = pool();
        let mut store = open();
        let mut model = Model::default();
        for op in &ops {
            match op {
                Op::Reopen => store = store.reopen(),
                Op::Sweep(events) => {
                    sweep(&mut store, *events);
                }
                other => {
                    if model.apply(&mut store, &pool, other)? {
                        // A purge that is taken back half-way has deleted what it had reached: settled at once, the
                        // model need not know how far. The next test takes words back half-way.
                        settle(&mut store, slice);
                        model.settled();
                    }
                }
            }
            model.compare(&store, &pool)?;
        }
    }

    #[test]
    fn a_word_that_is_taken_back_half_way_leaves_nothing_half_done(
        words in proptest::collection::vec((0..3u8, 0..24usize, 0..9usize), 1..20),
    ) {
        let pool = pool();
        let mut store = open();
        store.admit(&pool);
        let all: BTreeSet<_> = store.ids().into_iter().collect();
        let mut list = BTreeSet::new();
        for (number, (word, event, slice)) in words.iter().enumerate() {
            let by_id = BlockTarget::Event(pool[*event].id());
            let by_author = author_of(&pool[*event]);
            let target = if number % 2 == 0 { by_author } else { by_id };
            if *word == 0 {
                unblock(&mut store, target);
                list.remove(&target);
            } else {
                block(&mut store, target, false);
                list.insert(target);
            }
            sweep(&mut store, *slice);
            if number % 5 == 4 {
                store = store.reopen();
            }
            // What sweeps have not reached yet is told by nobody to be wrong.
            store.assert_consistent();
        }
        settle(&mut store, 3);
        store.assert_consistent();
        let is_blocked = |id: &[u8; 32]| {
            let event = pool.iter().find(|event| event.id() == *id).expect("one of the pool");
            list.contains(&author_of(event)) || list.contains(&BlockTarget::Event(*id))
        };
        let expected: BTreeSet<_> = all.iter().copied().filter(|id| !is_blocked(id)).collect();
        prop_assert_eq!(store.ids().into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn an_overlay_holds_what_is_blocked_and_lets_go_when_it_is_not() {
    let note = event(1, 1, NOW, &[], "note");
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    for purge in [false, true] {
        let mut options = options();
        // Other verdicts came meanwhile: what is hidden needs none.
        options.refused_max = if purge { 10 } else { 0 };
        let mut store = open_with(options);
        store.admit(std::slice::from_ref(&note));
        let target = BlockTarget::Event(note.id());
        block(&mut store, target, purge);
        settle(&mut store, 10);
        let entry = NewOverlayEntry {
            key: note.canonical_key(),
            reason: OverlayReason::Refused(Rejection::Blocked),
            kind: None,
            expires_at: None,
            author: None,
        };
        let enter = |store: &mut TestStore| {
            store
                .writer
                .transact(|transaction| transaction.add_to_overlay("peer", &[entry]))
                .expect("healthy");
        };
        enter(&mut store);
        let look = |store: &TestStore| {
            let snapshot = store.store.snapshot().expect("readable");
            let overlay = snapshot
                .overlay("peer", &SetScope::everything(), &lapse)
                .expect("readable");
            (overlay.refused.items().len(), overlay.lapsed.len())
        };
        assert_eq!(look(&store), (1, 0), "purge: {purge}");
        assert!(unblock(&mut store, target));
        settle(&mut store, 10);
        assert_eq!(look(&store), (0, 1), "purge: {purge}");
        assert_eq!(refusal(&store, note.id()), None, "free to be fetched again");
        assert_eq!(store.ids().is_empty(), purge);
    }
}

#[test]
fn a_verdict_from_before_it_was_stored_does_not_stand_for_the_block() {
    let note = event(1, 1, NOW, &[], "note");
    let mut store = open();
    store
        .writer
        .transact(|transaction| transaction.refuse(&note, Rejection::OutOfScope))
        .expect("healthy");
    store.admit(std::slice::from_ref(&note));
    block(&mut store, author_of(&note), false);
    settle(&mut store, 10);
    let entry = NewOverlayEntry {
        key: note.canonical_key(),
        reason: OverlayReason::Refused(Rejection::Blocked),
        kind: None,
        expires_at: None,
        author: None,
    };
    store
        .writer
        .transact(|transaction| transaction.add_to_overlay("peer", &[entry]))
        .expect("healthy");
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let snapshot = store.store.snapshot().expect("readable");
    let overlay = snapshot
        .overlay("peer", &SetScope::everything(), &lapse)
        .expect("readable");
    assert_eq!(
        overlay.reasons.get(&note.id()),
        Some(&OverlayReason::Refused(Rejection::Blocked))
    );
}

#[test]
fn a_full_list_takes_no_more_and_reasons_are_cut() {
    let mut options = options();
    options.blocked_max = 2;
    let mut store = open_with(options);
    assert_eq!(block(&mut store, author_target(1), false), Blocking::Listed);
    assert_eq!(block(&mut store, author_target(2), false), Blocking::Listed);
    assert_eq!(block(&mut store, author_target(3), false), Blocking::Full);
    let longer = Block {
        target: author_target(2),
        purged: true,
        since: NOW + 1,
        reason: "é".repeat(BLOCK_REASON_BYTES_MAX),
    };
    let listed = store
        .writer
        .transact(|transaction| transaction.block(&longer))
        .expect("healthy");
    assert_eq!(listed.value, Blocking::Listed, "it is there already");
    let snapshot = store.store.snapshot().expect("readable");
    let blocks = snapshot.blocks_after(None, 10).expect("readable");
    let changed = blocks.iter().find(|block| block.target == longer.target);
    let changed = changed.expect("listed");
    assert_eq!((changed.purged, changed.since), (true, NOW));
    assert_eq!(changed.reason.len(), BLOCK_REASON_BYTES_MAX);
}

#[test]
fn a_purge_is_no_deletion_and_undoes_none() {
    let (note, other) = (
        event(1, 1, NOW, &[], "note"),
        event(1, 1, NOW + 1, &[], "x"),
    );
    let target = other.to_event().id.to_hex();
    let deletion = event(1, 5, NOW + 2, &[&["e", &target]], "");
    let mut store = open();
    store.admit(&[note.clone(), deletion.clone()]);
    block(&mut store, author_target(1), true);
    settle(&mut store, 1);
    assert!(store.ids().is_empty());
    unblock(&mut store, author_target(1));
    settle(&mut store, 1);
    assert!(matches!(store.admit(&[note])[0], Admission::Stored(_)));
    assert_eq!(
        store.admit(&[other]),
        [Admission::Refused(Rejection::Deleted)],
        "its author had deleted it"
    );
    assert!(matches!(store.admit(&[deletion])[0], Admission::Stored(_)));
}
