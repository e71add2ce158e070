//! One run: the home relay first, then all peers at once, within a bound, then the home relay again; under one lock and
//! one deadline; one report.
//!
//! A reload after which nothing may be shared any more (D16) cuts it off as well.
//! The lock is the kernel's; whoever finds it held gets a report that says `skipped`. On the deadline exchanges are
//! dropped where they are: what they stored stays, and their reports say how far they came. A slow peer delays no
//! other, except for its place among those exchanged with at a time. History is written whatever the outcome.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::exchange::{ExchangeContext, exchange};
use super::facts;
use super::history::{History, HistoryError};
use super::home::{FirstPart, offering};
use super::lock::{FileLock, LockError};
use super::outcome::{Failure, Outcome, PeerReport, QUIET, RunReport, Step};
use super::peer_memory::{PeerMemory, Remembered};
use super::plan::{ExchangePlan, RunPlan};
use super::stations::{Occupied, Stations};
use super::way::{Reached, Unfinished, leave_rest};
use crate::ingest::Ingest;
use crate::limits::{EXCHANGES_AT_ONCE, HOME_SHARE_OF_RUN};
use crate::peer::{PeerId, Role, Visitors};
use crate::plugin::Plugin;
use crate::protocol::hex;
use crate::random::Random;
use crate::recent_ids::BroughtByPeers;
use crate::relay_client::{Dial, NostrKey};
use crate::tasks::TaskGroup;
use crate::time::{Clock, rfc3339};
use crate::transfer::{Claims, Tally, TransferProgress};

/// How far the exchange with one peer is.
#[derive(Debug, Clone)]
pub struct PeerProgress {
    /// The peer.
    pub address: String,
    /// Follows the exchange.
    pub transfer: watch::Receiver<TransferProgress>,
}

/// Follows a run: one entry for each peer, there from the start.
pub type RunProgress = Vec<PeerProgress>;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What is remembered of peers.
    #[error("cannot remember how peers are asked: {0}")]
    Memory(std::io::Error),
}

/// What runs are made with.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The door to our store.
    pub ingest: Ingest,
    /// Opens byte streams to peers.
    pub dialer: Arc<dyn Dial>,
    /// Who the station is to relays that ask.
    pub nostr_key: NostrKey,
    /// Who the station is to other stations.
    pub own: watch::Receiver<PeerId>,
    /// Stations that exchange with us at this moment.
    pub visitors: Visitors,
    /// What peers brought lately.
    pub brought: BroughtByPeers,
    /// Asked about what is fetched, if there is one.
    pub plugin: Option<Plugin>,
    /// Time.
    pub clock: Clock,
    /// Names runs.
    pub random: Random,
    /// Where conversations live.
    pub tasks: TaskGroup,
    /// The station's state folder: lock and history.
    pub state: PathBuf,
}

