//! The clock: against the dates that relays give, against what is stored, and against when this program was written.

use super::{CheckName, Finding, Remedy, Scene};

/// This version is younger than that: 2026-01-01, Unix seconds.
const WRITTEN_AFTER: u64 = 1_767_225_600;
const YEAR_SECONDS: u64 = 365 * 24 * 3_600;
/// Dates are given in whole seconds, and take a moment to arrive.
const OFF_SECONDS: u64 = 60;
/// Relays refuse what is further ahead.
const OFF_SECONDS_MAX: u64 = 900;

/// `dates`: how many seconds each relay is ahead of us.
pub(super) fn check(scene: &Scene<'_>, from_the_future: u64, dates: &[i64]) -> Finding {
    judged(scene.around.clock.unix_seconds(), from_the_future, dates)
}

fn judged(now: u64, from_the_future: u64, dates: &[i64]) -> Finding {
    let name = CheckName::Clock;
    let set = || Remedy::command("sudo timedatectl set-ntp true");
    let shown = crate::time::rfc3339(now);
    if now < WRITTEN_AFTER.saturating_sub(YEAR_SECONDS) {
        let seen = format!("it is said to be {shown}: long before this program was written");
        return name.problem(seen, set());
    }
    // Most relays must agree: of two that differ one is wrong, and it may be theirs.
    let mut sorted = dates.to_vec();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let off = middle.unsigned_abs();
    let way = if middle > 0 { "behind" } else { "ahead of" };
    let seen = format!("{shown}: {off} s {way} {} relays", sorted.len());
    if off > OFF_SECONDS_MAX {
        return name.problem(seen, set());
    }
    if off > OFF_SECONDS {
        return name.warning(seen, set());
    }
    if from_the_future > 0 {
        let seen = format!("{shown}: {from_the_future} events that are stored here are from later");
        return name.warning(seen, set());
    }
    if sorted.is_empty() {
        return name.ok(format!("{shown}; no relay told the date"));
    }
    name.ok(format!("{shown}, as {} relays say", sorted.len()))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_clock_is_compared_with_what_most_relays_say() {
        let verdict = |now, future, dates: &[i64]| judged(now, future, dates).verdict;
        let now = WRITTEN_AFTER;
        assert_eq!(verdict(now, 0, &[]), Verdict::Ok);
        assert_eq!(verdict(0, 0, &[]), Verdict::Problem, "1970");
        assert_eq!(verdict(now, 1, &[]), Verdict::Warning);
        assert_eq!(verdict(now, 0, &[100]), Verdict::Warning);
        assert_eq!(verdict(now, 0, &[-1_000]), Verdict::Problem);
        assert_eq!(verdict(now, 0, &[1, 2, 9_000]), Verdict::Ok, "one is wrong");
    }
}
