//! Fetching events by id: several requests in flight, each event through ingest as it comes.
//!
//! What a request brings is checked against what was asked before it is offered to ingest: an event that was not
//! asked for is counted and dropped. Every verdict that will hold enters the peer's overlay, so that the id is
//! neither fetched again nor counted as a difference. Bounded: requests in flight, bytes waiting (the conversation
//! stops reading while we store). Worst case: a peer that delivers nothing costs one step deadline.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use constellation_event::{CanonicalKey, EventLimits, Rejection, UnverifiedEvent};
use constellation_eventstore::{NewOverlayEntry, OverlayReason};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr::filter::Filter;

use super::{Tally, Transfer, TransferError};
use crate::ingest::{Origin, Verdict};
use crate::limits::{DOWNLOAD_IDS_PER_REQUEST, DOWNLOADS_IN_FLIGHT, FORGERY_REMEMBERED};
use crate::relay_client::RequestEnd;

/// Events taken from a request at a time.
const EVENTS_PER_BATCH: usize = 200;

/// Fetches `ids` and adds to `tally` what became of them.
///
/// Cancel safety: what was handed to ingest is stored; the tally may then miss the last batch.
///
/// # Errors
/// [`TransferError`]; what was stored before stays stored and counted.
pub async fn download(
    transfer: &Transfer,
    ids: &[[u8; 32]],
    tally: &mut Tally,
) -> Result<(), TransferError> {
    // Requests count as they go: what came before one of them fails is told like everything else.
    let tally = Mutex::new(tally);
    let pulse = Pulse::default();
    let mut waiting = ids.chunks(DOWNLOAD_IDS_PER_REQUEST);
    let mut requests = FuturesUnordered::new();
    loop {
        while requests.len() < DOWNLOADS_IN_FLIGHT {
            match waiting.next() {
                Some(ids) => requests.push(fetch(transfer, ids, &tally, &pulse)),
                None => break,
            }
        }
        match requests.next().await {
            Some(fetched) => fetched?,
            None => return Ok(()),
        }
    }
}

/// What one batch brought.
#[derive(Default)]
struct Fetched {
    delivered: u64,
    outcomes: Vec<Outcome>,
    /// Bad in a way that names no event: counted only.
    nameless: Vec<Rejection>,
}

struct Outcome {
    key: CanonicalKey,
    kind: Option<u16>,
    author: [u8; 32],
    verdict: Verdict,
}

async fn fetch(
    transfer: &Transfer,
    ids: &[[u8; 32]],
    tally: &Mutex<&mut Tally>,
    pulse: &Pulse,
) -> Result<(), TransferError> {
    let mut request = transfer.step(transfer.conversation.fetch(ids)).await?;
    let mut asked: HashSet<[u8; 32]> = ids.iter().copied().collect();
    let filter = transfer.filter();
    let end = loop {
        let mut batch = Vec::new();
        let end = next_batch(transfer, &mut request, &mut batch, pulse).await?;
        let _storing = pulse.storing();
        transfer
            .progress
            .send_modify(|progress| progress.downloaded += batch.len() as u64);
        let fetched = take_batch(transfer, &filter, batch, &mut asked).await?;
        let (enter, too_many_forgeries) = {
            let mut tally = locked(tally);
            let enter = fetched.count(&mut tally, transfer.clock.unix_seconds());
            (enter, tally.too_many_forgeries())
        };
        transfer
            .ingest
            .change_overlay(&transfer.peer, enter, Vec::new())
            .await?;
        // After each batch: a peer that goes on for ever with what nobody asked for is left soon.
        if let Some((forged, delivered)) = too_many_forgeries {
            return Err(TransferError::Forgeries { forged, delivered });
        }
        if let Some(end) = end {
            break end;
        }
    };
    let why_missing = match end {
        RequestEnd::EndOfStored => "undelivered".to_owned(),
        RequestEnd::Closed { text, .. } => format!("request closed: {text}"),
    };
    let mut tally = locked(tally);
    for id in asked {
        tally.leave(id, &why_missing);
    }
    Ok(())
}

