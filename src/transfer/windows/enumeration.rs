//! Reading all of a slice from a relay that answers with as much as it likes: what to ask next, and what is known to be
//! complete (D6). Pure.
//!
//! Backwards by `until`: a span is complete only when asking below the oldest event seen brings nothing at all, whatever
//! cap the relay states. A single second that may be cut off is asked for by kind, then by author, before it is given
//! up as a [`Gap`].
//!
//! Whether an answer may be cut off follows from what the relay has shown: one that is smaller than another one was, and
//! smaller than every one that was proved to be cut off, is whole. Where only the largest answer so far speaks against
//! it, one question without a filter may bring a larger one. A relay that does not count `until` itself shows that by
//! leaving out, below the oldest event seen, that one: it is asked for a second more, and again for the last second of
//! each span that was begun before (of a relay that lists nothing at all nobody knows). Assumed of the relay: its cap does not grow smaller
//! within one reading, it gives the newest first (NIP-01), and it does not cut answers off below [`CAP_LEAST`] events
//! unless it was seen to. Worst case: one question for each second and kind and known author that is full.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use constellation_eventstore::KindSet;

use crate::protocol::hex;
use crate::transfer::slice::{Author, Slice};
use crate::transfer::tally::Gap;

/// An answer of fewer events is not taken for one that was cut off, unless the relay was seen to cut so small.
const CAP_LEAST: usize = 5;
/// Authors asked for together in a second that is full.
const AUTHORS_TOGETHER: usize = 100;
/// Authors remembered to be asked for one by one.
const AUTHORS_REMEMBERED: usize = 5_000;

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Events of this slice.
    Of(Slice),
    /// Any events: how many does it give at a time?
    Anything,
}

/// An event of an answer that matches the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: [u8; 32],
    pub(crate) created_at: u64,
    pub(crate) kind: u16,
    pub(crate) author: Author,
}

/// A whole answer, up to its EOSE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Events in it, repeated and unwanted ones too.
    pub(crate) count: usize,
    /// Those that match the question.
    pub(crate) listed: Vec<Listed>,
}

/// A slice that is being read.
#[derive(Debug)]
pub(crate) struct Enumeration {
    /// What is still to be asked; the last one is asked next.
    open: Vec<Work>,
    shown: Shown,
    gaps: Vec<Gap>,
    seen: Seen,
    authors: BTreeSet<Author>,
    until: Until,
    /// The last seconds of spans that were begun while nobody knew how the relay means `until`.
    begun: Vec<Slice>,
}

/// How the relay means `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Unknown,
    /// As NIP-01 has it.
    Included,
    /// Less than that.
    Excluded,
}

#[derive(Debug, Clone)]
enum Work {
    /// A span, from its end backwards. With how many events the answer came that led here.
    Back(Slice, Option<usize>),
    /// A second whose answer had so many events, which may be all that fit.
    Doubt(Slice, usize),
    /// One kind of one second.
    Kind(Slice),
    /// Some authors of one kind of one second. Whether other authors are accounted for.
    Authors(Slice, bool),
}

impl Work {
    fn slice(&self) -> &Slice {
        match self {
            Self::Back(slice, _)
            | Self::Doubt(slice, _)
            | Self::Kind(slice)
            | Self::Authors(slice, _) => slice,
        }
    }
}

/// What the relay's answers have shown of its cap.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    /// The most different events in one answer.
    largest: usize,
    /// The fewest events in an answer that was proved to be cut off.
    least_cut: Option<usize>,
    asked_for_anything: bool,
}

impl Shown {
    fn may_be_cut(&self, count: usize) -> bool {
        count >= self.least_cut.unwrap_or(usize::MAX) || count >= self.largest.max(CAP_LEAST)
    }

    /// Whether a larger answer would settle a doubt.
    fn is_undecided(&self) -> bool {
        self.least_cut.is_none() && !self.asked_for_anything
    }
}

/// Ids that were listed, by a keyed hash of 64 bits: a collision hides an event from being offered, of one in 2^25
/// readings of a million.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, id: &[u8; 32]) -> bool {
        self.hashes.insert(self.hasher.hash_one(id))
    }

    pub(crate) fn contains(&self, id: &[u8; 32]) -> bool {
        self.hashes.contains(&self.hasher.hash_one(id))
    }
}

