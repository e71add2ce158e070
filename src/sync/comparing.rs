//! One exchange by NIP-77: the whole at once where the peer bears it, else in slices; and by author where that is how it
//! is to be asked.
//!
//! Takes a transfer; gives one outcome for all slices. A slice that is "too big" for the peer is split, by the cap that
//! it states where it states one; after slices that it bears they grow again. A single second that is still too big
//! is split by kind; then it is a gap. Invariant: no second of what was to be compared is passed over without a word.
//! Survives the connection: what was compared before it broke is not compared again.

use std::collections::VecDeque;
use std::sync::Arc;

use constellation_eventstore::{KindSet, StoredSet};
use constellation_reconcile::{Bound, SortedSet};

use super::outcome::{Outcome, PeerReport, Step};
use super::passes::{Sums, passes};
use super::plan::ExchangePlan;
use crate::transfer::windows::gap;
use crate::transfer::{Author, Slice, Tally, Transfer, TransferError};

/// What is left to be compared.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Whole histories or windows; the first is being walked.
    spans: VecDeque<Slice>,
    size: Size,
    /// What the peer says that it compares at most, with some to spare.
    stated: Option<u64>,
    /// Slices of that size in a row that it did compare: it may compare larger ones by now.
    borne: u32,
    outcome: Outcome,
    sums: Sums,
    /// Slices that could not be made smaller and were too big, since one was not; `None`: none ever was not.
    refused_in_a_row: Option<u32>,
}

/// How large the next slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// All that is left.
    Whole,
    /// So many events of ours, as a guess of how many the peer has.
    Events(u64),
    /// So many seconds.
    Seconds(u64),
}

impl Comparison {
    /// Everything that `whole` covers, for some authors at a time if there are any.
    pub(super) fn of(whole: &Slice, authors: Vec<Arc<[Author]>>) -> Self {
        let spans = if authors.is_empty() {
            [whole.clone()].into()
        } else {
            let spans = authors.into_iter().map(|authors| Slice {
                authors: Some(authors),
                ..whole.clone()
            });
            spans.collect()
        };
        Self {
            spans,
            size: Size::Whole,
            stated: None,
            borne: 0,
            outcome: Outcome::Converged,
            sums: Sums::default(),
            refused_in_a_row: None,
        }
    }

