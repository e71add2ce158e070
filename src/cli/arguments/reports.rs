//! The words of the commands about past runs.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReportArguments {
    /// Of this run, by its id in `constellation history`; "last" is the last one
    #[arg(long, value_name = "ID", default_value = "last")]
    pub(in crate::cli) run: String,
    /// Write the page to this file; "-" is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "send"])]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Send it now, by all ways that [report] configures, and say what they answer
    #[arg(long)]
    pub(in crate::cli) send: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl ReportArguments {
    /// The run's id; `None` for the last one.
    pub(in crate::cli) fn run(&self) -> Option<String> {
        (self.run != "last").then(|| self.run.clone())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArguments {
    /// At most so many runs
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(in crate::cli) limit: usize,
    /// Print one JSON array
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
