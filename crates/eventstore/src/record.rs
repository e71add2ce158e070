//! One stored event: a fixed header, then its minified JSON, which is served as it stands.
//!
//! Layout (format 1): flags 1 (1: unshared, 2: hidden) ‖ kind 2 ‖ author number 4 ‖ created_at 8 ‖ expiration 8 (0: none) ‖ id 32 ‖ JSON.
//! The header answers what queries and rules ask most, without parsing. Only decoding can fail, as `Damaged`.

use std::borrow::Cow;
use std::io::Write;

use constellation_event::{CanonicalKey, VecTags, VerifiedEvent};
use serde::Deserialize;

use crate::keys::{AuthorNumber, Sequence};
use crate::{StoreError, keys};

const HEADER_LEN: usize = 1 + 2 + 4 + 8 + 8 + 32;

/// Kept and served, but not part of what stations share: protected (NIP-70), or a request to vanish (NIP-62)
/// that is not addressed to all relays.
const FLAG_UNSHARED: u8 = 1;
/// Kept, but neither served nor shared: the captain blocked it.
const FLAG_HIDDEN: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) unshared: bool,
    pub(crate) hidden: bool,
    pub(crate) kind: u16,
    pub(crate) author: AuthorNumber,
    pub(crate) created_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) id: [u8; 32],
}

impl Header {
    /// The header of a record, and what follows it.
    pub(crate) fn decode(sequence: Sequence, bytes: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let Some((head, json)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(too_short(sequence));
        };
        let mut created_at = [0; 8];
        created_at.copy_from_slice(&head[7..15]);
        let mut expires_at = [0; 8];
        expires_at.copy_from_slice(&head[15..23]);
        let mut id = [0; 32];
        id.copy_from_slice(&head[23..]);
        let expires_at = u64::from_be_bytes(expires_at);
        let header = Self {
            unshared: head[0] & FLAG_UNSHARED != 0,
            hidden: head[0] & FLAG_HIDDEN != 0,
            kind: u16::from_be_bytes([head[1], head[2]]),
            author: AuthorNumber(u32::from_be_bytes([head[3], head[4], head[5], head[6]])),
            created_at: u64::from_be_bytes(created_at),
            expires_at: (expires_at != 0).then_some(expires_at),
            id,
        };
        Ok((header, json))
    }

    /// Whether it is part of what stations share.
    pub(crate) fn is_shared(&self) -> bool {
        !self.unshared && !self.hidden
    }

    /// The event's place in the canonical order.
    pub(crate) fn canonical_key(&self) -> CanonicalKey {
        CanonicalKey {
            created_at: self.created_at,
            id: self.id,
        }
    }

    /// Length in bytes of the record with this JSON.
    pub(crate) fn encoded_len(&self, json: &str) -> usize {
        HEADER_LEN + json.len()
    }

    /// Writes the record with this JSON: exactly [`Header::encoded_len`] bytes.
    pub(crate) fn write_with(&self, json: &str, out: &mut impl Write) -> std::io::Result<()> {
        let mut head = [0; HEADER_LEN];
        if self.unshared {
            head[0] |= FLAG_UNSHARED;
        }
        if self.hidden {
            head[0] |= FLAG_HIDDEN;
        }
        head[1..3].copy_from_slice(&self.kind.to_be_bytes());
        head[3..7].copy_from_slice(&self.author.0.to_be_bytes());
        head[7..15].copy_from_slice(&self.created_at.to_be_bytes());
        head[15..23].copy_from_slice(&self.expires_at.unwrap_or(0).to_be_bytes());
        head[23..].copy_from_slice(&self.id);
        out.write_all(&head)?;
        out.write_all(json.as_bytes())
    }
}

/// A stored event, borrowed from the database's pages for as long as the snapshot lives.
#[derive(Debug, Clone, Copy)]
pub struct Record<'s> {
    pub(crate) sequence: Sequence,
    pub(crate) header: Header,
    json: &'s str,
}