/// Runs `plan`; `announce` gets what follows the run before it starts.
///
/// `halted` says why nothing may be shared any more: the run ends then.
///
/// Cancel safety: as on the deadline, but without a report.
///
/// # Errors
/// [`RunError`]: the lock file or the history cannot be used.
pub async fn run(
    context: &RunContext,
    plan: RunPlan,
    mut halted: watch::Receiver<Option<String>>,
    announce: impl FnOnce(RunProgress),
) -> Result<RunReport, RunError> {
    let RunContext { clock, state, .. } = context;
    let started = clock.monotonic();
    let started_at = clock.unix_seconds();
    let _lock = match FileLock::try_take(&state.join("run.lock")) {
        Ok(lock) => lock,
        Err(LockError::Held(_)) => return Ok(RunReport::skipped(context, plan.dry_run)),
        Err(error) => return Err(error.into()),
    };
    let history = History::in_folder(state);
    let successes = history.off_the_runtime(History::last_successes).await?;
    let mut memory = {
        let state = state.clone();
        tokio::task::spawn_blocking(move || PeerMemory::load(&state))
            .await
            .map_err(|error| RunError::Memory(error.into()))?
    };
    let mut exchanges: Vec<Exchange> = plan
        .exchanges
        .iter()
        .map(|plan| Exchange::new(plan.clone(), memory.of(plan.address.as_str())))
        .collect();
    announce(exchanges.iter().map(Exchange::progress).collect());

    let parts = RunParts {
        context,
        plan: &plan,
        places: Semaphore::new(EXCHANGES_AT_ONCE),
        claims: Arc::new(Claims::default()),
        stations: Stations::default(),
    };
    // Those that are cut off keep the outcome that their reports began with: the deadline.
    let cut_off = {
        let all = carry_out_all(&parts, &mut exchanges);
        let all = tokio::time::timeout(plan.deadlines.run, Box::pin(all));
        tokio::select! {
            in_time = all => (in_time != Ok(true)).then_some(CutOff::Deadline),
            Some(why) = becomes_halted(&mut halted) => Some(CutOff::Halted(why)),
        }
    };
    for exchange in &mut exchanges {
        exchange.remember(&mut memory, context, &plan);
    }
    let mut peers: Vec<PeerReport> = exchanges.into_iter().map(Exchange::into_report).collect();
    for peer in &mut peers {
        peer.lag_s = match peer.outcome {
            Outcome::Converged => Some(0),
            _ => successes
                .get(&peer.address)
                .map(|success| clock.unix_seconds().saturating_sub(*success)),
        };
    }
    if let Some(CutOff::Halted(why)) = &cut_off {
        for peer in &mut peers {
            peer.halt(why);
        }
    }
    let outcome = match cut_off {
        Some(CutOff::Deadline) => Outcome::Deadline,
        Some(CutOff::Halted(_)) | None => RunReport::outcome_of(&peers),
    };
    let report = RunReport {
        run_id: run_id(context, started_at),
        outcome,
        started_at: rfc3339(started_at),
        duration_ms: milliseconds(clock.monotonic().saturating_sub(started)),
        dry_run: plan.dry_run,
        named_peers: plan.names_peers,
        totals: RunReport::totals_of(&peers, plan.authors_in_scope),
        facts: facts::gather(context, &plan, &history, &peers).await,
        peers,
    };
    tracing::info!(
        run = %report.run_id, outcome = %report.outcome, stored = report.totals.stored,
        uploaded = report.totals.uploaded, duration_ms = report.duration_ms, "run ended"
    );
    if !(plan.is_brief && report.outcome == Outcome::Converged) {
        let told = report.clone();
        history
            .off_the_runtime(move |history| history.append(&told))
            .await?;
    }
    let saving = tokio::task::spawn_blocking(move || memory.save());
    let saved = saving.await.map_err(std::io::Error::from);
    saved.flatten().map_err(RunError::Memory)?;
    Ok(report)
}

/// Why ranges are left of an exchange that was cut off.
const CUT_OFF: &str = "not compared and moved to its end: the time was up";

/// Why a run did not end by itself.
enum CutOff {
    /// Its time was up.
    Deadline,
    /// Nothing may be shared any more (D16).
    Halted(String),
}

/// Waits until nothing may be shared any more; gives why. `None` if nobody is there to say so.
async fn becomes_halted(halted: &mut watch::Receiver<Option<String>>) -> Option<String> {
    halted.wait_for(Option::is_some).await.ok()?.clone()
}

/// What the exchanges of a run share.
pub(super) struct RunParts<'r> {
    pub(super) context: &'r RunContext,
    pub(super) plan: &'r RunPlan,
    places: Semaphore,
    claims: Arc<Claims>,
    stations: Stations,
}

