//! Worlds of a few stations for the tests of standing, and the rules written down as naively as they are said.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::card::{Revocation, Vouch};
use super::judgement::{self, Own, Word};
use super::standing::{ROUNDS_MAX, Standing};
use crate::tunnel::{Identity, PeerId};

/// We, and those of whom there is talk.
pub(super) const STATIONS: u8 = 7;

pub(super) fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

pub(super) fn peer(number: u8) -> PeerId {
    identity(number).public_key().peer_id()
}

pub(super) fn peers() -> Vec<PeerId> {
    (0..STATIONS).map(peer).collect()
}

/// Who says what. 0 is ourselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct World {
    pub(super) allowed: BTreeSet<u8>,
    pub(super) vouches: BTreeSet<(u8, u8)>,
    pub(super) revokes: BTreeSet<(u8, u8)>,
}

impl World {
    pub(super) fn judged(&self) -> Standing {
        let peers = peers();
        let of = |pairs: &BTreeSet<(u8, u8)>, by: u8| -> Vec<PeerId> {
            let pairs = pairs.iter().filter(|pair| pair.0 == by);
            pairs.map(|pair| peers[usize::from(pair.1)]).collect()
        };
        let said: Vec<(Vec<Vouch>, Vec<Revocation>)> = (0..STATIONS)
            .map(|by| {
                let vouch = |peer| Vouch {
                    peer,
                    key: None,
                    since: 1,
                };
                let revocation = |peer| Revocation { peer, at: 2 };
                let vouches = of(&self.vouches, by).into_iter().map(vouch).collect();
                let revocations = of(&self.revokes, by).into_iter().map(revocation);
                (vouches, revocations.collect())
            })
            .collect();
        let words: BTreeMap<PeerId, Word<'_>> =
            peers.iter().copied().zip(said.iter().map(word)).collect();
        let own = Own {
            me: peers[0],
            allowed: self
                .allowed
                .iter()
                .map(|of| peers[usize::from(*of)])
                .collect(),
            word: word(&said[0]),
        };
        judgement::judge(&own, &words)
    }

    /// The numbers of those who are admitted.
    pub(super) fn admitted(&self) -> BTreeSet<u8> {
        let standing = self.judged();
        let is_in = |number: &u8| {
            standing
                .admitted
                .contains_key(&peers()[usize::from(*number)])
        };
        (0..STATIONS).filter(is_in).collect()
    }

    pub(super) fn without_revocations(mut self) -> Self {
        self.revokes.clear();
        self
    }
}

fn word(said: &(Vec<Vouch>, Vec<Revocation>)) -> Word<'_> {
    Word {
        vouches: &said.0,
        revocations: &said.1,
        vouched_key: None,
    }
}

pub(super) fn worlds() -> impl Strategy<Value = World> {
    let pair = (0..STATIONS, 1..STATIONS);
    let any_pair = (0..STATIONS, 0..STATIONS);
    (
        prop::collection::btree_set(1..STATIONS, 0..2),
        prop::collection::btree_set(pair, 3..16),
        prop::collection::btree_set(any_pair, 0..9),
    )
        .prop_map(|(allowed, vouches, revokes)| World {
            allowed,
            vouches,
            revokes,
        })
}

/// What is asked, of whom, about whom, at which level.
type Question = (&'static str, u8, u8, u32);

/// The rules, each as a sentence. It asks again and again; answers are remembered only to spare time.
pub(super) struct Naive<'w> {
    world: &'w World,
    /// Whom juniors put out.
    overruled: BTreeSet<u8>,
    known: RefCell<HashMap<Question, bool>>,
}

impl<'w> Naive<'w> {
    /// Rule 5: the most senior juniors who have something to say are heard, and all is asked again.
    pub(super) fn of(world: &'w World) -> Self {
        let mut naive = Self::knowing(world, BTreeSet::new());
        for _ in 1..ROUNDS_MAX {
            let levels = 2..u32::from(STATIONS);
            let said = levels.map(|level| naive.put_out_by_juniors(level));
            let Some(more) = said.into_iter().find(|more| !more.is_empty()) else {
                break;
            };
            let overruled = naive.overruled.union(&more).copied().collect();
            naive = Self::knowing(world, overruled);
        }
        naive
    }

