//! Reading JSON lines into the store.
//!
//! A line that is no event, or does not verify, is counted and named by its number; all others go on. Duplicates,
//! superseded, deleted and expired events are no failures. Several submissions are in flight, so that reading,
//! verifying and committing overlap. Bounded: a line over the limit is skipped without being held in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use constellation_event::{EventLimits, Rejection, UnverifiedEvent};
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::ingest::{Ingest, IngestError, Lane, Origin, Source, Verdict};
use crate::limits::INGEST_BULK_BYTES;

/// Events submitted together.
const BATCH_EVENTS: usize = 500;
/// Bytes submitted together, so that large events do not fill the memory.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes in flight: as much as ingest has room for.
const BYTES_IN_FLIGHT: usize = INGEST_BULK_BYTES;
/// After this the input is said to pause.
const INPUT_PAUSES: Duration = Duration::from_millis(100);
/// Rejected lines named in the report; the rest is counted.
const LINES_NAMED_MAX: usize = 1_000;

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLine {
    /// Counted from 1.
    pub line: u64,
    /// Why.
    pub reason: Rejection,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImportReport {
    /// Lines read, empty ones left out.
    pub lines: u64,
    /// Events that are in the store now and were not before.
    pub stored: u64,
    /// Events that were there already, or twice in the input.
    pub duplicates: u64,
    /// Events that are not stored, by reason.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Lines that are no genuine, acceptable event; at most 1,000 are named.
    pub rejected_lines: Vec<RejectedLine>,
}

/// Why an import broke off. What was acknowledged until then is stored.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Input(std::io::Error),
    /// The store does not take any more.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl ImportReport {
    /// Lines that are no event, do not verify, or may not be stored. Superseded, deleted, expired and blocked ones are
    /// not among them: they were genuine, and the store rightly does without them.
    pub fn failed_lines(&self) -> u64 {
        self.rejected
            .iter()
            .filter(|(reason, _)| is_failure(**reason))
            .map(|(_, count)| count)
            .sum()
    }

    fn reject(&mut self, line: u64, reason: Rejection) {
        *self.rejected.entry(reason).or_default() += 1;
        if is_failure(reason) && self.rejected_lines.len() < LINES_NAMED_MAX {
            self.rejected_lines.push(RejectedLine { line, reason });
        }
    }
}

fn is_failure(reason: Rejection) -> bool {
    !matches!(
        reason,
        Rejection::Superseded | Rejection::Deleted | Rejection::Expired | Rejection::Blocked
    )
}

