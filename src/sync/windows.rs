//! One exchange with a relay that has no NIP-77: which windows are read (D9), and the outcome.
//!
//! Takes a transfer; gives an outcome. All windows are read and stored before anything is offered: a deletion may be
//! among what they hold. What was offered is asked for by id, for an `OK` alone proves nothing. Invariant: "converged"
//! is said only where every window was listed to its end, what was listed is stored or refused for a reason, and what
//! was offered was seen there. How far the whole history was read is noted only when what was found there is stored and
//! offered, so that nothing is passed over because a deadline came in between. Survives the connection: reading goes on
//! where it broke.
//!
//! A run that asks for nothing special reads a day, or since the last success; before that deletions and the
//! replaceable kinds of authors that are named; gift wraps two days further; profiles of authors that lack one; and a
//! part of the whole history, so that it is read once a week.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use constellation_event::{CanonicalKey, KindClass};
use constellation_eventstore::KindSet;

use super::outcome::{Outcome, PeerReport, Step};
use super::peer_memory::{HistoryRead, Remembered};
use super::plan::ExchangePlan;
use super::way::{Unfinished, whole};
use crate::limits::{
    AUTHORS_PER_FILTER, GIFT_WRAP_DATED_BACK, HISTORY_EVENTS_LEAST, HISTORY_EVENTS_PER_RUN,
    LOOK_AGAIN_AFTER, PROFILES_ASKED_MAX, WHOLE_HISTORY_EVERY, WINDOW, WINDOW_SLACK,
};
use crate::transfer::windows::{Budget, Read, Reading, gap, probe};
use crate::transfer::{
    self, Author, Failed, Findings, Part, Slice, Tally, Transfer, TransferError,
};

const DELETIONS: [u16; 2] = [5, 62];
const GIFT_WRAP: u16 = 1059;

/// Windows of one exchange, and how far they were read.
#[derive(Debug)]
pub(super) struct Windows {
    left: VecDeque<Window>,
    /// What has been read, by slice.
    read: Vec<Slice>,
    reading: Option<Reading>,
    /// The reading of the first window left has begun.
    begun: bool,
    history: HistoryProgress,
    is_automatic: bool,
    asked_for_profiles: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    slice: Slice,
    /// A part of the whole history: read as far as a run's share goes.
    is_history: bool,
}

/// How far the parts of the whole history (one for each list of authors) were read in this exchange.
#[derive(Debug, Default)]
struct HistoryProgress {
    /// How many there are.
    parts: usize,
    /// How many were read, as far as a run's share goes.
    read: usize,
    /// The newest second that one of them did not get beyond; `None` where all came to the end.
    back_to: Option<u64>,
    /// One of them got nowhere.
    is_stuck: bool,
}

impl HistoryProgress {
    /// One more part was read so far; it began at `until`.
    fn note(&mut self, read: Read, until: Option<u64>) {
        self.read += 1;
        match read {
            Read::Whole => {}
            Read::BackTo(second) => self.back_to = self.back_to.max(Some(second)),
            Read::Refused(Some(second)) if Some(second) != until => {
                self.back_to = self.back_to.max(Some(second));
            }
            Read::Refused(_) => self.is_stuck = true,
        }
    }

    /// What the next run is to know, if there is anything new.
    fn at(&self, now: u64, before: HistoryRead) -> Option<HistoryRead> {
        if self.parts == 0 || self.read < self.parts || self.is_stuck {
            return None;
        }
        Some(match self.back_to {
            Some(second) => HistoryRead {
                back_to: Some(second),
                ..before
            },
            None => HistoryRead {
                back_to: None,
                finished_at: Some(now),
            },
        })
    }
}

