//! Attempts that were not let in: counted by reason, logged once a minute for each peer.
//!
//! Takes who was refused what and why; gives counts, log lines, and whether a peer knocks too often. Invariant: every
//! refusal is counted. Worst case: somebody who comes with ever new PeerIDs costs [`KNOCKERS_MAX`] remembered names
//! and [`LINES_A_MINUTE`] log lines a minute. Deliberately absent: what is done about it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{PeerId, Refusal, ServiceName};

/// Refused peers that are remembered; the one that knocked longest ago is forgotten first.
const KNOCKERS_MAX: usize = 1_024;
/// How many refused attempts a peer has before it knocks too often, and how soon it gets one back.
const KNOCKS_AT_ONCE: f64 = 32.0;
const KNOCKS_A_SECOND: f64 = 2.0;
/// How often refusals of one peer are logged.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Log lines about refusals in that time, of all peers: the rest is only counted.
const LINES_A_MINUTE: u32 = 64;

/// A peer that was refused.
#[derive(Debug)]
struct Knocker {
    credit: f64,
    seen: Duration,
    /// When it was last logged; `None` if never.
    logged: Option<Duration>,
    unlogged: u64,
    why: Refusal,
}

impl Knocker {
    /// Attempts that it has.
    fn credit_at(&self, now: Duration) -> f64 {
        let waited = now.saturating_sub(self.seen).as_secs_f64();
        (self.credit + waited * KNOCKS_A_SECOND).min(KNOCKS_AT_ONCE)
    }
}

/// Who was refused, and how often.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    knockers: HashMap<PeerId, Knocker>,
    lines: u32,
    lines_since: Duration,
}

impl Refusals {
    /// Counts one of which nobody knows whose it was.
    pub(super) fn note_nameless(&mut self, why: Refusal) {
        *self.counts.entry(why).or_default() += 1;
    }

    /// Whether the peer has knocked too often: it may try twice a second from then on.
    pub(super) fn is_weary_of(&self, peer: &PeerId, now: Duration) -> bool {
        self.knockers
            .get(peer)
            .is_some_and(|knocker| knocker.credit_at(now) < 1.0)
    }

    /// Counts one; tells whether the peer has knocked too often. `now` is monotonic.
    pub(super) fn note(
        &mut self,
        peer: PeerId,
        service: &ServiceName,
        why: Refusal,
        now: Duration,
    ) -> bool {
        self.note_nameless(why);
        if self.knockers.len() >= KNOCKERS_MAX && !self.knockers.contains_key(&peer) {
            let oldest = self.knockers.iter().min_by_key(|(_, one)| one.seen);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.knockers.remove(&oldest);
            }
        }
        let knocker = self.knockers.entry(peer).or_insert(Knocker {
            credit: KNOCKS_AT_ONCE,
            seen: now,
            logged: None,
            unlogged: 0,
            why,
        });
        // A debt is bounded too: after a flood of any size the peer may try again within half a minute.
        knocker.credit = (knocker.credit_at(now) - 1.0).max(-KNOCKS_AT_ONCE);
        knocker.seen = now;
        knocker.unlogged += 1;
        knocker.why = why;
        let spent = knocker.credit < 0.0;
        self.log_if_due(peer, Some(service), now);
        spent
    }

    /// To be called now and then: logs what has been counted since a peer's last line, forgets who is quiet.
    pub(super) fn sweep(&mut self, now: Duration) {
        let due: Vec<PeerId> = self.knockers.keys().copied().collect();
        for peer in due {
            self.log_if_due(peer, None, now);
        }
        let still = |one: &Knocker| one.unlogged > 0 || now.saturating_sub(one.seen) < LINE_EVERY;
        self.knockers.retain(|_, one| still(one));
    }

    /// By reason, since the start.
    pub(super) fn counts(&self) -> &BTreeMap<Refusal, u64> {
        &self.counts
    }

    fn log_if_due(&mut self, peer: PeerId, service: Option<&ServiceName>, now: Duration) {
        if now.saturating_sub(self.lines_since) >= LINE_EVERY {
            self.lines_since = now;
            self.lines = 0;
        }
        let Some(knocker) = self.knockers.get_mut(&peer) else {
            return;
        };
        let due = knocker
            .logged
            .is_none_or(|logged| now.saturating_sub(logged) >= LINE_EVERY);
        if knocker.unlogged == 0 || !due || self.lines >= LINES_A_MINUTE {
            return;
        }
        self.lines += 1;
        knocker.logged = Some(now);
        let attempts = std::mem::take(&mut knocker.unlogged);
        let service = service.map_or("", ServiceName::as_str);
        let why = knocker.why.label();
        tracing::warn!(%peer, service, why, attempts, "refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_and_each_peer_logged_once_a_minute() {
        let mut refusals = Refusals::default();
        let (peer, service) = (PeerId::random(), ServiceName::strfry());
        let second = Duration::from_secs(1);
        let mut logged = Vec::new();
        for attempt in 0..=120 {
            refusals.note(peer, &service, Refusal::NotAdmitted, attempt * second);
            if refusals.knockers[&peer].unlogged == 0 {
                logged.push(attempt);
            }
        }
        assert_eq!(logged, [0, 60, 120]);
        assert_eq!(refusals.counts()[&Refusal::NotAdmitted], 121);
        refusals.sweep(130 * second);
        assert_eq!(refusals.knockers.len(), 1);
        refusals.sweep(181 * second);
        assert!(refusals.knockers.is_empty(), "quiet for a minute");
    }

    #[test]
    fn a_flood_is_too_often_and_a_flood_of_names_is_bounded() {
        let mut refusals = Refusals::default();
        let (peer, service) = (PeerId::random(), ServiceName::strfry());
        let mut note = |peer, now| refusals.note(peer, &service, Refusal::NotAdmitted, now);
        let first_too_often = (1..100).find(|_| note(peer, Duration::ZERO));
        assert_eq!(first_too_often, Some(33));
        assert!(refusals.is_weary_of(&peer, Duration::ZERO));
        assert!(!refusals.is_weary_of(&peer, Duration::from_secs(60)));
        let mut note = |peer, now| refusals.note(peer, &service, Refusal::NotAdmitted, now);
        // One that asks twice a second for ever does not.
        let patient = PeerId::random();
        assert!((0..500).all(|attempt| !note(patient, attempt * Duration::from_millis(500))));
        for _ in 0..3_000 {
            note(PeerId::random(), Duration::from_secs(1_000));
        }
        assert_eq!(refusals.knockers.len(), KNOCKERS_MAX);
        assert!(refusals.lines <= LINES_A_MINUTE);
    }
}
