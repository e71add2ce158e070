//! Our ear at a peer: subscriptions to what is new there, and whether it is still alive.
//!
//! A station is asked by one subscription with the limit 0. A relay that is none is asked for what is not old, by authors
//! where the scope names them and they fit (see `by_author`): several subscriptions then count as one, which stands when
//! all have sent what they stored. When the authors change it is asked anew, and as after any asking anew an exchange closes the
//! gap; not more often than pauses allow that grow while they go on changing. A relay that does not take
//! so many subscriptions, or says nothing to one, is asked for everybody's from then on. Worst case: the step deadline for each
//! asking, and a word a minute.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, select_all};
use nostr::filter::Filter;
use nostr::key::PublicKey;
use tokio::time::{Instant, sleep_until};

use super::by_author;
use super::link::{Link, LinkEnd};
use crate::graph::AuthorKey;
use crate::limits::{LIVE_ASKED_ANEW_FIRST, LIVE_EXCHANGE_AGAIN, LIVE_SILENCE, STEP_DEADLINE};
use crate::peer::Role;
use crate::protocol::ReasonPrefix;
use crate::relay_client::{
    Conversation, ConversationError, Request, Subscription, SubscriptionNews,
};

/// Events taken from the subscriptions at a time.
pub(super) const EVENTS_AT_ONCE: usize = 256;
/// Times in a row after which pauses stop growing.
const DOUBLED_MAX: u32 = 5;

/// What was heard of the peer.
pub(super) enum Heard {
    Events(Vec<Bytes>),
    Nothing,
    /// It is time to ask anew.
    Again,
    /// What was asked anew stands.
    CaughtUpAgain,
}

/// Pauses that double while something goes on.
#[derive(Debug, Default)]
struct Pauses {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Pauses {
    fn next(&mut self, first: Duration, now: Instant) -> Duration {
        if self
            .last
            .is_some_and(|last| now - last >= LIVE_SILENCE + first * (1 << self.in_a_row))
        {
            self.in_a_row = 0;
        }
        self.last = Some(now);
        let pause = first * (1 << self.in_a_row);
        self.in_a_row = (self.in_a_row + 1).min(DOUBLED_MAX);
        pause
    }
}

/// Several subscriptions that count as one.
struct Standing {
    subscriptions: Vec<(Subscription, CaughtUp)>,
    /// Which is looked at first: each in its turn.
    first: usize,
    /// By when all are to have sent what they stored; nothing once they have.
    due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CaughtUp {
    NotYet,
    Yes,
}

impl Standing {
    async fn begin(
        conversation: &Conversation,
        filters: &[Filter],
    ) -> Result<Self, ConversationError> {
        let mut subscriptions = Vec::with_capacity(filters.len());
        for filter in filters {
            let subscription = conversation.subscribe(std::slice::from_ref(filter));
            subscriptions.push((subscription.await?, CaughtUp::NotYet));
        }
        Ok(Self {
            subscriptions,
            first: 0,
            due: Some(Instant::now() + STEP_DEADLINE),
        })
    }

    /// As [`Subscription::next_batch`] of all of them. Cancel safe.
    async fn next_batch(
        &mut self,
        events: &mut Vec<Bytes>,
    ) -> Result<Option<SubscriptionNews>, ConversationError> {
        loop {
            let is_waited_for = self.due.is_some();
            let mut all = self.subscriptions.iter();
            if is_waited_for && all.all(|(_, caught_up)| *caught_up == CaughtUp::Yes) {
                self.due = None;
                return Ok(Some(SubscriptionNews::CaughtUp));
            }
            if self.subscriptions.is_empty() {
                return std::future::pending().await;
            }
            self.first = (self.first + 1) % self.subscriptions.len();
            let mut hearing: Vec<BoxFuture<'_, _>> = Vec::with_capacity(self.subscriptions.len());
            for (subscription, caught_up) in &mut self.subscriptions {
                hearing.push(Box::pin(async move {
                    let mut batch = Vec::new();
                    let news = subscription.next_batch(&mut batch, EVENTS_AT_ONCE).await;
                    (batch, news, caught_up)
                }));
            }
            hearing.rotate_left(self.first);
            let ((batch, news, caught_up), _, _) = select_all(hearing).await;
            let news = news?;
            if news == Some(SubscriptionNews::CaughtUp) {
                *caught_up = CaughtUp::Yes;
            }
            // Events may come together with what ends them; that it is closed is told again.
            if !batch.is_empty() {
                events.extend(batch);
                return Ok(None);
            }
            if let Some(SubscriptionNews::Closed { .. }) = &news {
                return Ok(news);
            }
        }
    }
}

/// Our ear at the peer.
pub(super) struct Listening<'l> {
    link: &'l Link,
    conversation: &'l Conversation,
    /// `None` while it is to be asked anew, and where nothing is fetched.
    standing: Option<Standing>,
    /// The authors that it was asked for; `None`: everybody.
    authors: Option<Arc<HashSet<AuthorKey>>>,
    /// It does not take so many subscriptions.
    not_by_author: bool,
    again_at: Option<Instant>,
    /// Too much was new.
    behind: Pauses,
    /// Other authors were in scope.
    changes: Pauses,
    heard_at: Instant,
    /// A question to which there is always an answer.
    probe: Option<(Request, Instant)>,
}

impl<'l> Listening<'l> {
    /// Hears nothing until it has asked.
    pub(super) fn new(link: &'l Link, conversation: &'l Conversation) -> Self {
        Self {
            link,
            conversation,
            standing: None,
            authors: None,
            not_by_author: false,
            again_at: None,
            behind: Pauses::default(),
            changes: Pauses::default(),
            heard_at: Instant::now(),
            probe: None,
        }
    }

