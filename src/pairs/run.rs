//! From two addresses to a report: connect, compare, move, compare again, until nothing more can be done.
//!
//! Takes a request; gives a report in every case, also when the time was up. A connection that breaks is made again
//! as long as something is achieved; comparing again costs little, so nothing is kept for that but what was moved and
//! what is not worth another try. Deletions are compared and moved first, in all directions that were asked for: else
//! what was deleted on one side would come back to it. Invariant: the outcome is that of a comparison after the last
//! transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use constellation_event::{BatchVerifier, BreakEven};
use constellation_eventstore::KindSet;
use constellation_reconcile::{Id, Party};
use nostr::filter::Filter;
use tokio::sync::watch;

use super::account::{Account, Left};
use super::comparing::{Differing, compare};
use super::moving::{Means, move_events};
use super::report::{PairOutcome, PairReport, PairUnresolved, SideReport};
use super::request::{PairRequest, PairTask};
use super::side::{Broken, Reaching, Side, Traffic};
use crate::limits::{
    ATTEMPT_PAUSE, ATTEMPTS_MAX, AUTHORS_PER_FILTER, RECONCILE_PASSES_MAX, UNRESOLVED_IDS_NAMED,
};
use crate::protocol::hex;
use crate::random::Random;
use crate::relay_client::{Dial, NostrKey};
use crate::sync::{Deadlines, Failure, Step};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::{Author, Gap, Slice, TransferProgress, Unresolved};

/// How far each side is: what is fetched from it, and offered to it.
pub type PairProgress = [TransferProgress; 2];

const DELETIONS: [u16; 2] = [5, 62];
/// How long to wait before looking once more for what was accepted a moment ago.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// By index of the party.
const NAMES: [&str; 2] = ["a", "b"];

/// What it works with.
#[derive(Debug, Clone)]
pub struct PairContext {
    /// Opens byte streams.
    pub dialer: Arc<dyn Dial>,
    /// Who we are to relays that ask.
    pub nostr_key: NostrKey,
    /// Time.
    pub clock: Clock,
    /// Randomness for verifying in batches.
    pub random: Random,
    /// Where conversations live.
    pub tasks: TaskGroup,
    /// How long connecting, one answer, and everything may take.
    pub deadlines: Deadlines,
    /// Where progress is shown.
    pub progress: watch::Sender<PairProgress>,
}

/// Compares two relays, and makes them equal if that was asked for.
///
/// Cancel safety: what was moved is moved; there is then no report.
pub async fn run(context: &PairContext, request: &PairRequest) -> PairReport {
    let mut pair = Pair {
        context,
        request,
        verifier: Arc::new(BatchVerifier::new(BreakEven::default())),
        traffic: Default::default(),
        accounts: Default::default(),
        at_first: None,
        last: None,
        is_withheld: [false, false],
        errors: [None, None],
    };
    let started = (context.clock.rfc3339(), context.clock.monotonic());
    let ended = tokio::time::timeout(context.deadlines.run, Box::pin(pair.attempts())).await;
    let outcome = ended.unwrap_or(PairOutcome::Deadline);
    let mut report = pair.into_report(outcome);
    report.started_at = started.0;
    let took = context.clock.monotonic().saturating_sub(started.1);
    report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    report
}

struct Pair<'r> {
    context: &'r PairContext,
    request: &'r PairRequest,
    verifier: Arc<BatchVerifier>,
    traffic: [Arc<Traffic>; 2],
    /// By who has the events.
    accounts: [Account; 2],
    /// How many each had alone at first.
    at_first: Option<[usize; 2]>,
    last: Option<Differing>,
    /// By who has the events: whether the other side may have deleted some of them, and that is not known here.
    is_withheld: [bool; 2],
    errors: [Option<Failure>; 2],
}