impl Enumeration {
    pub(crate) fn new(slice: Slice) -> Self {
        let mut enumeration = Self {
            open: Vec::new(),
            shown: Shown::default(),
            gaps: Vec::new(),
            seen: Seen::default(),
            authors: BTreeSet::new(),
            until: Until::Unknown,
            begun: Vec::new(),
        };
        enumeration.add(slice);
        enumeration
    }

    /// Goes on with another slice, with all that is known of the relay.
    pub(crate) fn add(&mut self, slice: Slice) {
        if self.until == Until::Unknown && slice.until.is_some() {
            self.begun.push(Slice {
                since: slice.until,
                ..slice.clone()
            });
        }
        self.open.push(Work::Back(slice, None));
    }

    /// What to ask next; the same until its answer was taken. `None`: all is read, or left as a gap.
    pub(crate) fn question(&self) -> Option<Question> {
        Some(match self.open.last()? {
            Work::Doubt(..) if self.shown.is_undecided() => Question::Anything,
            work => Question::Of(self.asked_for(work.slice())),
        })
    }

    /// The slice as it has to be asked for.
    fn asked_for(&self, slice: &Slice) -> Slice {
        let until = match self.until {
            Until::Unknown | Until::Included => slice.until,
            Until::Excluded => slice.until.map(|until| until.saturating_add(1)),
        };
        Slice {
            until,
            ..slice.clone()
        }
    }

    /// Learns from the answer to `work` how the relay means `until`; says whether it has to be asked again.
    fn mistook_until(&mut self, work: &Work, answer: &Answer) -> bool {
        let Some(asked) = self.asked_for(work.slice()).until else {
            return false;
        };
        let was = self.until;
        if answer.listed.iter().any(|event| event.created_at == asked) {
            self.until = Until::Included;
            self.begun.clear();
            return was == Until::Excluded;
        }
        // An event of that second was seen before: it belongs into this answer.
        if was == Until::Unknown && matches!(work, Work::Back(_, Some(_))) {
            self.until = Until::Excluded;
            let last_seconds = std::mem::take(&mut self.begun).into_iter();
            self.open
                .extend(last_seconds.map(|second| Work::Back(second, None)));
            return true;
        }
        false
    }

    /// How far back a span has come, where nothing else is open.
    pub(crate) fn reached(&self) -> Option<u64> {
        match &self.open[..] {
            [Work::Back(slice, Some(_))] => slice.until,
            _ => None,
        }
    }

    /// Asks no more.
    pub(crate) fn leave_rest(&mut self) {
        self.open.clear();
    }