    /// Compares and moves what is left.
    ///
    /// # Errors
    /// The step and why; what was done is counted, and another call goes on after it.
    pub(super) async fn go_on(
        &mut self,
        transfer: &mut Transfer,
        plan: &ExchangePlan,
        report: &mut PeerReport,
        tally: &mut Tally,
    ) -> Result<Outcome, (Step, TransferError)> {
        while let Some(span) = self.spans.front() {
            transfer.slice = self.next_of(transfer, span).await;
            match passes(transfer, plan, &self.sums, report, tally).await {
                Ok(outcome) => {
                    self.refused_in_a_row = Some(0);
                    self.take(outcome);
                    self.sums = Sums::after(report, tally);
                    tally.begin_slice();
                    self.pass_over(&transfer.slice);
                }
                Err((step, TransferError::TooBig { cap, text })) => {
                    if let Err(text) = self.split(transfer, cap, text).await {
                        // Nothing is small enough for it.
                        let refused = self.refused_in_a_row.map(|refused| refused + 1);
                        self.refused_in_a_row = refused;
                        if refused.is_none_or(|refused| refused > REFUSED_IN_A_ROW_MAX) {
                            return Err((step, TransferError::Refused(text)));
                        }
                        transfer.leave_slice(&transfer.slice, &text, tally);
                        self.take(Outcome::Partial);
                        self.pass_over(&transfer.slice);
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(self.outcome)
    }

    /// Names what was not compared, or not moved, because nothing more will be.
    pub(super) fn leave_rest(&self, why: &str, tally: &mut Tally) {
        for span in &self.spans {
            tally.leave_gap(gap(span, why));
        }
    }

    fn take(&mut self, outcome: Outcome) {
        if outcome != Outcome::Converged {
            self.outcome = outcome;
        }
    }

    /// The newest part of what is left of a span.
    async fn next_of(&self, transfer: &Transfer, span: &Slice) -> Slice {
        let since = match self.size {
            Size::Whole => None,
            Size::Events(events) => oldest_of(transfer, span, events).await,
            Size::Seconds(seconds) => {
                let newest = span.until.unwrap_or_else(|| transfer.clock.unix_seconds());
                let oldest = newest.saturating_sub(seconds.saturating_sub(1));
                Some(oldest).filter(|oldest| *oldest > 0)
            }
        };
        Slice {
            since: since.max(span.since),
            ..span.clone()
        }
    }

    /// `done` is compared, or left as a gap: goes on below it, with larger slices.
    fn pass_over(&mut self, done: &Slice) {
        self.size = match self.size {
            Size::Whole => Size::Whole,
            Size::Events(events) => {
                if let Some(stated) = self.stated.filter(|stated| events >= *stated) {
                    self.borne += 1;
                    if self.borne >= BORNE_TO_GROW {
                        self.stated = Some(stated.saturating_mul(2));
                        self.borne = 0;
                    }
                }
                let most = self.stated.unwrap_or(u64::MAX);
                Size::Events(events.saturating_mul(2).min(most))
            }
            Size::Seconds(seconds) => Size::Seconds(seconds.saturating_mul(2)),
        };
        let Some(span) = self.spans.front_mut() else {
            return;
        };
        let below = done.since.and_then(|since| since.checked_sub(1));
        match below {
            Some(below) if span.since.is_none_or(|since| since <= below) => {
                span.until = Some(below);
            }
            _ => {
                self.spans.pop_front();
            }
        }
    }

    /// The slice at hand is too big for the peer. An error if it cannot be made smaller.
    async fn split(
        &mut self,
        transfer: &Transfer,
        cap: Option<u64>,
        text: String,
    ) -> Result<(), String> {
        let slice = &transfer.slice;
        let newest = slice.until.unwrap_or_else(|| transfer.clock.unix_seconds());
        let seconds = newest
            .saturating_sub(slice.since.unwrap_or(0))
            .saturating_add(1);
        if seconds > 1 {
            if let Some(cap) = cap {
                self.stated = Some((cap / 5).saturating_mul(4).max(STATED_LEAST));
                self.borne = 0;
            }
            let ours = count_of(transfer, slice).await.unwrap_or(0);
            let fewer = self.stated.unwrap_or(u64::MAX).min(ours / 2);
            let fewer = match self.size {
                Size::Events(events) => fewer.min(events / 2),
                Size::Whole | Size::Seconds(_) => fewer,
            };
            // Where we have little of it, the peer has more, and what we have says nothing.
            self.size = if fewer > 0 && ours > fewer {
                Size::Events(fewer)
            } else {
                Size::Seconds(seconds / 2)
            };
            return Ok(());
        }
        match &slice.kinds {
            KindSet::Only(kinds) if kinds.len() > 1 => {
                let by_kind: Vec<Slice> = kinds
                    .iter()
                    .map(|kind| Slice {
                        kinds: KindSet::Only([*kind].into()),
                        ..slice.clone()
                    })
                    .collect();
                self.pass_over(&slice.clone());
                for slice in by_kind {
                    self.spans.push_front(slice);
                }
                Ok(())
            }
            _ => Err(text),
        }
    }
}

/// What a relay states is believed down to here: less would cost a question for every few events. What really is too
/// big is halved all the same.
const STATED_LEAST: u64 = 200;
/// After so many slices that it bore, a relay is asked for more than it states.
const BORNE_TO_GROW: u32 = 16;

/// After so many a relay means something else than size.
const REFUSED_IN_A_ROW_MAX: u32 = 100;

/// How many events of a slice we have; a guess, so failing to read it is no failure.
async fn count_of(transfer: &Transfer, slice: &Slice) -> Option<u64> {
    let (store, scope) = (transfer.ingest.store().clone(), slice.set_scope());
    let counting = tokio::task::spawn_blocking(move || {
        let snapshot = store.snapshot().ok()?;
        let set = StoredSet::new(&snapshot, &scope);
        let whole = set.summary(&Bound::MIN, &Bound::INFINITY).ok()?;
        Some(whole.count)
    });
    counting.await.ok()?
}

/// The second in which the newest `events` of ours in a slice begin; `None` if there are no more, or it cannot be told.
async fn oldest_of(transfer: &Transfer, slice: &Slice, events: u64) -> Option<u64> {
    let ours = count_of(transfer, slice).await?;
    let before = ours.checked_sub(events).filter(|before| *before > 0)?;
    let (store, scope) = (transfer.ingest.store().clone(), slice.set_scope());
    let looking = tokio::task::spawn_blocking(move || {
        let snapshot = store.snapshot().ok()?;
        let set = StoredSet::new(&snapshot, &scope);
        let found = set.select(&Bound::MIN, &Bound::INFINITY, &[before]).ok()?;
        Some(found.first()?.timestamp)
    });
    looking.await.ok()?
}
