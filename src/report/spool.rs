//! Reports that wait to be sent: one file each, until they are delivered.
//!
//! Takes reports and what became of sending them; gives the next one to send, and when. Invariants: a report is gone only
//! once every way has taken it, or is counted in a later one; the newest is never dropped; however many wait, one goes a
//! minute. A report that could not go is tried again after a minute, twice as long each time, up to six hours. Of reports of
//! every run, the older ones become lines of the newest; beyond [`REPORTS_SPOOLED_MAX`], or a week, the oldest are counted
//! in the newest. Each step leaves files from which the next start goes on, whatever happened between; the one thing that
//! can happen twice is a delivery after which we died before we noted it. A file that cannot be read is set aside, not
//! sent. Blocks. Worst case: all files read, a hundred of at most [`REPORT_FILE_BYTES_MAX`] bytes.
//!
//! [`REPORT_FILE_BYTES_MAX`]: crate::limits::REPORT_FILE_BYTES_MAX

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deciding::Occasion;
use super::files::Files;
use super::numbers::moment;
use super::options::Channel;
use super::summary::Summary;
use crate::limits::{
    REPORT_EVERY, REPORT_KEPT_FOR, REPORT_LINES_MAX, REPORT_PAUSE_FIRST, REPORT_PAUSE_MAX,
    REPORTS_SPOOLED_MAX,
};

/// How a waiting report's file ends.
const ENDING: &str = ".report";
/// How the file of one that cannot be read ends from then on.
const SET_ASIDE: &str = ".unreadable";

/// A report that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spooled {
    /// Names it, in the order of time: that of its run, or of its day.
    pub(super) id: String,
    /// Why it is told.
    pub(super) occasion: Occasion,
    /// What is told.
    pub(super) summary: Summary,
    /// By which ways it is still to go.
    pub(super) undelivered: BTreeSet<Channel>,
    /// Unix seconds.
    pub(super) created_at: u64,
    /// How often it was tried.
    #[serde(default)]
    pub(super) attempts: u32,
    /// When it is tried next, in Unix seconds.
    #[serde(default)]
    pub(super) try_at: u64,
    /// Lines of older reports that were never sent, by their ids.
    #[serde(default)]
    pub(super) earlier: BTreeMap<String, String>,
    /// How many reports were given up.
    #[serde(default)]
    pub(super) dropped: u64,
    /// The last of these.
    #[serde(default)]
    pub(super) dropped_up_to: String,
}

impl Spooled {
    /// A report that has not been tried.
    pub(super) fn new(
        id: String,
        occasion: Occasion,
        summary: Summary,
        undelivered: BTreeSet<Channel>,
        now: u64,
    ) -> Self {
        Self {
            id,
            occasion,
            summary,
            undelivered,
            created_at: now,
            attempts: 0,
            try_at: 0,
            earlier: BTreeMap::new(),
            dropped: 0,
            dropped_up_to: String::new(),
        }
    }

    /// What is said of it when it is only a line of a later one.
    fn line(&self) -> String {
        let summary = &self.summary;
        format!(
            "{}: {}, {} events collected, {} of {} peers equal",
            moment(&summary.started_at),
            summary.outcome,
            summary.stored,
            summary.peers_succeeded,
            summary.peers_total
        )
    }

    fn file(&self) -> String {
        format!("{}{ENDING}", self.id)
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this.
    Send(Box<Spooled>),
    /// Nothing before this second.
    At(u64),
    /// Nothing waits.
    Nothing,
}

/// When one was last tried, in Unix seconds.
const TRIED: &str = "tried";

/// The waiting reports of one station.
#[derive(Debug)]
pub(super) struct Spool<F> {
    files: F,
}

impl<F: Files> Spool<F> {
    /// Over these files.
    pub(super) fn over(files: F) -> Self {
        Self { files }
    }

    /// For what is kept beside the reports.
    pub(super) fn files(&mut self) -> &mut F {
        &mut self.files
    }

    /// The ids of all that wait, the oldest first.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn ids(&self) -> io::Result<Vec<String>> {
        let names = self.files.names()?;
        let ids = names.iter().filter_map(|name| name.strip_suffix(ENDING));
        Ok(ids.map(str::to_owned).collect())
    }

    /// Puts a report in, unless it is there already.
    ///
    /// # Errors
    /// The system's; it is then not in it.
    pub(super) fn put(&mut self, report: &Spooled) -> io::Result<()> {
        if self.files.names()?.contains(&report.file()) {
            return Ok(());
        }
        self.write(report)
    }

    fn write(&mut self, report: &Spooled) -> io::Result<()> {
        let bytes = serde_json::to_vec(report)?;
        self.files.replace(&report.file(), &bytes)
    }

