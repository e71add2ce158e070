//! Who is served at present over the service `constellation`, and how many were turned away.
//!
//! Takes a PeerID when the head of its request has come; gives a place, or none. Invariant: no station has more than its
//! share of the places, so one alone keeps nobody else out, and whoever says nothing has none. Deliberately absent: what
//! is served, and how many streams there may be (the carrier's door). Worst case: all places are taken until their
//! deadline by as many stations; whoever comes meanwhile is told to come again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::PeerId;

/// Strangers with tokens that are served at a time: each may send half a megabyte.
const STRANGERS_MAX: usize = 8;
/// Requests of one stranger.
const OF_A_STRANGER_MAX: usize = 1;
/// Requests of admitted stations that are served at a time: each may send eight megabytes, and is done in milliseconds as
/// a rule.
const ADMITTED_MAX: usize = 16;
/// Requests of one admitted station: one of its own, and some that it has given up and we have not yet noticed.
const OF_AN_ADMITTED_MAX: usize = 4;

/// Requests that are served, by whether the station is admitted, and by station.
#[derive(Debug, Default)]
struct Serving {
    strangers: BTreeMap<PeerId, usize>,
    admitted: BTreeMap<PeerId, usize>,
}

#[derive(Debug, Default)]
struct Shared {
    serving: Mutex<Serving>,
    turned_away: AtomicU64,
}

/// Who is served at present.
#[derive(Debug, Default)]
pub(super) struct Visits(Arc<Shared>);

/// A place; dropping it lets it go.
#[derive(Debug)]
pub(super) struct Visit {
    shared: Arc<Shared>,
    peer: PeerId,
    is_admitted: bool,
}

impl Serving {
    fn of(&mut self, is_admitted: bool) -> &mut BTreeMap<PeerId, usize> {
        if is_admitted {
            &mut self.admitted
        } else {
            &mut self.strangers
        }
    }
}

impl Shared {
    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visits {
    /// A place for a request of this station; `None`, and counted, if it has its share or all are taken.
    pub(super) fn enter(&self, peer: PeerId, is_admitted: bool) -> Option<Visit> {
        let (all_max, each_max) = if is_admitted {
            (ADMITTED_MAX, OF_AN_ADMITTED_MAX)
        } else {
            (STRANGERS_MAX, OF_A_STRANGER_MAX)
        };
        let mut serving = self.0.serving();
        let places = serving.of(is_admitted);
        let of_it = places.get(&peer).copied().unwrap_or_default();
        if of_it >= each_max || places.values().sum::<usize>() >= all_max {
            self.0.turned_away.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        places.insert(peer, of_it + 1);
        Some(Visit {
            shared: Arc::clone(&self.0),
            peer,
            is_admitted,
        })
    }

    /// How many had no place.
    pub(super) fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut serving = self.shared.serving();
        let places = serving.of(self.is_admitted);
        match places.get_mut(&self.peer) {
            Some(of_it) if *of_it > 1 => *of_it -= 1,
            _ => {
                places.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_its_share_and_whoever_leaves_makes_room() {
        let visits = Visits::default();
        let peers: Vec<PeerId> = (0..=STRANGERS_MAX).map(|_| PeerId::random()).collect();
        let first = visits.enter(peers[0], false).expect("there is room");
        assert!(visits.enter(peers[0], false).is_none(), "its share");
        let places: Vec<Visit> = peers[1..STRANGERS_MAX]
            .iter()
            .map(|peer| visits.enter(*peer, false).expect("there is room"))
            .collect();
        assert!(visits.enter(peers[STRANGERS_MAX], false).is_none());
        assert_eq!(visits.turned_away(), 2);
        drop(first);
        let last = visits.enter(peers[STRANGERS_MAX], false);
        assert!(last.is_some(), "the first has left");
        // Strangers keep no admitted station out.
        let of_one: Vec<Option<Visit>> = (0..=OF_AN_ADMITTED_MAX)
            .map(|_| visits.enter(peers[0], true))
            .collect();
        let served = of_one.iter().flatten().count();
        assert_eq!(served, OF_AN_ADMITTED_MAX);
        drop((places, of_one));
        assert!(visits.enter(peers[0], true).is_some());
    }
}
