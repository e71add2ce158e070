//! What live links have done, for whoever asks: counters that links count in, and a report.
//!
//! Links that we dialled enter themselves when they stand and leave when they end; those that others opened are the
//! relay's. Invariant: a report shows links that stand and no others. Bounded: links, and samples of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::relay_client::ConversationCounters;
use crate::relay_server::{AcceptedLink, AcceptedLinks};
use crate::time::rfc3339;

/// Delays of which percentiles are made: the last ones.
const SAMPLES_MAX: usize = 1_024;

/// Who opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opened {
    /// We did.
    Dialled,
    /// The other station did.
    Accepted,
}

/// What `status --json` tells of a live link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The peer's address; of a link that a station opened over `ws://`, its PeerID if it said it, else `null`.
    pub peer: Option<String>,
    /// The station's PeerID; `null`: not known, or no station.
    pub station: Option<String>,
    /// Who opened it.
    pub opened: Opened,
    /// RFC 3339, UTC.
    pub since: String,
    /// Events that came over it and were new here.
    pub events_in: u64,
    /// Events that came over it and were here already.
    pub duplicates_in: u64,
    /// Events that came over it and were not taken.
    pub refused_in: u64,
    /// Events that went over it.
    pub events_out: u64,
    /// Events that went over it and that the peer had; `null` where it does not say: over a link that it opened.
    pub duplicates_out: Option<u64>,
    /// Events that the peer did not take; `null` where it does not say.
    pub refused_out: Option<u64>,
    /// Bytes of messages received; `null` over a link that the peer opened.
    pub bytes_in: Option<u64>,
    /// Bytes of messages sent; the same.
    pub bytes_out: Option<u64>,
    /// Authors for whom a relay that is no station was asked by name; `null`: it is asked for everybody's, as stations are.
    pub authors_asked: Option<u64>,
    /// Microseconds from our store to the peer's `OK`, of half of the last events at most; `null`: none yet, or it does not say.
    pub seen_p50_us: Option<u64>,
    /// The same of all but one in a hundred.
    pub seen_p99_us: Option<u64>,
}

/// What `status --json` tells of live links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveReport {
    /// Whether live links are kept.
    pub enabled: bool,
    /// Links with other stations that there may be.
    pub links_max: usize,
    /// Those that stand, and those with relays that are no stations.
    pub links: Vec<LinkReport>,
    /// Exchanges that links asked for and that were made: after each connecting, and when too much was new.
    pub exchanges: u64,
}

/// Counters of one link that we dialled.
#[derive(Debug, Default)]
pub(super) struct LinkStats {
    pub(super) events_in: AtomicU64,
    pub(super) duplicates_in: AtomicU64,
    pub(super) refused_in: AtomicU64,
    pub(super) events_out: AtomicU64,
    pub(super) duplicates_out: AtomicU64,
    pub(super) refused_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    authors_asked: Mutex<Option<u64>>,
    /// From our store to the peer's OK, in microseconds.
    seen: Mutex<VecDeque<u64>>,
}

