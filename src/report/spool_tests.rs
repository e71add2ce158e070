//! What waits is bounded, tried with growing pauses, and never lost between two files.

use super::super::deciding::{
    State,
    tests::{Fate, run_at},
};
use super::super::memory_files::MemoryFiles;
use super::super::summary::StationName;
use super::*;
use crate::time::rfc3339;

const BEGIN: u64 = 1_700_000_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

fn report(at: u64, occasion: Occasion) -> Spooled {
    let run = run_at(at, &[("ws://a/", Fate::Equal)]);
    let summary = Summary::of_run(&run, &[], State::Well, &StationName::default());
    Spooled::new(run.run_id, occasion, summary, mail(), at)
}

fn mail() -> BTreeSet<Channel> {
    [Channel::Mail].into()
}

fn to_send(next: Next) -> Spooled {
    match next {
        Next::Send(report) => *report,
        other => panic!("something is to be sent: {other:?}"),
    }
}

#[test]
fn one_goes_a_minute_the_oldest_first() {
    let mut spool = Spool::over(MemoryFiles::default());
    assert_eq!(spool.next(BEGIN, &mail()).unwrap(), Next::Nothing);
    let reports = [BEGIN, BEGIN + 1].map(|at| report(at, Occasion::Change));
    for report in &reports {
        spool.put(report).unwrap();
    }
    let mut now = BEGIN + HOUR;
    assert_eq!(to_send(spool.next(now, &mail()).unwrap()), reports[0]);
    spool.begin(now).unwrap();
    spool.delivered(&reports[0].id, Channel::Mail).unwrap();
    // Also for whoever begins anew.
    let mut spool = Spool::over(spool.files);
    assert_eq!(spool.next(now, &mail()).unwrap(), Next::At(now + MINUTE));
    now += MINUTE;
    assert_eq!(to_send(spool.next(now, &mail()).unwrap()), reports[1]);
    // A clock that was put back silences nobody.
    assert_eq!(to_send(spool.next(BEGIN, &mail()).unwrap()), reports[1]);
    spool.delivered(&reports[1].id, Channel::Mail).unwrap();
    assert_eq!(spool.next(now + HOUR, &mail()).unwrap(), Next::Nothing);
}

#[test]
fn one_that_does_not_go_is_tried_again_with_growing_pauses_and_others_go_meanwhile() {
    let mut spool = Spool::over(MemoryFiles::default());
    let stuck = report(BEGIN, Occasion::Change);
    spool.put(&stuck).unwrap();
    let mut now = BEGIN + 10;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let tried = to_send(spool.next(now, &mail()).unwrap());
        spool.begin(now).unwrap();
        spool.failed(&tried.id, now).unwrap();
        let Next::At(at) = spool.next(now, &mail()).unwrap() else {
            panic!("it waits");
        };
        pauses.push((at - now) / MINUTE);
        now = at;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]);
    let tried = to_send(spool.next(now, &mail()).unwrap());
    spool.failed(&tried.id, now).unwrap();
    let other = report(BEGIN + 5, Occasion::Change);
    spool.put(&other).unwrap();
    assert_eq!(to_send(spool.next(now + MINUTE, &mail()).unwrap()), other);
}

#[test]
fn older_reports_of_every_run_become_lines_of_the_newest() {
    let mut spool = Spool::over(MemoryFiles::default());
    for hour in 0..150 {
        spool
            .put(&report(BEGIN + hour * HOUR, Occasion::Run))
            .unwrap();
        // As an outage: nobody sends, but the spool is looked at.
        spool.next(BEGIN + hour * HOUR, &mail()).unwrap();
    }
    let now = BEGIN + 150 * HOUR;
    let sent = to_send(spool.next(now, &mail()).unwrap());
    assert_eq!(sent.summary.started_at, rfc3339(BEGIN + 149 * HOUR));
    assert_eq!(sent.earlier.len(), REPORT_LINES_MAX);
    assert_eq!(sent.dropped + sent.earlier.len() as u64, 149);
    let newest_line = sent.earlier.values().next_back().expect("a line");
    assert!(newest_line.contains("converged, 0 events collected, 1 of 1 peers equal"));
    assert_eq!(spool.ids().unwrap(), std::slice::from_ref(&sent.id));
    spool.delivered(&sent.id, Channel::Mail).unwrap();
    assert_eq!(spool.next(now, &mail()).unwrap(), Next::Nothing);
}