    fn knowing(world: &'w World, overruled: BTreeSet<u8>) -> Self {
        let known = RefCell::default();
        Self {
            world,
            overruled,
            known,
        }
    }

    fn put_out_by_juniors(&self, level: u32) -> BTreeSet<u8> {
        let says = |junior: u8, senior: u8| {
            self.revokes(junior, senior)
                && self.is_admitted(junior, level)
                && (1..level).any(|lower| self.is_admitted(senior, lower))
                && !self.needs(senior, junior, level)
                && !self.is_allowed(senior)
        };
        (1..STATIONS)
            .filter(|senior| (1..STATIONS).any(|junior| says(junior, *senior)))
            .collect()
    }

    fn once(&self, key: Question, answer: impl FnOnce() -> bool) -> bool {
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let answer = answer();
        self.known.borrow_mut().insert(key, answer);
        answer
    }

    fn vouches(&self, by: u8, x: u8) -> bool {
        self.world.vouches.contains(&(by, x))
    }

    fn revokes(&self, by: u8, x: u8) -> bool {
        self.world.revokes.contains(&(by, x))
    }

    fn is_allowed(&self, x: u8) -> bool {
        self.world.allowed.contains(&x)
    }

    fn could_be_at(&self, x: u8, level: u32) -> bool {
        if x == 0 || level == 0 {
            return x == 0 && level == 0;
        }
        self.once(("could be at", x, 0, level), || {
            level == 1 && self.is_allowed(x)
                || (0..STATIONS).any(|y| {
                    self.vouches(y, x)
                        && self.is_at(y, level - 1)
                        && !self.is_silenced(y, level - 1)
                })
        })
    }

    pub(super) fn is_at(&self, x: u8, level: u32) -> bool {
        self.could_be_at(x, level) && !(0..level).any(|lower| self.could_be_at(x, lower))
    }

    pub(super) fn came_in_through(&self, z: u8, x: u8, level: u32) -> bool {
        level > 0
            && self.once(("through", z, x, level), || {
                (0..STATIONS).any(|p| {
                    self.vouches(p, x)
                        && self.is_at(p, level - 1)
                        && !self.is_silenced(p, level - 1)
                        && (p == z || self.came_in_through(z, p, level - 1))
                })
            })
    }

    /// Whether every chain of x at this level leads through z.
    pub(super) fn needs(&self, z: u8, x: u8, level: u32) -> bool {
        let lets_in = |p: u8| {
            self.vouches(p, x) && self.is_at(p, level - 1) && !self.is_silenced(p, level - 1)
        };
        let free = |p: u8| p != z && !self.needs(z, p, level - 1);
        level > 1 && (0..STATIONS).all(|p| !lets_in(p) || !free(p))
    }

    pub(super) fn is_silenced(&self, x: u8, level: u32) -> bool {
        x != 0
            && (self.revokes(0, x)
                || !self.is_allowed(x)
                    && (1..STATIONS).any(|z| {
                        self.revokes(z, x)
                            && (1..level).any(|lower| self.is_admitted(z, lower))
                            && self.came_in_through(z, x, level)
                    }))
    }

    fn is_out_by_a_senior(&self, x: u8, level: u32) -> bool {
        let by_a_senior =
            |z| self.revokes(z, x) && (1..level).any(|lower| self.is_admitted(z, lower));
        self.revokes(0, x)
            || self.overruled.contains(&x)
            || !self.is_allowed(x) && (1..STATIONS).any(by_a_senior)
    }

    pub(super) fn is_admitted(&self, x: u8, level: u32) -> bool {
        self.once(("admitted", x, 0, level), || {
            let by_an_equal = |z| {
                self.revokes(z, x) && self.is_at(z, level) && !self.is_out_by_a_senior(z, level)
            };
            self.is_at(x, level)
                && !self.is_out_by_a_senior(x, level)
                && (self.is_allowed(x) || !(1..STATIONS).any(by_an_equal))
        })
    }
}
