//! One exchange with one peer, from connecting to an outcome: attempts, each linear, every step under a deadline.
//!
//! ```text
//! connect ─► by NIP-77: slices, each reconciled, moved, reconciled again (see `comparing`, `passes`)
//!        └─► without: windows, listed, moved, looked for (see `windows`)
//! ```
//!
//! Gives a report in every case; a step that fails becomes a typed, labelled failure in it. A connection that breaks is
//! made again, with pauses that grow, for as long as something is achieved; what was done before stays done. Whoever
//! cancels it (the run's deadline) finds what was achieved so far in the report it handed in, and what was not in the way
//! it handed in (see `way`). Two exchanges of a run with one station, by two addresses, are never made at once (see
//! `stations`). Other peers are not known here.

use std::sync::Arc;

use tokio::sync::watch;

use super::comparing::Comparison;
use super::opening::{Opened, open};
use super::options::Deadlines;
use super::outcome::{Failure, Outcome, PeerReport, Step};
use super::peer_memory::{Remembered, jittered};
use super::plan::ExchangePlan;
use super::stations::{Occupied, Stations};
use super::way::{Reached, Unfinished, Way, author_lists, first_way, leave_rest, whole, windows};
use crate::ingest::{Ingest, Lane};
use crate::limits::{ATTEMPT_PAUSE, ATTEMPTS_MAX, VISIT_AWAITED};
use crate::peer::{PeerId, Visitors};
use crate::plugin::{AskedAbout, Plugin, Screen};
use crate::protocol::ReasonPrefix;
use crate::random::Random;
use crate::recent_ids::BroughtByPeers;
use crate::relay_client::{Conversation, Dial, NostrKey};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::{
    Claims, Introduction, Learnt, Offering, Pulse, Tally, Transfer, TransferError, TransferProgress,
};

/// What an exchange works with.
#[derive(Debug, Clone)]
pub struct ExchangeContext {
    /// The door to our store.
    pub ingest: Ingest,
    /// Opens byte streams to peers.
    pub dialer: Arc<dyn Dial>,
    /// Who we are to peers that ask.
    pub nostr_key: NostrKey,
    /// Who we are to other stations.
    pub own: PeerId,
    /// Stations that exchange with us at this moment.
    pub visitors: Visitors,
    /// Stations that exchanges of the run are with.
    pub stations: Stations,
    /// What peers brought lately.
    pub brought: BroughtByPeers,
    /// Asked about what is fetched, if there is one.
    pub plugin: Option<Plugin>,
    /// Time.
    pub clock: Clock,
    /// Spreads what would else be tried at once.
    pub random: Random,
    /// Where the conversation's task lives.
    pub tasks: TaskGroup,
    /// How long steps may take.
    pub deadlines: Deadlines,
    /// Who of the run fetches what.
    pub claims: Arc<Claims>,
    /// How the peer is offered what it lacks.
    pub offering: Offering,
    /// Where progress is shown.
    pub progress: watch::Sender<TransferProgress>,
}

