//! Ephemeral events (NIP-01): never on disk, kept for a moment for those who listen.
//!
//! A bounded ring, oldest dropped first; a listener that falls behind is told how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use constellation_event::VerifiedEvent;

use crate::store::Options;

/// Ephemeral events that live subscribers have not seen yet.
#[derive(Debug, Clone)]
pub struct EphemeralNews {
    /// In the order of arrival.
    pub events: Vec<Arc<VerifiedEvent>>,
    /// Pass this the next time.
    pub cursor: u64,
    /// How many the ring had already dropped.
    pub missed: u64,
}

#[derive(Default)]
pub(crate) struct EphemeralRing {
    next: u64,
    bytes: usize,
    events: VecDeque<Arc<VerifiedEvent>>,
}

impl EphemeralRing {
    /// Pass it to [`EphemeralRing::since`] to hear what comes next.
    pub(crate) fn cursor(&self) -> u64 {
        self.next
    }

    pub(crate) fn push(&mut self, event: VerifiedEvent, options: &Options) {
        self.bytes += event.json().len();
        self.events.push_back(Arc::new(event));
        self.next += 1;
        while self.events.len() > options.ephemeral_events_max
            || self.bytes > options.ephemeral_bytes_max
        {
            match self.events.pop_front() {
                Some(oldest) => self.bytes -= oldest.json().len(),
                None => break,
            }
        }
    }

    pub(crate) fn since(&self, cursor: u64) -> EphemeralNews {
        let first = self.next - self.events.len() as u64;
        let skip = usize::try_from(cursor.saturating_sub(first)).unwrap_or(usize::MAX);
        EphemeralNews {
            events: self.events.iter().skip(skip).cloned().collect(),
            cursor: self.next,
            missed: first.saturating_sub(cursor),
        }
    }
}