    /// Asks, and waits until the peer says that what comes is new; gives what came before.
    pub(super) async fn begin(&mut self) -> Result<Vec<Bytes>, LinkEnd> {
        let lost = |error: ConversationError| LinkEnd::NotReached(error.to_string());
        let mut early = Vec::new();
        self.ask().await.map_err(lost)?;
        loop {
            let Some(standing) = &mut self.standing else {
                return Ok(early);
            };
            let due = standing.due.unwrap_or_else(Instant::now);
            // A relay that is no station sends what it stores first: as much of it as is taken at a time waits here.
            let next = standing.next_batch(&mut early);
            let refused = match tokio::time::timeout_at(due, next).await {
                Err(_) => LinkEnd::NotReached("no end of what is stored".to_owned()),
                Ok(Err(error)) => return Err(lost(error)),
                Ok(Ok(Some(SubscriptionNews::Closed { text, .. }))) => LinkEnd::Refused(text),
                Ok(Ok(Some(SubscriptionNews::CaughtUp))) => return Ok(early),
                Ok(Ok(None)) if early.len() < EVENTS_AT_ONCE => continue,
                // Too many to wait for: the exchange that follows brings whatever is missed.
                Ok(Ok(None)) => {
                    standing.due = None;
                    return Ok(early);
                }
            };
            self.give_up_authors(refused)?;
            self.ask().await.map_err(lost)?;
        }
    }

    /// Asks anew.
    pub(super) async fn ask_again(&mut self) -> Result<(), LinkEnd> {
        let asked = self.ask().await;
        asked.map_err(|error| LinkEnd::Lost(error.to_string()))
    }

    async fn ask(&mut self) -> Result<(), ConversationError> {
        // The peer is told that the old ones are over first: it may not take twice as many.
        self.standing = None;
        let asked = self.wanted();
        if let (true, None, Some(authors)) = (self.may_ask_by_author(), &asked, self.in_scope()) {
            tracing::warn!(
                peer = %self.link.plan.address, authors = authors.len(),
                "live link: more authors than the relay can be asked for: it is asked for everybody's events"
            );
        }
        let filters = self.filters(asked.as_deref());
        let count = asked.as_ref().map(|authors| authors.len() as u64);
        self.link.stats.asks_for_authors(count);
        self.authors = asked;
        self.standing = Some(Standing::begin(self.conversation, &filters).await?);
        Ok(())
    }

    fn in_scope(&self) -> Option<Arc<HashSet<AuthorKey>>> {
        self.link.scope.borrow().authors.clone()
    }

    fn may_ask_by_author(&self) -> bool {
        self.link.relay.is_some() && self.link.plan.role != Role::Home && !self.not_by_author
    }

    /// Whose events are to be asked for; `None`: everybody's.
    fn wanted(&self) -> Option<Arc<HashSet<AuthorKey>>> {
        let limits = self.link.relay.filter(|_| self.may_ask_by_author())?;
        let authors = self.in_scope()?;
        by_author::fit(authors.len(), &limits).then_some(authors)
    }