fn locked<'l, 't>(tally: &'l Mutex<&'t mut Tally>) -> MutexGuard<'l, &'t mut Tally> {
    // Counting does not panic, and numbers are whole after every line of it.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the next events. While another request of this download gets some, or we are storing what came (and so
/// do not read on), this one's silence is not the peer's.
async fn next_batch(
    transfer: &Transfer,
    request: &mut crate::relay_client::Request,
    batch: &mut Vec<Bytes>,
    pulse: &Pulse,
) -> Result<Option<RequestEnd>, TransferError> {
    loop {
        let heard = pulse.count();
        let waited = tokio::time::timeout(
            transfer.step_deadline,
            request.next_batch(batch, EVENTS_PER_BATCH),
        );
        match waited.await {
            Err(_) if pulse.is_storing() || pulse.count() != heard => {}
            Err(_) => return Err(TransferError::Timeout),
            Ok(Ok(end)) => return Ok(end),
            // What came before the connection broke is stored first; the next call says that it broke.
            Ok(Err(_)) if !batch.is_empty() => return Ok(None),
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

/// Whether a download is alive: how many batches were heard of, and how many are being stored.
#[derive(Default)]
struct Pulse {
    heard: AtomicU64,
    storing: AtomicU64,
}

impl Pulse {
    fn count(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn is_storing(&self) -> bool {
        self.storing.load(Ordering::Relaxed) > 0
    }

    /// A batch has come, and is being stored for as long as the guard lives.
    fn storing(&self) -> Storing<'_> {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.storing.fetch_add(1, Ordering::Relaxed);
        Storing(self)
    }
}

struct Storing<'p>(&'p Pulse);

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.0.heard.fetch_add(1, Ordering::Relaxed);
        self.0.storing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks a batch against what was asked, and offers the rest to ingest.
async fn take_batch(
    transfer: &Transfer,
    filter: &Filter,
    batch: Vec<Bytes>,
    asked: &mut HashSet<[u8; 32]>,
) -> Result<Fetched, TransferError> {
    let limits = EventLimits::default();
    let mut fetched = Fetched::default();
    let mut offered = Vec::with_capacity(batch.len());
    for json in &batch {
        fetched.delivered += 1;
        let event = match UnverifiedEvent::parse(json, &limits) {
            Ok(event) => event,
            Err(reason) => {
                fetched.unreadable(json, reason, asked);
                continue;
            }
        };
        if !asked.remove(&event.id()) {
            fetched.nameless.push(Rejection::OutsideFilter);
        } else if event.matches(filter) {
            offered.push(event);
        } else {
            fetched.settle(&event, Verdict::Rejected(Rejection::OutsideFilter));
        }
    }
    let claims: Vec<Outcome> = offered.iter().map(Outcome::undecided).collect();
    let origin = Origin::Peer {
        scope: transfer.scope.clone(),
    };
    let verdicts = transfer
        .ingest
        .submit(&transfer.source, origin, offered)
        .await?;
    for (mut outcome, verdict) in claims.into_iter().zip(verdicts) {
        outcome.verdict = verdict;
        fetched.outcomes.push(outcome);
    }
    Ok(fetched)
}

impl Outcome {
    fn undecided(event: &UnverifiedEvent) -> Self {
        Self {
            key: event.canonical_key(),
            kind: Some(event.kind()),
            author: *event.author(),
            verdict: Verdict::Duplicate,
        }
    }
}

impl Fetched {
    fn settle(&mut self, event: &UnverifiedEvent, verdict: Verdict) {
        self.outcomes.push(Outcome {
            verdict,
            ..Outcome::undecided(event)
        });
    }

    /// JSON that is no event: if it at least says which one it is, that one is not asked for again.
    fn unreadable(&mut self, json: &[u8], reason: Rejection, asked: &mut HashSet<[u8; 32]>) {
        match UnverifiedEvent::claimed_identity(json) {
            Some(claim) if asked.remove(&claim.id) => self.outcomes.push(Outcome {
                key: CanonicalKey {
                    created_at: claim.created_at,
                    id: claim.id,
                },
                kind: None,
                author: [0; 32],
                verdict: Verdict::Rejected(reason),
            }),
            _ => self.nameless.push(reason),
        }
    }

    /// Adds everything to the tally; gives what is to be remembered about the peer.
    fn count(self, tally: &mut Tally, now: u64) -> Vec<NewOverlayEntry> {
        tally.downloaded += self.delivered;
        let mut enter = Vec::new();
        for outcome in self.outcomes {
            match outcome.verdict {
                Verdict::Stored => {
                    tally.stored += 1;
                    tally.authors.insert(outcome.author);
                    if let Some(kind) = outcome.kind {
                        *tally.by_kind.entry(kind).or_default() += 1;
                    }
                }
                Verdict::Duplicate => tally.duplicates += 1,
                // No forgery (strfry stores and lists ephemeral events for minutes), but nothing to keep either:
                // remembered like what is outside the filter, until the peer lists it no more.
                Verdict::Ephemeral => {
                    tally.reject(Rejection::OutOfScope);
                    enter.push(remembered(&outcome, Rejection::OutsideFilter, now));
                }
                Verdict::Rejected(reason) => {
                    tally.reject(reason);
                    enter.push(remembered(&outcome, reason, now));
                }
            }
        }
        for reason in self.nameless {
            tally.reject(reason);
        }
        enter
    }
}

/// What follows from the event's content is remembered for good, what the peer did to it for a while.
fn remembered(outcome: &Outcome, reason: Rejection, now: u64) -> NewOverlayEntry {
    let holds_for_good = reason.is_global() || reason == Rejection::Protected;
    NewOverlayEntry {
        key: outcome.key,
        reason: OverlayReason::Refused(reason),
        // What the peer lists for a filter that it does not match counts as listed under any.
        kind: outcome.kind.filter(|_| reason != Rejection::OutsideFilter),
        expires_at: (!holds_for_good).then(|| now + FORGERY_REMEMBERED.as_secs()),
    }
}
