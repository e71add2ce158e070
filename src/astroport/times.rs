//! When runs began and succeeded, in the files that the network's scripts read and write.
//!
//! `backfill_constellation.lastrun` has the Unix time at which a run began, by the hourly job or by us; the job keeps out
//! for fifty minutes after it. Ours is known by what we wrote, which is kept in the station's state: so our own run never
//! keeps us out, and the job's does. `last_constellation_sync` has the time of the last success. Replaced whole. What cannot
//! be written is logged, and no reason for a run to fail. Worst case: our memory is lost; then one run of ours is taken for
//! the job's, and we wait up to fifty minutes once.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::paths::AstroportPaths;
use crate::state_file;

/// For so long after a run of the hourly job none of ours is due.
pub const YOUNG_FOR_SECONDS: u64 = 50 * 60;
/// Of a file with a time.
const TIME_BYTES_MAX: u64 = 64;
/// Others read these files.
const MODE: u32 = 0o644;

/// What of it is ours.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    /// Unix seconds, as last written to `backfill_constellation.lastrun`.
    last_run: Option<u64>,
}

/// The times of a station's runs.
#[derive(Debug, Clone)]
pub struct RunTimes {
    last_run: PathBuf,
    last_success: PathBuf,
    /// Where it is kept what we wrote.
    ours: PathBuf,
}

impl RunTimes {
    /// Of the station at these paths; `ours` is a file in our own state folder.
    pub fn new(paths: &AstroportPaths, ours: PathBuf) -> Self {
        Self {
            last_run: paths.last_run(),
            last_success: paths.last_success(),
            ours,
        }
    }

    /// How many seconds ago the hourly job began a run, if that is less than [`YOUNG_FOR_SECONDS`]. Blocks.
    pub fn young_foreign_run(&self, now: u64) -> Option<u64> {
        let began = read_time(&self.last_run)?;
        // A time to come is a clock that was set: no reason to wait for it.
        let age = now.checked_sub(began)?;
        let ours = state_file::read_up_to(&self.ours, TIME_BYTES_MAX)
            .ok()
            .flatten();
        let ours: Ours = ours
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        (age < YOUNG_FOR_SECONDS && ours.last_run != Some(began)).then_some(age)
    }

    /// A run of ours begins. Blocks.
    pub fn run_begins(&self, now: u64) {
        let ours = Ours {
            last_run: Some(now),
        };
        // Ours first: else a crash in between would make it the job's.
        let kept = serde_json::to_vec(&ours)
            .map_err(std::io::Error::other)
            .and_then(|bytes| state_file::replace(&self.ours, &bytes));
        warn(&self.ours, kept);
        warn(&self.last_run, write_time(&self.last_run, now));
    }

    /// A run of ours has succeeded. Blocks.
    pub fn run_succeeded(&self, now: u64) {
        warn(&self.last_success, write_time(&self.last_success, now));
    }
}

fn warn(path: &Path, written: std::io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write down when a run took place");
    }
}

fn read_time(path: &Path) -> Option<u64> {
    let bytes = state_file::read_up_to(path, TIME_BYTES_MAX).ok()??;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn write_time(path: &Path, time: u64) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(draft, "{time}")?;
    let permissions = std::fs::Permissions::from_mode(MODE);
    draft.as_file().set_permissions(permissions)?;
    draft.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_run_of_the_hourly_job_counts_and_ours_does_not() {
        const NOW: u64 = 1_700_000_000;
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        for folder in [paths.published(), paths.relay_folder()] {
            std::fs::create_dir_all(folder).expect("ours");
        }
        let times = RunTimes::new(&paths, home.path().join("astroport.json"));
        assert_eq!(times.young_foreign_run(NOW), None, "none yet");
        times.run_begins(NOW - 10);
        let written = std::fs::read_to_string(paths.last_run()).expect("written");
        assert_eq!(written, format!("{}\n", NOW - 10));
        assert_eq!(times.young_foreign_run(NOW), None, "it is ours");
        std::fs::write(paths.last_run(), format!("{}\n", NOW - 2_999)).expect("ours");
        assert_eq!(times.young_foreign_run(NOW), Some(2_999));
        std::fs::write(paths.last_run(), format!("{}\n", NOW - 3_000)).expect("ours");
        assert_eq!(times.young_foreign_run(NOW), None, "old enough");
        for wrong in ["", "nonsense", "99999999999"] {
            std::fs::write(paths.last_run(), wrong).expect("ours");
            assert_eq!(times.young_foreign_run(NOW), None, "{wrong:?}");
        }
        times.run_succeeded(NOW);
        let written = std::fs::read_to_string(paths.last_success()).expect("written");
        assert_eq!(written.trim().parse(), Ok(NOW));
        // Where nothing can be written nothing happens.
        std::fs::remove_dir_all(paths.published()).expect("ours");
        times.run_begins(NOW);
    }
}
