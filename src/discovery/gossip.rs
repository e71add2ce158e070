//! Cards going round: what is new is handed on at once, and what was missed is found by comparing.
//!
//! A change (our own card, or one that came) is pushed to a few stations chosen at random, who hand it on in turn; a
//! station that comes into reach, and one at random every minute, is compared with. What was on disk at the start is no
//! change. Invariant: with one station there is one exchange at a time, so a slow one gathers what is to be told to it, and
//! then gets that at once. The registry is asked on the runtime: its lock is never held over the disk (`keeping.rs`). Worst
//! case at each change: `PUSHED_TO` streams; n stations know of it after about log n steps. Cards are small and signed:
//! whoever hands them on need not be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::exchange::{ExchangeError, compare, push};
use super::registry::Registry;
use crate::peer::PeerId;
use crate::random::Random;
use crate::trust::Cursor;
use crate::tunnel::{Carrier, CarrierState};

/// Stations to which a change is pushed.
const PUSHED_TO: usize = 8;
/// Comparisons are begun while fewer than so many exchanges are under way.
const AT_ONCE: usize = 8;
/// Exchanges under way at a time.
const UNDER_WAY_MAX: usize = 64;
/// Changes gather for so long: a station that starts learns of many at once.
const GATHER_FOR: Duration = Duration::from_millis(100);
/// How often a station chosen at random is compared with.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// How soon what failed with a station in reach is tried again; each time after twice the pause, up to [`COMPARE_EVERY`].
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Keeps cards going round until dropped.
pub async fn gossip(carrier: Arc<dyn Carrier>, registry: Arc<Registry>, random: Random) {
    let mut versions = registry.version();
    let mut states = carrier.state();
    versions.mark_unchanged();
    let mut round = Round {
        carrier,
        pushed: registry.loaded(),
        registry,
        random,
        push_at: None,
        owed: BTreeMap::new(),
        busy: BTreeSet::new(),
        compared: BTreeSet::new(),
        again: BTreeMap::new(),
        pauses: BTreeMap::new(),
        under_way: FuturesUnordered::new(),
        next_compare: Instant::now() + COMPARE_EVERY,
    };
    loop {
        let in_reach = in_reach(&round.registry, &states);
        let next = round.start_what_is_due(&in_reach, Instant::now());
        tokio::select! {
            Some(ended) = round.under_way.next() => round.note(ended),
            changed = versions.changed() => {
                if changed.is_err() {
                    return;
                }
                round.push_at.get_or_insert_with(|| Instant::now() + GATHER_FOR);
            }
            changed = states.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
    }
}

/// How telling one station ended.
enum Ended {
    Compared(PeerId, Result<usize, ExchangeError>),
    /// With where to go on, if that was not all.
    Pushed(PeerId, Cursor, Result<Option<Cursor>, ExchangeError>),
}

type UnderWay = Pin<Box<dyn Future<Output = Ended> + Send>>;

struct Round {
    carrier: Arc<dyn Carrier>,
    registry: Arc<Registry>,
    random: Random,
    /// How far cards were pushed to somebody. What was there before is told by comparing.
    pushed: Cursor,
    /// When what has changed is pushed.
    push_at: Option<Instant>,
    /// Stations in reach to which is still to be pushed what has changed since then.
    owed: BTreeMap<PeerId, Cursor>,
    /// Stations with which an exchange is under way.
    busy: BTreeSet<PeerId>,
    /// Stations in reach that were compared with, or are being.
    compared: BTreeSet<PeerId>,
    /// When to try again with those with whom it failed, and how long the pause was.
    again: BTreeMap<PeerId, Instant>,
    pauses: BTreeMap<PeerId, Duration>,
    under_way: FuturesUnordered<UnderWay>,
    next_compare: Instant,
}

impl Round {
    /// Gives when something is due again.
    fn start_what_is_due(&mut self, in_reach: &BTreeSet<PeerId>, now: Instant) -> Instant {
        self.compared.retain(|peer| in_reach.contains(peer));
        self.again.retain(|peer, _| in_reach.contains(peer));
        self.pauses.retain(|peer, _| in_reach.contains(peer));
        self.owed.retain(|peer, _| in_reach.contains(peer));
        let fresh: Vec<PeerId> = in_reach.difference(&self.compared).copied().collect();
        for peer in fresh {
            let is_due = self.again.get(&peer).is_none_or(|at| *at <= now);
            if is_due && self.under_way.len() < AT_ONCE {
                self.compare(peer);
            }
        }
        if self.push_at.is_some_and(|at| at <= now) {
            self.push_at = None;
            let since = std::mem::replace(&mut self.pushed, self.registry.end());
            for peer in chosen(in_reach, PUSHED_TO, &self.random) {
                // Who is owed more gets that with it.
                self.owed.entry(peer).or_insert(since);
            }
        }
        let owed: Vec<PeerId> = self.owed.keys().copied().collect();
        for peer in owed {
            if self.again.get(&peer).is_none_or(|at| *at <= now) {
                self.push(peer);
            }
        }
        if self.next_compare <= now {
            self.next_compare = now + COMPARE_EVERY;
            if let [peer] = chosen(&self.registry.reachable(), 1, &self.random)[..] {
                self.compare(peer);
            }
        }
        // Without room nothing is begun before something ends, and that is told by itself.
        let has_room = self.under_way.len() < AT_ONCE;
        let again = self.again.iter();
        let again = again.filter(|(peer, _)| has_room && !self.busy.contains(*peer));
        let soonest = again.map(|(_, at)| at).chain(&self.push_at).min().copied();
        soonest.map_or(self.next_compare, |at| at.min(self.next_compare).max(now))
    }

    fn compare(&mut self, peer: PeerId) {
        if !self.busy.insert(peer) {
            return;
        }
        self.compared.insert(peer);
        self.again.remove(&peer);
        let (carrier, registry) = (Arc::clone(&self.carrier), Arc::clone(&self.registry));
        self.under_way.push(Box::pin(async move {
            Ended::Compared(peer, compare(carrier.as_ref(), &registry, peer).await)
        }));
    }

    fn push(&mut self, peer: PeerId) {
        // Stations that do not answer take all the room until their deadline: then it waits, as when it is busy.
        if self.busy.contains(&peer) || self.under_way.len() >= UNDER_WAY_MAX {
            return;
        }
        let Some(since) = self.owed.remove(&peer) else {
            return;
        };
        self.busy.insert(peer);
        self.again.remove(&peer);
        let (carrier, registry) = (Arc::clone(&self.carrier), Arc::clone(&self.registry));
        self.under_way.push(Box::pin(async move {
            let pushed = push(carrier.as_ref(), &registry, peer, since).await;
            Ended::Pushed(peer, since, pushed)
        }));
    }

    fn note(&mut self, ended: Ended) {
        let (Ended::Compared(peer, _) | Ended::Pushed(peer, ..)) = &ended;
        self.busy.remove(peer);
        match ended {
            Ended::Compared(peer, Ok(taken)) => {
                self.pauses.remove(&peer);
                tracing::debug!(%peer, taken, "compared cards");
            }
            Ended::Compared(peer, Err(error)) => {
                tracing::debug!(%peer, %error, "cannot compare cards");
                self.try_again(peer);
            }
            Ended::Pushed(peer, _, Ok(None)) => {
                self.pauses.remove(&peer);
            }
            Ended::Pushed(peer, _, Ok(Some(next))) => {
                // Everything before that was handed over, also what came to be owed meanwhile.
                self.owed.insert(peer, next);
            }
            Ended::Pushed(peer, since, Err(error)) => {
                tracing::debug!(%peer, %error, "cannot hand cards over");
                // Comparing hands over our own card only: what came from others is owed still.
                self.owed.insert(peer, since);
                self.try_again(peer);
            }
        }
    }

    /// Soon, and then ever later: it may be that it does not let us in.
    fn try_again(&mut self, peer: PeerId) {
        self.compared.remove(&peer);
        let pause = self.pauses.get(&peer).map_or(AGAIN_AFTER, |last| *last * 2);
        let pause = pause.min(COMPARE_EVERY);
        self.pauses.insert(peer, pause);
        self.again.insert(peer, Instant::now() + pause);
    }
}

/// Admitted stations with which there is a connection.
fn in_reach(registry: &Registry, states: &watch::Receiver<Arc<CarrierState>>) -> BTreeSet<PeerId> {
    let state = states.borrow().clone();
    let connected = state.links.keys().filter_map(|peer| peer.parse().ok());
    connected
        .filter(|peer| registry.is_admitted(peer))
        .collect()
}

/// At most `count` of them, at random.
fn chosen(peers: &BTreeSet<PeerId>, count: usize, random: &Random) -> Vec<PeerId> {
    let mut keyed: Vec<([u8; 8], PeerId)> =
        peers.iter().map(|peer| (random.bytes(), *peer)).collect();
    keyed.sort_unstable_by_key(|(key, _)| *key);
    keyed
        .into_iter()
        .take(count)
        .map(|(_, peer)| peer)
        .collect()
}