impl LinkStats {
    /// The peer has it so long after it was stored here.
    pub(super) fn seen_after(&self, delay: Duration) {
        let mut seen = hold(&self.seen);
        if seen.len() == SAMPLES_MAX {
            seen.pop_front();
        }
        seen.push_back(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
    }

    /// The peer is asked for the events of so many authors, or for everybody's.
    pub(super) fn asks_for_authors(&self, count: Option<u64>) {
        *hold(&self.authors_asked) = count;
    }

    /// So many bytes have passed so far.
    pub(super) fn have_passed(&self, counters: ConversationCounters) {
        self.bytes_in.store(counters.bytes_in, Ordering::Relaxed);
        self.bytes_out.store(counters.bytes_out, Ordering::Relaxed);
    }

    /// Of half of the last ones at most, and of all but one in a hundred.
    fn percentiles(&self) -> Option<(u64, u64)> {
        let mut seen: Vec<u64> = hold(&self.seen).iter().copied().collect();
        seen.sort_unstable();
        let of = |part: usize| seen.get((seen.len() * part).div_ceil(100).saturating_sub(1));
        Some((*of(50)?, *of(99)?))
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A link that we dialled and that stands.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) peer: String,
    pub(super) station: Option<String>,
    /// Unix seconds.
    pub(super) since: u64,
    pub(super) stats: Arc<LinkStats>,
}

/// What is known of live links. One for each station.
#[derive(Debug, Default)]
pub struct LiveBoard {
    enabled: AtomicBool,
    links_max: AtomicUsize,
    exchanges: AtomicU64,
    dialled: Mutex<BTreeMap<u64, Standing>>,
    accepted: OnceLock<Arc<AcceptedLinks>>,
}

impl LiveBoard {
    /// How live links are.
    pub fn report(&self) -> LiveReport {
        let dialled: Vec<Standing> = hold(&self.dialled).values().cloned().collect();
        let accepted = self.accepted.get().map(|links| links.list());
        let links = dialled
            .iter()
            .map(of_dialled)
            .chain(accepted.iter().flatten().map(|link| of_accepted(link)));
        LiveReport {
            enabled: self.enabled.load(Ordering::Relaxed),
            links_max: self.links_max.load(Ordering::Relaxed),
            links: links.collect(),
            exchanges: self.exchanges.load(Ordering::Relaxed),
        }
    }

    /// Those that others opened are told of too.
    pub(super) fn show(&self, accepted: &Arc<AcceptedLinks>) {
        // Set once, when live links start.
        let _ = self.accepted.set(Arc::clone(accepted));
    }

    pub(super) fn set(&self, enabled: bool, links_max: usize) {
        self.enabled.store(enabled, Ordering::Relaxed);
        self.links_max.store(links_max, Ordering::Relaxed);
    }

    pub(super) fn exchange_was_made(&self) {
        count(&self.exchanges);
    }

    pub(super) fn enter(&self, number: u64, link: Standing) {
        hold(&self.dialled).insert(number, link);
    }

    pub(super) fn leave(&self, number: u64) {
        hold(&self.dialled).remove(&number);
    }
}

fn of_dialled(link: &Standing) -> LinkReport {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let percentiles = link.stats.percentiles();
    LinkReport {
        peer: Some(link.peer.clone()),
        station: link.station.clone(),
        opened: Opened::Dialled,
        since: rfc3339(link.since),
        events_in: read(&link.stats.events_in),
        duplicates_in: read(&link.stats.duplicates_in),
        refused_in: read(&link.stats.refused_in),
        events_out: read(&link.stats.events_out),
        duplicates_out: Some(read(&link.stats.duplicates_out)),
        refused_out: Some(read(&link.stats.refused_out)),
        bytes_in: Some(read(&link.stats.bytes_in)),
        bytes_out: Some(read(&link.stats.bytes_out)),
        authors_asked: *hold(&link.stats.authors_asked),
        seen_p50_us: percentiles.map(|(half, _)| half),
        seen_p99_us: percentiles.map(|(_, most)| most),
    }
}

fn of_accepted(link: &AcceptedLink) -> LinkReport {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let station = link.station.map(|station| station.to_string());
    LinkReport {
        peer: station.as_ref().map(|station| format!("/p2p/{station}")),
        station,
        opened: Opened::Accepted,
        since: rfc3339(link.since),
        events_in: read(&link.events_in),
        duplicates_in: read(&link.duplicates_in),
        refused_in: read(&link.refused_in),
        events_out: read(&link.events_out),
        duplicates_out: None,
        refused_out: None,
        bytes_in: None,
        bytes_out: None,
        authors_asked: None,
        seen_p50_us: None,
        seen_p99_us: None,
    }
}

fn hold<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every line under it.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_delays() {
        let stats = LinkStats::default();
        assert_eq!(stats.percentiles(), None);
        stats.seen_after(Duration::from_micros(7));
        assert_eq!(stats.percentiles(), Some((7, 7)));
        for micros in 1..=SAMPLES_MAX as u64 {
            stats.seen_after(Duration::from_micros(micros));
        }
        assert_eq!(stats.percentiles(), Some((512, 1_014)), "the first is gone");
    }
}
