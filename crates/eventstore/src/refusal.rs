//! Verdicts on events that are not stored, so that they are neither fetched again nor counted as a difference (D8).
//!
//! A verdict that follows from the content of a verified event holds whoever lists the event: it is kept once,
//! under the id. A verdict is looked at anew whenever it is asked for, against what is stored at that moment, so none
//! outlives what it rests on: one that an event is superseded falls when its superseder goes (is deleted by its id,
//! expires and is swept, is purged), one that a version of an address is deleted when no tombstone says so, a future one
//! when its time comes, one out of scope when the scope comes to cover it (a deletion also when something of its author is
//! stored here), a blocked one when the captain takes it back.
//! Bounded, oldest dropped first.
//! Says nothing about what a peer lists: that is the overlay's.

use constellation_event::{CanonicalKey, Rejection, VerifiedEvent};

use crate::StoreError;
use crate::blocking::is_blocked;
use crate::index::{address_deleted_up_to, at_coordinate, decode_time};
use crate::keys::{self, AuthorNumber, CoordinateKey, Sequence};
use crate::record::Header;
use crate::store::Snapshot;
use crate::transaction::{Removed, Transaction};

/// A future event is asked for again this long before its time, as relays accept it then.
pub const FUTURE_TOLERANCE_SECONDS: u64 = 900;

const NO_COORDINATE: CoordinateKey = [0; 22];

/// What decides whether a verdict still stands.
pub struct Lapse<'l> {
    /// Unix seconds.
    pub now: u64,
    /// Whether the scope now covers this kind and author (32 bytes).
    pub covers: &'l dyn Fn(u16, &[u8; 32]) -> bool,
}

impl std::fmt::Debug for Lapse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lapse")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// A verdict that still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingRefusal {
    /// Why.
    pub reason: Rejection,
    /// The event's place in the canonical order.
    pub key: CanonicalKey,
}

impl StandingRefusal {
    /// That of an event that is kept and blocked.
    pub(crate) fn of_hidden(header: &Header) -> Self {
        Self {
            reason: Rejection::Blocked,
            key: header.canonical_key(),
        }
    }
}

/// What is remembered of a refused event. On disk, after the key: reason 1 ‖ created_at 8 ‖ kind 2 ‖ author 4 ‖
/// coordinate 22 ‖ place in the order of eviction 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: Rejection,
    pub(crate) created_at: u64,
    pub(crate) kind: u16,
    pub(crate) author: AuthorNumber,
    pub(crate) coordinate: CoordinateKey,
}

pub(crate) const VERDICT_LEN: usize = 1 + 8 + 2 + 4 + 22;

impl Verdict {
    pub(crate) fn encode(&self) -> [u8; VERDICT_LEN] {
        let mut bytes = [0; VERDICT_LEN];
        bytes[0] = self.reason.code();
        bytes[1..9].copy_from_slice(&self.created_at.to_be_bytes());
        bytes[9..11].copy_from_slice(&self.kind.to_be_bytes());
        bytes[11..15].copy_from_slice(&self.author.0.to_be_bytes());
        bytes[15..].copy_from_slice(&self.coordinate);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; VERDICT_LEN] = bytes.get(..VERDICT_LEN)?.try_into().ok()?;
        let mut created_at = [0; 8];
        created_at.copy_from_slice(&bytes[1..9]);
        let mut coordinate = NO_COORDINATE;
        coordinate.copy_from_slice(&bytes[15..]);
        Some(Self {
            reason: Rejection::from_code(bytes[0])?,
            created_at: u64::from_be_bytes(created_at),
            kind: u16::from_be_bytes([bytes[9], bytes[10]]),
            author: AuthorNumber(u32::from_be_bytes([
                bytes[11], bytes[12], bytes[13], bytes[14],
            ])),
            coordinate,
        })
    }
}

/// Whether an event of this kind deletes others: a deletion, or a request to vanish.
fn deletes(kind: u16) -> bool {
    matches!(kind, 5 | 62)
}

