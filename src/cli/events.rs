//! `constellation import`, `export`, `count` and `store verify`.

use std::io::Write;

use nostr::filter::Filter;
use tokio_util::io::ReaderStream;

use super::access::Access;
use super::arguments::{CountArguments, ExportArguments, Global, JsonArguments};
use super::exit::{Exit, Failure};
use super::progress::line_counter;
use super::table::thousands;
use crate::archive::{self, Export, ImportReport};

/// Lines named on the terminal; all that were remembered are in the JSON.
const LINES_SHOWN: usize = 20;

pub(super) async fn import(global: &Global, arguments: &JsonArguments) -> Result<Exit, Failure> {
    let report = match global.access().await? {
        Access::Running(station) => {
            station
                .import(ReaderStream::with_capacity(tokio::io::stdin(), 1 << 18))
                .await?
        }
        Access::Own(station) => {
            let mut input = tokio::io::BufReader::with_capacity(1 << 18, tokio::io::stdin());
            let counter = line_counter(!arguments.json);
            let mut count = |lines| counter.set_position(lines);
            let imported = tokio::select! {
                imported = archive::import(station.ingest(), &mut input, &mut count) => Some(imported),
                _ = tokio::signal::ctrl_c() => None,
            };
            counter.finish_and_clear();
            station.close().await;
            match imported {
                Some(imported) => imported.map_err(Failure::local)?,
                None => return Ok(Exit::Interrupted),
            }
        }
    };
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        print_import(&report)?;
    }
    Ok(if report.failed_lines() == 0 {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn print_import(report: &ImportReport) -> Result<(), Failure> {
    for rejected in report.rejected_lines.iter().take(LINES_SHOWN) {
        eprintln!("line {}: {}", rejected.line, rejected.reason);
    }
    let unnamed = report.failed_lines().saturating_sub(LINES_SHOWN as u64);
    if unnamed > 0 {
        eprintln!("and {} more lines", thousands(unnamed));
    }
    let mut text = format!(
        "{} lines: {} stored, {} duplicates",
        thousands(report.lines),
        thousands(report.stored),
        thousands(report.duplicates)
    );
    for (reason, count) in &report.rejected {
        text.push_str(&format!(", {} {reason}", thousands(*count)));
    }
    outln!("{text}");
    Ok(())
}

pub(super) async fn export(global: &Global, arguments: &ExportArguments) -> Result<Exit, Failure> {
    let filter = parse_filter(&arguments.filter)?;
    let mut output = std::io::stdout().lock();
    match global.access().await? {
        Access::Running(station) => {
            drop(output); // standard output's lock does not cross threads
            station
                .export(&arguments.filter, &mut |lines| {
                    std::io::stdout().write_all(lines)
                })
                .await?;
        }
        Access::Own(station) => {
            let exported = export_here(&station, filter, &mut output).await;
            station.close().await;
            exported?;
        }
    }
    Ok(Exit::Done)
}

async fn export_here(
    station: &crate::daemon::Station,
    filter: Filter,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let now = station.clock().unix_seconds();
    let mut export = Export::begin(station.ingest().store(), filter, now)
        .await
        .map_err(Failure::local)?;
    while let Some(lines) = export.next().await.map_err(Failure::local)? {
        output.write_all(&lines)?;
    }
    output.flush()?;
    Ok(())
}

pub(super) async fn count(global: &Global, arguments: &CountArguments) -> Result<Exit, Failure> {
    let filter = parse_filter(&arguments.filter)?;
    let count = match global.access().await? {
        Access::Running(station) => station.count(&arguments.filter).await?,
        Access::Own(station) => {
            let now = station.clock().unix_seconds();
            let count = archive::count(station.ingest().store(), filter, now).await;
            station.close().await;
            count.map_err(Failure::local)?
        }
    };
    if arguments.json {
        outln!("{{\"count\":{count}}}");
    } else {
        outln!("{count}");
    }
    Ok(Exit::Done)
}

pub(super) async fn verify(global: &Global, arguments: &JsonArguments) -> Result<Exit, Failure> {
    let report = match global.access().await? {
        Access::Running(station) => station.verify().await?,
        Access::Own(station) => {
            let report = archive::check(station.ingest().store()).await;
            station.close().await;
            report.map_err(Failure::local)?
        }
    };
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        for problem in &report.problems {
            outln!("{problem}");
        }
        outln!(
            "{} events and {} range fingerprints checked: {}",
            thousands(report.events),
            thousands(report.segments),
            if report.problems_total == 0 {
                "consistent".to_owned()
            } else {
                format!("{} problems", thousands(report.problems_total))
            }
        );
    }
    Ok(if report.problems_total == 0 {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn parse_filter(text: &str) -> Result<Filter, Failure> {
    Filter::from_json(text)
        .map_err(|error| Failure::usage(format!("--filter is not a NIP-01 filter: {error}")))
}