#[test]
fn beyond_a_hundred_or_a_week_the_oldest_are_counted_in_the_newest_and_that_one_stays() {
    let mut spool = Spool::over(MemoryFiles::default());
    for number in 0..REPORTS_SPOOLED_MAX as u64 + 7 {
        spool
            .put(&report(BEGIN + number, Occasion::Change))
            .unwrap();
    }
    let now = BEGIN + 1_000;
    spool.next(now, &mail()).unwrap();
    let ids = spool.ids().unwrap();
    assert_eq!(ids.len(), REPORTS_SPOOLED_MAX);
    let newest = spool
        .get(ids.last().expect("some"))
        .unwrap()
        .expect("readable");
    assert_eq!(newest.dropped, 7);
    let next_month = BEGIN + 30 * 24 * HOUR;
    let only = to_send(spool.next(next_month, &mail()).unwrap());
    assert_eq!(only.id, newest.id);
    assert_eq!(only.dropped, REPORTS_SPOOLED_MAX as u64 + 6);
}

#[test]
fn whatever_step_we_die_at_every_report_is_sent_told_as_a_line_or_counted_once() {
    let of_all = |occasion: Occasion, count: u64| {
        for dies_after in 1.. {
            let files = MemoryFiles::default();
            let mut spool = Spool::over(files.clone());
            for number in 0..count {
                spool.put(&report(BEGIN + number, occasion)).unwrap();
            }
            files.die_after(Some(dies_after));
            let now = BEGIN + HOUR;
            let died = spool.next(now, &mail()).is_err();
            files.die_after(None);
            let mut spool = Spool::over(files);
            let (mut told, mut sent) = (0, 0);
            let mut now = now;
            while let Next::Send(report) = spool.next(now, &mail()).unwrap() {
                sent += 1;
                told += 1 + report.dropped + report.earlier.len() as u64;
                spool.begin(now).unwrap();
                spool.delivered(&report.id, Channel::Mail).unwrap();
                now += MINUTE;
            }
            assert_eq!(
                told, count,
                "{occasion:?}, died at {dies_after}, sent {sent}"
            );
            if !died {
                assert!(dies_after > 3, "it was seen to die");
                break;
            }
        }
    };
    of_all(Occasion::Run, 5);
    of_all(Occasion::Change, REPORTS_SPOOLED_MAX as u64 + 3);
}

#[test]
fn a_way_that_took_it_is_not_asked_again_and_one_that_is_gone_is_not_waited_for() {
    let mut spool = Spool::over(MemoryFiles::default());
    let both: BTreeSet<Channel> = [Channel::Mail, Channel::Note].into();
    let mut two_ways = report(BEGIN, Occasion::Change);
    two_ways.undelivered.clone_from(&both);
    spool.put(&two_ways).unwrap();
    spool.delivered(&two_ways.id, Channel::Note).unwrap();
    let left = to_send(spool.next(BEGIN, &both).unwrap());
    assert_eq!(left.undelivered, mail());
    assert_eq!(
        spool.next(BEGIN, &[Channel::Note].into()).unwrap(),
        Next::Nothing
    );
    assert!(spool.ids().unwrap().is_empty());
}

#[test]
fn what_cannot_be_read_is_set_aside_and_stops_nobody() {
    let mut spool = Spool::over(MemoryFiles::default());
    spool.files().replace("1-x.report", b"{\"half\":").unwrap();
    let good = report(BEGIN, Occasion::Change);
    spool.put(&good).unwrap();
    assert_eq!(to_send(spool.next(BEGIN, &mail()).unwrap()), good);
    assert!(spool.files().read("1-x.unreadable").unwrap().is_some());
}