    /// A waiting report; `None` if it is not there, or cannot be read.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn get(&mut self, id: &str) -> io::Result<Option<Spooled>> {
        let name = format!("{id}{ENDING}");
        let Some(bytes) = self.files.read(&name)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(report) => Ok(Some(report)),
            Err(error) => {
                tracing::error!(%id, %error, "a report that waits cannot be read; it is set aside and not sent");
                self.files.replace(&format!("{id}{SET_ASIDE}"), &bytes)?;
                self.files.remove(&name)?;
                Ok(None)
            }
        }
    }

    /// What is to be done at `now`, in Unix seconds; `channels`: the ways there are.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn next(&mut self, now: u64, channels: &BTreeSet<Channel>) -> io::Result<Next> {
        let mut waiting = self.gathered(now, channels)?;
        waiting.sort_by(|one, other| (one.try_at, &one.id).cmp(&(other.try_at, &other.id)));
        let Some(first) = waiting.into_iter().next() else {
            return Ok(Next::Nothing);
        };
        // A clock that was put back must not silence us.
        let tried_at = self.tried_at()?.filter(|tried_at| *tried_at <= now);
        let earliest = tried_at.map_or(0, |tried_at| tried_at + REPORT_EVERY.as_secs());
        let longest = now.saturating_add(REPORT_PAUSE_MAX.as_secs());
        let at = first.try_at.min(longest).max(earliest);
        Ok(if at <= now {
            Next::Send(Box::new(first))
        } else {
            Next::At(at)
        })
    }

    /// All that wait, after what is too old or too much has gone into the newest.
    fn gathered(&mut self, now: u64, channels: &BTreeSet<Channel>) -> io::Result<Vec<Spooled>> {
        let mut waiting = Vec::new();
        for id in self.ids()? {
            let Some(mut report) = self.get(&id)? else {
                continue;
            };
            // A way that is no longer configured is not waited for.
            report
                .undelivered
                .retain(|channel| channels.contains(channel));
            if report.undelivered.is_empty() {
                self.files.remove(&report.file())?;
            } else {
                waiting.push(report);
            }
        }
        self.drop_oldest(&mut waiting, now)?;
        self.fold(&mut waiting)?;
        Ok(waiting)
    }

    fn drop_oldest(&mut self, waiting: &mut Vec<Spooled>, now: u64) -> io::Result<()> {
        let kept_since = now.saturating_sub(REPORT_KEPT_FOR.as_secs());
        let too_many = waiting.len().saturating_sub(REPORTS_SPOOLED_MAX);
        let too_old = waiting
            .iter()
            .take_while(|report| report.created_at < kept_since);
        let gone = too_many
            .max(too_old.count())
            .min(waiting.len().saturating_sub(1));
        if gone == 0 {
            return Ok(());
        }
        let gone: Vec<Spooled> = waiting.drain(..gone).collect();
        let Some(newest) = waiting.last_mut() else {
            return Ok(());
        };
        for report in &gone {
            // Told already if we died before its file was removed.
            if report.id > newest.dropped_up_to {
                newest.dropped += 1 + report.dropped + report.earlier.len() as u64;
                newest.dropped_up_to.clone_from(&report.id);
            }
        }
        let newest = newest.clone();
        self.write(&newest)?;
        tracing::warn!(
            reports = gone.len(),
            "reports that could not be sent are given up"
        );
        for report in gone {
            self.files.remove(&report.file())?;
        }
        Ok(())
    }

    /// Of the reports of every run, the older ones become lines of the newest.
    fn fold(&mut self, waiting: &mut Vec<Spooled>) -> io::Result<()> {
        let of_every_run = |report: &Spooled| report.occasion == Occasion::Run;
        let Some(newest) = waiting.iter().rposition(of_every_run) else {
            return Ok(());
        };
        let mut newest_report = waiting[newest].clone();
        let mut older = Vec::new();
        waiting.retain(|report| {
            let is_older = of_every_run(report) && report.id != newest_report.id;
            if is_older {
                older.push(report.clone());
            }
            !is_older
        });
        if older.is_empty() {
            return Ok(());
        }
        for report in &older {
            newest_report
                .earlier
                .insert(report.id.clone(), report.line());
            newest_report.earlier.extend(report.earlier.clone());
            newest_report.undelivered.extend(&report.undelivered);
            if report.dropped_up_to > newest_report.dropped_up_to {
                newest_report.dropped += report.dropped;
                newest_report
                    .dropped_up_to
                    .clone_from(&report.dropped_up_to);
            }
        }
        while newest_report.earlier.len() > REPORT_LINES_MAX {
            let Some((id, _)) = newest_report.earlier.pop_first() else {
                break;
            };
            if id > newest_report.dropped_up_to {
                newest_report.dropped += 1;
                newest_report.dropped_up_to = id;
            }
        }
        self.write(&newest_report)?;
        for report in &older {
            self.files.remove(&report.file())?;
        }
        if let Some(report) = waiting
            .iter_mut()
            .find(|report| report.id == newest_report.id)
        {
            *report = newest_report;
        }
        Ok(())
    }

    /// Notes that a report is being tried: the next one waits its minute, also if this one's end is never noted.
    ///
    /// # Errors
    /// The system's; it is then better not tried.
    pub(super) fn begin(&mut self, now: u64) -> io::Result<()> {
        self.files.replace(TRIED, now.to_string().as_bytes())
    }

    fn tried_at(&self) -> io::Result<Option<u64>> {
        let text = self.files.read(TRIED)?;
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Notes that a way has taken a report.
    ///
    /// # Errors
    /// The system's; it may then go that way once more.
    pub(super) fn delivered(&mut self, id: &str, channel: Channel) -> io::Result<()> {
        let Some(mut report) = self.get(id)? else {
            return Ok(());
        };
        report.undelivered.remove(&channel);
        if report.undelivered.is_empty() {
            self.files.remove(&report.file())
        } else {
            self.write(&report)
        }
    }

    /// Notes that a way has not taken a report: it is tried again later.
    ///
    /// # Errors
    /// The system's; it may then be tried again sooner.
    pub(super) fn failed(&mut self, id: &str, now: u64) -> io::Result<()> {
        let Some(mut report) = self.get(id)? else {
            return Ok(());
        };
        report.try_at = now.saturating_add(pause(report.attempts).as_secs());
        report.attempts = report.attempts.saturating_add(1);
        self.write(&report)
    }
}

/// After so many attempts before.
fn pause(attempts: u32) -> Duration {
    REPORT_PAUSE_FIRST
        .saturating_mul(1 << attempts.min(16))
        .min(REPORT_PAUSE_MAX)
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
