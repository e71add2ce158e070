//! Keeps the live links that there should be: one task that knows of all of them.
//!
//! ```text
//! peers, options, halted, accepted links ─► look ─► choice (pure) ─► links: dial, end ─► news, ends ─► look again
//!                                                                      └─► exchanges: one after each standing
//! ```
//!
//! Peers are those of runs, as they change. A peer that goes away is dialled again, at first soon, later seldom; meanwhile
//! the next one takes its place. Where nothing may be shared (D16), or the configuration says no, there are no links,
//! neither ours nor those of others. Worst case: the links that there may be, and as many being dialled. Nothing is
//! looked at while nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::asking::{Said, ask};
use super::board::{LinkStats, LiveBoard};
use super::candidates::{Candidate, Dialled, Who};
use super::choice::{Accepted, Reach, View, decide};
use super::exchanges::Exchanges;
use super::link::{Link, LinkEnd, LinkNews};
use super::options::LiveOptions;
use crate::graph::Graph;
use crate::home::HomeWrite;
use crate::ingest::{Ingest, Scope};
use crate::limits::{LIVE_QUIET_LOOK, LIVE_RELAY_LINKS_MAX};
use crate::peer::{Direction, PeerAddress, PeerId, Target};
use crate::plugin::{AskedAbout, Plugin, Screen};
use crate::random::Random;
use crate::recent_ids::BroughtByPeers;
use crate::relay_client::Dial;
use crate::relay_server::AcceptedLinks;
use crate::sync::{ExchangePlan, Neighbours, Runner, SyncOptions};
use crate::tasks::TaskGroup;
use crate::time::Clock;

/// Peers that are asked at a time who they are.
const ASKED_AT_ONCE: usize = 8;
/// News of links that wait to be heard.
const NEWS_WAITING: usize = 64;

/// What live links work with.
#[derive(Debug, Clone)]
pub struct LiveContext {
    /// Makes the exchanges, and knows the peers.
    pub runner: Runner,
    /// The door to our store.
    pub ingest: Ingest,
    /// Opens byte streams to peers.
    pub dialer: Arc<dyn Dial>,
    /// Time.
    pub clock: Clock,
    /// For pauses that do not all end at once.
    pub random: Random,
    /// For all that belongs to links; ended by whoever made it.
    pub tasks: TaskGroup,
    /// Our PeerID.
    pub known_as: watch::Receiver<PeerId>,
    /// Whether, and how many.
    pub options: watch::Receiver<LiveOptions>,
    /// Configured peers and scope.
    pub sync_options: watch::Receiver<Arc<SyncOptions>>,
    /// Peers that were found, and those that are out.
    pub neighbours: watch::Receiver<Arc<Neighbours>>,
    /// Whose events are shared under `n2`.
    pub graph: watch::Receiver<Arc<Graph>>,
    /// Why nothing may be shared at present.
    pub halted: watch::Receiver<Option<String>>,
    /// What peers brought lately.
    pub brought: BroughtByPeers,
    /// Asked about what comes over links, if that is wanted.
    pub plugin: Plugin,
    /// Links that others open.
    pub accepted: Arc<AcceptedLinks>,
    /// Where it is told how links are.
    pub board: Arc<LiveBoard>,
}

type Ended = BoxFuture<'static, (u64, LinkEnd)>;
type Asked = BoxFuture<'static, (PeerAddress, Said)>;

pub(super) struct Keeper {
    pub(super) context: LiveContext,
    pub(super) exchanges: Arc<Exchanges>,
    pub(super) candidates: BTreeMap<PeerAddress, Candidate>,
    links: FuturesUnordered<Ended>,
    asked: FuturesUnordered<Asked>,
    news: mpsc::Sender<(u64, LinkNews)>,
    heard: mpsc::Receiver<(u64, LinkNews)>,
    next_number: u64,
    /// Who was out, and who we were, at the last look.
    pub(super) judged_by: (Arc<Neighbours>, PeerId),
}

impl Keeper {
    pub(super) fn new(context: LiveContext, exchanges: Arc<Exchanges>) -> Self {
        let (news, heard) = mpsc::channel(NEWS_WAITING);
        context.board.show(&context.accepted);
        let judged_by = (
            Arc::clone(&context.neighbours.borrow()),
            *context.known_as.borrow(),
        );
        Self {
            context,
            exchanges,
            candidates: BTreeMap::new(),
            links: FuturesUnordered::new(),
            asked: FuturesUnordered::new(),
            news,
            heard,
            next_number: 0,
            judged_by,
        }
    }

