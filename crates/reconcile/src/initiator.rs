//! The initiator's role: opens the exchange and learns the difference.
//!
//! Takes a responder's messages, gives the next ones, the items the responder lacks and the ids we
//! lack. Invariant: nothing but the limit and a round counter is kept between messages, so the set
//! may change from one to the next.
//!
//! Does not bound the exchange: a hostile responder can keep it going for ever. The caller bounds
//! [`Initiator::rounds`] and what it collects. Worst case for a message of B bytes and a set of N
//! items: fingerprints cost what they cost the responder; all id lists together cost one pass over
//! the set, B/4 scans begun, and a sort of B/32 ids, and may report all N items (a responder that
//! claims to have nothing is told everything).

use std::cmp::Reverse;
use std::ops::ControlFlow;

use crate::bound::Bound;
use crate::codec::{PROTOCOL_VERSION, Payload, Reader, Writer};
use crate::engine::{Reply, split};
use crate::error::ReconcileError;
use crate::frame::FrameLimit;
use crate::item::{Id, Item};
use crate::set::SortedSet;

/// What the exchange has brought to light.
///
/// The same item can be reported more than once: when a frame is full, ranges settled just before
/// are told again. [`Difference::sort_dedup`] takes care of that; the caller decides when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Items we have and the responder lacks.
    pub have: Vec<Item>,
    /// Items the responder claims and we lack in the range claimed; nothing proves the claim.
    /// Negentropy lists carry no timestamps: each has the earliest that its place in the list
    /// allows, so that with it the item is in the range claimed.
    pub need: Vec<Item>,
}

impl Difference {
    /// Sorts both lists, ids to fetch by id, and drops what was reported more than once.
    pub fn sort_dedup(&mut self) {
        self.have.sort_unstable();
        self.have.dedup();
        // Of one that was told again with less or more around it, the closest guess.
        self.need
            .sort_unstable_by_key(|item| (item.id, Reverse(item.timestamp)));
        self.need.dedup_by_key(|item| item.id);
    }
}

/// What the initiator does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this message and await the answer.
    Continue(Vec<u8>),
    /// The sets are reconciled; the difference is complete.
    Done,
}

/// The side that starts an exchange and learns what differs (in NIP-77: the client).
#[derive(Debug, Clone)]
pub struct Initiator {
    limit: FrameLimit,
    rounds: u64,
}

impl Initiator {
    /// An initiator whose messages keep to this limit. It does not bind the responder's.
    pub const fn new(limit: FrameLimit) -> Self {
        Self { limit, rounds: 0 }
    }

    /// The first message: the whole set in at most 16 fingerprints, or its ids if fewer than 32.
    ///
    /// # Errors
    ///
    /// The set fails or contradicts itself.
    pub fn open<S: SortedSet + ?Sized>(
        &self,
        set: &S,
    ) -> Result<Vec<u8>, ReconcileError<S::Error>> {
        let (lower, upper) = (Bound::MIN, Bound::INFINITY);
        let mut out = Writer::new();
        let whole = set.summary(&lower, &upper).map_err(ReconcileError::Set)?;
        split(set, &mut out, &lower, &upper, whole.count)?;
        Ok(out.into_bytes())
    }

    /// How many answers were taken. An honest exchange without frame limits takes at most
    /// `log16(own items) + 2`; every frame that is cut short can add one. The caller bounds it.
    pub const fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Takes an answer, adds what it tells to the difference, and gives the next message.
    ///
    /// # Errors
    ///
    /// The responder does not speak v1, its message is malformed, or the set fails or contradicts
    /// itself. The difference is then as it was before.
    pub fn reconcile<S: SortedSet + ?Sized>(
        &mut self,
        set: &S,
        message: &[u8],
        difference: &mut Difference,
    ) -> Result<Step, ReconcileError<S::Error>> {
        self.rounds = self.rounds.saturating_add(1);
        let known = (difference.have.len(), difference.need.len());
        let step = self.process(set, message, difference);
        if step.is_err() {
            difference.have.truncate(known.0);
            difference.need.truncate(known.1);
        }
        step
    }

    fn process<S: SortedSet + ?Sized>(
        &self,
        set: &S,
        message: &[u8],
        difference: &mut Difference,
    ) -> Result<Step, ReconcileError<S::Error>> {
        let (version, mut ranges) = Reader::open(message)?;
        if version != PROTOCOL_VERSION {
            return Err(ReconcileError::UnsupportedVersion { offered: version });
        }
        let mut reply = Reply::new(set, self.limit);
        while let Some(range) = ranges.next_range()? {
            let (lower, upper) = (&range.lower, &range.upper);
            let flow = match range.payload {
                Payload::Skip => {
                    reply.settle();
                    ControlFlow::Continue(())
                }
                Payload::Fingerprint(theirs) => reply.compare(lower, upper, &theirs)?,
                Payload::IdList(theirs) => {
                    let told = tell_apart(set, lower, upper, theirs, difference);
                    told.map_err(ReconcileError::Set)?;
                    reply.settle();
                    ControlFlow::Continue(())
                }
            };
            if flow.is_break() {
                break;
            }
        }
        let out = reply.into_message();
        Ok(if out.has_no_ranges() {
            Step::Done
        } else {
            Step::Continue(out.into_bytes())
        })
    }
}

/// Adds to the difference what a range of ours and the peer's ids of it do not share: ids to fetch in the order in
/// which the peer lists them, which is that of time if it is honest.
fn tell_apart<S: SortedSet + ?Sized>(
    set: &S,
    lower: &Bound,
    upper: &Bound,
    theirs: &[Id],
    difference: &mut Difference,
) -> Result<(), S::Error> {
    let mut by_id: Vec<usize> = (0..theirs.len()).collect();
    by_id.sort_unstable_by_key(|place| (&theirs[*place], *place));
    by_id.dedup_by_key(|place| &theirs[*place]);
    let mut listed = vec![Listed::Again; theirs.len()];
    for place in &by_id {
        listed[*place] = Listed::Missing;
    }
    set.scan(lower, upper, &mut |item| {
        match by_id.binary_search_by_key(&&item.id, |place| &theirs[*place]) {
            Ok(at) => listed[by_id[at]] = Listed::Ours(item.timestamp),
            Err(_) => difference.have.push(item),
        }
        ControlFlow::Continue(())
    })?;
    let at_lower = Item {
        timestamp: lower.timestamp(),
        id: *lower.prefix().padded(),
    };
    // What comes next in an honest list is not below this.
    let mut least = at_lower;
    for (id, listed) in theirs.iter().zip(listed) {
        let item = match listed {
            Listed::Again => continue,
            Listed::Ours(timestamp) => Item { timestamp, id: *id },
            Listed::Missing => {
                let item = first_at_or_above(&least, *id)
                    .filter(|item| upper.is_above(item))
                    .or_else(|| first_at_or_above(&at_lower, *id));
                let item = item.unwrap_or(Item {
                    timestamp: at_lower.timestamp,
                    id: *id,
                });
                difference.need.push(item);
                item
            }
        };
        least = least.max(item);
    }
    Ok(())
}

/// What an id in the responder's list is to us.
#[derive(Debug, Clone, Copy)]
enum Listed {
    Missing,
    /// In our set too, with this timestamp.
    Ours(u64),
    /// It was listed before.
    Again,
}

/// The earliest item with this id that is not below `least`.
fn first_at_or_above(least: &Item, id: Id) -> Option<Item> {
    let timestamp = if id >= least.id {
        least.timestamp
    } else {
        least.timestamp.checked_add(1)?
    };
    Some(Item { timestamp, id })
}
