//! How things stand after runs, and when the daily report is due.

use super::*;
use crate::sync::{Failure, Step};

const HOUR: u64 = 3_600;
const LONG: Duration = Duration::from_secs(26 * HOUR);

/// What becomes of an exchange.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) enum Fate {
    Equal,
    LeftOver,
    BrokeOff,
    /// Not reached; the last success was so many hours ago, if ever.
    Away(Option<u64>),
    Quiet,
}

pub(in crate::report) fn run_at(at: u64, peers: &[(&str, Fate)]) -> RunReport {
    let peers: Vec<PeerReport> = peers.iter().map(|(name, fate)| peer(name, *fate)).collect();
    RunReport {
        run_id: format!("{at}-00000000"),
        outcome: RunReport::outcome_of(&peers),
        started_at: crate::time::rfc3339(at),
        duration_ms: 1_000,
        dry_run: false,
        named_peers: false,
        totals: RunReport::totals_of(&peers, None),
        peers,
        facts: None,
    }
}

fn peer(name: &str, fate: Fate) -> PeerReport {
    let mut peer = PeerReport::new(name);
    let broken = |step, reason: &str| {
        Some(Failure {
            step,
            reason: reason.to_owned(),
            detail: "it is so".to_owned(),
        })
    };
    peer.lag_s = Some(0);
    match fate {
        Fate::Equal => peer.outcome = Outcome::Converged,
        Fate::LeftOver => peer.outcome = Outcome::Partial,
        Fate::BrokeOff => {
            peer.outcome = Outcome::Failed;
            peer.error = broken(Step::Download, "timeout");
        }
        Fate::Away(hours) => {
            peer.outcome = Outcome::Failed;
            peer.error = broken(Step::Connect, "refused");
            peer.lag_s = hours.map(|hours| hours * HOUR);
        }
        Fate::Quiet => {
            peer.outcome = Outcome::Skipped;
            peer.error = broken(Step::Connect, "quiet_hours");
        }
    }
    peer
}

/// How things stand after these runs, one an hour.
fn stands(runs: &[&[(&str, Fate)]]) -> Vec<State> {
    let mut standing = Standing::default();
    let mut at = 1_700_000_000;
    let states = runs.iter().map(|peers| {
        at += HOUR;
        standing.take(&run_at(at, peers), LONG);
        standing.state
    });
    states.collect()
}

#[test]
fn a_run_is_well_partial_or_failed_by_what_its_exchanges_say() {
    use Fate::{Away, BrokeOff, Equal, LeftOver};
    use State::{Failed, Partial, Well};
    let after = |peers: &[(&str, Fate)]| stands(&[peers])[0];
    assert_eq!(after(&[("a", Equal), ("b", Equal)]), Well);
    assert_eq!(after(&[("a", Equal), ("b", LeftOver)]), Partial);
    assert_eq!(after(&[("a", Equal), ("b", BrokeOff)]), Partial);
    assert_eq!(after(&[("a", BrokeOff), ("b", BrokeOff)]), Failed);
    assert_eq!(after(&[("a", BrokeOff), ("b", Away(Some(1)))]), Failed);
    assert_eq!(after(&[("a", Equal), ("b", Away(Some(1)))]), Well);
    assert_eq!(after(&[("a", Equal), ("b", Away(Some(30)))]), Partial);
    let mut late = run_at(1_700_000_000, &[("a", Equal), ("b", Equal)]);
    late.outcome = Outcome::Deadline;
    let mut standing = Standing::default();
    standing.take(&late, LONG);
    assert_eq!(standing.state, Failed);
}

