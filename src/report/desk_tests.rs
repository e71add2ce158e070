//! A week of simulated hours: what is told, over outages of the mail server, restarts, and deaths between any two steps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::deciding::tests::{Fate, run_at};
use super::super::memory_files::MemoryFiles;
use super::super::spool::Next;
use super::super::summary::Covers;
use super::*;

/// Three minutes before an hour, so that runs are never due with the daily report.
const BEGIN: u64 = 1_767_225_600 - 180;
const HOUR: u64 = 3_600;

/// What an hour brings.
#[derive(Debug, Clone)]
struct Hour {
    /// Of the two peers.
    fates: [Fate; 2],
    /// Whether a run takes place, and of which kind.
    run: RunOfHour,
    /// Whether the mail server answers.
    server_is_up: bool,
    /// Whether the station judges and sends in this hour, or is only up for the run.
    station_stays: bool,
    /// After how many changes on disk we die, if we do.
    dies_after: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunOfHour {
    Whole,
    Dry,
    Named,
    None,
}

fn hours(count: usize) -> impl Strategy<Value = Vec<Hour>> {
    let fate = || {
        prop_oneof![
            6 => Just(Fate::Equal),
            2 => Just(Fate::LeftOver),
            1 => Just(Fate::BrokeOff),
            2 => (0..60_u64).prop_map(|hours| Fate::Away(Some(hours))),
            1 => Just(Fate::Away(None)),
            1 => Just(Fate::Quiet),
        ]
    };
    let run = prop_oneof![
        8 => Just(RunOfHour::Whole),
        1 => Just(RunOfHour::Dry),
        1 => Just(RunOfHour::Named),
        2 => Just(RunOfHour::None),
    ];
    let dies = prop_oneof![3 => Just(None), 1 => (1..6_usize).prop_map(Some)];
    let hour = (
        fate(),
        fate(),
        run,
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.8),
        dies,
    );
    let hour = hour.prop_map(
        |(one, two, run, server_is_up, station_stays, dies_after)| Hour {
            fates: [one, two],
            run,
            server_is_up,
            station_stays,
            dies_after,
        },
    );
    prop::collection::vec(hour, count)
}

fn options(when: When) -> ReportOptions {
    ReportOptions {
        when,
        to: Some("captain@example.org".parse().expect("an address")),
        smtp_host: Some("localhost".to_owned()),
        ..ReportOptions::default()
    }
}

/// What the captain's mailbox holds.
#[derive(Debug, Default)]
struct Mailbox {
    /// How often each report came.
    came: BTreeMap<String, u64>,
    reports: Vec<Spooled>,
}

/// Runs the desk through these hours; at the end everything is up again. With `deaths` off nobody dies.
fn live_through(hours: &[Hour], when: When, deaths: bool) -> (Vec<RunReport>, Mailbox) {
    let (options, station) = (options(when), StationName::default());
    let zone = TimeZone::UTC;
    let files = MemoryFiles::default();
    let (mut history, mut mailbox) = (Vec::new(), Mailbox::default());
    let mut desk = Some(Desk::open(files.clone(), None, BEGIN).expect("memory"));
    let calm = Hour {
        fates: [Fate::Equal; 2],
        run: RunOfHour::None,
        server_is_up: true,
        station_stays: true,
        dies_after: None,
    };
    // Time enough for the longest pause, and for all that waits.
    let all = hours.iter().chain(std::iter::repeat_n(&calm, 48));
    for (number, hour) in all.enumerate() {
        let began = BEGIN + number as u64 * HOUR;
        if hour.run != RunOfHour::None {
            let [one, two] = hour.fates;
            let mut run = run_at(began, &[("ws://one/", one), ("ws://two/", two)]);
            run.dry_run = hour.run == RunOfHour::Dry;
            run.named_peers = hour.run == RunOfHour::Named;
            history.push(run);
        }
        if !hour.station_stays {
            // Killed after the run: nobody has judged it.
            desk = None;
            continue;
        }
        files.die_after(hour.dies_after.filter(|_| deaths));
        for minute in 0..60 {
            let now = began + 60 * minute;
            let with = Circumstances {
                options: &options,
                station: &station,
                zone: &zone,
                now,
            };
            let worked = work(
                &mut desk,
                &files,
                &history,
                with,
                hour.server_is_up,
                &mut mailbox,
            );
            if worked.is_err() {
                assert!(files.is_dead());
                // And started again in the next minute.
                desk = None;
                files.die_after(None);
            }
        }
    }
    (history, mailbox)
}