/// Carries all exchanges out; says whether those with peers were in time, so that some of it is left for the home relay.
async fn carry_out_all(parts: &RunParts<'_>, exchanges: &mut [Exchange]) -> bool {
    let whole = parts.plan.deadlines.run;
    let ends = Instant::now() + (whole - whole / HOME_SHARE_OF_RUN);
    let (mut home, mut peers): (Vec<&mut Exchange>, Vec<&mut Exchange>) = exchanges
        .iter_mut()
        .partition(|exchange| exchange.plan.role == Role::Home);
    // Whoever keeps its place to the end must not keep others from theirs in every run.
    peers.sort_by_cached_key(|exchange| {
        let chance = u64::from_le_bytes(parts.context.random.bytes());
        (exchange.remembered.was_cut_off, chance)
    });
    for exchange in &mut home {
        exchange.carry_out_first(parts).await;
    }
    let mut all: FuturesUnordered<_> = peers
        .into_iter()
        .map(|exchange| exchange.carry_out(parts))
        .collect();
    let all = async move { while all.next().await.is_some() {} };
    let in_time = if home.is_empty() {
        all.await;
        true
    } else {
        tokio::time::timeout_at(ends, all).await.is_ok()
    };
    for exchange in &mut home {
        exchange.carry_out_last(parts).await;
    }
    in_time
}

fn run_id(context: &RunContext, started_at: u64) -> String {
    let random = hex::encode(&context.random.bytes::<4>());
    format!("{started_at}-{random}")
}

