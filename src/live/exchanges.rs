//! Short exchanges that links ask for: after each connecting, and when more was new than a link carries.
//!
//! Whoever asks is remembered once; all that gathered while a run was in progress are peers of the next one, so that there
//! are never two exchanges with one peer at once. One that failed is made again, with growing pauses, for as long as the
//! link stands. One that takes long is cut off, so that others have their turn, and goes on soon where it was. One that ended `partial` is not: what is left over is for the schedule. Bounded by the links.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::board::LiveBoard;
use crate::limits::{LIVE_EXCHANGE_AGAIN, LIVE_EXCHANGE_AGAIN_MAX};
use crate::peer::PeerAddress;
use crate::sync::{Outcome, PeerReport, Runner, SyncRequest};

/// Doublings of a pause that are counted.
const DOUBLED_MAX: u32 = 16;

/// Who wants an exchange.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    wanted: Mutex<BTreeMap<PeerAddress, Wanted>>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// When it is to be made; `None`: nothing is due.
    at: Option<Instant>,
    failures: u32,
}

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// What is left over is for the schedule.
    Done,
    /// Its time was up, and something had moved.
    CutOff,
    Failed,
}

impl Made {
    fn of(report: Option<&PeerReport>) -> Self {
        match report.map(|report| (report.outcome, report.stored + report.uploaded)) {
            Some((Outcome::Converged | Outcome::Partial, _)) => Self::Done,
            Some((Outcome::Deadline, 1..)) => Self::CutOff,
            _ => Self::Failed,
        }
    }
}

impl Exchanges {
    /// One with this peer is due now.
    pub(super) fn want(&self, peer: &PeerAddress) {
        let now = Some(Instant::now());
        self.lock()
            .entry(peer.clone())
            .and_modify(|wanted| wanted.at = now)
            .or_insert(Wanted {
                at: now,
                failures: 0,
            });
        self.changed.notify_one();
    }

    /// The link with this peer has gone: the next one asks anew.
    pub(super) fn forget(&self, peer: &PeerAddress) {
        self.lock().remove(peer);
    }

    /// Those that are due, taken off the list, and else when the next one is.
    fn take_due(&self, now: Instant) -> (BTreeSet<PeerAddress>, Option<Instant>) {
        let mut wanted = self.lock();
        let mut due = BTreeSet::new();
        for (peer, wanted) in wanted.iter_mut() {
            if wanted.at.is_some_and(|at| at <= now) {
                wanted.at = None;
                due.insert(peer.clone());
            }
        }
        let next = wanted.values().filter_map(|wanted| wanted.at).min();
        (due, next)
    }

    /// What became of one. One that was wanted meanwhile stays due.
    fn made(&self, peer: &PeerAddress, made: Made, now: Instant) {
        if let Some(wanted) = self.lock().get_mut(peer) {
            let doubled = match made {
                Made::Done => {
                    wanted.failures = 0;
                    return;
                }
                Made::CutOff => {
                    wanted.failures = 0;
                    0
                }
                Made::Failed => {
                    wanted.failures += 1;
                    (wanted.failures - 1).min(DOUBLED_MAX)
                }
            };
            let pause = LIVE_EXCHANGE_AGAIN * (1 << doubled);
            let again = now + pause.min(LIVE_EXCHANGE_AGAIN_MAX);
            wanted.at.get_or_insert(again);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerAddress, Wanted>> {
        // Whole after every line of it.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the exchanges that are wanted, as runs with those peers alone, for as long as it is polled.
pub(super) async fn make_wanted(exchanges: Arc<Exchanges>, runner: Runner, board: Arc<LiveBoard>) {
    loop {
        let (due, next) = exchanges.take_due(Instant::now());
        if due.is_empty() {
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = exchanges.changed.notified() => {}
                () = due => {}
            }
            continue;
        }
        let request = SyncRequest {
            peers: due.iter().cloned().collect(),
            brief: true,
            ..SyncRequest::default()
        };
        let report = runner.trigger_in_turn(&request).await;
        let now = Instant::now();
        match report {
            Ok(report) => {
                board.exchange_was_made();
                for peer in due {
                    let made = report.peers.iter().find(|one| one.address == peer.as_str());
                    exchanges.made(&peer, Made::of(made), now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an exchange that a live link asked for did not take place");
                for peer in due {
                    exchanges.made(&peer, Made::Failed, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerAddress {
        let text = format!("ws://127.0.0.1:{number}");
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_twice_is_remembered_once_and_one_that_failed_is_made_again_later() {
        let exchanges = Exchanges::default();
        exchanges.want(&peer(1));
        exchanges.want(&peer(1));
        exchanges.want(&peer(2));
        let now = Instant::now();
        let both = BTreeSet::from([peer(1), peer(2)]);
        assert_eq!(exchanges.take_due(now), (both, None));
        assert_eq!(exchanges.take_due(now), (BTreeSet::new(), None));
        // While it is being made it is asked for again: that one stays due, whatever comes of this one.
        exchanges.want(&peer(1));
        exchanges.made(&peer(1), Made::Failed, now);
        exchanges.made(&peer(2), Made::Failed, now);
        let (due, next) = exchanges.take_due(now);
        assert_eq!(due, BTreeSet::from([peer(1)]));
        assert_eq!(next, Some(now + LIVE_EXCHANGE_AGAIN));
        exchanges.made(&peer(2), Made::Failed, now);
        exchanges.forget(&peer(2));
        let (due, next) = exchanges.take_due(now + LIVE_EXCHANGE_AGAIN_MAX);
        assert_eq!((due.len(), next), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_an_exchange_succeeds() {
        let exchanges = Exchanges::default();
        let mut pauses = Vec::new();
        exchanges.want(&peer(1));
        let now = Instant::now();
        use Made::{CutOff, Done, Failed};
        for made in [Failed, Failed, Done, Failed, Failed, CutOff, Failed] {
            exchanges.take_due(now + LIVE_EXCHANGE_AGAIN_MAX);
            exchanges.made(&peer(1), made, now);
            let (_, next) = exchanges.take_due(now);
            pauses.push(next.map(|at| (at - now) / 5));
        }
        let seconds = |count| Some(std::time::Duration::from_secs(count));
        let [one, two] = [1, 2].map(seconds);
        assert_eq!(pauses, [one, two, None, one, two, one, one]);
    }
}
