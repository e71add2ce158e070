//! Refusals and per-peer overlays against plain lists: made, replaced, evicted, lapsed, and kept over a restart.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{NOW, TestStore, event, keys, open_with};
use constellation_event::{CanonicalKey, Rejection, VerifiedEvent};
use constellation_eventstore::{
    FUTURE_TOLERANCE_SECONDS, KindSet, Lapse, NewOverlayEntry, Options, OutsiderWalk,
    OverlayReason, Progress, Sequence, SetScope, Snapshot, StoredSet,
};
use constellation_reconcile::{Bound, Overlaid, SortedSet, Summary};
use nostr::key::PublicKey;
use proptest::prelude::*;

const REFUSED_MAX: usize = 7;
const OVERLAY_MAX: usize = 5;
const PEERS: [&str; 2] = ["12D3KooWexample", "wss://relay.example"];
const REASONS: [Rejection; 6] = [
    Rejection::Superseded,
    Rejection::Deleted,
    Rejection::Expired,
    Rejection::Future,
    Rejection::OutOfScope,
    Rejection::BadSignature,
];

fn options() -> Options {
    let mut options = common::options();
    options.refused_max = REFUSED_MAX as u64;
    options.overlay_max = OVERLAY_MAX as u64;
    options
}

/// Three authors, each with two versions of a profile, two notes, and a protected note.
fn pool() -> Vec<VerifiedEvent> {
    let mut events = Vec::new();
    for author in 1..=3 {
        for time in [100, 200] {
            events.push(event(author, 0, NOW + time, &[], ""));
            events.push(event(author, 1, NOW + 2_000 + time, &[], ""));
        }
        events.push(event(author, 1, NOW + 50, &[&["-"]], ""));
    }
    events
}

#[derive(Debug, Clone)]
enum Op {
    Refuse {
        event: usize,
        reason: usize,
    },
    Add {
        peer: usize,
        event: usize,
        reason: Option<usize>,
        kind: bool,
        expires: Option<u64>,
    },
    Remove {
        peer: usize,
        event: usize,
    },
    Admit {
        event: usize,
    },
    Delete {
        event: usize,
    },
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pool = 15usize;
    let op = prop_oneof![
        4 => (0..pool, 0..5usize).prop_map(|(event, reason)| Op::Refuse { event, reason }),
        8 => (
            0..2usize,
            0..pool,
            proptest::option::weighted(0.7, 0..REASONS.len()),
            any::<bool>(),
            proptest::option::weighted(0.3, 0..3_000u64),
        )
            .prop_map(|(peer, event, reason, kind, expires)| Op::Add {
                peer, event, reason, kind, expires,
            }),
        2 => (0..2usize, 0..pool).prop_map(|(peer, event)| Op::Remove { peer, event }),
        4 => (0..pool).prop_map(|event| Op::Admit { event }),
        2 => (0..pool).prop_map(|event| Op::Delete { event }),
        1 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..60)
}

#[derive(Debug, Clone)]
struct ModelEntry {
    event: usize,
    reason: OverlayReason,
    kind_known: bool,
    expires_at: Option<u64>,
}

struct Model<'p> {
    pool: &'p [VerifiedEvent],
    refused: Vec<(usize, Rejection)>,
    overlays: [Vec<ModelEntry>; 2],
    /// Of what a deletion came.
    deleted: BTreeSet<usize>,
}

struct View<'v> {
    now: u64,
    covered: &'v BTreeSet<u8>,
    stored: &'v BTreeSet<[u8; 32]>,
}

