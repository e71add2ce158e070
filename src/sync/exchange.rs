//! One exchange with one peer, from connecting to an outcome: linear, every step under a deadline.
//!
//! connect ─► reconcile and fetch what is found, then offer ─► reconcile again … (see `passes`).
//! Gives a report in every case; a step that fails becomes a typed, labelled failure in it. Whoever cancels it (the
//! run's deadline) finds what was achieved so far in the report it handed in. Other peers are not known here.

use std::sync::Arc;

use tokio::sync::watch;

use super::options::Deadlines;
use super::outcome::{Failure, Outcome, PeerReport, Step};
use super::passes::passes;
use super::plan::ExchangePlan;
use crate::ingest::{Ingest, Lane};
use crate::protocol::TextSocket;
use crate::relay_client::information::fetch_information_over;
use crate::relay_client::{
    ConnectError, ConnectOptions, Conversation, ConversationLimits, Dial, connect_over,
};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::{Claims, Learnt, PeerLimits, Pulse, Tally, Transfer, TransferProgress};

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
    /// Who of the run fetches what.
    pub claims: Arc<Claims>,
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
        limits: conversation.limits,
        learnt: Learnt::default(),
        claims: Arc::clone(&context.claims),
        pulse: Arc::new(Pulse::default()),
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
    limits: PeerLimits,
}

async fn open(context: &ExchangeContext, plan: &ExchangePlan) -> Result<Opened, Failure> {
    let options = ConnectOptions {
        deadline: context.deadlines.connect,
        ..ConnectOptions::default()
    };
    let (url, deadline) = (plan.address.url(), context.deadlines.connect);
    let socket = async {
        let stream = context.dialer.dial(&plan.address, deadline).await?;
        connect_over(stream, url, &options).await
    };
    // What the peer says of itself is a hint: it is asked for at the same time, and never waited for longer.
    let information = async {
        let stream = context.dialer.dial(&plan.address, deadline).await.ok()?;
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
    let limits = PeerLimits::of(information.as_ref());
    let bounds = ConversationLimits {
        requests_max: limits.requests_max,
        ..ConversationLimits::default()
    };
    let conversation = Conversation::start(socket, bounds, &context.tasks)
        .map_err(|error| failure("busy", error.to_string()))?;
    Ok(Opened {
        conversation,
        limits,
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
