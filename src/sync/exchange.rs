//! One exchange with one peer, from connecting to an outcome: linear, every step under a deadline.
//!
//! connect ─► reconcile ─► download ─► upload ─► reconcile again … until the sets are equal or nothing moves any more.
//! Gives a report in every case; a step that fails becomes a typed, labelled failure in it. Whoever cancels it (the
//! run's deadline) finds what was achieved so far in the report it handed in. Other peers are not known here.

use std::sync::Arc;

use constellation_reconcile::Item;
use tokio::sync::watch;

use super::options::Deadlines;
use super::outcome::{Failure, Outcome, PeerReport, Step};
use super::plan::ExchangePlan;
use crate::ingest::{Ingest, Lane};
use crate::limits::{
    FRAME_BYTES_MIN, FRAME_BYTES_OTHER, FRAME_BYTES_STATION, NEG_ENVELOPE_BYTES,
    RECONCILE_PASSES_MAX,
};
use crate::protocol::{RelayInformation, TextSocket};
use crate::relay_client::information::fetch_information_over;
use crate::relay_client::{
    ConnectError, ConnectOptions, Conversation, ConversationLimits, Dial, connect_over,
};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::{self, Reconciled, Tally, Transfer, TransferError, TransferProgress};

/// What an exchange works with.
#[derive(Debug, Clone)]
pub struct ExchangeContext {
    /// The door to our store.
    pub ingest: Ingest,
    /// Opens byte streams to peers.
    pub dialer: Arc<dyn Dial>,
    /// Time.
    pub clock: Clock,
    /// Where the conversation's task lives.
    pub tasks: TaskGroup,
    /// How long steps may take.
    pub deadlines: Deadlines,
    /// Where progress is shown.
    pub progress: watch::Sender<TransferProgress>,
}

/// Exchanges with one peer; writes into `report` and `tally` what comes of it, as it goes.
///
/// Cancel safety: what was stored stays stored; `tally` then tells what was achieved, and the caller brings it into
/// the report.
pub async fn exchange(
    context: &ExchangeContext,
    plan: &ExchangePlan,
    report: &mut PeerReport,
    tally: &mut Tally,
) {
    let conversation = match open(context, plan).await {
        Ok(opened) => opened,
        Err(failure) => {
            tracing::warn!(
                peer = %plan.address,
                step = "connect",
                reason = %failure.reason,
                "exchange failed: {}",
                failure.detail
            );
            report.outcome = Outcome::Failed;
            report.error = Some(failure);
            return;
        }
    };
    let transfer = Transfer {
        conversation: conversation.conversation,
        ingest: context.ingest.clone(),
        source: context.ingest.source(Lane::Bulk),
        peer: plan.address.as_str().to_owned(),
        scope: plan.scope.clone(),
        fetches: plan.direction.is_down() && !plan.dry_run,
        offers: plan.direction.is_up() && !plan.dry_run,
        since: plan.since,
        until: plan.until,
        frame_bytes: conversation.frame_bytes,
        message_bytes_max: conversation.message_bytes_max,
        step_deadline: context.deadlines.step,
        clock: context.clock.clone(),
        progress: context.progress.clone(),
    };
    let ended = {
        let counted = CountsBytes {
            conversation: &transfer.conversation,
            report: &mut *report,
        };
        passes(&transfer, plan, counted.report, tally).await
    };
    match ended {
        Ok(outcome) => report.outcome = outcome,
        Err((step, error)) => {
            let achieved = tally.stored > 0 || tally.uploaded > 0;
            report.outcome = if achieved {
                Outcome::Partial
            } else {
                Outcome::Failed
            };
            tracing::warn!(
                peer = %plan.address, ?step, reason = error.label(), "exchange failed: {error}"
            );
            report.error = Some(Failure {
                step,
                reason: error.label().to_owned(),
                detail: error.to_string(),
            });
        }
    }
}

/// Brings the bytes into the report however the exchange ends, also when it is cut off.
struct CountsBytes<'e> {
    conversation: &'e Conversation,
    report: &'e mut PeerReport,
}

impl Drop for CountsBytes<'_> {
    fn drop(&mut self) {
        let counters = self.conversation.counters();
        (self.report.bytes_in, self.report.bytes_out) = (counters.bytes_in, counters.bytes_out);
    }
}