impl Model<'_> {
    fn refuse(&mut self, event: usize, reason: Rejection) {
        self.refused.retain(|(known, _)| *known != event);
        self.refused.push((event, reason));
        if self.refused.len() > REFUSED_MAX {
            self.refused.remove(0);
        }
    }

    fn add(&mut self, peer: usize, mut entry: ModelEntry, is_stored: bool) {
        let overlay = &mut self.overlays[peer];
        overlay.retain(|known| known.event != entry.event);
        if entry.reason == OverlayReason::Refused(Rejection::OutOfScope) && is_stored {
            entry.kind_known = true;
        } else if let OverlayReason::Refused(reason) = entry.reason
            && reason.is_global()
        {
            let Some((_, verdict)) = self.refused.iter().find(|(known, _)| *known == entry.event)
            else {
                return;
            };
            entry.reason = OverlayReason::Refused(*verdict);
            entry.kind_known = true;
        }
        overlay.push(entry);
        if overlay.len() > OVERLAY_MAX {
            overlay.remove(0);
        }
    }

    fn stands(&self, event: usize, reason: Rejection, view: &View<'_>) -> bool {
        let number = event;
        let event = &self.pool[number];
        match reason {
            Rejection::Superseded => self.pool.iter().any(|other| {
                event.kind() == 0
                    && other.kind() == 0
                    && other.to_event().pubkey == event.to_event().pubkey
                    && view.stored.contains(&other.id())
                    && other.canonical_key().supersedes(&event.canonical_key())
            }),
            // A deletion of what has an address is looked for again.
            Rejection::Deleted => event.kind() != 0 || self.deleted.contains(&number),
            Rejection::Future => view.now + FUTURE_TOLERANCE_SECONDS < event.created_at(),
            Rejection::OutOfScope => !view
                .covered
                .iter()
                .any(|author| keys(*author).public_key() == event.to_event().pubkey),
            _ => true,
        }
    }

    fn is_shared(&self, entry: &ModelEntry, view: &View<'_>) -> bool {
        let event = &self.pool[entry.event];
        view.stored.contains(&event.id()) && !event.is_protected()
    }

    fn holds(&self, entry: &ModelEntry, view: &View<'_>) -> bool {
        let is_shared = self.is_shared(entry, view);
        entry.expires_at.is_none_or(|at| at > view.now)
            && match entry.reason {
                OverlayReason::Refused(reason) => {
                    (!is_shared || reason == Rejection::OutOfScope)
                        && self.stands(entry.event, reason, view)
                }
                OverlayReason::RefusedBy(_) => is_shared,
                OverlayReason::Undelivered(_) => unreachable!("not of this model"),
            }
    }

    fn compare(
        &self,
        store: &TestStore,
        scope: &SetScope,
        now: u64,
        covered: &BTreeSet<u8>,
    ) -> Result<(), TestCaseError> {
        let stored: BTreeSet<[u8; 32]> = store.ids().into_iter().collect();
        let view = View {
            now,
            covered,
            stored: &stored,
        };
        let covers = |_: u16, author: &[u8; 32]| {
            covered
                .iter()
                .any(|number| keys(*number).public_key().as_bytes() == author)
        };
        let lapse = Lapse {
            now,
            covers: &covers,
        };
        let snapshot = store.store.snapshot().expect("readable");
        for (index, event) in self.pool.iter().enumerate() {
            let expected = self
                .refused
                .iter()
                .find(|(known, reason)| *known == index && self.stands(index, *reason, &view))
                .map(|(_, reason)| (*reason, event.canonical_key()));
            let found = snapshot
                .standing_refusal(&event.id(), &lapse)
                .expect("readable");
            prop_assert_eq!(found.map(|refusal| (refusal.reason, refusal.key)), expected);
        }
        for (peer, entries) in PEERS.iter().zip(&self.overlays) {
            let mut found = snapshot.overlay(peer, scope, &lapse).expect("readable");
            let (mut refused, mut refused_by, mut lapsed) = (Vec::new(), Vec::new(), Vec::new());
            let mut reasons = HashMap::new();
            for entry in entries {
                let event = &self.pool[entry.event];
                let key = event.canonical_key();
                if !self.holds(entry, &view) {
                    lapsed.push(key);
                    continue;
                }
                // Of what is taken out of our set the kind is always known: it is stored.
                let by_peer = matches!(entry.reason, OverlayReason::RefusedBy(_));
                let kind_known = entry.kind_known || by_peer;
                if (kind_known && !scope.kinds.contains(event.kind()))
                    || !scope.contains_time(key.created_at)
                {
                    continue;
                }
                reasons.insert(key.id, entry.reason);
                if by_peer {
                    refused_by.push(key)
                } else if !self.is_shared(entry, &view) {
                    refused.push(key)
                }
            }
            for list in [&mut refused, &mut refused_by, &mut lapsed] {
                list.sort_unstable();
            }
            let keys = |set: &constellation_reconcile::VecSet| -> Vec<CanonicalKey> {
                set.items()
                    .iter()
                    .map(|item| CanonicalKey {
                        created_at: item.timestamp,
                        id: item.id,
                    })
                    .collect()
            };
            prop_assert_eq!(keys(&found.refused), &refused[..]);
            prop_assert_eq!(keys(&found.refused_by), &refused_by[..]);
            prop_assert_eq!(&found.reasons, &reasons);
            prop_assert_eq!(&found.lapsed, &lapsed);
            // What is stored out of scope takes part only as far as the peer lists it.
            let mut walk = OutsiderWalk::default();
            prop_assert_eq!(
                walk.advance(&snapshot, scope, &|author| covers(1, author))
                    .expect("readable"),
                Progress::Done
            );
            found.leave_out(walk.into_items());
            let mut ours: BTreeSet<CanonicalKey> = refused.into_iter().collect();
            for (key, is_covered) in shared_events(&snapshot, scope, &covers) {
                let takes_part = match reasons.get(&key.id) {
                    Some(OverlayReason::RefusedBy(_)) => false,
                    Some(OverlayReason::Refused(_) | OverlayReason::Undelivered(_)) => true,
                    None => is_covered,
                };
                if takes_part {
                    ours.insert(key);
                }
            }
            let base = StoredSet::new(&snapshot, scope);
            let set = Overlaid::new(&base, &found.refused, &found.refused_by);
            let mut scanned = BTreeSet::new();
            let mut summary = Summary::default();
            set.scan(&Bound::MIN, &Bound::INFINITY, &mut |item| {
                summary.add(&item.id);
                scanned.insert(CanonicalKey {
                    created_at: item.timestamp,
                    id: item.id,
                });
                ControlFlow::Continue(())
            })
            .expect("readable");
            prop_assert_eq!(scanned, ours);
            prop_assert_eq!(
                set.summary(&Bound::MIN, &Bound::INFINITY)
                    .expect("readable"),
                summary
            );
        }
        Ok(())
    }

    /// What gave way is remembered like what was refused.
    fn note_gone(&mut self, before: &[[u8; 32]], store: &TestStore, reason: Rejection) {
        let after = store.ids();
        for id in before.iter().filter(|id| !after.contains(id)) {
            let gone = self.pool.iter().position(|event| event.id() == *id);
            self.refuse(gone.expect("one of the pool"), reason);
        }
    }

    fn apply(&mut self, store: &mut TestStore, op: &Op) {
        let pool = self.pool;
        match op {
            Op::Refuse { event, reason } => {
                let reason = REASONS[*reason];
                store
                    .writer
                    .transact(|transaction| transaction.refuse(&pool[*event], reason))
                    .expect("healthy");
                self.refuse(*event, reason);
            }
            Op::Add {
                peer,
                event,
                reason,
                kind,
                expires,
            } => {
                let reason = match reason {
                    Some(reason) => OverlayReason::Refused(REASONS[*reason]),
                    None => OverlayReason::RefusedBy(7),
                };
                let entry = NewOverlayEntry {
                    key: pool[*event].canonical_key(),
                    reason,
                    kind: kind.then(|| pool[*event].kind()),
                    expires_at: expires.map(|after| NOW + after),
                    author: None,
                };
                store
                    .writer
                    .transact(|transaction| transaction.add_to_overlay(PEERS[*peer], &[entry]))
                    .expect("healthy");
                let is_stored = store.ids().contains(&pool[*event].id());
                self.add(
                    *peer,
                    ModelEntry {
                        event: *event,
                        reason,
                        kind_known: *kind,
                        expires_at: entry.expires_at,
                    },
                    is_stored,
                );
            }
            Op::Remove { peer, event } => {
                let key = pool[*event].canonical_key();
                store
                    .writer
                    .transact(|transaction| {
                        transaction.remove_from_overlay(PEERS[*peer], &[key, key])
                    })
                    .expect("healthy");
                self.overlays[*peer].retain(|entry| entry.event != *event);
            }
            Op::Admit { event } => {
                let before = store.ids();
                store.admit(&pool[*event..=*event]);
                self.note_gone(&before, store, Rejection::Superseded);
            }
            Op::Delete { event: target } => {
                self.deleted.insert(*target);
                let target = pool[*target].to_event();
                let author = (1..=3)
                    .find(|author| keys(*author).public_key() == target.pubkey)
                    .expect("one of the pool's authors");
                let before = store.ids();
                store.admit(&[event(author, 5, NOW, &[&["e", &target.id.to_hex()]], "")]);
                self.note_gone(&before, store, Rejection::Deleted);
            }
            Op::Reopen => {}
        }
    }
}

