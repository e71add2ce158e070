//! The logs that the network's scripts and people read, in the form that those know: `[YYYY-MM-DD HH:MM:SS] [LEVEL] message`.
//!
//! Takes lines; appends them to the trigger's log, to the backfill's (which begins anew with each run) and, from warnings on,
//! to the error log. Each line is one write at the end of the file, so that a script may write there too, and a file that was
//! rotated under us keeps what we wrote. Rotation renames: `.1` is the newest, the oldest goes. Local time. A line has no
//! characters that end it early or that a terminal obeys, whatever a peer said. Deliberately absent: what the lines say
//! (`run_lines.rs`). Worst case: a full disk or a missing folder; that is said once in our own log, and nothing fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::paths::AstroportPaths;

/// Of one line's message; peers say why they refuse.
const MESSAGE_CHARS_MAX: usize = 1_000;
const MEGABYTE: u64 = 1 << 20;
/// Machines with less memory keep fewer errors.
const SMALL_MACHINE_BYTES: u64 = 2 << 30;

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What was done.
    Info,
    /// Something is left over.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// As it stands in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// When a log is rotated, and how many older ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that is larger is rotated.
    pub bytes_max: u64,
    /// `.1` up to this.
    pub files_max: u32,
}

impl Rotation {
    /// Of the trigger's log.
    pub const TRIGGER: Self = Self {
        bytes_max: 10 * MEGABYTE,
        files_max: 5,
    };

    /// Of the error log, on a machine with so much memory.
    pub const fn of_errors(memory_bytes: u64) -> Self {
        if memory_bytes < SMALL_MACHINE_BYTES {
            return Self {
                bytes_max: 5 * MEGABYTE,
                files_max: 2,
            };
        }
        Self {
            bytes_max: 10 * MEGABYTE,
            files_max: 3,
        }
    }
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    path: PathBuf,
    rotation: Option<Rotation>,
}

impl LogFile {
    /// The log at this path; `rotation`: what is done when it grows.
    pub fn new(path: PathBuf, rotation: Option<Rotation>) -> Self {
        Self { path, rotation }
    }

    /// Appends whole lines, rotating before if it is time. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn append(&self, lines: &str) -> io::Result<()> {
        if let Some(rotation) = self.rotation
            && fs::metadata(&self.path).is_ok_and(|file| file.len() > rotation.bytes_max)
        {
            self.rotate(rotation)?;
        }
        self.open()?.write_all(lines.as_bytes())
    }

    /// Begins it anew with these lines. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn restart(&self, lines: &str) -> io::Result<()> {
        let file = self.open()?;
        file.set_len(0)?;
        (&file).write_all(lines.as_bytes())
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
    }

    fn rotate(&self, rotation: Rotation) -> io::Result<()> {
        for number in (1..rotation.files_max).rev() {
            rename_if_there(&self.rotated(number), &self.rotated(number + 1))?;
        }
        rename_if_there(&self.path, &self.rotated(1))
    }

    /// Where the log lies that was rotated so many times.
    pub fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many older ones are kept at most.
    pub fn files_max(&self) -> u32 {
        self.rotation.map_or(0, |rotation| rotation.files_max)
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The logs of an Astroport station.
#[derive(Debug, Clone)]
pub struct StationLogs {
    /// Of the first generation: every run, after each other.
    pub trigger: LogFile,
    /// Of today: the last run.
    pub backfill: LogFile,
    /// Warnings and errors of past runs.
    pub errors: LogFile,
}

impl StationLogs {
    /// At these paths, on this machine.
    pub fn new(paths: &AstroportPaths) -> Self {
        let memory = rustix::system::sysinfo();
        let unit = u64::from(memory.mem_unit.max(1));
        #[allow(clippy::useless_conversion)] // machines of 32 bits count in 32 bits
        let memory = u64::from(memory.totalram).saturating_mul(unit);
        let errors = Rotation::of_errors(memory);
        Self {
            trigger: LogFile::new(paths.trigger_log(), Some(Rotation::TRIGGER)),
            backfill: LogFile::new(paths.backfill_log(), None),
            errors: LogFile::new(paths.error_log(), Some(errors)),
        }
    }

    /// Lines of the trigger alone, at `now` in Unix seconds. Blocks.
    pub fn say(&self, now: u64, lines: &[(Level, String)]) {
        warn(&self.trigger, self.trigger.append(&written(now, lines)));
    }

    /// A run begins: the backfill's log is of this one from now on. Blocks.
    pub fn run_begins(&self, now: u64, lines: &[(Level, String)]) {
        let header = format!(
            "# Constellation Backfill Log - {}\n# This log contains only the latest synchronization run\n\n",
            local_time(now)
        );
        let body = written(now, lines);
        warn(
            &self.backfill,
            self.backfill.restart(&format!("{header}{body}")),
        );
        warn(&self.trigger, self.trigger.append(&body));
    }

    /// More of the run. Blocks.
    pub fn run_goes_on(&self, now: u64, lines: &[(Level, String)]) {
        let body = written(now, lines);
        warn(&self.backfill, self.backfill.append(&body));
        warn(&self.trigger, self.trigger.append(&body));
        let grave: Vec<(Level, String)> = lines
            .iter()
            .filter(|(level, _)| *level >= Level::Warn)
            .cloned()
            .collect();
        if !grave.is_empty() {
            warn(&self.errors, self.errors.append(&written(now, &grave)));
        }
    }
}

fn warn(log: &LogFile, written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(path = %log.path.display(), %error, "a log of the station cannot be written");
    }
}

