//! Offering events: many under way, every OK read as it comes, counted by its prefix, and remembered.
//!
//! An event counts as uploaded only when the peer says `OK true`, or that it is a duplicate. What the peer refuses
//! enters its overlay for a while, unless the refusal is a matter of the moment: `rate-limited:` makes a pause, and
//! the event is offered again, a bounded number of times. A version of an address that was refused while the peer took
//! deletions is offered once more at the end: a deletion may have taken what stood above it. How many are under way follows from the delay of OKs, so
//! neither the round trip nor a slow peer matters. Takes findings in their order while they grow. Bounded: events and
//! bytes under way and read ahead, attempts, pauses. Worst case: a peer that never answers costs one step deadline.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use constellation_event::{CanonicalKey, KindClass};
use constellation_eventstore::{NewOverlayEntry, OverlayReason};
use constellation_reconcile::Item;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::memory::Memory;
use super::window::Window;
use super::{Findings, Tally, Transfer, TransferError, off_runtime};
use crate::limits::{
    ANSWER_LATE, AUTH_REFUSALS_MAX, ERROR_REMEMBERED, EVENT_ENVELOPE_BYTES, LEARNT_REMEMBERED,
    OFFERED_MAX, PAUSE_FIRST, PAUSE_MAX, PAUSES_MAX, POLICY_REMEMBERED, TOO_LARGE_REMEMBERED,
    UPLOAD_BYTES_IN_FLIGHT, UPLOADS_FIRST, UPLOADS_IN_FLIGHT, UPLOADS_LEAST,
};
use crate::protocol::ReasonPrefix;
use crate::relay_client::{ConversationError, Publication, PublishError};

const KIND_DELETION: u16 = 5;

/// Events read from the store at a time, and their bytes.
const READ_AT_ONCE: usize = 1_000;
const READ_BYTES_AT_ONCE: usize = 2 << 20;

/// Offers what is found until nothing more will be, and counts what the peer answered.
///
/// Cancel safety: what the peer took it has; the tally may then miss the last answers.
///
/// # Errors
/// [`TransferError`]; what was counted before stays counted.
pub(super) async fn upload(
    transfer: &Transfer,
    findings: &Findings,
    tally: &Mutex<&mut Tally>,
) -> Result<(), TransferError> {
    let mut upload = Upload {
        transfer,
        findings,
        tally,
        window: Window::new(UPLOADS_FIRST, UPLOADS_LEAST, UPLOADS_IN_FLIGHT, ANSWER_LATE),
        next: 0,
        reading: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        answers: FuturesUnordered::new(),
        bytes: 0,
        pause: Duration::ZERO,
        pauses: 0,
        auth_refusals: 0,
        paused_until: None,
        is_stale: false,
        took_deletions: false,
        versions_refused: Vec::new(),
        again: Vec::new(),
        memory: Memory::new(transfer),
    };
    let ended = upload.run().await;
    upload.judge_versions();
    let remembered = upload.memory.written().await;
    ended.and(remembered)
}

struct Upload<'t, 'c> {
    transfer: &'t Transfer,
    findings: &'t Findings,
    tally: &'t Mutex<&'c mut Tally>,
    window: Window,
    /// Place of the next event that was not read yet.
    next: usize,
    /// One at most.
    reading: FuturesUnordered<BoxFuture<'t, Result<Read, TransferError>>>,
    waiting: VecDeque<Offer>,
    answers: FuturesUnordered<BoxFuture<'t, (Offer, Result<Publication, TransferError>)>>,
    /// Bytes under way.
    bytes: usize,
    pause: Duration,
    /// Pauses since the peer last took something.
    pauses: u32,
    /// `auth-required:` answers before it took anything.
    auth_refusals: u32,
    paused_until: Option<Instant>,
    /// What waits was read before a pause: it may be gone by now.
    is_stale: bool,
    /// The peer took a deletion.
    took_deletions: bool,
    /// Versions of addresses that it refused, and why: most likely for a newer one that it had.
    versions_refused: Vec<(CanonicalKey, u16, ReasonPrefix)>,
    /// Those that are read to be offered once more; nothing else is left then.
    again: Vec<Item>,
    memory: Memory<'t>,
}

