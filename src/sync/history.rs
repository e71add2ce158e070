//! What past runs achieved, on disk: one JSON line per run, the newest last, bounded.
//!
//! A line that cannot be read (a crash in the middle of a write, an older version) is passed over when reading, and
//! gone at the next compaction. Losing history loses no event.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::outcome::{Outcome, RunReport};
use crate::limits::HISTORY_RUNS_MAX;

/// Why history could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("history {}: {source}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    source: io::Error,
}

/// The runs of one station.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// The history in a station's `state` folder.
    pub fn in_folder(state: &Path) -> Self {
        Self {
            path: state.join("history.jsonl"),
        }
    }

    fn error(&self, source: io::Error) -> HistoryError {
        HistoryError {
            path: self.path.clone(),
            source,
        }
    }

    /// Appends a run, durably. Keeps between one and two times the bound.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn append(&self, report: &RunReport) -> Result<(), HistoryError> {
        let mut line = serde_json::to_string(report).map_err(|error| self.error(error.into()))?;
        line.push('\n');
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error| self.error(error))?;
        let lines = self.lines()?;
        if lines.len() > 2 * HISTORY_RUNS_MAX {
            self.rewrite(&lines[lines.len() - HISTORY_RUNS_MAX..])?;
        }
        Ok(())
    }

    fn rewrite(&self, lines: &[String]) -> Result<(), HistoryError> {
        let replace = || -> io::Result<()> {
            let next = self.path.with_extension("jsonl.new");
            let mut file = File::create(&next)?;
            for line in lines {
                writeln!(file, "{line}")?;
            }
            file.sync_data()?;
            fs::rename(&next, &self.path)
        };
        replace().map_err(|error| self.error(error))
    }

    fn lines(&self) -> Result<Vec<String>, HistoryError> {
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.error(error)),
            Ok(file) => BufReader::new(file)
                .lines()
                .collect::<io::Result<_>>()
                .map_err(|error| self.error(error)),
        }
    }

    /// The last `most` runs, the newest last.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn last_runs(&self, most: usize) -> Result<Vec<RunReport>, HistoryError> {
        let lines = self.lines()?;
        let mut runs: Vec<RunReport> = lines
            .iter()
            .rev()
            .filter_map(|line| serde_json::from_str(line).ok())
            .take(most)
            .collect();
        runs.reverse();
        Ok(runs)
    }

    /// When each peer last converged, in Unix seconds, as far as history goes back.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn last_successes(&self) -> Result<std::collections::HashMap<String, u64>, HistoryError> {
        let mut successes = std::collections::HashMap::new();
        for run in self.last_runs(HISTORY_RUNS_MAX)? {
            let Ok(started) = run.started_at.parse::<jiff::Timestamp>() else {
                continue;
            };
            let ended = started.as_millisecond().unsigned_abs() + run.duration_ms;
            for peer in run.peers {
                if peer.outcome == Outcome::Converged && !run.dry_run {
                    successes.insert(peer.address, ended / 1_000);
                }
            }
        }
        Ok(successes)
    }
}
