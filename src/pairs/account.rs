//! What became of the events of one direction: counted, and for each that was not moved, why.
//!
//! Takes verdicts; gives counts for the report and the ids that are not to be tried again. Bounded by the ids of a
//! difference, a few bytes for each.

use std::collections::{BTreeMap, HashMap, HashSet};

use constellation_event::Rejection;
use constellation_reconcile::Id;

use crate::limits::{FORGERIES_MAX, FORGERIES_SHARE};
use crate::protocol::ReasonPrefix;

/// Why an event that only one side has was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Left {
    /// Its holder lists it and does not give it.
    Undelivered,
    /// Its holder gave something that is not passed on.
    Rejected(Rejection),
    /// The other side does not take it.
    Refused(ReasonPrefix),
    /// It is larger than the messages that the other side takes.
    TooLargeForOther,
    /// One side took or gave nothing for now.
    Postponed,
    /// The other side said that it took it, and does not list it.
    Shadowed,
    /// The other side may have deletions that could not be moved to the holder first: it might get back what it deleted.
    MayBeDeleted,
    /// It is not in the direction that was asked for, or moving broke off before it.
    Untried,
}

impl Left {
    /// In words; `holder` has the event and `other` lacks it.
    pub fn words(self, holder: &str, other: &str) -> String {
        match self {
            Self::Undelivered => format!("listed by {holder}, but not delivered"),
            Self::Rejected(reason) => format!("not passed on from {holder}: {reason}"),
            Self::Refused(reason) => format!("refused by {other}: {reason}"),
            Self::TooLargeForOther => format!("larger than the messages that {other} takes"),
            Self::Postponed => "not moved: too fast for a relay, again and again".to_owned(),
            Self::Shadowed => format!("accepted by {other}, but still missing there"),
            Self::MayBeDeleted => {
                format!("not given to {other}: not all that {other} deleted is known")
            }
            Self::Untried => "not tried".to_owned(),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Events that came from the holder.
    pub(super) delivered: u64,
    /// Events that the other side took.
    pub(super) taken: u64,
    /// Events that came and were not passed on.
    pub(super) rejected: BTreeMap<Rejection, u64>,
    /// Events that the other side did not take, by its reason.
    pub(super) refused: BTreeMap<ReasonPrefix, u64>,
    accepted: HashSet<Id>,
    left: HashMap<Id, Left>,
}

impl Account {
    /// The other side took it.
    pub(super) fn accept(&mut self, id: Id) {
        self.taken += 1;
        self.accepted.insert(id);
    }

    /// It cannot be moved.
    pub(super) fn leave(&mut self, id: Id, why: Left) {
        match why {
            Left::Rejected(reason) => self.reject(reason),
            Left::Refused(reason) => *self.refused.entry(reason).or_default() += 1,
            _ => {}
        }
        self.left.insert(id, why);
    }

    /// Something came that names nothing which was asked for.
    pub(super) fn reject(&mut self, reason: Rejection) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    /// Whether moving it is still worth trying.
    pub(super) fn is_open(&self, id: &Id) -> bool {
        !self.left.contains_key(id) && !self.accepted.contains(id)
    }

    /// Whether the other side said that it took it.
    pub(super) fn was_accepted(&self, id: &Id) -> bool {
        self.accepted.contains(id)
    }

    /// Why an event is still missing.
    pub(super) fn why(&self, id: &Id) -> Left {
        match self.left.get(id) {
            Some(why) => *why,
            None if self.accepted.contains(id) => Left::Shadowed,
            None => Left::Untried,
        }
    }

    /// Whether so much is forged that no honest relay could hold it: more than 100, and more than 5 % (D8).
    pub(super) fn too_many_forgeries(&self) -> Option<(u64, u64)> {
        let forgeries = self.rejected.iter();
        let forged: u64 = forgeries
            .filter(|(reason, _)| reason.is_forgery())
            .map(|(_, count)| count)
            .sum();
        (forged > FORGERIES_MAX && forged.saturating_mul(FORGERIES_SHARE) > self.delivered)
            .then_some((forged, self.delivered))
    }
}
