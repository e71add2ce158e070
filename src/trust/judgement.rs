//! The judging itself, level by level; what the rules are is in `standing.rs`.
//!
//! Takes whom each station lets in and wants out; gives a [`Standing`]. Pure. Invariant: what is decided of a level
//! depends on this and lower levels, and on whom juniors put out in the rounds before. Worst case: [`ROUNDS_MAX`] passes,
//! in each for every vouch a union of two sets of [`STATIONS_MAX`] bits.

use std::collections::{BTreeMap, BTreeSet};

use super::card::{Revocation, Vouch};
use super::signed::{Binding, VerifiedCard};
use super::standing::{
    Ground, LEVELS_MAX, ROUNDS_MAX, RevokedBy, STATIONS_MAX, STRANGERS_MAX, Standing, Why,
};
use crate::tunnel::{PeerId, StationKey};

/// What one station says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'w> {
    pub(super) vouches: &'w [Vouch],
    pub(super) revocations: &'w [Revocation],
    /// What signed it, if only those who let the station in say that it is the station's: it counts while they do.
    pub(super) vouched_key: Option<&'w StationKey>,
}

impl<'w> Word<'w> {
    const SILENCE: Self = Self {
        vouches: &[],
        revocations: &[],
        vouched_key: None,
    };

    pub(super) fn of(card: &'w VerifiedCard) -> Self {
        let statement = card.statement();
        Self {
            vouches: &statement.vouches,
            revocations: &statement.revocations,
            vouched_key: (card.binding() == Binding::VouchedFor).then(|| card.key()),
        }
    }
}

/// What we say.
#[derive(Debug, Clone)]
pub(super) struct Own<'w> {
    pub(super) me: PeerId,
    pub(super) allowed: BTreeSet<PeerId>,
    pub(super) word: Word<'w>,
}

/// Judged stations, by the order in which they were judged. 0 is ourselves.
type Index = usize;

/// A set of judged stations.
#[derive(Debug, Clone, Default)]
struct Stations(Vec<u64>);

impl Stations {
    fn insert(&mut self, index: Index) {
        let word = index / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    fn contains(&self, index: Index) -> bool {
        let word = self.0.get(index / 64).copied().unwrap_or_default();
        word & (1 << (index % 64)) != 0
    }

    fn intersect(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (word, others) in self.0.iter_mut().zip(&other.0) {
            *word &= others;
        }
    }

    fn unite(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, others) in self.0.iter_mut().zip(&other.0) {
            *word |= others;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted,
    /// Not admitted, but its vouches count.
    Out,
    Silenced,
}

#[derive(Debug)]
struct Judged<'w> {
    peer: PeerId,
    word: Word<'w>,
    fate: Fate,
    level: u32,
    /// Through whom it came in, along any chain.
    before: Stations,
    /// Through whom it came in along every chain.
    needs: Stations,
    /// Who put it out, and when.
    revoked: Option<(PeerId, u64)>,
}

/// Whom juniors put out (rule 5): who did, and when.
type Overruled = BTreeMap<PeerId, (PeerId, u64)>;

/// Those who let somebody in, and the key that each names.
type Parents<'w> = Vec<(Index, Option<&'w StationKey>)>;

struct Court<'w> {
    own: &'w Own<'w>,
    words: &'w BTreeMap<PeerId, Word<'w>>,
    ours: BTreeMap<PeerId, u64>,
    overruled: &'w Overruled,
    judged: Vec<Judged<'w>>,
    /// Revocations by admitted stations of the levels that are done.
    against: BTreeMap<PeerId, Vec<(Index, u64)>>,
    standing: Standing,
}

/// Judges everybody.
pub(super) fn judge(own: &Own<'_>, words: &BTreeMap<PeerId, Word<'_>>) -> Standing {
    let mut overruled = Overruled::new();
    for round in 1..ROUNDS_MAX {
        // The last time all are heard: rather out than in for want of rounds.
        let is_last = round + 1 == ROUNDS_MAX;
        let more = pass(own, words, &overruled).put_out_by_juniors(is_last);
        if more.is_empty() {
            break;
        }
        overruled.extend(more);
    }
    pass(own, words, &overruled).close()
}

