//! The last ids of something, a bounded number of them: the oldest is forgotten first.
//!
//! For what need not be exact: whoever asks for an id that was forgotten does something twice, and nothing wrong. Some
//! 100 bytes for each id. [`BroughtByPeers`] keeps such ids for each peer, shared by all who talk with it: what an exchange
//! fetched from a peer, its live link need not offer it. Bounded: they are kept for as long as somebody talks with the peer.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::limits::LIVE_RECENT_IDS;

/// Ids that came last.
#[derive(Debug)]
pub struct RecentIds {
    order: VecDeque<[u8; 32]>,
    known: HashSet<[u8; 32]>,
    most: usize,
}

impl RecentIds {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self {
            order: VecDeque::new(),
            known: HashSet::new(),
            most,
        }
    }

    /// Remembers an id; one that is remembered already keeps its age.
    pub fn note(&mut self, id: [u8; 32]) {
        if self.most == 0 || !self.known.insert(id) {
            return;
        }
        if self.order.len() == self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
    }

    /// Whether it is remembered.
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.known.contains(id)
    }
}

/// What one peer brought lately, over whichever connection. Clones are the same.
#[derive(Debug, Clone)]
pub struct Brought(Arc<Mutex<RecentIds>>);

impl Brought {
    /// Of a peer without a name.
    pub fn by_nobody() -> Self {
        Self(Arc::new(Mutex::new(RecentIds::new(LIVE_RECENT_IDS))))
    }

    /// The peer has these events.
    pub fn note(&self, ids: impl IntoIterator<Item = [u8; 32]>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            // Whole after every one of them.
            recent.note(id);
        }
    }

    /// Whether it brought this one.
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.contains(id)
    }
}

/// What each peer brought lately, by the name under which exchanges know it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct BroughtByPeers(Arc<Mutex<BTreeMap<String, Weak<Mutex<RecentIds>>>>>);

impl BroughtByPeers {
    /// Of this peer: what all hold of it who hold it now.
    pub fn of(&self, peer: &str) -> Brought {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = peers.get(peer).and_then(Weak::upgrade) {
            return Brought(known);
        }
        // Those with whom nobody talks any more make room.
        peers.retain(|_, ids| ids.strong_count() > 0);
        let brought = Brought::by_nobody();
        peers.insert(peer.to_owned(), Arc::downgrade(&brought.0));
        brought
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_talks_with_a_peer_knows_what_it_brought_until_nobody_does() {
        let peers = BroughtByPeers::default();
        let (link, exchange, other) = (peers.of("a"), peers.of("a"), peers.of("b"));
        exchange.note([[1; 32]]);
        drop(exchange);
        assert!(link.contains(&[1; 32]) && !other.contains(&[1; 32]));
        drop((link, other));
        assert!(!peers.of("a").contains(&[1; 32]));
        let kept = peers.0.lock().unwrap();
        assert_eq!(kept.len(), 1, "those with whom nobody talks are forgotten");
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_none_counts_twice() {
        let mut recent = RecentIds::new(2);
        for id in [1, 1, 2, 1, 3] {
            recent.note([id; 32]);
        }
        let remembered = [1, 2, 3].map(|id| recent.contains(&[id; 32]));
        assert_eq!(remembered, [false, true, true]);
        let mut none = RecentIds::new(0);
        none.note([1; 32]);
        assert!(!none.contains(&[1; 32]));
    }
}
