//! Peers that may be linked with: what is known of each, and when it may be dialled again.
//!
//! A station that is configured by a `ws://` address is known for one when its information document says so (NIP-11); what
//! has no such document is a relay. Pure but for the clock and randomness that are passed in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::LinkStats;
use super::link::LinkEnd;
use crate::ingest::Scope;
use crate::limits::{
    LIVE_FORGERY_PAUSE, LIVE_REDIAL_FIRST, LIVE_REDIAL_MAX, LIVE_REFUSED_PAUSE, LIVE_STOOD_LONG,
};
use crate::peer::{PeerAddress, PeerId};
use crate::random::Random;
use crate::sync::ExchangePlan;
use crate::transfer::PeerLimits;

/// What share of the time that a peer has been away passes before it is dialled again.
const AWAY_SHARE: u32 = 20;
/// Pauses are this much shorter at most, by chance.
const JITTER_PERCENT: u32 = 50;

/// Who a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Not known yet.
    Unknown,
    /// It is being asked.
    Asked,
    /// Ourselves by another way, or a station that is out: no peer, as long as nothing changes about that.
    NoPeer,
    /// A station.
    Station(PeerId),
    /// A relay that is none, and what it can be asked.
    Relay(PeerLimits),
}

/// A link with a peer that we dial or have dialled.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) number: u64,
    pub(super) plan: ExchangePlan,
    pub(super) scope: watch::Sender<Arc<Scope>>,
    pub(super) stop: CancellationToken,
    pub(super) stands: bool,
    pub(super) stats: Arc<LinkStats>,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) address: PeerAddress,
    pub(super) who: Who,
    pub(super) link: Option<Dialled>,
    /// Since when it cannot be linked with, or not for long.
    away_since: Option<Instant>,
    /// Since when a link with it stands.
    stands_since: Option<Instant>,
    /// Not before it is dialled again.
    pub(super) again_at: Option<Instant>,
}

impl Candidate {
    pub(super) fn new(address: PeerAddress) -> Self {
        let who = address.peer_id().map_or(Who::Unknown, Who::Station);
        Self {
            address,
            who,
            link: None,
            away_since: None,
            stands_since: None,
            again_at: None,
        }
    }

    /// Whether it may be dialled, or asked who it is.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.again_at.is_none_or(|at| at <= now)
    }

    /// A link with it stands. That it was away is forgotten once the link has stood for a while: one that ends each link at
    /// once, and each time is exchanged with, must not be dialled as if nothing had happened.
    pub(super) fn is_back(&mut self, now: Instant) {
        (self.stands_since, self.again_at) = (Some(now), None);
    }

    /// It cannot be linked with at present, or not for long.
    pub(super) fn went_away(&mut self, why: &LinkEnd, now: Instant, random: &Random) {
        let stood = self.stands_since.take().map(|since| now - since);
        if stood.is_some_and(|stood| stood >= LIVE_STOOD_LONG) {
            self.away_since = None;
        }
        let away = now - *self.away_since.get_or_insert(now);
        let pause = match why {
            LinkEnd::Asked => Duration::ZERO,
            LinkEnd::NotReached(_) | LinkEnd::Lost(_) | LinkEnd::Local(_) => {
                (away / AWAY_SHARE).clamp(LIVE_REDIAL_FIRST, LIVE_REDIAL_MAX)
            }
            LinkEnd::Refused(_) => LIVE_REFUSED_PAUSE,
            LinkEnd::Forgeries(_) => LIVE_FORGERY_PAUSE,
        };
        let [chance] = random.bytes::<1>();
        let shorter = pause / 100 * (JITTER_PERCENT * u32::from(chance) / 256);
        self.again_at = Some(now + pause - shorter);
        if self.address.peer_id().is_none() {
            // Another may answer there the next time.
            self.who = Who::Unknown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that keeps one connection for each address ends the link when the exchange comes, and the exchange was made
    /// anew with each link: a run every second, for ever.
    #[tokio::test(start_paused = true)]
    async fn links_that_stand_and_fall_are_dialled_ever_more_seldom() {
        let random = Random::seeded(1);
        let mut now = Instant::now();
        let mut candidate = Candidate::new("ws://127.0.0.1:1".parse().unwrap());
        let lost = LinkEnd::Lost(String::new());
        let start = now;
        let mut links = 0;
        while now < start + Duration::from_secs(24 * 3600) {
            candidate.is_back(now);
            now += Duration::from_secs(1);
            candidate.went_away(&lost, now, &random);
            now = candidate.again_at.unwrap();
            links += 1;
        }
        assert!(links < 600, "{links} links in a day");
        candidate.is_back(now);
        now += LIVE_STOOD_LONG;
        candidate.went_away(&lost, now, &random);
        assert!(candidate.again_at.unwrap() - now <= LIVE_REDIAL_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_away_for_a_minute_is_dialled_within_three_seconds_and_for_long_seldom() {
        let random = Random::seeded(1);
        let start = Instant::now();
        let mut candidate = Candidate::new("ws://127.0.0.1:1".parse().unwrap());
        let lost = LinkEnd::Lost(String::new());
        let mut pause = |away: u64| {
            let now = start + Duration::from_secs(away);
            candidate.went_away(&lost, now, &random);
            assert!(!candidate.is_due(now));
            candidate.again_at.unwrap() - now
        };
        assert!(pause(0) <= LIVE_REDIAL_FIRST);
        let minute = pause(60);
        assert!(minute <= Duration::from_secs(3) && minute >= Duration::from_millis(1_500));
        assert!(pause(100 * 3600) >= LIVE_REDIAL_MAX / 2);
        candidate.is_back(start);
        assert!(candidate.is_due(start));
        for (why, least) in [
            (LinkEnd::Refused(String::new()), LIVE_REFUSED_PAUSE / 2),
            (LinkEnd::Forgeries(String::new()), LIVE_FORGERY_PAUSE / 2),
        ] {
            candidate.went_away(&why, start, &random);
            assert!(!candidate.is_due(start + least), "{why:?}");
        }
    }
}
