//! Fetching events by id: as many requests under way as the peer bears, each event through ingest as it comes.
//!
//! ```text
//! Findings ─► claim ─► known here? ─► ready ─► REQs under way ─► gathered ─► ingest ─► verdicts ─► tally, overlay
//!     ▲ put off, held by another exchange ◄─┘      └─► again (refused, cut off), a bounded number of times
//! ```
//!
//! Three parts ([`Lots`], [`Asking`], [`Intake`]) and the loop that drives them. Nothing here waits for something else:
//! requests are refilled while earlier ones run and while commits are made. Takes findings in their order while they
//! grow; gives a tally. Invariants: an id is asked for only while it is claimed; what a request brings is checked
//! against what it asked for; what has come is offered to ingest and its verdict counted, also when the download ends
//! early. Bounded: bytes asked for ([`Asking`]), bytes that have come and are not settled (for all exchanges of a run
//! together), attempts. Beyond that it first asks no more, then reads no more. Waiting for another exchange's claim is
//! nobody's silence. Worst case: a peer that delivers nothing costs one step deadline, one that refuses everything for
//! the moment a few pauses; one that delivers forgeries is left after a bounded number.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use constellation_event::Rejection;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use nostr::filter::Filter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrival;
use super::asked::{Asked, End, News, Wanted};
use super::asking::{Asking, Complaint};
use super::intake::Intake;
use super::lots::{LookedUp, Lots};
use super::undelivered::{UNDELIVERED, remember_undelivered};
use super::{Findings, Tally, Transfer, TransferError};
use crate::limits::{ASKED_MAX, MORE_COMES_WITHIN, NOTICED_PATIENCE, OUTSIDE_SAMPLE};
use crate::protocol::ReasonPrefix;

/// What a download leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Nothing, but what the peer does not have or will never give.
    Whole,
    /// Something that the peer would not give just now.
    InPart,
}

/// Fetches what is found until nothing more will be, and counts what became of it; ends early, in good order, when
/// told to stop.
///
/// Cancel safety: what was handed to ingest is stored; the tally may then miss the last batches.
///
/// # Errors
/// [`TransferError`]; what came before is stored and counted.
pub(super) async fn download(
    transfer: &Transfer,
    findings: &Findings,
    tally: &Mutex<&mut Tally>,
    stop: &CancellationToken,
) -> Result<Fetched, TransferError> {
    let mut download = Download {
        transfer,
        findings,
        filter: transfer.filter(),
        asking: transfer.learnt.take(&transfer.limits),
        lots: Lots::new(transfer, findings),
        requests: FuturesUnordered::new(),
        open: BTreeMap::new(),
        requests_made: 0,
        noticed: false,
        last_heard: Instant::now(),
        fetched: Fetched::Whole,
        under_way: 0,
        given_out: 0,
        undelivered: HashSet::new(),
        sampled: transfer.scope.authors.is_none() || transfer.slice.authors.is_some(),
        intake: Intake::new(transfer, tally),
    };
    let ended = download.run(stop).await;
    // Nothing more is to come.
    download.requests.clear();
    let settled = download.intake.settle_all().await;
    let fetched = download.fetched;
    transfer.learnt.keep(download.asking);
    let remembered = remember_undelivered(transfer, findings, &download.undelivered).await;
    ended.and(settled).and(remembered).map(|()| fetched)
}

struct Download<'t, 'c> {
    transfer: &'t Transfer,
    findings: &'t Findings,
    filter: Filter,
    asking: Asking,
    lots: Lots<'t>,
    requests: FuturesUnordered<BoxFuture<'t, (Asked, Result<News, TransferError>)>>,
    /// Requests under way, by number.
    open: BTreeMap<u64, Open>,
    requests_made: u64,
    /// The peer refused a request by a notice: one that brings nothing may have been refused as well.
    noticed: bool,
    /// When the peer last brought something, or ended a request.
    last_heard: Instant,
    fetched: Fetched,
    /// Ids asked for whose events have not come.
    under_way: usize,
    /// Ids asked for so far.
    given_out: u64,
    /// Ids that the peer lists, and that it left out of answers that were not cut off.
    undelivered: HashSet<[u8; 32]>,
    /// It is known, or does not matter, whether most of what the peer lists is by authors that we share.
    sampled: bool,
    intake: Intake<'t, 'c>,
}

struct Open {
    since: Instant,
    withdrawn: CancellationToken,
    /// It has brought something.
    heard: bool,
}

