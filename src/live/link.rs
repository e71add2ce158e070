//! One live link that we dialled, from connecting until it ends.
//!
//! connect ─► subscribe ─► EOSE: it stands ─► an exchange is asked for ─► what is new goes both ways
//!
//! Gives the reason for its end in every case. Whoever asked for it hears when it stands, and when an exchange with the
//! peer is needed: after standing, so that no gap stays, and whenever more was new than it carries. Costs nothing while
//! nothing happens, but for a word a minute, since connections die without saying so. Worst case: the bounds of
//! `arriving`, `pushing` and `listening` and of the conversation below. Cancel safe: events that came are still stored.

use std::sync::Arc;

use nostr::event::Kind;
use nostr::filter::Filter;
use nostr::types::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use constellation_eventstore::KindSet;

use super::arriving::{ArrivalError, Arriving};
use super::board::LinkStats;
use super::listening::{EVENTS_AT_ONCE, Heard, Listening};
use super::pushing::{PushError, Pushing};
use crate::graph::Graph;
use crate::ingest::{Ingest, IngestError, Scope};
use crate::limits::{
    CONNECT_DEADLINE, DOWNLOADS_IN_FLIGHT, LIVE_OVERLAP, LIVE_PUSH_BYTES_IN_FLIGHT,
    LIVE_PUSHES_IN_FLIGHT, STEP_DEADLINE,
};
use crate::peer::PeerId;
use crate::plugin::Screen;
use crate::recent_ids::Brought;
use crate::relay_client::{ConnectOptions, Conversation, ConversationLimits, Dial, connect_over};
use crate::sync::ExchangePlan;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::PeerLimits;

/// Bounds of a link's conversation: little is under way at a time.
const CONVERSATION: ConversationLimits = ConversationLimits {
    // A subscription, its successor, and the question whether the peer is alive; by author there are more of them.
    requests_max: DOWNLOADS_IN_FLIGHT,
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
    /// What the peer can be asked, if it is no station: it is asked for what is not old. A station tells of all that is new.
    pub(super) relay: Option<PeerLimits>,
    /// Whose events matter most.
    pub(super) graph: watch::Receiver<Arc<Graph>>,
    pub(super) own: PeerId,
    pub(super) ingest: Ingest,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) clock: Clock,
    /// For its conversation.
    pub(super) tasks: TaskGroup,
    pub(super) stats: Arc<LinkStats>,
    /// What the peer brought lately.
    pub(super) brought: Brought,
    /// Asked before what comes is stored, if that is wanted.
    pub(super) screen: Screen,
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
        match self.talk(&conversation).await {
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

    /// What the peer is asked for, authors aside.
    pub(super) fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        if let KindSet::Only(kinds) = &self.plan.scope.kinds {
            filter = filter.kinds(kinds.iter().map(|kind| Kind::from_u16(*kind)));
        }
        if self.relay.is_none() {
            return filter.limit(0);
        }
        let overlap = LIVE_OVERLAP.as_secs();
        let since = self.clock.unix_seconds().saturating_sub(overlap);
        filter.since(Timestamp::from_secs(since))
    }

    async fn talk(&self, conversation: &Conversation) -> Result<(), LinkEnd> {
        let mut listening = Listening::new(self, conversation);
        let early = if self.plan.direction.is_down() {
            listening.begin().await?
        } else {
            Vec::new()
        };
        let mut published = self.ingest.published();
        // Before the exchange is asked for: it covers all that was stored up to here.
        let position = published.borrow_and_update().sequence;
        let mut pushing = Pushing::over(self, conversation, position);
        let mut arriving = Arriving::over(self, self.filter());
        arriving.take(early).map_err(LinkEnd::of_arrivals)?;
        self.tell(LinkNews::Stands).await;
        let mut scope = self.scope.clone();
        // What changed while it was being asked.
        scope.borrow_and_update();
        listening.scope_has_changed();
        let offers = self.plan.direction.is_up();
        loop {
            self.stats.have_passed(conversation.counters());
            tokio::select! {
                heard = listening.next(), if arriving.has_room() => match heard? {
                    Heard::Events(events) => arriving.take(events).map_err(LinkEnd::of_arrivals)?,
                    Heard::Nothing => {}
                    Heard::Again => listening.ask_again().await?,
                    Heard::CaughtUpAgain => self.tell(LinkNews::NeedsExchange).await,
                },
                // Whoever said it goes by what was said last.
                Ok(()) = scope.changed() => listening.scope_has_changed(),
                settled = arriving.progress(), if !arriving.is_idle() => {
                    settled.map_err(LinkEnd::of_arrivals)?;
                }
                changed = published.changed(), if offers => match changed {
                    Ok(()) => pushing.hear(),
                    Err(_) => return Err(LinkEnd::Local("the store is closing".to_owned())),
                },
                pushed = pushing.progress(), if offers => {
                    let pushed = pushed.map_err(LinkEnd::of_pushes)?;
                    if pushed.heard {
                        listening.is_alive();
                    }
                    if pushed.behind {
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
