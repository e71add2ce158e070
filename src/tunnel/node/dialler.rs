//! Whom to dial, and when: stations that are kept, and those that a stream waits for.
//!
//! Pure: takes what happened and the time, gives [`Step`]s for the driver to carry out. A round dials directly, and
//! through relays when that fails or takes longer than [`RELAY_AFTER`]; it ends with a connection or with an answer to
//! everyone who waits. Kept stations get round after round, with pauses of half a second doubling to ten at most; a
//! connection ends the growing only when it has lasted for [`PROVEN_AFTER`], so that whoever refuses us after the
//! handshake is not called twice a second. Those who failed least come first when there is not room for all. A station
//! that is reached through a relay is tried directly at once, and then with pauses that grow to [`DIRECT_PAUSE_MAX`].
//! Invariant: whoever waits is in a round. Worst case: [`WAITING_MAX`] requests wait in all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::streams::{OpenFailure, OpenRequest};
use crate::random::Random;
use crate::tunnel::PeerId;

/// Requests that wait for connections, together.
const WAITING_MAX: usize = 4_096;
/// The pause after the first failure; twice that after the next.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest: with a quarter more or less, so that stations do not dial in step, ten seconds.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long direct addresses have before relays are tried as well.
const RELAY_AFTER: Duration = Duration::from_secs(2);
/// The pause before a station that is reached through a relay is tried directly for the second time, doubling.
const DIRECT_PAUSE_FIRST: Duration = Duration::from_secs(40);
/// The longest. Each attempt costs both ends two or three dials, and some 200 bytes that libp2p's hole punching never
/// gives back: 30 kB a day for a station that stays out of reach.
const DIRECT_PAUSE_MAX: Duration = Duration::from_secs(600);
/// A connection that lasted for less was of no use, and counts as a failure.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Dial its direct addresses.
    Direct(PeerId),
    /// Dial it through relays.
    Relayed(PeerId),
}

/// Dials of one round.
#[derive(Debug, Default)]
struct Round {
    dials: BTreeSet<ConnectionId>,
    /// When relays are tried as well; `None` once they were.
    relays_at: Option<Instant>,
    tried: Vec<String>,
}

#[derive(Debug)]
struct Target {
    waiting: Vec<OpenRequest>,
    round: Option<Round>,
    pause: Duration,
    /// When the next round begins, for kept ones.
    next: Instant,
}

/// Attempts to reach a station directly that is reached through a relay.
#[derive(Debug)]
struct DirectAttempts {
    next: Instant,
    pause: Duration,
}

/// Who is dialled.
#[derive(Debug)]
pub(super) struct Dialler {
    targets: BTreeMap<PeerId, Target>,
    kept: Arc<BTreeSet<PeerId>>,
    /// Of stations that are reached through a relay.
    direct: BTreeMap<PeerId, DirectAttempts>,
    waiting: usize,
    random: Random,
}

impl Dialler {
    pub(super) fn new(random: Random) -> Self {
        Self {
            targets: BTreeMap::new(),
            kept: Arc::default(),
            direct: BTreeMap::new(),
            waiting: 0,
            random,
        }
    }

    pub(super) fn keep(&mut self, kept: Arc<BTreeSet<PeerId>>, now: Instant) {
        self.kept = Arc::clone(&kept);
        self.targets.retain(|peer, target| {
            kept.contains(peer) || target.round.is_some() || !target.waiting.is_empty()
        });
        for peer in kept.iter() {
            self.targets
                .entry(*peer)
                .or_insert_with(|| Target::new(now));
        }
    }

    /// Somebody waits for a station that there is no connection with.
    pub(super) fn wait(
        &mut self,
        peer: PeerId,
        request: OpenRequest,
        now: Instant,
    ) -> Option<Step> {
        if self.waiting >= WAITING_MAX {
            drop(request.reply.send(Err(OpenFailure::TooMany)));
            return None;
        }
        self.waiting += 1;
        let target = self.targets.entry(peer).or_insert_with(|| Target::new(now));
        target.waiting.push(request);
        target.begin(now).then_some(Step::Direct(peer))
    }