    /// Keeps links until it is dropped, or whoever told it of peers has gone.
    pub(super) async fn run(mut self) {
        let mut context = self.context.clone();
        let mut accepted = context.accepted.changed();
        loop {
            let wake_at = self.look();
            let due = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let still_told = tokio::select! {
                Some((number, news)) = self.heard.recv() => { self.take_news(number, news); true }
                Some((number, end)) = self.links.next() => { self.take_end(number, &end); true }
                Some((address, said)) = self.asked.next() => { self.take_said(&address, said); true }
                () = due => true,
                changed = accepted.changed() => changed.is_ok(),
                changed = context.options.changed() => changed.is_ok(),
                changed = context.sync_options.changed() => changed.is_ok(),
                changed = context.neighbours.changed() => changed.is_ok(),
                changed = context.graph.changed() => changed.is_ok(),
                changed = context.halted.changed() => changed.is_ok(),
                changed = context.known_as.changed() => changed.is_ok(),
            };
            if !still_told {
                return;
            }
        }
    }

    /// Brings links into line with what is wanted; gives when to look again at the latest.
    pub(super) fn look(&mut self) -> Option<Instant> {
        let options = *self.context.options.borrow();
        let may_share = self.context.halted.borrow().is_none();
        self.context.board.set(options.enabled, options.links_max);
        if !options.enabled || !may_share {
            self.context.accepted.allow(0);
            self.candidates.values().for_each(stop);
            return None;
        }
        let own = *self.context.known_as.borrow();
        let quiet_look = self.take_peers(own);
        self.take_who_is_out(own);
        self.end_what_changed();
        let now = Instant::now();
        self.ask_who(now);
        self.link_stations(own, options.links_max, now);
        self.link_relays(own, now);
        let waiting = self.candidates.values().filter(|one| one.link.is_none());
        waiting
            .filter_map(|one| one.again_at)
            .filter(|at| *at > now)
            .chain(quiet_look)
            .min()
    }

    /// Takes over who the peers are, but for those in their quiet hours; gives when to look again for these.
    fn take_peers(&mut self, own: PeerId) -> Option<Instant> {
        let mut peers = self.context.runner.peers();
        let have_hours = peers.iter().any(|peer| peer.quiet_hours.is_some());
        let now = self.context.clock.unix_seconds();
        peers.retain(|peer| peer.quiet_hours.is_none_or(|hours| !hours.include(now)));
        let wanted = |address: &PeerAddress| peers.iter().any(|peer| peer.address == *address);
        for candidate in self.candidates.values().filter(|one| !wanted(&one.address)) {
            stop(candidate);
        }
        // One whose link is being ended is kept until it has.
        self.candidates
            .retain(|address, one| wanted(address) || one.link.is_some());
        for peer in peers {
            if peer.address.peer_id() != Some(own) {
                self.candidates
                    .entry(peer.address.clone())
                    .or_insert_with(|| Candidate::new(peer.address));
            }
        }
        have_hours.then(|| Instant::now() + LIVE_QUIET_LOOK)
    }

    /// What goes over a link with this peer. Into a home relay that is written by its `import` command nothing goes by
    /// EVENT: its plugin would run.
    fn plan_for(&self, address: &PeerAddress) -> Option<ExchangePlan> {
        let mut plan = self.context.runner.plan_for(address).ok()?;
        let home = self.context.sync_options.borrow().home.clone();
        if home.is_some_and(|home| home.relay == *address && home.write == HomeWrite::Import) {
            if !plan.direction.is_down() {
                return None;
            }
            plan.direction = Direction::Down;
        }
        Some(plan)
    }

    /// A link goes by the plan that it was begun with: when that changes, another takes its place. Authors come and go
    /// without that.
    fn end_what_changed(&self) {
        for candidate in self.candidates.values() {
            let Some(link) = &candidate.link else {
                continue;
            };
            match self.plan_for(&candidate.address) {
                Some(plan) if is_same_link(&plan, &link.plan) => {
                    link.scope.send_if_modified(|scope| {
                        let is_new = !shares_the_same(scope, &plan.scope);
                        if is_new {
                            *scope = plan.scope;
                        }
                        is_new
                    });
                }
                _ => link.stop.cancel(),
            }
        }
    }

    fn ask_who(&mut self, now: Instant) {
        for candidate in self.candidates.values_mut() {
            if self.asked.len() >= ASKED_AT_ONCE {
                return;
            }
            if candidate.who == Who::Unknown && candidate.link.is_none() && candidate.is_due(now) {
                candidate.who = Who::Asked;
                let dialer = Arc::clone(&self.context.dialer);
                self.asked
                    .push(Box::pin(ask(dialer, candidate.address.clone())));
            }
        }
    }

