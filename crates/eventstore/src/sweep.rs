//! Removing what has expired and what authors who vanished left behind, hiding and showing what is blocked, in slices.
//!
//! A slice is measured by the entries it looks at, not by those it removes: an author who vanished may have been mentioned a
//! million times since. The place that was reached is kept with the author, in the same transaction; behind it nothing new
//! appears, because what an author who vanished left is refused from then on. Worst case of a slice: `events_max` entries.

use std::ops::Bound;

use crate::StoreError;
use crate::index::decode_time;
use crate::keys::{self, AuthorNumber, Sequence, Suffix};
use crate::rules::{KIND_GIFT_WRAP, KIND_VANISH};
use crate::store::{author_key, read_record};
use crate::transaction::Transaction;

/// Bytes of the time in an entry of `vanishing`; the place follows.
const VANISHING_TIME_LEN: usize = 5;
/// The end of every index's last key.
const LAST: Suffix = Suffix([0xff; keys::SUFFIX_LEN]);

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Events whose expiration has passed.
    pub expired: u64,
    /// Events of authors who asked to vanish.
    pub vanished: u64,
    /// Events that were looked at because a block was set or taken back.
    pub moderated: u64,
    /// More is to be done: sweep again.
    pub unfinished: bool,
}

/// An author whose events up to a time are to go, and how far that has come.
struct Vanishing {
    author: AuthorNumber,
    until: u64,
    /// Key of the last entry that was looked at; none yet when empty.
    reached: Vec<u8>,
}

/// What one look at an author who vanished found.
#[derive(Default)]
struct LeftBehind {
    /// Records to remove.
    records: Vec<Sequence>,
    /// Entries of the indexes that were looked at.
    looked_at: usize,
    /// Where to go on; nothing when all was looked at.
    reached: Option<Vec<u8>>,
}