    /// The time has come for these: those first that somebody waits for, then those that failed least, then those whose
    /// time came first. What there is no `room` for stays due.
    pub(super) fn due(
        &mut self,
        now: Instant,
        room: usize,
        connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<Step> {
        let mut due = Vec::new();
        let mut gone = 0;
        for (peer, target) in &mut self.targets {
            let before = target.waiting.len();
            target.waiting.retain(|request| !request.reply.is_closed());
            gone += before - target.waiting.len();
            let (at, step) = match &target.round {
                Some(round) => match round.relays_at {
                    Some(at) => (at, Step::Relayed(*peer)),
                    None => continue,
                },
                None if self.kept.contains(peer) && !connected(peer) => {
                    (target.next, Step::Direct(*peer))
                }
                None => continue,
            };
            if at <= now {
                due.push(((target.waiting.is_empty(), target.pause, at), step));
            }
        }
        self.waiting -= gone;
        due.sort_unstable_by_key(|(order, _)| *order);
        due.truncate(room);
        let steps: Vec<Step> = due.into_iter().map(|(_, step)| step).collect();
        for step in &steps {
            self.begin(*step, now);
        }
        let kept = Arc::clone(&self.kept);
        self.targets
            .retain(|peer, target| kept.contains(peer) || target.round.is_some());
        steps
    }

    fn begin(&mut self, step: Step, now: Instant) {
        let (Step::Direct(peer) | Step::Relayed(peer)) = step;
        let Some(target) = self.targets.get_mut(&peer) else {
            return;
        };
        match &mut target.round {
            Some(round) => round.relays_at = None,
            None => {
                target.begin(now);
            }
        }
    }

    /// A dial of the present round has begun.
    pub(super) fn dialling(&mut self, peer: PeerId, dial: ConnectionId) {
        let target = self.targets.get_mut(&peer);
        if let Some(round) = target.and_then(|target| target.round.as_mut()) {
            round.dials.insert(dial);
        }
    }

    /// A dial has failed, or could not begin: then `dial` is `None`. A dial of nobody's round changes nothing.
    pub(super) fn failed(
        &mut self,
        peer: PeerId,
        dial: Option<ConnectionId>,
        detail: Option<String>,
        now: Instant,
    ) -> Option<Step> {
        let target = self.targets.get_mut(&peer)?;
        let round = target.round.as_mut()?;
        if let Some(dial) = dial
            && !round.dials.remove(&dial)
        {
            return None;
        }
        round.tried.extend(detail);
        if round.relays_at.take().is_some() {
            return Some(Step::Relayed(peer));
        }
        if !round.dials.is_empty() {
            return None;
        }
        let failure = if round.tried.is_empty() {
            OpenFailure::NoAddress
        } else {
            OpenFailure::Unreachable(round.tried.join("; "))
        };
        target.round = None;
        target.put_off(now, &self.random);
        self.waiting -= target.waiting.len();
        for request in target.waiting.drain(..) {
            drop(request.reply.send(Err(failure.clone())));
        }
        if !self.kept.contains(&peer) {
            self.targets.remove(&peer);
        }
        None
    }

    /// There is a connection: gives everyone who waits for one.
    pub(super) fn connected(&mut self, peer: &PeerId) -> Vec<OpenRequest> {
        let Some(target) = self.targets.get_mut(peer) else {
            return Vec::new();
        };
        let waiting = std::mem::take(&mut target.waiting);
        self.waiting -= waiting.len();
        target.round = None;
        if !self.kept.contains(peer) {
            self.targets.remove(peer);
        }
        waiting
    }

    /// The last connection has ended; there had been any for so long.
    pub(super) fn lost(&mut self, peer: &PeerId, lasted: Duration, now: Instant) {
        self.direct.remove(peer);
        if let Some(target) = self.targets.get_mut(peer) {
            if lasted >= PROVEN_AFTER {
                target.pause = PAUSE_FIRST;
            }
            target.put_off(now, &self.random);
        }
    }

    /// Something is new that may help: a pause ends.
    pub(super) fn hurry(&mut self, peer: &PeerId, now: Instant) {
        self.direct.remove(peer);
        if let Some(target) = self.targets.get_mut(peer) {
            target.hurry(now);
        }
    }

    /// The network has changed: all pauses end.
    pub(super) fn hurry_all(&mut self, now: Instant) {
        for target in self.targets.values_mut() {
            target.hurry(now);
        }
        self.direct.clear();
    }

    /// Whether a station that is reached through a relay is to be tried directly now.
    pub(super) fn is_direct_due(&mut self, peer: &PeerId, now: Instant) -> bool {
        let attempts = self.direct.entry(*peer).or_insert(DirectAttempts {
            next: now + PAUSE_FIRST,
            pause: DIRECT_PAUSE_FIRST,
        });
        let due = attempts.next <= now;
        if due {
            attempts.next = now + jittered(attempts.pause, &self.random);
            attempts.pause = (attempts.pause * 2).min(DIRECT_PAUSE_MAX);
        }
        due
    }

    /// It is reached directly: should that end, it is tried anew.
    pub(super) fn reached_directly(&mut self, peer: &PeerId) {
        self.direct.remove(peer);
    }
}

impl Target {
    fn new(now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            round: None,
            pause: PAUSE_FIRST,
            next: now,
        }
    }

    /// Begins a round, unless there is one.
    fn begin(&mut self, now: Instant) -> bool {
        if self.round.is_some() {
            return false;
        }
        self.round = Some(Round {
            relays_at: Some(now + RELAY_AFTER),
            ..Round::default()
        });
        true
    }

    /// The next round begins after a pause, and the next pause is longer.
    fn put_off(&mut self, now: Instant, random: &Random) {
        self.next = now + jittered(self.pause, random);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
        self.pause = PAUSE_FIRST;
    }
}

/// A quarter more or less.
pub(super) fn jittered(pause: Duration, random: &Random) -> Duration {
    let [byte] = random.bytes::<1>();
    pause.mul_f64(0.75 + f64::from(byte) / f64::from(u8::MAX) / 2.0)
}

#[cfg(test)]
#[path = "dialler_tests.rs"]
mod tests;