impl Windows {
    /// The windows of a run at `now`.
    pub(super) fn of(
        plan: &ExchangePlan,
        remembered: &Remembered,
        authors: &[Arc<[Author]>],
        now: u64,
    ) -> Self {
        let mut windows = Vec::new();
        if plan.is_automatic {
            windows.extend(automatic(plan, remembered, now));
        } else {
            windows.push(Window {
                slice: whole(plan),
                is_history: false,
            });
        }
        let left = windows.into_iter().flat_map(|window| {
            if authors.is_empty() || window.slice.authors.is_some() {
                return vec![window];
            }
            let by_author = authors.iter().map(|authors| Window {
                slice: Slice {
                    authors: Some(Arc::clone(authors)),
                    ..window.slice.clone()
                },
                ..window.clone()
            });
            by_author.collect()
        });
        let left: VecDeque<Window> = left.collect();
        let parts = left.iter().filter(|window| window.is_history).count();
        Self {
            left,
            read: Vec::new(),
            reading: None,
            begun: false,
            history: HistoryProgress {
                parts,
                ..HistoryProgress::default()
            },
            is_automatic: plan.is_automatic,
            asked_for_profiles: false,
        }
    }

    /// Reads what is left, then offers, then looks again.
    ///
    /// # Errors
    /// The step and why; what was done is counted, and another call goes on after it.
    pub(super) async fn go_on(
        &mut self,
        transfer: &mut Transfer,
        plan: &ExchangePlan,
        remembered: &mut Remembered,
        report: &mut PeerReport,
        tally: &mut Tally,
    ) -> Result<Outcome, (Step, TransferError)> {
        report.step = Step::Reconcile;
        let read = if plan.direction.is_down() {
            self.read_all(transfer, tally).await
        } else {
            self.pass_over_all();
            Ok(())
        };
        report.need = tally.listed_needed;
        read.map_err(|error| (Step::Reconcile, error))?;
        let findings = Findings::default();
        let taken = tally.taken.get_or_insert_default();
        findings.leave_out(taken.keys());
        let lacking = self.lacking(transfer, &findings).await;
        let offers_all = lacking.map_err(|error| (Step::Reconcile, error))?;
        // What was found is to be offered, also where it is not all of it: everything was fetched before.
        findings.finish(true);
        let found = findings.found();
        // What an earlier attempt offered was lacking too.
        let refused: u64 = tally.refused_by_peer.values().sum();
        report.have = found.have as u64 + tally.uploaded + refused;
        let is_complete = !tally.has_gaps() && offers_all;
        if plan.dry_run {
            (report.need_after, report.have_after) = (Some(report.need), Some(report.have));
            let is_equal = is_complete && report.need == 0 && report.have == 0;
            return Ok(if is_equal {
                Outcome::Converged
            } else {
                Outcome::Partial
            });
        }
        report.need_after = Some(0);
        report.have_after = Some(found.have as u64);
        let mut missing = 0;
        if plan.direction.is_up() {
            if tally.may_hide_a_deletion() {
                for item in findings.haves(0, usize::MAX) {
                    tally.leave(item.id, "not offered while something was not listed");
                }
                missing = found.have as u64;
            } else if found.have > 0 {
                report.step = Step::Upload;
                transfer::move_found(transfer, &findings, tally)
                    .await
                    .map_err(step_of)?;
                missing = tally.held_back.len() as u64;
            }
            report.step = Step::Confirm;
            missing += confirm(transfer, tally)
                .await
                .map_err(|error| (Step::Confirm, error))?;
        }
        if plan.direction.is_up() {
            report.have_after = Some(missing);
            if !offers_all {
                // How many more there are nobody has counted.
                report.have_after = None;
                tally.leave_gap(gap(&whole(plan), NOT_ALL_OFFERED));
            }
        }
        let now = transfer.clock.unix_seconds();
        if let Some(history) = self.history.at(now, remembered.history)
            && (missing == 0 && offers_all || !plan.direction.is_up())
        {
            remembered.history = history;
        }
        Ok(if is_complete && missing == 0 {
            Outcome::Converged
        } else {
            Outcome::Partial
        })
    }

