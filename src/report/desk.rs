//! From the history of runs to reports that wait: what is told once is told once, over crashes and restarts.
//!
//! Takes the history; decides for each run that it has not seen, in order, and spools what is to be told. It keeps how far
//! it came in `told.json`, beside the spool. Invariant: a report is first put into the spool, under the id of its run, and
//! only then counts as told. After a crash between the two the run is judged again, to the same end, and finds its report in
//! place; nothing is sent before what is told is written. So no change of state is lost and none is told twice. What was
//! told changes only so: without a way to send by, nobody is told. Deliberately absent: sending. Blocks.

use std::collections::BTreeSet;
use std::io;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::deciding::{Occasion, Standing, State, last_due, occasion, speaks_of_the_whole};
use super::files::Files;
use super::options::{Channel, ReportOptions, When};
use super::spool::{Spool, Spooled};
use super::summary::{RUNS_SHOWN, StationName, Summary, started};
use crate::sync::{Outcome, RunReport};
use crate::time::rfc3339;

/// Where it is kept what was told.
const TOLD: &str = "told.json";
/// How the id of a daily report ends.
const DAILY: &str = "-daily";

/// How far it came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    /// What is known of how things stand.
    standing: Standing,
    /// How things stood when somebody was last told.
    state: State,
    /// The last run that was judged.
    last_run: Option<String>,
    /// When the last daily report was due, in Unix seconds.
    daily_at: u64,
    /// The last run of that report.
    daily_run: Option<String>,
}

/// What it goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'c> {
    /// What is configured.
    pub(super) options: &'c ReportOptions,
    /// Who tells.
    pub(super) station: &'c StationName,
    /// Local time.
    pub(super) zone: &'c TimeZone,
    /// Unix seconds.
    pub(super) now: u64,
}

/// Judges runs and fills the spool.
#[derive(Debug)]
pub(super) struct Desk<F> {
    spool: Spool<F>,
    told: Told,
    /// As on disk.
    kept: Told,
}

