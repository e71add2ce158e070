//! What differs from a peer for good reason, so that "converged" is decidable (D8).
//!
//! For each peer two sorted sets of (created_at, id): what it lists and we refuse, which is added to our set, and
//! what we have and it refuses, which is taken out of ours. Loading gives the sets as they stand now; entries
//! that have lapsed are named, so that the caller has them removed. What is stored but out of scope is taken out of our
//! set too (`outsiders.rs`), but for what the peer lists: that has an entry, and stays in both sets, until the scope
//! comes to cover it or the peer lists it no more. Bounded per peer, oldest dropped first. Knows peers by name only. Worst case: one look-up for each entry, at each exchange.

use std::collections::HashMap;
use std::ops::Bound;

use constellation_event::{CanonicalKey, Rejection};
use constellation_reconcile::{Item, VecSet};

use crate::StoreError;
use crate::known::{in_order, stored_among};
use crate::record::Header;
use crate::refusal::{Lapse, UNKNOWN_VERDICT_AUTHOR, VERDICT_LEN, Verdict, next_place};
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
    /// Entries that hold no longer; hand them to [`Transaction::remove_from_overlay`].
    pub lapsed: Vec<CanonicalKey>,
}

/// On disk: direction and whether the kind is known 1 ‖ the peer's code 1 ‖ verdict ‖ expires_at 8 (0: never) ‖ place in the order of eviction 8.
struct Entry {
    reason: OverlayReason,
    verdict: Verdict,
    kind_known: bool,
    expires_at: u64,
    place: [u8; 8],
}

const REFUSED_BY: u8 = 1;
const KIND_UNKNOWN: u8 = 2;
const ENTRY_LEN: usize = 2 + VERDICT_LEN + 8 + 8;

impl Entry {
    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        if let OverlayReason::RefusedBy(code) = self.reason {
            bytes[0] = REFUSED_BY;
            bytes[1] = code;
        }
        if !self.kind_known {
            bytes[0] |= KIND_UNKNOWN;
        }
        bytes[2..2 + VERDICT_LEN].copy_from_slice(&self.verdict.encode());
        bytes[2 + VERDICT_LEN..10 + VERDICT_LEN].copy_from_slice(&self.expires_at.to_be_bytes());
        bytes[10 + VERDICT_LEN..].copy_from_slice(&self.place);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_LEN] = bytes.try_into().ok()?;
        let verdict = Verdict::decode(&bytes[2..])?;
        let reason = if bytes[0] & REFUSED_BY != 0 {
            OverlayReason::RefusedBy(bytes[1])
        } else {
            OverlayReason::Refused(verdict.reason)
        };
        let kind_known = bytes[0] & KIND_UNKNOWN == 0;
        let mut expires_at = [0; 8];
        expires_at.copy_from_slice(&bytes[2 + VERDICT_LEN..10 + VERDICT_LEN]);
        let mut place = [0; 8];
        place.copy_from_slice(&bytes[10 + VERDICT_LEN..]);
        Some(Self {
            reason,
            verdict,
            kind_known,
            expires_at: u64::from_be_bytes(expires_at),
            place,
        })
    }
}

/// Peer 4 ‖ created_at 8 ‖ id 32. Whole time: what a hostile peer lists need not fit into five bytes.
fn overlay_key(peer: u32, key: &CanonicalKey) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..4].copy_from_slice(&peer.to_be_bytes());
    bytes[4..12].copy_from_slice(&key.created_at.to_be_bytes());
    bytes[12..].copy_from_slice(&key.id);
    bytes
}

fn parse_overlay_key(bytes: &[u8]) -> Option<CanonicalKey> {
    let bytes: &[u8; 44] = bytes.try_into().ok()?;
    let mut created_at = [0; 8];
    created_at.copy_from_slice(&bytes[4..12]);
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[12..]);
    Some(CanonicalKey {
        created_at: u64::from_be_bytes(created_at),
        id,
    })
}

fn order_key(peer: u32, place: [u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&peer.to_be_bytes());
    bytes[4..].copy_from_slice(&place);
    bytes
}

/// A peer's number and how many entries it has.
#[derive(Debug, Clone, Copy)]
struct PeerRow {
    number: u32,
    entries: u64,
}

impl PeerRow {
    fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.entries.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("peers: an entry cannot be read");
        let number = bytes
            .get(..4)
            .and_then(|part| part.try_into().ok())
            .ok_or_else(damaged)?;
        let entries = bytes
            .get(4..)
            .and_then(|part| part.try_into().ok())
            .ok_or_else(damaged)?;
        Ok(Self {
            number: u32::from_be_bytes(number),
            entries: u64::from_be_bytes(entries),
        })
    }
}

/// Peers are named by PeerID or URL; what does not fit a key is cut by a hash.
fn peer_name_key(name: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    if (1..=400).contains(&name.len()) {
        name.as_bytes().to_vec()
    } else {
        // No name begins with this byte, so no name is another one's hash. LMDB knows no empty key.
        [&[0xff], &Sha256::digest(name)[..]].concat()
    }
}

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
        let mut overlay = Overlay::default();
        let Some(row) = self.tables().peers.get(&self.txn, &peer_name_key(peer))? else {
            return Ok(overlay);
        };
        let number = PeerRow::decode(row)?.number;
        let entries = self.overlay_entries(number)?;
        let stored = self.shared_headers(&entries)?;
        let (mut refused, mut refused_by) = (Vec::new(), Vec::new());
        for ((key, entry), stored) in entries.into_iter().zip(stored) {
            let Some(kind) = self.holds(&key, &entry, stored.as_ref(), lapse)? else {
                overlay.lapsed.push(key);
                continue;
            };
            let kind_in_scope = kind.is_none_or(|kind| scope.kinds.contains(kind));
            if !kind_in_scope || !scope.contains_time(key.created_at) {
                continue;
            }
            let item = Item {
                timestamp: key.created_at,
                id: key.id,
            };
            match entry.reason {
                // Out of scope, and stored all the same: it is in our set as it is in the peer's.
                OverlayReason::Refused(_) if stored.is_some() => {}
                OverlayReason::Refused(_) => refused.push(item),
                OverlayReason::RefusedBy(_) => refused_by.push(item),
            }
            overlay.reasons.insert(key.id, entry.reason);
        }
        overlay.refused = VecSet::from_unsorted(refused);
        overlay.refused_by = VecSet::from_unsorted(refused_by);
        Ok(overlay)
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
        if entry.expires_at != 0 && entry.expires_at <= lapse.now {
            return Ok(None);
        }
        match entry.reason {
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
                OverlayReason::Refused(reason) => Verdict::unverified(reason, &new.key, new.kind),
                OverlayReason::RefusedBy(_) => {
                    Verdict::unverified(Rejection::Blocked, &new.key, new.kind)
                }
            };
            let kind_known = verdict.author != UNKNOWN_VERDICT_AUTHOR || new.kind.is_some();
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