/// Imports until the end of `input`. `progress` is told the number of lines settled so far.
///
/// Cancel safety: what was submitted is stored.
///
/// # Errors
/// [`ImportError`].
pub async fn import(
    ingest: &Ingest,
    input: &mut (impl AsyncBufRead + Unpin + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<ImportReport, ImportError> {
    let mut report = ImportReport::default();
    let source = ingest.source(Lane::Bulk);
    let mut more = None;
    let mut in_flight = FuturesOrdered::new();
    let mut lines = Lines {
        input,
        line: Vec::new(),
        is_given: true,
        too_long: false,
        any: false,
        number: 0,
    };
    let limits = EventLimits::default();
    let mut batch: Vec<UnverifiedEvent> = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let (mut bytes, mut bytes_in_flight) = (0, 0);
    loop {
        // Wait for the input and for verdicts at once: submissions must go on while the input pauses.
        let line = loop {
            if let Some(line) = lines.next(limits.bytes_max).now_or_never() {
                break line;
            }
            tokio::select! {
                biased;
                line = lines.next(limits.bytes_max) => break line,
                Some(settled) = in_flight.next() => {
                    bytes_in_flight -= settle(&mut report, settled?);
                    progress(report.lines);
                }
                // Nobody else's commits are to wait for an input that pauses.
                () = tokio::time::sleep(INPUT_PAUSES), if more.is_some() => drop(more.take()),
            }
        };
        let line = line.map_err(ImportError::Input)?;
        let ended = line.is_none();
        match line {
            Some((number, Ok(()))) => {
                report.lines += 1;
                match UnverifiedEvent::parse(lines.text(), &limits) {
                    Ok(event) => {
                        bytes += event.bytes();
                        batch.push(event);
                        numbers.push(number);
                    }
                    Err(reason) => report.reject(number, reason),
                }
            }
            Some((number, Err(reason))) => {
                report.lines += 1;
                report.reject(number, reason);
            }
            None => {}
        }
        let is_full = batch.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES;
        if is_full || (ended && !batch.is_empty()) {
            let (events, numbers) = (std::mem::take(&mut batch), std::mem::take(&mut numbers));
            bytes_in_flight += bytes;
            in_flight.push_back(submit(ingest, &source, events, numbers, bytes));
            bytes = 0;
            more.get_or_insert_with(|| ingest.bulk_stream());
        }
        if ended {
            drop(more.take());
        }
        loop {
            // Also where there is no need to wait: it is what sets the submissions going.
            let must_wait = ended || bytes_in_flight >= BYTES_IN_FLIGHT;
            let settled = if must_wait {
                in_flight.next().await
            } else if is_full {
                in_flight.next().now_or_never().flatten()
            } else {
                None
            };
            let Some(settled) = settled else { break };
            bytes_in_flight -= settle(&mut report, settled?);
            progress(report.lines);
        }
        if ended {
            report.rejected_lines.sort_by_key(|rejected| rejected.line);
            return Ok(report);
        }
    }
}

async fn submit(
    ingest: &Ingest,
    source: &Source,
    events: Vec<UnverifiedEvent>,
    numbers: Vec<u64>,
    bytes: usize,
) -> Result<(Vec<(u64, Verdict)>, usize), IngestError> {
    let verdicts = ingest.submit(source, Origin::Import, events).await?;
    Ok((numbers.into_iter().zip(verdicts).collect(), bytes))
}

/// Counts verdicts; gives the bytes of what they are about.
fn settle(report: &mut ImportReport, (settled, bytes): (Vec<(u64, Verdict)>, usize)) -> usize {
    for (line, verdict) in settled {
        match verdict {
            Verdict::Stored => report.stored += 1,
            Verdict::Duplicate => report.duplicates += 1,
            // Nothing keeps it, so importing it was in vain.
            Verdict::Ephemeral => report.reject(line, Rejection::OutOfScope),
            Verdict::Rejected(reason) => report.reject(line, reason),
            // The captain's own hand asks no policy.
            Verdict::Undecided | Verdict::Postponed => report.reject(line, Rejection::WritePolicy),
        }
    }
    bytes
}

struct Lines<'i, R> {
    input: &'i mut R,
    line: Vec<u8>,
    /// The line was given, or there is none yet: the next byte begins another.
    is_given: bool,
    too_long: bool,
    any: bool,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<'_, R> {
    /// The line that was given last.
    fn text(&self) -> &[u8] {
        self.line.trim_ascii()
    }

    /// Goes to the next line that is not empty, and gives its number; too long ones are read over. Cancel safe: what was read of a
    /// line stays here.
    async fn next(
        &mut self,
        bytes_max: usize,
    ) -> std::io::Result<Option<(u64, Result<(), Rejection>)>> {
        loop {
            if std::mem::take(&mut self.is_given) {
                self.line.clear();
                (self.too_long, self.any) = (false, false);
            }
            loop {
                let available = self.input.fill_buf().await?;
                if available.is_empty() {
                    break;
                }
                self.any = true;
                let end = available.iter().position(|byte| *byte == b'\n');
                let piece = &available[..end.unwrap_or(available.len())];
                self.too_long |= self.line.len() + piece.len() > bytes_max;
                if !self.too_long {
                    self.line.extend_from_slice(piece);
                }
                let consumed = end.map_or(available.len(), |end| end + 1);
                self.input.consume(consumed);
                if end.is_some() {
                    break;
                }
            }
            self.is_given = true;
            if !self.any {
                return Ok(None);
            }
            self.number += 1;
            if self.too_long {
                return Ok(Some((self.number, Err(Rejection::TooLarge))));
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((self.number, Ok(()))));
            }
        }
    }
}
