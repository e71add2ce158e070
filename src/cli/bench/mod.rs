//! `constellation bench`: the product's own commands, timed as processes of their own, on made-up events.
//!
//! Import into an empty store; a cold exchange with a second, empty station on loopback; the exchange between equals
//! that follows. Anonymous memory is the highest seen of each process. Figures are of one run, on this machine.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::{Child, Command};

use super::arguments::BenchArguments;
use super::exit::{Exit, Failure};
use super::table::{aligned, bytes, thousands};
use crate::control::StatusReport;
use crate::samples::uniform;
use crate::sync::{Outcome, RunReport};
use crate::time::Clock;

const LOOK_EVERY: Duration = Duration::from_millis(20);
const START_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Figures {
    events: u64,
    event_bytes: u64,
    import_ms: u64,
    import_events_per_second: u64,
    import_anonymous_bytes: u64,
    store_bytes: u64,
    cold_ms: u64,
    cold_events_per_second: u64,
    cold_wire_bytes: u64,
    cold_anonymous_bytes_fetching: u64,
    cold_anonymous_bytes_serving: u64,
    equal_ms: u64,
    equal_rounds: u64,
    equal_wire_bytes: u64,
    equal_anonymous_bytes: u64,
}

pub(super) async fn bench(arguments: BenchArguments) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let folder = tempfile::Builder::new()
        .prefix("constellation-bench-")
        .tempdir()?;
    let input = folder.path().join("events.jsonl");
    if !arguments.json {
        outln!(
            "Signing {} events …",
            thousands(u64::from(arguments.events))
        );
    }
    let event_bytes = make_input(&input, arguments.events, &clock).await?;
    let figures = measure(folder.path(), &input, &arguments, event_bytes, &clock).await?;
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&figures).map_err(Failure::local)?
        );
    } else {
        outln!("{}", as_table(&figures).trim_end());
    }
    Ok(Exit::Done)
}

async fn make_input(path: &Path, events: u32, clock: &Clock) -> Result<u64, Failure> {
    let (path, now) = (path.to_owned(), clock.unix_seconds());
    let making = tokio::task::spawn_blocking(move || -> std::io::Result<u64> {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut total = 0;
        for event in uniform(7, now, events) {
            let json = event.as_json();
            total += json.len() as u64;
            writeln!(file, "{json}")?;
        }
        file.flush()?;
        Ok(total)
    });
    Ok(making.await.map_err(Failure::local)??)
}

async fn measure(
    folder: &Path,
    input: &Path,
    arguments: &BenchArguments,
    event_bytes: u64,
    clock: &Clock,
) -> Result<Figures, Failure> {
    let events = u64::from(arguments.events);
    let (full, empty) = (folder.join("full"), folder.join("empty"));
    let config = folder.join("constellation.toml");
    std::fs::write(
        &config,
        "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n",
    )?;

    let started = clock.monotonic();
    let stdin = std::fs::File::open(input)?;
    let import = start(&full, &config, &["import", "--json"], stdin.into())?;
    let import = finish(import).await?;
    let import_ms = milliseconds(clock.monotonic().saturating_sub(started));

    let mut serving = start(&full, &config, &["run"], Stdio::null())?;
    let status = wait_for_relay(&full, &config, clock).await?;
    let relay = status.relay.clone().unwrap_or_default();
    let words = ["sync", "--json", "--kinds", "all", "--peer", &relay];
    let (cold, serving_peak) = beside(
        &serving,
        finish(start(&empty, &config, &words, Stdio::null())?),
    )
    .await;
    let cold = cold?;
    let equal = finish(start(&empty, &config, &words, Stdio::null())?).await?;
    end(&mut serving).await?;

    let (cold_run, equal_run) = (report(&cold)?, report(&equal)?);
    for run in [&cold_run, &equal_run] {
        if run.outcome != Outcome::Converged {
            return Err(Failure::local(format!(
                "an exchange ended as {}",
                run.outcome
            )));
        }
    }
    Ok(Figures {
        events,
        event_bytes: event_bytes / events,
        import_ms,
        import_events_per_second: per_second(events, import_ms),
        import_anonymous_bytes: import.anonymous,
        store_bytes: status.store_bytes,
        cold_ms: cold_run.duration_ms,
        cold_events_per_second: per_second(events, cold_run.duration_ms),
        cold_wire_bytes: cold_run.totals.bytes_in + cold_run.totals.bytes_out,
        cold_anonymous_bytes_fetching: cold.anonymous,
        cold_anonymous_bytes_serving: serving_peak,
        equal_ms: equal_run.duration_ms,
        equal_rounds: equal_run.totals.rounds,
        equal_wire_bytes: equal_run.totals.bytes_in + equal_run.totals.bytes_out,
        equal_anonymous_bytes: equal.anonymous,
    })
}