impl Transaction<'_> {
    /// Removes what has expired by `now` and what authors who vanished left, and does with stored events what blocks ask
    /// for; looks at no more than `events_max` of them, removed or not.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn sweep(&mut self, now: u64, events_max: usize) -> Result<SweepReport, StoreError> {
        self.flush()?;
        let mut report = SweepReport::default();
        let expired = self.expired_records(now, events_max)?;
        for sequence in &expired {
            self.remove(*sequence)?;
        }
        report.expired = expired.len() as u64;
        let mut room = events_max - expired.len();
        while room > 0
            && let Some(vanishing) = self.first_vanishing()?
        {
            // The indexes still name what was removed just now.
            self.flush()?;
            let found = self.left_behind(&vanishing, room)?;
            // An author of whom nothing is stored counts like an event, so that many of them are no long slice either.
            room -= found.looked_at.max(1);
            report.vanished += found.records.len() as u64;
            for sequence in found.records {
                self.remove(sequence)?;
            }
            let key = vanishing.author.0.to_be_bytes();
            match found.reached {
                Some(reached) => {
                    let value = [&keys::time_key(vanishing.until)[..], &reached].concat();
                    self.tables.vanishing.put(&mut self.txn, &key, &value)?;
                }
                None => {
                    self.tables.vanishing.delete(&mut self.txn, &key)?;
                }
            }
        }
        self.flush()?;
        let moderated = self.settle_blocks(room)?;
        report.moderated = moderated as u64;
        room -= moderated.min(room);
        let waits = self.tables.moderating.first(&self.txn)?.is_some()
            || self.tables.vanishing.first(&self.txn)?.is_some();
        report.unfinished = (room == 0 || waits) && events_max > 0;
        Ok(report)
    }

    fn expired_records(&self, now: u64, events_max: usize) -> Result<Vec<Sequence>, StoreError> {
        let end = keys::time_key(now.saturating_add(1));
        let range = (Bound::Unbounded, Bound::Excluded(&end[..]));
        let mut expired = Vec::new();
        for entry in self
            .tables
            .expiry
            .range(&self.txn, &range)?
            .take(events_max)
        {
            let (key, _) = entry?;
            expired.push(
                key.get(5..)
                    .and_then(Sequence::from_key)
                    .ok_or_else(|| StoreError::damaged("expiry: key of the wrong length"))?,
            );
        }
        Ok(expired)
    }

    fn first_vanishing(&self) -> Result<Option<Vanishing>, StoreError> {
        let Some((key, value)) = self.tables.vanishing.first(&self.txn)? else {
            return Ok(None);
        };
        let damaged = || StoreError::damaged("vanishing: an entry of the wrong length");
        let author = key.try_into().map_err(|_| damaged())?;
        let (until, reached) = value
            .split_at_checked(VANISHING_TIME_LEN)
            .ok_or_else(damaged)?;
        Ok(Some(Vanishing {
            author: AuthorNumber(u32::from_be_bytes(author)),
            until: decode_time(Some(until))?.unwrap_or_default(),
            reached: reached.to_vec(),
        }))
    }

    /// What an author left behind, requests to vanish left out: first their own events, then the gift wraps for them, which are
    /// signed by throw-away keys (NIP-62). Looks at no more than `at_most` entries, going on where the last look ended.
    fn left_behind(&self, vanishing: &Vanishing, at_most: usize) -> Result<LeftBehind, StoreError> {
        let Vanishing { author, until, .. } = *vanishing;
        let mut found = LeftBehind::default();

        let own = author.0.to_be_bytes();
        let pubkey = author_key(self.tables, &self.txn, author)?;
        let addressee = nostr::key::PublicKey::from_byte_array(pubkey).to_hex();
        let mentions = keys::tag_prefix(b'p', &addressee);
        // The two indexes' keys have different lengths: the place tells which of them it stands in.
        let is_among_mentions = vanishing.reached.len() == keys::tag_key(mentions, LAST).len();

        if !is_among_mentions {
            let start = match &vanishing.reached[..] {
                [] => Bound::Included(&own[..]),
                reached => Bound::Excluded(reached),
            };
            let rest = (start, Bound::Unbounded);
            for entry in self.tables.by_author.range(&self.txn, &rest)? {
                let (key, _) = entry?;
                if !key.starts_with(&own) {
                    break;
                }
                let suffix = Suffix::from_end_of(key)
                    .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?;
                let kind = u16::from_be_bytes([key[4], key[5]]);
                if kind != KIND_VANISH && suffix.created_at() <= until {
                    found.records.push(suffix.sequence());
                }
                if found.is_enough(at_most, key) {
                    return Ok(found);
                }
            }
        }

        let newest = keys::tag_key(mentions, Suffix::newest_at(until));
        let oldest = keys::tag_key(mentions, LAST);
        let start = if is_among_mentions {
            Bound::Excluded(&vanishing.reached[..])
        } else {
            Bound::Included(&newest[..])
        };
        let rest = (start, Bound::Included(&oldest[..]));
        for entry in self.tables.by_tag.range(&self.txn, &rest)? {
            let (key, _) = entry?;
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_tag: key of the wrong length"))?;
            if self.is_gift_from_another(suffix.sequence(), author, &addressee)? {
                found.records.push(suffix.sequence());
            }
            if found.is_enough(at_most, key) {
                return Ok(found);
            }
        }
        Ok(found)
    }

    fn is_gift_from_another(
        &self,
        sequence: Sequence,
        author: AuthorNumber,
        addressee: &str,
    ) -> Result<bool, StoreError> {
        let Some(record) = read_record(self.tables, &self.txn, sequence)? else {
            return Ok(false);
        };
        if record.kind() != KIND_GIFT_WRAP || record.header.author == author {
            return Ok(false);
        }
        Ok(record.parse()?.tags.0.iter().any(
            |tag| matches!(tag.as_slice(), [name, value, ..] if name == "p" && value == addressee),
        ))
    }
}

impl LeftBehind {
    /// One more entry was looked at, the one of `key`; whether the look ends with it.
    fn is_enough(&mut self, at_most: usize, key: &[u8]) -> bool {
        self.looked_at += 1;
        let is_enough = self.looked_at >= at_most;
        if is_enough {
            self.reached = Some(key.to_vec());
        }
        is_enough
    }
}
