//! Stored events that match a filter (NIP-01): newest first, then by lower id, exactly `limit` of them.
//!
//! Takes one filter; gives records in slices: [`Query::advance`] works on a snapshot until the slice's time is over
//! or the receiver is full, and goes on with the next snapshot where it stopped. Only what was stored when the
//! query was made is given. Merges as many index ranges as the filter has values; a filter with too many is
//! answered by walking a coarser index. Worst case: every event of the coarsest index is looked at, in slices.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::ops::{Bound, ControlFlow};

use constellation_event::tags_match;
use nostr::filter::{Filter, SingleLetterTag};
use nostr::key::PublicKey;

use crate::StoreError;
use crate::environment::Table;
use crate::keys::{self, AuthorNumber, Sequence, Suffix};
use crate::known::{in_order, stored_among};
use crate::record::Record;
use crate::store::Snapshot;

/// Index ranges merged at a time. A filter that needs more walks a coarser index.
const STREAMS_MAX: usize = 2_048;
/// Entries looked at before the clock is asked.
const STEPS_PER_LOOK: u32 = 32;

/// Kinds that only those involved may read: direct messages (NIP-04), and of NIP-17 the gift wraps and what is inside them, seals,
/// messages and files, which should never stand by themselves but sometimes do.
pub const PRIVATE_KINDS: [u16; 5] = [4, 13, 14, 15, 1059];

/// Whose eyes a query has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readership {
    /// May read everything: the station itself, its captain, admitted stations.
    Full,
    /// May read private kinds only where one of these keys is author or addressee.
    Keys(BTreeSet<PublicKey>),
}

impl Readership {
    /// Nobody in particular: no private kinds.
    pub fn public() -> Self {
        Self::Keys(BTreeSet::new())
    }

    /// Whether `record` may be shown.
    ///
    /// # Errors
    /// Damage.
    pub fn may_read(&self, record: &Record<'_>) -> Result<bool, StoreError> {
        let Self::Keys(keys) = self else {
            return Ok(true);
        };
        if !PRIVATE_KINDS.contains(&record.kind()) {
            return Ok(true);
        }
        if keys.is_empty() {
            return Ok(false);
        }
        let parts = record.parse()?;
        let involved = |hex: &str| PublicKey::from_hex(hex).is_ok_and(|key| keys.contains(&key));
        Ok(involved(&parts.pubkey)
            || parts.tags.0.iter().any(
                |tag| matches!(tag.as_slice(), [name, value, ..] if name == "p" && involved(value)),
            ))
    }
}

/// Where a query stands after a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Go on with a new snapshot.
    More,
    /// All that matched was given.
    Done,
}

/// One filter being answered.
#[derive(Debug)]
pub struct Query {
    filter: Filter,
    readership: Readership,
    now: u64,
    up_to: Sequence,
    remaining: usize,
    plan: Option<Plan>,
    resume: Option<Suffix>,
}

#[derive(Debug)]
struct Plan {
    source: Source,
    authors: Option<HashSet<AuthorNumber>>,
}

#[derive(Debug)]
enum Source {
    /// Found one by one: the records of these ids, in the order of results.
    Listed(Vec<Suffix>),
    /// Index ranges, merged.
    Streams(Vec<Stream>),
}

/// An index and the prefix of the keys in the range.
type Stream = (Index, Vec<u8>);

#[derive(Debug, Clone, Copy)]
enum Index {
    Time,
    Author,
    Kind,
    Tag,
}

impl Index {
    fn table(self, snapshot: &Snapshot<'_>) -> Table {
        let tables = snapshot.tables();
        match self {
            Self::Time => tables.by_time,
            Self::Author => tables.by_author,
            Self::Kind => tables.by_kind,
            Self::Tag => tables.by_tag,
        }
    }
}

impl Query {
    /// A query for what `snapshot` holds now. `now` is Unix seconds: what has expired by then is left out.
    pub fn new(filter: Filter, readership: Readership, snapshot: &Snapshot<'_>, now: u64) -> Self {
        Self {
            remaining: filter.limit.unwrap_or(usize::MAX),
            filter,
            readership,
            now,
            up_to: snapshot.last_sequence(),
            plan: None,
            resume: None,
        }
    }

