//! What is compared at a time: kinds, authors and a span of time.
//!
//! Takes what a run shares with a peer; gives the filter that the peer is asked with and the set that it is compared
//! to. An exchange compares one slice after another: the whole where the peer bears it, smaller ones where it does
//! not. Pure.

use std::sync::Arc;

use constellation_eventstore::{KindSet, SetScope};
use nostr::event::Kind;
use nostr::filter::Filter;
use nostr::key::PublicKey;
use nostr::types::Timestamp;

/// A public key.
pub type Author = [u8; 32];

/// A part of what is shared with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The kinds.
    pub kinds: KindSet,
    /// The authors that the peer is asked for; `None` names none, and then all that it has are listed.
    pub authors: Option<Arc<[Author]>>,
    /// Unix seconds of the oldest event.
    pub since: Option<u64>,
    /// Unix seconds of the newest event.
    pub until: Option<u64>,
}

impl Slice {
    /// All events of these kinds.
    pub fn of_kinds(kinds: KindSet) -> Self {
        Self {
            kinds,
            authors: None,
            since: None,
            until: None,
        }
    }

    /// The filter that describes it.
    pub fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        if let KindSet::Only(kinds) = &self.kinds {
            filter = filter.kinds(kinds.iter().map(|kind| Kind::from_u16(*kind)));
        }
        if let Some(authors) = &self.authors {
            filter = filter.authors(
                authors
                    .iter()
                    .map(|author| PublicKey::from_byte_array(*author)),
            );
        }
        filter.since = self.since.map(Timestamp::from_secs);
        filter.until = self.until.map(Timestamp::from_secs);
        filter
    }

    /// The author under whom the peer lists here what says to be by `claimed`: where it is none that the peer was asked for,
    /// or nobody knows, any of these stands for it, as they are asked for together. `None` where no authors are named.
    pub fn listed_under(&self, claimed: &Author) -> Option<Author> {
        let authors = self.authors.as_ref()?;
        let named = authors.iter().find(|author| *author == claimed);
        named.or_else(|| authors.first()).copied()
    }

    /// The same as a scope of the store; authors aside.
    pub fn set_scope(&self) -> SetScope {
        SetScope {
            kinds: self.kinds.clone(),
            since: self.since,
            until: self.until,
        }
    }
}
