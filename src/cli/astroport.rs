//! `constellation astroport trigger`.
//!
//! Takes the words of the scripts that it stands for; asks the running station for a run, or makes it. Locks, logs and times
//! are the run's own (`crate::astroport`). Invariant: where the scripts' prerequisite is missing nothing is touched.

use std::path::{Path, PathBuf};

use super::access::Access;
use super::arguments::{Global, TriggerArguments};
use super::exit::{Exit, Failure};
use super::progress::ProgressView;
use super::sync::{interrupted, print_report, run_here};
use super::table::bytes;
use crate::astroport::{AstroportPaths, Level, StationLogs, is_station, run_lines};
use crate::config::Config;
use crate::control::{self, StatusReport};
use crate::graph::MembersReport;
use crate::sync::{DEFAULT_KINDS, DIRECT_MESSAGE_KINDS, KindsSpec, Outcome, SyncRequest};

/// Of a public key, what is shown at each end.
const DIGITS_SHOWN: usize = 8;

pub(super) async fn trigger(global: &Global, arguments: TriggerArguments) -> Result<Exit, Failure> {
    let config = global.load_config()?;
    let Some(paths) = paths_of(&config)? else {
        return Ok(Exit::Partial);
    };
    if arguments.log_stats {
        show_logs(&paths)?;
        return Ok(Exit::Done);
    }
    if arguments.show_hex || arguments.stats {
        let (status, members) = look(global).await?;
        if arguments.show_hex {
            show_keys(&members)?;
        } else {
            show_counts(&status, &members)?;
        }
        return Ok(Exit::Done);
    }
    let request = request(&config, &arguments)?;
    let mut view = ProgressView::new(true);
    let report = match global.access().await? {
        Access::Running(station) => {
            let mut tell = |progress: &[_]| view.show(progress);
            let run = station.sync(&request, &mut tell);
            tokio::select! {
                report = run => report?,
                // The station goes on with the run that it has begun.
                ended = interrupted() => return ended.map(|()| Exit::Interrupted),
            }
        }
        Access::Own(station) => {
            let report = match station.start_tunnels_for(&config, &request).await {
                Ok(()) => run_here(&station, &request, &mut view).await,
                Err(error) => Err(error.into()),
            };
            station.close().await;
            match report? {
                Some(report) => report,
                None => return Ok(Exit::Interrupted),
            }
        }
    };
    view.finish();
    if report.dry_run || report.outcome == Outcome::Skipped {
        print_report(&report)?;
    } else {
        let home = config.station.home_relay.as_ref();
        let home = home.map(|home| home.0.to_string());
        let lines = run_lines(&report, home.as_deref(), None);
        for (level, line) in lines {
            if global.verbose || level >= Level::Warn {
                outln!("[{}] {line}", level.as_str());
            }
        }
    }
    Ok(Exit::of_run(&report))
}

/// Where the station's things are; `None`, and said, if this is none.
fn paths_of(config: &Config) -> Result<Option<AstroportPaths>, Failure> {
    let home = config.astroport.home.clone();
    let home = home.or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    let home = home.ok_or_else(|| Failure::usage("HOME is not set: name [astroport] home"))?;
    let paths = AstroportPaths::below(home);
    if !is_station(&paths) {
        let script = paths.environment_script();
        eprintln!(
            "constellation: CONSTELLATION SYNC TRIGGER NEEDS ~/.zen/Astroport.ONE: {} is missing",
            script.display()
        );
        return Ok(None);
    }
    if !config.astroport.enabled {
        return Err(Failure::usage(
            "the configuration says that this is no Astroport station ([astroport] enabled = false)",
        ));
    }
    Ok(Some(paths))
}

fn request(config: &Config, arguments: &TriggerArguments) -> Result<SyncRequest, Failure> {
    let kinds = match (&config.scope.kinds, arguments.no_dms) {
        (_, false) => None,
        (Some(KindsSpec::All), true) => {
            return Err(Failure::usage(
                "--no-dms: [scope] kinds is \"all\", private messages among them; name kinds there",
            ));
        }
        (Some(KindsSpec::List(kinds)), true) => Some(kinds.clone()),
        (None, true) => Some(DEFAULT_KINDS.into()),
    };
    let without_private = kinds.map(|mut kinds| {
        kinds.retain(|kind| !DIRECT_MESSAGE_KINDS.contains(kind));
        KindsSpec::List(kinds)
    });
    // What the hourly job asks for is what a run by the schedule does.
    let is_hourly = arguments.days == 1 && !arguments.no_profiles;
    Ok(SyncRequest {
        days: (!is_hourly && arguments.days > 0).then_some(arguments.days),
        full: arguments.days == 0,
        kinds: without_private,
        dry_run: arguments.dry_run,
        scheduled: is_hourly && !arguments.dry_run,
        ..SyncRequest::default()
    })
}

async fn look(global: &Global) -> Result<(StatusReport, MembersReport), Failure> {
    match global.access().await? {
        Access::Running(station) => Ok((station.status().await?, station.members(true).await?)),
        Access::Own(station) => {
            let members = station.graph().report(true).await;
            let status = control::status(&station.control_context(station.tasks().clone())).await;
            station.close().await;
            Ok((status?, members.map_err(Failure::local)?))
        }
    }
}

fn show_keys(members: &MembersReport) -> Result<(), Failure> {
    outln!("🔍 Constellation HEX Pubkeys:");
    if members.authors.is_empty() {
        outln!("No HEX pubkeys found");
        return Ok(());
    }
    outln!("Found {} HEX pubkeys:", members.authors.len());
    for author in &members.authors {
        let key = &author.pubkey;
        let (begin, end) = (
            key.get(..DIGITS_SHOWN).unwrap_or(key),
            key.get(key.len().saturating_sub(DIGITS_SHOWN)..)
                .unwrap_or(""),
        );
        outln!("  - {begin}...{end}");
    }
    Ok(())
}

fn show_counts(status: &StatusReport, members: &MembersReport) -> Result<(), Failure> {
    outln!("📊 Constellation Database Statistics:");
    outln!("Current events in database: {}", status.events);
    outln!("Database size: {}", bytes(status.store_bytes));
    outln!("HEX files found: {}", members.members);
    outln!("Total HEX pubkeys monitored: {}", members.authors_in_scope);
    Ok(())
}

fn show_logs(paths: &AstroportPaths) -> Result<(), Failure> {
    let logs = StationLogs::new(paths);
    outln!("📊 Constellation Log Statistics:");
    for (name, log) in [
        ("Trigger log", &logs.trigger),
        ("Backfill log", &logs.backfill),
        ("Error log", &logs.errors),
    ] {
        match size_of(log.path()) {
            Some(size) => outln!("{name}: {} ({size})", log.path().display()),
            None => outln!("{name}: {} (not found)", log.path().display()),
        }
        for number in 1..=log.files_max() {
            let path = log.rotated(number);
            if let Some(size) = size_of(&path) {
                outln!("  Rotated {number}: {} ({size})", path.display());
            }
        }
    }
    Ok(())
}

/// Bytes and lines.
fn size_of(path: &Path) -> Option<String> {
    use std::io::Read;

    let mut file = std::fs::File::open(path).ok()?;
    let (mut size, mut lines) = (0_u64, 0_u64);
    let mut part = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut part).ok()?;
        if read == 0 {
            return Some(format!("{}, {lines} lines", bytes(size)));
        }
        size += read as u64;
        lines += part[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}
