//! What differs from a peer for good reason, so that "converged" is decidable (D8).
//!
//! For each peer two sorted sets of (created_at, id): what it lists and we refuse, which is added to our set, and
//! what we have and it refuses, which is taken out of ours. Loading gives the sets as they stand now; entries
//! that have lapsed are named, so that the caller has them removed. What is stored but out of scope is taken out of our
//! set too (`outsiders.rs`), but for what the peer lists: that has an entry, and stays in both sets, until the scope
//! comes to cover it or the peer lists it no more. What the peer lists and never delivers is added too, where it is
//! guessed to be: equal sums then do not mean equal sets, and whoever compares must say so. Under filters that name
//! authors only what is known to be listed under one of them is added. Bounded per peer, oldest dropped first: whoever
//! enters what has a verdict of its own had better look for room first. Knows peers by name only. Worst case: one look-up for each entry, at each exchange.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use constellation_event::{CanonicalKey, Rejection};
use constellation_reconcile::{Item, VecSet};

use crate::StoreError;
use crate::keys::AuthorNumber;
use crate::known::{in_order, stored_among};
use crate::overlay_entry::{
    Entry, PeerRow, order_key, overlay_key, parse_overlay_key, peer_name_key,
};
use crate::record::Header;
use crate::refusal::{Lapse, UNKNOWN_VERDICT_AUTHOR, Verdict, next_place};
use crate::set::SetScope;
use crate::store::Snapshot;
use crate::transaction::Transaction;

/// Why an id stands in a peer's overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OverlayReason {
    /// The peer lists it, we do not want it.
    Refused(Rejection),
    /// We have it, the peer does not want it. The number is the caller's code for the peer's reason.
    RefusedBy(u8),
    /// The peer lists it and did not deliver it when it was asked so many times. The entry holds until it expires and is
    /// kept for a while longer, so that it is known how often it was asked for. Its place is a guess, not above the true
    /// one: nobody knows more of it than the id.
    Undelivered(u8),
}

/// An entry to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOverlayEntry {
    /// The event's place, as the peer sees it.
    pub key: CanonicalKey,
    /// Why. A reason that [`Rejection::is_global`] takes its details from the verdict on the id.
    pub reason: OverlayReason,
    /// The event's kind as the peer sees it; `None` where nobody knows, and then it counts under any filter.
    pub kind: Option<u16>,
    /// Unix seconds from which the entry no longer holds.
    pub expires_at: Option<u64>,
    /// An author under whose filter the peer lists it; `None` where that is not known. Of what has a verdict it is the
    /// verdict's.
    pub author: Option<[u8; 32]>,
}

/// An id that the peer lists and did not deliver, in whatever part of its overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered {
    /// Where the entry is.
    pub key: CanonicalKey,
    /// How often the peer was asked.
    pub times: u8,
    /// Unix seconds from which it is to be asked again.
    pub until: u64,
    /// It is in the set of what is refused: not due, and in the part that was asked for.
    pub is_in_set: bool,
}

/// A peer's overlay as it stands now.
#[derive(Debug, Default)]
pub struct Overlay {
    /// To be added to our set: the peer lists them, we refuse them.
    pub refused: VecSet,
    /// To be taken out of our set: the peer refuses them, or they are out of scope and it does not list them.
    pub refused_by: VecSet,
    /// The reason of every entry that holds: of the ids in either set, but for those left out by
    /// [`Overlay::leave_out`], and of what is out of scope, stored, and listed by the peer, which is in neither.
    pub reasons: HashMap<[u8; 32], OverlayReason>,
    /// What the peer lists and did not deliver: all of it, whatever part was asked for. Those whose time has come are in
    /// neither set.
    pub undelivered: HashMap<[u8; 32], Undelivered>,
    /// Where authors were named: entries that hold, and of which nobody knows under which author the peer lists them. They
    /// are in neither set.
    pub of_nobody: HashMap<[u8; 32], NewOverlayEntry>,
    /// For how many more entries there is room before the oldest ones go.
    pub room: u64,
    /// Entries that hold no longer; hand them to [`Transaction::remove_from_overlay`].
    pub lapsed: Vec<CanonicalKey>,
}

