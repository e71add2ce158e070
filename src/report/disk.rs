//! When the disk will be full, at the rate at which the store has grown.
//!
//! Takes what past runs said of store and disk; gives [`Fills`]. Pure. The rate is that between the first and the last of
//! them, and nothing is said of less than an hour: a burst is no trend. Deliberately absent: what else fills the disk.

use serde::{Deserialize, Serialize};

/// Less tells no rate.
const SPAN_SECONDS_MIN: u64 = 3600;
/// Beyond it, it is said only that it is beyond.
const DAYS_MAX: u64 = 365;

/// When the disk is full at the present rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fills {
    /// After so many days.
    InDays(u64),
    /// Not within a year.
    NotWithinAYear,
    /// Too little is known.
    Unknown,
}

/// What one run said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filling {
    /// Unix seconds.
    pub(super) at: u64,
    /// Bytes of the store in use.
    pub(super) store_bytes: u64,
    /// Bytes left on the disk.
    pub(super) free_bytes: Option<u64>,
}

/// From the runs, the oldest first.
pub(super) fn fills(runs: &[Filling]) -> Fills {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return Fills::Unknown;
    };
    let span = last.at.saturating_sub(first.at);
    let Some(free) = last.free_bytes.filter(|_| span >= SPAN_SECONDS_MIN) else {
        return Fills::Unknown;
    };
    let grown = last.store_bytes.saturating_sub(first.store_bytes);
    if grown == 0 {
        return Fills::NotWithinAYear;
    }
    let seconds = u128::from(free) * u128::from(span) / u128::from(grown);
    match u64::try_from(seconds / 86_400) {
        Ok(days) if days <= DAYS_MAX => Fills::InDays(days),
        _ => Fills::NotWithinAYear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_where_there_is_a_rate_and_only_there() {
        let run = |hour: u64, store_bytes: u64, free: u64| Filling {
            at: hour * 3_600,
            store_bytes,
            free_bytes: Some(free),
        };
        let (mega, giga) = (1_000_000, 1_000_000_000);
        assert_eq!(fills(&[]), Fills::Unknown);
        assert_eq!(fills(&[run(1, mega, giga)]), Fills::Unknown);
        let quick = [
            run(0, 0, giga),
            Filling {
                at: 60,
                ..run(0, mega, giga)
            },
        ];
        assert_eq!(fills(&quick), Fills::Unknown, "a burst is no trend");
        let steady = [
            run(0, mega, giga),
            run(12, 2 * mega, giga),
            run(24, 11 * mega, giga),
        ];
        assert_eq!(fills(&steady), Fills::InDays(100));
        assert_eq!(
            fills(&[run(0, 5, giga), run(24, 5, giga)]),
            Fills::NotWithinAYear
        );
        assert_eq!(
            fills(&[run(0, 9, giga), run(24, 5, giga)]),
            Fills::NotWithinAYear
        );
        assert_eq!(
            fills(&[run(0, 0, giga), run(24, mega, giga)]),
            Fills::NotWithinAYear
        );
        assert_eq!(fills(&[run(0, 0, 0), run(24, mega, 0)]), Fills::InDays(0));
        let silent = Filling {
            free_bytes: None,
            ..run(24, mega, 0)
        };
        assert_eq!(fills(&[run(0, 0, giga), silent]), Fills::Unknown);
        let huge = [run(0, 0, u64::MAX), run(24, 1, u64::MAX)];
        assert_eq!(fills(&huge), Fills::NotWithinAYear, "no overflow");
    }
}