impl Download<'_, '_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), TransferError> {
        let mut found = self.findings.watch();
        let mut released = self.intake.claimant().watch();
        let mut notices = self.transfer.conversation.notices_heard();
        let mut heard = *notices.borrow();
        let pulse = Arc::clone(&self.transfer.pulse);
        loop {
            let now = Instant::now();
            self.give_up_silent(now);
            if self.asking.gives_up() {
                self.give_up_rest();
            }
            self.judge_sample()?;
            self.ask(now);
            self.intake.expect_more(
                !self.requests.is_empty()
                    && !self.intake.is_behind()
                    && self.last_heard + MORE_COMES_WITHIN > now,
            );
            self.intake.submit(!self.requests.is_empty(), now);
            if self.is_done() {
                return Ok(());
            }
            let reads = !self.intake.is_flooded();
            let _held = (!reads).then(|| pulse.hold());
            let wake = self.wake(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.fetched = Fetched::InPart;
                    return Ok(());
                }
                settled = self.intake.progress() => settled?,
                Some(looked_up) = self.lots.looked_up() => self.make_ready(looked_up?),
                Some((asked, news)) = self.requests.next(), if reads => {
                    self.take(asked, news?)?;
                    // All that has queued, as one batch.
                    while !self.intake.is_full()
                        && let Some(Some((asked, news))) = self.requests.next().now_or_never()
                    {
                        self.take(asked, news?)?;
                    }
                }
                Ok(()) = notices.changed() => self.heed_notices(&mut notices, &mut heard),
                Ok(()) = found.changed() => {}
                Ok(()) = released.changed() => self.lots.released(now),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// When something is due that nobody tells.
    fn wake(&mut self, now: Instant) -> Option<Instant> {
        let silent = self.silent().map(|open| open.since.max(self.last_heard));
        let silent = silent.filter(|_| self.noticed).min();
        let silent = silent.map(|since| since + NOTICED_PATIENCE);
        let pause = self.asking.paused_until(now);
        let quiet = self.last_heard + MORE_COMES_WITHIN;
        let quiet = self.intake.expects_more().then_some(quiet);
        let due = [self.lots.wake(now), pause, silent, quiet];
        // What was due and could not be done waits for what makes it possible, and that wakes by itself.
        let due = due.into_iter().flatten().filter(|due| *due > now);
        due.chain(self.intake.due()).min()
    }

    fn is_done(&self) -> bool {
        self.findings.found().over
            && self.lots.is_empty()
            && self.requests.is_empty()
            && self.intake.is_settled()
    }

    /// Once the first events are judged: where most are by authors that we do not share, the peer is better asked by
    /// author (D18).
    fn judge_sample(&mut self) -> Result<(), TransferError> {
        let is_judged = self.given_out >= OUTSIDE_SAMPLE
            && self.requests.is_empty()
            && self.intake.is_settled();
        if self.sampled || !is_judged {
            return Ok(());
        }
        self.sampled = true;
        let tally = self.intake.tally();
        let delivered = tally.downloaded;
        let outside = tally.rejected.get(&Rejection::OutOfScope).copied();
        match outside.unwrap_or(0) {
            outside if outside * 2 > delivered => {
                Err(TransferError::MostlyOutside { outside, delivered })
            }
            _ => Ok(()),
        }
    }

    fn make_ready(&mut self, looked_up: LookedUp) {
        let (known, entries) = self.lots.make_ready(looked_up);
        let count = known.len() as u64;
        self.intake.claimant().release(&known);
        self.intake.tally().brought_by_others += count;
        self.intake.remember(entries);
        self.transfer.progress.send_modify(|progress| {
            progress.need = progress.need.saturating_sub(count);
        });
    }

    /// Pause after pause the peer gave nothing: the rest is for the next run.
    fn give_up_rest(&mut self) {
        let (ready, others) = self.lots.give_up();
        self.intake.claimant().release(&ready);
        for id in ready.iter().chain(&others) {
            self.fetched = Fetched::InPart;
            self.intake
                .tally()
                .leave(*id, "not asked for: the peer limits the rate");
        }
    }

    /// Claims and sends requests, as far as the peer and our store bear it.
    fn ask(&mut self, now: Instant) {
        if self.asking.paused_until(now).is_some() || self.intake.is_behind() {
            return;
        }
        if !self.sampled && self.given_out >= OUTSIDE_SAMPLE {
            return;
        }
        let waiting = self.under_way + self.lots.ready();
        let room = self.asking.ids().saturating_sub(waiting);
        let room = if waiting == 0 { room.max(1) } else { room };
        self.lots.prepare(self.intake.claimant(), room, now);
        // Few large requests: some relays count them.
        let least = self.asking.ids_per_request().min(self.asking.ids() / 2);
        while self.lots.ready() > 0
            && self.open.len() < self.asking.requests()
            && (self.sampled || self.given_out < OUTSIDE_SAMPLE)
        {
            let count = self.asking.ids_per_request().min(self.lots.ready());
            let count = if self.open.is_empty() {
                count.min(self.asking.ids())
            } else if self.under_way + count > self.asking.ids()
                || (count < least && self.lots.has_more())
            {
                return;
            } else {
                count
            };
            let wanted = self.lots.take(self.intake.claimant(), count);
            if wanted.is_empty() {
                continue;
            }
            self.given_out += wanted.len() as u64;
            let count = wanted.len();
            self.requests_made += 1;
            self.under_way += count;
            let withdrawn = CancellationToken::new();
            let open = Open {
                since: now,
                withdrawn: withdrawn.clone(),
                heard: false,
            };
            self.open.insert(self.requests_made, open);
            let asked = Asked::new(self.requests_made, &wanted, withdrawn);
            self.requests
                .push(Box::pin(asked.listen(self.transfer.line())));
        }
    }

    /// What a request brought.
    fn take(&mut self, mut asked: Asked, news: News) -> Result<(), TransferError> {
        let before = asked.missing.len();
        let count = news.events.len() as u64;
        if count > 0 {
            self.transfer
                .progress
                .send_modify(|progress| progress.downloaded += count);
            self.intake.tally().downloaded += count;
            self.last_heard = Instant::now();
            if let Some(open) = self.open.get_mut(&asked.number) {
                open.heard = true;
            }
        }
        for json in &news.events {
            self.asking.received(json.len());
            match Arrival::of(json, &self.filter, &mut asked.missing) {
                Arrival::Offered(event, claimed) => self.intake.offer(*event, claimed),
                Arrival::Refused(claimed, reason) => self.intake.refuse(&claimed, reason),
                Arrival::Nameless(reason) => self.intake.tally().reject(reason),
            }
        }
        self.under_way -= before - asked.missing.len();
        match news.end {
            Some(end) => self.end(asked, end),
            None => self
                .requests
                .push(Box::pin(asked.listen(self.transfer.line()))),
        }
        self.intake.mind_forgeries()
    }

    fn end(&mut self, asked: Asked, end: End) {
        let now = Instant::now();
        let under_way = self.under_way;
        self.under_way -= asked.missing.len();
        self.open.remove(&asked.number);
        self.last_heard = now;
        match end {
            End::Whole => {
                let cut_off = self.asking.completed(
                    asked.ids.len(),
                    asked.delivered(),
                    now.saturating_duration_since(asked.since),
                    under_way,
                    now,
                );
                if !cut_off {
                    self.undelivered.extend(asked.missing.keys());
                }
                self.miss(asked, cut_off, UNDELIVERED);
            }
            End::Closed { prefix, text } => {
                let complaint = Complaint::of_closed(prefix, &text);
                if let Some(complaint) = complaint {
                    self.asking.heed(complaint, self.open.len(), now);
                }
                self.miss(
                    asked,
                    complaint.is_some(),
                    &format!("request closed: {text}"),
                );
            }
            End::Withdrawn => {
                self.asking.heed(Complaint::Number, self.open.len(), now);
                self.miss(asked, true, "request not answered");
            }
        }
    }

    /// What a request did not bring: free for others, and asked of this peer again where that may help.
    fn miss(&mut self, asked: Asked, worth_asking_again: bool, why: &str) {
        self.intake.claimant().release(asked.missing.keys());
        // In the order in which they are wanted.
        for id in &asked.ids {
            let Some(before) = asked.missing.get(id) else {
                continue;
            };
            if worth_asking_again && before + 1 < ASKED_MAX {
                self.lots.again(Wanted {
                    id: *id,
                    asked: before + 1,
                });
            } else {
                if worth_asking_again {
                    self.fetched = Fetched::InPart;
                }
                self.intake.tally().leave(*id, why);
            }
        }
    }

    /// Some relays answer a request that they do not take by a notice that does not say which: most likely the last
    /// one that has brought nothing.
    fn heed_notices(&mut self, notices: &mut watch::Receiver<u64>, heard: &mut u64) {
        let count = *notices.borrow_and_update();
        let texts = self.transfer.conversation.notices();
        let new = usize::try_from(count - *heard).unwrap_or(usize::MAX);
        *heard = count;
        for text in &texts[texts.len().saturating_sub(new)..] {
            let complaint = Complaint::read(ReasonPrefix::parse(text), text);
            if let (Some(complaint), Some(open)) = (complaint, self.silent().last()) {
                open.withdrawn.cancel();
                let others = self.open.values();
                let others = others.filter(|open| !open.withdrawn.is_cancelled()).count();
                self.asking.heed(complaint, others, Instant::now());
                self.noticed = true;
            }
        }
    }

    /// Requests that have brought nothing and are not given up, oldest first.
    fn silent(&self) -> impl Iterator<Item = &Open> {
        let open = self.open.values();
        open.filter(|open| !open.heard && !open.withdrawn.is_cancelled())
    }

    /// Once notices have been heeded, silence may mean that another request was meant.
    fn give_up_silent(&self, now: Instant) {
        if self.noticed && self.last_heard + NOTICED_PATIENCE <= now {
            self.silent()
                .filter(|open| open.since + NOTICED_PATIENCE <= now)
                .for_each(|open| open.withdrawn.cancel());
        }
    }
}