/// Exchanges with one peer; writes into `reached`, `report`, `tally` and `remembered` what comes of it, as it goes. Gives
/// who has the station, where another exchange of the run has it: then nothing was done.
///
/// Cancel safety: what was stored stays stored; `tally` then tells what was achieved, `reached` what it did not come to, and the
/// caller brings both into the report.
pub async fn exchange(
    context: &ExchangeContext,
    plan: &ExchangePlan,
    reached: &mut Reached,
    remembered: &mut Remembered,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<(), Occupied> {
    let started = context.clock.unix_seconds();
    // Held until this exchange is over, whatever becomes of its connections.
    let mut place = None;
    let mut has_hung_up = false;
    let mut in_vain = 0;
    loop {
        let before = (tally.stored, tally.uploaded, tally.downloaded);
        report.step = Step::Connect;
        let opened = match open(context, plan, remembered).await {
            Ok(opened) => {
                if let Some(station) = opened.station
                    && place.is_none()
                {
                    place = Some(context.stations.enter(station, plan.address.as_str())?);
                }
                Ok(opened)
            }
            Err(failed) => Err(FailedAttempt {
                failure: failed.failure,
                is_transient: failed.is_transient,
            }),
        };
        let attempted = match opened {
            Ok(opened) => {
                let way = &mut reached.0;
                attempt(context, plan, opened, way, remembered, report, tally).await
            }
            Err(failed) => Err(failed),
        };
        let failed = match attempted {
            Ok(outcome) => {
                report.outcome = outcome;
                report.error = None;
                if outcome == Outcome::Converged && plan.is_whole && !plan.dry_run {
                    remembered.last_success = Some(started);
                }
                return Ok(());
            }
            Err(failed) => failed,
        };
        tracing::warn!(
            peer = %plan.address, step = ?failed.failure.step, reason = %failed.failure.reason,
            "exchange failed: {}", failed.failure.detail
        );
        let achieved = tally.stored > 0 || tally.uploaded > 0;
        report.outcome = if achieved {
            Outcome::Partial
        } else {
            Outcome::Failed
        };
        let why = format!("not read: {}", failed.failure.detail);
        let was_reached = failed.failure.step != Step::Connect;
        report.error = Some(failed.failure);
        in_vain = if before == (tally.stored, tally.uploaded, tally.downloaded) {
            in_vain + 1
        } else {
            1
        };
        let hung_up = matches!(reached.0, Some(Way::Comparing(_)))
            && (report.step, report.rounds) == (Step::Reconcile, 0);
        if failed.is_transient && in_vain >= ATTEMPTS_MAX && hung_up && !has_hung_up {
            (reached.0, has_hung_up, in_vain) = (Some(Way::HungUp), true, 0);
            continue;
        }
        if !failed.is_transient || in_vain >= ATTEMPTS_MAX {
            // Of a peer that was never reached the error says it all.
            if was_reached || reached.0.is_some() {
                leave_rest(reached, plan, &why, Unfinished::Failed, tally);
            }
            return Ok(());
        }
        // Until it has ended otherwise, it is cut off by whoever's time is up.
        report.outcome = Outcome::Deadline;
        let pause = ATTEMPT_PAUSE * (1 << in_vain.saturating_sub(1));
        tokio::time::sleep(jittered(pause, &context.random)).await;
    }
}

/// Why an attempt failed, and whether another one may help.
struct FailedAttempt {
    failure: Failure,
    is_transient: bool,
}

async fn attempt(
    context: &ExchangeContext,
    plan: &ExchangePlan,
    opened: Opened,
    way: &mut Option<Way>,
    remembered: &mut Remembered,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<Outcome, FailedAttempt> {
    let Opened {
        conversation,
        limits,
        ..
    } = opened;
    remembered.was_reached(context.clock.unix_seconds());
    if let Some(station) = plan.address.peer_id() {
        let visitors = &context.visitors;
        visitors.let_pass(context.own, station, VISIT_AWAITED).await;
    }
    let mut transfer = Transfer {
        conversation,
        ingest: context.ingest.clone(),
        source: context.ingest.source(Lane::Bulk),
        peer: plan.address.as_str().to_owned(),
        brought: context.brought.of(plan.address.as_str()),
        screen: context.plugin.as_ref().map(|plugin| {
            let (peer, clock) = (plan.address.as_str(), &context.clock);
            Screen::before(plugin, AskedAbout::Runs, peer, clock)
        }),
        scope: plan.scope.clone(),
        fetches: plan.direction.is_down() && !plan.dry_run,
        offers: plan.direction.is_up() && !plan.dry_run,
        offering: context.offering.clone(),
        slice: whole(plan),
        introduction: Arc::new(Introduction::new(
            context.nostr_key.clone(),
            plan.address.url().clone(),
        )),
        limits,
        learnt: Learnt::default(),
        claims: Arc::clone(&context.claims),
        pulse: Arc::new(Pulse::default()),
        step_deadline: context.deadlines.step,
        clock: context.clock.clone(),
        progress: context.progress.clone(),
    };
    let counted = CountsBytes {
        conversation: transfer.conversation.clone(),
        report: &mut *report,
    };
    let ended = make_equal(&mut transfer, plan, way, remembered, counted.report, tally).await;
    drop(counted);
    ended.map_err(|(step, error)| {
        learn(remembered, &transfer, &error);
        FailedAttempt {
            is_transient: is_transient(&error),
            failure: Failure {
                step,
                reason: error.label().to_owned(),
                detail: error.to_string(),
            },
        }
    })
}

/// Whether a new connection may get further.
pub(crate) fn is_transient(error: &TransferError) -> bool {
    use crate::relay_client::ConversationError;
    matches!(
        error,
        TransferError::Conversation(
            ConversationError::Closed
                | ConversationError::Lost(_)
                | ConversationError::WriteStalled
        )
    )
}

/// A connection that ends right after something large was sent may have ended for that: smaller messages the next time.
fn learn(remembered: &mut Remembered, transfer: &Transfer, error: &TransferError) {
    if !is_transient(error) {
        return;
    }
    let smaller = transfer.limits.messages_half_as_large();
    let largest = transfer.conversation.counters().largest_lately;
    if let Some(smaller) = smaller
        && largest > smaller
    {
        remembered.takes_only(smaller, transfer.clock.unix_seconds());
    }
}

async fn make_equal(
    transfer: &mut Transfer,
    plan: &ExchangePlan,
    way: &mut Option<Way>,
    remembered: &mut Remembered,
    report: &mut PeerReport,
    tally: &mut Tally,
) -> Result<Outcome, (Step, TransferError)> {
    let now = transfer.clock.unix_seconds();
    loop {
        match way {
            None => *way = Some(first_way(transfer, plan, remembered, now)),
            Some(Way::HungUp) if may_speak_none(transfer, remembered) => {
                tracing::info!(peer = %plan.address, "it is read by windows, as it hangs up on NIP-77");
                *way = Some(windows(transfer, plan, remembered, now));
            }
            Some(Way::HungUp) => *way = None,
            Some(Way::Windows(windows)) => {
                report.method = "windows".to_owned();
                return windows
                    .go_on(transfer, plan, remembered, report, tally)
                    .await;
            }
            Some(Way::Comparing(comparison)) => {
                let (step, error) = match comparison.go_on(transfer, plan, report, tally).await {
                    Ok(outcome) => {
                        remembered.compared();
                        return Ok(outcome);
                    }
                    Err(failed) => failed,
                };
                *way = match error {
                    TransferError::MostlyOutside { .. } if !remembered.asked_by_author => {
                        remembered.asked_by_author = true;
                        tally.begin_slice();
                        let authors = author_lists(transfer, plan, remembered);
                        Some(Way::Comparing(Comparison::of(&whole(plan), authors)))
                    }
                    error
                        if speaks_no_nip77(&error, step, report)
                            && (matches!(error, TransferError::NoNip77(_))
                                || wants_to_know_us(&error)
                                || may_speak_none(transfer, remembered)) =>
                    {
                        tracing::info!(peer = %plan.address, %error, "it is read by windows");
                        if !wants_to_know_us(&error) {
                            remembered.without_nip77_since = Some(now);
                        }
                        Some(windows(transfer, plan, remembered, now))
                    }
                    error => return Err((step, error)),
                };
            }
        }
    }
}

/// Whether this is how a relay without NIP-77 answers: an error, a notice, silence, another version, or by hanging up.
fn speaks_no_nip77(error: &TransferError, step: Step, report: &PeerReport) -> bool {
    let at_first = step == Step::Reconcile && report.rounds == 0;
    match error {
        TransferError::NoNip77(_) => true,
        TransferError::Refused(_) | TransferError::Timeout | TransferError::UnknownVersion(_) => {
            at_first
        }
        _ => false,
    }
}

/// Whether a peer that did not answer may be one without NIP-77: no station is, and one that was compared with before only
/// after some times. They are busy, and windows would pass over what is older.
fn may_speak_none(transfer: &Transfer, remembered: &mut Remembered) -> bool {
    !transfer.limits.is_station && remembered.did_not_answer()
}

/// Whether the relay refuses whoever it does not know: that says nothing of NIP-77.
fn wants_to_know_us(error: &TransferError) -> bool {
    let TransferError::Refused(text) = error else {
        return false;
    };
    matches!(
        ReasonPrefix::parse(text),
        ReasonPrefix::AuthRequired | ReasonPrefix::Restricted
    )
}

/// Brings the bytes into the report however the attempt ends, also when it is cut off.
struct CountsBytes<'e> {
    conversation: Conversation,
    report: &'e mut PeerReport,
}

impl Drop for CountsBytes<'_> {
    fn drop(&mut self) {
        let counters = self.conversation.counters();
        self.report.bytes_in += counters.bytes_in;
        self.report.bytes_out += counters.bytes_out;
    }
}