impl RunReport {
    /// The report of a run that did not take place, because another was in progress.
    pub(super) fn skipped(context: &RunContext, dry_run: bool) -> Self {
        let now = context.clock.unix_seconds();
        Self {
            run_id: run_id(context, now),
            outcome: Outcome::Skipped,
            started_at: rfc3339(now),
            duration_ms: 0,
            dry_run,
            named_peers: false,
            peers: Vec::new(),
            totals: Self::totals_of(&[], None),
            facts: None,
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One exchange of the run, and what came of it so far.
pub(super) struct Exchange {
    pub(super) plan: ExchangePlan,
    pub(super) report: PeerReport,
    pub(super) tally: Tally,
    remembered: Remembered,
    /// How far it is.
    pub(super) reached: Reached,
    /// Whether it had a place in the run.
    has_begun: bool,
    /// Of the home relay, the part that is over.
    pub(super) first: FirstPart,
    progress: watch::Sender<TransferProgress>,
}

impl Exchange {
    fn new(plan: ExchangePlan, remembered: Remembered) -> Self {
        let report = PeerReport::new(plan.address.as_str());
        Self {
            plan,
            report,
            tally: Tally::default(),
            remembered,
            reached: Reached::default(),
            has_begun: false,
            first: FirstPart::default(),
            progress: watch::Sender::default(),
        }
    }

    /// Whether it ended or was cut off: the tally tells what was achieved.
    fn into_report(mut self) -> PeerReport {
        let mut report = self.report;
        if report.outcome == Outcome::Deadline {
            let (reached, tally) = (&self.reached, &mut self.tally);
            leave_rest(reached, &self.plan, CUT_OFF, Unfinished::CutOff, tally);
            report.error = Some(Failure {
                step: report.step,
                reason: "deadline".to_owned(),
                detail: "the time was up".to_owned(),
            });
        }
        self.first.add_to(&mut report);
        report.take_tally(self.tally);
        report
    }

    /// What the next run is to know of the peer. A peer that was not reached rests after some times.
    fn remember(&mut self, memory: &mut PeerMemory, context: &RunContext, plan: &RunPlan) {
        if plan.dry_run || self.report.outcome == Outcome::Skipped {
            return;
        }
        if matches!(self.report.outcome, Outcome::Converged | Outcome::Partial) {
            self.remembered.achieved_at = Some(context.clock.unix_seconds());
        }
        if self.has_begun {
            self.remembered.was_cut_off = self.report.outcome == Outcome::Deadline;
        }
        if !self.report.was_reached() {
            let now = context.clock.unix_seconds();
            self.remembered.was_missed(now, &context.random);
        }
        memory.put(self.plan.address.as_str(), self.remembered.clone());
    }

    /// Says so in the report if the peer is left alone by this run.
    fn rests(&mut self, context: &RunContext, plan: &RunPlan) -> bool {
        if self.plan.is_quiet {
            self.report.outcome = Outcome::Skipped;
            self.report.error = Some(Failure {
                step: Step::Connect,
                reason: QUIET.to_owned(),
                detail: "not tried: these are its quiet hours".to_owned(),
            });
            return true;
        }
        let now = context.clock.unix_seconds();
        let until = self.remembered.rests_until.filter(|until| *until > now);
        let Some(until) = until.filter(|_| plan.is_scheduled) else {
            return false;
        };
        self.report.outcome = Outcome::Skipped;
        self.report.error = Some(Failure {
            step: Step::Connect,
            reason: "rests".to_owned(),
            detail: format!(
                "not tried: it was not reached {} times in a row; it is tried again at {}, or when you ask for it",
                self.remembered.failures,
                rfc3339(until)
            ),
        });
        true
    }

    fn progress(&self) -> PeerProgress {
        PeerProgress {
            address: self.plan.address.to_string(),
            transfer: self.progress.subscribe(),
        }
    }

    /// Exchanges with the peer, once there is a place, unless it is left alone by this run.
    pub(super) async fn carry_out(&mut self, parts: &RunParts<'_>) {
        let RunParts {
            context: run, plan, ..
        } = parts;
        if self.rests(run, plan) {
            return;
        }
        // A station is told apart only when it is reached: as often as there are others in the run, at most.
        while let Some(occupied) = self.carry_out_in_place(parts).await {
            tracing::info!(peer = %self.plan.address, same_station_as = %occupied.by, "waits for the exchange with the same station");
            occupied.is_free().await;
        }
    }

    /// The same, once there is a place; gives who has the station, if another exchange of the run has it.
    async fn carry_out_in_place(&mut self, parts: &RunParts<'_>) -> Option<Occupied> {
        let RunParts {
            context: run, plan, ..
        } = parts;
        // Nobody closes it: waiting for a place cannot fail, and without one the report stays as it began.
        let Ok(_place) = parts.places.acquire().await else {
            return None;
        };
        self.has_begun = true;
        // One task for the conversation, the others to spare while those of earlier attempts end.
        let started = run.clock.monotonic();
        let group = run.tasks.child(4);
        let context = ExchangeContext {
            ingest: run.ingest.clone(),
            dialer: Arc::clone(&run.dialer),
            nostr_key: run.nostr_key.clone(),
            own: *run.own.borrow(),
            visitors: run.visitors.clone(),
            stations: parts.stations.clone(),
            brought: run.brought.clone(),
            plugin: run.plugin.clone(),
            clock: run.clock.clone(),
            random: run.random.clone(),
            tasks: group.clone(),
            deadlines: plan.deadlines,
            claims: Arc::clone(&parts.claims),
            offering: offering(self.plan.role, plan),
            progress: self.progress.clone(),
        };
        let exchanged = exchange(
            &context,
            &self.plan,
            &mut self.reached,
            &mut self.remembered,
            &mut self.report,
            &mut self.tally,
        );
        let ended = tokio::time::timeout(plan.deadlines.exchange, Box::pin(exchanged)).await;
        if ended.is_err() {
            tracing::warn!(peer = %self.plan.address, "the exchange did not end in its time");
        }
        self.report.duration_ms = milliseconds(run.clock.monotonic().saturating_sub(started));
        let now = run.clock.unix_seconds();
        let achieved_at = self
            .remembered
            .achieved_at
            .max(self.remembered.last_success);
        let since_success = achieved_at.map(|at| now.saturating_sub(at));
        if plan.is_scheduled {
            self.report.excuse_missing_carrier(since_success);
        }
        group.end().await;
        ended.ok().and_then(Result::err)
    }
}
