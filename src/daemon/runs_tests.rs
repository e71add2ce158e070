use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, Instant, timeout};

use super::*;
use crate::tasks::TaskGroup;
use crate::time::TimeSource;

const HOUR: u64 = 3_600;
/// 2026-01-31T12:00:00Z
const BEGIN: u64 = 1_769_860_800;

/// Wall time that goes on with the paused time of the runtime, and while the machine "sleeps" (`asleep`, in seconds).
struct Paused {
    begun: Instant,
    asleep: Arc<AtomicU64>,
}

impl TimeSource for Paused {
    fn wall(&self) -> Duration {
        let asleep = Duration::from_secs(self.asleep.load(Ordering::Relaxed));
        Duration::from_secs(BEGIN) + asleep + self.begun.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_week_of_hours_brings_a_run_each_and_one_for_a_night_asleep() {
    let asleep = Arc::new(AtomicU64::new(0));
    let clock = Clock::new(Paused {
        begun: Instant::now(),
        asleep: Arc::clone(&asleep),
    });
    let schedule = watch::Sender::new(ScheduleOptions::default());
    let wanted = Arc::new(Wanted::default());
    let next_runs = watch::Sender::new(NextRuns::default());
    let keeper = TimeKeeper {
        schedule: schedule.subscribe(),
        wanted: Arc::clone(&wanted),
        next_runs: next_runs.clone(),
        clock: clock.clone(),
        random: Random::seeded(1),
    };
    let tasks = TaskGroup::new(1);
    tasks.spawn(keeper.keep_time(None)).expect("room");
    let mut reasons = Vec::new();
    let week = BEGIN + 7 * 24 * HOUR;
    let mut announced = None;
    while let Ok(why) = timeout(Duration::from_secs(3 * HOUR), wanted.next()).await {
        let now = clock.unix_seconds();
        if now >= week {
            break;
        }
        if let Some(Due { at, .. }) = announced.filter(|_| why == DueReason::Schedule) {
            assert!(
                (at..=at + 15).contains(&now),
                "{at} was announced, {now} it is"
            );
        }
        // The keeper has planned the next one when its task had its turn.
        tokio::task::yield_now().await;
        announced = next_runs.borrow().next();
        reasons.push(why);
        if reasons.len() == 50 {
            asleep.fetch_add(10 * HOUR, Ordering::Relaxed);
        }
    }
    let count = |wanted| reasons.iter().filter(|why| **why == wanted).count();
    assert_eq!(count(DueReason::Start), 1);
    assert_eq!(count(DueReason::CatchUp), 1);
    assert_eq!(reasons.len(), 7 * 24 - 9, "{reasons:?}");
    tasks.end().await;
}

#[test]
fn of_several_reasons_for_one_run_the_first_is_told() {
    let wanted = Wanted::default();
    wanted.want(DueReason::Schedule);
    wanted.want(DueReason::Found);
    assert_eq!(wanted.take(), Some(DueReason::Schedule));
    assert_eq!(wanted.take(), None);
}

#[tokio::test]
async fn when_a_run_took_place_is_known_after_a_restart_and_nonsense_is_not_believed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("schedule.json");
    let record = Record::at(path.clone());
    assert_eq!(record.read().await, None);
    record.write(BEGIN).await;
    assert_eq!(Record::at(path.clone()).read().await, Some(BEGIN));
    std::fs::write(&path, "{\"last_run\":").expect("ours");
    assert_eq!(record.read().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_due_for_whom_nobody_has_met_and_at_most_once_a_minute() {
    let address = |number: u8| -> PeerAddress {
        let relay = format!("ws://127.0.0.1:{number}");
        relay.parse().unwrap()
    };
    let known = |numbers: &[u8]| {
        Arc::new(Neighbours {
            found: numbers.iter().copied().map(address).collect(),
            ..Neighbours::default()
        })
    };
    let found = watch::Sender::new(known(&[1]));
    let schedule = watch::Sender::new(ScheduleOptions::default());
    let wanted = Arc::new(Wanted::default());
    let tasks = TaskGroup::new(1);
    tasks
        .spawn(meet_found(
            found.subscribe(),
            schedule.subscribe(),
            Arc::clone(&wanted),
        ))
        .unwrap();
    let is_due = |within: u64| {
        let wanted = Arc::clone(&wanted);
        async move {
            timeout(Duration::from_secs(within), wanted.next())
                .await
                .is_ok()
        }
    };
    assert!(!is_due(600).await, "whom the first run meets");
    found.send_replace(known(&[1, 2]));
    assert!(is_due(5).await);
    found.send_replace(known(&[1, 2, 3]));
    assert!(!is_due(50).await);
    assert!(is_due(20).await);
    found.send_replace(known(&[2, 3]));
    assert!(!is_due(600).await, "one that went");
    schedule.send_replace(ScheduleOptions {
        every: Duration::ZERO,
        ..ScheduleOptions::default()
    });
    found.send_replace(known(&[2, 3, 4]));
    assert!(!is_due(600).await, "runs are only made when asked for");
    tasks.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_comes_back_makes_a_run_due_and_one_that_stays_does_not() {
    use crate::tunnel::CarrierKind;

    let state = watch::Sender::new(Arc::new(CarrierState::new(CarrierKind::Kubo)));
    let schedule = watch::Sender::new(ScheduleOptions::default());
    let wanted = Arc::new(Wanted::default());
    let tasks = TaskGroup::new(1);
    let following = {
        let (state, schedule) = (state.subscribe(), schedule.subscribe());
        let wanted = Arc::clone(&wanted);
        async move { follow_carrier(state, &schedule, &wanted).await }
    };
    tasks.spawn(following).expect("room");
    let problem = |problem: Option<&str>| {
        let mut now = CarrierState::new(CarrierKind::Kubo);
        now.problem = problem.map(str::to_owned);
        state.send_replace(Arc::new(now));
    };
    let is_wanted = async || timeout(Duration::from_secs(600), wanted.next()).await.ok();
    problem(None);
    assert_eq!(is_wanted().await, None, "nothing has happened");
    problem(Some("kubo does not answer"));
    assert_eq!(is_wanted().await, None, "it is away");
    problem(None);
    assert_eq!(is_wanted().await, Some(DueReason::Carrier));
    assert_eq!(is_wanted().await, None, "once");
    // Where runs are not made by themselves, nothing makes one due.
    schedule.send_replace(ScheduleOptions {
        every: Duration::ZERO,
        ..ScheduleOptions::default()
    });
    problem(Some("kubo does not answer"));
    assert_eq!(is_wanted().await, None);
    problem(None);
    assert_eq!(is_wanted().await, None);
    tasks.end().await;
}
