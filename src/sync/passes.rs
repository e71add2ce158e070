//! The passes over one slice of an exchange: look, move, look again, until the sets are equal or nothing moves any more.
//!
//! The first pass looks and moves at the same time. Every later one looks first: what the last one left over is not
//! moved again over and over. While other exchanges of the run bring what this peer lacks, later passes wait for them,
//! longer each time, so that passes are not used up on a set that grows. Takes a transfer; gives an outcome, and counts
//! in report and tally. Invariants: whatever was moved, the last word is a reconciliation's; `need` and `have` are what
//! the first full look found, together with what was moved before it was complete, also when the exchange is cut off.
//! Bounded: passes.

use std::hash::{BuildHasher, RandomState};

use constellation_event::CanonicalKey;

use super::outcome::{Outcome, PeerReport, Step};
use super::plan::ExchangePlan;
use crate::limits::{LOOK_AGAIN_AFTER, OTHERS_AWAITED, RECONCILE_PASSES_MAX};
use crate::transfer::{
    self, Failed, Findings, Part, Reconciled, Tally, Transfer, TransferError, UNDELIVERED,
};

/// What the slices before came to: the report has the sums of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    need: u64,
    have: u64,
    need_after: u64,
    have_after: u64,
    /// What had been fetched and offered by then.
    fetched: u64,
    offered: u64,
}

impl Sums {
    /// With a slice that has ended.
    pub(super) fn after(report: &PeerReport, tally: &Tally) -> Self {
        let (fetched, offered) = moved(tally);
        Self {
            need: report.need,
            have: report.have,
            need_after: report.need_after.unwrap_or(0),
            have_after: report.have_after.unwrap_or(0),
            fetched,
            offered,
        }
    }
}

impl Sums {
    /// What was found before this slice, and what was moved of this slice so far.
    fn with_moved(&self, tally: &Tally) -> (u64, u64) {
        let (fetched, offered) = moved(tally);
        (
            self.need + fetched.saturating_sub(self.fetched),
            self.have + offered.saturating_sub(self.offered),
        )
    }
}

/// What was fetched and offered so far.
fn moved(tally: &Tally) -> (u64, u64) {
    let refused: u64 = tally.refused_by_peer.values().sum();
    (
        tally.downloaded + tally.brought_by_others,
        tally.uploaded + refused,
    )
}

/// Reconciles and transfers until nothing is left, or nothing moves any more.
pub(super) async fn passes(
    transfer: &Transfer,
    plan: &ExchangePlan,
    sums: &Sums,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<Outcome, (Step, TransferError)> {
    let hasher = RandomState::new();
    let mut last: Option<Left> = None;
    let mut seen_to_the_end = false;
    let mut looked_once_more = false;
    for pass in 0..RECONCILE_PASSES_MAX {
        let step = if pass == 0 {
            Step::Reconcile
        } else {
            Step::Confirm
        };
        report.step = step;
        if let Some(doubled) = pass.checked_sub(2) {
            // Others go on, or do not: it is looked again in any case.
            let longest = OTHERS_AWAITED * (1 << doubled.min(5));
            drop(tokio::time::timeout(longest, transfer.claims.quiet()).await);
        }
        let findings = Findings::default();
        let moves_at_once = pass == 0 && !plan.dry_run;
        let found = {
            let counted = Counted {
                transfer,
                findings: &findings,
                before: sums.with_moved(tally),
                counts: !seen_to_the_end,
                report: &mut *report,
            };
            let looked = if moves_at_once {
                transfer::look_and_move(transfer, &findings, tally)
                    .await
                    .map_err(|failed| (step_of(failed.part, step), failed.error))
            } else {
                transfer::reconcile(transfer, &findings)
                    .await
                    .map_err(|error| (step, error))
            };
            counted.end(looked)?
        };
        seen_to_the_end |= found.complete;
        report.need_after = Some(sums.need_after + found.need + found.undelivered);
        report.have_after = Some(sums.have_after + found.have);
        if is_settled(plan, &found) {
            // What this peer did not deliver came from another one, and what it did not take it has.
            tally.clear_unresolved();
            tally.unremembered += found.unremembered;
            return Ok(if name_undelivered(plan, &findings, tally) {
                Outcome::Partial
            } else {
                Outcome::Converged
            });
        }
        if plan.dry_run {
            name_undelivered(plan, &findings, tally);
            return Ok(Outcome::Partial);
        }
        let mut left = Left::of(plan, &findings, tally, &hasher);
        if moves_at_once {
            if found.need > 0 || found.have > 0 {
                (report.need_after, report.have_after) = (None, None);
            }
        } else if left.is_empty() {
            // What the peer refused for the moment would be refused again: it is for the next run. Otherwise equal but
            // for reasons that were entered just now, or not seen to the end: look again, nothing is to be moved.
            if left.held_back && found.complete && !found.overlay_changed {
                name_undelivered(plan, &findings, tally);
                return Ok(Outcome::Partial);
            }
        } else if last.as_ref() == Some(&left) && left.have.0 > 0 && !looked_once_more {
            // Some relays commit a moment after their OK.
            looked_once_more = true;
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        } else if last.as_ref() == Some(&left) {
            name_undelivered(plan, &findings, tally);
            let shadowed = leave_over(plan, &findings, tally);
            // It was accepted, and missing twice: offering it again in the next run helps nobody.
            transfer
                .remember_shadowed(shadowed)
                .await
                .map_err(|error| (step, error))?;
            return Ok(Outcome::Partial);
        } else {
            tally.forget_unresolved();
            (report.need_after, report.have_after) = (None, None);
            report.step = if plan.direction.is_down() && found.need > 0 {
                Step::Download
            } else {
                Step::Upload
            };
            transfer::move_found(transfer, &findings, tally)
                .await
                .map_err(|Failed { part, error }| (step_of(part, step), error))?;
            left = Left::of(plan, &findings, tally, &hasher);
        }
        last = Some(left);
    }
    let passes = TransferError::Unsettled(RECONCILE_PASSES_MAX);
    Err((Step::Confirm, passes))
}

fn step_of(part: Part, looking: Step) -> Step {
    match part {
        Part::Reconcile => looking,
        Part::Download => Step::Download,
        Part::Upload => Step::Upload,
    }
}

/// Brings what a look finds into the report as what there was at first, however the pass ends, also when it is cut
/// off. A difference that no pass takes at once shows itself bit by bit: what was moved before was part of it.
struct Counted<'e> {
    transfer: &'e Transfer,
    report: &'e mut PeerReport,
    findings: &'e Findings,
    /// What was found in other slices, or moved of this one before.
    before: (u64, u64),
    counts: bool,
}