struct Opened {
    conversation: Conversation,
    frame_bytes: usize,
    message_bytes_max: Option<usize>,
}

async fn open(context: &ExchangeContext, plan: &ExchangePlan) -> Result<Opened, Failure> {
    let options = ConnectOptions {
        deadline: context.deadlines.connect,
        ..ConnectOptions::default()
    };
    let (url, deadline) = (plan.address.url(), context.deadlines.connect);
    let socket = async {
        let stream = context.dialer.dial(url, deadline).await?;
        connect_over(stream, url, &options).await
    };
    // What the peer says of itself is a hint: it is asked for at the same time, and never waited for longer.
    let information = async {
        let stream = context.dialer.dial(url, deadline).await.ok()?;
        fetch_information_over(stream, url, deadline).await
    };
    let information = tokio::time::timeout(deadline, Box::pin(information));
    let (socket, information) = tokio::join!(within(deadline, socket), information);
    let information = information.ok().flatten();
    let failure = |reason: &str, detail: String| Failure {
        step: Step::Connect,
        reason: reason.to_owned(),
        detail,
    };
    let socket = socket.map_err(|error| failure(error.label(), error.to_string()))?;
    let conversation = Conversation::start(socket, ConversationLimits::default(), &context.tasks)
        .map_err(|error| failure("busy", error.to_string()))?;
    Ok(Opened {
        conversation,
        frame_bytes: frame_bytes(information.as_ref()),
        message_bytes_max: message_bytes_max(information.as_ref()),
    })
}

async fn within(
    deadline: std::time::Duration,
    socket: impl Future<Output = Result<TextSocket, ConnectError>>,
) -> Result<TextSocket, ConnectError> {
    tokio::time::timeout(deadline, Box::pin(socket))
        .await
        .map_err(|_| ConnectError::Timeout)?
}

/// Large frames for stations, as large as they say; small ones for all others (D3).
fn frame_bytes(information: Option<&RelayInformation>) -> usize {
    match information.and_then(|document| document.constellation.as_ref()) {
        Some(station) if station.version == 1 => usize::try_from(station.frame_bytes)
            .unwrap_or(FRAME_BYTES_STATION)
            .clamp(FRAME_BYTES_OTHER, FRAME_BYTES_STATION),
        // In hex a frame is twice as long, and has an envelope.
        _ => message_bytes_max(information).map_or(FRAME_BYTES_OTHER, |bytes| {
            (bytes.saturating_sub(NEG_ENVELOPE_BYTES) / 2).clamp(FRAME_BYTES_MIN, FRAME_BYTES_OTHER)
        }),
    }
}

/// The largest message that the peer says it takes.
fn message_bytes_max(information: Option<&RelayInformation>) -> Option<usize> {
    let stated = information?.limitation.as_ref()?.max_message_length?;
    usize::try_from(stated).ok().filter(|bytes| *bytes > 0)
}