impl Snapshot<'_> {
    /// The verdict on an id that still stands, if there is one. What is stored and blocked is refused too.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn standing_refusal(
        &self,
        id: &[u8; 32],
        lapse: &Lapse<'_>,
    ) -> Result<Option<StandingRefusal>, StoreError> {
        match self.by_id(id)? {
            Some(record) if record.is_hidden() => {
                Ok(Some(StandingRefusal::of_hidden(&record.header)))
            }
            _ => self.recorded_refusal(id, lapse),
        }
    }

    /// As [`Snapshot::standing_refusal`], of an id that is not stored.
    pub(crate) fn recorded_refusal(
        &self,
        id: &[u8; 32],
        lapse: &Lapse<'_>,
    ) -> Result<Option<StandingRefusal>, StoreError> {
        let Some(value) = self.tables().refused.get(&self.txn, id)? else {
            return Ok(None);
        };
        let verdict = Verdict::decode(value)
            .ok_or_else(|| StoreError::damaged("refused: an entry cannot be read"))?;
        let key = CanonicalKey {
            created_at: verdict.created_at,
            id: *id,
        };
        Ok(self
            .still_stands(&verdict, &key, lapse)?
            .then_some(StandingRefusal {
                reason: verdict.reason,
                key,
            }))
    }

    pub(crate) fn still_stands(
        &self,
        verdict: &Verdict,
        key: &CanonicalKey,
        lapse: &Lapse<'_>,
    ) -> Result<bool, StoreError> {
        Ok(match verdict.reason {
            Rejection::Superseded => at_coordinate(self.tables(), &self.txn, &verdict.coordinate)?
                .is_some_and(|(_, current)| current.supersedes(key)),
            // Nothing but an earlier version of this program remembered one that no tombstone speaks of (see
            // `old_tombstones.rs`). What has no address is deleted by its id, for ever.
            Rejection::Deleted if verdict.coordinate != NO_COORDINATE => {
                self.has_tombstone(verdict, key)?
            }
            Rejection::Future => {
                lapse.now.saturating_add(FUTURE_TOLERANCE_SECONDS) < verdict.created_at
            }
            Rejection::OutOfScope => {
                let is_covered = (lapse.covers)(verdict.kind, &self.author_key(verdict.author)?);
                let matters = deletes(verdict.kind) && self.has_any_of(verdict.author)?;
                !(is_covered || matters)
            }
            Rejection::Blocked => is_blocked(
                self.tables(),
                &self.txn,
                &self.author_key(verdict.author)?,
                &key.id,
            )?,
            _ => true,
        })
    }

    /// Whether anything of this author is stored: then its deletions matter here, in scope or not (D10).
    ///
    /// # Errors
    /// The database's.
    pub fn has_any_by(&self, author: &[u8; 32]) -> Result<bool, StoreError> {
        match self.author_number(author)? {
            Some(author) => self.has_any_of(author),
            None => Ok(false),
        }
    }

    fn has_any_of(&self, author: AuthorNumber) -> Result<bool, StoreError> {
        let by_author = self.tables().by_author;
        let prefix = author.0.to_be_bytes();
        Ok(by_author
            .prefix_iter(&self.txn, &prefix)?
            .next()
            .transpose()?
            .is_some())
    }

    /// Whether a version of an address is deleted: it, the address, or all that its author wrote then.
    fn has_tombstone(&self, verdict: &Verdict, key: &CanonicalKey) -> Result<bool, StoreError> {
        let tables = self.tables();
        let of_id = keys::deleted_id_key(&key.id, verdict.author);
        if tables.deleted_ids.get(&self.txn, &of_id)?.is_some() {
            return Ok(true);
        }
        let of_address = address_deleted_up_to(tables, &self.txn, &verdict.coordinate)?;
        let of_author = tables
            .vanished
            .get(&self.txn, &verdict.author.0.to_be_bytes())?;
        let until = of_address.max(decode_time(of_author)?);
        Ok(until.is_some_and(|until| key.created_at <= until))
    }
}