    /// What is still to be asked.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Slice> {
        self.open.iter().map(Work::slice)
    }

    /// Ids that were listed.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What could not be read, since it was last taken.
    pub(crate) fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// The relay refuses the present question.
    pub(crate) fn give_up(&mut self, why: &str) {
        match self.open.pop() {
            Some(Work::Doubt(slice, count)) if self.shown.is_undecided() => {
                self.shown.asked_for_anything = true;
                self.open.push(Work::Doubt(slice, count));
            }
            Some(work) => self.gaps.push(gap(work.slice(), why)),
            None => {}
        }
    }

    /// Takes the whole answer to the present question; gives the events that no answer had before.
    pub(crate) fn take(&mut self, answer: &Answer) -> usize {
        let Some(work) = self.open.pop() else {
            return 0;
        };
        let mut different = HashSet::with_capacity(answer.listed.len());
        let mut new = 0;
        for listed in &answer.listed {
            if different.insert(listed.id) && self.seen.insert(&listed.id) {
                new += 1;
            }
            if self.authors.len() < AUTHORS_REMEMBERED {
                self.authors.insert(listed.author);
            }
        }
        self.shown.largest = self.shown.largest.max(different.len());
        let about_events = !matches!(work, Work::Doubt(..)) || !self.shown.is_undecided();
        if about_events && self.mistook_until(&work, answer) {
            self.open.push(work);
            return new;
        }
        match work {
            Work::Back(slice, before) => self.go_back(slice, before, answer, new),
            Work::Doubt(slice, count) => self.settle_doubt(slice, count, answer),
            Work::Kind(slice) => {
                if self.shown.may_be_cut(answer.count) {
                    self.split_by_author(slice);
                }
            }
            Work::Authors(slice, others_accounted_for) => {
                if self.shown.may_be_cut(answer.count) {
                    self.halve_authors(slice, others_accounted_for);
                }
            }
        }
        new
    }

    fn go_back(&mut self, mut slice: Slice, before: Option<usize>, answer: &Answer, new: usize) {
        if let (Some(before), true) = (before, new > 0) {
            // There was more than the last answer had.
            let least = self.shown.least_cut.unwrap_or(before);
            self.shown.least_cut = Some(least.min(before));
        }
        let Some(oldest) = answer.listed.iter().map(|listed| listed.created_at).min() else {
            // Nothing below; unless what was not asked for filled the answer.
            if answer.count > 0 && self.shown.may_be_cut(answer.count) {
                self.gaps
                    .push(gap(&slice, "the peer answers with what was not asked for"));
            }
            return;
        };
        if new > 0 || slice.until != Some(oldest) {
            slice.until = Some(oldest);
            self.open.push(Work::Back(slice, Some(answer.count)));
            return;
        }
        // The second at which the answer begins is read, as far as an answer can hold it.
        let second = Slice {
            since: Some(oldest),
            until: Some(oldest),
            ..slice.clone()
        };
        if let Some(below) = oldest.checked_sub(1)
            && slice.since.is_none_or(|since| since <= below)
        {
            slice.until = Some(below);
            self.open.push(Work::Back(slice, Some(answer.count)));
        }
        if self.shown.may_be_cut(answer.count) {
            self.open.push(Work::Doubt(second, answer.count));
        }
    }

    fn settle_doubt(&mut self, slice: Slice, count: usize, answer: &Answer) {
        if self.shown.is_undecided() {
            self.shown.asked_for_anything = true;
            self.shown.largest = self.shown.largest.max(answer.listed.len());
            if self.shown.may_be_cut(count) {
                self.open.push(Work::Doubt(slice, count));
            }
            return;
        }
        if !self.shown.may_be_cut(answer.count) {
            return;
        }
        let kinds: BTreeSet<u16> = match &slice.kinds {
            KindSet::Only(kinds) => kinds.clone(),
            KindSet::AllExcept(_) => {
                // Others cannot be asked for without naming them.
                self.gaps.push(gap(&slice, FULL));
                answer.listed.iter().map(|listed| listed.kind).collect()
            }
        };
        if let Some(kind) = kinds.first()
            && kinds.len() == 1
        {
            self.split_by_author(of_kind(&slice, *kind));
            return;
        }
        let by_kind = kinds.iter().rev().map(|kind| of_kind(&slice, *kind));
        self.open.extend(by_kind.map(Work::Kind));
    }

    fn split_by_author(&mut self, slice: Slice) {
        let (authors, others_accounted_for) = match &slice.authors {
            // There are no others.
            Some(authors) => (authors.to_vec(), false),
            None => {
                self.gaps.push(gap(&slice, FULL));
                (self.authors.iter().copied().collect(), true)
            }
        };
        if authors.len() == 1 && !others_accounted_for {
            self.gaps.push(gap(&slice, FULL));
            return;
        }
        for together in authors.chunks(AUTHORS_TOGETHER) {
            let part = of_authors(&slice, together);
            self.open.push(Work::Authors(part, others_accounted_for));
        }
    }

    fn halve_authors(&mut self, slice: Slice, others_accounted_for: bool) {
        let authors = slice.authors.clone().unwrap_or_default();
        if authors.len() <= 1 {
            if !others_accounted_for {
                self.gaps.push(gap(&slice, FULL));
            }
            return;
        }
        let (first, second) = authors.split_at(authors.len() / 2);
        for half in [second, first] {
            let part = of_authors(&slice, half);
            self.open.push(Work::Authors(part, others_accounted_for));
        }
    }
}

const FULL: &str = "more events in one second than the peer gives at a time";

fn of_kind(slice: &Slice, kind: u16) -> Slice {
    Slice {
        kinds: KindSet::Only([kind].into()),
        ..slice.clone()
    }
}

fn of_authors(slice: &Slice, authors: &[Author]) -> Slice {
    Slice {
        authors: Some(Arc::from(authors)),
        ..slice.clone()
    }
}

/// A slice of which nobody knows what the peer has in it.
pub(crate) fn gap(slice: &Slice, why: &str) -> Gap {
    Gap {
        since: slice.since,
        until: slice.until,
        kinds: match &slice.kinds {
            KindSet::Only(kinds) => Some(kinds.iter().copied().collect()),
            KindSet::AllExcept(_) => None,
        },
        authors: slice
            .authors
            .as_ref()
            .map(|authors| authors.iter().map(|author| hex::encode(author)).collect()),
        why: why.to_owned(),
    }
}

#[cfg(test)]
#[path = "enumeration_tests.rs"]
mod tests;