/// What was read: events, and how many items they were read for.
struct Read {
    offers: Vec<Offer>,
    items: usize,
}

struct Offer {
    key: CanonicalKey,
    kind: u16,
    json: String,
    /// How often it was offered before.
    offered: u8,
    since: Instant,
}

impl<'c> Upload<'_, 'c> {
    fn tally(&self) -> MutexGuard<'_, &'c mut Tally> {
        // Counting does not panic, and numbers are whole after every line of it.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&mut self) -> Result<(), TransferError> {
        let mut found = self.findings.watch();
        loop {
            let now = Instant::now();
            self.read_ahead(now);
            self.offer(now);
            if self.is_done() {
                if !self.begins_again() {
                    return Ok(());
                }
                continue;
            }
            let paused = self.paused_until.filter(|until| *until > now);
            tokio::select! {
                biased;
                Some((offer, answer)) = self.answers.next() => {
                    self.take(offer, &answer?);
                    while let Some(Some((offer, answer))) = self.answers.next().now_or_never() {
                        self.take(offer, &answer?);
                    }
                }
                Some(read) = self.reading.next() => self.take_read(read?),
                written = self.memory.written(), if !self.memory.is_idle() => written?,
                Ok(()) = found.changed() => {}
                () = sleep_until(paused.unwrap_or(now)), if paused.is_some() => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        let found = self.findings.found();
        found.over
            && self.next >= found.have
            && self.again.is_empty()
            && self.reading.is_empty()
            && self.waiting.is_empty()
            && self.answers.is_empty()
    }

    /// Reads the next events while those before them are under way: no more than will soon be. What is read and not yet
    /// offered when it is deleted or blocked would still go out.
    fn read_ahead(&mut self, now: Instant) {
        if !self.reading.is_empty() || self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        let transfer = self.transfer;
        if std::mem::take(&mut self.is_stale) && !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            self.reading
                .push(Box::pin(async move { read_again(transfer, waiting).await }));
            return;
        }
        let ahead = self.window.size().min(READ_AT_ONCE);
        if self.waiting.len() >= ahead {
            return;
        }
        if self.gives_up() {
            let rest = self.findings.haves(self.next, usize::MAX);
            self.next += rest.len();
            for item in rest.into_iter().chain(std::mem::take(&mut self.again)) {
                self.tally().hold_back(item.id, NOT_OFFERED);
            }
            return;
        }
        let items = if self.again.is_empty() {
            self.findings.haves(self.next, ahead)
        } else {
            self.again[..self.again.len().min(ahead)].to_vec()
        };
        if items.is_empty() {
            return;
        }
        self.reading
            .push(Box::pin(async move { read(transfer, items).await }));
    }

    fn take_read(&mut self, read: Read) {
        if self.again.is_empty() {
            self.next += read.items;
        } else {
            self.again.drain(..read.items);
        }
        let gives_up = self.gives_up();
        for offer in read.offers {
            let (id, mut tally) = (offer.key.id, self.tally());
            if tally.held_back.contains(&id) {
                continue;
            }
            // A relay hangs up on a message over its limit: such an event would cost all that come after it, in
            // every run. It is reported once, and then a refusal like others.
            let message_bytes = offer.json.len() + EVENT_ENVELOPE_BYTES;
            if !self.transfer.limits.takes(message_bytes) {
                tally.name_refused(id, "larger than the messages that the peer takes");
                let now = self.transfer.clock.unix_seconds();
                let prefix = ReasonPrefix::TooLarge;
                let entry = refused(&mut tally, offer.key, offer.kind, prefix, now);
                let stated = self.transfer.limits.stated_message_bytes;
                let is_stated = stated.is_some_and(|bytes| message_bytes > bytes);
                // What was only found out may have been something else.
                let entry = entry.map(|entry| NewOverlayEntry {
                    expires_at: if is_stated {
                        entry.expires_at
                    } else {
                        Some(now + LEARNT_REMEMBERED.as_secs())
                    },
                    ..entry
                });
                drop(tally);
                self.memory.enter(entry);
            } else if gives_up {
                tally.hold_back(id, NOT_OFFERED);
            } else {
                drop(tally);
                self.waiting.push_back(offer);
            }
        }
    }

    fn offer(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        while self.answers.len() < self.window.size()
            && (self.bytes < UPLOAD_BYTES_IN_FLIGHT || self.answers.is_empty())
            && let Some(mut offer) = self.waiting.pop_front()
        {
            offer.since = now;
            self.bytes += offer.json.len();
            self.answers.push(Box::pin(publish(self.transfer, offer)));
        }
    }

    fn take(&mut self, offer: Offer, publication: &Publication) {
        let now = Instant::now();
        // Of those that were on their way together.
        let full = self.answers.len() + 1 >= self.window.size() / 2;
        self.bytes -= offer.json.len();
        let delay = now.saturating_duration_since(offer.since);
        if publication.prefix == ReasonPrefix::RateLimited && !publication.accepted {
            return self.slow_down(offer, now);
        }
        self.window.answered(1, delay, full, now);
        self.transfer
            .progress
            .send_modify(|progress| progress.uploaded += 1);
        if publication.accepted || publication.prefix == ReasonPrefix::Duplicate {
            (self.pause, self.pauses) = (Duration::ZERO, 0);
            self.took_deletions |= offer.kind == KIND_DELETION;
            let mut tally = self.tally();
            tally.uploaded += 1;
            if let Some(taken) = &mut tally.taken {
                taken.insert(offer.key.id, offer.key.created_at);
            }
        } else if publication.prefix != ReasonPrefix::AuthRequired && has_address(offer.kind) {
            let refused = (offer.key, offer.kind, publication.prefix);
            self.versions_refused.push(refused);
        } else {
            let now = self.transfer.clock.unix_seconds();
            let entry = refused(
                &mut self.tally(),
                offer.key,
                offer.kind,
                publication.prefix,
                now,
            );
            self.memory.enter(entry);
            if publication.prefix == ReasonPrefix::AuthRequired && self.tally().uploaded == 0 {
                self.auth_refusals += 1;
                self.hold_back_if_in_vain();
            }
        }
    }

    /// Once all is answered: what was refused before the peer took a deletion is to be offered once more. No deletion is
    /// left to be taken then.
    fn begins_again(&mut self) -> bool {
        if !std::mem::take(&mut self.took_deletions) || self.versions_refused.is_empty() {
            return false;
        }
        let refused = self.versions_refused.drain(..);
        self.again = refused
            .map(|(key, _, _)| Item {
                timestamp: key.created_at,
                id: key.id,
            })
            .collect();
        let count = self.again.len() as u64;
        self.transfer
            .progress
            .send_modify(|progress| progress.uploaded = progress.uploaded.saturating_sub(count));
        true
    }

    /// What was refused for good, as far as anybody can tell.
    fn judge_versions(&mut self) {
        let versions = std::mem::take(&mut self.versions_refused);
        if self.took_deletions {
            return;
        }
        let now = self.transfer.clock.unix_seconds();
        for (key, kind, prefix) in versions {
            let entry = refused(&mut self.tally(), key, kind, prefix, now);
            self.memory.enter(entry);
        }
    }

    /// The peer says that this was too fast: a pause, fewer at a time, and the event once more.
    fn slow_down(&mut self, mut offer: Offer, now: Instant) {
        if self.paused_until.is_none_or(|until| until <= now) {
            self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
            self.paused_until = Some(now + self.pause);
            self.pauses += 1;
            self.is_stale = true;
            self.window.shrink(now);
        }
        offer.offered += 1;
        if offer.offered < OFFERED_MAX && !self.gives_up() {
            // First in the line: then few are refused more than once.
            self.waiting.push_front(offer);
            return;
        }
        self.transfer
            .progress
            .send_modify(|progress| progress.uploaded += 1);
        let mut tally = self.tally();
        *tally
            .refused_by_peer
            .entry(ReasonPrefix::RateLimited)
            .or_default() += 1;
        let why = format!("refused by the peer: {}", ReasonPrefix::RateLimited);
        tally.hold_back(offer.key.id, &why);
        drop(tally);
        self.hold_back_if_in_vain();
    }

    fn hold_back_if_in_vain(&mut self) {
        if self.gives_up() {
            for offer in std::mem::take(&mut self.waiting) {
                self.tally().hold_back(offer.key.id, NOT_OFFERED);
            }
        }
    }

    /// Pause after pause, or asking who we are, it took nothing: the rest is for the next run.
    fn gives_up(&self) -> bool {
        self.pauses > PAUSES_MAX || self.auth_refusals >= AUTH_REFUSALS_MAX
    }
}

