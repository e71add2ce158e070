//! One live link that we dialled, from connecting until it ends.
//!
//! connect ─► subscribe ─► EOSE: it stands ─► an exchange is asked for ─► what is new goes both ways
//!
//! Gives the reason for its end in every case. Whoever asked for it hears when it stands, and when an exchange with the
//! peer is needed: after standing, so that no gap stays, and whenever more was new than it carries. Costs nothing while
//! nothing happens, but for a word a minute, since connections die without saying so. Worst case: the bounds of
//! `arriving` and `pushing` and of the conversation below. Cancel safe: events that came are still stored.

use std::sync::Arc;
use std::time::Duration;

use nostr::event::Kind;
use nostr::filter::Filter;
use nostr::types::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use constellation_eventstore::KindSet;

use super::arriving::{ArrivalError, Arriving, CameFromPeer};
use super::board::LinkStats;
use super::pushing::{PushError, Pushed, Pushing};
use crate::ingest::{Ingest, IngestError, Scope};
use crate::limits::{
    CONNECT_DEADLINE, LIVE_EXCHANGE_AGAIN, LIVE_OVERLAP, LIVE_PUSH_BYTES_IN_FLIGHT,
    LIVE_PUSHES_IN_FLIGHT, LIVE_RECENT_IDS, LIVE_SILENCE, STEP_DEADLINE,
};
use crate::peer::PeerId;
use crate::protocol::ReasonPrefix;
use crate::recent_ids::RecentIds;
use crate::relay_client::{
    ConnectOptions, Conversation, ConversationLimits, Dial, Request, Subscription,
    SubscriptionNews, connect_over,
};
use crate::sync::ExchangePlan;
use crate::tasks::TaskGroup;
use crate::time::Clock;

/// Events taken from the subscription at a time.
const EVENTS_AT_ONCE: usize = 256;
/// Times in a row that too much was new before pauses stop growing.
const BEHIND_DOUBLED_MAX: u32 = 5;

/// Bounds of a link's conversation: little is under way at a time.
const CONVERSATION: ConversationLimits = ConversationLimits {
    requests_max: 4,
    events_queued_max: EVENTS_AT_ONCE,
    event_bytes_queued_max: 1 << 20,
    publications_max: 2 * LIVE_PUSHES_IN_FLIGHT,
    outgoing_bytes_max: 2 * LIVE_PUSH_BYTES_IN_FLIGHT,
    garbage_max: 100,
    write_stall: STEP_DEADLINE,
};

/// What a link says before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkNews {
    /// It stands: from now on nothing new is missed.
    Stands,
    /// Something may be missing on either side.
    NeedsExchange,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkEnd {
    /// We wanted it to.
    Asked,
    /// There was no connection, or no answer.
    NotReached(String),
    /// The peer does not want it.
    Refused(String),
    /// It stood, and was lost.
    Lost(String),
    /// The peer sent too much that is forged.
    Forgeries(String),
    /// Our own store failed.
    Local(String),
}

/// What a link is made of.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    /// With whom, which kinds are shared, and which way.
    pub(super) plan: ExchangePlan,
    /// What is shared at the moment: authors come and go.
    pub(super) scope: watch::Receiver<Arc<Scope>>,
    /// Whether the peer is a station, which tells of all that is new; else it is asked for what is not old.
    pub(super) is_station: bool,
    pub(super) own: PeerId,
    pub(super) ingest: Ingest,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) clock: Clock,
    /// For its conversation.
    pub(super) tasks: TaskGroup,
    pub(super) stats: Arc<LinkStats>,
    /// With its number.
    pub(super) news: mpsc::Sender<(u64, LinkNews)>,
    pub(super) stop: CancellationToken,
}

impl Link {
    /// Carries what is new until it ends.
    pub(super) async fn carry(self) -> LinkEnd {
        let stop = self.stop.clone();
        let ended = stop.run_until_cancelled(Box::pin(self.run())).await;
        self.tasks.end().await;
        ended.unwrap_or(LinkEnd::Asked)
    }

    async fn run(&self) -> LinkEnd {
        let conversation = match self.connect().await {
            Ok(conversation) => conversation,
            Err(why) => return LinkEnd::NotReached(why),
        };
        let mut subscription = None;
        if self.plan.direction.is_down() {
            match self.subscribe(&conversation).await {
                Ok(open) => subscription = Some(open),
                Err(end) => return end,
            }
        }
        match self.talk(&conversation, subscription).await {
            Ok(()) => LinkEnd::Asked,
            Err(end) => end,
        }
    }

