//! `constellation bench`: the product's own commands, timed as processes of their own, on made-up events.
//!
//! Import, cold exchanges on loopback and at a distance, offering instead of fetching, and the exchange between equals;
//! ten stations with live links, in this process; what a station costs that has nothing to do; with `--million` what shows only with many events. Every exchange must
//! converge, else there are no figures. One run each: compare figures of one run only. Needs room in the temporary
//! directory for about ten times the events.

mod idle;
mod live;
mod process;
mod row;
mod scenario;

use std::path::Path;
use std::time::Duration;

use nostr::event::Event;
use serde::Serialize;

use self::live::LiveRow;
use self::process::Bench;
use self::row::Row;
use super::arguments::BenchArguments;
use super::exit::{Exit, Failure};
use super::table::thousands;
use crate::samples::{lifelike, uniform};
use crate::time::Clock;

const SEED: u64 = 7;
/// How long a station is watched that has nothing to do, where that is asked for alone, and beside the rest.
const IDLE_ALONE: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(20);
const MILLION: usize = 1_000_000;

pub(super) async fn bench(arguments: BenchArguments) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let temporary = tempfile::Builder::new()
        .prefix("constellation-bench-")
        .tempdir()?;
    let folder = match &arguments.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            if std::fs::read_dir(folder)?.next().is_some() {
                return Err(Failure::usage(format!(
                    "{} is not empty; a station in it would change the figures",
                    folder.display()
                )));
            }
            folder.as_path()
        }
        None => temporary.path(),
    };
    let config = folder.join("constellation.toml");
    std::fs::write(
        &config,
        "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n[tunnel]\nenabled = false\n\
         [live]\nenabled = false\n[astroport]\nenabled = false\n",
    )?;
    let bench = Bench {
        config: &config,
        clock: &clock,
    };
    let mut rows = Rows {
        as_json: arguments.json,
        all: Vec::new(),
        live: None,
    };
    if arguments.live {
        rows.live(live::measure(folder, &clock).await?)?;
        rows.finish()?;
        return Ok(Exit::Done);
    }
    let count = usize::try_from(arguments.events).unwrap_or(usize::MAX);
    rows.begin(count)?;
    let now = clock.unix_seconds();
    let lively = Input::make(folder, "lifelike", now, count, lifelike).await?;
    if arguments.idle {
        rows.add(idle::measure(folder, &clock, &lively, IDLE_ALONE).await?)?;
        rows.finish()?;
        return Ok(Exit::Done);
    }
    let even = Input::make(folder, "uniform", now, count, uniform).await?;
    scenario::imports(&bench, folder, [&lively, &even], &mut rows).await?;
    scenario::exchanges(&bench, folder, [&lively, &even], &mut rows).await?;
    rows.add(idle::measure(folder, &clock, &lively, IDLE).await?)?;
    rows.live(live::measure(folder, &clock).await?)?;
    if arguments.million {
        rows.begin(MILLION)?;
        let input = Input::make(folder, "million", now, MILLION, uniform).await?;
        scenario::million(&bench, folder, &input, &mut rows).await?;
    }
    rows.finish()?;
    Ok(Exit::Done)
}

/// Events in a file.
#[derive(Debug)]
struct Input {
    path: std::path::PathBuf,
    events: u64,
    bytes: u64,
}

impl Input {
    async fn make(
        folder: &Path,
        name: &str,
        now: u64,
        count: usize,
        sample: fn(u64, u64, usize) -> Vec<Event>,
    ) -> Result<Self, Failure> {
        let path = folder.join(format!("{name}.jsonl"));
        let making = tokio::task::spawn_blocking(move || {
            let events = sample(SEED, now, count);
            Self::write(path, &events)
        });
        Ok(making.await.map_err(Failure::local)??)
    }

    fn write(path: std::path::PathBuf, events: &[Event]) -> std::io::Result<Self> {
        use std::io::Write;
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        let mut bytes = 0;
        for event in events {
            let json = event.as_json();
            bytes += json.len() as u64;
            writeln!(file, "{json}")?;
        }
        file.flush()?;
        Ok(Self {
            path,
            events: events.len() as u64,
            bytes,
        })
    }

    fn open(&self) -> std::io::Result<std::process::Stdio> {
        Ok(std::fs::File::open(&self.path)?.into())
    }
}

/// The figures, printed as they come.
#[derive(Debug)]
struct Rows {
    as_json: bool,
    all: Vec<Row>,
    live: Option<LiveRow>,
}

/// One element of the JSON array.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Figures<'r> {
    Row(&'r Row),
    Live(&'r LiveRow),
}

impl Rows {
    fn begin(&self, events: usize) -> Result<(), Failure> {
        if !self.as_json {
            outln!("Signing {} events …", thousands(events as u64));
        }
        Ok(())
    }

    fn add(&mut self, row: Row) -> Result<(), Failure> {
        if !self.as_json {
            if self.all.is_empty() {
                outln!("{}", row::heading());
            }
            outln!("{}", row.as_line());
        }
        self.all.push(row);
        Ok(())
    }

    fn live(&mut self, row: LiveRow) -> Result<(), Failure> {
        if !self.as_json {
            outln!("{}", row.as_text());
        }
        self.live = Some(row);
        Ok(())
    }

    fn finish(&self) -> Result<(), Failure> {
        if self.as_json {
            let rows = self.all.iter().map(Figures::Row);
            let figures: Vec<Figures<'_>> =
                rows.chain(self.live.iter().map(Figures::Live)).collect();
            outln!(
                "{}",
                serde_json::to_string(&figures).map_err(Failure::local)?
            );
        } else if !self.all.is_empty() {
            outln!(
                "Processor time and memory are of the process named; anonymous memory is the highest seen every {} ms.",
                process::LOOK_EVERY.as_millis()
            );
        }
        Ok(())
    }
}
