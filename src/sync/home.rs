//! The home relay's two parts in a run: first it is read, and last, after all others, it is given what it lacks.
//!
//! Takes the one exchange that is planned with it; gives one entry in the report, that of the whole. Its first part goes
//! down only, its last part as the peer's direction says; a dry run, and a direction of one way only, has one part.
//! How the entry adds up: what came and what was refused, rounds, bytes and time are sums; `need` is what it had and we
//! lacked in both parts, `have` what it lacked when the last part looked; outcome, error and what is left over are the last
//! part's. Where the last part does not come about in time, the outcome is `deadline`. It is left out, and the first one's
//! comparison stands, when that found both sets equal and nothing was stored here since it began.

use std::sync::Arc;

use constellation_eventstore::Sequence;

use super::outcome::{Outcome, PeerReport, Step};
use super::plan::RunPlan;
use super::run::{Exchange, RunParts};
use super::way::Reached;
use crate::home::{HomeWrite, Importer};
use crate::limits::IMPORT_STEPS;
use crate::peer::{Direction, Role};
use crate::transfer::Offering;

/// What the first part leaves to the last one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FirstPart {
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: u64,
    /// Both sets were equal, and our own had this state when the comparison began.
    equal_at: Option<Sequence>,
}

impl FirstPart {
    /// Adds what the last part does not know of.
    pub(super) fn add_to(self, report: &mut PeerReport) {
        report.bytes_in += self.bytes_in;
        report.bytes_out += self.bytes_out;
        report.duration_ms += self.duration_ms;
    }
}

/// How a peer with this role is offered what it lacks.
pub(super) fn offering(role: Role, plan: &RunPlan) -> Offering {
    match &plan.home {
        Some(home) if role == Role::Home && home.write == HomeWrite::Import => {
            let deadline = plan.deadlines.step * IMPORT_STEPS;
            Offering::Import(Arc::new(Importer::new(&home.strfry_command, deadline)))
        }
        _ => Offering::Events,
    }
}

impl Exchange {
    /// Whether it has two parts.
    fn has_parts(&self, run: &RunParts<'_>) -> bool {
        self.plan.direction == Direction::Both && !run.plan.dry_run
    }

    /// The part before all other exchanges.
    pub(super) async fn carry_out_first(&mut self, run: &RunParts<'_>) {
        if !self.has_parts(run) {
            // Whoever only gives waits for what the others bring.
            if self.plan.direction.is_down() || run.plan.dry_run {
                self.carry_out(run).await;
            }
            return;
        }
        let began_at = stored_so_far(run);
        self.plan.direction = Direction::Down;
        self.carry_out(run).await;
        self.plan.direction = Direction::Both;
        let report = &mut self.report;
        let is_equal = report.outcome == Outcome::Converged
            && (report.need_after, report.have_after) == (Some(0), Some(0));
        if let Some(failure) = &report.error {
            tracing::warn!(peer = %self.plan.address, reason = %failure.reason, "the home relay could not be read first");
        }
        self.first = FirstPart {
            bytes_in: std::mem::take(&mut report.bytes_in),
            bytes_out: std::mem::take(&mut report.bytes_out),
            duration_ms: std::mem::take(&mut report.duration_ms),
            equal_at: is_equal.then_some(began_at),
        };
        // If the last part does not come about, this stands.
        self.reached = Reached::default();
        (report.outcome, report.error, report.step) = (Outcome::Deadline, None, Step::Connect);
        (report.need_after, report.have_after) = (None, None);
    }

    /// The part after all other exchanges.
    pub(super) async fn carry_out_last(&mut self, run: &RunParts<'_>) {
        if !self.has_parts(run) {
            if !self.plan.direction.is_down() && !run.plan.dry_run {
                self.carry_out(run).await;
            }
            return;
        }
        if self.first.equal_at == Some(stored_so_far(run)) {
            self.report.outcome = Outcome::Converged;
            (self.report.need_after, self.report.have_after) = (Some(0), Some(0));
            return;
        }
        self.tally.forget_unresolved();
        self.tally.forget_gaps();
        self.carry_out(run).await;
        if self.report.outcome == Outcome::Failed && self.tally.stored > 0 {
            self.report.outcome = Outcome::Partial;
        }
    }
}

/// The last event that is on disk: whatever is stored changes it.
fn stored_so_far(run: &RunParts<'_>) -> Sequence {
    run.context.ingest.published().borrow().sequence
}
