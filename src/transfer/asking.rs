//! How much is asked of a peer at a time: requests, ids in each, bytes under way; and what follows from its complaints.
//!
//! Takes sizes and delays of what comes, CLOSED and NOTICE texts, answers that look cut off; gives bounds for the next
//! request. Bytes under way are ids times the mean size of what came: well below what makes a relay drop a reader.
//! Pure: time is an argument. It does not ask, and does not count how often an id was asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::PeerLimits;
use super::window::Window;
use crate::limits::{
    ANSWER_LATE, DOWNLOAD_BYTES_FIRST, DOWNLOAD_BYTES_LEAST, DOWNLOAD_BYTES_MAX,
    EVENT_BYTES_GUESSED, PAUSE_FIRST, PAUSE_MAX, PAUSES_MAX,
};
use crate::protocol::ReasonPrefix;
use crate::relay_client::complains;

/// Weight of what came before in the mean, in events.
const MEAN_OVER: usize = 64;
/// A request is not made smaller than this for being too large: then something else is the matter.
const IDS_LEAST: usize = 10;
/// After so many whole answers in a row a request may be twice as large again.
const WHOLE_ANSWERS_TO_GROW: u32 = 8;

/// What a peer dislikes about how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// So many requests at a time.
    Number,
    /// So many in so short a time.
    Pace,
    /// So much in one.
    Size,
}

impl Complaint {
    /// Whether a notice after a question may be the answer to it, rather than a greeting or news.
    pub(crate) fn may_be(notice: &str) -> bool {
        Self::read(ReasonPrefix::parse(notice), notice).is_some() || complains(notice)
    }

    /// What a reason or notice is about, if it is about this.
    pub(crate) fn read(prefix: ReasonPrefix, text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if prefix == ReasonPrefix::RateLimited
            || says(&[
                "rate-limit",
                "rate limit",
                "ratelimit",
                "slow down",
                "too fast",
                "throttl",
                "too many requests",
            ])
        {
            Some(Self::Pace)
        } else if says(&["subscription", "concurrent", "too many req"]) {
            Some(Self::Number)
        } else if says(&[
            "too large",
            "too big",
            "too long",
            "oversize",
            "too many id",
            "too many filter",
        ]) {
            Some(Self::Size)
        } else if says(&["too many"]) {
            Some(Self::Number)
        } else {
            None
        }
    }

    /// What a request that was closed is to be taken for: also one for which the peer just had no time (`error:`), or gave
    /// no reason. `None`: it will not answer this one.
    pub(super) fn of_closed(prefix: ReasonPrefix, text: &str) -> Option<Self> {
        let says_why = matches!(
            prefix,
            ReasonPrefix::Blocked
                | ReasonPrefix::Restricted
                | ReasonPrefix::AuthRequired
                | ReasonPrefix::Invalid
                | ReasonPrefix::Unsupported
                | ReasonPrefix::Pow
        );
        Self::read(prefix, text).or((!says_why).then_some(Self::Pace))
    }
}

/// How the peer of an exchange is asked, kept from one pass to the next: its limits are found out once.
#[derive(Debug, Clone, Default)]
pub struct Learnt(Arc<Mutex<Option<Asking>>>);

impl Learnt {
    /// What an earlier pass has learnt; else what the peer says of itself.
    pub(super) fn take(&self, limits: &PeerLimits) -> Asking {
        self.slot().take().unwrap_or_else(|| Asking::new(limits))
    }

