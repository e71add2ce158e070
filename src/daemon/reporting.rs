//! Reports, as a part of the station: followed by a reload, kept going while it runs, finished by a lone run.
//!
//! Takes the configuration and the runner; gives the station's reporter. It follows ended runs, whoever asked for them. A
//! command that makes a run in its own process sends what is due within a short time; the rest waits for the next start.

use std::sync::Arc;

use tokio::sync::watch;

use super::station::{Station, StationError};
use crate::config::Config;
use crate::limits::REPORT_LONE_DEADLINE;
use crate::report::{ReportError, Reporter, ReporterContext, Reporting};
use crate::sync::{RunContext, Runner};

/// What reports have of a station.
#[derive(Debug)]
pub(super) struct ReportParts {
    pub(super) reporter: Reporter,
    /// In force; followed by the reporter.
    reporting: watch::Sender<Arc<Reporting>>,
}

impl ReportParts {
    pub(super) fn new(run: &RunContext, runner: &Runner, config: &Config) -> Self {
        let reporting = watch::Sender::new(Arc::new(config.reporting()));
        let reporter = Reporter::new(ReporterContext {
            state: run.state.clone(),
            history: runner.history(),
            ingest: run.ingest.clone(),
            clock: run.clock.clone(),
            reporting: reporting.subscribe(),
            known_as: run.own.clone(),
        });
        Self {
            reporter,
            reporting,
        }
    }

    pub(super) fn reconfigure(&self, config: &Config) {
        let configured = config.reporting();
        self.reporting.send_if_modified(|current| {
            let is_new = **current != configured;
            if is_new {
                *current = Arc::new(configured);
            }
            is_new
        });
    }
}

impl Station {
    /// Reports on runs until the station closes. Before the first run: what ended before is not told.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub async fn start_reporting(&self) -> Result<(), StationError> {
        self.begin_reporting().await;
        let ended = self.runner().ended();
        let keeping = self.reports.reporter.clone().keep_reporting(ended);
        self.tasks()
            .spawn(keeping)
            .map_err(|error| StationError::Start(format!("reports: {error}")))?;
        Ok(())
    }

    /// Notes what was there before the first run of this process. That it cannot be noted keeps no run from being made.
    pub async fn begin_reporting(&self) {
        if let Err(error) = self.reports.reporter.begin().await {
            tracing::error!(%error, "reports");
        }
    }

    /// Sends what is due because of the runs that this process made; says how many reports wait afterwards.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn finish_reporting(&self) -> Result<usize, ReportError> {
        let reporter = &self.reports.reporter;
        reporter.finish_within(REPORT_LONE_DEADLINE).await
    }
}
