//! A third role: whoever stands between two responders and learns what their sets do not share, holding no set.
//!
//! Takes answers of both sides, gives the next message for each, and the ids that only one of them has. It begins with
//! a fingerprint that is nobody's, so that the first side splits its set; what one side says of a range by
//! fingerprint, the other is asked to compare; what one lists, the other is asked to list, by an empty list of ours
//! (a responder answers a list by its own ids, whatever is in it). Thus cost follows the difference, and equal sets
//! take one message to each side.
//!
//! Invariant: every part of the whole is waiting for one side, being asked of one, or settled; what a side leaves out,
//! because its frame is full, goes back to waiting. So nothing is told twice, and nothing is lost. The sets may change
//! meanwhile: what is settled stays as it was then.
//!
//! Does not bound the rounds, and does not know who is asked how. Worst case: [`MiddlemanBounds`]; 32 bytes an id, and
//! some hundred for each range that waits. A side that lies costs no more than one whose set is that large.

use std::collections::{BTreeMap, HashSet, VecDeque};

use thiserror::Error;

use crate::bound::Bound;
use crate::codec::{PROTOCOL_VERSION, Payload, Range, Reader, Writer};
use crate::error::Malformed;
use crate::frame::FrameLimit;
use crate::item::Id;
use crate::summary::Fingerprint;

/// The hash of no set that anybody could find: whoever is asked to compare it splits or lists what it has.
const NOBODYS: Fingerprint = [0; 16];

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// The one.
    First,
    /// The other.
    Second,
}

impl Party {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// Not this one.
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// 0 and 1.
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// What a [`Middleman`] holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiddlemanBounds {
    /// Ids: of the difference, and those that one side has listed and the other not yet.
    pub ids_max: usize,
    /// Ranges that wait or are being asked for.
    pub ranges_max: usize,
}

/// Why an answer ends the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MiddlemanError {
    /// It speaks another version of the protocol.
    #[error("the peer speaks negentropy version byte {offered:#04x}, not 0x61")]
    UnsupportedVersion {
        /// The version byte it offered.
        offered: u8,
    },
    /// It is no negentropy message.
    #[error("malformed negentropy message")]
    Malformed(#[from] Malformed),
    /// It speaks of something that was not asked.
    #[error("an answer to what was not asked")]
    NotAsked,
    /// It says nothing about what was asked.
    #[error("an answer that leads no further")]
    LeadsNowhere,
    /// The difference, or what is undecided of it, is larger than what may be held. What was found before holds.
    #[error("more than {0} ids or ranges differ")]
    TooMuch(usize),
}

/// What one side is asked about a range.
#[derive(Debug)]
enum Question {
    /// Is this the fingerprint of what you have in it?
    Compare(Fingerprint),
    /// What do you have in it? The other side has these, of which no part was matched yet.
    List(HashSet<Id>),
}

#[derive(Debug)]
struct Part {
    lower: Bound,
    upper: Bound,
    question: Question,
}

/// Compares the sets of two responders through their answers. See the module.
#[derive(Debug)]
pub struct Middleman {
    limits: [FrameLimit; 2],
    bounds: MiddlemanBounds,
    /// By where they begin; no two overlap, those of both sides together.
    waiting: [BTreeMap<Bound, Part>; 2],
    /// Ascending. While there are any an answer is awaited.
    asked: [VecDeque<Part>; 2],
    only: [Vec<Id>; 2],
    /// Ids that one side has listed and the other not yet.
    undecided: usize,
}

impl Middleman {
    /// Between two sides that take messages of these sizes; `first` is asked first.
    pub fn new(first: Party, limits: [FrameLimit; 2], bounds: MiddlemanBounds) -> Self {
        let whole = Part {
            lower: Bound::MIN,
            upper: Bound::INFINITY,
            question: Question::Compare(NOBODYS),
        };
        let mut waiting = [BTreeMap::new(), BTreeMap::new()];
        waiting[first.index()].insert(whole.lower, whole);
        Self {
            limits,
            bounds,
            waiting,
            asked: [VecDeque::new(), VecDeque::new()],
            only: [Vec::new(), Vec::new()],
            undecided: 0,
        }
    }

    /// The next message for one side; `None` if nothing is to be asked of it now, or its answer is awaited.
    pub fn next_message(&mut self, to: Party) -> Option<Vec<u8>> {
        let side = to.index();
        if !self.asked[side].is_empty() {
            return None;
        }
        let mut out = Writer::new();
        let mut written = Bound::MIN;
        while !self.limits[side].is_exceeded_by(out.len())
            && let Some((lower, part)) = self.waiting[side].pop_first()
        {
            if written < lower {
                out.skip(&lower);
            }
            match &part.question {
                Question::Compare(fingerprint) => out.fingerprint(&part.upper, fingerprint),
                Question::List(_) => out.id_list(&part.upper, &[]),
            }
            written = part.upper;
            self.asked[side].push_back(part);
        }
        (!out.has_no_ranges()).then(|| out.into_bytes())
    }

