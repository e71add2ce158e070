//! By which way an exchange makes the sets equal, and what it has not come to when it ends before its end.
//!
//! Takes a plan, what is remembered of the peer and what it says of itself; gives the way to begin with. It lives where
//! the run keeps it, so that an exchange that is cut off still says what it did not compare or move. Invariant: what
//! [`leave_rest`] names covers all of that, by ranges; what was compared and moved to its end is not in them, but for
//! the range that was being worked on. Deliberately absent: going the way (`comparing`, `windows`).

use std::sync::Arc;

use super::comparing::Comparison;
use super::peer_memory::Remembered;
use super::plan::ExchangePlan;
use super::windows::Windows;
use crate::limits::{AUTHORS_PER_FILTER, WITHOUT_NIP77_REMEMBERED};
use crate::peer::Role;
use crate::transfer::windows::gap;
use crate::transfer::{Author, Slice, Tally, Transfer};

/// By which way the sets are made equal, and how far that is.
#[derive(Debug)]
pub(super) enum Way {
    Comparing(Comparison),
    /// It hung up each time it was asked to compare.
    HungUp,
    Windows(Windows),
}

/// How far an exchange has come; it outlives the exchange.
#[derive(Debug, Default)]
pub struct Reached(pub(super) Option<Way>);

/// How an exchange ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// It failed: what had come is stored and counted.
    Failed,
    /// It was cut off: what had come may be neither.
    CutOff,
}

/// Names, by ranges, what was to be compared and moved and was not: the whole where nothing was begun.
pub(super) fn leave_rest(
    reached: &Reached,
    plan: &ExchangePlan,
    why: &str,
    ended: Unfinished,
    tally: &mut Tally,
) {
    match &reached.0 {
        None | Some(Way::HungUp) => tally.leave_gap(gap(&whole(plan), why)),
        Some(Way::Comparing(comparison)) => comparison.leave_rest(why, tally),
        Some(Way::Windows(windows)) => {
            windows.leave_rest(why, ended, plan.direction.is_up(), tally);
        }
    }
}

/// All that a plan is about.
pub(super) fn whole(plan: &ExchangePlan) -> Slice {
    Slice {
        since: plan.since,
        until: plan.until,
        ..Slice::of_kinds(plan.scope.kinds.clone())
    }
}

/// The way to begin with.
pub(super) fn first_way(
    transfer: &Transfer,
    plan: &ExchangePlan,
    remembered: &mut Remembered,
    now: u64,
) -> Way {
    let is_without = remembered
        .without_nip77_since
        .is_some_and(|since| now.saturating_sub(since) < WITHOUT_NIP77_REMEMBERED.as_secs());
    if is_without {
        return windows(transfer, plan, remembered, now);
    }
    let authors = author_lists(transfer, plan, remembered);
    Way::Comparing(Comparison::of(&whole(plan), authors))
}

/// The way of a relay without NIP-77.
pub(super) fn windows(
    transfer: &Transfer,
    plan: &ExchangePlan,
    remembered: &Remembered,
    now: u64,
) -> Way {
    // Whole events are listed: those of others would come every time.
    let authors = lists_of(transfer, plan);
    Way::Windows(Windows::of(plan, remembered, &authors, now))
}

/// The authors that the peer is asked for, as many as go into a filter at a time; none where all are listed (D18).
pub(super) fn author_lists(
    transfer: &Transfer,
    plan: &ExchangePlan,
    remembered: &Remembered,
) -> Vec<Arc<[Author]>> {
    let shares_all = transfer.limits.is_station || plan.role == Role::Home;
    if shares_all && !remembered.asked_by_author {
        return Vec::new();
    }
    lists_of(transfer, plan)
}

fn lists_of(transfer: &Transfer, plan: &ExchangePlan) -> Vec<Arc<[Author]>> {
    let Some(authors) = &plan.scope.authors else {
        return Vec::new();
    };
    let mut authors: Vec<Author> = authors.iter().copied().collect();
    authors.sort_unstable();
    let together = transfer.limits.authors_per_filter(AUTHORS_PER_FILTER);
    authors.chunks(together).map(Arc::from).collect()
}
