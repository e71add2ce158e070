//! Whether a stored event matches a filter, without parsing more of it than the filter asks for.
//!
//! Takes records as a scan of the store gives them; the store's own queries need none of this. Same rules as
//! `constellation_event::matches`: an empty list matches nothing. Worst case: one parse of the event's JSON,
//! shared by all filters that it is held against.

use std::cmp::Reverse;

use constellation_event::tags_match;
use constellation_eventstore::{AuthorAndTags, PRIVATE_KINDS, Record, Sequence, StoreError};
use nostr::event::{EventId, Kind};
use nostr::filter::Filter;
use nostr::key::PublicKey;

/// Whether a filter asks for private kinds and nothing else.
pub(super) fn asks_only_private(filter: &Filter) -> bool {
    filter.kinds.as_ref().is_some_and(|kinds| {
        !kinds.is_empty()
            && kinds
                .iter()
                .all(|kind| PRIVATE_KINDS.contains(&kind.as_u16()))
    })
}

/// Whether a filter names private kinds among others.
pub(super) fn names_private(filter: &Filter) -> bool {
    filter.kinds.as_ref().is_some_and(|kinds| {
        kinds
            .iter()
            .any(|kind| PRIVATE_KINDS.contains(&kind.as_u16()))
    })
}

/// A record that is held against several filters.
#[derive(Debug)]
pub(super) struct Candidate<'r, 's> {
    record: &'r Record<'s>,
    parts: Option<(Option<PublicKey>, AuthorAndTags<'s>)>,
}

impl<'r, 's> Candidate<'r, 's> {
    pub(super) fn new(record: &'r Record<'s>) -> Self {
        Self {
            record,
            parts: None,
        }
    }

    /// Whether the record matches; `limit` is not looked at.
    pub(super) fn matches(&mut self, filter: &Filter) -> Result<bool, StoreError> {
        let record = self.record;
        let time = record.created_at();
        if filter
            .kinds
            .as_ref()
            .is_some_and(|kinds| !kinds.contains(&Kind::from_u16(record.kind())))
            || filter.since.is_some_and(|since| time < since.as_secs())
            || filter.until.is_some_and(|until| time > until.as_secs())
            || filter
                .ids
                .as_ref()
                .is_some_and(|ids| !ids.contains(&EventId::from_byte_array(*record.id())))
        {
            return Ok(false);
        }
        if filter.authors.is_none() && filter.generic_tags.is_empty() {
            return Ok(true);
        }
        let (author, parts) = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let parts = record.parse()?;
                none.insert((PublicKey::from_hex(&parts.pubkey).ok(), parts))
            }
        };
        let by_author = filter
            .authors
            .as_ref()
            .is_none_or(|authors| author.is_some_and(|author| authors.contains(&author)));
        Ok(by_author && tags_match(filter, &parts.tags))
    }
}

/// A record's place in the order of results: newest first, then by the first bytes of the id, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Reverse<u64>, [u8; 8], Sequence);

impl Place {
    pub(super) fn of(record: &Record<'_>) -> Self {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&record.id()[..8]);
        Self(Reverse(record.created_at()), prefix, record.sequence())
    }
}

/// What a filter that was answered has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All that matches it.
    All,
    /// What stands at or before this place.
    UpTo(Place),
    /// Nothing: its limit was zero.
    Nothing,
}

/// What earlier filters of a request have given, so that nothing is given twice; remembers no ids.
#[derive(Debug, Default)]
pub(super) struct Given {
    extents: Vec<Extent>,
}

impl Given {
    /// The next filter has given `count` results, the last of them at `last`.
    pub(super) fn finish(&mut self, filter: &Filter, count: usize, last: Option<Place>) {
        self.extents
            .push(if filter.limit.is_some_and(|limit| count >= limit) {
                last.map_or(Extent::Nothing, Extent::UpTo)
            } else {
                Extent::All
            });
    }

    /// How many filters are done.
    pub(super) fn filters_done(&self) -> usize {
        self.extents.len()
    }

    /// Whether one of the filters that are done, the first of `filters`, has given this record.
    pub(super) fn contains(
        &self,
        filters: &[Filter],
        record: &Record<'_>,
    ) -> Result<bool, StoreError> {
        let place = Place::of(record);
        let mut candidate = Candidate::new(record);
        for (filter, extent) in filters.iter().zip(&self.extents) {
            let reached = match extent {
                Extent::All => true,
                Extent::UpTo(last) => place <= *last,
                Extent::Nothing => false,
            };
            if reached && candidate.matches(filter)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