/// Reconciles and transfers until nothing is left, or nothing moves any more.
async fn passes(
    transfer: &Transfer,
    plan: &ExchangePlan,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<Outcome, (Step, TransferError)> {
    let mut last: Option<Left> = None;
    let mut seen_to_the_end = false;
    for pass in 0..RECONCILE_PASSES_MAX {
        let step = if pass == 0 {
            Step::Reconcile
        } else {
            Step::Confirm
        };
        report.step = step;
        let mut found = transfer::reconcile(transfer)
            .await
            .map_err(|error| (step, error))?;
        tally.rounds += found.rounds;
        note(report, &found);
        if !seen_to_the_end {
            at_first(report, &found, tally);
            seen_to_the_end = found.complete;
        }
        if is_settled(plan, &found) {
            return Ok(Outcome::Converged);
        }
        if plan.dry_run {
            return Ok(Outcome::Partial);
        }
        // What the peer refused for the moment would be refused again: it is for the next run.
        let offered = found.have.len();
        found
            .have
            .retain(|item| !tally.held_back.contains(&item.id));
        let left = Left::of(plan, &found);
        if left.is_empty() && found.have.len() < offered && found.complete && !found.overlay_changed
        {
            return Ok(Outcome::Partial);
        }
        // Equal but for reasons that were entered just now, or not seen to the end: look again, nothing is to be moved.
        if !left.is_empty() {
            if last.as_ref() == Some(&left) {
                leave_over(plan, &found, tally);
                return Ok(Outcome::Partial);
            }
            tally.forget_unresolved();
            (report.need_after, report.have_after) = (None, None);
            move_events(transfer, plan, &found, report, tally).await?;
        }
        last = Some(left);
    }
    let passes = TransferError::Unsettled(RECONCILE_PASSES_MAX);
    Err((Step::Confirm, passes))
}

/// D8: the fingerprints with overlay are equal; in one direction, nothing is left on that side.
fn is_settled(plan: &ExchangePlan, found: &Reconciled) -> bool {
    found.is_equal() || (found.complete && Left::of(plan, found).is_empty() && is_one_way(plan))
}

fn is_one_way(plan: &ExchangePlan) -> bool {
    !(plan.direction.is_down() && plan.direction.is_up())
}

fn note(report: &mut PeerReport, found: &Reconciled) {
    (report.need_after, report.have_after) = (Some(found.need_count()), Some(found.have_count()));
}

/// A difference that no pass takes at once shows itself bit by bit: what was moved meanwhile was part of it.
fn at_first(report: &mut PeerReport, found: &Reconciled, moved: &Tally) {
    let refused: u64 = moved.refused_by_peer.values().sum();
    report.need = moved.downloaded + found.need_count();
    report.have = moved.uploaded + refused + found.have_count();
}

/// What is to be moved. If a pass leaves exactly what the last one left, no further pass will help.
#[derive(PartialEq, Eq)]
struct Left {
    need: Vec<[u8; 32]>,
    have: Vec<Item>,
}

impl Left {
    fn of(plan: &ExchangePlan, found: &Reconciled) -> Self {
        Self {
            need: if plan.direction.is_down() {
                found.need.clone()
            } else {
                Vec::new()
            },
            have: if plan.direction.is_up() {
                found.have.clone()
            } else {
                Vec::new()
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.need.is_empty() && self.have.is_empty()
    }
}

async fn move_events(
    transfer: &Transfer,
    plan: &ExchangePlan,
    found: &Reconciled,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<(), (Step, TransferError)> {
    if plan.direction.is_down() && !found.need.is_empty() {
        report.step = Step::Download;
        transfer
            .progress
            .send_modify(|progress| progress.need += found.need.len() as u64);
        transfer::download(transfer, &found.need, tally)
            .await
            .map_err(|error| (Step::Download, error))?;
    }
    if plan.direction.is_up() && !found.have.is_empty() {
        report.step = Step::Upload;
        transfer
            .progress
            .send_modify(|progress| progress.have += found.have.len() as u64);
        transfer::upload(transfer, &found.have, tally)
            .await
            .map_err(|error| (Step::Upload, error))?;
    }
    Ok(())
}

/// Names what no pass could settle and no other reason explains.
fn leave_over(plan: &ExchangePlan, found: &Reconciled, tally: &mut Tally) {
    let explained = tally.unresolved();
    if !explained.is_empty() {
        return;
    }
    for id in Left::of(plan, found).need {
        tally.leave(id, "fetched, but still missing here");
    }
    for item in Left::of(plan, found).have {
        tally.leave(item.id, "accepted by the peer, but still missing there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(json: &str) -> Option<RelayInformation> {
        RelayInformation::parse(json.as_bytes())
    }

    #[test]
    fn frames_fit_the_peer() {
        let frame = |json| frame_bytes(relay(json).as_ref());
        assert_eq!(frame_bytes(None), FRAME_BYTES_OTHER);
        assert_eq!(frame("{}"), FRAME_BYTES_OTHER);
        assert_eq!(
            frame(r#"{"constellation":{"version":1,"frame_bytes":500000}}"#),
            FRAME_BYTES_STATION
        );
        assert_eq!(
            frame(r#"{"constellation":{"version":1,"frame_bytes":99999999}}"#),
            FRAME_BYTES_STATION,
            "never more than our own messages hold"
        );
        let small = frame(r#"{"limitation":{"max_message_length":65536}}"#);
        assert!(
            2 * small + NEG_ENVELOPE_BYTES <= 65_536 && small > 30_000,
            "{small}"
        );
        assert_eq!(
            frame(r#"{"limitation":{"max_message_length":1}}"#),
            FRAME_BYTES_MIN
        );
        assert_eq!(
            message_bytes_max(relay(r#"{"limitation":{"max_message_length":0}}"#).as_ref()),
            None
        );
    }
}