/// The shared events within `scope`, each with whether its author is covered: found by reading every record.
fn shared_events(
    snapshot: &Snapshot<'_>,
    scope: &SetScope,
    covers: &dyn Fn(u16, &[u8; 32]) -> bool,
) -> Vec<(CanonicalKey, bool)> {
    let mut events = Vec::new();
    let visited = snapshot.scan_after(Sequence::default(), &mut |record| {
        if record.is_shared()
            && scope.kinds.contains(record.kind())
            && scope.contains_time(record.created_at())
        {
            let parts = record.parse().expect("an event");
            let author = PublicKey::from_hex(&parts.pubkey).expect("a key");
            let key = CanonicalKey {
                created_at: record.created_at(),
                id: *record.id(),
            };
            events.push((key, covers(record.kind(), author.as_bytes())));
        }
        ControlFlow::Continue(())
    });
    assert!(visited.expect("readable").1, "time stands still");
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 300 }))]

    #[test]
    fn refusals_and_overlays_equal_plain_lists(
        ops in ops(),
        later in proptest::collection::vec(0..3_000u64, 3),
        covered in proptest::collection::vec(proptest::collection::btree_set(1u8..4, 0..3), 3),
        kinds in proptest::collection::btree_set(0u16..2, 0..3),
        since in proptest::option::weighted(0.3, 0..2_500u64),
    ) {
        let pool = pool();
        let mut model = Model { pool: &pool, refused: Vec::new(), overlays: Default::default(), deleted: BTreeSet::new() };
        let mut store = open_with(options());
        let some = SetScope {
            kinds: KindSet::Only(kinds),
            since: since.map(|since| NOW + since),
            until: None,
        };
        for (number, op) in ops.iter().enumerate() {
            if matches!(op, Op::Reopen) {
                store = store.reopen_with(options());
            }
            model.apply(&mut store, op);
            let now = NOW + later[number % later.len()];
            let covered = &covered[number % covered.len()];
            model.compare(&store, &SetScope::everything(), now, covered)?;
            model.compare(&store, &some, now, covered)?;
        }
        store.assert_consistent();
    }
}

