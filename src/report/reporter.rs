//! The station's reporter: follows ended runs, has them judged, sends what waits, and answers who asks.
//!
//! Takes the history, the options in force and the ways out; gives summaries, and what became of sending. One for each
//! station, whether it runs or is only open for one `sync`: the station's lock keeps two processes apart. Files are read and
//! written off the runtime. Invariant: nothing is sent while what was told could not be written. Cancel safety: whoever stops
//! it loses nothing; a report that was being handed over may go once more, under the same `Message-ID`. Deliberately absent:
//! the schedule of runs. Worst case: one report a minute, and what the bounds of spool and history allow to be read.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{sleep, timeout};

use super::deciding::{State, last_due, next_due};
use super::desk::{Circumstances, Desk};
use super::files::Folder;
use super::letter::Letter;
use super::options::{Channel, ReportOptions, When};
use super::sending::{Delivery, Outlet};
use super::spool::{Next, Spooled};
use super::summary::{RUNS_SHOWN, StationName, Summary};
use crate::ingest::Ingest;
use crate::limits::HISTORY_RUNS_MAX;
use crate::peer::PeerId;
use crate::sync::{History, HistoryError, RunReport};
use crate::time::Clock;

/// Runs that are read after each run; more only where that is not enough.
const RUNS_READ: usize = 100;
/// A machine that sleeps does not count the time: whatever is due is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// After a failure of our own disk.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What may change while a station runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reporting {
    /// When, to whom, by which ways.
    pub options: ReportOptions,
    /// What the station calls itself.
    pub station: String,
}

/// What a reporter works with.
#[derive(Debug, Clone)]
pub struct ReporterContext {
    /// The station's state folder.
    pub state: PathBuf,
    /// Past runs.
    pub history: History,
    /// The door to the store, for notes.
    pub ingest: Ingest,
    /// Time.
    pub clock: Clock,
    /// What is configured.
    pub reporting: watch::Receiver<Arc<Reporting>>,
    /// The PeerID that others know the station by.
    pub known_as: watch::Receiver<PeerId>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What was told, or what waits.
    #[error("cannot use the reports that wait: {0}")]
    Spool(#[from] io::Error),
    /// No such run.
    #[error("there is no run {0} in the history: constellation history lists them")]
    NoSuchRun(String),
    /// No run at all.
    #[error("there was no run yet: constellation sync makes one")]
    NoRun,
    /// No way out.
    #[error(
        "nothing is configured to send it by: set to and smtp_host, or command, or note_key_file in [report]"
    )]
    NotConfigured,
    /// The station is shutting down.
    #[error("the station is shutting down")]
    Closing,
}

/// What became of one look at what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// A report was tried, by all its ways.
    Tried {
        /// Which.
        id: String,
        /// How each way ended.
        deliveries: Vec<Delivery>,
    },
    /// The next one is not due before this, in Unix seconds.
    NotBefore(u64),
    /// Nothing waits.
    Nothing,
}

/// Tells the captain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter {
    context: ReporterContext,
    outlet: Outlet,
    /// Opened when it is first needed.
    desk: Arc<Mutex<Option<Desk<Folder>>>>,
}

impl Reporter {
    /// A reporter; nothing is read or written yet.
    pub fn new(context: ReporterContext) -> Self {
        let outlet = Outlet {
            ingest: context.ingest.clone(),
            temporary: context.state.join("tmp"),
        };
        Self {
            context,
            outlet,
            desk: Arc::default(),
        }
    }

