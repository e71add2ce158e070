//! Live links that other stations opened to us: counted, bounded, told nothing that came from them.
//!
//! A live link is what a station asks for by a REQ whose filters all have the limit 0, over a connection that is trusted
//! (a tunnel, or this machine): a subscription to what is new, and EVENTs over the same connection. Takes stations that
//! want one; gives a guard, or why not. One for each station: a newer one takes the place of the older, whose connection
//! may be dead. How many there may be, and which has to go, is said by whoever knows of the links that we opened
//! (`crate::live`); without it, [`LIVE_LINKS_MAX`]. Worst case: that many, each with what its station brought lately.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::publish::Answer;
use crate::limits::LIVE_LINKS_MAX;
use crate::peer::{PeerAddress, PeerId};
use crate::recent_ids::{Brought, BroughtByPeers};

/// A live link that another station opened.
#[derive(Debug)]
pub struct AcceptedLink {
    /// Tells links apart: later ones have higher numbers.
    pub number: u64,
    /// Who is at its other end, if that is known: proved by a tunnel, or claimed on this machine.
    pub station: Option<PeerId>,
    /// Unix seconds.
    pub since: u64,
    /// Events that it brought and that were new.
    pub events_in: AtomicU64,
    /// Events that it brought and that we had.
    pub duplicates_in: AtomicU64,
    /// Events that it brought and that were not taken.
    pub refused_in: AtomicU64,
    /// Events that it was told of.
    pub events_out: AtomicU64,
    /// What it brought lately, by whichever way: it is not told of that.
    brought: Brought,
    ended: CancellationToken,
}

impl AcceptedLink {
    /// The station at its other end has this event.
    pub(super) fn note_published(&self, id: [u8; 32]) {
        self.brought.note([id]);
    }

    /// Whether the station at its other end brought this event lately: published it, or had it fetched.
    pub(super) fn has_brought(&self, id: &[u8; 32]) -> bool {
        self.brought.contains(id)
    }

    /// Cancelled when the link has to end.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// All live links that other stations opened.
#[derive(Debug)]
pub struct AcceptedLinks {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    brought: BroughtByPeers,
}

#[derive(Debug)]
struct Inner {
    max: usize,
    next: u64,
    links: BTreeMap<u64, Arc<AcceptedLink>>,
}

/// No further live link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinksFull;

impl Default for AcceptedLinks {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                max: LIVE_LINKS_MAX,
                next: 0,
                links: BTreeMap::new(),
            }),
            changed: watch::Sender::default(),
            brought: BroughtByPeers::default(),
        }
    }
}

impl AcceptedLinks {
    /// Which are not told what exchanges fetched from their stations either.
    pub fn knowing(brought: BroughtByPeers) -> Self {
        Self {
            brought,
            ..Self::default()
        }
    }

    /// How many may be open from now on; 0 ends those that are. Else nobody is put out: see [`Self::end`].
    pub fn allow(&self, max: usize) {
        let mut inner = self.lock();
        inner.max = max;
        if max == 0 {
            for link in inner.links.values() {
                link.ended.cancel();
            }
        }
    }

    /// Ends one.
    pub fn end(&self, number: u64) {
        if let Some(link) = self.lock().links.get(&number) {
            link.ended.cancel();
        }
    }

    /// Those that are open, the oldest first.
    pub fn list(&self) -> Vec<Arc<AcceptedLink>> {
        let inner = self.lock();
        let open = inner.links.values();
        open.filter(|link| !link.ended.is_cancelled())
            .cloned()
            .collect()
    }

    /// Changes when one comes or goes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A station opens one, at `now` in Unix seconds.
    pub(super) fn enter(
        self: &Arc<Self>,
        station: Option<PeerId>,
        now: u64,
    ) -> Result<LinkGuard, LinksFull> {
        let mut inner = self.lock();
        let older = inner
            .links
            .values()
            .find(|link| station.is_some() && link.station == station)
            .map(|link| link.number);
        if let Some(older) = older.and_then(|number| inner.links.remove(&number)) {
            older.ended.cancel();
        }
        if inner.links.len() >= inner.max {
            return Err(LinksFull);
        }
        inner.next += 1;
        let link = Arc::new(AcceptedLink {
            number: inner.next,
            station,
            since: now,
            events_in: AtomicU64::new(0),
            duplicates_in: AtomicU64::new(0),
            refused_in: AtomicU64::new(0),
            events_out: AtomicU64::new(0),
            brought: match station {
                Some(station) => self.brought.of(PeerAddress::of_station(station).as_str()),
                None => Brought::by_nobody(),
            },
            ended: CancellationToken::new(),
        });
        inner.links.insert(link.number, Arc::clone(&link));
        drop(inner);
        self.tell();
        Ok(LinkGuard {
            links: Arc::clone(self),
            link,
        })
    }

    /// A station published an event over whichever of its connections: its live link need not tell it.
    pub(super) fn note_published(&self, station: &PeerId, id: [u8; 32]) {
        let link = {
            let inner = self.lock();
            let of_station = |link: &&Arc<AcceptedLink>| link.station.as_ref() == Some(station);
            inner.links.values().find(of_station).cloned()
        };
        if let Some(link) = link {
            link.note_published(id);
        }
    }

    fn leave(&self, number: u64) {
        self.lock().links.remove(&number);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole after every line of it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the links, until it is dropped.
#[derive(Debug)]
pub(super) struct LinkGuard {
    links: Arc<AcceptedLinks>,
    pub(super) link: Arc<AcceptedLink>,
}

impl LinkGuard {
    /// Counts what became of an event that the station published.
    pub(super) fn count(&self, answer: &Answer) {
        let counter = match (answer.accepted, answer.reason.is_empty()) {
            (true, true) => &self.link.events_in,
            (true, false) => &self.link.duplicates_in,
            (false, _) => &self.link.refused_in,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.links.leave(self.link.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_has_one_link_and_the_newer_one_counts() {
        let links = Arc::new(AcceptedLinks::default());
        let station = Some(PeerId::random());
        let first = links.enter(station, 1).unwrap();
        let second = links.enter(station, 2).unwrap();
        assert!(first.link.ended().is_cancelled());
        drop(first);
        let open: Vec<u64> = links.list().iter().map(|link| link.number).collect();
        assert_eq!(open, [second.link.number]);
    }

    #[test]
    fn there_are_no_more_than_may_be_and_none_when_none_may() {
        let links = Arc::new(AcceptedLinks::default());
        links.allow(2);
        let held: Vec<LinkGuard> = (0..2).map(|_| links.enter(None, 1).unwrap()).collect();
        assert_eq!(links.enter(None, 1).err(), Some(LinksFull));
        links.end(held[0].link.number);
        assert_eq!(links.list().len(), 1, "one that is to end is none any more");
        links.allow(0);
        assert!(held.iter().all(|guard| guard.link.ended().is_cancelled()));
        drop(held);
        assert_eq!(links.enter(None, 1).err(), Some(LinksFull));
    }
}