#[test]
fn what_was_known_of_a_peer_holds_while_it_is_away_or_rests() {
    use Fate::{Away, Equal, LeftOver, Quiet};
    use State::{Failed, Partial, Well};
    let states = stands(&[
        &[("a", Equal), ("b", LeftOver)],
        &[("a", Equal), ("b", Away(Some(2)))],
        &[("a", Equal), ("b", Quiet)],
        &[("a", Equal), ("b", Equal)],
        &[("a", Away(Some(1))), ("b", Away(Some(1)))],
        &[("a", Away(Some(27))), ("b", Away(Some(27)))],
        &[("a", Quiet), ("b", Quiet)],
        &[("a", Equal), ("b", Away(Some(28)))],
        // Nobody exchanges with it any more.
        &[("a", Equal)],
    ]);
    assert_eq!(
        states,
        [
            Partial, Partial, Partial, Well, Well, Failed, Failed, Partial, Well
        ]
    );
}

#[test]
fn a_peer_that_was_never_reached_is_at_fault_after_as_long() {
    let away: &[(&str, Fate)] = &[("a", Fate::Away(None)), ("b", Fate::Equal)];
    let states = stands(&[away; 28]);
    assert!(states[..26].iter().all(|state| *state == State::Well));
    assert!(states[26..].iter().all(|state| *state == State::Partial));
    let mut standing = Standing::default();
    for number in 0..PEERS_REMEMBERED as u64 + 5 {
        let name = format!("ws://{number}/");
        standing.take(&run_at(number, &[(&name, Fate::Away(None))]), LONG);
    }
    assert_eq!(standing.unmet_since.len(), PEERS_REMEMBERED);
}

#[test]
fn runs_that_do_not_speak_of_the_whole_change_nothing() {
    let bad = run_at(1_700_000_000, &[("a", Fate::BrokeOff)]);
    let of = |change: fn(&mut RunReport)| {
        let mut run = bad.clone();
        change(&mut run);
        let mut standing = Standing::default();
        standing.take(&run, LONG);
        standing
    };
    assert_eq!(of(|run| run.dry_run = true), Standing::default());
    assert_eq!(of(|run| run.named_peers = true), Standing::default());
    assert_eq!(of(|run| run.peers.clear()), Standing::default());
    assert_eq!(of(|_| {}).state, State::Failed);
}

#[test]
fn an_occasion_is_what_the_captain_asked_for() {
    use State::{Failed, Partial, Well};
    assert_eq!(occasion(When::Always, Well, Well), Some(Occasion::Run));
    assert_eq!(occasion(When::Change, Well, Well), None);
    assert_eq!(occasion(When::Change, Failed, Failed), None);
    assert_eq!(
        occasion(When::Change, Partial, Failed),
        Some(Occasion::Change)
    );
    assert_eq!(occasion(When::Change, Failed, Well), Some(Occasion::Change));
    assert_eq!(
        occasion(When::Failure, Failed, Failed),
        Some(Occasion::Failure)
    );
    assert_eq!(occasion(When::Failure, Failed, Well), None);
    for when in [When::Daily, When::Never] {
        assert_eq!(occasion(when, Well, Failed), None);
    }
}

#[test]
fn the_daily_report_is_due_once_a_day_also_when_clocks_change() {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("Paris");
    let at = Time::constant(2, 30, 0, 0);
    let second = |text: &str| started(text);
    assert_eq!(
        last_due(at, &zone, second("2026-01-10T01:30:00Z")),
        second("2026-01-10T01:30:00Z")
    );
    assert_eq!(
        last_due(at, &zone, second("2026-01-10T01:29:59Z")),
        second("2026-01-09T01:30:00Z")
    );
    // A year of hours, over both changes: each day has its moment, and only one.
    let mut now = second("2026-01-01T12:00:00Z");
    let mut told = last_due(at, &zone, now);
    let mut digests = 0;
    for _ in 0..365 * 24 {
        now += HOUR;
        let due = last_due(at, &zone, now);
        assert!(due <= now && now - due <= 25 * HOUR);
        let next = next_due(at, &zone, now).expect("in this era");
        assert!(next > now && next - now <= 25 * HOUR);
        if due > told {
            told = due;
            digests += 1;
        }
    }
    assert_eq!(digests, 365);
}