    /// Names what was to be read and was not, because nothing more will be; and what was read and was to be compared with
    /// ours, where that has not come to its end. (The whole history is read bit by bit in any case: a run owes none of
    /// what it did not come to.)
    pub(super) fn leave_rest(&self, why: &str, ended: Unfinished, offers: bool, tally: &mut Tally) {
        if offers {
            for slice in &self.read {
                tally.leave_gap(gap(slice, why));
            }
        }
        let mut left = self.left.iter().filter(|window| !window.is_history);
        if self.begun
            && ended == Unfinished::Failed
            && let Some(reading) = &self.reading
            && self.left.front().is_some_and(|window| !window.is_history)
        {
            left.next();
            for slice in reading.unread() {
                tally.leave_gap(gap(slice, why));
            }
        }
        for window in left {
            tally.leave_gap(gap(&window.slice, why));
        }
    }

    async fn read_all(
        &mut self,
        transfer: &Transfer,
        tally: &mut Tally,
    ) -> Result<(), TransferError> {
        // Each of its parts gets on by something: else one that is never reached would hold up the others for ever.
        let share = HISTORY_EVENTS_PER_RUN / self.history.parts.max(1);
        let share = Budget::Events(share.max(HISTORY_EVENTS_LEAST));
        loop {
            if self.left.is_empty() {
                self.ask_for_profiles(transfer, tally).await?;
            }
            let Some(window) = self.left.front() else {
                return Ok(());
            };
            let reading = match self.reading.as_mut() {
                Some(reading) => {
                    if !self.begun {
                        reading.go_on_with(window.slice.clone());
                    }
                    reading
                }
                None => self.reading.insert(Reading::of(window.slice.clone())),
            };
            self.begun = true;
            let budget = if window.is_history {
                share
            } else {
                Budget::Whole
            };
            let read = reading.read(transfer, tally, budget).await?;
            let mut slice = window.slice.clone();
            if let Read::BackTo(second) = read {
                // That second was read in part.
                slice.since = Some(second.saturating_add(1));
                reading.leave_rest();
            }
            if window.is_history {
                self.history.note(read, slice.until);
            }
            self.read.push(slice);
            self.left.pop_front();
            self.begun = false;
        }
    }

    /// Nothing is to be fetched: what we have is asked for by id, all of it at once.
    fn pass_over_all(&mut self) {
        for window in self.left.drain(..) {
            if window.is_history {
                self.history.note(Read::Whole, window.slice.until);
            }
            self.read.push(window.slice);
        }
    }

    /// What of ours in the windows the peer lacks. Says whether that is all.
    async fn lacking(
        &self,
        transfer: &Transfer,
        findings: &Findings,
    ) -> Result<bool, TransferError> {
        let mut complete = true;
        for slice in &self.read {
            complete &= match &self.reading {
                Some(reading) => reading.lacking(transfer, slice, findings).await?,
                None => transfer::windows::lacking_by_id(transfer, slice, findings).await?,
            };
        }
        Ok(complete)
    }

    /// Once everything else is read: profiles of those whose events came and of whom we have none.
    async fn ask_for_profiles(
        &mut self,
        transfer: &Transfer,
        tally: &Tally,
    ) -> Result<(), TransferError> {
        const PROFILE: u16 = 0;
        if self.asked_for_profiles || !self.is_automatic || !transfer.scope.kinds.contains(PROFILE)
        {
            return Ok(());
        }
        self.asked_for_profiles = true;
        let authors = tally.authors.iter().take(PROFILES_ASKED_MAX).copied();
        let without = transfer.without_profile(authors.collect()).await?;
        for authors in without.chunks(AUTHORS_PER_FILTER) {
            let profiles = Slice::of_kinds(KindSet::Only([PROFILE].into()));
            self.left.push_back(Window {
                slice: Slice {
                    authors: Some(Arc::from(authors)),
                    ..profiles
                },
                is_history: false,
            });
        }
        Ok(())
    }
}

const NOT_ALL_OFFERED: &str =
    "the peer lacks more than can be offered in one run; the rest is for the next one";

