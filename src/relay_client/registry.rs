//! Who waits for what in a conversation. Shared by the handles and the driver.
//!
//! Invariant: everything registered here is bounded by the limits, is withdrawn by its owner's drop, and is
//! dropped (so that its owner wakes) when the conversation ends; nothing can be registered after that.
//! The lock is held for look-ups only, never over a wait.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::conversation::{ConversationCounters, ConversationError, ConversationLimits};
use super::negotiation::NegReply;
use super::publication::Publication;
use super::request::Delivery;

/// Notices that are kept, and characters of each (and of any reason that a relay gives).
const NOTICES_MAX: usize = 16;
const TEXT_CHARS_MAX: usize = 512;

/// State that handles and driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: ConversationLimits,
    pub(super) counters: Counters,
    /// Wakes the writer: [`Registry::closes`] has something.
    pub(super) closes_waiting: Notify,
    /// Counts notices.
    pub(super) notices_heard: watch::Sender<u64>,
    /// The relay's last challenge (NIP-42).
    pub(super) challenge: watch::Sender<Option<String>>,
    registry: Mutex<Registry>,
    request_slots: Arc<Semaphore>,
    event_bytes: Arc<Semaphore>,
    outgoing_bytes: Arc<Semaphore>,
    numbers: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) largest_lately: LargestLately,
    pub(super) events: AtomicU64,
    pub(super) unsolicited: AtomicU64,
    pub(super) garbage: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> ConversationCounters {
        ConversationCounters {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            largest_lately: self.largest_lately.now(Instant::now()),
            events: self.events.load(Ordering::Relaxed),
            unsolicited: self.unsolicited.load(Ordering::Relaxed),
            garbage: self.garbage.load(Ordering::Relaxed),
        }
    }
}

/// How long a message counts as sent lately: whoever hangs up because of it does so within that.
const LATELY: Duration = Duration::from_secs(5);

/// The largest message that was sent lately: between once and twice [`LATELY`] ago at the earliest.
#[derive(Debug, Default)]
pub(super) struct LargestLately(Mutex<Largest>);

#[derive(Debug, Default)]
struct Largest {
    since: Option<Instant>,
    now: usize,
    before: usize,
}

impl LargestLately {
    pub(super) fn sent(&self, bytes: usize, now: Instant) {
        let mut largest = self.turned(now);
        largest.now = largest.now.max(bytes);
    }

    fn now(&self, now: Instant) -> usize {
        let largest = self.turned(now);
        largest.now.max(largest.before)
    }

    fn turned(&self, now: Instant) -> MutexGuard<'_, Largest> {
        // Three numbers, whole after every line.
        let mut largest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *largest.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= LATELY {
            let is_over = passed >= LATELY * 2;
            largest.before = if is_over { 0 } else { largest.now };
            (largest.now, largest.since) = (0, Some(now));
        }
        largest
    }
}

/// Adds to a counter; gives the new value.
pub(super) fn count(counter: &AtomicU64, more: usize) -> u64 {
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    counter
        .fetch_add(more, Ordering::Relaxed)
        .saturating_add(more)
}

/// What a queued message belongs to: it is not written when that is gone by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Request(u64),
    Publication(u64, [u8; 32]),
    Negotiation(u64),
}

/// Whether EOSE ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// It does.
    UntilStored,
    /// It does not: what is new is wanted too.
    Standing,
}

#[derive(Debug)]
pub(super) struct RequestEntry {
    pub(super) deliveries: mpsc::Sender<Delivery>,
    lasting: Lasting,
    /// Given back when the relay has been told CLOSE, so that we never exceed what it allows.
    slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct PublicationEntry {
    number: u64,
    answer: oneshot::Sender<Publication>,
}

/// The state of the one negentropy session.
#[derive(Debug, Default)]
pub(super) struct NegotiationEntry {
    /// Its number at the relay.
    pub(super) number: u64,
    /// The relay may know it, and so has to be told NEG-CLOSE.
    pub(super) open: bool,
    /// The message that is to be answered has been written.
    pub(super) written: bool,
    /// The relay has answered NEG-OPEN.
    pub(super) confirmed: bool,
    /// Who waits for the answer.
    pub(super) answer: Option<oneshot::Sender<NegReply>>,
}

/// A CLOSE or NEG-CLOSE to be written, and the slot that becomes free by it.
#[derive(Debug)]
pub(super) struct PendingClose {
    pub(super) text: String,
    _slot: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) ended: Option<ConversationError>,
    pub(super) notices: VecDeque<String>,
    pub(super) negotiation: Option<NegotiationEntry>,
    requests: HashMap<u64, RequestEntry>,
    publications: HashMap<[u8; 32], PublicationEntry>,
    closes: Vec<PendingClose>,
}