    /// Notes where the history stands, so that what comes is told, and not what was before anybody asked. To be called
    /// before the first run that is to be told.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn begin(&self) -> Result<(), ReportError> {
        self.at_desk(|_, _| Ok(())).await
    }

    /// Judges the runs that have ended since the last time; says how many reports wait because of them.
    ///
    /// Cancel safety: the work goes on.
    ///
    /// # Errors
    /// [`ReportError`]: nothing is lost, and it is to be tried again.
    pub async fn catch_up(&self) -> Result<usize, ReportError> {
        let (reporting, station) = self.reporting();
        let history = self.context.history.clone();
        self.at_desk(move |desk, now| {
            let mut runs = history.last_runs(RUNS_READ)?;
            if desk.wants_more(&runs) {
                runs = history.last_runs(2 * HISTORY_RUNS_MAX)?;
            }
            let with = Circumstances {
                options: &reporting.options,
                station: &station,
                zone: &TimeZone::system(),
                now,
            };
            Ok(desk.catch_up(&runs, with)?)
        })
        .await
    }

    /// Sends the next report that is due, if one is.
    ///
    /// # Errors
    /// [`ReportError`]: what waits cannot be read or noted. That a report was not taken is no error, but told.
    pub async fn send_next(&self) -> Result<Sent, ReportError> {
        let (reporting, _) = self.reporting();
        let channels = reporting.options.channels();
        let next = self
            .at_desk(move |desk, now| {
                let next = desk.spool().next(now, &channels)?;
                if let Next::Send(_) = next {
                    desk.spool().begin(now)?;
                }
                Ok(next)
            })
            .await?;
        let report = match next {
            Next::Send(report) => report,
            Next::At(at) => return Ok(Sent::NotBefore(at)),
            Next::Nothing => return Ok(Sent::Nothing),
        };
        let mut deliveries = Vec::new();
        for channel in report.undelivered.clone() {
            let delivery = self.deliver(&reporting.options, &report, channel).await;
            let (id, taken) = (report.id.clone(), delivery.error.is_none());
            deliveries.push(delivery);
            if taken {
                self.at_desk(move |desk, _| Ok(desk.spool().delivered(&id, channel)?))
                    .await?;
            }
        }
        if deliveries.iter().any(|delivery| delivery.error.is_some()) {
            let id = report.id.clone();
            self.at_desk(move |desk, now| Ok(desk.spool().failed(&id, now)?))
                .await?;
        }
        let id = report.id.clone();
        Ok(Sent::Tried { id, deliveries })
    }

    async fn deliver(
        &self,
        options: &ReportOptions,
        report: &Spooled,
        channel: Channel,
    ) -> Delivery {
        let earlier: Vec<String> = report.earlier.values().cloned().collect();
        let letter = Letter {
            summary: &report.summary,
            occasion: report.occasion,
            earlier: &earlier,
            dropped: report.dropped,
        };
        let now = self.context.clock.unix_seconds();
        let sent = self
            .outlet
            .send(options, &letter, channel, &report.id, now)
            .await;
        let delivery = Delivery::of(channel, sent);
        match (&delivery.answer, &delivery.error) {
            (_, Some(error)) => {
                tracing::warn!(report = %report.id, way = %channel, "report not sent, it is tried again later: {error}");
            }
            (answer, None) => {
                let answer = answer.as_deref().unwrap_or_default();
                tracing::info!(report = %report.id, way = %channel, answer, "report sent");
            }
        }
        delivery
    }

    /// What is told of a run: that with this id, or the last one.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn summary(&self, run: Option<String>) -> Result<Summary, ReportError> {
        let history = self.context.history.clone();
        let (_, station) = self.reporting();
        let reading = tokio::task::spawn_blocking(move || {
            let runs = history.last_runs(2 * HISTORY_RUNS_MAX)?;
            let place = match run {
                None => runs.len().checked_sub(1).ok_or(ReportError::NoRun)?,
                Some(id) => {
                    let place = runs.iter().rposition(|run| run.run_id == id);
                    place.ok_or(ReportError::NoSuchRun(id))?
                }
            };
            let before: &[RunReport] = &runs[place.saturating_sub(RUNS_SHOWN)..place];
            let run = &runs[place];
            let state = State::of_run(run.outcome);
            Ok(Summary::of_run(run, before, state, &station))
        });
        reading.await.map_err(|_| ReportError::Closing)?
    }

    /// Sends the report of a run now, by all ways that are configured, whatever was told before.
    ///
    /// # Errors
    /// [`ReportError`]; that a way did not take it is told in its delivery.
    pub async fn send_now(&self, run: Option<String>) -> Result<Vec<Delivery>, ReportError> {
        let (reporting, _) = self.reporting();
        let channels = reporting.options.channels();
        if channels.is_empty() {
            return Err(ReportError::NotConfigured);
        }
        let summary = self.summary(run).await?;
        let letter = Letter::asked(&summary);
        let now = self.context.clock.unix_seconds();
        // Asked for twice it is two mails.
        let id = format!("{}-asked-{now}", summary.run_id);
        let mut deliveries = Vec::new();
        for channel in channels {
            let sending = self
                .outlet
                .send(&reporting.options, &letter, channel, &id, now);
            deliveries.push(Delivery::of(channel, sending.await));
        }
        Ok(deliveries)
    }

    /// Judges what ended and sends what is due, within this time; says how many reports wait afterwards.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn finish_within(&self, time: Duration) -> Result<usize, ReportError> {
        self.catch_up().await?;
        let sending = async {
            loop {
                match self.send_next().await {
                    Ok(Sent::Tried { .. }) => {}
                    Ok(Sent::NotBefore(_) | Sent::Nothing) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        // What is cut off is tried again by the next who is there.
        if let Ok(sent) = timeout(time, sending).await {
            sent?;
        }
        self.at_desk(|desk, _| Ok(desk.spool().ids()?.len())).await
    }

    /// Follows `ended`, which changes whenever a run has ended, until it is dropped or nobody is there to change it.
    pub async fn keep_reporting(self, mut ended: watch::Receiver<u64>) {
        let mut reporting = self.context.reporting.clone();
        let mut looks = true;
        loop {
            let wait = self.round(looks).await;
            looks = tokio::select! {
                changed = ended.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    true
                }
                changed = reporting.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    true
                }
                () = sleep(wait.unwrap_or(AGAIN_AFTER)) => wait.is_none() || self.daily_is_due().await,
            };
        }
    }

    /// One look at what ended (if `looks`) and at what waits; how long the next one may wait. `None`: it failed.
    async fn round(&self, looks: bool) -> Option<Duration> {
        if looks && let Err(error) = self.catch_up().await {
            tracing::error!(%error, "reports wait");
            return None;
        }
        match self.send_next().await {
            Err(error) => {
                tracing::error!(%error, "reports wait");
                None
            }
            Ok(Sent::Tried { .. }) => Some(Duration::ZERO),
            Ok(Sent::NotBefore(at)) => Some(self.until(Some(at))),
            Ok(Sent::Nothing) => Some(self.until(None)),
        }
    }

    /// Until this moment, or until the daily report is due.
    fn until(&self, at: Option<u64>) -> Duration {
        let now = self.context.clock.unix_seconds();
        let (reporting, _) = self.reporting();
        let daily = (reporting.options.when == When::Daily)
            .then(|| next_due(reporting.options.digest_at, &TimeZone::system(), now))
            .flatten();
        let next = at.into_iter().chain(daily).min();
        let wait = next.map_or(LOOK_EVERY, |next| {
            Duration::from_secs(next.saturating_sub(now))
        });
        wait.min(LOOK_EVERY)
    }

    async fn daily_is_due(&self) -> bool {
        let (reporting, _) = self.reporting();
        if reporting.options.when != When::Daily {
            return false;
        }
        let at = reporting.options.digest_at;
        let due = move |desk: &mut Desk<Folder>, now| {
            Ok(last_due(at, &TimeZone::system(), now) > desk.daily_at())
        };
        // Where that cannot be known, whoever looks finds out why.
        self.at_desk(due).await.unwrap_or(true)
    }

    fn reporting(&self) -> (Arc<Reporting>, StationName) {
        let reporting = self.context.reporting.borrow().clone();
        let station = StationName {
            name: reporting.station.clone(),
            peer_id: self.context.known_as.borrow().to_string(),
        };
        (reporting, station)
    }

    /// Works at the desk, alone and off the runtime.
    async fn at_desk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk<Folder>, u64) -> Result<T, ReportError> + Send + 'static,
    ) -> Result<T, ReportError> {
        let desk = Arc::clone(&self.desk).lock_owned().await;
        let (folder, history) = (
            self.context.state.join("spool"),
            self.context.history.clone(),
        );
        let now = self.context.clock.unix_seconds();
        let working = tokio::task::spawn_blocking(move || {
            let mut desk: OwnedMutexGuard<Option<Desk<Folder>>> = desk;
            let opened = match desk.take() {
                Some(opened) => opened,
                None => {
                    let newest = history.last_runs(1)?.pop();
                    Desk::open(Folder::at(folder)?, newest.as_ref(), now)?
                }
            };
            work(desk.insert(opened), now)
        });
        working.await.map_err(|_| ReportError::Closing)?
    }
}