#[test]
fn what_is_taken_out_of_our_set_is_in_it_whatever_kind_the_peer_claims() {
    let note = event(1, 1, NOW, &[], "");
    let mut store = open_with(options());
    store.admit(std::slice::from_ref(&note));
    for claimed in [None, Some(1), Some(7)] {
        let entry = NewOverlayEntry {
            key: note.canonical_key(),
            reason: OverlayReason::RefusedBy(1),
            kind: claimed,
            expires_at: None,
            author: None,
        };
        store
            .writer
            .transact(|transaction| transaction.add_to_overlay(PEERS[0], &[entry]))
            .expect("healthy");
        let snapshot = store.store.snapshot().expect("readable");
        for (kind, expected) in [(1, 1), (7, 0)] {
            let scope = SetScope {
                kinds: KindSet::Only([kind].into()),
                since: None,
                until: None,
            };
            let lapse = Lapse {
                now: NOW,
                covers: &|_, _| true,
            };
            let overlay = snapshot
                .overlay(PEERS[0], &scope, &lapse)
                .expect("readable");
            assert_eq!(
                overlay.refused_by.items().len(),
                expected,
                "{claimed:?} {kind}"
            );
        }
    }
}

#[test]
fn an_entry_that_expired_in_1970_does_not_stay_for_ever() {
    let mut store = open_with(options());
    let entry = NewOverlayEntry {
        key: CanonicalKey {
            created_at: 1,
            id: [1; 32],
        },
        reason: OverlayReason::Refused(Rejection::BadSignature),
        kind: None,
        expires_at: Some(0),
        author: None,
    };
    store
        .writer
        .transact(|transaction| transaction.add_to_overlay(PEERS[0], &[entry]))
        .expect("healthy");
    let snapshot = store.store.snapshot().expect("readable");
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let overlay = snapshot
        .overlay(PEERS[0], &SetScope::everything(), &lapse)
        .expect("readable");
    assert_eq!(overlay.lapsed, [entry.key]);
}

#[test]
fn a_walk_over_outsiders_that_is_cut_into_slices_names_each_once() {
    // Each look at the clock is another second: every slice is over as soon as it may be.
    let ticks = AtomicU64::new(0);
    let options = Options::new(Arc::new(move || {
        Duration::from_secs(ticks.fetch_add(1, Ordering::Relaxed))
    }));
    let mut store = open_with(options);
    let events: Vec<VerifiedEvent> = (0..200)
        .map(|number: u16| {
            let author = u8::try_from(number % 3 + 1).expect("small");
            let kind = [1, 6, 7, 9][usize::from(number % 4)];
            event(author, kind, NOW + u64::from(number), &[], "")
        })
        .collect();
    store.admit(&events);
    let inside = keys(2).public_key();
    let covers = |author: &[u8; 32]| author == inside.as_bytes();
    for (since, until) in [(None, None), (Some(NOW + 50), Some(NOW + 149))] {
        let scope = SetScope {
            kinds: KindSet::all().without(&[9]),
            since,
            until,
        };
        let mut walk = OutsiderWalk::default();
        let mut slices = 1;
        while walk
            .advance(&store.store.snapshot().expect("readable"), &scope, &covers)
            .expect("readable")
            == Progress::More
        {
            slices += 1;
        }
        let mut found: Vec<[u8; 32]> = walk.into_items().iter().map(|item| item.id).collect();
        found.sort_unstable();
        let mut expected: Vec<[u8; 32]> = events
            .iter()
            .filter(|event| event.author() != inside.as_bytes() && event.kind() != 9)
            .filter(|event| scope.contains_time(event.created_at()))
            .map(VerifiedEvent::id)
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(slices > 1, "{slices}");
    }
}