/// So long after it was due to be asked for again it is forgotten how often an id was not delivered.
const UNDELIVERED_KEPT_SECONDS: u64 = 7 * 24 * 3600;

impl Snapshot<'_> {
    /// The part of a peer's overlay within `scope`, as it stands: what has lapsed, or is settled by what is stored
    /// now, is set aside.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn overlay(
        &self,
        peer: &str,
        scope: &SetScope,
        lapse: &Lapse<'_>,
    ) -> Result<Overlay, StoreError> {
        self.overlay_by(peer, scope, None, lapse)
    }

    /// The same; of what is refused only what the peer lists under one of these authors, if any are given.
    ///
    /// # Errors
    /// As [`Snapshot::overlay`].
    pub fn overlay_by(
        &self,
        peer: &str,
        scope: &SetScope,
        authors: Option<&[[u8; 32]]>,
        lapse: &Lapse<'_>,
    ) -> Result<Overlay, StoreError> {
        let mut overlay = Overlay {
            room: self.shared.options.overlay_max,
            ..Overlay::default()
        };
        let Some(row) = self.tables().peers.get(&self.txn, &peer_name_key(peer))? else {
            return Ok(overlay);
        };
        let number = PeerRow::decode(row)?.number;
        let authors = match authors {
            Some(authors) => Some(self.numbers_of(authors)?),
            None => None,
        };
        let entries = self.overlay_entries(number)?;
        overlay.room = overlay.room.saturating_sub(entries.len() as u64);
        let mut undelivered = Vec::new();
        let mut judged = HashSet::new();
        let stored = self.shared_headers(&entries)?;
        let (mut refused, mut refused_by) = (Vec::new(), Vec::new());
        for ((key, entry), stored) in entries.into_iter().zip(stored) {
            let Some(kind) = self.holds(&key, &entry, stored.as_ref(), lapse)? else {
                overlay.lapsed.push(key);
                continue;
            };
            let kind_in_scope = kind.is_none_or(|kind| scope.kinds.contains(kind));
            let is_in_scope = kind_in_scope && scope.contains_time(key.created_at);
            let author = entry.verdict.author;
            if let OverlayReason::Undelivered(times) = entry.reason {
                let is_listed = authors.as_ref().is_none_or(|them| them.contains(&author));
                undelivered.push(Undelivered {
                    key,
                    times,
                    until: entry.expires_at,
                    is_in_set: is_in_scope && is_listed && entry.expires_at > lapse.now,
                });
                continue;
            }
            judged.insert(key.id);
            if !is_in_scope {
                continue;
            }
            let item = Item {
                timestamp: key.created_at,
                id: key.id,
            };
            match entry.reason {
                // Out of scope, and stored all the same: it is in our set as it is in the peer's.
                OverlayReason::Refused(_) if stored.is_some() => {}
                OverlayReason::Refused(_) => match &authors {
                    Some(_) if author == UNKNOWN_VERDICT_AUTHOR => {
                        let entry = NewOverlayEntry {
                            key,
                            reason: entry.reason,
                            kind,
                            expires_at: Some(entry.expires_at).filter(|at| *at != 0),
                            author: None,
                        };
                        overlay.of_nobody.insert(key.id, entry);
                    }
                    Some(listed) if !listed.contains(&author) => {}
                    _ => refused.push(item),
                },
                OverlayReason::RefusedBy(_) => refused_by.push(item),
                OverlayReason::Undelivered(_) => {}
            }
            overlay.reasons.insert(key.id, entry.reason);
        }
        for entry in undelivered {
            // What is known of an id besides comes first; of two guesses the closer one does.
            let other = if judged.contains(&entry.key.id) {
                Some(entry)
            } else {
                overlay.undelivered.insert(entry.key.id, entry)
            };
            overlay.lapsed.extend(other.map(|other| other.key));
        }
        for (id, entry) in &overlay.undelivered {
            if entry.is_in_set {
                refused.push(Item {
                    timestamp: entry.key.created_at,
                    id: *id,
                });
                let reason = OverlayReason::Undelivered(entry.times);
                overlay.reasons.insert(*id, reason);
            }
        }
        overlay.refused = VecSet::from_unsorted(refused);
        overlay.refused_by = VecSet::from_unsorted(refused_by);
        Ok(overlay)
    }

    fn numbers_of(&self, authors: &[[u8; 32]]) -> Result<HashSet<AuthorNumber>, StoreError> {
        let mut numbers = HashSet::with_capacity(authors.len());
        for author in authors {
            numbers.extend(self.author_number(author)?);
        }
        Ok(numbers)
    }

    fn overlay_entries(&self, peer: u32) -> Result<Vec<(CanonicalKey, Entry)>, StoreError> {
        let mut entries = Vec::new();
        for found in self
            .tables()
            .overlay
            .prefix_iter(&self.txn, &peer.to_be_bytes())?
        {
            let (key, value) = found?;
            let (Some(key), Some(entry)) = (parse_overlay_key(key), Entry::decode(value)) else {
                return Err(StoreError::damaged("overlay: an entry cannot be read"));
            };
            entries.push((key, entry));
        }
        Ok(entries)
    }

    /// For each entry, the header of the shared event that is stored under its id.
    fn shared_headers(
        &self,
        entries: &[(CanonicalKey, Entry)],
    ) -> Result<Vec<Option<Header>>, StoreError> {
        let ids: Vec<[u8; 32]> = entries.iter().map(|(key, _)| key.id).collect();
        let mut headers = vec![None; ids.len()];
        for found in stored_among(self.tables(), &self.txn, &ids, &in_order(&ids))? {
            let (header, _) = Header::decode(found.sequence, found.bytes)?;
            headers[found.place] = Some(header).filter(Header::is_shared);
        }
        Ok(headers)
    }

    /// The kind of an entry that still holds, if it is known; `None` if the entry has lapsed. `stored` is the shared
    /// event with its id.
    fn holds(
        &self,
        key: &CanonicalKey,
        entry: &Entry,
        stored: Option<&Header>,
        lapse: &Lapse<'_>,
    ) -> Result<Option<Option<u16>>, StoreError> {
        let kept = match entry.reason {
            OverlayReason::Undelivered(_) => UNDELIVERED_KEPT_SECONDS,
            OverlayReason::Refused(_) | OverlayReason::RefusedBy(_) => 0,
        };
        if entry.expires_at != 0 && entry.expires_at.saturating_add(kept) <= lapse.now {
            return Ok(None);
        }
        match entry.reason {
            // Another peer delivered it.
            OverlayReason::Undelivered(_) => {
                let is_known = stored.is_some() || self.recorded_refusal(&key.id, lapse)?.is_some();
                Ok((!is_known).then(|| entry.kind_known.then_some(entry.verdict.kind)))
            }
            // Stored after all, from elsewhere: then it is in our set, and must not be added twice. What is out of
            // scope would be taken out of it, were it not for this entry.
            OverlayReason::Refused(reason)
                if stored.is_some() && reason != Rejection::OutOfScope =>
            {
                Ok(None)
            }
            OverlayReason::Refused(_) => {
                let stands = match stored {
                    // A deletion too, that was taken though its author is not in scope.
                    Some(header) => !(lapse.covers)(header.kind, &self.author_key(header.author)?),
                    None => self.still_stands(&entry.verdict, key, lapse)?,
                };
                Ok(stands.then(|| entry.kind_known.then_some(entry.verdict.kind)))
            }
            // What is taken out of our set must be in it: the stored event's kind decides, not the one claimed.
            OverlayReason::RefusedBy(_) => Ok(stored
                .filter(|header| header.created_at == key.created_at)
                .map(|header| Some(header.kind))),
        }
    }
}

