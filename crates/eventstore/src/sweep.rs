//! Removing what has expired and what authors who vanished left behind, hiding and showing what is blocked, in slices.

use std::ops::Bound;

use crate::StoreError;
use crate::index::decode_time;
use crate::keys::{self, AuthorNumber, Sequence, Suffix};
use crate::rules::{KIND_GIFT_WRAP, KIND_VANISH};
use crate::store::{author_key, read_record};
use crate::transaction::Transaction;

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

impl Transaction<'_> {
    /// Removes what has expired by `now` and what authors who vanished left, and does with stored events what blocks ask
    /// for; at most `events_max` events.
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
        for (author, until) in self.vanishing_authors()? {
            // The indexes still name what was removed just now.
            self.flush()?;
            let (left_behind, finished) = self.records_until(author, until, room)?;
            room -= left_behind.len();
            report.vanished += left_behind.len() as u64;
            for sequence in left_behind {
                self.remove(sequence)?;
            }
            if !finished {
                break;
            }
            self.tables
                .vanishing
                .delete(&mut self.txn, &author.0.to_be_bytes())?;
        }
        self.flush()?;
        let moderated = self.settle_blocks(room)?;
        report.moderated = moderated as u64;
        room -= moderated.min(room);
        let waits = self.tables.moderating.first(&self.txn)?.is_some();
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

    fn vanishing_authors(&self) -> Result<Vec<(AuthorNumber, u64)>, StoreError> {
        let mut authors = Vec::new();
        for entry in self.tables.vanishing.iter(&self.txn)? {
            let (key, until) = entry?;
            let author = key
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| StoreError::damaged("vanishing: key of the wrong length"))?;
            authors.push((
                AuthorNumber(author),
                decode_time(Some(until))?.unwrap_or_default(),
            ));
        }
        Ok(authors)
    }

    /// Up to `events_max` events of `author` not newer than `until`, requests to vanish left out.
    fn records_until(
        &self,
        author: AuthorNumber,
        until: u64,
        events_max: usize,
    ) -> Result<(Vec<Sequence>, bool), StoreError> {
        let mut found = Vec::new();
        for entry in self
            .tables
            .by_author
            .prefix_iter(&self.txn, &author.0.to_be_bytes())?
        {
            let (key, _) = entry?;
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?;
            let kind = u16::from_be_bytes([key[4], key[5]]);
            if kind == KIND_VANISH || suffix.created_at() > until {
                continue;
            }
            if found.len() == events_max {
                return Ok((found, false));
            }
            found.push(suffix.sequence());
        }
        // Gift wraps are signed by throw-away keys: those for the author go too (NIP-62).
        let pubkey = author_key(self.tables, &self.txn, author)?;
        let addressee = nostr::key::PublicKey::from_byte_array(pubkey).to_hex();
        let prefix = keys::tag_prefix(b'p', &addressee);
        let newest = keys::tag_key(prefix, Suffix::newest_at(until));
        let oldest = keys::tag_key(prefix, Suffix([0xff; keys::SUFFIX_LEN]));
        let range = (Bound::Included(&newest[..]), Bound::Included(&oldest[..]));
        for entry in self.tables.by_tag.range(&self.txn, &range)? {
            let (key, _) = entry?;
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_tag: key of the wrong length"))?;
            if !self.is_gift_from_another(suffix.sequence(), author, &addressee)? {
                continue;
            }
            if found.len() == events_max {
                return Ok((found, false));
            }
            found.push(suffix.sequence());
        }
        Ok((found, true))
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
