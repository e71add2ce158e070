//! Events on their way from a request to a verdict: checked against what was asked, offered to ingest, counted.
//!
//! Takes raw JSON; gives events for ingest with what they claim to be, and what is decided without it. Every verdict
//! that will hold becomes an entry of the peer's overlay, so that the id is neither fetched again nor counted as a
//! difference. What follows from an event's content is remembered for good, what the peer did to it for a while.

use std::collections::HashMap;

use constellation_event::{CanonicalKey, EventLimits, Rejection, UnverifiedEvent};
use constellation_eventstore::{NewOverlayEntry, OverlayReason};
use nostr::filter::Filter;

use super::{Slice, Tally};
use crate::ingest::Verdict;
use crate::limits::{FORGERY_REMEMBERED, POLICY_REMEMBERED};

/// What an event says it is.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub(super) key: CanonicalKey,
    kind: Option<u16>,
    author: [u8; 32],
}

/// What became of an event that came.
#[derive(Debug)]
pub(super) enum Arrival {
    /// To be offered to ingest.
    Offered(Box<UnverifiedEvent>, Claimed),
    /// Not taken.
    Refused(Claimed, Rejection),
    /// Bad in a way that names no event that was asked for: counted only.
    Nameless(Rejection),
}

impl Arrival {
    /// Checks what came against what was asked for, and takes it off that list.
    pub(super) fn of(json: &[u8], filter: &Filter, missing: &mut HashMap<[u8; 32], u8>) -> Self {
        let event = match UnverifiedEvent::parse(json, &EventLimits::default()) {
            Ok(event) => event,
            Err(reason) => return Self::unreadable(json, reason, missing),
        };
        if missing.remove(&event.id()).is_none() {
            return Self::Nameless(Rejection::OutsideFilter);
        }
        let claimed = Claimed::by(&event);
        if event.matches(filter) {
            Self::Offered(Box::new(event), claimed)
        } else {
            Self::Refused(claimed, Rejection::OutsideFilter)
        }
    }

    /// JSON that is no event: if it at least says which one it is, that one is not asked for again.
    fn unreadable(json: &[u8], reason: Rejection, missing: &mut HashMap<[u8; 32], u8>) -> Self {
        match UnverifiedEvent::claimed_identity(json) {
            Some(claim) if missing.remove(&claim.id).is_some() => {
                let claimed = Claimed {
                    key: CanonicalKey {
                        created_at: claim.created_at,
                        id: claim.id,
                    },
                    kind: None,
                    author: [0; 32],
                };
                Self::Refused(claimed, reason)
            }
            _ => Self::Nameless(reason),
        }
    }
}

impl Claimed {
    pub(super) fn by(event: &UnverifiedEvent) -> Self {
        Self {
            key: event.canonical_key(),
            kind: Some(event.kind()),
            author: *event.author(),
        }
    }

    /// Adds the verdict to the tally; gives what is to be remembered about the peer, which listed it in `slice`.
    pub(super) fn count(
        &self,
        verdict: Verdict,
        tally: &mut Tally,
        slice: &Slice,
        now: u64,
    ) -> Option<NewOverlayEntry> {
        match verdict {
            Verdict::Stored => {
                tally.stored += 1;
                tally.authors.insert(self.author);
                if let Some(kind) = self.kind {
                    *tally.by_kind.entry(kind).or_default() += 1;
                }
                None
            }
            Verdict::Duplicate => {
                tally.duplicates += 1;
                None
            }
            // No forgery (strfry stores and lists ephemeral events for minutes), but nothing to keep either:
            // remembered like what is outside the filter, until the peer lists it no more.
            Verdict::Ephemeral => {
                tally.reject(Rejection::OutOfScope);
                Some(self.remembered(Rejection::OutsideFilter, slice, now))
            }
            Verdict::Rejected(reason) => {
                tally.reject(reason);
                Some(self.remembered(reason, slice, now))
            }
            Verdict::Postponed => {
                tally.leave(
                    self.key.id,
                    "more deletions by authors outside the scope than are taken in one run",
                );
                None
            }
            Verdict::Undecided => {
                tally.leave(self.key.id, "the write policy plugin did not rule on it");
                None
            }
        }
    }

    fn remembered(&self, reason: Rejection, slice: &Slice, now: u64) -> NewOverlayEntry {
        NewOverlayEntry {
            author: slice.listed_under(&self.author),
            ..remembered(self.key, self.kind, reason, now)
        }
    }
}

/// What is to be remembered about a peer that gave us an event which we refused, at `now` in Unix seconds.
pub fn remembered(
    key: CanonicalKey,
    kind: Option<u16>,
    reason: Rejection,
    now: u64,
) -> NewOverlayEntry {
    let lapses_after = match reason {
        Rejection::Protected => None,
        // The captain may change the policy.
        Rejection::WritePolicy => Some(POLICY_REMEMBERED),
        reason if reason.is_global() => None,
        _ => Some(FORGERY_REMEMBERED),
    };
    NewOverlayEntry {
        key,
        reason: OverlayReason::Refused(reason),
        // What the peer lists for a filter that it does not match counts as listed under any.
        kind: kind.filter(|_| reason != Rejection::OutsideFilter),
        expires_at: lapses_after.map(|after| now + after.as_secs()),
        author: None,
    }
}
