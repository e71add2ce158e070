//! Events from one relay to another: fetched by id, verified, offered, each OK read.
//!
//! Takes ids that one side has and the other lacks; counts what becomes of each. Invariants: what is offered was
//! verified here, is what was asked for, and is in scope; an event counts as taken only with its `OK`, or when the other
//! side has it already. `rate-limited:` makes a pause and the event is offered again, a bounded number of times; what a
//! side refuses otherwise is not. Bounded: requests and offers under way, bytes that wait (nothing more is read from the
//! holder meanwhile), attempts, pauses. Worst case: a side that never answers costs one step deadline.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use constellation_event::{
    BatchVerifier, EventLimits, KindClass, Portion, Rejection, UnverifiedEvent,
};
use constellation_reconcile::{Id, Party};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use nostr::filter::Filter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Left};
use super::pace::Pace;
use super::run::PairProgress;
use super::side::{Broken, Side};
use crate::limits::{
    ANSWER_LATE, ASKED_MAX, DOWNLOAD_BYTES_MAX, EVENT_ENVELOPE_BYTES, OFFERED_MAX,
    PAIR_REQUESTS_MAX, UPLOAD_BYTES_IN_FLIGHT, UPLOADS_FIRST, UPLOADS_IN_FLIGHT, UPLOADS_LEAST,
};
use crate::protocol::ReasonPrefix;
use crate::random::Random;
use crate::relay_client::Publication;
use crate::sync::Step;
use crate::transfer::{Asked, Complaint, End, News, TransferError, Wanted, Window, off_runtime};

/// What moving works with, in any direction.
#[derive(Debug)]
pub(super) struct Means<'m> {
    pub(super) verifier: &'m Arc<BatchVerifier>,
    pub(super) random: &'m Random,
    /// What is shared: an event that matches none of these is not passed on.
    pub(super) filters: &'m [Filter],
    pub(super) progress: &'m watch::Sender<PairProgress>,
}

