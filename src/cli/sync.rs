//! `constellation sync`.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::access::Access;
use super::arguments::{Global, SyncArguments};
use super::exit::{Exit, Failure};
use super::progress::ProgressView;
use super::table::{bytes, seconds};
use crate::control::CommandError;
use crate::daemon::Station;
use crate::sync::{Outcome, PeerReport, RunProgress, RunReport, Step, SyncRequest};
use crate::time::rfc3339;
use crate::transfer::Unresolved;

const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn sync(global: &Global, arguments: SyncArguments) -> Result<Exit, Failure> {
    let json = arguments.json;
    let request = SyncRequest {
        days: arguments.days,
        since: arguments.since,
        until: arguments.until,
        full: arguments.full,
        peers: arguments.peer,
        kinds: arguments.kinds,
        authors: arguments.authors,
        dms: arguments.dms,
        direction: arguments.direction,
        dry_run: arguments.dry_run,
        scheduled: false,
        brief: false,
    };
    let mut view = ProgressView::new(!json);
    let report = match global.access().await? {
        Access::Running(station) => {
            let mut tell = |progress: &[_]| view.show(progress);
            let run = station.sync(&request, &mut tell);
            tokio::select! {
                report = run => report?,
                // The station goes on with the run that it has begun.
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            }
        }
        Access::Own(station) => {
            let config = global.load_config()?;
            station.begin_reporting().await;
            let report = match station.start_tunnels_for(&config, &request).await {
                Ok(()) => run_here(&station, &request, &mut view).await,
                Err(error) => Err(error.into()),
            };
            let told = match &report {
                Ok(Some(_)) => Some(station.finish_reporting().await),
                _ => None,
            };
            station.close().await;
            let Some(report) = report? else {
                return Ok(Exit::Interrupted);
            };
            match told {
                Some(Ok(waiting @ 1..)) => eprintln!(
                    "constellation: reports that wait to be sent: {waiting}; the next run or start tries again, and \
                     constellation report --send says what is wrong"
                ),
                Some(Err(error)) => eprintln!("constellation: no report of this run: {error}"),
                Some(Ok(0)) | None => {}
            }
            report
        }
    };
    view.finish();
    if json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        print_report(&report)?;
    }
    Ok(Exit::of_run(&report))
}

/// Waits for a signal that ends commands.
///
/// # Errors
/// The system does not deliver signals.
pub(super) async fn interrupted() -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let hang_up = async {
        if is_hang_up_ignored() {
            return std::future::pending().await;
        }
        signal(SignalKind::hangup())?.recv().await;
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        hung_up = hang_up => hung_up?,
    }
    Ok(())
}

/// Whether whoever started us wants us to outlive the terminal, as nohup does: listening would undo that.
fn is_hang_up_ignored() -> bool {
    const HANG_UP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & HANG_UP_BIT != 0)
}

/// Runs in this process; `None` when interrupted.
pub(super) async fn run_here(
    station: &Station,
    request: &SyncRequest,
    view: &mut ProgressView,
) -> Result<Option<RunReport>, Failure> {
    // Listened for from before the first step on: none kills the process while the run holds what others look at.
    let mut ended_early = std::pin::pin!(interrupted());
    let (announce, announced) = tokio::sync::watch::channel(RunProgress::new());
    let run = station.runner().trigger(request, |progress| {
        announce.send_replace(progress);
    });
    let mut run = std::pin::pin!(run);
    loop {
        tokio::select! {
            biased;
            interrupted = &mut ended_early => return interrupted.map(|()| None),
            ended = &mut run => {
                return ended.map(Some).map_err(|error| CommandError::from(error).into());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                let progress: Vec<_> = announced
                    .borrow()
                    .iter()
                    .map(|peer| (peer.address.clone(), *peer.transfer.borrow()))
                    .collect();
                view.show(&progress);
            }
        }
    }
}

pub(super) fn print_report(report: &RunReport) -> Result<(), Failure> {
    if report.outcome == Outcome::Skipped {
        outln!("skipped: another run is in progress");
        return Ok(());
    }
    for peer in &report.peers {
        print_peer(peer, report.dry_run)?;
    }
    let totals = &report.totals;
    let what = if report.dry_run {
        format!(
            "{} to fetch, {} to offer (dry run)",
            totals.need, totals.have
        )
    } else {
        format!("{} stored, {} uploaded", totals.stored, totals.uploaded)
    };
    outln!(
        "{}: {what}, {} of {} peers converged, {}",
        report.outcome,
        totals.peers_succeeded,
        totals.peers_total,
        seconds(report.duration_ms)
    );
    let not_reached = |peer: &PeerReport| {
        let error = peer.error.as_ref();
        error.is_some_and(|error| error.step == Step::Connect)
    };
    if report.peers.iter().any(not_reached) {
        outln!("Which peers are reached, and what to do: constellation doctor");
    }
    Ok(())
}

pub(super) fn left_over(left: &Unresolved) -> String {
    match left {
        Unresolved::Events { count, why, .. } => format!("{count} ({why})"),
        Unresolved::Range(gap) => {
            let time = |time: Option<u64>, open: &str| time.map_or(open.to_owned(), rfc3339);
            let kinds = gap.kinds.as_ref().map_or("any kind".to_owned(), |kinds| {
                let kinds: Vec<String> = kinds.iter().map(u16::to_string).collect();
                format!("kinds {}", kinds.join(","))
            });
            let authors = gap.authors.as_ref().map_or(String::new(), |authors| {
                format!(", {} authors", authors.len())
            });
            format!(
                "what there is from {} to {}, {kinds}{authors} ({})",
                time(gap.since, "the beginning"),
                time(gap.until, "the end"),
                gap.why
            )
        }
    }
}

fn print_peer(peer: &PeerReport, dry_run: bool) -> Result<(), Failure> {
    outln!(
        "{}  {}  need {} have {}  rounds {}  {} in, {} out  {}",
        peer.address,
        peer.outcome,
        peer.need,
        peer.have,
        peer.rounds,
        bytes(peer.bytes_in),
        bytes(peer.bytes_out),
        seconds(peer.duration_ms)
    );
    if let Some(error) = &peer.error {
        outln!("  failed: {}", error.detail);
    }
    if !peer.rejected.is_empty() {
        let reasons: Vec<String> = peer
            .rejected
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        outln!("  not taken: {}", reasons.join(", "));
    }
    if !peer.refused_by_peer.is_empty() {
        let reasons: Vec<String> = peer
            .refused_by_peer
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        outln!("  refused by the peer: {}", reasons.join(", "));
    }
    if !dry_run {
        for left in &peer.unresolved {
            outln!("  left over: {}", left_over(left));
        }
    }
    Ok(())
}