impl Transaction<'_> {
    /// Enters ids into a peer's overlay; an entry under the same key is replaced.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn add_to_overlay(
        &mut self,
        peer: &str,
        entries: &[NewOverlayEntry],
    ) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let name = peer_name_key(peer);
        let mut row = self.peer_row(&name)?;
        for new in entries {
            self.remove_entry(&mut row, &new.key)?;
            let verdict = match new.reason {
                OverlayReason::Refused(reason) if reason.is_global() => {
                    match self.verdict_to_enter(&new.key.id, reason)? {
                        Some(verdict) => verdict,
                        // Evicted meanwhile: it will be fetched and judged once more.
                        None => continue,
                    }
                }
                OverlayReason::Refused(reason) => self.unverified(reason, new)?,
                OverlayReason::RefusedBy(_) => self.unverified(Rejection::Blocked, new)?,
                OverlayReason::Undelivered(_) => self.unverified(Rejection::OutsideFilter, new)?,
            };
            let is_global =
                matches!(new.reason, OverlayReason::Refused(reason) if reason.is_global());
            let kind_known = is_global || new.kind.is_some();
            let place = self.next_overlay_place(row.number)?;
            let entry = Entry {
                reason: new.reason,
                verdict,
                kind_known,
                expires_at: new.expires_at.map_or(0, |at| at.max(1)), // 0 stands for never
                place,
            };
            let key = overlay_key(row.number, &new.key);
            self.tables
                .overlay
                .put(&mut self.txn, &key, &entry.encode())?;
            let order = order_key(row.number, place);
            self.tables.overlay_order.put(&mut self.txn, &order, &key)?;
            row.entries += 1;
            while row.entries > self.options().overlay_max {
                self.evict_oldest(&mut row)?;
            }
        }
        Ok(self.tables.peers.put(&mut self.txn, &name, &row.encode())?)
    }

    /// Removes entries from a peer's overlay; those that are not there are passed over.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn remove_from_overlay(
        &mut self,
        peer: &str,
        keys: &[CanonicalKey],
    ) -> Result<(), StoreError> {
        let name = peer_name_key(peer);
        let Some(row) = self.tables.peers.get(&self.txn, &name)? else {
            return Ok(());
        };
        let mut row = PeerRow::decode(row)?;
        for key in keys {
            self.remove_entry(&mut row, key)?;
        }
        Ok(self.tables.peers.put(&mut self.txn, &name, &row.encode())?)
    }

    fn unverified(
        &mut self,
        reason: Rejection,
        new: &NewOverlayEntry,
    ) -> Result<Verdict, StoreError> {
        let mut verdict = Verdict::unverified(reason, &new.key, new.kind);
        if let Some(author) = &new.author {
            verdict.author = self.intern_author(author)?;
        }
        Ok(verdict)
    }

    fn peer_row(&mut self, name: &[u8]) -> Result<PeerRow, StoreError> {
        if let Some(row) = self.tables.peers.get(&self.txn, name)? {
            return PeerRow::decode(row);
        }
        let number = u32::try_from(self.tables.peers.len(&self.txn)?)
            .map_err(|_| StoreError::damaged("peers: out of numbers"))?;
        let row = PeerRow { number, entries: 0 };
        self.tables.peers.put(&mut self.txn, name, &row.encode())?;
        Ok(row)
    }

    fn next_overlay_place(&self, peer: u32) -> Result<[u8; 8], StoreError> {
        let end = order_key(peer, [0xff; 8]);
        let start = order_key(peer, [0; 8]);
        let range = (Bound::Included(&start[..]), Bound::Included(&end[..]));
        let last = self
            .tables
            .overlay_order
            .rev_range(&self.txn, &range)?
            .next()
            .transpose()?;
        Ok(next_place(last))
    }

    fn remove_entry(&mut self, row: &mut PeerRow, key: &CanonicalKey) -> Result<(), StoreError> {
        let key = overlay_key(row.number, key);
        let Some(value) = self.tables.overlay.get(&self.txn, &key)? else {
            return Ok(());
        };
        let place = Entry::decode(value)
            .ok_or_else(|| StoreError::damaged("overlay: an entry cannot be read"))?
            .place;
        self.tables
            .overlay_order
            .delete(&mut self.txn, &order_key(row.number, place))?;
        self.tables.overlay.delete(&mut self.txn, &key)?;
        row.entries = row.entries.saturating_sub(1);
        Ok(())
    }

    fn evict_oldest(&mut self, row: &mut PeerRow) -> Result<(), StoreError> {
        let oldest = self
            .tables
            .overlay_order
            .prefix_iter(&self.txn, &row.number.to_be_bytes())?
            .next()
            .transpose()?
            .map(|(_, key)| key.to_vec());
        let key = oldest
            .as_deref()
            .and_then(parse_overlay_key)
            .ok_or_else(|| StoreError::damaged("overlay_order: entries are missing"))?;
        self.remove_entry(row, &key)
    }
}