    fn filters(&self, authors: Option<&HashSet<AuthorKey>>) -> Vec<Filter> {
        let filter = self.link.filter();
        let (Some(authors), Some(limits)) = (authors, &self.link.relay) else {
            return vec![filter];
        };
        let graph = Arc::clone(&self.link.graph.borrow());
        // Members, then N1, then N2, each the most followed first.
        let near = graph.ranked.iter().map(|author| author.key);
        let lists = by_author::lists(authors, near, limits);
        let filters = lists.into_iter().map(|list| {
            let keys = list.into_iter().map(PublicKey::from_byte_array);
            filter.clone().authors(keys)
        });
        filters.collect()
    }

    /// The relay is asked for everybody's from now on, if it was asked by author; else the link ends.
    fn give_up_authors(&mut self, why: LinkEnd) -> Result<(), LinkEnd> {
        if self.authors.is_none() {
            return Err(why);
        }
        tracing::warn!(
            peer = %self.link.plan.address, ?why,
            "live link: the relay does not take subscriptions by author: it is asked for everybody's events"
        );
        self.not_by_author = true;
        Ok(())
    }

    /// The scope has changed: the peer is asked anew, if that is about authors it was asked for.
    pub(super) fn scope_has_changed(&mut self) {
        if self.link.plan.direction.is_down()
            && self.again_at.is_none()
            && self.wanted() != self.authors
        {
            let now = Instant::now();
            self.again_at = Some(now + self.changes.next(LIVE_ASKED_ANEW_FIRST, now));
        }
    }

    /// The peer has shown otherwise that it is alive.
    pub(super) fn is_alive(&mut self) {
        self.heard_at = Instant::now();
    }

    /// What comes next. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Heard, LinkEnd> {
        let mut events = Vec::new();
        let silent_until = match &self.probe {
            Some((_, asked_at)) => *asked_at + STEP_DEADLINE,
            None => self.heard_at + LIVE_SILENCE,
        };
        let due = self.standing.as_ref().and_then(|standing| standing.due);
        let news = async {
            match &mut self.standing {
                Some(standing) => standing.next_batch(&mut events).await,
                None => std::future::pending().await,
            }
        };
        let probe = async {
            match &mut self.probe {
                Some((request, _)) => request.next().await,
                None => std::future::pending().await,
            }
        };
        let lost = |error: ConversationError| LinkEnd::Lost(error.to_string());
        let news = tokio::select! {
            news = news => news.map_err(lost)?,
            answer = probe => {
                answer.map_err(lost)?;
                self.heard_at = Instant::now();
                self.probe = None;
                return Ok(Heard::Nothing);
            }
            () = at(self.again_at) => {
                self.again_at = None;
                return Ok(Heard::Again);
            }
            () = at(due) => {
                self.give_up_authors(LinkEnd::Lost("no end of what is stored".to_owned()))?;
                return Ok(Heard::Again);
            }
            () = sleep_until(silent_until) => {
                if self.probe.is_some() {
                    return Err(LinkEnd::Lost("no sign of life".to_owned()));
                }
                // Nobody has an event with this id; the answer is that there is none.
                let request = self.conversation.fetch(&[[0; 32]]).await.map_err(lost)?;
                self.probe = Some((request, Instant::now()));
                return Ok(Heard::Nothing);
            }
        };
        let now = Instant::now();
        self.heard_at = now;
        match news {
            None => Ok(Heard::Events(events)),
            Some(SubscriptionNews::CaughtUp) => Ok(Heard::CaughtUpAgain),
            Some(SubscriptionNews::Closed {
                prefix: ReasonPrefix::RateLimited,
                ..
            }) => {
                self.standing = None;
                self.again_at = Some(now + self.behind.next(LIVE_EXCHANGE_AGAIN / 5, now));
                Ok(Heard::Nothing)
            }
            Some(SubscriptionNews::Closed { text, .. }) => {
                self.give_up_authors(LinkEnd::Refused(text))?;
                Ok(Heard::Again)
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_it_goes_on_and_begin_anew_after_a_quiet_time() {
        let (mut pauses, first) = (Pauses::default(), Duration::from_secs(1));
        let mut now = Instant::now();
        let mut seconds = Vec::new();
        for _ in 0..8 {
            seconds.push(pauses.next(first, now).as_secs());
            now += Duration::from_secs(1);
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 32, 32]);
        now += LIVE_SILENCE + Duration::from_secs(32);
        assert_eq!(pauses.next(first, now), first);
    }
}