fn step_of(failed: Failed) -> (Step, TransferError) {
    let step = match failed.part {
        Part::Reconcile => Step::Reconcile,
        Part::Download => Step::Download,
        Part::Upload => Step::Upload,
    };
    (step, failed.error)
}

/// D9: windows of a run that asks for nothing special, the newest first.
fn automatic(plan: &ExchangePlan, remembered: &Remembered, now: u64) -> Vec<Window> {
    let kinds = &plan.scope.kinds;
    let day = now.saturating_sub(WINDOW.as_secs());
    let caught_up = remembered.last_success.map_or(day, |success| {
        success.saturating_sub(WINDOW_SLACK.as_secs())
    });
    let since = day.min(caught_up);
    let window = |kinds: KindSet, since: Option<u64>, until: Option<u64>| Window {
        slice: Slice {
            since,
            until,
            ..Slice::of_kinds(kinds)
        },
        is_history: false,
    };
    let mut windows = vec![window(kinds.clone(), Some(since), None)];
    let before = since.checked_sub(1);
    if kinds.contains(GIFT_WRAP) {
        let dated_back = since.saturating_sub(GIFT_WRAP_DATED_BACK.as_secs());
        let gift_wraps = KindSet::Only([GIFT_WRAP].into());
        windows.push(window(gift_wraps, Some(dated_back), before));
    }
    let always = always_whole(kinds, plan.scope.authors.is_some());
    if !always.is_empty() {
        windows.push(window(KindSet::Only(always), None, before));
    }
    let history = &remembered.history;
    // What was asked for only now says nothing of how far the rest was read.
    let is_due = plan.is_whole
        && (history.back_to.is_some()
            || history.finished_at.is_none_or(|finished| {
                finished.saturating_add(WHOLE_HISTORY_EVERY.as_secs()) <= now
            }));
    if is_due {
        windows.push(Window {
            is_history: true,
            ..window(kinds.clone(), None, history.back_to.or(before))
        });
    }
    windows
}

/// Kinds that are read without a window: deletions; and of authors that are named, also what replaces itself, profiles
/// among it. Of everybody that would be most of what a relay has, every time: there the weekly history has to do.
fn always_whole(kinds: &KindSet, authors_are_named: bool) -> BTreeSet<u16> {
    let replaceable = |kind: &u16| {
        matches!(
            KindClass::of(*kind),
            KindClass::Replaceable | KindClass::Addressable
        )
    };
    let mut whole: BTreeSet<u16> = DELETIONS
        .into_iter()
        .filter(|kind| kinds.contains(*kind))
        .collect();
    if let KindSet::Only(listed) = kinds
        && authors_are_named
    {
        whole.extend(listed.iter().filter(|kind| replaceable(kind)));
    }
    whole
}

/// Looks for what the peer said to have taken, in this attempt or an earlier one; gives how much of it it does not show.
async fn confirm(transfer: &Transfer, tally: &mut Tally) -> Result<u64, TransferError> {
    let taken = tally.taken.clone().unwrap_or_default();
    let ids: Vec<[u8; 32]> = taken.keys().copied().collect();
    let mut there = probe(transfer, &ids).await?;
    let missing = |there: &HashSet<[u8; 32]>| -> Vec<[u8; 32]> {
        let missing = ids.iter().filter(|id| !there.contains(*id));
        missing.copied().collect()
    };
    let first = missing(&there);
    if !first.is_empty() {
        // Some commit a moment after their OK.
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        there.extend(probe(transfer, &first).await?);
    }
    let shadowed = missing(&there);
    for id in &shadowed {
        tally.leave(*id, "accepted by the peer, but still missing there");
    }
    let keys = shadowed.iter().map(|id| CanonicalKey {
        created_at: taken.get(id).copied().unwrap_or_default(),
        id: *id,
    });
    transfer.remember_shadowed(keys).await?;
    Ok(shadowed.len() as u64)
}
