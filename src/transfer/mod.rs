//! Making our set and a peer's equal: reconcile, then fetch what we lack and offer what it lacks.
//!
//! ```text
//! Findings ◄─ reconcile (NIP-77, our set ± overlay) ─► need ─► download ─► ingest ─► verdicts ─► overlay
//!                                                  └──► have ─► upload ─► OKs ────────────────► overlay
//!                                                          (home relay: import ─► read back ─► overlay)
//! ```
//!
//! Takes a conversation with one peer, a scope and a window; gives counts and what stayed unresolved. What is found is
//! fetched while more is being found; offering comes after ([`look_and_move`]). Every wait for the peer is under the
//! step deadline, as far as the peer answers nothing else meanwhile ([`Pulse`]). Invariants: an upload counts only with
//! its OK, or when it is found at a home relay after an import; what arrives is stored only through ingest; a peer's forgery is remembered against that peer alone; of the
//! exchanges of a run, one at a time fetches an id ([`Claims`]). Deliberately absent: connecting, deciding the outcome.
//! Bounded: ids of a difference, requests, events and bytes in flight, rounds.

mod arrivals;
mod asked;
mod asking;
mod authentication;
mod claims;
#[cfg(test)]
mod claims_tests;
mod download;
mod findings;
mod importing;
mod intake;
mod known;
mod line;
mod lots;
mod memory;
mod moving;
mod offering;
mod own;
mod peer_limits;
mod progress;
mod pulse;
mod reconcile;
mod slice;
mod sorting;
mod tally;
mod undelivered;
mod upload;
mod window;
pub mod windows;

use std::sync::Arc;
use std::time::Duration;

use nostr::filter::Filter;
use tokio::sync::watch;

pub use arrivals::remembered;
pub(crate) use asked::{Asked, End, News, Wanted};
pub(crate) use asking::Complaint;
pub use asking::Learnt;
pub use authentication::Introduction;
pub use claims::{Claimant, Claims};
pub use findings::{Findings, Found};
pub use line::Line;
pub use moving::{Failed, Part, look_and_move, move_found};
pub use offering::{HomeWriter, ImportCounts, ImportError, Offering};
pub use peer_limits::PeerLimits;
pub use progress::TransferProgress;
pub use pulse::Pulse;
pub use reconcile::{Reconciled, reconcile};
pub(crate) use reconcile::{answer_of, wants_to_know_us};
pub use slice::{Author, Slice};
pub use tally::{Gap, Tally, Unresolved};
pub use undelivered::UNDELIVERED;
pub(crate) use window::Window;

use crate::ingest::{Ingest, IngestError, Scope, Source};
use crate::plugin::Screen;
use crate::recent_ids::Brought;
use crate::relay_client::{Conversation, ConversationError};
use crate::time::Clock;

/// One conversation and what it is about.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The conversation with the peer.
    pub conversation: Conversation,
    /// The door to our store.
    pub ingest: Ingest,
    /// The peer as a source of events, for as long as the exchange lasts.
    pub source: Source,
    /// The name under which the peer's overlay is kept.
    pub peer: String,
    /// What the peer brought lately: its live link does not offer it that.
    pub brought: Brought,
    /// Asked before what it brings is stored, where there is a write policy plugin.
    pub screen: Option<Screen>,
    /// What is shared with it.
    pub scope: Arc<Scope>,
    /// Whether what we lack is to be fetched.
    pub fetches: bool,
    /// Whether what the peer lacks is to be offered.
    pub offers: bool,
    /// How it is offered.
    pub offering: Offering,
    /// What is compared now.
    pub slice: Slice,
    /// Who we are to the peer, should it ask.
    pub introduction: Arc<Introduction>,
    /// What the peer can be asked at a time.
    pub limits: PeerLimits,
    /// What earlier passes learnt of how it can be asked.
    pub learnt: Learnt,
    /// Who of the run fetches what.
    pub claims: Arc<Claims>,
    /// Whether the peer is alive.
    pub pulse: Arc<Pulse>,
    /// How long one answer may take.
    pub step_deadline: Duration,
    /// Wall time.
    pub clock: Clock,
    /// Where progress is shown.
    pub progress: watch::Sender<TransferProgress>,
}

