//! One of the product's own commands as a process of its own, and what it cost.
//!
//! Time, processor time, the highest anonymous memory seen, bytes written, all from the kernel's account
//! of the process. Memory is looked at every few milliseconds, so a short process may show none.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::cli::exit::Failure;
use crate::control::StatusReport;
use crate::daemon::DataDirectory;
use crate::time::Clock;

pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The kernel counts processor time in hundredths of a second, on every architecture that we build for.
const MILLISECONDS_PER_TICK: u64 = 10;

/// Where stations are, and how they are configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench<'b> {
    pub(super) config: &'b Path,
    pub(super) clock: &'b Clock,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Milliseconds of all its threads, in user and kernel space.
    pub(super) cpu_ms: u64,
    /// Private memory that is no file's: the highest seen.
    pub(super) anonymous: u64,
    /// Bytes given to the system to write: of a process that only imports, those of the store. (What the system
    /// counts as written to the disk are whole pieces of its page cache, which may be much larger.)
    pub(super) written: u64,
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) output: Vec<u8>,
    pub(super) milliseconds: u64,
    pub(super) cost: Cost,
}

impl Bench<'_> {
    pub(super) fn start(
        &self,
        data: &Path,
        words: &[&str],
        stdin: Stdio,
    ) -> Result<Child, Failure> {
        Ok(Command::new(std::env::current_exe()?)
            .arg("--data")
            .arg(data)
            .arg("--config")
            .arg(self.config)
            .args(words)
            .env("CONSTELLATION_LOG", "error")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?)
    }

    /// Runs a command to its end. Fails unless its exit code is 0.
    pub(super) async fn run(
        &self,
        data: &Path,
        words: &[&str],
        stdin: Stdio,
    ) -> Result<Finished, Failure> {
        let (finished, success) = self.run_whatever(data, words, stdin).await?;
        if !success {
            let command = words.first().copied().unwrap_or_default();
            return Err(Failure::local(format!("a measured {command} failed")));
        }
        Ok(finished)
    }

    /// Runs a command to its end; says whether its exit code was 0.
    pub(super) async fn run_whatever(
        &self,
        data: &Path,
        words: &[&str],
        stdin: Stdio,
    ) -> Result<(Finished, bool), Failure> {
        let started = self.clock.monotonic();
        let mut child = self.start(data, words, stdin)?;
        let mut stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::local("no output"))?;
        let mut output = Vec::new();
        let read_whole = tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut output);
        let (read, anonymous) = with_peak(&child, read_whole).await;
        read?;
        let milliseconds = milliseconds(self.clock.monotonic().saturating_sub(started));
        // It has ended, and its account is there until it is waited for.
        let cost = Cost {
            anonymous,
            ..used(&child)
        };
        let success = child.wait().await?.success();
        let finished = Finished {
            output,
            milliseconds,
            cost,
        };
        Ok((finished, success))
    }

    /// Starts a station and waits for its relay's address.
    pub(super) async fn serve(&self, data: &Path) -> Result<Serving, Failure> {
        let started = self.clock.monotonic();
        let child = self.start(data, &["run"], Stdio::null())?;
        let socket = DataDirectory::at(data).control_socket();
        loop {
            // Before it answers, a command would take the station for itself.
            if tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.mind_the_time(started)?;
                continue;
            }
            let asked = self.run_whatever(data, &["status", "--json"], Stdio::null());
            if let (answer, true) = asked.await?
                && let Ok(status) = serde_json::from_slice::<StatusReport>(&answer.output)
                && let Some(relay) = status.relay.clone()
            {
                let ready_ms = milliseconds(self.clock.monotonic().saturating_sub(started));
                return Ok(Serving {
                    child,
                    relay,
                    status,
                    ready_ms,
                });
            }
            self.mind_the_time(started)?;
        }
    }

    fn mind_the_time(&self, started: Duration) -> Result<(), Failure> {
        if self.clock.monotonic().saturating_sub(started) > START_DEADLINE {
            return Err(Failure::local("the station to be measured did not start"));
        }
        Ok(())
    }
}

/// A station that runs.
#[derive(Debug)]
pub(super) struct Serving {
    child: Child,
    /// Where its relay listens.
    pub(super) relay: String,
    pub(super) status: StatusReport,
    /// From its start until it said where; the question, a command of its own, is part of it.
    pub(super) ready_ms: u64,
}

impl Serving {
    /// What the station uses while `work` goes on.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        let before = used(&self.child);
        let (done, anonymous) = with_peak(&self.child, work).await;
        let after = used(&self.child);
        let cost = Cost {
            cpu_ms: after.cpu_ms.saturating_sub(before.cpu_ms),
            anonymous,
            written: after.written.saturating_sub(before.written),
        };
        (done, cost)
    }

    /// Ends the station in good order.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(Failure::local)?;
        }
        self.child.wait().await?;
        Ok(())
    }
}

/// Looks at the memory of `child` while `work` goes on.
async fn with_peak<T>(child: &Child, work: impl Future<Output = T>) -> (T, u64) {
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

/// Processor time and bytes written so far.
fn used(child: &Child) -> Cost {
    Cost {
        cpu_ms: cpu_ms(child).unwrap_or_default(),
        anonymous: 0,
        written: written_bytes(child).unwrap_or_default(),
    }
}

fn account(child: &Child, name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{}/{name}", child.id()?)).ok()
}

fn anonymous_bytes(child: &Child) -> Option<u64> {
    Some(labelled(&account(child, "status")?, "RssAnon:")? * 1_024)
}

fn written_bytes(child: &Child) -> Option<u64> {
    labelled(&account(child, "io")?, "wchar:")
}

fn labelled(account: &str, label: &str) -> Option<u64> {
    let line = account.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn cpu_ms(child: &Child) -> Option<u64> {
    let account = account(child, "stat")?;
    // The name in brackets may hold anything; what follows it is numbers. User and system time are 14th and 15th.
    let (_, numbers) = account.rsplit_once(") ")?;
    let ticks = |place| -> Option<u64> { numbers.split(' ').nth(place)?.parse().ok() };
    Some((ticks(11)? + ticks(12)?) * MILLISECONDS_PER_TICK)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