    async fn connect(&self) -> Result<Conversation, String> {
        let options = ConnectOptions {
            own: Some(self.own),
            ..ConnectOptions::default()
        };
        let address = &self.plan.address;
        let opened = async {
            let stream = self.dialer.dial(address, CONNECT_DEADLINE).await?;
            let stream = match self.plan.bandwidth {
                Some(bandwidth) => bandwidth.throttle(stream),
                None => stream,
            };
            connect_over(stream, address.url(), &options).await
        };
        let socket = match timeout(CONNECT_DEADLINE, Box::pin(opened)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("timed out".to_owned()),
        };
        Conversation::start(socket, CONVERSATION, &self.tasks).map_err(|error| error.to_string())
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        if let KindSet::Only(kinds) = &self.plan.scope.kinds {
            filter = filter.kinds(kinds.iter().map(|kind| Kind::from_u16(*kind)));
        }
        if self.is_station {
            return filter.limit(0);
        }
        let overlap = LIVE_OVERLAP.as_secs();
        let since = self.clock.unix_seconds().saturating_sub(overlap);
        filter.since(Timestamp::from_secs(since))
    }

    /// Opens the subscription and waits until the peer says that what comes is new.
    async fn subscribe(&self, conversation: &Conversation) -> Result<Open, LinkEnd> {
        let filter = self.filter();
        let lost = |why: String| LinkEnd::NotReached(why);
        let subscribed = conversation.subscribe(std::slice::from_ref(&filter));
        let mut subscription = subscribed.await.map_err(|error| lost(error.to_string()))?;
        let mut early = Vec::new();
        let deadline = Instant::now() + STEP_DEADLINE;
        loop {
            // A relay that is no station sends what it stores first: as much of it as is taken at a time waits here.
            let next = subscription.next_batch(&mut early, EVENTS_AT_ONCE);
            match tokio::time::timeout_at(deadline, next).await {
                Err(_) => return Err(lost("no end of what is stored".to_owned())),
                Ok(Err(error)) => return Err(lost(error.to_string())),
                Ok(Ok(Some(SubscriptionNews::Closed { text, .. }))) => {
                    return Err(LinkEnd::Refused(text));
                }
                Ok(Ok(Some(SubscriptionNews::CaughtUp))) => break,
                Ok(Ok(None)) if early.len() < EVENTS_AT_ONCE => {}
                // Too many to wait for: the exchange that follows brings whatever is missed.
                Ok(Ok(None)) => break,
            }
        }
        Ok(Open {
            subscription,
            filter,
            early,
        })
    }

    async fn talk(&self, conversation: &Conversation, open: Option<Open>) -> Result<(), LinkEnd> {
        let came: CameFromPeer = Arc::new(std::sync::Mutex::new(RecentIds::new(LIVE_RECENT_IDS)));
        let mut published = self.ingest.published();
        // Before the exchange is asked for: it covers all that was stored up to here.
        let position = published.borrow_and_update().sequence;
        let mut pushing = Pushing::new(
            conversation,
            &self.ingest,
            &self.clock,
            &self.scope,
            &self.stats,
            &came,
            position,
        );
        let (subscription, filter, early) = match open {
            Some(open) => (Some(open.subscription), open.filter, open.early),
            None => (None, self.filter(), Vec::new()),
        };
        let mut arriving = Arriving::new(
            &self.ingest,
            &self.clock,
            self.plan.address.as_str(),
            &self.scope,
            filter,
            &self.stats,
            &came,
        );
        arriving.take(early).map_err(LinkEnd::of_arrivals)?;
        self.tell(LinkNews::Stands).await;
        let mut listening = Listening {
            conversation,
            subscription,
            again_at: None,
            behind: 0,
            heard_at: Instant::now(),
            probe: None,
        };
        let offers = self.plan.direction.is_up();
        loop {
            self.stats.have_passed(conversation.counters());
            tokio::select! {
                heard = listening.next(), if arriving.has_room() => match heard? {
                    Heard::Events(events) => arriving.take(events).map_err(LinkEnd::of_arrivals)?,
                    Heard::Nothing => {}
                    Heard::Again => listening.subscribe(&self.filter()).await?,
                    Heard::CaughtUpAgain => self.tell(LinkNews::NeedsExchange).await,
                },
                settled = arriving.progress(), if !arriving.is_idle() => {
                    settled.map_err(LinkEnd::of_arrivals)?;
                }
                changed = published.changed(), if offers => match changed {
                    Ok(()) => pushing.hear(),
                    Err(_) => return Err(LinkEnd::Local("the store is closing".to_owned())),
                },
                pushed = pushing.progress(), if offers => {
                    listening.heard_at = Instant::now();
                    if pushed.map_err(LinkEnd::of_pushes)? == Pushed::Behind {
                        self.tell(LinkNews::NeedsExchange).await;
                    }
                }
            }
        }
    }