impl Shared {
    pub(super) fn new(limits: ConversationLimits) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(clamp(permits)));
        Self {
            limits,
            counters: Counters::default(),
            closes_waiting: Notify::new(),
            notices_heard: watch::Sender::default(),
            challenge: watch::Sender::default(),
            registry: Mutex::default(),
            request_slots: semaphore(limits.requests_max),
            event_bytes: semaphore(limits.event_bytes_queued_max),
            outgoing_bytes: semaphore(limits.outgoing_bytes_max),
            numbers: AtomicU64::new(1),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        // No code under this lock can panic half-way through a change.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that this conversation has not used: it names subscriptions and tells publications apart.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the conversation has ended.
    pub(super) fn reason(&self) -> ConversationError {
        self.lock()
            .ended
            .clone()
            .unwrap_or(ConversationError::Finished)
    }

    pub(super) async fn request_slot(&self) -> OwnedSemaphorePermit {
        permits(&self.request_slots, 1, 1).await
    }

    pub(super) async fn event_room(&self, bytes: usize) -> OwnedSemaphorePermit {
        permits(&self.event_bytes, bytes, self.limits.event_bytes_queued_max).await
    }

    pub(super) async fn outgoing_room(&self, bytes: usize) -> OwnedSemaphorePermit {
        permits(&self.outgoing_bytes, bytes, self.limits.outgoing_bytes_max).await
    }

    /// Ends the conversation for everybody; the first reason stays.
    pub(super) fn end(&self, reason: ConversationError) {
        let mut registry = self.lock();
        let notices = std::mem::take(&mut registry.notices);
        let ended = registry.ended.take().or(Some(reason));
        let emptied = Registry {
            ended,
            notices,
            ..Registry::default()
        };
        let waiters = std::mem::replace(&mut *registry, emptied);
        drop(registry);
        // Outside the lock: this wakes the waiters, who will ask for the reason.
        drop(waiters);
    }

    /// Withdraws a request: the relay is told, unless it has never heard of it.
    pub(super) fn abandon_request(&self, number: u64, queued: bool) {
        let mut registry = self.lock();
        if let Some(entry) = registry.requests.remove(&number)
            && queued
        {
            registry.close_request(number, entry);
            self.closes_waiting.notify_one();
        }
    }

    /// Ends the session that the relay knows, if any.
    pub(super) fn close_negotiation(&self, registry: &mut Registry) {
        if let Some(entry) = registry.negotiation.as_mut()
            && std::mem::take(&mut entry.open)
        {
            let text =
                crate::protocol::client_message::encode_neg_close(&negotiation_name(entry.number));
            registry.closes.push(PendingClose { text, _slot: None });
            self.closes_waiting.notify_one();
        }
    }
}

impl Registry {
    pub(super) fn still_on(&self) -> Result<(), ConversationError> {
        self.ended.clone().map_or(Ok(()), Err)
    }

    pub(super) fn add_request(
        &mut self,
        number: u64,
        deliveries: mpsc::Sender<Delivery>,
        slot: OwnedSemaphorePermit,
        lasting: Lasting,
    ) -> Result<(), ConversationError> {
        self.still_on()?;
        let entry = RequestEntry {
            deliveries,
            lasting,
            slot,
        };
        self.requests.insert(number, entry);
        Ok(())
    }

    /// Who takes the events of a request that EOSE does not end.
    pub(super) fn standing(&self, number: u64) -> Option<mpsc::Sender<Delivery>> {
        self.requests
            .get(&number)
            .filter(|entry| entry.lasting == Lasting::Standing)
            .map(|entry| entry.deliveries.clone())
    }

    pub(super) fn deliveries_of(&self, number: u64) -> Option<mpsc::Sender<Delivery>> {
        self.requests
            .get(&number)
            .map(|entry| entry.deliveries.clone())
    }

    pub(super) fn remove_request(&mut self, number: u64) -> Option<RequestEntry> {
        self.requests.remove(&number)
    }