impl<F: Files> Desk<F> {
    /// Over these files. Where nothing was told yet it begins with what comes: `newest` is the last run there was.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(files: F, newest: Option<&RunReport>, now: u64) -> io::Result<Self> {
        let mut spool = Spool::over(files);
        let read = spool.files().read(TOLD)?;
        let read = read.map(|bytes| serde_json::from_slice::<Told>(&bytes));
        let told = match read {
            Some(Ok(told)) => told,
            other => {
                if let Some(Err(error)) = other {
                    tracing::error!(%error, "what was told is lost: reports begin anew with the next run");
                }
                let newest = newest.map(|run| run.run_id.clone());
                Told {
                    last_run: newest.clone(),
                    daily_at: now,
                    daily_run: newest,
                    ..Told::default()
                }
            }
        };
        let mut desk = Self {
            spool,
            kept: told.clone(),
            told,
        };
        desk.recover()?;
        desk.keep()?;
        Ok(desk)
    }

    /// A daily report that is in the spool was told, also if we died before that was written.
    fn recover(&mut self) -> io::Result<()> {
        for id in self.spool.ids()? {
            let due = id.strip_suffix(DAILY).and_then(|due| due.parse().ok());
            let Some(due) = due.filter(|due: &u64| *due > self.told.daily_at) else {
                continue;
            };
            if let Some(report) = self.spool.get(&id)? {
                self.told.daily_at = due;
                self.told.daily_run = Some(report.summary.run_id);
            }
        }
        Ok(())
    }

    fn keep(&mut self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.told)?;
        self.spool.files().replace(TOLD, &bytes)?;
        self.kept = self.told.clone();
        Ok(())
    }

    /// What waits.
    pub(super) fn spool(&mut self) -> &mut Spool<F> {
        &mut self.spool
    }

    /// Whether these runs, the end of the history, begin after the last one that it has seen: more of it is to be read.
    pub(super) fn wants_more(&self, runs: &[RunReport]) -> bool {
        let begins_later = |last: &Option<String>| {
            let last = last.as_deref();
            last.is_some_and(|last| !runs.iter().any(|run| run.run_id == last))
        };
        begins_later(&self.told.last_run) || begins_later(&self.told.daily_run)
    }

    /// When the daily report was due that was told last, in Unix seconds.
    pub(super) fn daily_at(&self) -> u64 {
        self.told.daily_at
    }

    /// Judges all runs that it has not seen; `runs`: the history, the oldest first. Says how many reports it spooled.
    ///
    /// # Errors
    /// The system's; what was not told yet is told the next time.
    pub(super) fn catch_up(
        &mut self,
        runs: &[RunReport],
        with: Circumstances<'_>,
    ) -> io::Result<usize> {
        let caught_up = self.judge_all(runs, with).and_then(|spooled| {
            if self.told != self.kept {
                self.keep()?;
            }
            Ok(spooled)
        });
        if caught_up.is_err() {
            // What was decided after what is on disk is decided again.
            self.told = self.kept.clone();
        }
        caught_up
    }

    fn judge_all(&mut self, runs: &[RunReport], with: Circumstances<'_>) -> io::Result<usize> {
        let channels = with.options.channels();
        let mut spooled = 0;
        for place in after(runs, self.told.last_run.as_deref())..runs.len() {
            if self.judge(runs, place, &channels, with)? {
                spooled += 1;
                self.keep()?;
            }
        }
        spooled += usize::from(self.daily(runs, &channels, with)?);
        Ok(spooled)
    }

    /// Judges one run; says whether it is told.
    fn judge(
        &mut self,
        runs: &[RunReport],
        place: usize,
        channels: &BTreeSet<Channel>,
        with: Circumstances<'_>,
    ) -> io::Result<bool> {
        let run = &runs[place];
        let told = &mut self.told;
        told.standing.take(run, with.options.unreached_for);
        let speaks = speaks_of_the_whole(run) && run.outcome != Outcome::Skipped;
        let state = told.standing.state;
        let why = occasion(with.options.when, told.state, state);
        let why = why.filter(|_| speaks && !channels.is_empty());
        if let Some(why) = why {
            let before = &runs[place.saturating_sub(RUNS_SHOWN)..place];
            let summary = Summary::of_run(run, before, state, with.station);
            let report = Spooled::new(run.run_id.clone(), why, summary, channels.clone(), with.now);
            self.spool.put(&report)?;
            told.state = state;
        }
        told.last_run = Some(run.run_id.clone());
        Ok(why.is_some())
    }

    /// Spools the daily report if it is due.
    fn daily(
        &mut self,
        runs: &[RunReport],
        channels: &BTreeSet<Channel>,
        with: Circumstances<'_>,
    ) -> io::Result<bool> {
        let newest = runs.last().map(|run| run.run_id.clone());
        if with.options.when != When::Daily || channels.is_empty() {
            // Whoever asks for it from tomorrow on is told of tomorrow.
            if self.told.daily_run != newest {
                (self.told.daily_at, self.told.daily_run) = (with.now, newest);
            }
            return Ok(false);
        }
        let due = last_due(with.options.digest_at, with.zone, with.now);
        if due <= self.told.daily_at {
            return Ok(false);
        }
        let since = rfc3339(self.told.daily_at);
        let of_the_day: Vec<RunReport> = runs[after(runs, self.told.daily_run.as_deref())..]
            .iter()
            .filter(|run| !run.dry_run && run.outcome != Outcome::Skipped)
            .cloned()
            .collect();
        let state = self.told.standing.state;
        let summary =
            Summary::of_digest(&of_the_day, &since, &rfc3339(with.now), state, with.station);
        let is_told = summary.is_some();
        if let Some(summary) = summary {
            let id = format!("{due}{DAILY}");
            let report = Spooled::new(id, Occasion::Digest, summary, channels.clone(), with.now);
            self.spool.put(&report)?;
            self.told.state = state;
        }
        (self.told.daily_at, self.told.daily_run) = (due, newest);
        self.keep()?;
        Ok(is_told)
    }
}

/// The place of the first run after this one. Where it is no longer in the history, that of the first that began later.
fn after(runs: &[RunReport], last: Option<&str>) -> usize {
    let Some(last) = last else {
        return 0;
    };
    if let Some(place) = runs.iter().rposition(|run| run.run_id == last) {
        return place + 1;
    }
    let began = last.split('-').next().and_then(|began| began.parse().ok());
    let began: u64 = began.unwrap_or_default();
    runs.iter()
        .position(|run| started(&run.started_at) > began)
        .unwrap_or(runs.len())
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
