//! Follow lists and profiles, as the store has them.
//!
//! Takes the store; gives the newest kind 3 and kind 0 of an author, and whose follow lists may have changed since a
//! commit. Reads snapshots, a slice each. Blocks. Worst case: every record since that commit is looked at.

use std::collections::HashSet;
use std::ops::ControlFlow;

use constellation_eventstore::{Query, Readership, Record, Sequence, Snapshot, Store, StoreError};
use nostr::event::Kind;
use nostr::filter::Filter;
use nostr::key::PublicKey;

use super::keys::AuthorKey;
use crate::protocol::hex;

/// Follow lists, deletions, requests to vanish.
const FOLLOWS: u16 = 3;
const DELETION: u16 = 5;
const VANISH: u16 = 62;

/// Reads the newest replaceable events of many authors.
pub(crate) struct Newest<'s> {
    store: &'s Store,
    snapshot: Option<Snapshot<'s>>,
    now: u64,
}

impl std::fmt::Debug for Newest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newest").finish_non_exhaustive()
    }
}

impl<'s> Newest<'s> {
    /// `now` is Unix seconds: what has expired by then is not there.
    pub(crate) fn new(store: &'s Store, now: u64) -> Self {
        Self {
            store,
            snapshot: None,
            now,
        }
    }

    /// Whom an author follows; nobody, if we have no list.
    pub(super) fn follows(&mut self, author: &AuthorKey) -> Result<Vec<AuthorKey>, StoreError> {
        let found = self.newest(author, Some(FOLLOWS), |record| {
            let parts = record.parse()?;
            let followed = parts.tags.0.iter().filter_map(|tag| match tag.as_slice() {
                [name, key, ..] if name == "p" => hex::decode_array(key),
                _ => None,
            });
            Ok(followed.collect())
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The JSON of an author's newest event of a replaceable kind.
    pub(crate) fn event(
        &mut self,
        author: &AuthorKey,
        kind: u16,
    ) -> Result<Option<String>, StoreError> {
        self.newest(author, Some(kind), |record| Ok(record.json().to_owned()))
    }

    /// Whether anything by an author is stored.
    pub(crate) fn has_any(&mut self, author: &AuthorKey) -> Result<bool, StoreError> {
        Ok(self.newest(author, None, |_| Ok(()))?.is_some())
    }

    fn newest<T>(
        &mut self,
        author: &AuthorKey,
        kind: Option<u16>,
        read: impl Fn(&Record<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.snapshot.as_ref().is_some_and(Snapshot::should_yield) {
            self.snapshot = None;
        }
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.store.snapshot()?,
        };
        let mut filter = Filter::new()
            .author(PublicKey::from_byte_array(*author))
            .limit(1);
        if let Some(kind) = kind {
            filter = filter.kind(Kind::from_u16(kind));
        }
        let mut found = None;
        Query::new(filter, Readership::Full, &snapshot, self.now).advance(
            &snapshot,
            &mut |record| {
                found = Some(read(record));
                ControlFlow::Break(())
            },
        )?;
        self.snapshot = Some(snapshot);
        found.transpose()
    }
}

/// Whose follow lists may have changed by what was stored after `after`, as far as they are of somebody who `is_held`; and where
/// the look ended. What is taken or hidden without an event of its author is not seen here.
pub(super) fn changed_since(
    store: &Store,
    after: Sequence,
    is_held: impl Fn(&AuthorKey) -> bool,
) -> Result<(Sequence, HashSet<AuthorKey>), StoreError> {
    let mut changed = HashSet::new();
    let mut at = after;
    loop {
        let snapshot = store.snapshot()?;
        let mut failed = None;
        let (reached, finished) = snapshot.scan_after(at, &mut |record| {
            if !matches!(record.kind(), FOLLOWS | DELETION | VANISH) {
                return ControlFlow::Continue(());
            }
            match snapshot.author_of(record) {
                Ok(author) if is_held(&author) => {
                    changed.insert(author);
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        at = reached;
        if finished {
            return Ok((at, changed));
        }
    }
}
