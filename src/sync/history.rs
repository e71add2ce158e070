//! What past runs achieved, on disk: one JSON line per run, the newest last, bounded.
//!
//! A line that cannot be read (a crash in the middle of a write, an older version) is passed over when reading, and
//! gone at the next compaction. Losing history loses no event.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
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

    /// Works on the file, which may have tens of megabytes, off the runtime. Once begun the work is done, also if nobody waits
    /// for it any more.
    ///
    /// # Errors
    /// [`HistoryError`]: the work's, or the runtime is shutting down.
    pub(super) async fn off_the_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let history = self.clone();
        tokio::task::spawn_blocking(move || work(&history))
            .await
            .map_err(|error| self.error(error.into()))?
    }

    fn error(&self, source: io::Error) -> HistoryError {
        HistoryError {
            path: self.path.clone(),
            source,
        }
    }

    /// Appends a run, durably. Keeps between one and two times the bound. Blocks.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn append(&self, report: &RunReport) -> Result<(), HistoryError> {
        let mut line = serde_json::to_string(report).map_err(|error| self.error(error.into()))?;
        line.push('\n');
        let mut write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .open(&self.path)?;
            if ends_in_the_middle_of_a_line(&mut file)? {
                line.insert(0, '\n');
            }
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
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.error(error)),
            // A crash may tear a character in two: such a line is no report, and the others still count.
            Ok(bytes) => Ok(bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect()),
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

    /// When each peer last converged, in Unix seconds, as far as history goes back. Blocks.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn last_successes(&self) -> Result<std::collections::HashMap<String, u64>, HistoryError> {
        let mut successes = std::collections::HashMap::new();
        for run in self.last_runs(HISTORY_RUNS_MAX)? {
            let Ok(started) = run.started_at.parse::<jiff::Timestamp>() else {
                continue;
            };
            let ended = started
                .as_millisecond()
                .unsigned_abs()
                .saturating_add(run.duration_ms);
            for peer in run.peers {
                if peer.outcome == Outcome::Converged && !run.dry_run {
                    successes.insert(peer.address, ended / 1_000);
                }
            }
        }
        Ok(successes)
    }
}

/// What is appended after a torn line would be lost with it.
fn ends_in_the_middle_of_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(run_id: &str) -> RunReport {
        RunReport {
            run_id: run_id.to_owned(),
            outcome: Outcome::Converged,
            started_at: "2026-01-31T12:00:00Z".to_owned(),
            duration_ms: 1,
            dry_run: false,
            peers: Vec::new(),
            named_peers: false,
            totals: RunReport::totals_of(&[], None),
            facts: None,
        }
    }

    #[test]
    fn a_line_that_a_crash_tore_costs_no_other_run() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let history = History::in_folder(folder.path());
        history.append(&report("before")).expect("written");
        let path = folder.path().join("history.jsonl");
        let mut torn = fs::read(&path).expect("there");
        torn.extend_from_slice(b"{\"run_id\":\"torn \xe2\x80"); // in the middle of a character
        fs::write(&path, torn).expect("ours");
        history.append(&report("after")).expect("written");
        let runs = history.last_runs(10).expect("readable");
        let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
        assert_eq!(ids, ["before", "after"]);
    }
}