    async fn tell(&self, news: LinkNews) {
        // Whoever asked for the link has gone: it is about to be ended.
        let _ = self.news.send((self.number, news)).await;
    }
}

/// A subscription that stands.
struct Open {
    subscription: Subscription,
    filter: Filter,
    /// What came before it stood.
    early: Vec<bytes::Bytes>,
}

/// What was heard of the peer.
enum Heard {
    Events(Vec<bytes::Bytes>),
    Nothing,
    /// It is time to subscribe again.
    Again,
    /// The new subscription stands.
    CaughtUpAgain,
}

/// Our ear at the peer.
struct Listening<'c> {
    conversation: &'c Conversation,
    /// `None` while too much is new at the peer, and where nothing is fetched.
    subscription: Option<Subscription>,
    again_at: Option<Instant>,
    /// How often in a row too much was new.
    behind: u32,
    heard_at: Instant,
    /// A question to which there is always an answer.
    probe: Option<(Request, Instant)>,
}

impl Listening<'_> {
    /// What comes next. Cancel safe.
    async fn next(&mut self) -> Result<Heard, LinkEnd> {
        let mut events = Vec::new();
        let silent_until = match &self.probe {
            Some((_, asked_at)) => *asked_at + STEP_DEADLINE,
            None => self.heard_at + LIVE_SILENCE,
        };
        let subscription = async {
            match &mut self.subscription {
                Some(subscription) => subscription.next_batch(&mut events, EVENTS_AT_ONCE).await,
                None => std::future::pending().await,
            }
        };
        let probe = async {
            match &mut self.probe {
                Some((request, _)) => request.next().await,
                None => std::future::pending().await,
            }
        };
        let again = async {
            match self.again_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let lost = |error: crate::relay_client::ConversationError| LinkEnd::Lost(error.to_string());
        let news = tokio::select! {
            news = subscription => news.map_err(lost)?,
            answer = probe => {
                answer.map_err(lost)?;
                self.heard_at = Instant::now();
                self.probe = None;
                return Ok(Heard::Nothing);
            }
            () = again => {
                self.again_at = None;
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
        let since_last = self.heard_at.elapsed();
        self.heard_at = Instant::now();
        match news {
            None => Ok(Heard::Events(events)),
            Some(SubscriptionNews::CaughtUp) => Ok(Heard::CaughtUpAgain),
            Some(SubscriptionNews::Closed {
                prefix: ReasonPrefix::RateLimited,
                ..
            }) => {
                if since_last >= LIVE_SILENCE {
                    self.behind = 0;
                }
                let doubled = self.behind.min(BEHIND_DOUBLED_MAX);
                self.behind += 1;
                self.subscription = None;
                let pause: Duration = LIVE_EXCHANGE_AGAIN / 5 * (1 << doubled);
                self.again_at = Some(Instant::now() + pause);
                Ok(Heard::Nothing)
            }
            Some(SubscriptionNews::Closed { text, .. }) => Err(LinkEnd::Refused(text)),
        }
    }

    async fn subscribe(&mut self, filter: &Filter) -> Result<(), LinkEnd> {
        let subscribed = self.conversation.subscribe(std::slice::from_ref(filter));
        let subscription = subscribed.await;
        self.subscription = Some(subscription.map_err(|error| LinkEnd::Lost(error.to_string()))?);
        Ok(())
    }
}

impl LinkEnd {
    fn of_arrivals(error: ArrivalError) -> Self {
        match error {
            ArrivalError::Ingest(error) => Self::of_store(&error),
            ArrivalError::Forgeries { .. } => Self::Forgeries(error.to_string()),
        }
    }

    fn of_pushes(error: PushError) -> Self {
        match error {
            PushError::Ingest(error) => Self::of_store(&error),
            PushError::Unanswered | PushError::Conversation(_) => Self::Lost(error.to_string()),
        }
    }

    fn of_store(error: &IngestError) -> Self {
        Self::Local(error.to_string())
    }
}