    /// Takes the answer to the last message of one side.
    ///
    /// # Errors
    /// [`MiddlemanError`]. What was found before holds; the comparison cannot go on.
    pub fn take(&mut self, from: Party, answer: &[u8]) -> Result<(), MiddlemanError> {
        let (version, mut ranges) = Reader::open(answer)?;
        if version != PROTOCOL_VERSION {
            return Err(MiddlemanError::UnsupportedVersion { offered: version });
        }
        let mut led_further = false;
        let mut is_whole = true;
        while let Some(range) = ranges.next_range()? {
            match range.payload {
                Payload::Skip => led_further |= self.settle_below(from, &range.upper),
                Payload::IdList(ids) => led_further |= self.take_list(from, &range, ids)?,
                Payload::Fingerprint(fingerprint) => {
                    if !self.pass_on(from, &range, fingerprint) {
                        // Its frame was full: this sums up what is left, also what was not asked.
                        is_whole = false;
                        break;
                    }
                    led_further = true;
                }
            }
            self.mind_bounds()?;
        }
        let side = from.index();
        if is_whole {
            // What is left unsaid at the end agrees.
            self.settle_below(from, &Bound::INFINITY);
        } else if !led_further {
            return Err(MiddlemanError::LeadsNowhere);
        }
        while let Some(part) = self.asked[side].pop_front() {
            self.waiting[side].insert(part.lower, part);
        }
        Ok(())
    }

    /// Whether everything was compared.
    pub fn is_done(&self) -> bool {
        let is_empty = |parts: &VecDeque<Part>| parts.is_empty();
        self.waiting.iter().all(BTreeMap::is_empty) && self.asked.iter().all(is_empty)
    }

    /// Takes the ids found so far that only this side has, in no order.
    pub fn take_only(&mut self, side: Party) -> Vec<Id> {
        std::mem::take(&mut self.only[side.index()])
    }

    fn mind_bounds(&self) -> Result<(), MiddlemanError> {
        let MiddlemanBounds {
            ids_max,
            ranges_max,
        } = self.bounds;
        let ids = self.undecided + self.only.iter().map(Vec::len).sum::<usize>();
        let waiting: usize = self.waiting.iter().map(BTreeMap::len).sum();
        if ids > ids_max {
            return Err(MiddlemanError::TooMuch(ids_max));
        }
        if waiting > ranges_max {
            return Err(MiddlemanError::TooMuch(ranges_max));
        }
        Ok(())
    }

    /// The side agrees with all that it was asked below `upper`. Says whether it was asked anything there.
    fn settle_below(&mut self, from: Party, upper: &Bound) -> bool {
        let mut settled = false;
        while let Some(part) = self.asked[from.index()].pop_front() {
            if part.lower >= *upper {
                self.asked[from.index()].push_front(part);
                break;
            }
            settled = true;
            if part.upper > *upper {
                self.ask_again_above(from, part, upper);
                break;
            }
            if let Question::List(others) = part.question {
                // Nothing of it is here.
                self.undecided -= others.len();
                self.only[from.other().index()].extend(others);
            }
        }
        settled
    }

    /// A side has answered for a part below `upper`: the rest is still asked of it.
    fn ask_again_above(&mut self, from: Party, part: Part, upper: &Bound) {
        if *upper >= part.upper {
            if let Question::List(others) = part.question {
                self.undecided -= others.len();
                self.only[from.other().index()].extend(others);
            }
            return;
        }
        let question = match part.question {
            // Nobody has told the fingerprint of what is left.
            Question::Compare(_) => Question::Compare(NOBODYS),
            // Which of these lie in what is left shows when all is listed.
            listing @ Question::List(_) => listing,
        };
        self.asked[from.index()].push_front(Part {
            lower: *upper,
            upper: part.upper,
            question,
        });
    }

    /// The part that a range of an answer is about, if it is about one alone.
    fn take_part(&mut self, from: Party, range: &Range<'_>) -> Option<Part> {
        let asked = &mut self.asked[from.index()];
        let part = asked.front()?;
        if part.lower == range.lower && range.upper <= part.upper {
            asked.pop_front()
        } else {
            None
        }
    }

    /// A side tells the fingerprint of a range: the other one is to compare it. `false` if it is not about one part.
    fn pass_on(&mut self, from: Party, range: &Range<'_>, fingerprint: Fingerprint) -> bool {
        let is_compared = self.asked[from.index()]
            .front()
            .is_some_and(|part| matches!(part.question, Question::Compare(_)));
        if !is_compared {
            return false;
        }
        let Some(part) = self.take_part(from, range) else {
            return false;
        };
        self.wait(from.other(), range, Question::Compare(fingerprint));
        self.ask_again_above(from, part, &range.upper);
        true
    }

    /// A side lists what it has in a range. Says whether that was more than nothing about nothing.
    fn take_list(
        &mut self,
        from: Party,
        range: &Range<'_>,
        ids: &[Id],
    ) -> Result<bool, MiddlemanError> {
        if range.lower == range.upper && ids.is_empty() {
            return Ok(false);
        }
        let Some(mut part) = self.take_part(from, range) else {
            return Err(MiddlemanError::NotAsked);
        };
        match &mut part.question {
            Question::Compare(_) => {
                let listed: HashSet<Id> = ids.iter().copied().collect();
                self.undecided += listed.len();
                self.wait(from.other(), range, Question::List(listed));
            }
            Question::List(others) => {
                for id in ids {
                    if others.remove(id) {
                        self.undecided -= 1;
                    } else {
                        self.only[from.index()].push(*id);
                    }
                }
            }
        }
        self.ask_again_above(from, part, &range.upper);
        Ok(true)
    }

    fn wait(&mut self, of: Party, range: &Range<'_>, question: Question) {
        if range.lower == range.upper {
            // Nothing lies in it.
            if let Question::List(ids) = question {
                self.undecided -= ids.len();
            }
            return;
        }
        let (lower, upper) = (range.lower, range.upper);
        let part = Part {
            lower,
            upper,
            question,
        };
        self.waiting[of.index()].insert(lower, part);
    }
}
