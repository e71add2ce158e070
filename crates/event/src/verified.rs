//! The sealed type: an event that is proven genuine, and its place in the canonical order.

use std::cmp::Ordering;

use nostr::event::Event;

use crate::KindClass;

/// An event whose id and signature have been checked.
///
/// The only constructor is [`UnverifiedEvent::verify`](crate::UnverifiedEvent::verify); it cannot be changed
/// afterwards. Holds the minified JSON beside the parsed form, since that is what is stored and sent.
#[derive(Debug, Clone)]
pub struct VerifiedEvent {
    event: Event,
    json: Box<str>,
}

impl VerifiedEvent {
    pub(crate) fn seal(event: Event) -> Self {
        let json = event.as_json().into_boxed_str();
        Self { event, json }
    }

    /// The parsed event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event as minified JSON, fields in the order of NIP-01.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The event's id.
    pub fn id(&self) -> [u8; 32] {
        self.event.id.to_bytes()
    }

    /// Unix seconds.
    pub fn created_at(&self) -> u64 {
        self.event.created_at.as_secs()
    }

    /// The kind's number.
    pub fn kind(&self) -> u16 {
        self.event.kind.as_u16()
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

    /// The value of the first tag with this name.
    pub fn first_tag(&self, name: &str) -> Option<&str> {
        self.event
            .tags
            .iter()
            .find(|tag| tag.kind() == name)
            .map(|tag| tag.content().unwrap_or_default())
    }

    /// When the event expires, in Unix seconds (NIP-40). A tag that is no number does not expire.
    pub fn expiration(&self) -> Option<u64> {
        self.first_tag("expiration")?.parse().ok()
    }

    /// Whether only its author may publish it (NIP-70).
    pub fn is_protected(&self) -> bool {
        self.event.tags.iter().any(|tag| tag.kind() == "-")
    }

    /// The `d` tag of an addressable event; empty where there is none, and for replaceable ones (NIP-01).
    pub fn identifier(&self) -> &str {
        match self.class() {
            KindClass::Addressable => self.first_tag("d").unwrap_or_default(),
            _ => "",
        }
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
