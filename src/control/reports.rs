//! What commands ask about past runs: what is told of one, its report sent now, the list of them.
//!
//! Goes over the socket, and is carried out the same in the process of a command that has the station open itself. Answers
//! are JSON of the type that each request names. Worst case of an answer: [`HISTORY_LINES_MAX`] lines, or one report.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::messages::CommandError;
use super::server::ControlContext;
use crate::limits::HISTORY_RUNS_MAX;
use crate::report::{self, Letter, ReportError, Summary};
use crate::sync::{Outcome, RunReport};

/// Runs that one answer lists: all that there are.
const HISTORY_LINES_MAX: usize = 2 * HISTORY_RUNS_MAX;

/// What is asked. `run` is a run's id; without it the last one is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportCommand {
    /// [`ReportPages`].
    Show {
        /// Which.
        run: Option<String>,
    },
    /// A list of [`crate::report::Delivery`].
    Send {
        /// Which.
        run: Option<String>,
    },
    /// A list of [`HistoryLine`], the newest last.
    History {
        /// How many at most.
        limit: usize,
    },
}

/// What is told of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPages {
    /// All of it. What `report --json` prints.
    pub summary: Summary,
    /// As text.
    pub text: String,
    /// As an HTML document.
    pub html: String,
}

/// A run, in a line. What `history --json` prints for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Names the run.
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether it only compared.
    pub dry_run: bool,
    /// Whether only peers that were named took part.
    pub named_peers: bool,
    /// Peers of the run.
    pub peers_total: u64,
    /// Peers that converged.
    pub peers_succeeded: u64,
    /// Events that came and are stored.
    pub stored: u64,
    /// Events that peers took.
    pub uploaded: u64,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
}

impl From<RunReport> for HistoryLine {
    fn from(run: RunReport) -> Self {
        Self {
            run_id: run.run_id,
            started_at: run.started_at,
            outcome: run.outcome,
            duration_ms: run.duration_ms,
            dry_run: run.dry_run,
            named_peers: run.named_peers,
            peers_total: run.totals.peers_total,
            peers_succeeded: run.totals.peers_succeeded,
            stored: run.totals.stored,
            uploaded: run.totals.uploaded,
            bytes_in: run.totals.bytes_in,
            bytes_out: run.totals.bytes_out,
        }
    }
}

impl From<ReportError> for CommandError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NoSuchRun(_) | ReportError::NoRun | ReportError::NotConfigured => {
                Self::usage(error)
            }
            ReportError::History(_) | ReportError::Spool(_) | ReportError::Closing => {
                Self::local(error)
            }
        }
    }
}

/// Carries out what a command asks about past runs.
///
/// # Errors
/// [`CommandError`].
pub async fn report(
    context: &ControlContext,
    command: ReportCommand,
) -> Result<Value, CommandError> {
    let answer = match command {
        ReportCommand::Show { run } => {
            let summary = context.reporter.summary(run).await?;
            let letter = Letter::asked(&summary);
            let (text, html) = (report::text(&letter), report::html(&letter));
            let html = html.map_err(CommandError::local)?;
            serde_json::to_value(ReportPages {
                text,
                html,
                summary,
            })
        }
        ReportCommand::Send { run } => serde_json::to_value(context.reporter.send_now(run).await?),
        ReportCommand::History { limit } => {
            let history = context.runner.history();
            let limit = limit.min(HISTORY_LINES_MAX);
            let reading = tokio::task::spawn_blocking(move || history.last_runs(limit));
            let runs = reading.await.map_err(CommandError::local)?;
            let runs = runs.map_err(CommandError::local)?;
            let lines: Vec<HistoryLine> = runs.into_iter().map(HistoryLine::from).collect();
            serde_json::to_value(lines)
        }
    };
    answer.map_err(CommandError::local)
}
