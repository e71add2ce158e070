//! How much memory this process has of its own, as a reason to take no more connections.
//!
//! Anonymous memory, not resident: the pages of the store's map are the system's to take back, and with libp2p's own
//! limit a station with a large store would refuse everyone. Where the system does not tell, there is no bound.

use std::time::Duration;

/// How long a reading is used: connections come in bursts.
const FRESH_FOR: Duration = Duration::from_millis(250);
/// What Linux counts memory in.
const KIB: u64 = 1_024;

/// A bound on memory.
#[derive(Debug)]
pub(super) struct MemoryBound {
    bytes_max: Option<u64>,
    read_at: Option<Duration>,
    over: bool,
}

impl MemoryBound {
    pub(super) fn new(bytes_max: Option<u64>) -> Self {
        Self {
            bytes_max,
            read_at: None,
            over: false,
        }
    }

    /// Whether there is more than the bound; `now` is monotonic.
    pub(super) fn is_exceeded(&mut self, now: Duration) -> bool {
        let Some(bytes_max) = self.bytes_max else {
            return false;
        };
        let stale = |at| now.saturating_sub(at) >= FRESH_FOR;
        if self.read_at.is_none_or(stale) {
            self.read_at = Some(now);
            self.over = anonymous_bytes().is_some_and(|bytes| bytes > bytes_max);
        }
        self.over
    }
}

/// Anonymous memory of this process.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_exceeded_when_it_is_below_what_there_is() {
        let now = Duration::from_secs(1);
        assert!(!MemoryBound::new(None).is_exceeded(now));
        if anonymous_bytes().is_some() {
            assert!(MemoryBound::new(Some(1)).is_exceeded(now));
            assert!(!MemoryBound::new(Some(u64::MAX)).is_exceeded(now));
        }
    }
}