/// A minute of the reporter.
fn work(
    desk: &mut Option<Desk<MemoryFiles>>,
    files: &MemoryFiles,
    history: &[RunReport],
    with: Circumstances<'_>,
    server_is_up: bool,
    mailbox: &mut Mailbox,
) -> io::Result<()> {
    let desk = match desk {
        Some(desk) => desk,
        None => desk.insert(Desk::open(files.clone(), history.last(), with.now)?),
    };
    desk.catch_up(history, with)?;
    let channels = with.options.channels();
    if let Next::Send(report) = desk.spool().next(with.now, &channels)? {
        desk.spool().begin(with.now)?;
        if !server_is_up {
            return desk.spool().failed(&report.id, with.now);
        }
        *mailbox.came.entry(report.id.clone()).or_default() += 1;
        let id = report.id.clone();
        mailbox.reports.push(*report);
        // The one moment at which a death means that a mail goes twice is looked at by itself.
        let bears = files.bears();
        files.die_after(None);
        let noted = desk.spool().delivered(&id, Channel::Mail);
        files.die_after(bears);
        noted?;
    }
    Ok(())
}

/// The changes of state that somebody who never dies and is never away would tell.
fn changes(history: &[RunReport]) -> Vec<(String, State)> {
    let mut standing = Standing::default();
    let (mut told, mut changes) = (State::Well, Vec::new());
    for run in history {
        standing.take(run, ReportOptions::default().unreached_for);
        if standing.state != told {
            told = standing.state;
            changes.push((run.run_id.clone(), told));
        }
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn one_mail_for_each_change_of_state_none_lost_none_doubled(week in hours(168)) {
        let (history, mailbox) = live_through(&week, When::Change, true);
        let mut told: Vec<(String, State)> = mailbox
            .reports
            .iter()
            .map(|report| (report.id.clone(), report.summary.state))
            .collect();
        told.sort();
        prop_assert_eq!(told, changes(&history));
    }

    #[test]
    fn of_every_run_each_is_told_once_as_a_mail_or_as_a_line(week in hours(168)) {
        let (history, mailbox) = live_through(&week, When::Always, true);
        let mut told: Vec<String> = Vec::new();
        for report in &mailbox.reports {
            prop_assert_eq!(report.dropped, 0);
            told.push(report.id.clone());
            told.extend(report.earlier.keys().cloned());
        }
        told.sort();
        let all = history.iter().filter(|run| speaks_of_the_whole(run) && run.outcome != Outcome::Skipped);
        let all: Vec<String> = all.map(|run| run.run_id.clone()).collect();
        prop_assert_eq!(told, all);
    }

    #[test]
    fn a_daily_report_a_day_and_every_run_in_one_of_them(week in hours(168)) {
        let (history, mailbox) = live_through(&week, When::Daily, true);
        prop_assert!(mailbox.came.values().all(|times| *times == 1), "{:?}", mailbox.came);
        let mut runs_told = 0;
        for report in &mailbox.reports {
            let Covers::Digest { runs, .. } = &report.summary.covers else {
                panic!("a daily report: {report:?}");
            };
            runs_told += runs;
        }
        let runs = history.iter().filter(|run| !run.dry_run && run.outcome != Outcome::Skipped);
        prop_assert_eq!(runs_told, runs.count() as u64);
        prop_assert!(mailbox.reports.len() <= 9, "one a day");
    }

    #[test]
    fn failures_alone_are_told_and_never_means_never(week in hours(100)) {
        let (history, mailbox) = live_through(&week, When::Failure, true);
        prop_assert!(mailbox.reports.iter().all(|report| report.summary.state != State::Well));
        prop_assert!(mailbox.came.values().all(|times| *times == 1));
        let changes = changes(&history).into_iter().filter(|(_, state)| *state != State::Well);
        for (run, _) in changes {
            prop_assert!(mailbox.came.contains_key(&run), "{run}");
        }
        let (_, nothing) = live_through(&week, When::Never, true);
        prop_assert!(nothing.reports.is_empty());
    }
}

#[test]
fn a_death_between_taking_and_noting_sends_the_same_report_again_and_no_other() {
    let files = MemoryFiles::default();
    let (options, station, zone) = (options(When::Change), StationName::default(), TimeZone::UTC);
    let with = Circumstances {
        options: &options,
        station: &station,
        zone: &zone,
        now: BEGIN,
    };
    let history = [run_at(BEGIN, &[("ws://a/", Fate::BrokeOff)])];
    let mut desk = Desk::open(files.clone(), None, BEGIN).expect("memory");
    assert_eq!(desk.catch_up(&history, with).expect("memory"), 1);
    let channels = options.channels();
    let first = desk.spool().next(BEGIN, &channels).expect("memory");
    files.die_after(Some(1));
    assert!(
        desk.spool()
            .delivered(&history[0].run_id, Channel::Mail)
            .is_err()
    );
    files.die_after(None);
    let mut desk = Desk::open(files, history.last(), BEGIN).expect("memory");
    assert_eq!(desk.catch_up(&history, with).expect("memory"), 0);
    assert_eq!(desk.spool().next(BEGIN, &channels).expect("memory"), first);
}

#[test]
fn what_was_before_anybody_asked_is_not_told_and_without_a_way_nobody_is() {
    let (station, zone) = (StationName::default(), TimeZone::UTC);
    let bad = |hour: u64| run_at(BEGIN + hour * HOUR, &[("ws://a/", Fate::BrokeOff)]);
    let good = |hour: u64| run_at(BEGIN + hour * HOUR, &[("ws://a/", Fate::Equal)]);
    let mut history = vec![bad(0), bad(1)];
    let mut desk = Desk::open(MemoryFiles::default(), history.last(), BEGIN).expect("memory");
    let mut spools = |history: &[RunReport], options: &ReportOptions| {
        let with = Circumstances {
            options,
            station: &station,
            zone: &zone,
            now: BEGIN + 100 * HOUR,
        };
        desk.catch_up(history, with).expect("memory")
    };
    assert_eq!(spools(&history, &options(When::Always)), 0);
    history.push(good(2));
    assert_eq!(
        spools(&history, &options(When::Change)),
        0,
        "well, and was taken for well"
    );
    // No way to send by: nobody was told, so that it is news when there is one.
    history.push(bad(3));
    assert_eq!(spools(&history, &ReportOptions::default()), 0);
    assert_eq!(
        spools(&history, &options(When::Change)),
        0,
        "there was no run since"
    );
    history.push(bad(4));
    assert_eq!(spools(&history, &options(When::Change)), 1);
    // A history that was cut in between.
    let later = [bad(6), good(7), good(8)];
    assert_eq!(spools(&later, &options(When::Change)), 1);
}

#[test]
fn a_daily_report_over_which_we_died_is_not_told_again_days_later() {
    let files = MemoryFiles::default();
    let (options, station, zone) = (options(When::Daily), StationName::default(), TimeZone::UTC);
    let at = |day: u64| Circumstances {
        options: &options,
        station: &station,
        zone: &zone,
        now: BEGIN + day * 24 * HOUR + 12 * HOUR,
    };
    let run = |hour: u64| run_at(BEGIN + hour * HOUR, &[("ws://a/", Fate::Equal)]);
    let mut history = vec![run(1), run(2)];
    let mut desk = Desk::open(files.clone(), None, BEGIN).expect("memory");
    // The report is spooled, and the next change, by which it counts as told, is one too many.
    files.die_after(Some(2));
    assert!(desk.catch_up(&history, at(0)).is_err());
    assert_eq!(desk.spool().ids().expect("memory").len(), 1);
    files.die_after(None);
    history.push(run(60));
    let mut desk = Desk::open(files, history.last(), at(3).now).expect("memory");
    assert_eq!(desk.catch_up(&history, at(3)).expect("memory"), 1);
    let mut told = Vec::new();
    for id in desk.spool().ids().expect("memory") {
        let report = desk.spool().get(&id).expect("memory").expect("readable");
        let Covers::Digest { runs, .. } = report.summary.covers else {
            panic!("a daily report");
        };
        told.push(runs);
    }
    assert_eq!(told, [2, 1], "each run in one of them");
}
