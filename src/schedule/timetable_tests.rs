use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600;
const WEEK: u64 = 7 * 24 * HOUR;
/// 2026-01-31T12:00:00Z
const BEGIN: u64 = 1_769_860_800;

fn hourly() -> ScheduleOptions {
    ScheduleOptions::default()
}

fn cron(text: &str) -> ScheduleOptions {
    ScheduleOptions {
        cron: Some(text.parse().expect("an expression")),
        ..ScheduleOptions::default()
    }
}

/// What is due while somebody looks every ten seconds.
fn watched(timetable: &mut Timetable, from: u64, to: u64, random: &Random) -> Vec<Due> {
    let looks = (from..to).step_by(10);
    looks.filter_map(|now| timetable.due(now, random)).collect()
}

#[test]
fn in_a_week_of_hours_a_run_is_due_in_each_and_none_drifts() {
    let random = Random::seeded(1);
    let mut timetable = Timetable::at_start(hourly(), None, BEGIN, &random);
    let due = watched(&mut timetable, BEGIN, BEGIN + WEEK, &random);
    assert_eq!(due.len(), 7 * 24);
    assert_eq!(due[0].why, DueReason::Start);
    for (number, due) in due.iter().enumerate().skip(1) {
        let planned = BEGIN + number as u64 * HOUR;
        assert!((planned..=planned + 300).contains(&due.at), "{due:?}");
        assert_eq!(due.why, DueReason::Schedule);
    }
    let late: Vec<u64> = due.iter().map(|due| (due.at - BEGIN) % HOUR).collect();
    assert!(late.iter().any(|late| *late > 150), "{late:?}");
    assert!(late.iter().any(|late| *late < 150), "{late:?}");
}

#[test]
fn what_was_missed_asleep_is_made_up_for_by_one_run() {
    let random = Random::seeded(2);
    let mut timetable = Timetable::at_start(hourly(), None, BEGIN, &random);
    watched(&mut timetable, BEGIN, BEGIN + 2 * HOUR, &random);
    // The lid is closed for a night.
    let morning = BEGIN + 11 * HOUR + 1_234;
    let due = watched(&mut timetable, morning, morning + 2 * HOUR, &random);
    assert_eq!(due[0].why, DueReason::CatchUp);
    assert_eq!(due.len(), 3, "{due:?}");
    assert!(due[1].at >= BEGIN + 12 * HOUR && due[1].why == DueReason::Schedule);
}

#[test]
fn a_clock_that_is_set_back_costs_no_more_than_one_interval() {
    let random = Random::seeded(3);
    // A board without a battery thought that it was next year.
    let mut timetable = Timetable::at_start(hourly(), None, BEGIN + 52 * WEEK, &random);
    timetable.due(BEGIN + 52 * WEEK, &random).expect("at start");
    let due = watched(&mut timetable, BEGIN, BEGIN + 3 * HOUR, &random);
    assert_eq!(due.len(), 2, "{due:?}");
    assert!(due[0].at <= BEGIN + HOUR + 300, "{due:?}");
}

#[test]
fn by_a_cron_expression_a_restart_makes_a_run_due_only_if_one_was_missed() {
    let random = Random::seeded(4);
    let nightly = cron("0 3 * * * UTC");
    let last_night = BEGIN - 9 * HOUR;
    let due_at_start = |last| {
        let mut timetable = Timetable::at_start(nightly.clone(), last, BEGIN, &random);
        timetable.due(BEGIN, &random).map(|due| due.why)
    };
    assert_eq!(due_at_start(None), Some(DueReason::Start));
    assert_eq!(due_at_start(Some(last_night)), None);
    let before = Some(last_night - 24 * HOUR);
    assert_eq!(due_at_start(before), Some(DueReason::CatchUp));
    let mut timetable = Timetable::at_start(nightly, Some(last_night), BEGIN, &random);
    let due = watched(&mut timetable, BEGIN, BEGIN + WEEK, &random);
    assert_eq!(due.len(), 7);
    let first = BEGIN + 15 * HOUR;
    assert!((first..=first + 300).contains(&due[0].at), "{due:?}");
}

#[test]
fn who_wants_no_runs_by_themselves_has_none() {
    let random = Random::seeded(5);
    let mut options = hourly();
    options.every = Duration::ZERO;
    let mut timetable = Timetable::at_start(options, None, BEGIN, &random);
    assert_eq!(timetable.next(), None);
    assert!(watched(&mut timetable, BEGIN, BEGIN + WEEK, &random).is_empty());
    // A reload turns it on: nothing is due at once, since nothing started.
    timetable.change(hourly(), BEGIN, &random);
    let due = watched(&mut timetable, BEGIN, BEGIN + 2 * HOUR, &random);
    assert_eq!(due.len(), 1);
}

proptest! {
    /// Whoever looks, however seldom, and whatever the clock does: what is due is told once, and the next run is never further
    /// away than one interval and its jitter.
    #[test]
    fn whatever_the_clock_does_the_next_run_is_within_one_interval(
        every in 1_u64..100_000,
        steps in prop::collection::vec(-200_000_i64..200_000, 1..60),
        seed: u64,
    ) {
        let random = Random::seeded(seed);
        let options = ScheduleOptions { every: Duration::from_secs(every), ..hourly() };
        let mut now = BEGIN;
        let mut timetable = Timetable::at_start(options, None, now, &random);
        timetable.due(now, &random).expect("at start");
        for step in steps {
            now = now.saturating_add_signed(step);
            if let Some(due) = timetable.due(now, &random) {
                prop_assert!(due.at <= now);
                prop_assert_eq!(timetable.due(now, &random), None, "once");
            }
            let next = timetable.next().expect("it goes on");
            prop_assert!(next.at > now, "{next:?} is due, and was not told at {now}");
            prop_assert!(next.at <= now + every + every / 10, "{next:?} at {now}");
        }
    }
}
