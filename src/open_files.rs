//! How many files and sockets the process may have open: raised, at its start, to what the system lets it have.
//!
//! Linux gives a process 1,024 unless it asks, which is less than one burst of tunnels needs (`tunnel` and `services`
//! bound their streams by themselves). Deliberately absent: more than the hard limit, which is the captain's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for all bounds of this program together. Not simply the hard limit: that may be a billion.
pub const OPEN_FILES_WANTED: u64 = 16_384;

/// Raises the limit; one that is higher already stays. A refusal leaves things as they were.
pub fn allow_many() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = wanted(current, maximum);
    if raised == current {
        return;
    }
    let limit = Rlimit {
        current: raised,
        maximum,
    };
    // The log does not exist yet, and a station with few peers needs no more than it has.
    let _refused = setrlimit(Resource::Nofile, limit);
}

/// The soft limit to ask for; `None` is no limit.
fn wanted(current: Option<u64>, maximum: Option<u64>) -> Option<u64> {
    let current = current?;
    let possible = maximum.map_or(OPEN_FILES_WANTED, |maximum| maximum.min(OPEN_FILES_WANTED));
    Some(possible.max(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_is_needed_and_allowed_and_never_lowered() {
        assert_eq!(wanted(Some(1_024), Some(1 << 30)), Some(OPEN_FILES_WANTED));
        assert_eq!(wanted(Some(1_024), None), Some(OPEN_FILES_WANTED));
        assert_eq!(wanted(Some(1_024), Some(4_096)), Some(4_096));
        assert_eq!(wanted(Some(20_000), Some(20_000)), Some(20_000));
        assert_eq!(wanted(None, None), None);
    }
}
