//! What is stored and shared, but whose author is not in scope: no part of our set towards a peer (D18).
//!
//! Takes a scope of kinds and time and who is in scope; gives the outsiders' places in the canonical order. The index
//! of authors is walked once, and each author who is in scope is passed over at a bound. In slices: a walk
//! goes on with the next snapshot where it stopped, so it may miss what is stored meanwhile, and name what is gone.
//! Whoever reconciles must bear both. Deliberately absent: what the peer makes of it (`overlay.rs`). Worst case: one
//! look-up for each outsider, and 40 bytes.

use std::ops::Bound;

use constellation_reconcile::{Item, VecSet};

use crate::StoreError;
use crate::keys::{self, AuthorNumber, SUFFIX_LEN, Suffix};
use crate::overlay::{Overlay, OverlayReason};
use crate::query::Progress;
use crate::record::Header;
use crate::set::SetScope;
use crate::store::Snapshot;

/// Entries looked at before the clock is asked.
const STEPS_PER_LOOK: u32 = 32;

/// A walk over the stored, shared events of authors that are not in scope.
#[derive(Debug)]
pub struct OutsiderWalk {
    found: Vec<Item>,
    /// The first key of the index of authors that was not looked at. LMDB knows no empty key.
    next: Vec<u8>,
}

impl Default for OutsiderWalk {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            next: vec![0],
        }
    }
}

impl OutsiderWalk {
    /// Goes on until the snapshot's slice of time is over. `covers` says whether an author is in scope.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn advance(
        &mut self,
        snapshot: &Snapshot<'_>,
        scope: &SetScope,
        covers: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Result<Progress, StoreError> {
        let by_author = snapshot.tables().by_author;
        let mut outsider: Option<AuthorNumber> = None;
        let mut step = 0u32;
        while let Some((key, _)) =
            by_author.get_greater_than_or_equal_to(&snapshot.txn, &self.next)?
        {
            let (author, kind) = author_and_kind(key)?;
            if outsider != Some(author) && !covers(&snapshot.author_key(author)?) {
                outsider = Some(author);
            }
            let after = if outsider == Some(author) {
                if scope.kinds.contains(kind)
                    && self.take(snapshot, scope, author, kind, &mut step)?
                {
                    return Ok(Progress::More);
                }
                after_kind(author, kind)
            } else {
                after_author(author)
            };
            let Some(after) = after else {
                break;
            };
            self.next = after;
            step = step.wrapping_add(1);
            if step.is_multiple_of(STEPS_PER_LOOK) && snapshot.should_yield() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// Takes what an author has of a kind; says whether it stopped in the middle.
    fn take(
        &mut self,
        snapshot: &Snapshot<'_>,
        scope: &SetScope,
        author: AuthorNumber,
        kind: u16,
        step: &mut u32,
    ) -> Result<bool, StoreError> {
        let prefix = keys::author_prefix(author, kind);
        let mut newest = prefix.to_vec();
        if let Some(until) = scope.until {
            newest.extend_from_slice(&Suffix::newest_at(until).0);
        }
        let start = newest.max(self.next.clone());
        let mut oldest = [0xff; SUFFIX_LEN];
        if let Some(since) = scope.since {
            oldest[..5].copy_from_slice(&Suffix::newest_at(since).0[..5]);
        }
        let end = [&prefix[..], &oldest].concat();
        if start > end {
            return Ok(false);
        }
        let range = (
            Bound::Included(start.as_slice()),
            Bound::Included(end.as_slice()),
        );
        let by_author = snapshot.tables().by_author;
        for entry in by_author.range(&snapshot.txn, &range)? {
            let (key, _) = entry?;
            *step = step.wrapping_add(1);
            if step.is_multiple_of(STEPS_PER_LOOK) && snapshot.should_yield() {
                self.next = key.to_vec();
                return Ok(true);
            }
            let sequence = Suffix::from_end_of(key)
                .ok_or_else(|| StoreError::damaged("by_author: key of the wrong length"))?
                .sequence();
            let bytes = snapshot
                .tables()
                .records
                .get(&snapshot.txn, &sequence.key())?
                .ok_or_else(|| {
                    StoreError::damaged(format!("by_author: no record {}", sequence.0))
                })?;
            let (header, _) = Header::decode(sequence, bytes)?;
            if header.is_shared() {
                self.found.push(Item {
                    timestamp: header.created_at,
                    id: header.id,
                });
            }
        }
        Ok(false)
    }

    /// What was found, in no order.
    pub fn into_items(self) -> Vec<Item> {
        self.found
    }
}

impl Overlay {
    /// Takes `outsiders`, what is stored but out of scope ([`OutsiderWalk`]), out of our set too,
    /// but for what the peer lists.
    pub fn leave_out(&mut self, outsiders: Vec<Item>) {
        let mut left_out = outsiders;
        left_out.retain(|item| {
            let reason = self.reasons.get(&item.id);
            !matches!(reason, Some(OverlayReason::Refused(_)))
        });
        left_out.extend_from_slice(self.refused_by.items());
        self.refused_by = VecSet::from_unsorted(left_out);
    }
}

fn author_and_kind(key: &[u8]) -> Result<(AuthorNumber, u16), StoreError> {
    let Some((head, _)) = key.split_first_chunk::<6>() else {
        return Err(StoreError::damaged("by_author: key of the wrong length"));
    };
    let [a, b, c, d, e, f] = *head;
    Ok((
        AuthorNumber(u32::from_be_bytes([a, b, c, d])),
        u16::from_be_bytes([e, f]),
    ))
}

/// Where the author's next kind begins.
fn after_kind(author: AuthorNumber, kind: u16) -> Option<Vec<u8>> {
    match kind.checked_add(1) {
        Some(kind) => Some(keys::author_prefix(author, kind).to_vec()),
        None => after_author(author),
    }
}

/// Where the next author begins.
fn after_author(author: AuthorNumber) -> Option<Vec<u8>> {
    let next = AuthorNumber(author.0.checked_add(1)?);
    Some(keys::author_prefix(next, 0).to_vec())
}