impl<'s> Record<'s> {
    pub(crate) fn decode(sequence: Sequence, bytes: &'s [u8]) -> Result<Self, StoreError> {
        let (header, json) = Header::decode(sequence, bytes)?;
        let json = std::str::from_utf8(json)
            .map_err(|_| StoreError::damaged(format!("record {}: not UTF-8", sequence.0)))?;
        Ok(Self {
            sequence,
            header,
            json,
        })
    }

    /// Its number.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The event's id.
    pub fn id(&self) -> &[u8; 32] {
        &self.header.id
    }

    /// Unix seconds.
    pub fn created_at(&self) -> u64 {
        self.header.created_at
    }

    /// The kind's number.
    pub fn kind(&self) -> u16 {
        self.header.kind
    }

    /// Whether stations share it: not if it is protected (NIP-70), asks one relay only to forget (NIP-62), or is hidden.
    pub fn is_shared(&self) -> bool {
        self.header.is_shared()
    }

    /// Whether the captain blocked it: it is kept, and shown to nobody.
    pub fn is_hidden(&self) -> bool {
        self.header.hidden
    }

    /// Whether it has expired (NIP-40) but has not been swept yet.
    pub fn is_expired(&self, now: u64) -> bool {
        self.header.expires_at.is_some_and(|at| at <= now)
    }

    /// The event as minified JSON.
    pub fn json(&self) -> &'s str {
        self.json
    }

    /// Author and tags, parsed from the JSON.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the JSON is not an event.
    pub fn parse(&self) -> Result<AuthorAndTags<'s>, StoreError> {
        serde_json::from_str(self.json)
            .map_err(|error| StoreError::damaged(format!("record {}: {error}", self.sequence.0)))
    }

    pub(crate) fn suffix(&self) -> keys::Suffix {
        keys::Suffix::new(self.header.created_at, &self.header.id, self.sequence)
    }
}

/// Whether a record's id is this one, without a look at the rest.
pub(crate) fn has_id(sequence: Sequence, bytes: &[u8], id: &[u8; 32]) -> Result<bool, StoreError> {
    match bytes.get(HEADER_LEN - id.len()..HEADER_LEN) {
        Some(found) => Ok(found == id),
        None => Err(too_short(sequence)),
    }
}

fn too_short(sequence: Sequence) -> StoreError {
    StoreError::damaged(format!("record {}: shorter than its header", sequence.0))
}

/// The parts of a stored event that its header does not hold.
#[derive(Debug, Deserialize)]
pub struct AuthorAndTags<'s> {
    /// 64 hex digits.
    #[serde(borrow)]
    pub pubkey: Cow<'s, str>,
    /// The event's tags.
    #[serde(borrow)]
    pub tags: VecTags<'s>,
}

/// Collects every (letter, first value) pair that is indexed, each once, with the hash of the value.
#[derive(Default)]
struct IndexedTags(Vec<[u8; 9]>);

impl IndexedTags {
    fn add(&mut self, name: &str, value: &str) {
        if let [letter] = name.as_bytes()
            && letter.is_ascii_alphabetic()
        {
            self.0.push(keys::tag_prefix(*letter, value));
        }
    }

    fn finish(mut self) -> Vec<[u8; 9]> {
        self.0.sort_unstable();
        self.0.dedup();
        self.0
    }
}

pub(crate) fn indexed_tags_of_event(event: &VerifiedEvent) -> Vec<[u8; 9]> {
    let mut tags = IndexedTags::default();
    event.for_each_tag(&mut |name, value| {
        if let Some(value) = value {
            tags.add(name, value);
        }
    });
    tags.finish()
}

pub(crate) fn indexed_tags_of_record(tags: &VecTags<'_>) -> Vec<[u8; 9]> {
    let mut indexed = IndexedTags::default();
    for tag in &tags.0 {
        if let [name, value, ..] = tag.as_slice() {
            indexed.add(name, value);
        }
    }
    indexed.finish()
}
