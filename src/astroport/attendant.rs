//! What a run on an Astroport station does beside exchanging: it holds the scripts' locks, writes their logs and times.
//!
//! Takes what runs tell their attendant; gives a run its place, or says that the network's own job works. Invariant: no run
//! begins while a living process holds one of the locks, and ours are let go of however a run ends. A run that nobody asked
//! for is left out, too, while one of the hourly job is young. Deliberately absent: when runs are due, the mail. Blocking work is
//! off the runtime; a run that is cut off lets go of its locks where it stands (two files are removed). Worst case: logs that
//! cannot be written, said in our own log.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::locks::{LockPlace, LockTaker, Refused};
use super::log_file::{Level, StationLogs, local_time};
use super::paths::AstroportPaths;
use super::run_lines::{GraphFigures, first_lines, run_lines};
use super::times::RunTimes;
use crate::graph::GraphKeeper;
use crate::sync::{Attendant, Attended, Attending, Outcome, RunPlan, RunReport};
use crate::time::Clock;

/// Attends to the runs of an Astroport station.
#[derive(Debug, Clone)]
pub struct AstroportAttendant {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    /// `None`: this is no such station (any more).
    paths: watch::Receiver<Option<AstroportPaths>>,
    /// Where it is kept what we wrote into the scripts' files.
    ours: PathBuf,
    graph: GraphKeeper,
    clock: Clock,
    /// What was last said of a lock that keeps us out: once is enough.
    kept_out_by: Mutex<Option<u32>>,
}

impl AstroportAttendant {
    /// Follows where the station is; `ours` is a file in our own state folder.
    pub fn new(
        paths: watch::Receiver<Option<AstroportPaths>>,
        ours: PathBuf,
        graph: GraphKeeper,
        clock: Clock,
    ) -> Self {
        let parts = Parts {
            paths,
            ours,
            graph,
            clock,
            kept_out_by: Mutex::default(),
        };
        Self {
            parts: Arc::new(parts),
        }
    }
}

impl Attendant for AstroportAttendant {
    fn begin<'a>(&'a self, plan: &'a RunPlan) -> Attending<'a, Result<Box<dyn Attended>, String>> {
        Box::pin(async move {
            let Some(paths) = self.parts.paths.borrow().clone() else {
                return Ok(Box::new(Unattended) as Box<dyn Attended>);
            };
            let (parts, first) = (Arc::clone(&self.parts), first_lines(plan));
            let home = plan.home.as_ref().map(|home| home.relay.to_string());
            let is_scheduled = plan.is_scheduled;
            // It stays here: whoever drops this future lets go.
            let place = LockPlace::default();
            let taker = place.taker();
            let begun = tokio::task::spawn_blocking(move || {
                Notes::begin(parts, &paths, taker, home, is_scheduled, &first)
            });
            match begun.await {
                Ok(Ok(notes)) => Ok(Box::new(Run { notes, place }) as Box<dyn Attended>),
                Ok(Err(why)) => Err(why),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Of a station that has nothing to do with Astroport.
#[derive(Debug)]
struct Unattended;

impl Attended for Unattended {
    fn end(self: Box<Self>, _: &RunReport) -> Attending<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A run that holds the locks.
#[derive(Debug)]
struct Run {
    notes: Notes,
    place: LockPlace,
}

/// What is written down of a run.
#[derive(Debug)]
struct Notes {
    logs: StationLogs,
    times: RunTimes,
    home: Option<String>,
    parts: Arc<Parts>,
}

impl Notes {
    fn begin(
        parts: Arc<Parts>,
        paths: &AstroportPaths,
        taker: LockTaker,
        home: Option<String>,
        is_scheduled: bool,
        first: &[(Level, String)],
    ) -> Result<Self, String> {
        let now = parts.clock.unix_seconds();
        let logs = StationLogs::new(paths);
        let times = RunTimes::new(paths, parts.ours.clone());
        let info = |text: String| (Level::Info, text);
        if is_scheduled && let Some(age) = times.young_foreign_run(now) {
            return Err(format!(
                "the station's own hourly job began a run {age} seconds ago"
            ));
        }
        let own = std::process::id();
        let stale = match taker.take(paths, own) {
            Ok(stale) => stale,
            Err(Refused::Left) => return Err("the run was given up".to_owned()),
            Err(Refused::Foreign { path, process }) => {
                let mut kept_out_by = parts
                    .kept_out_by
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if kept_out_by.replace(process) != Some(process) {
                    let said =
                        format!("Constellation sync already running (PID {process}), skipping");
                    logs.say(now, &[info(said)]);
                }
                return Err(format!("process {process} holds {}", path.display()));
            }
        };
        *parts
            .kept_out_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        times.run_begins(now);
        let mut lines = vec![
            info("Constellation sync trigger started".to_owned()),
            info(format!("Created lock file with PID {own}")),
        ];
        for process in stale {
            lines.push(info(format!(
                "Removed stale lock file (PID {process} not running)"
            )));
        }
        logs.say(now, &lines);
        logs.run_begins(now, first);
        Ok(Self {
            logs,
            times,
            home,
            parts,
        })
    }

    fn finish(self, report: &RunReport, graph: Option<GraphFigures>) {
        let now = self.parts.clock.unix_seconds();
        let lines = run_lines(report, self.home.as_deref(), graph);
        self.logs.run_goes_on(now, &lines);
        let mut last = Vec::new();
        match report.outcome {
            Outcome::Converged => {
                self.times.run_succeeded(now);
                last.push((
                    Level::Info,
                    format!("Marked sync as completed at: {}", local_time(now)),
                ));
                last.push((
                    Level::Info,
                    "Constellation sync completed successfully".to_owned(),
                ));
            }
            Outcome::Skipped => {
                last.push((
                    Level::Info,
                    "Constellation sync: nothing to be done".to_owned(),
                ));
            }
            outcome => last.push((Level::Error, format!("Constellation sync ended: {outcome}"))),
        }
        last.push((Level::Info, "Removed lock file".to_owned()));
        self.logs.say(now, &last);
    }
}

impl Attended for Run {
    fn end(self: Box<Self>, report: &RunReport) -> Attending<'_, ()> {
        Box::pin(async move {
            let Self { notes, place } = *self;
            let graph = match notes.parts.graph.report(true).await {
                Ok(members) => {
                    let named = members
                        .authors
                        .iter()
                        .filter(|author| author.name.is_some() || author.display_name.is_some());
                    Some(GraphFigures {
                        authors: members.authors_in_scope as u64,
                        profiles_found: named.count() as u64,
                    })
                }
                Err(error) => {
                    tracing::warn!(%error, "how many profiles are known is not logged");
                    None
                }
            };
            let report = report.clone();
            let finishing = tokio::task::spawn_blocking(move || notes.finish(&report, graph));
            if let Err(error) = finishing.await {
                tracing::warn!(%error, "the station's logs lack the end of a run");
            }
            drop(place);
        })
    }
}