const NOT_OFFERED: &str = "not offered: the peer takes nothing for now";

/// Reads the next events, up to a bound of bytes. Those that are gone or were blocked meanwhile need no upload.
async fn read(transfer: &Transfer, items: Vec<Item>) -> Result<Read, TransferError> {
    let store = transfer.ingest.store().clone();
    let since = Instant::now();
    off_runtime(move || {
        let snapshot = store.snapshot()?;
        let mut offers = Vec::with_capacity(items.len());
        let mut bytes = 0;
        let mut taken = 0;
        for item in items {
            taken += 1;
            let found = snapshot.by_id(&item.id)?;
            let Some(record) = found.filter(|record| !record.is_hidden()) else {
                continue;
            };
            bytes += record.json().len();
            offers.push(Offer {
                key: CanonicalKey {
                    created_at: item.timestamp,
                    id: item.id,
                },
                kind: record.kind(),
                json: record.json().to_owned(),
                offered: 0,
                since,
            });
            if bytes >= READ_BYTES_AT_ONCE {
                break;
            }
        }
        Ok(Read {
            offers,
            items: taken,
        })
    })
    .await
}

/// Reads once more what waited for long; keeps how often each was offered.
async fn read_again(transfer: &Transfer, waiting: VecDeque<Offer>) -> Result<Read, TransferError> {
    let offered: HashMap<[u8; 32], u8> = waiting
        .iter()
        .map(|offer| (offer.key.id, offer.offered))
        .collect();
    let mut items: VecDeque<Item> = waiting
        .iter()
        .map(|offer| Item {
            timestamp: offer.key.created_at,
            id: offer.key.id,
        })
        .collect();
    let mut offers = Vec::with_capacity(items.len());
    while !items.is_empty() {
        let part = read(transfer, items.iter().copied().collect()).await?;
        items.drain(..part.items);
        offers.extend(part.offers);
    }
    for offer in &mut offers {
        offer.offered = offered.get(&offer.key.id).copied().unwrap_or_default();
    }
    // They were counted when they were read for the first time.
    Ok(Read { offers, items: 0 })
}

