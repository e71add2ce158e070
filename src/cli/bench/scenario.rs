//! What is measured: each function leaves the stations it made behind in the folder, for those after it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::process::{Bench, Cost, Finished};
use super::row::Row;
use super::{Input, Rows};
use crate::cli::exit::Failure;
use crate::cli::table::bytes;
use crate::distance::DelayingProxy;
use crate::sync::{Outcome, RunReport};

/// One-way delays of the distant exchanges; without any there is still the proxy.
const DELAYS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(25),
    Duration::from_millis(100),
];
/// Of the events, one in this many is exchanged over the longer distances too.
const FEW: u64 = 10;

fn station(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

/// Imports each input into an empty station named after it.
pub(super) async fn imports(
    bench: &Bench<'_>,
    folder: &Path,
    inputs: [&Input; 2],
    rows: &mut Rows,
) -> Result<(), Failure> {
    for (input, name) in inputs.into_iter().zip(["lifelike", "uniform"]) {
        let finished = import(bench, &station(folder, name), input).await?;
        rows.add(import_row(
            &format!(
                "import, verified, {name} events of {} B",
                input.event_bytes()
            ),
            input,
            &finished,
        ))?;
    }
    Ok(())
}

/// Cold exchanges of what [`imports`] left, and what comes after them.
pub(super) async fn exchanges(
    bench: &Bench<'_>,
    folder: &Path,
    inputs: [&Input; 2],
    rows: &mut Rows,
) -> Result<(), Failure> {
    let serving = bench.serve(&station(folder, "lifelike")).await?;
    let copy = station(folder, "lifelike-copy");
    let (cold, served) = serving.during(fetch(bench, &copy, &serving.relay)).await;
    add_exchange(
        rows,
        "cold exchange, lifelike",
        &cold?,
        served,
        inputs[0].event_bytes(),
    )?;
    serving.end().await?;

    let event_bytes = inputs[1].event_bytes();
    let serving = bench.serve(&station(folder, "uniform")).await?;
    let copy = station(folder, "uniform-copy");
    let (cold, served) = serving.during(fetch(bench, &copy, &serving.relay)).await;
    add_exchange(rows, "cold exchange", &cold?, served, event_bytes)?;
    let (equal, served) = serving.during(fetch(bench, &copy, &serving.relay)).await;
    add_exchange(
        rows,
        "exchange between equals",
        &equal?,
        served,
        event_bytes,
    )?;

    let few = inputs[1].events / FEW;
    let part = station(folder, "part");
    import(bench, &part, &inputs[1].head(folder, few)?).await?;
    let all = Afar {
        copies: "copy",
        what: "cold exchange",
        event_bytes,
    };
    all.fetch(bench, folder, &serving.relay, rows).await?;
    serving.end().await?;
    let serving = bench.serve(&part).await?;
    let tenth = Afar {
        copies: "part-copy",
        what: "cold exchange of a tenth",
        event_bytes,
    };
    tenth.fetch(bench, folder, &serving.relay, rows).await?;
    serving.end().await?;
    for delay in DELAYS {
        let empty = bench
            .serve(&station(folder, &format!("offered-{}", delay.as_millis())))
            .await?;
        let proxy = DelayingProxy::start(host_of(&empty.relay), delay).await?;
        let (offered, _) = empty
            .during(exchange(
                bench,
                &part,
                &proxy.address(),
                &["--direction", "up"],
            ))
            .await;
        let what = format!("offering a tenth, {} ms one way", delay.as_millis());
        add_fetching(rows, &what, &offered?, event_bytes)?;
        proxy.end().await;
        empty.end().await?;
    }
    Ok(())
}

/// Cold exchanges through a proxy, one for each delay, each into a station of its own.
struct Afar<'a> {
    /// The stations' names, before the delay.
    copies: &'a str,
    what: &'a str,
    event_bytes: u64,
}

impl Afar<'_> {
    async fn fetch(
        &self,
        bench: &Bench<'_>,
        folder: &Path,
        relay: &str,
        rows: &mut Rows,
    ) -> Result<(), Failure> {
        for delay in DELAYS {
            let proxy = DelayingProxy::start(host_of(relay), delay).await?;
            let milliseconds = delay.as_millis();
            let copy = station(folder, &format!("{}-{milliseconds}", self.copies));
            let exchanged = fetch(bench, &copy, &proxy.address()).await?;
            let what = format!("{}, {milliseconds} ms one way", self.what);
            add_fetching(rows, &what, &exchanged, self.event_bytes)?;
            proxy.end().await;
        }
        Ok(())
    }
}

