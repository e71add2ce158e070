//! Finding stations in the hash table: everyone says "here" under one hash, and asks who else did.
//!
//! Pure: takes the time and what was found, says when to ask. While nobody is found the pauses double from one second
//! to a minute; then every five minutes. Deliberately absent: the table, which libp2p keeps.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first search that found nobody.
const PAUSE_ALONE_FIRST: Duration = Duration::from_secs(1);
/// The longest while nobody is found.
const PAUSE_ALONE_MAX: Duration = Duration::from_secs(60);
/// The pause when somebody was found.
const PAUSE_IN_COMPANY: Duration = Duration::from_secs(300);
/// How soon to search when the table has a new entry: others come at the same time.
const SOON: Duration = Duration::from_millis(300);

/// When to say "here" and to ask.
#[derive(Debug)]
pub(super) struct Rendezvous {
    key: [u8; 32],
    next: Instant,
    pause: Duration,
    /// Whether somebody was found since the last search began.
    company: bool,
    /// Whether the table has an entry that has not been told that we are here.
    untold: bool,
}

impl Rendezvous {
    pub(super) fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            key,
            next: now,
            pause: PAUSE_ALONE_FIRST,
            company: false,
            untold: true,
        }
    }

    pub(super) fn key(&self) -> [u8; 32] {
        self.key
    }

    /// Whether to search now, and whether to say "here" as well.
    pub(super) fn due(&mut self, now: Instant) -> Option<bool> {
        if self.next > now {
            return None;
        }
        if self.company {
            self.pause = PAUSE_ALONE_FIRST;
            self.next = now + PAUSE_IN_COMPANY;
        } else {
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_ALONE_MAX);
        }
        self.company = false;
        Some(std::mem::take(&mut self.untold))
    }

    /// Somebody else is here.
    pub(super) fn found(&mut self, now: Instant) {
        if !self.company {
            self.company = true;
            self.next = self.next.max(now + PAUSE_IN_COMPANY);
        }
    }

    /// The table has a new entry.
    pub(super) fn new_entry(&mut self, now: Instant) {
        self.untold = true;
        self.next = self.next.min(now + SOON);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_alone_and_end_when_the_table_grows() {
        let start = Instant::now();
        let mut rendezvous = Rendezvous::new([0; 32], start);
        assert_eq!(rendezvous.due(start), Some(true), "at once, and told");
        let mut now = start;
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let from = now;
            while rendezvous.due(now).is_none() {
                now += Duration::from_millis(100);
            }
            assert!(now - from >= last && now - from <= PAUSE_ALONE_MAX);
            last = now - from;
        }
        assert_eq!(last, PAUSE_ALONE_MAX);
        rendezvous.new_entry(now);
        assert_eq!(rendezvous.due(now + SOON), Some(true));
        rendezvous.found(now + SOON);
        assert_eq!(
            rendezvous.due(now + PAUSE_ALONE_MAX * 2),
            None,
            "in company"
        );
        assert_eq!(rendezvous.due(now + SOON + PAUSE_IN_COMPANY), Some(false));
    }
}
