//! Making stored events what the captain's list says of them: hidden, shown again, or gone; in slices.
//!
//! Takes the targets that wait; gives how many events were looked at. Each event becomes what the list says at that moment,
//! not what it said when the target began to wait, so a word that is taken back half-way leaves nothing half done. A
//! hidden event keeps its record, marked, and every index entry but that of the canonical index: queries pass it over, and the
//! set that is shared has it not. The place to go on from is kept with the target, in the same transaction. Worst case of a
//! slice: 16 MB of records and 256 events written anew.

use std::ops::Bound;

use constellation_event::Rejection;

use crate::StoreError;
use crate::blocking::{BlockTarget, Fate, fate};
use crate::environment::put_ascending;
use crate::keys::{self, Sequence, Suffix};
use crate::record::Header;
use crate::store::{author_key, read_record};
use crate::transaction::Transaction;

/// Records that are read between two looks at how much was written.
const SETTLED_AT_A_TIME: usize = 256;
/// Bytes of records written anew above which a slice ends: hidden events may be large.
const SETTLED_BYTES_MAX: usize = 16 << 20;

impl Transaction<'_> {
    /// Settles at most `room` stored events of targets that wait; gives how many were looked at.
    pub(crate) fn settle_blocks(&mut self, room: usize) -> Result<usize, StoreError> {
        let (mut looked_at, mut written) = (0, 0);
        while looked_at < room && written < SETTLED_BYTES_MAX {
            let Some((key, reached)) = self.tables.moderating.first(&self.txn)? else {
                break;
            };
            let target = BlockTarget::from_waiting_key(key)
                .ok_or_else(|| StoreError::damaged("moderating: a key cannot be read"))?;
            let reached = reached.to_vec();
            let piece = SETTLED_AT_A_TIME.min(room - looked_at);
            let (records, reached) = match target {
                BlockTarget::Author(author) => {
                    // The index still names what was removed just now.
                    self.flush()?;
                    self.records_of_author_after(&author, &reached, piece)?
                }
                BlockTarget::Event(id) => {
                    let found = self.find(&id)?.map(|record| record.sequence());
                    (found.into_iter().collect(), None)
                }
            };
            // A target counts like an event, so that many of which nothing is stored are no long slice either.
            looked_at += records.len().max(1);
            written += self.settle(&records)?;
            let key = target.waiting_key();
            match reached {
                Some(reached) => self.tables.moderating.put(&mut self.txn, &key, &reached)?,
                None => {
                    self.tables.moderating.delete(&mut self.txn, &key)?;
                }
            }
        }
        Ok(looked_at)
    }

    /// Up to `at_most` stored events of an author after a key of the index (from the start without one), and the key
    /// that was reached if there may be more.
    fn records_of_author_after(
        &self,
        author: &[u8; 32],
        after: &[u8],
        at_most: usize,
    ) -> Result<(Vec<Sequence>, Option<Vec<u8>>), StoreError> {
        let Some(author) = self.known_author(author)? else {
            return Ok((Vec::new(), None));
        };
        let prefix = author.0.to_be_bytes();
        let start = match after {
            [] => Bound::Included(&prefix[..]),
            after => Bound::Excluded(after),
        };
        let mut found = Vec::new();
        let mut reached = None;
        for entry in self
            .tables
            .by_author
            .range(&self.txn, &(start, Bound::Unbounded))?
            .take(at_most)
        {
            let (key, _) = entry?;
            if !key.starts_with(&prefix) {
                return Ok((found, None));
            }
            let suffix = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?;
            found.push(suffix.sequence());
            reached = Some(key.to_vec());
        }
        let is_end = found.len() < at_most;
        Ok((found, reached.filter(|_| !is_end)))
    }

    /// Makes records what the list says of them now; gives how many bytes were written for it.
    fn settle(&mut self, records: &[Sequence]) -> Result<usize, StoreError> {
        let mut purged = Vec::new();
        let (mut to_hide, mut to_show) = (Vec::new(), Vec::new());
        for sequence in records {
            let header = self.header_of(*sequence)?;
            let author = author_key(self.tables, &self.txn, header.author)?;
            match fate(self.tables, &self.txn, &author, &header.id)? {
                Fate::Purged => purged.push(*sequence),
                Fate::Hidden if !header.hidden => to_hide.push(*sequence),
                Fate::Shown if header.hidden => to_show.push(*sequence),
                Fate::Hidden | Fate::Shown => {}
            }
        }
        let (mut gone, hidden_bytes) = self.set_hidden(&to_hide, true)?;
        let (mut come, shown_bytes) = self.set_hidden(&to_show, false)?;
        // In the order of the keys, as everything that goes into an index.
        gone.sort_unstable();
        come.sort_unstable();
        for key in &gone {
            if !self.tables.canonical.delete(&mut self.txn, key)? {
                return Err(StoreError::damaged(
                    "a record that was hidden is missing from the canonical index",
                ));
            }
        }
        put_ascending(self.tables.canonical, &mut self.txn, &come)?;
        for sequence in purged {
            self.remove_refused(sequence, Rejection::Blocked)?;
        }
        Ok(hidden_bytes + shown_bytes)
    }

    fn header_of(&self, sequence: Sequence) -> Result<Header, StoreError> {
        read_record(self.tables, &self.txn, sequence)?
            .map(|record| record.header)
            .ok_or_else(|| StoreError::damaged(format!("an index names record {}", sequence.0)))
    }

    /// Writes records anew with the mark set or not; gives the keys of those that are shared when they are shown, and how
    /// many bytes were written.
    fn set_hidden(
        &mut self,
        records: &[Sequence],
        hidden: bool,
    ) -> Result<(Vec<[u8; keys::CANONICAL_LEN]>, usize), StoreError> {
        let mut shared = Vec::new();
        let mut written = 0;
        for sequence in records {
            let record = read_record(self.tables, &self.txn, *sequence)?.ok_or_else(|| {
                StoreError::damaged(format!("an index names record {}", sequence.0))
            })?;
            let (header, json) = (record.header, record.json().to_owned());
            let marked = Header { hidden, ..header };
            let mut bytes = Vec::with_capacity(marked.encoded_len(&json));
            marked
                .write_with(&json, &mut bytes)
                .map_err(|error| StoreError::damaged(format!("writing into memory: {error}")))?;
            self.tables
                .records
                .put(&mut self.txn, &sequence.key(), &bytes)?;
            let shown = Header {
                hidden: false,
                ..header
            };
            written += bytes.len();
            self.note_change(&shown, !hidden);
            if shown.is_shared() {
                shared.push(keys::canonical_key(shown.kind, shown.created_at, &shown.id));
            }
        }
        Ok((shared, written))
    }
}