/// The lines as they stand in a log.
pub(crate) fn written(now: u64, lines: &[(Level, String)]) -> String {
    let time = local_time(now);
    let mut text = String::new();
    for (level, message) in lines {
        let shown = message
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter });
        let shown: String = shown.take(MESSAGE_CHARS_MAX).collect();
        text.push_str(&format!("[{time}] [{}] {shown}\n", level.as_str()));
    }
    text
}

/// `YYYY-MM-DD HH:MM:SS` on this machine.
pub(crate) fn local_time(unix_seconds: u64) -> String {
    let moment = i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or_default();
    let local = moment.to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn a_line_is_one_line_whatever_it_says() {
        let said = "refused:\n[2026-01-01 00:00:00] [INFO] SYNC_PEERS: success=9 total=9\u{1b}[2J";
        let text = written(NOW, &[(Level::Error, said.to_owned())]);
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with(&format!("[{}] [ERROR] refused: [2026", local_time(NOW))));
        assert!(!text.trim_end().contains(char::is_control));
        assert_eq!(local_time(NOW).len(), "2023-11-14 22:13:20".len());
        let long = written(NOW, &[(Level::Info, "x".repeat(5_000))]);
        assert!(long.len() < 1_100);
    }

    #[test]
    fn rotation_keeps_so_many_and_loses_no_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rotation = Rotation {
            bytes_max: 9,
            files_max: 2,
        };
        let log = LogFile::new(folder.path().join("a.log"), Some(rotation));
        // Somebody has it open while it is rotated.
        log.append("line 1\n").expect("written");
        let mut held = OpenOptions::new()
            .append(true)
            .open(log.path())
            .expect("ours");
        log.append("line 2\n").expect("written");
        log.append("line 3\n").expect("rotated");
        held.write_all(b"late\n").expect("ours");
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        assert_eq!(read(log.path()), "line 3\n");
        assert_eq!(read(&log.rotated(1)), "line 1\nline 2\nlate\n");
        for number in 4..10 {
            log.append(&format!("line {number}\n")).expect("written");
        }
        let kept = [2, 1].map(|number| read(&log.rotated(number))).concat() + &read(log.path());
        assert_eq!(kept, "line 5\nline 6\nline 7\nline 8\nline 9\n");
        assert!(!log.rotated(3).exists());
    }

    #[test]
    fn a_run_begins_its_log_anew_and_errors_are_kept() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        let logs = StationLogs::new(&paths);
        let line = |level, text: &str| vec![(level, text.to_owned())];
        // No folder yet: nothing fails.
        logs.run_begins(NOW, &line(Level::Info, "first"));
        fs::create_dir_all(paths.relay_folder()).expect("ours");
        for run in ["first", "second"] {
            logs.run_begins(NOW, &line(Level::Info, run));
            logs.run_goes_on(NOW, &line(Level::Error, &format!("{run} failed")));
        }
        let read = |path: PathBuf| fs::read_to_string(path).expect("written");
        let backfill = read(paths.backfill_log());
        assert!(backfill.starts_with("# Constellation Backfill Log - "));
        assert!(backfill.contains("second") && !backfill.contains("first"));
        let errors = read(paths.error_log());
        assert_eq!(errors.lines().count(), 2, "{errors}");
        assert_eq!(read(paths.trigger_log()).lines().count(), 4);
    }

    #[test]
    fn small_machines_keep_less() {
        assert_eq!(Rotation::of_errors(1 << 30).files_max, 2);
        assert_eq!(Rotation::of_errors(4 << 30).files_max, 3);
    }
}