    /// By which address each station is dialled: through a tunnel if there is one, since that proves who it is.
    fn stations(&self) -> BTreeMap<PeerId, &Candidate> {
        let mut stations: BTreeMap<PeerId, &Candidate> = BTreeMap::new();
        for candidate in self.candidates.values() {
            if let Who::Station(peer) = candidate.who {
                let known = stations.entry(peer).or_insert(candidate);
                let is_better = matches!(candidate.address.target(), Target::Station(_));
                if known.link.is_none() && (is_better || candidate.link.is_some()) {
                    *known = candidate;
                }
            }
        }
        stations
    }

    fn link_stations(&mut self, own: PeerId, links_max: usize, now: Instant) {
        let stations = self.stations();
        let reach: BTreeMap<PeerId, Reach> = stations
            .iter()
            .map(|(peer, candidate)| (*peer, reach_of(candidate, now)))
            .collect();
        let addresses: BTreeMap<PeerId, PeerAddress> = stations
            .into_iter()
            .map(|(peer, candidate)| (peer, candidate.address.clone()))
            .collect();
        let links = self.context.accepted.list();
        let accepted: Vec<Accepted> = links
            .iter()
            .map(|link| Accepted {
                number: link.number,
                station: link.station,
            })
            .collect();
        let decision = decide(&View {
            own,
            links_max,
            stations: &reach,
            accepted: &accepted,
        });
        for number in decision.end_accepted {
            self.context.accepted.end(number);
        }
        self.context.accepted.allow(decision.accept_max);
        for peer in decision.end_dialled {
            if let Some(candidate) = self.candidates.get(&addresses[&peer]) {
                stop(candidate);
            }
        }
        for peer in decision.dial {
            self.dial(&addresses[&peer], own);
        }
    }

    fn link_relays(&mut self, own: PeerId, now: Instant) {
        let relays = self.candidates.values();
        let relays = relays.filter(|one| matches!(one.who, Who::Relay(_)));
        let linked = relays.clone().filter(|one| one.link.is_some()).count();
        let free = relays.filter(|one| one.link.is_none() && one.is_due(now));
        let to_dial: Vec<PeerAddress> = free
            .take(LIVE_RELAY_LINKS_MAX.saturating_sub(linked))
            .map(|one| one.address.clone())
            .collect();
        for address in to_dial {
            self.dial(&address, own);
        }
    }

    fn dial(&mut self, address: &PeerAddress, own: PeerId) {
        let context = &self.context;
        let (Some(plan), Some(candidate)) =
            (self.plan_for(address), self.candidates.get_mut(address))
        else {
            return;
        };
        self.next_number += 1;
        let number = self.next_number;
        let stop = CancellationToken::new();
        let stats = Arc::<LinkStats>::default();
        let (scope, shared) = watch::channel(Arc::clone(&plan.scope));
        let peer = address.as_str();
        let link = Link {
            number,
            plan: plan.clone(),
            scope: shared,
            relay: match candidate.who {
                Who::Relay(limits) => Some(limits),
                Who::Unknown | Who::Asked | Who::NoPeer | Who::Station(_) => None,
            },
            graph: context.graph.clone(),
            own,
            ingest: context.ingest.clone(),
            dialer: Arc::clone(&context.dialer),
            clock: context.clock.clone(),
            tasks: context.tasks.child(1),
            stats: Arc::clone(&stats),
            brought: context.brought.of(peer),
            screen: Screen::before(&context.plugin, AskedAbout::Live, peer, &context.clock),
            news: self.news.clone(),
            stop: stop.clone(),
        };
        candidate.link = Some(Dialled {
            number,
            plan,
            scope,
            stop,
            stands: false,
            stats,
        });
        let carried = context.tasks.spawn(link.carry());
        self.links.push(Box::pin(async move {
            let end = match carried {
                Ok(carried) => match carried.await {
                    Ok(Some(end)) => end,
                    // The station is ending, or the link panicked.
                    Ok(None) => LinkEnd::Asked,
                    Err(failure) => LinkEnd::Local(failure.to_string()),
                },
                Err(full) => LinkEnd::Local(full.to_string()),
            };
            (number, end)
        }));
    }
}

/// Whether a link with one plan serves the other, authors aside.
fn is_same_link(one: &ExchangePlan, other: &ExchangePlan) -> bool {
    one.address == other.address
        && one.direction == other.direction
        && one.bandwidth == other.bandwidth
        && one.scope.kinds == other.scope.kinds
}

fn shares_the_same(one: &Scope, other: &Scope) -> bool {
    match (&one.authors, &other.authors) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn reach_of(candidate: &Candidate, now: Instant) -> Reach {
    match &candidate.link {
        Some(link) if link.stop.is_cancelled() => Reach::Ending,
        Some(link) if link.stands => Reach::Linked,
        Some(_) => Reach::Dialling,
        None if candidate.is_due(now) => Reach::Free,
        None => Reach::Away,
    }
}

pub(super) fn stop(candidate: &Candidate) {
    if let Some(link) = &candidate.link {
        link.stop.cancel();
    }
}