/// Why a transfer broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The peer did not answer in time.
    #[error("no answer within the step deadline")]
    Timeout,
    /// The conversation ended.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// The peer does not speak NIP-77.
    #[error("the peer does not speak NIP-77: {0}")]
    NoNip77(String),
    /// The peer does not reconcile so much at once.
    #[error("the peer does not compare so much at once: {text}")]
    TooBig {
        /// The most events that it says it compares.
        cap: Option<u64>,
        /// Its words.
        text: String,
    },
    /// Most of what the peer delivered at first is by authors that we do not share.
    #[error("{outside} of {delivered} events are by authors outside the scope")]
    MostlyOutside {
        /// Those.
        outside: u64,
        /// All that were delivered.
        delivered: u64,
    },
    /// The peer ended the negentropy session.
    #[error("the peer refused to reconcile: {0}")]
    Refused(String),
    /// The peer speaks another version of negentropy.
    #[error("the peer speaks negentropy version {0:#04x}")]
    UnknownVersion(u8),
    /// The peer's negentropy message cannot be read.
    #[error("malformed negentropy message: {0}")]
    Malformed(String),
    /// Our set changed under a message in a way that its overlay does not follow: another pass will see it whole.
    #[error("our set changed while it was being compared")]
    SetMoved,
    /// Pass after pass the sets still differed, in something else each time.
    #[error("the sets still differ after {0} passes")]
    Unsettled(usize),
    /// Reconciling did not end within the bound of rounds.
    #[error("no end of reconciling after {0} rounds")]
    TooManyRounds(u64),
    /// Too much of what the peer delivered was forged, unreadable or not asked for.
    #[error("{forged} of {delivered} events were forged, unreadable or not asked for")]
    Forgeries {
        /// Bad ones.
        forged: u64,
        /// All that were delivered.
        delivered: u64,
    },
    /// The home relay's import failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Our own store failed.
    #[error("our store: {0}")]
    Ingest(#[from] IngestError),
}

impl TransferError {
    /// The labels of failures that are ours, not the peer's.
    pub const LOCAL_LABELS: [&'static str; 3] = ["disk_full", "store", "closing"];

    /// The stable name of the reason, for reports and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Conversation(error) => error.label(),
            Self::NoNip77(_) => "no_nip77",
            Self::TooBig { .. } => "too_big",
            Self::MostlyOutside { .. } => "mostly_outside",
            Self::Refused(_) => "refused",
            Self::UnknownVersion(_) => "unknown_version",
            Self::Malformed(_) => "malformed_negentropy",
            Self::SetMoved => "set_moved",
            Self::Unsettled(_) => "unsettled",
            Self::TooManyRounds(_) => "too_many_rounds",
            Self::Forgeries { .. } => "forgeries",
            Self::Import(error) => error.label(),
            Self::Ingest(IngestError::DiskFull) => "disk_full",
            Self::Ingest(IngestError::Store(_)) => "store",
            Self::Ingest(IngestError::Closed) => "closing",
        }
    }
}

impl From<std::convert::Infallible> for TransferError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<constellation_eventstore::StoreError> for TransferError {
    fn from(error: constellation_eventstore::StoreError) -> Self {
        Self::Ingest(error.into())
    }
}

impl Transfer {
    /// The filter that describes what takes part.
    pub fn filter(&self) -> Filter {
        self.slice.filter()
    }
}

/// Runs work that reads the store off the runtime's threads.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(TransferError::Ingest(IngestError::Closed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_failures_of_our_own_store_are_local() {
        for error in [
            IngestError::DiskFull,
            IngestError::Store(String::new()),
            IngestError::Closed,
        ] {
            assert!(TransferError::LOCAL_LABELS.contains(&TransferError::Ingest(error).label()));
        }
        assert!(!TransferError::LOCAL_LABELS.contains(&TransferError::Timeout.label()));
    }
}