impl Counted<'_> {
    fn end<E>(mut self, looked: Result<Reconciled, E>) -> Result<Reconciled, E> {
        if let Ok(found) = &looked {
            self.count(found.need + found.undelivered, found.have);
            self.counts = false;
        }
        looked
    }

    fn count(&mut self, need: u64, have: u64) {
        if self.counts {
            self.report.need = self.before.0 + need;
            self.report.have = self.before.1 + have;
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let found = self.findings.found();
        self.count(found.need as u64, found.have as u64);
        let progress = *self.transfer.progress.borrow();
        self.report.rounds = progress.rounds;
        if found.over && self.counts {
            self.report.step = if progress.downloaded < progress.need {
                Step::Download
            } else {
                Step::Upload
            };
        }
    }
}

/// D8: the fingerprints with overlay are equal; in one direction, nothing is left on that side.
fn is_settled(plan: &ExchangePlan, found: &Reconciled) -> bool {
    let left =
        (plan.direction.is_down() && found.need > 0) || (plan.direction.is_up() && found.have > 0);
    let is_one_way = !(plan.direction.is_down() && plan.direction.is_up());
    found.is_equal() || (found.complete && !found.overlay_changed && !left && is_one_way)
}

/// What is to be moved, as a sum of keyed hashes. If a pass leaves exactly what the last one left, no further pass
/// will help.
#[derive(Debug)]
struct Left {
    need: (usize, u64),
    have: (usize, u64),
    /// Something more would be to be moved, but the peer refused it for the moment.
    held_back: bool,
}

impl PartialEq for Left {
    fn eq(&self, other: &Self) -> bool {
        (self.need, self.have) == (other.need, other.have)
    }
}

impl Left {
    fn of(plan: &ExchangePlan, findings: &Findings, tally: &Tally, hasher: &RandomState) -> Self {
        let sum = |ids: &mut dyn Iterator<Item = [u8; 32]>| {
            ids.fold((0, 0u64), |(count, sum), id| {
                (count + 1, sum.wrapping_add(hasher.hash_one(id)))
            })
        };
        let mut left = Self {
            need: (0, 0),
            have: (0, 0),
            held_back: false,
        };
        if plan.direction.is_down() {
            left.need = sum(&mut findings.needs(0, usize::MAX).into_iter());
        }
        if plan.direction.is_up() {
            let have = findings.haves(0, usize::MAX);
            let free = have.iter().map(|item| item.id);
            left.have = sum(&mut free.filter(|id| !tally.held_back.contains(id)));
            left.held_back = left.have.0 < have.len();
        }
        left
    }

    fn is_empty(&self) -> bool {
        self.need.0 == 0 && self.have.0 == 0
    }
}

/// Names what the peer lists, did not deliver, and is not asked for again yet. Says whether there is any: the sets are
/// not equal then, though their sums are.
fn name_undelivered(plan: &ExchangePlan, findings: &Findings, tally: &mut Tally) -> bool {
    if !plan.direction.is_down() {
        return false;
    }
    let undelivered = findings.undelivered();
    for id in &undelivered {
        tally.leave(*id, UNDELIVERED);
    }
    !undelivered.is_empty()
}

/// Names what no pass could settle and no other reason explains. Gives what the peer says to have taken and does not
/// show.
fn leave_over(plan: &ExchangePlan, findings: &Findings, tally: &mut Tally) -> Vec<CanonicalKey> {
    let mut shadowed = Vec::new();
    let why_missing_there = if tally.offering_waited {
        "not offered while something was not fetched"
    } else {
        "accepted by the peer, but still missing there"
    };
    if plan.direction.is_down() {
        for id in findings.needs(0, usize::MAX) {
            if !tally.explains(&id) {
                tally.leave(id, "fetched, but still missing here");
            }
        }
    }
    if plan.direction.is_up() {
        for item in findings.haves(0, usize::MAX) {
            if !tally.explains(&item.id) && !tally.held_back.contains(&item.id) {
                tally.leave(item.id, why_missing_there);
                if !tally.offering_waited {
                    shadowed.push(CanonicalKey {
                        created_at: item.timestamp,
                        id: item.id,
                    });
                }
            }
        }
    }
    shadowed
}