/// What shows only with many events.
pub(super) async fn million(
    bench: &Bench<'_>,
    folder: &Path,
    input: &Input,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let full = station(folder, "million");
    let imported = import(bench, &full, input).await?;
    rows.add(import_row(
        "import, verified, random times",
        input,
        &imported,
    ))?;
    let serving = bench.serve(&full).await?;
    rows.add(Row::new(
        format!(
            "start to ready, store of {}",
            bytes(serving.status.store_bytes)
        ),
        serving.ready_ms,
        Cost::default(),
    ))?;
    let copy = station(folder, "million-copy");
    let (cold, served) = serving.during(fetch(bench, &copy, &serving.relay)).await;
    add_exchange(rows, "cold exchange", &cold?, served, input.event_bytes())?;
    let (equal, served) = serving.during(fetch(bench, &copy, &serving.relay)).await;
    add_exchange(
        rows,
        "exchange between equals",
        &equal?,
        served,
        input.event_bytes(),
    )?;
    serving.end().await
}

async fn import(bench: &Bench<'_>, data: &Path, input: &Input) -> Result<Finished, Failure> {
    bench.run(data, &["import", "--json"], input.open()?).await
}

fn import_row(what: &str, input: &Input, finished: &Finished) -> Row {
    Row {
        events: Some(input.events),
        event_bytes: Some(input.bytes),
        written_bytes: Some(finished.cost.written),
        ..Row::new(what, finished.milliseconds, finished.cost)
    }
}

async fn fetch(bench: &Bench<'_>, data: &Path, relay: &str) -> Result<Exchanged, Failure> {
    exchange(bench, data, relay, &[]).await
}

/// An exchange that has ended: the process, and what it said.
#[derive(Debug)]
struct Exchanged {
    finished: Finished,
    report: RunReport,
}

async fn exchange(
    bench: &Bench<'_>,
    data: &Path,
    relay: &str,
    more: &[&str],
) -> Result<Exchanged, Failure> {
    let mut words = vec!["sync", "--json", "--kinds", "all", "--peer", relay];
    words.extend_from_slice(more);
    let finished = bench.run(data, &words, Stdio::null()).await?;
    let report: RunReport = serde_json::from_slice(&finished.output).map_err(Failure::local)?;
    if report.outcome != Outcome::Converged {
        return Err(Failure::local(format!(
            "an exchange ended as {}",
            report.outcome
        )));
    }
    Ok(Exchanged { finished, report })
}

/// Both ends of an exchange.
fn add_exchange(
    rows: &mut Rows,
    what: &str,
    exchanged: &Exchanged,
    served: Cost,
    event_bytes: u64,
) -> Result<(), Failure> {
    add_fetching(rows, what, exchanged, event_bytes)?;
    let serving = Row::new(
        format!("{what}: serving it"),
        exchanged.report.duration_ms,
        served,
    );
    rows.add(serving)
}

fn add_fetching(
    rows: &mut Rows,
    what: &str,
    exchanged: &Exchanged,
    event_bytes: u64,
) -> Result<(), Failure> {
    let totals = &exchanged.report.totals;
    let moved = totals.stored + totals.uploaded;
    rows.add(Row {
        events: (moved > 0).then_some(moved),
        event_bytes: (moved > 0).then_some(moved * event_bytes),
        wire_bytes: Some(totals.bytes_in + totals.bytes_out),
        rounds: Some(totals.rounds),
        // Without starting and ending the process.
        ..Row::new(what, exchanged.report.duration_ms, exchanged.finished.cost)
    })
}

fn host_of(relay: &str) -> &str {
    relay.strip_prefix("ws://").unwrap_or(relay)
}

impl Input {
    /// Bytes of an event, on average.
    fn event_bytes(&self) -> u64 {
        self.bytes / self.events.max(1)
    }

    /// The first of its events as an input of their own.
    fn head(&self, folder: &Path, events: u64) -> Result<Self, Failure> {
        use std::io::{BufRead, Write};
        let path = folder.join("head.jsonl");
        let lines = std::io::BufReader::new(std::fs::File::open(&self.path)?).lines();
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        let mut bytes = 0;
        for line in lines.take(usize::try_from(events).unwrap_or(usize::MAX)) {
            let line = line?;
            bytes += line.len() as u64;
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        Ok(Self {
            path,
            events,
            bytes,
        })
    }
}