/// Moves events from `holder` to the other one.
///
/// Cancel safety: what the other side took it has; the account may miss the last answers.
///
/// # Errors
/// Which side broke off, and why; what was done before is counted.
pub(super) async fn move_events(
    sides: &[Side; 2],
    holder: Party,
    ids: Vec<Id>,
    means: &Means<'_>,
    account: &mut Account,
) -> Result<(), (Party, Broken)> {
    let (from, to) = (&sides[holder.index()], &sides[holder.other().index()]);
    means.progress.send_modify(|progress| {
        progress[holder.index()].need += ids.len() as u64;
        progress[holder.other().index()].have += ids.len() as u64;
    });
    let mut moving = Moving {
        from,
        to,
        holder,
        means,
        account,
        wanted: ids.into_iter().map(|id| Wanted { id, asked: 0 }).collect(),
        ids_per_request: from.limits.ids_per_request,
        requests_max: from.limits.requests_max.clamp(1, PAIR_REQUESTS_MAX),
        fetching: FuturesUnordered::new(),
        asks: Pace::default(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        answers: FuturesUnordered::new(),
        bytes: 0,
        window: Window::new(UPLOADS_FIRST, UPLOADS_LEAST, UPLOADS_IN_FLIGHT, ANSWER_LATE),
        offers: Pace::default(),
    };
    moving.run().await
}

struct Moving<'m, 'a> {
    from: &'m Side,
    to: &'m Side,
    holder: Party,
    means: &'m Means<'m>,
    account: &'a mut Account,
    /// To be asked for.
    wanted: VecDeque<Wanted>,
    ids_per_request: usize,
    requests_max: usize,
    fetching: FuturesUnordered<BoxFuture<'m, (Asked, Result<News, TransferError>)>>,
    asks: Pace,
    /// Verified, to be offered.
    waiting: VecDeque<Offer>,
    waiting_bytes: usize,
    answers: FuturesUnordered<BoxFuture<'m, (Offer, Result<Publication, TransferError>)>>,
    /// Bytes that are on their way to the other side.
    bytes: usize,
    window: Window,
    offers: Pace,
}

struct Offer {
    id: Id,
    json: String,
    offered: u8,
    since: Instant,
}

impl Moving<'_, '_> {
    async fn run(&mut self) -> Result<(), (Party, Broken)> {
        let (holder, other) = (self.holder, self.holder.other());
        let mut broken = None;
        loop {
            self.ask();
            self.offer();
            let is_idle = self.fetching.is_empty() && self.answers.is_empty();
            if is_idle && self.wanted.is_empty() && self.waiting.is_empty() {
                return broken.map_or(Ok(()), |broken| Err((holder, broken)));
            }
            let has_room = self.waiting_bytes < DOWNLOAD_BYTES_MAX;
            // While we do not listen to the holder its silence is ours.
            let _held = (!has_room).then(|| self.from.line().pulse.hold());
            tokio::select! {
                biased;
                Some((offer, answer)) = self.answers.next() => {
                    let answer = answer.map_err(|error| (other, Broken::at(Step::Upload, &error)))?;
                    self.take_answer(offer, &answer);
                }
                Some((asked, news)) = self.fetching.next(), if has_room => {
                    let taken = match news {
                        Ok(news) => self.take_news(asked, news).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = taken {
                        // What came before it broke is offered first.
                        broken = Some(Broken::at(Step::Download, &error));
                        self.wanted.clear();
                        self.fetching.clear();
                    }
                }
                () = self.offers.over(), if self.offers.is_paused() => {}
                () = self.asks.over(), if self.asks.is_paused() => {}
                // A pause was over just now.
                else => {}
            }
        }
    }

    /// Asks for what is next, as far as there is room.
    fn ask(&mut self) {
        if self.asks.gives_up() || self.offers.gives_up() {
            for wanted in std::mem::take(&mut self.wanted) {
                self.account.leave(wanted.id, Left::Postponed);
            }
            return;
        }
        while !self.asks.is_paused()
            && self.fetching.len() < self.requests_max
            && self.waiting_bytes < DOWNLOAD_BYTES_MAX
            && !self.wanted.is_empty()
        {
            let count = self.ids_per_request.min(self.wanted.len());
            let wanted: Vec<Wanted> = self.wanted.drain(..count).collect();
            let asked = Asked::new(0, &wanted, CancellationToken::new());
            self.fetching.push(Box::pin(asked.listen(self.from.line())));
        }
    }

    async fn take_news(&mut self, mut asked: Asked, news: News) -> Result<(), TransferError> {
        let mut events = Vec::with_capacity(news.events.len());
        for json in news.events {
            events.extend(self.check(&json, &mut asked));
        }
        self.verify(events).await?;
        if let Some((forged, delivered)) = self.account.too_many_forgeries() {
            return Err(TransferError::Forgeries { forged, delivered });
        }
        match news.end {
            None => {
                let listening = asked.listen(self.from.line());
                self.fetching.push(Box::pin(listening));
            }
            Some(End::Whole | End::Withdrawn) => {
                self.asks.went_well();
                // Only what the relay cut off is asked for again, and there is nothing to wait for.
                let brought_any = asked.delivered() > 0;
                self.again(asked, brought_any, Left::Undelivered);
            }
            Some(End::Closed { prefix, text }) => match Complaint::read(prefix, &text) {
                Some(Complaint::Pace | Complaint::Number) => {
                    self.asks.slow_down();
                    self.requests_max = (self.requests_max / 2).max(1);
                    self.again(asked, true, Left::Postponed);
                }
                Some(Complaint::Size) if self.ids_per_request > 1 => {
                    self.ids_per_request = (self.ids_per_request / 2).max(1);
                    self.again(asked, true, Left::Undelivered);
                }
                _ => self.again(asked, false, Left::Undelivered),
            },
        }
        Ok(())
    }

    /// What a request did not bring is asked for once more, or left.
    fn again(&mut self, asked: Asked, is_worth_it: bool, why: Left) {
        for (id, before) in asked.missing {
            let asked = before + 1;
            if is_worth_it && asked < ASKED_MAX {
                self.wanted.push_back(Wanted { id, asked });
            } else {
                self.account.leave(id, why);
            }
        }
    }

    /// Checks what came against what was asked for and is shared.
    fn check(&mut self, json: &Bytes, asked: &mut Asked) -> Option<UnverifiedEvent> {
        self.account.delivered += 1;
        let holder = self.holder.index();
        let progress = self.means.progress;
        progress.send_modify(|progress| progress[holder].downloaded += 1);
        let event = match UnverifiedEvent::parse(json, &EventLimits::default()) {
            Ok(event) => event,
            Err(reason) => {
                // If it at least says which one it is, that one is not asked for again.
                match UnverifiedEvent::claimed_identity(json) {
                    Some(claim) if asked.missing.remove(&claim.id).is_some() => {
                        self.account.leave(claim.id, Left::Rejected(reason));
                    }
                    _ => self.account.reject(reason),
                }
                return None;
            }
        };
        if asked.missing.remove(&event.id()).is_none() {
            self.account.reject(Rejection::OutsideFilter);
            return None;
        }
        if !self
            .means
            .filters
            .iter()
            .any(|filter| event.matches(filter))
        {
            let why = Left::Rejected(Rejection::OutsideFilter);
            self.account.leave(event.id(), why);
            return None;
        }
        Some(event)
    }

    /// Verifies events, and puts into the line what may be passed on.
    async fn verify(&mut self, events: Vec<UnverifiedEvent>) -> Result<(), TransferError> {
        if events.is_empty() {
            return Ok(());
        }
        let (verifier, entropy) = (Arc::clone(self.means.verifier), self.means.random.bytes());
        let outcomes = off_runtime(move || {
            let portion = Portion {
                events,
                source: 0,
                // A batch that fails is examined one by one: that is its holder's own time.
                suspect: false,
            };
            Ok(verifier.verify(vec![portion], entropy))
        })
        .await?;
        let now = self.from.now();
        for result in outcomes.into_iter().flat_map(|outcome| outcome.results) {
            let event = match result {
                Ok(event) => event,
                Err((event, reason)) => {
                    self.account.leave(event.id(), Left::Rejected(reason));
                    continue;
                }
            };
            let id = event.id();
            let json = event.json();
            let why = if event.class() == KindClass::Ephemeral {
                Some(Left::Rejected(Rejection::OutOfScope))
            } else if event.is_protected() {
                Some(Left::Rejected(Rejection::Protected))
            } else if event.expiration().is_some_and(|expires| expires <= now) {
                Some(Left::Rejected(Rejection::Expired))
            } else if !self.to.limits.takes(json.len() + EVENT_ENVELOPE_BYTES) {
                Some(Left::TooLargeForOther)
            } else {
                None
            };
            if let Some(why) = why {
                self.account.leave(id, why);
                continue;
            }
            self.waiting_bytes += json.len();
            self.waiting.push_back(Offer {
                id,
                json: json.to_owned(),
                offered: 0,
                since: Instant::now(),
            });
        }
        Ok(())
    }

    /// Offers what is next, as far as there is room.
    fn offer(&mut self) {
        if self.offers.gives_up() {
            for offer in std::mem::take(&mut self.waiting) {
                self.account.leave(offer.id, Left::Postponed);
            }
            self.waiting_bytes = 0;
            return;
        }
        while !self.offers.is_paused()
            && self.answers.len() < self.window.size()
            && (self.bytes < UPLOAD_BYTES_IN_FLIGHT || self.answers.is_empty())
            && let Some(mut offer) = self.waiting.pop_front()
        {
            self.waiting_bytes -= offer.json.len();
            self.bytes += offer.json.len();
            offer.since = Instant::now();
            let line = self.to.line();
            self.answers.push(Box::pin(async move {
                let answer = line.offer(offer.id, &offer.json).await;
                (offer, answer)
            }));
        }
    }

    fn take_answer(&mut self, mut offer: Offer, answer: &Publication) {
        let now = Instant::now();
        let full = self.answers.len() + 1 >= self.window.size() / 2;
        self.bytes -= offer.json.len();
        if answer.prefix == ReasonPrefix::RateLimited && !answer.accepted {
            if self.offers.slow_down() {
                self.window.shrink(now);
            }
            offer.offered += 1;
            if offer.offered < OFFERED_MAX {
                // First in the line: then few are refused more than once.
                self.waiting_bytes += offer.json.len();
                self.waiting.push_front(offer);
            } else {
                self.account.leave(offer.id, Left::Refused(answer.prefix));
            }
            return;
        }
        let delay = now.saturating_duration_since(offer.since);
        self.window.answered(1, delay, full, now);
        let other = self.holder.other().index();
        let progress = self.means.progress;
        progress.send_modify(|progress| progress[other].uploaded += 1);
        if answer.accepted || answer.prefix == ReasonPrefix::Duplicate {
            self.offers.went_well();
            self.account.accept(offer.id);
        } else {
            self.account.leave(offer.id, Left::Refused(answer.prefix));
        }
    }
}