    /// Has CLOSE written, and the slot freed by that.
    pub(super) fn close_request(&mut self, number: u64, entry: RequestEntry) {
        let text = crate::protocol::client_message::encode_close(&request_name(number));
        self.closes.push(PendingClose {
            text,
            _slot: Some(entry.slot),
        });
    }

    pub(super) fn take_closes(&mut self) -> Vec<PendingClose> {
        std::mem::take(&mut self.closes)
    }

    pub(super) fn publications_in_flight(&self) -> usize {
        self.publications.len()
    }

    pub(super) fn is_publishing(&self, id: &[u8; 32]) -> bool {
        self.publications.contains_key(id)
    }

    pub(super) fn add_publication(
        &mut self,
        id: [u8; 32],
        number: u64,
        answer: oneshot::Sender<Publication>,
    ) {
        self.publications
            .insert(id, PublicationEntry { number, answer });
    }

    pub(super) fn answer_publication(
        &mut self,
        id: &[u8; 32],
    ) -> Option<oneshot::Sender<Publication>> {
        self.publications.remove(id).map(|entry| entry.answer)
    }

    /// The event that waits for its answer longest: relays that do not say what they refuse answer in order.
    pub(super) fn answer_oldest_publication(&mut self) -> Option<oneshot::Sender<Publication>> {
        let oldest = self
            .publications
            .iter()
            .min_by_key(|(_, entry)| entry.number);
        let id = oldest.map(|(id, _)| *id)?;
        self.answer_publication(&id)
    }

    pub(super) fn abandon_publication(&mut self, id: &[u8; 32], number: u64) {
        // The same event may have been offered anew since this one was answered.
        if self
            .publications
            .get(id)
            .is_some_and(|entry| entry.number == number)
        {
            self.publications.remove(id);
        }
    }

    /// Whether a queued message is still wanted; called when it is about to be written.
    pub(super) fn begin_write(&mut self, about: About) -> bool {
        match about {
            About::Request(number) => self.requests.contains_key(&number),
            About::Publication(number, id) => self
                .publications
                .get(&id)
                .is_some_and(|entry| entry.number == number),
            About::Negotiation(number) => {
                let Some(entry) = self
                    .negotiation
                    .as_mut()
                    .filter(|entry| entry.number == number)
                else {
                    return false;
                };
                // Nobody waits any more: the session is over, or whoever asked gave up.
                if entry.answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
                    return false;
                }
                entry.written = true;
                entry.open = true;
                true
            }
        }
    }

    pub(super) fn note(&mut self, notice: &str) {
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(shorten(notice));
    }
}

/// The start of a relay's text: nothing that a relay says is kept at any length.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// The name of a request at the relay, and back.
pub(super) fn request_name(number: u64) -> String {
    format!("r{number}")
}

pub(super) fn request_number(name: &str) -> Option<u64> {
    name.strip_prefix('r')?.parse().ok()
}

/// The name of a negentropy session at the relay, and back.
pub(super) fn negotiation_name(number: u64) -> String {
    format!("n{number}")
}

pub(super) fn negotiation_number(name: &str) -> Option<u64> {
    name.strip_prefix('n')?.parse().ok()
}

/// At least one permit, so that nothing waits for ever; at most what one acquisition can ask for.
fn clamp(permits: usize) -> usize {
    permits
        .clamp(1, u32::MAX as usize)
        .min(Semaphore::MAX_PERMITS)
}

/// Waits for `wanted` of `all` permits; what is larger than all takes all.
async fn permits(semaphore: &Arc<Semaphore>, wanted: usize, all: usize) -> OwnedSemaphorePermit {
    let wanted = u32::try_from(wanted.min(clamp(all))).unwrap_or(u32::MAX);
    Arc::clone(semaphore)
        .acquire_many_owned(wanted)
        .await
        .expect("these semaphores are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_long_ago_is_not_the_reason_for_a_hang_up() {
        let (largest, begun) = (LargestLately::default(), Instant::now());
        assert_eq!(largest.now(begun), 0);
        largest.sent(100_000, begun);
        largest.sent(10, begun + LATELY / 2);
        assert_eq!(largest.now(begun + LATELY), 100_000);
        largest.sent(20, begun + LATELY);
        assert_eq!(largest.now(begun + LATELY * 2), 20);
        assert_eq!(largest.now(begun + LATELY * 9), 0);
    }
}