/// Judges level by level.
fn pass<'w>(
    own: &'w Own<'w>,
    words: &'w BTreeMap<PeerId, Word<'w>>,
    overruled: &'w Overruled,
) -> Court<'w> {
    let mut court = Court {
        own,
        words,
        ours: own
            .word
            .revocations
            .iter()
            .map(|revocation| (revocation.peer, revocation.at))
            .collect(),
        overruled,
        judged: Vec::new(),
        against: BTreeMap::new(),
        standing: Standing {
            me: own.me,
            admitted: BTreeMap::new(),
            revoked: BTreeMap::new(),
            disputed: BTreeMap::new(),
            crowded: false,
            through: BTreeMap::new(),
            keys: BTreeMap::new(),
        },
    };
    court.judged.push(Judged {
        peer: own.me,
        word: own.word,
        fate: Fate::Admitted,
        level: 0,
        before: Stations::default(),
        needs: Stations::default(),
        revoked: None,
    });
    let mut last = vec![0];
    for level in 1..=LEVELS_MAX {
        last = court.judge_level(level, &last);
        if last.is_empty() {
            break;
        }
    }
    court
}

impl<'w> Court<'w> {
    /// Everybody whom those of the last level let in and who is not judged yet.
    fn candidates(&self, level: u32, last: &[Index]) -> BTreeMap<PeerId, Parents<'w>> {
        let mut candidates: BTreeMap<PeerId, Parents<'w>> = BTreeMap::new();
        if level == 1 {
            for peer in &self.own.allowed {
                candidates.insert(*peer, vec![(0, None)]);
            }
        }
        for parent in last {
            for vouch in self.judged[*parent].word.vouches {
                let parents = candidates.entry(vouch.peer).or_default();
                parents.push((*parent, vouch.key.as_ref()));
            }
        }
        candidates.remove(&self.own.me);
        candidates.retain(|peer, _| !self.standing.through.contains_key(peer));
        candidates
    }

    /// Judges one level; gives those of it whose vouches count.
    fn judge_level(&mut self, level: u32, last: &[Index]) -> Vec<Index> {
        let first = self.judged.len();
        for (peer, parents) in self.candidates(level, last) {
            if self.judged.len() > STATIONS_MAX {
                self.standing.crowded = true;
                break;
            }
            self.enter(peer, level, &parents);
        }
        self.put_out_each_other(first);
        let level = first..self.judged.len();
        for index in level.clone() {
            if self.judged[index].fate == Fate::Admitted {
                for revocation in self.judged[index].word.revocations {
                    let against = self.against.entry(revocation.peer).or_default();
                    against.push((index, revocation.at));
                }
            }
        }
        level
            .filter(|index| self.judged[*index].fate != Fate::Silenced)
            .collect()
    }

    /// Rules 1, 2 and 4, and what follows from 5.
    fn enter(&mut self, peer: PeerId, level: u32, parents: &Parents<'w>) {
        let mut before = Stations::default();
        let mut needs: Option<Stations> = None;
        for (parent, key) in parents {
            before.insert(*parent);
            before.unite(&self.judged[*parent].before);
            let mut along_this = self.judged[*parent].needs.clone();
            along_this.insert(*parent);
            match &mut needs {
                None => needs = Some(along_this),
                Some(needs) => needs.intersect(&along_this),
            }
            if let Some(key) = key {
                let keys = self.standing.keys.entry(peer).or_default();
                keys.insert((*key).clone());
            }
        }
        // Whom our captain allowed has none: it is level 1.
        let seniors = self.against.get(&peer).map_or(&[][..], Vec::as_slice);
        let (fate, revoked) = if let Some(at) = self.ours.get(&peer) {
            (Fate::Silenced, Some((self.own.me, *at)))
        } else if let Some((first, at)) = seniors.first() {
            let is_through = |(senior, _): &(Index, u64)| before.contains(*senior);
            let fate = if seniors.iter().any(is_through) {
                Fate::Silenced
            } else {
                Fate::Out
            };
            (fate, Some((self.judged[*first].peer, *at)))
        } else if let Some(by) = self.overruled.get(&peer) {
            (Fate::Out, Some(*by))
        } else {
            (Fate::Admitted, None)
        };
        let word = self.words.get(&peer).filter(|word| {
            let keys = self.standing.keys.get(&peer);
            word.vouched_key
                .is_none_or(|key| keys.is_some_and(|keys| keys.contains(key)))
        });
        // An admitted one, if there is: a chain through somebody who is out is hard to explain.
        let through = parents
            .iter()
            .map(|(parent, _)| &self.judged[*parent])
            .min_by_key(|parent| (parent.fate != Fate::Admitted, parent.peer))
            .map_or(self.own.me, |parent| parent.peer);
        self.standing.through.insert(peer, through);
        self.judged.push(Judged {
            peer,
            word: word.copied().unwrap_or(Word::SILENCE),
            fate,
            level,
            before,
            needs: needs.unwrap_or_default(),
            revoked,
        });
    }

    /// Rule 3, for those from `first` on.
    fn put_out_each_other(&mut self, first: Index) {
        let mut revoked: BTreeMap<PeerId, (PeerId, u64)> = BTreeMap::new();
        for index in first..self.judged.len() {
            if self.judged[index].fate == Fate::Admitted {
                for revocation in self.judged[index].word.revocations {
                    let by = (self.judged[index].peer, revocation.at);
                    revoked.entry(revocation.peer).or_insert(by);
                }
            }
        }
        for judged in &mut self.judged[first..] {
            if judged.fate == Fate::Admitted
                && !self.own.allowed.contains(&judged.peer)
                && let Some(by) = revoked.get(&judged.peer)
            {
                judged.fate = Fate::Out;
                judged.revoked = Some(*by);
            }
        }
    }

    /// Rule 5, for the most senior juniors that have something to say: whom they put out. What follows from that is for the
    /// next round.
    fn put_out_by_juniors(&self, hears_all: bool) -> Overruled {
        let places = self.judged.iter().enumerate().skip(1);
        let places: BTreeMap<PeerId, Index> =
            places.map(|(index, judged)| (judged.peer, index)).collect();
        let mut out = Overruled::new();
        let mut heard = u32::MAX;
        // In the order of levels.
        for junior in &self.judged[1..] {
            if junior.level > heard && !hears_all {
                break;
            }
            if junior.fate != Fate::Admitted {
                continue;
            }
            for revocation in junior.word.revocations {
                let Some(index) = places.get(&revocation.peer) else {
                    continue;
                };
                let senior = &self.judged[*index];
                if senior.fate == Fate::Admitted
                    && senior.level < junior.level
                    && !junior.needs.contains(*index)
                    && !self.own.allowed.contains(&senior.peer)
                {
                    heard = junior.level;
                    out.entry(senior.peer)
                        .or_insert((junior.peer, revocation.at));
                }
            }
        }
        out
    }

    fn close(mut self) -> Standing {
        let mut standing = self.standing;
        for judged in &self.judged[1..] {
            match judged.revoked {
                Some((by, at)) => {
                    let silenced = judged.fate == Fate::Silenced;
                    standing
                        .revoked
                        .insert(judged.peer, RevokedBy { by, at, silenced });
                }
                None => {
                    let ground = if self.own.allowed.contains(&judged.peer) {
                        Ground::Allowed
                    } else {
                        Ground::Vouched
                    };
                    let why = Why {
                        ground,
                        through: standing.through[&judged.peer],
                        level: judged.level,
                    };
                    standing.admitted.insert(judged.peer, why);
                }
            }
        }
        let me = self.own.me;
        for (peer, at) in &self.ours {
            let by_us = RevokedBy {
                by: me,
                at: *at,
                silenced: true,
            };
            standing.revoked.entry(*peer).or_insert(by_us);
        }
        standing.revoked.remove(&me);
        let mut strangers: Vec<(Index, PeerId, u64)> = Vec::new();
        for (peer, against) in std::mem::take(&mut self.against) {
            if peer == me || standing.admitted.contains_key(&peer) {
                let by = against.iter().map(|(index, _)| self.judged[*index].peer);
                standing.disputed.insert(peer, by.collect());
            } else if !standing.revoked.contains_key(&peer)
                && let Some((index, at)) = against.first()
            {
                strangers.push((*index, peer, *at));
            }
        }
        strangers.sort_unstable();
        for (index, peer, at) in strangers.into_iter().take(STRANGERS_MAX) {
            let by = self.judged[index].peer;
            let silenced = true;
            standing
                .revoked
                .insert(peer, RevokedBy { by, at, silenced });
        }
        standing
    }
}
