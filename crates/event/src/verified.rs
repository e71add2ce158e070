//! The sealed type: an event that is proven genuine, and its place in the canonical order.

use std::cmp::Ordering;

use nostr::event::Event;
use nostr::filter::Filter;

use crate::canonical::CanonicalEvent;
use crate::proof::SignatureProven;
use crate::{KindClass, filter};

/// An event whose id and signature have been checked.
///
/// Made by [`UnverifiedEvent::verify`](crate::UnverifiedEvent::verify) and, many at once, by
/// [`BatchVerifier::verify`](crate::BatchVerifier::verify); it cannot be changed afterwards. Holds the minified JSON,
/// since that is what is stored and sent.
#[derive(Debug, Clone)]
pub struct VerifiedEvent(CanonicalEvent);

impl VerifiedEvent {
    pub(crate) fn seal(proven: SignatureProven) -> Self {
        Self(proven.into_event())
    }

    /// The event as the `nostr` crate has it: parsed anew each time.
    pub fn to_event(&self) -> Event {
        self.0.to_event()
    }

    /// The event as minified JSON, fields in the order of NIP-01.
    pub fn json(&self) -> &str {
        self.0.json()
    }

    /// The event's id.
    pub fn id(&self) -> [u8; 32] {
        self.0.id
    }

    /// Its author's public key.
    pub fn author(&self) -> &[u8; 32] {
        &self.0.author
    }

    /// Unix seconds.
    pub fn created_at(&self) -> u64 {
        self.0.created_at
    }

    /// The kind's number.
    pub fn kind(&self) -> u16 {
        self.0.kind
    }

    /// How events of this kind are kept.
    pub fn class(&self) -> KindClass {
        KindClass::of(self.kind())
    }

    /// Place in the canonical order.
    pub fn canonical_key(&self) -> CanonicalKey {
        CanonicalKey {
            created_at: self.created_at(),
            id: self.id(),
        }
    }

    /// Whether it matches a filter.
    pub fn matches(&self, filter: &Filter) -> bool {
        filter::matches(filter, &self.0)
    }

    /// Calls `visit` with the name of each tag and its first value, where it has one.
    pub fn for_each_tag(&self, visit: &mut dyn FnMut(&str, Option<&str>)) {
        self.0.for_each_tag(visit);
    }

    /// When the event expires, in Unix seconds (NIP-40). A tag that is no number does not expire.
    ///
    /// Deletions do not expire, whatever they say: whoever got one in time would keep away for ever what those who got it
    /// later, or never, go on showing.
    pub fn expiration(&self) -> Option<u64> {
        const DELETION: u16 = 5;
        self.0.expires_at.filter(|_| self.kind() != DELETION)
    }

    /// Whether only its author may publish it (NIP-70).
    pub fn is_protected(&self) -> bool {
        self.0.is_protected
    }

    /// The `d` tag of an addressable event; empty where there is none, and for replaceable ones (NIP-01).
    pub fn identifier(&self) -> String {
        let mut identifier = None;
        if self.class() == KindClass::Addressable {
            self.for_each_tag(&mut |name, value| {
                if name == "d" && identifier.is_none() {
                    identifier = Some(value.unwrap_or_default().to_owned());
                }
            });
        }
        identifier.unwrap_or_default()
    }
}

/// The order in which sets of events are reconciled: by time, then id (NIP-77).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalKey {
    /// Unix seconds.
    pub created_at: u64,
    /// The event's id.
    pub id: [u8; 32],
}

impl CanonicalKey {
    /// Whether this version of a replaceable event wins over `other`: newer, or as new with the lower id (NIP-01).
    pub fn supersedes(&self, other: &Self) -> bool {
        match self.created_at.cmp(&other.created_at) {
            Ordering::Greater => true,
            Ordering::Equal => self.id < other.id,
            Ordering::Less => false,
        }
    }
}