/// Whether newer events of this kind replace older ones (NIP-01).
fn has_address(kind: u16) -> bool {
    KindClass::of(kind).has_coordinate()
}

async fn publish(transfer: &Transfer, offer: Offer) -> (Offer, Result<Publication, TransferError>) {
    let answer = transfer.line().offer(offer.key.id, &offer.json).await;
    (offer, answer)
}

impl From<PublishError> for TransferError {
    fn from(error: PublishError) -> Self {
        Self::Conversation(match error {
            PublishError::Conversation(error) => error,
            // One exchange uploads over one conversation, each event once at a time, below the conversation's bound.
            PublishError::AlreadyInFlight | PublishError::TooManyInFlight => {
                ConversationError::Finished
            }
        })
    }
}

/// Counts a refusal; gives what is to be remembered of it.
fn refused(
    tally: &mut Tally,
    key: CanonicalKey,
    kind: u16,
    prefix: ReasonPrefix,
    now: u64,
) -> Option<NewOverlayEntry> {
    *tally.refused_by_peer.entry(prefix).or_default() += 1;
    // It says nothing about the event: it is offered again in the next run.
    if prefix == ReasonPrefix::AuthRequired {
        let why = format!("refused by the peer: {}", prefix);
        tally.hold_back(key.id, &why);
        return None;
    }
    let remembered = match prefix {
        // Some relays answer so to what they will never take, others when their disk is full.
        ReasonPrefix::Error => ERROR_REMEMBERED,
        ReasonPrefix::TooLarge => TOO_LARGE_REMEMBERED,
        _ => POLICY_REMEMBERED,
    };
    tally.refused_now.insert(key.id);
    Some(NewOverlayEntry {
        key,
        reason: OverlayReason::RefusedBy(prefix.code()),
        kind: Some(kind),
        expires_at: Some(now + remembered.as_secs()),
        author: None,
    })
}