impl Transaction<'_> {
    /// Remembers that a verified event was refused, for a reason that holds whoever lists it.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn refuse(&mut self, event: &VerifiedEvent, reason: Rejection) -> Result<(), StoreError> {
        debug_assert!(
            reason.is_global(),
            "{reason} depends on who sends the event"
        );
        let verdict = self.verdict(event, reason)?;
        self.remember(&event.id(), &verdict)
    }

    /// Removes a stored event and remembers why: a peer that still lists it is not asked for it (D8).
    pub(crate) fn remove_refused(
        &mut self,
        sequence: Sequence,
        reason: Rejection,
    ) -> Result<Removed, StoreError> {
        let removed = self.remove(sequence)?;
        let verdict = Verdict {
            reason,
            created_at: removed.key.created_at,
            kind: removed.kind,
            author: removed.author,
            coordinate: removed.coordinate.unwrap_or(NO_COORDINATE),
        };
        self.remember(&removed.key.id, &verdict)?;
        Ok(removed)
    }

    fn remember(&mut self, id: &[u8; 32], verdict: &Verdict) -> Result<(), StoreError> {
        self.forget_refusal(id)?;
        let place = next_place(self.tables.refused_order.last(&self.txn)?);
        let mut value = verdict.encode().to_vec();
        value.extend_from_slice(&place);
        self.tables.refused.put(&mut self.txn, id, &value)?;
        self.tables.refused_order.put(&mut self.txn, &place, id)?;
        while self.tables.refused.len(&self.txn)? > self.options().refused_max {
            let Some((_, oldest)) = self.tables.refused_order.first(&self.txn)? else {
                break;
            };
            let oldest: [u8; 32] = oldest
                .try_into()
                .map_err(|_| StoreError::damaged("refused_order: id of the wrong length"))?;
            self.forget_refusal(&oldest)?;
        }
        Ok(())
    }

    fn forget_refusal(&mut self, id: &[u8; 32]) -> Result<(), StoreError> {
        let Some(value) = self.tables.refused.get(&self.txn, id)? else {
            return Ok(());
        };
        let place = value
            .get(VERDICT_LEN..)
            .ok_or_else(|| StoreError::damaged("refused: an entry is too short"))?
            .to_vec();
        self.tables.refused_order.delete(&mut self.txn, &place)?;
        self.tables.refused.delete(&mut self.txn, id)?;
        Ok(())
    }

    pub(crate) fn verdict(
        &mut self,
        event: &VerifiedEvent,
        reason: Rejection,
    ) -> Result<Verdict, StoreError> {
        let author = self.intern_author(event.author())?;
        let coordinate = if event.class().has_coordinate() {
            keys::coordinate_key(author, event.kind(), &event.identifier())
        } else {
            NO_COORDINATE
        };
        Ok(Verdict {
            reason,
            created_at: event.created_at(),
            kind: event.kind(),
            author,
            coordinate,
        })
    }

    /// What an overlay's entry for `reason` is made of: the verdict on the id, whether or not it still stands. An event
    /// that is stored and out of scope, or blocked, has none that counts: its record says what is needed.
    pub(crate) fn verdict_to_enter(
        &self,
        id: &[u8; 32],
        reason: Rejection,
    ) -> Result<Option<Verdict>, StoreError> {
        let is_about_stored = match reason {
            Rejection::OutOfScope => Some(false),
            Rejection::Blocked => Some(true),
            _ => None,
        };
        if let Some(hidden) = is_about_stored
            && let Some(record) = self.find(id)?
            && record.is_hidden() == hidden
        {
            return Ok(Some(Verdict {
                reason,
                created_at: record.created_at(),
                kind: record.kind(),
                author: record.header.author,
                coordinate: NO_COORDINATE,
            }));
        }
        Ok(self
            .tables
            .refused
            .get(&self.txn, id)?
            .and_then(Verdict::decode))
    }
}

/// One past the last place in an order of eviction.
pub(crate) fn next_place(last: Option<(&[u8], &[u8])>) -> [u8; 8] {
    let last = last
        .and_then(|(key, _)| key.get(key.len().checked_sub(8)?..)?.try_into().ok())
        .map_or(0, u64::from_be_bytes);
    (last + 1).to_be_bytes()
}

pub(crate) const UNKNOWN_VERDICT_AUTHOR: AuthorNumber = AuthorNumber(u32::MAX);

impl Verdict {
    /// A verdict about something that was never verified, or is not ours to judge: it has no author.
    pub(crate) fn unverified(reason: Rejection, key: &CanonicalKey, kind: Option<u16>) -> Self {
        Self {
            reason,
            created_at: key.created_at,
            kind: kind.unwrap_or_default(),
            author: UNKNOWN_VERDICT_AUTHOR,
            coordinate: NO_COORDINATE,
        }
    }
}
