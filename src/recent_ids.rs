//! The last ids of something, a bounded number of them: the oldest is forgotten first.
//!
//! For what need not be exact: whoever asks for an id that was forgotten does something twice, and nothing wrong. Some
//! 100 bytes for each id.

use std::collections::{HashSet, VecDeque};

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

#[cfg(test)]
mod tests {
    use super::*;

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