    /// Gives matching records to `receive` until it breaks, the slice is over, or all were given.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn advance(
        &mut self,
        snapshot: &Snapshot<'_>,
        receive: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, StoreError> {
        if self.remaining == 0 || self.is_impossible() {
            return Ok(Progress::Done);
        }
        // What was listed on this very snapshot need not be looked up again.
        let mut at_hand = Vec::new();
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => self.make_plan(snapshot, &mut at_hand)?,
        };
        let progress = match &plan.source {
            Source::Listed(found) => self.walk_list(snapshot, &plan, found, &at_hand, receive),
            Source::Streams(streams) => self.walk_streams(snapshot, &plan, streams, receive),
        };
        self.plan = Some(plan);
        progress
    }

    /// A list that is there but empty matches nothing.
    fn is_impossible(&self) -> bool {
        self.filter.ids.as_ref().is_some_and(BTreeSet::is_empty)
            || self.filter.authors.as_ref().is_some_and(BTreeSet::is_empty)
            || self.filter.kinds.as_ref().is_some_and(BTreeSet::is_empty)
            || self.filter.generic_tags.values().any(BTreeSet::is_empty)
            || matches!((self.filter.since, self.filter.until), (Some(since), Some(until)) if since > until)
    }

    /// Records found one by one on the way are left in `listed`.
    fn make_plan<'t>(
        &self,
        snapshot: &'t Snapshot<'_>,
        listed: &mut Vec<Record<'t>>,
    ) -> Result<Plan, StoreError> {
        let authors = match &self.filter.authors {
            None => None,
            Some(keys) => {
                let mut numbers = HashSet::with_capacity(keys.len());
                for key in keys {
                    numbers.extend(snapshot.author_number(key.as_bytes())?);
                }
                Some(numbers)
            }
        };
        let source = match &self.filter.ids {
            Some(ids) => {
                let ids: Vec<[u8; 32]> = ids.iter().map(|id| id.to_bytes()).collect();
                let order = in_order(&ids);
                for found in stored_among(snapshot.tables(), &snapshot.txn, &ids, &order)? {
                    listed.push(Record::decode(found.sequence, found.bytes)?);
                }
                listed.sort_by_cached_key(Record::suffix);
                Source::Listed(listed.iter().map(Record::suffix).collect())
            }
            None => Source::Streams(self.streams(snapshot, authors.as_ref())?),
        };
        Ok(Plan { source, authors })
    }

    fn streams(
        &self,
        snapshot: &Snapshot<'_>,
        authors: Option<&HashSet<AuthorNumber>>,
    ) -> Result<Vec<Stream>, StoreError> {
        if let Some((letter, values)) = self.narrowest_tag()
            && values.len() <= STREAMS_MAX
        {
            return Ok(values
                .iter()
                .map(|value| {
                    (
                        Index::Tag,
                        keys::tag_prefix(letter.as_byte(), value).to_vec(),
                    )
                })
                .collect());
        }
        if let Some(authors) = authors
            && let Some(streams) = self.author_streams(snapshot, authors)?
        {
            return Ok(streams);
        }
        match &self.filter.kinds {
            Some(kinds) if kinds.len() <= STREAMS_MAX => Ok(kinds
                .iter()
                .map(|kind| (Index::Kind, kind.as_u16().to_be_bytes().to_vec()))
                .collect()),
            _ => Ok(vec![(Index::Time, Vec::new())]),
        }
    }

    fn narrowest_tag(&self) -> Option<(&SingleLetterTag, &BTreeSet<String>)> {
        self.filter
            .generic_tags
            .iter()
            .min_by_key(|(_, values)| values.len())
    }

    /// One range for each author and kind, or `None` if these are too many.
    fn author_streams(
        &self,
        snapshot: &Snapshot<'_>,
        authors: &HashSet<AuthorNumber>,
    ) -> Result<Option<Vec<Stream>>, StoreError> {
        let mut streams = Vec::new();
        for author in authors {
            let kinds: Vec<u16> = match &self.filter.kinds {
                Some(kinds) => kinds.iter().map(|kind| kind.as_u16()).collect(),
                None => match kinds_of_author(snapshot, *author, STREAMS_MAX - streams.len())? {
                    Some(kinds) => kinds,
                    None => return Ok(None),
                },
            };
            if streams.len() + kinds.len() > STREAMS_MAX {
                return Ok(None);
            }
            streams.extend(
                kinds
                    .iter()
                    .map(|kind| (Index::Author, keys::author_prefix(*author, *kind).to_vec())),
            );
        }
        Ok(Some(streams))
    }

    fn walk_list(
        &mut self,
        snapshot: &Snapshot<'_>,
        plan: &Plan,
        found: &[Suffix],
        at_hand: &[Record<'_>],
        receive: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, StoreError> {
        let start = match self.resume {
            None => 0,
            Some(last) => found.partition_point(|suffix| *suffix <= last),
        };
        for (step, (place, suffix)) in (1u32..).zip(found.iter().enumerate().skip(start)) {
            self.resume = Some(*suffix);
            let flow = match at_hand.get(place) {
                Some(record) => self.offer(plan, record, receive)?,
                None => self.offer_named(snapshot, plan, *suffix, receive)?,
            };
            if flow.is_break() {
                return Ok(if self.remaining == 0 {
                    Progress::Done
                } else {
                    Progress::More
                });
            }
            if step.is_multiple_of(STEPS_PER_LOOK) && snapshot.should_yield() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    fn walk_streams(
        &mut self,
        snapshot: &Snapshot<'_>,
        plan: &Plan,
        streams: &[Stream],
        receive: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, StoreError> {
        let mut readers = Vec::with_capacity(streams.len());
        let mut heads = BinaryHeap::with_capacity(streams.len());
        for (index, prefix) in streams {
            let mut reader = self.open_stream(snapshot, *index, prefix)?;
            if let Some(head) = reader.next() {
                heads.push(Reverse((head?, readers.len())));
            }
            readers.push(reader);
        }
        let mut step = 0u32;
        while let Some(Reverse((suffix, source))) = heads.pop() {
            if let Some(next) = readers[source].next() {
                heads.push(Reverse((next?, source)));
            }
            // An event with two of the tag values asked for stands in two ranges.
            if self.resume == Some(suffix) {
                continue;
            }
            self.resume = Some(suffix);
            if self
                .offer_named(snapshot, plan, suffix, receive)?
                .is_break()
            {
                return Ok(if self.remaining == 0 {
                    Progress::Done
                } else {
                    Progress::More
                });
            }
            step = step.wrapping_add(1);
            if step.is_multiple_of(STEPS_PER_LOOK) && snapshot.should_yield() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    fn open_stream<'t>(
        &self,
        snapshot: &'t Snapshot<'_>,
        index: Index,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Result<Suffix, StoreError>> + use<'t>, StoreError> {
        let with = |suffix: &[u8]| [prefix, suffix].concat();
        let start = match (self.resume, self.filter.until) {
            (Some(last), _) => Bound::Excluded(with(&last.0)),
            (None, Some(until)) => Bound::Included(with(&Suffix::newest_at(until.as_secs()).0)),
            // LMDB knows no empty key.
            (None, None) if prefix.is_empty() => Bound::Unbounded,
            (None, None) => Bound::Included(prefix.to_vec()),
        };
        let mut oldest = [0xff; keys::SUFFIX_LEN];
        if let Some(since) = self.filter.since {
            oldest[..5].copy_from_slice(&Suffix::newest_at(since.as_secs()).0[..5]);
        }
        let end = with(&oldest);
        let start = match &start {
            Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
            Bound::Included(key) => Bound::Included(key.as_slice()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let range = (start, Bound::Included(end.as_slice()));
        Ok(index
            .table(snapshot)
            .range(&snapshot.txn, &range)?
            .map(|entry| {
                let (key, _) = entry?;
                Suffix::from_end_of(key).ok_or_else(|| {
                    StoreError::damaged("a query index has a key of the wrong length")
                })
            }))
    }

    /// As [`Query::offer`], of the record that an index names.
    fn offer_named(
        &mut self,
        snapshot: &Snapshot<'_>,
        plan: &Plan,
        suffix: Suffix,
        receive: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        match snapshot.record(suffix.sequence())? {
            Some(record) => self.offer(plan, &record, receive),
            // Removed since a previous slice listed it.
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// Gives the record to the receiver if it matches. Breaks when the receiver is full or the limit is reached.
    fn offer(
        &mut self,
        plan: &Plan,
        record: &Record<'_>,
        receive: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        if !self.accepts(plan, record)? {
            return Ok(ControlFlow::Continue(()));
        }
        self.remaining -= 1;
        let flow = receive(record);
        Ok(if self.remaining == 0 {
            ControlFlow::Break(())
        } else {
            flow
        })
    }

    fn accepts(&self, plan: &Plan, record: &Record<'_>) -> Result<bool, StoreError> {
        let filter = &self.filter;
        let time = record.created_at();
        if record.is_hidden()
            || record.sequence() > self.up_to
            || record.is_expired(self.now)
            || filter.since.is_some_and(|since| time < since.as_secs())
            || filter.until.is_some_and(|until| time > until.as_secs())
            || plan
                .authors
                .as_ref()
                .is_some_and(|known| !known.contains(&record.header.author))
            || filter
                .kinds
                .as_ref()
                .is_some_and(|kinds| !kinds.contains(&record.kind().into()))
        {
            return Ok(false);
        }
        if !filter.generic_tags.is_empty() && !tags_match(filter, &record.parse()?.tags) {
            return Ok(false);
        }
        self.readership.may_read(record)
    }
}

/// The kinds of an author's events, or `None` if there are more than `most`.
fn kinds_of_author(
    snapshot: &Snapshot<'_>,
    author: AuthorNumber,
    most: usize,
) -> Result<Option<Vec<u16>>, StoreError> {
    let mut kinds = Vec::new();
    let mut from = Some(0u16);
    while let Some(kind) = from {
        let start = keys::author_prefix(author, kind);
        let Some((key, _)) = snapshot
            .tables()
            .by_author
            .get_greater_than_or_equal_to(&snapshot.txn, &start)?
        else {
            break;
        };
        if key.len() < 6 || key[..4] != author.0.to_be_bytes() {
            break;
        }
        if kinds.len() == most {
            return Ok(None);
        }
        let found = u16::from_be_bytes([key[4], key[5]]);
        kinds.push(found);
        from = found.checked_add(1);
    }
    Ok(Some(kinds))
}
