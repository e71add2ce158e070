//! `constellation report` and `constellation history`.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::access::Access;
use super::arguments::{Global, HistoryArguments, ReportArguments};
use super::exit::{Exit, Failure};
use super::table::{bytes, columns, seconds, thousands};
use crate::control::{self, HistoryLine, ReportCommand, ReportPages};
use crate::report::Delivery;

pub(super) async fn report(global: &Global, arguments: ReportArguments) -> Result<Exit, Failure> {
    let run = arguments.run();
    if arguments.send {
        let deliveries = ask(global, ReportCommand::Send { run }).await?;
        return tell_deliveries(deliveries, arguments.json);
    }
    let pages: ReportPages = ask(global, ReportCommand::Show { run }).await?;
    match &arguments.html {
        Some(path) if path == Path::new("-") => outln!("{}", pages.html.trim_end()),
        Some(path) => {
            let (path, html) = (path.clone(), pages.html);
            let writing = tokio::task::spawn_blocking(move || {
                std::fs::write(&path, html).map_err(|error| {
                    Failure::local(format!("cannot write {}: {error}", path.display()))
                })
            });
            writing.await.map_err(Failure::local)??;
        }
        None if arguments.json => {
            let json = serde_json::to_string(&pages.summary).map_err(Failure::local)?;
            outln!("{json}");
        }
        None => outln!("{}", pages.text.trim_end()),
    }
    Ok(Exit::Done)
}

fn tell_deliveries(deliveries: Vec<Delivery>, json: bool) -> Result<Exit, Failure> {
    if json {
        let json = serde_json::to_string(&deliveries).map_err(Failure::local)?;
        outln!("{json}");
    } else {
        for delivery in &deliveries {
            match (&delivery.error, &delivery.answer) {
                (Some(error), _) => outln!("{}: not sent: {error}", delivery.channel),
                (None, answer) => {
                    let answer = answer.as_deref().unwrap_or_default();
                    outln!("{}: sent: {answer}", delivery.channel);
                }
            }
        }
    }
    let failed: Vec<&Delivery> = deliveries
        .iter()
        .filter(|one| one.error.is_some())
        .collect();
    Ok(if failed.is_empty() {
        Exit::Done
    } else if failed.len() == deliveries.len() && failed.iter().all(|one| one.unreachable) {
        Exit::Unreachable
    } else {
        Exit::Partial
    })
}

pub(super) async fn history(
    global: &Global,
    arguments: &HistoryArguments,
) -> Result<Exit, Failure> {
    let limit = arguments.limit;
    let lines: Vec<HistoryLine> = ask(global, ReportCommand::History { limit }).await?;
    if arguments.json {
        let json = serde_json::to_string(&lines).map_err(Failure::local)?;
        outln!("{json}");
    } else if lines.is_empty() {
        outln!("there was no run yet");
    } else {
        let head = [
            "run", "started", "outcome", "peers", "stored", "given", "traffic", "took", "",
        ];
        outln!("{}", columns(&head, lines.iter().map(row)).trim_end());
    }
    Ok(Exit::Done)
}

fn row(line: &HistoryLine) -> Vec<String> {
    let remark = match (line.dry_run, line.named_peers) {
        (true, _) => "dry run",
        (false, true) => "named peers only",
        (false, false) => "",
    };
    vec![
        line.run_id.clone(),
        line.started_at.clone(),
        line.outcome.to_string(),
        format!("{}/{}", line.peers_succeeded, line.peers_total),
        thousands(line.stored),
        thousands(line.uploaded),
        format!("{} in, {} out", bytes(line.bytes_in), bytes(line.bytes_out)),
        seconds(line.duration_ms),
        remark.to_owned(),
    ]
}

async fn ask<T: DeserializeOwned>(global: &Global, command: ReportCommand) -> Result<T, Failure> {
    let answer = match global.access().await? {
        Access::Running(station) => station.report(&command).await?,
        Access::Own(station) => {
            let context = station.control_context(station.tasks().clone());
            let answer = control::report(&context, command).await;
            station.close().await;
            answer?
        }
    };
    serde_json::from_value(answer).map_err(Failure::local)
}