fn start(data: &Path, config: &Path, words: &[&str], stdin: Stdio) -> Result<Child, Failure> {
    Ok(Command::new(std::env::current_exe()?)
        .arg("--data")
        .arg(data)
        .arg("--config")
        .arg(config)
        .args(words)
        .env("CONSTELLATION_LOG", "error")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}

struct Finished {
    output: Vec<u8>,
    /// The highest seen.
    anonymous: u64,
}

/// Waits for a child, looking at its memory meanwhile.
async fn finish(mut child: Child) -> Result<Finished, Failure> {
    let mut stdout = child
        .stdout
        .take()
        .ok_or_else(|| Failure::local("no output"))?;
    let mut output = Vec::new();
    let mut anonymous = 0;
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut output);
    let mut reading = std::pin::pin!(reading);
    loop {
        tokio::select! {
            read = &mut reading => { read?; break; }
            () = tokio::time::sleep(LOOK_EVERY) => {
                anonymous = anonymous.max(anonymous_bytes(&child).unwrap_or_default());
            }
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        return Err(Failure::local(format!(
            "a measured command ended with {status}"
        )));
    }
    Ok(Finished { output, anonymous })
}

/// Looks at the memory of `child` while `work` goes on.
async fn beside<T>(child: &Child, work: impl Future<Output = T>) -> (T, u64) {
    let mut work = std::pin::pin!(work);
    let mut highest = 0;
    loop {
        tokio::select! {
            done = &mut work => return (done, highest),
            () = tokio::time::sleep(LOOK_EVERY) => {
                highest = highest.max(anonymous_bytes(child).unwrap_or_default());
            }
        }
    }
}

/// Private memory that is no file's, from the kernel's account; `None` when the process is gone.
fn anonymous_bytes(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

async fn wait_for_relay(
    data: &Path,
    config: &Path,
    clock: &Clock,
) -> Result<StatusReport, Failure> {
    let started = clock.monotonic();
    loop {
        let asked = start(data, config, &["status", "--json"], Stdio::null())?;
        if let Ok(answer) = finish(asked).await
            && let Ok(status) = serde_json::from_slice::<StatusReport>(&answer.output)
            && status.relay.is_some()
        {
            return Ok(status);
        }
        if clock.monotonic().saturating_sub(started) > START_DEADLINE {
            return Err(Failure::local("the station to be measured did not start"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn end(child: &mut Child) -> Result<(), Failure> {
    if let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(Failure::local)?;
    }
    child.wait().await?;
    Ok(())
}

fn report(finished: &Finished) -> Result<RunReport, Failure> {
    serde_json::from_slice(&finished.output).map_err(Failure::local)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn per_second(events: u64, milliseconds: u64) -> u64 {
    events * 1_000 / milliseconds.max(1)
}

fn as_table(figures: &Figures) -> String {
    let row = |what: &str, time: u64, rate: Option<u64>, wire: Option<u64>, memory: String| {
        vec![
            what.to_owned(),
            format!("{time} ms"),
            rate.map_or_else(|| "-".into(), |rate| format!("{}/s", thousands(rate))),
            wire.map_or_else(|| "-".into(), bytes),
            memory,
        ]
    };
    let rows = [
        vec![
            "".into(),
            "time".into(),
            "events".into(),
            "on the wire".into(),
            "anonymous memory".into(),
        ],
        row(
            "import, verified",
            figures.import_ms,
            Some(figures.import_events_per_second),
            None,
            bytes(figures.import_anonymous_bytes),
        ),
        row(
            "cold exchange, fetching",
            figures.cold_ms,
            Some(figures.cold_events_per_second),
            Some(figures.cold_wire_bytes),
            bytes(figures.cold_anonymous_bytes_fetching),
        ),
        row(
            "cold exchange, serving",
            figures.cold_ms,
            None,
            None,
            bytes(figures.cold_anonymous_bytes_serving),
        ),
        row(
            "equal exchange",
            figures.equal_ms,
            None,
            Some(figures.equal_wire_bytes),
            bytes(figures.equal_anonymous_bytes),
        ),
    ];
    format!(
        "{} events of {} B; store {}\n{}Anonymous memory is the highest seen every {} ms; a short process may show none.\n",
        thousands(figures.events),
        figures.event_bytes,
        bytes(figures.store_bytes),
        aligned(&rows),
        LOOK_EVERY.as_millis()
    )
}