    /// Keeps it for the next pass.
    pub(super) fn keep(&self, asking: Asking) {
        *self.slot() = Some(asking);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Asking>> {
        // Nothing is computed under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one peer is asked.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    window: Window,
    mean_bytes: usize,
    ids_per_request: usize,
    /// More than this the peer has said not to take.
    ids_per_request_max: usize,
    /// Whole answers in a row to requests of that many ids.
    whole_answers: u32,
    /// What the ids in a request were before an answer looked cut off; nothing has confirmed yet that it was.
    suspected: Option<usize>,
    requests: usize,
    requests_max: usize,
    pause: Duration,
    /// Pauses since the peer last gave something.
    pauses: u32,
    paused_until: Option<Instant>,
}

impl Asking {
    pub(super) fn new(limits: &PeerLimits) -> Self {
        Self {
            window: Window::new(
                DOWNLOAD_BYTES_FIRST,
                DOWNLOAD_BYTES_LEAST,
                DOWNLOAD_BYTES_MAX,
                ANSWER_LATE,
            ),
            mean_bytes: EVENT_BYTES_GUESSED,
            ids_per_request: limits.ids_per_request,
            ids_per_request_max: limits.ids_per_request,
            whole_answers: 0,
            suspected: None,
            requests: limits.requests_max,
            requests_max: limits.requests_max,
            pause: Duration::ZERO,
            pauses: 0,
            paused_until: None,
        }
    }

    /// Pause after pause it gave nothing.
    pub(super) fn gives_up(&self) -> bool {
        self.pauses > PAUSES_MAX
    }

    /// Ids that may be under way.
    pub(super) fn ids(&self) -> usize {
        (self.window.size() / self.mean_bytes.max(1)).max(1)
    }

    /// Requests that may be open.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Ids in one request.
    pub(super) fn ids_per_request(&self) -> usize {
        self.ids_per_request
    }

    /// Until when nothing is asked.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// An event of so many bytes came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.mean_bytes = (self.mean_bytes * (MEAN_OVER - 1) + bytes).div_ceil(MEAN_OVER);
    }

    /// A request came to its end; `under_way` ids were under way with it. Says whether the answer looks cut off, so
    /// that what is missing is worth asking for again.
    pub(super) fn completed(
        &mut self,
        asked: usize,
        delivered: usize,
        delay: Duration,
        under_way: usize,
        now: Instant,
    ) -> bool {
        let full = under_way.saturating_add(self.ids_per_request) >= self.ids() / 2;
        self.window
            .answered(delivered * self.mean_bytes, delay, full, now);
        if delivered > 0 {
            (self.pause, self.pauses, self.paused_until) = (Duration::ZERO, 0, None);
            self.requests = (self.requests + 1).min(self.requests_max);
        }
        if Self::looks_capped(asked, delivered) {
            let before = std::mem::replace(&mut self.ids_per_request, delivered.max(1));
            self.suspected.get_or_insert(before.max(delivered));
            self.whole_answers = 0;
            return true;
        }
        self.whole_answers += u32::from(delivered == asked && asked == self.ids_per_request);
        if self.whole_answers >= WHOLE_ANSWERS_TO_GROW {
            // What looked cut off may have been a round number by chance.
            self.ids_per_request = (2 * self.ids_per_request).min(self.ids_per_request_max);
            self.whole_answers = 0;
        }
        match self.suspected {
            // It was not cut off: these it does not have.
            Some(before) if delivered == 0 => {
                (self.ids_per_request, self.suspected) = (before, None);
            }
            Some(_) if delivered == asked => self.suspected = None,
            _ => {}
        }
        false
    }

    /// Part of what was asked for came: some relays cut answers off, at any number, and say so nowhere.
    fn looks_capped(asked: usize, delivered: usize) -> bool {
        delivered < asked && delivered > 0
    }

    /// The peer complained; so many requests remain open.
    pub(super) fn heed(&mut self, complaint: Complaint, open: usize, now: Instant) {
        match complaint {
            Complaint::Number if open > 0 => {
                self.requests_max = self.requests_max.min(open);
                self.requests = self.requests.min(open);
            }
            Complaint::Size if self.ids_per_request > IDS_LEAST => {
                self.ids_per_request = (self.ids_per_request / 2).max(IDS_LEAST);
                self.ids_per_request_max = self.ids_per_request;
            }
            // Also where there is nothing left to make fewer or smaller.
            Complaint::Number | Complaint::Pace | Complaint::Size => {
                if self.paused_until(now).is_none() {
                    self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
                    self.paused_until = Some(now + self.pause);
                    self.pauses += 1;
                    self.requests = (self.requests / 2).max(1);
                    self.window.shrink(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking() -> Asking {
        Asking::new(&PeerLimits::of(None))
    }

    #[test]
    fn complaints_are_told_apart() {
        for (text, expected) in [
            ("rate-limited: slow down", Some(Complaint::Pace)),
            ("ERROR: too many concurrent REQs", Some(Complaint::Number)),
            ("blocked: too many subscriptions", Some(Complaint::Number)),
            (
                "Maximum concurrent subscription count reached",
                Some(Complaint::Number),
            ),
            ("error: message too large", Some(Complaint::Size)),
            ("invalid: too many ids in the filter", Some(Complaint::Size)),
            ("auth-required: who are you", None),
            ("blocked: not for you", None),
            ("welcome", None),
        ] {
            let read = Complaint::read(ReasonPrefix::parse(text), text);
            assert_eq!(read, expected, "{text}");
        }
        // Whoever fails at one request may answer the next: what was asked for is not given up.
        for (text, expected) in [
            ("error: database busy", Some(Complaint::Pace)),
            ("", Some(Complaint::Pace)),
            ("error: message too large", Some(Complaint::Size)),
            ("blocked: not for you", None),
            ("restricted: members only", None),
            ("invalid: no such filter", None),
        ] {
            let read = Complaint::of_closed(ReasonPrefix::parse(text), text);
            assert_eq!(read, expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_complained_about_becomes_less() {
        let now = Instant::now();
        let mut asking = asking();
        for open in (1..asking.requests()).rev() {
            asking.heed(Complaint::Number, open, now);
            assert_eq!(asking.requests(), open);
        }
        asking.completed(10, 10, Duration::ZERO, 0, now);
        assert_eq!(asking.requests(), 1, "and stays");
        for _ in 0..20 {
            asking.heed(Complaint::Size, 1, now);
        }
        assert_eq!(asking.ids_per_request(), IDS_LEAST);
        assert_eq!(asking.paused_until(now), Some(now + PAUSE_FIRST));
        let later = now + PAUSE_FIRST;
        assert_eq!(asking.paused_until(later), None);
        asking.heed(Complaint::Pace, 1, later);
        asking.heed(Complaint::Pace, 1, later);
        assert_eq!(asking.paused_until(later), Some(later + 2 * PAUSE_FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_cut_off_makes_requests_smaller_unless_it_was_not() {
        let now = Instant::now();
        let mut asking = asking();
        let before = asking.ids_per_request();
        assert!(asking.completed(before, 100, Duration::ZERO, 0, now));
        assert_eq!(asking.ids_per_request(), 100);
        assert!(
            !asking.completed(100, 100, Duration::ZERO, 0, now),
            "confirmed"
        );
        assert!(!asking.completed(100, 0, Duration::ZERO, 0, now));
        assert_eq!(asking.ids_per_request(), 100);

        let mut asking = self::asking();
        // Also at an odd number: 128 of 250 was taken for all that there is.
        for delivered in [240, 237, 7] {
            assert!(asking.completed(before, delivered, Duration::ZERO, 0, now));
            assert_eq!(asking.ids_per_request(), delivered);
            assert!(!asking.completed(before - delivered, 0, Duration::ZERO, 0, now));
            assert_eq!(
                asking.ids_per_request(),
                before,
                "it just did not have them"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_grow_again_after_whole_answers_but_not_beyond_what_the_peer_takes() {
        let now = Instant::now();
        let mut asking = asking();
        let before = asking.ids_per_request();
        assert!(asking.completed(before, 20, Duration::ZERO, 0, now));
        for _ in 0..100 {
            let ids = asking.ids_per_request();
            assert!(!asking.completed(ids, ids, Duration::ZERO, 0, now));
        }
        assert_eq!(asking.ids_per_request(), before);
        asking.heed(Complaint::Size, 1, now);
        for _ in 0..100 {
            let ids = asking.ids_per_request();
            asking.completed(ids, ids, Duration::ZERO, 0, now);
        }
        assert_eq!(asking.ids_per_request(), before / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_under_way_follow_the_size_of_events() {
        let mut asking = asking();
        for _ in 0..100 {
            asking.completed(1_000, 1_000, Duration::ZERO, usize::MAX, Instant::now());
        }
        assert_eq!(asking.ids(), DOWNLOAD_BYTES_MAX / EVENT_BYTES_GUESSED);
        for _ in 0..1_000 {
            asking.received(100_000);
        }
        let ids = asking.ids();
        assert!((50..=DOWNLOAD_BYTES_MAX / 99_000).contains(&ids), "{ids}");
    }
}