impl Pair<'_> {
    /// Attempts, until one comes to its end or several in a row achieve nothing.
    async fn attempts(&mut self) -> PairOutcome {
        let mut in_vain = 0;
        loop {
            let before = self.taken();
            self.errors = [None, None];
            let failed = match self.attempt().await {
                Ok(()) => return self.outcome(),
                Err(failed) => failed,
            };
            let achieved = self.taken() > before;
            in_vain = if achieved { 1 } else { in_vain + 1 };
            let mut is_transient = true;
            for (party, broken) in failed {
                tracing::warn!(
                    relay = %self.request.addresses[party.index()], step = ?broken.failure.step,
                    reason = %broken.failure.reason, "broke off: {}", broken.failure.detail
                );
                is_transient &= broken.is_transient;
                self.errors[party.index()] = Some(broken.failure);
            }
            if !is_transient || in_vain >= ATTEMPTS_MAX {
                return if self.taken() > 0 {
                    PairOutcome::Partial
                } else {
                    PairOutcome::Failed
                };
            }
            tokio::time::sleep(ATTEMPT_PAUSE * (1 << (in_vain - 1))).await;
        }
    }

    fn taken(&self) -> u64 {
        self.accounts.iter().map(|account| account.taken).sum()
    }

    async fn attempt(&mut self) -> Result<(), Vec<(Party, Broken)>> {
        let context = self.context;
        let reaching = Reaching {
            dialer: &*context.dialer,
            nostr_key: &context.nostr_key,
            clock: &context.clock,
            tasks: &context.tasks,
            connect_deadline: context.deadlines.connect,
            step_deadline: context.deadlines.step,
        };
        let [a, b] = &self.request.addresses;
        let (a, b) = tokio::join!(
            Side::open(&reaching, a, &self.traffic[0]),
            Side::open(&reaching, b, &self.traffic[1])
        );
        let sides = match (a, b) {
            (Ok(a), Ok(b)) => [a, b],
            (a, b) => {
                let failed = [(Party::First, a.err()), (Party::Second, b.err())];
                let failed = failed.into_iter();
                return Err(failed
                    .filter_map(|(party, broken)| Some((party, broken?)))
                    .collect());
            }
        };
        let whole = self.slices(self.request.kinds.clone());
        if matches!(self.request.task, PairTask::Mirror(_)) {
            let kinds = &self.request.kinds;
            let deletions: BTreeSet<u16> = DELETIONS
                .into_iter()
                .filter(|kind| kinds.contains(*kind))
                .collect();
            if !deletions.is_empty() {
                let deletions = self.slices(KindSet::Only(deletions));
                let left = self.passes(&sides, &deletions, false).await?;
                self.is_withheld =
                    Party::BOTH.map(|holder| self.may_hide_a_deletion(holder.other(), &left));
            }
        }
        self.passes(&sides, &whole, true).await?;
        Ok(())
    }

    /// Whether `holder` may have deletions that were to be moved, and were not for now.
    fn may_hide_a_deletion(&self, holder: Party, left: &Differing) -> bool {
        let account = &self.accounts[holder.index()];
        let mut only = left.only[holder.index()].iter();
        self.request.task.towards().takes_from(holder)
            && (left.is_cut_off
                || !left.gaps[holder.index()].is_empty()
                || only.any(|id| matches!(account.why(id), Left::Postponed | Left::Untried)))
    }

    /// What is compared, at once where relays bear it.
    fn slices(&self, kinds: KindSet) -> Vec<Slice> {
        let whole = Slice {
            since: self.request.since,
            until: self.request.until,
            ..Slice::of_kinds(kinds)
        };
        let Some(authors) = &self.request.authors else {
            return vec![whole];
        };
        let authors: Vec<Author> = authors.iter().copied().collect();
        let slices = authors.chunks(AUTHORS_PER_FILTER).map(|authors| Slice {
            authors: Some(Arc::from(authors)),
            ..whole.clone()
        });
        slices.collect()
    }

    /// Compares and moves in turn, until a comparison finds nothing that is worth a try; gives that comparison.
    async fn passes(
        &mut self,
        sides: &[Side; 2],
        slices: &[Slice],
        is_everything: bool,
    ) -> Result<Differing, Vec<(Party, Broken)>> {
        let only_one = |(party, broken)| vec![(party, broken)];
        // Also while deletions are looked at: a relay may compare more than it was asked to.
        let shared = self.slices(self.request.kinds.clone());
        let filters: Vec<Filter> = shared.iter().map(Slice::filter).collect();
        let mut step = Step::Reconcile;
        let mut looked_again = false;
        let mut last = Differing::default();
        for _ in 0..RECONCILE_PASSES_MAX {
            let differing = compare(sides, slices, step).await.map_err(only_one)?;
            if is_everything {
                let counts = differing.only.each_ref().map(Vec::len);
                // What was moved before was missing too.
                let moved = self.accounts.each_ref().map(|account| account.taken);
                self.at_first.get_or_insert_with(|| {
                    [0, 1].map(|side| counts[side] + usize::try_from(moved[side]).unwrap_or(0))
                });
                self.last = Some(differing.clone());
            }
            let PairTask::Mirror(towards) = self.request.task else {
                return Ok(differing);
            };
            let wanted = Party::BOTH.map(|holder| -> Vec<Id> {
                let only = differing.only[holder.index()].iter().copied();
                let account = &self.accounts[holder.index()];
                let is_withheld = is_everything && self.is_withheld[holder.index()];
                only.filter(|id| towards.takes_from(holder) && account.is_open(id) && !is_withheld)
                    .collect()
            });
            if wanted.iter().all(Vec::is_empty) {
                let is_awaited = Party::BOTH.into_iter().any(|holder| {
                    let mut only = differing.only[holder.index()].iter();
                    towards.takes_from(holder)
                        && only.any(|id| self.accounts[holder.index()].was_accepted(id))
                });
                if is_awaited && !std::mem::replace(&mut looked_again, true) {
                    // Some commit a moment after their OK.
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    last = differing;
                    continue;
                }
                return Ok(differing);
            }
            let means = Means {
                verifier: &self.verifier,
                random: &self.context.random,
                filters: &filters,
                progress: &self.context.progress,
            };
            for (holder, ids) in Party::BOTH.into_iter().zip(wanted) {
                let account = &mut self.accounts[holder.index()];
                let moved = move_events(sides, holder, ids, &means, account).await;
                moved.map_err(only_one)?;
            }
            step = Step::Confirm;
            last = differing;
        }
        Ok(last)
    }

    fn outcome(&self) -> PairOutcome {
        let Some(last) = &self.last else {
            return PairOutcome::Failed;
        };
        let towards = self.request.task.towards();
        let is_equal = Party::BOTH
            .into_iter()
            .all(|holder| last.only[holder.index()].is_empty() || !towards.takes_from(holder));
        if is_equal && !last.is_cut_off && last.gaps.iter().all(Vec::is_empty) {
            PairOutcome::Converged
        } else {
            PairOutcome::Partial
        }
    }

    fn into_report(self, outcome: PairOutcome) -> PairReport {
        let named = |side: usize| -> Vec<String> {
            let last = self.last.as_ref();
            let only = last.map_or(&[][..], |last| &last.only[side]);
            let named = only.iter().take(UNRESOLVED_IDS_NAMED);
            named.map(|id| hex::encode(id)).collect()
        };
        PairReport {
            outcome,
            dry_run: !matches!(self.request.task, PairTask::Mirror(_)),
            started_at: String::new(),
            duration_ms: 0,
            a: self.side_report(Party::First),
            b: self.side_report(Party::Second),
            only_a: named(0),
            only_b: named(1),
            is_cut_off: self.last.as_ref().is_some_and(|last| last.is_cut_off),
            unresolved: self.unresolved(),
        }
    }

    fn side_report(&self, party: Party) -> SideReport {
        let (side, other) = (party.index(), party.other().index());
        let (traffic, counted) = (&self.traffic[side], |count: usize| count as u64);
        SideReport {
            address: self.request.addresses[side].written(),
            method: traffic.method(),
            rounds: traffic.rounds.load(Ordering::Relaxed),
            only_at_first: self.at_first.map(|only| counted(only[side])),
            only: self
                .last
                .as_ref()
                .map(|last| counted(last.only[side].len())),
            delivered: self.accounts[side].delivered,
            rejected: self.accounts[side].rejected.clone(),
            taken: self.accounts[other].taken,
            refused: self.accounts[other].refused.clone(),
            bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
            error: self.errors[side].clone(),
        }
    }

    /// Ranges that nobody could compare; and what was to be moved and is still missing, by reason.
    fn unresolved(&self) -> Vec<PairUnresolved> {
        let Some(last) = &self.last else {
            return Vec::new();
        };
        let mut unresolved = Vec::new();
        for party in Party::BOTH {
            let (side, name) = (party.index(), NAMES[party.index()]);
            let gaps = last.gaps[side].iter().cloned();
            unresolved.extend(gaps.map(|gap: Gap| PairUnresolved {
                side: name,
                what: Unresolved::Range(gap),
            }));
            let is_mirror = matches!(self.request.task, PairTask::Mirror(_));
            if !is_mirror || !self.request.task.towards().takes_from(party) {
                continue;
            }
            let mut by_reason: BTreeMap<Left, Vec<&Id>> = BTreeMap::new();
            for id in &last.only[side] {
                let why = match self.accounts[side].why(id) {
                    Left::Untried if self.is_withheld[side] => Left::MayBeDeleted,
                    why => why,
                };
                by_reason.entry(why).or_default().push(id);
            }
            let other = NAMES[party.other().index()];
            unresolved.extend(by_reason.into_iter().map(|(why, ids)| {
                let named = ids.iter().take(UNRESOLVED_IDS_NAMED);
                PairUnresolved {
                    side: name,
                    what: Unresolved::Events {
                        ids: named.map(|id| hex::encode(*id)).collect(),
                        count: ids.len() as u64,
                        why: why.words(name, other),
                    },
                }
            }));
        }
        unresolved
    }
}
