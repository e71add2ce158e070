//! `constellation status`.

use super::access::Access;
use super::arguments::{Global, StatusArguments};
use super::exit::{Exit, Failure};
use super::table::{aligned, bytes, seconds, since, thousands, until};
use super::watch::watch;
use crate::control::{self, StatusReport, TunnelsReport};
use crate::live::{LiveReport, Opened};
use crate::schedule::DueReason;
use crate::time::Clock;
use crate::tunnel::{CarrierKind, Path};

pub(super) async fn status(global: &Global, arguments: &StatusArguments) -> Result<Exit, Failure> {
    if arguments.watch {
        return watch(global).await;
    }
    let report = report(global).await?;
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        let now = Clock::system().unix_seconds();
        outln!("{}", as_text(&report, now).trim_end());
    }
    Ok(Exit::Done)
}

/// How the station is.
pub(super) async fn report(global: &Global) -> Result<StatusReport, Failure> {
    match global.access().await? {
        Access::Running(station) => Ok(station.status().await?),
        Access::Own(station) => {
            let report = control::status(&station.control_context(station.tasks().clone())).await;
            station.close().await;
            Ok(report?)
        }
    }
}

/// In one line, which stays the same as long as nothing happens.
pub(super) fn in_brief(report: &StatusReport) -> String {
    let running = if report.running {
        "running"
    } else {
        "not running"
    };
    let links = report
        .tunnels
        .as_ref()
        .map_or(0, |tunnels| tunnels.carrier.links.len());
    let last = match &report.last_run {
        _ if report.run_in_progress => "run in progress".to_owned(),
        None => "no run yet".to_owned(),
        Some(run) => format!("last run {} at {}", run.outcome, run.started_at),
    };
    let next = report.next_run_at.as_deref().unwrap_or("none by itself");
    let mut text = format!(
        "{running}, {} events, {links} stations connected, {last}, next run {next}",
        report.events
    );
    if let Some(why) = &report.halted {
        text.push_str(&format!(", halted: {why}"));
    }
    text
}

/// In words for people, at this moment (Unix seconds).
pub(super) fn as_text(report: &StatusReport, now: u64) -> String {
    let mut rows = vec![
        vec![
            "station".to_owned(),
            format!("{} ({})", report.name, report.peer_id),
        ],
        vec!["running".into(), running(report)],
        vec!["data".into(), report.data_directory.clone()],
        vec![
            "events".into(),
            format!(
                "{} in {}",
                thousands(report.events),
                bytes(report.store_bytes)
            ),
        ],
        vec!["last run".into(), last_run(report, now)],
        vec!["next run".into(), next_run(report, now)],
    ];
    let blocked = &report.blocked;
    if blocked.authors + blocked.events > 0 {
        let (authors, events) = (thousands(blocked.authors), thousands(blocked.events));
        let text = format!("{authors} keys, {events} events");
        rows.push(vec!["blocked".into(), text]);
    }
    if let Some(tunnels) = &report.tunnels {
        rows.push(vec!["tunnels".into(), tunnels_in_brief(tunnels)]);
        if let Some(problem) = &tunnels.carrier.problem {
            rows.push(vec!["! tunnels".into(), problem.clone()]);
        }
    }
    if report.running {
        rows.push(vec!["live".into(), live_in_brief(&report.live)]);
    }
    if let Some(why) = report.no_tunnels.as_ref().filter(|_| report.running) {
        rows.push(vec!["tunnels".into(), format!("none: {why}")]);
    }
    if let Some(why) = &report.halted {
        rows.push(vec!["! halted".into(), why.clone()]);
    }
    if report.peers.is_empty() {
        rows.push(vec!["peers".into(), "none".into()]);
    }
    let mut text = left_aligned(&rows);
    if !report.peers.is_empty() {
        let mut peers = vec![vec!["peer".to_owned(), "last outcome".into(), "lag".into()]];
        peers.extend(report.peers.iter().map(|peer| {
            vec![
                peer.address.clone(),
                peer.last_outcome
                    .map_or_else(|| "never".into(), |outcome| outcome.to_string()),
                peer.lag_s
                    .map_or_else(|| "-".into(), |lag| seconds(lag * 1_000)),
            ]
        }));
        text.push('\n');
        text.push_str(&aligned(&peers));
    }
    text
}

fn tunnels_in_brief(report: &TunnelsReport) -> String {
    let links = &report.carrier.links;
    let relayed = links
        .values()
        .filter(|link| link.path == Path::Relayed)
        .count();
    let mut text = format!("connected with {} stations", links.len());
    if relayed > 0 {
        text.push_str(&format!(" ({relayed} through a relay)"));
    }
    let open = report.services.open.len();
    let exposed = report.services.exposed.len();
    text.push_str(&format!("; {exposed} services exposed, {open} opened"));
    if report.carrier.kind == CarrierKind::Kubo {
        text.push_str("; carried by kubo");
    }
    text
}

fn live_in_brief(report: &LiveReport) -> String {
    if !report.enabled {
        return "off".into();
    }
    let dialled = report
        .links
        .iter()
        .filter(|link| link.opened == Opened::Dialled)
        .count();
    let accepted = report.links.len() - dialled;
    format!("{dialled} links dialled, {accepted} accepted")
}

fn running(report: &StatusReport) -> String {
    match (&report.relay, &report.started_at) {
        (Some(relay), Some(since)) => format!("yes, since {since}; relay {relay}"),
        (_, Some(since)) => format!("yes, since {since}"),
        _ => "no".into(),
    }
}

fn next_run(report: &StatusReport, now: u64) -> String {
    let Some(at) = &report.next_run_at else {
        return "none by itself".into();
    };
    let shown = until(at, now).map_or_else(|| at.clone(), |until| format!("{until} ({at})"));
    let why = match report.next_run_why {
        Some(DueReason::Start) => "the station has started",
        Some(DueReason::Schedule) => "by the schedule",
        Some(DueReason::CatchUp) => "its time passed while the station was off",
        Some(DueReason::Found) => "a station was found",
        Some(DueReason::Missed) => "the last run did not reach everybody",
        Some(DueReason::Carrier) => "what carries the tunnels is back",
        None => return shown,
    };
    format!("{shown}: {why}")
}

fn last_run(report: &StatusReport, now: u64) -> String {
    if report.run_in_progress {
        return "in progress".into();
    }
    match &report.last_run {
        None => "never".into(),
        Some(run) => format!(
            "{} {}: {} stored, {} uploaded, {} of {} peers, {}",
            run.outcome,
            since(&run.started_at, now).map_or_else(
                || format!("at {}", run.started_at),
                |since| format!("{since} ({})", run.started_at)
            ),
            run.totals.stored,
            run.totals.uploaded,
            run.totals.peers_succeeded,
            run.totals.peers_total,
            seconds(run.duration_ms)
        ),
    }
}

fn left_aligned(rows: &[Vec<String>]) -> String {
    let width = rows
        .iter()
        .map(|row| row[0].len())
        .max()
        .unwrap_or_default();
    rows.iter()
        .map(|row| format!("  {:width$}  {}\n", row[0], row[1]))
        .collect()
}
