//! Where an event comes from, what may enter from there, and what became of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use constellation_event::{Rejection, VerifiedEvent};
use constellation_eventstore::KindSet;
use nostr::key::PublicKey;

use crate::limits::FUTURE_SECONDS_MAX;

/// What is shared with a peer: kinds and authors. The window is the run's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The kinds.
    pub kinds: KindSet,
    /// The authors; `None` means all.
    pub authors: Option<Arc<HashSet<[u8; 32]>>>,
}

impl Scope {
    /// Everything.
    pub fn everything() -> Self {
        Self {
            kinds: KindSet::all(),
            authors: None,
        }
    }

    /// Whether an event of this kind and author is shared.
    pub fn covers(&self, kind: u16, author: &[u8; 32]) -> bool {
        self.kinds.contains(kind) && self.covers_author(author)
    }

    /// Whether this author's events are shared, as far as their kinds are.
    pub fn covers_author(&self, author: &[u8; 32]) -> bool {
        let authors = self.authors.as_ref();
        authors.is_none_or(|authors| authors.contains(author))
    }
}

/// Who may write through a connection.
#[derive(Debug, Clone)]
pub enum Writers {
    /// Anyone, about anything: loopback, as a rule.
    Anyone,
    /// These authors.
    Authors(Arc<HashSet<[u8; 32]>>),
}

/// Where an event comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The captain's own hand: `constellation import`.
    Import,
    /// A client of our relay.
    Client {
        /// Whose events it may publish.
        writers: Writers,
        /// Keys it has proven to hold (NIP-42).
        authenticated: Arc<BTreeSet<PublicKey>>,
    },
    /// A peer that we exchange with: what is refused for its content is remembered.
    Peer {
        /// What we take from it.
        scope: Arc<Scope>,
    },
}

impl Origin {
    /// Whether a verified event may go on to the writer, at `now` in Unix seconds.
    pub(super) fn check(&self, event: &VerifiedEvent, now: u64) -> Result<(), Rejection> {
        if event.created_at() > now.saturating_add(FUTURE_SECONDS_MAX) {
            return Err(Rejection::Future);
        }
        match self {
            Self::Import => Ok(()),
            Self::Client {
                writers,
                authenticated,
            } => {
                if let Writers::Authors(authors) = writers
                    && !authors.contains(event.author())
                {
                    return Err(Rejection::MayNotWrite);
                }
                if event.is_protected()
                    && !authenticated.contains(&PublicKey::from_byte_array(*event.author()))
                {
                    return Err(Rejection::Protected);
                }
                Ok(())
            }
            Self::Peer { scope } => {
                if !scope.covers(event.kind(), event.author()) {
                    return Err(Rejection::OutOfScope);
                }
                if event.is_protected() {
                    return Err(Rejection::Protected);
                }
                Ok(())
            }
        }
    }

    /// Whether what is out of scope may matter all the same: a deletion, where deletions are shared at all, if something
    /// of its author is stored here (D10).
    pub(super) fn may_delete_here(&self, event: &VerifiedEvent) -> bool {
        match self {
            Self::Peer { scope } => {
                matches!(event.kind(), 5 | 62)
                    && scope.kinds.contains(event.kind())
                    && !event.is_protected()
            }
            Self::Import | Self::Client { .. } => false,
        }
    }

    /// Whether verdicts that follow from an event's content are kept, so that it is not fetched again.
    pub(super) fn remembers_refusals(&self) -> bool {
        matches!(self, Self::Peer { .. })
    }
}

/// What became of a submitted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// In the store, on disk.
    Stored,
    /// Was already in the store.
    Duplicate,
    /// Handed to live subscribers, not stored (NIP-01).
    Ephemeral,
    /// Not taken.
    Rejected(Rejection),
    /// Not taken either, and nothing to be remembered: whoever was to be asked did not answer.
    Undecided,
    /// Not taken for now, and nothing to be remembered: this source has brought its share of strangers' deletions.
    Postponed,
}
