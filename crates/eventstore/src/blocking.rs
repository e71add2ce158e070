//! What the captain of this station blocked: keys of authors and ids of events (D17). Local: nobody else hears of it.
//!
//! Takes [`Block`]s into two tables; the rules ask them of every event that is offered, so nothing blocked is taken, and
//! what it would delete or supersede stays. What is stored already is settled in slices by [`Transaction::sweep`]: a
//! *block* hides it (kept, neither served nor shared, as it was once the block is taken back), a *purge* deletes it. A
//! target waits in a table of its own until that is done, with the place to go on from, so that a crash loses nothing.
//! A block is no tombstone: deletions that a blocked author made before stay in force. Where a key and an id both
//! speak of an event, the stronger word counts. Worst case: one look-up in each table for each event offered.

use std::ops::Bound;

use heed::{RoTxn, WithoutTls};

use crate::StoreError;
use crate::environment::{Table, Tables};
use crate::record::Header;
use crate::store::Snapshot;
use crate::transaction::Transaction;

/// Bytes of the captain's reason; longer ones are cut.
pub const BLOCK_REASON_BYTES_MAX: usize = 500;

/// What is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockTarget {
    /// All events by this public key.
    Author([u8; 32]),
    /// The event with this id.
    Event([u8; 32]),
}

/// One entry of the captain's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is blocked.
    pub target: BlockTarget,
    /// Whether what is stored of it is deleted, not only hidden.
    pub purged: bool,
    /// Unix seconds.
    pub since: u64,
    /// Why, for the captain's own memory; may be empty.
    pub reason: String,
}

/// What became of a wish to block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// It is on the list.
    Listed,
    /// The list is full.
    Full,
}

/// How much is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockedCounts {
    /// Public keys.
    pub authors: u64,
    /// Ids.
    pub events: u64,
}

/// What is to become of a stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Shown,
    Hidden,
    Purged,
}

const AUTHOR: u8 = 1;
const EVENT: u8 = 2;
const PURGED: u8 = 1;

impl BlockTarget {
    fn table(&self, tables: &Tables) -> Table {
        match self {
            Self::Author(_) => tables.blocked_authors,
            Self::Event(_) => tables.blocked_events,
        }
    }

    fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Author(bytes) | Self::Event(bytes) => bytes,
        }
    }

    /// Which table 1 ‖ key or id 32.
    pub(crate) fn waiting_key(&self) -> [u8; 33] {
        let mut key = [0; 33];
        key[0] = match self {
            Self::Author(_) => AUTHOR,
            Self::Event(_) => EVENT,
        };
        key[1..].copy_from_slice(self.bytes());
        key
    }

    pub(crate) fn from_waiting_key(key: &[u8]) -> Option<Self> {
        let (class, bytes) = key.split_first()?;
        let bytes = bytes.try_into().ok()?;
        match *class {
            AUTHOR => Some(Self::Author(bytes)),
            EVENT => Some(Self::Event(bytes)),
            _ => None,
        }
    }
}

impl Block {
    /// Whether purged 1 ‖ since 8 ‖ reason.
    fn encode(&self) -> Vec<u8> {
        let end = self.reason.floor_char_boundary(BLOCK_REASON_BYTES_MAX);
        let mut value = vec![if self.purged { PURGED } else { 0 }];
        value.extend_from_slice(&self.since.to_be_bytes());
        value.extend_from_slice(&self.reason.as_bytes()[..end]);
        value
    }

    fn decode(target: BlockTarget, value: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("blocked: an entry cannot be read");
        let (head, reason) = value.split_first_chunk::<9>().ok_or_else(damaged)?;
        let mut since = [0; 8];
        since.copy_from_slice(&head[1..]);
        Ok(Self {
            target,
            purged: head[0] & PURGED != 0,
            since: u64::from_be_bytes(since),
            reason: std::str::from_utf8(reason)
                .map_err(|_| damaged())?
                .to_owned(),
        })
    }
}

/// What the list says of an event.
pub(crate) fn fate(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    author: &[u8; 32],
    id: &[u8; 32],
) -> Result<Fate, StoreError> {
    let mut fate = Fate::Shown;
    for (table, key) in [
        (tables.blocked_authors, author),
        (tables.blocked_events, id),
    ] {
        // Most stations block nobody, and an empty table is known at once.
        if table.is_empty(txn)? {
            continue;
        }
        fate = fate.max(match table.get(txn, key)? {
            None => Fate::Shown,
            Some([flags, ..]) if flags & PURGED != 0 => Fate::Purged,
            Some(_) => Fate::Hidden,
        });
    }
    Ok(fate)
}

/// Whether an event is blocked, by its author or by its id.
pub(crate) fn is_blocked(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    author: &[u8; 32],
    id: &[u8; 32],
) -> Result<bool, StoreError> {
    Ok(fate(tables, txn, author, id)? != Fate::Shown)
}

impl Snapshot<'_> {
    /// How much is blocked.
    ///
    /// # Errors
    /// The database's.
    pub fn blocked_counts(&self) -> Result<BlockedCounts, StoreError> {
        Ok(BlockedCounts {
            authors: self.tables().blocked_authors.len(&self.txn)?,
            events: self.tables().blocked_events.len(&self.txn)?,
        })
    }

    /// The entry of a target, if it is on the list.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn block(&self, target: BlockTarget) -> Result<Option<Block>, StoreError> {
        let table = target.table(self.tables());
        let value = table.get(&self.txn, target.bytes())?;
        value.map(|value| Block::decode(target, value)).transpose()
    }

    /// The list after an entry (from the start without one), authors first; at most `at_most` of it.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn blocks_after(
        &self,
        after: Option<BlockTarget>,
        at_most: usize,
    ) -> Result<Vec<Block>, StoreError> {
        let mut blocks = Vec::new();
        if !matches!(after, Some(BlockTarget::Event(_))) {
            self.read_blocks(BlockTarget::Author, after, at_most, &mut blocks)?;
        }
        let after = after.filter(|after| matches!(after, BlockTarget::Event(_)));
        self.read_blocks(BlockTarget::Event, after, at_most, &mut blocks)?;
        Ok(blocks)
    }

    fn read_blocks(
        &self,
        target: fn([u8; 32]) -> BlockTarget,
        after: Option<BlockTarget>,
        at_most: usize,
        blocks: &mut Vec<Block>,
    ) -> Result<(), StoreError> {
        let start = after.map(|after| *after.bytes());
        let start = match &start {
            Some(start) => Bound::Excluded(&start[..]),
            None => Bound::Unbounded,
        };
        let table = target([0; 32]).table(self.tables());
        let room = at_most - blocks.len();
        for entry in table
            .range(&self.txn, &(start, Bound::Unbounded))?
            .take(room)
        {
            let (key, value) = entry?;
            let key = key
                .try_into()
                .map_err(|_| StoreError::damaged("blocked: key of the wrong length"))?;
            blocks.push(Block::decode(target(key), value)?);
        }
        Ok(())
    }

    /// Whether anything by this author was ever stored or judged here.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn knows_author(&self, pubkey: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.author_number(pubkey)?.is_some())
    }

    /// Whether an event with this id is stored or was judged here.
    ///
    /// # Errors
    /// The database's, or damage.
    pub fn knows_event(&self, id: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.tables().refused.get(&self.txn, id)?.is_some() || self.by_id(id)?.is_some())
    }

    /// What the list says of a stored event that it does not say of the record itself; `None` while events are still
    /// being settled.
    pub(crate) fn is_hidden_rightly(&self, header: &Header) -> Result<Option<bool>, StoreError> {
        if self.tables().moderating.first(&self.txn)?.is_some() {
            return Ok(None);
        }
        let author = self.author_key(header.author)?;
        let wanted = match fate(self.tables(), &self.txn, &author, &header.id)? {
            Fate::Shown => !header.hidden,
            Fate::Hidden => header.hidden,
            Fate::Purged => false,
        };
        Ok(Some(wanted))
    }
}

impl Transaction<'_> {
    /// Puts a target on the list, or changes its entry: once purged it stays so, and an empty reason keeps the old one.
    /// Nothing of it is taken from now on; what is stored is settled by sweeps.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn block(&mut self, block: &Block) -> Result<Blocking, StoreError> {
        let target = block.target;
        let table = target.table(self.tables);
        let mut block = block.clone();
        match table.get(&self.txn, target.bytes())? {
            Some(value) => {
                let before = Block::decode(target, value)?;
                block.purged |= before.purged;
                block.since = before.since;
                if block.reason.is_empty() {
                    block.reason = before.reason;
                }
            }
            None if table.len(&self.txn)? >= self.options().blocked_max => {
                return Ok(Blocking::Full);
            }
            None => {}
        }
        table.put(&mut self.txn, target.bytes(), &block.encode())?;
        self.settle_later(target)?;
        Ok(Blocking::Listed)
    }

    /// Takes a target off the list, and gives whether it was on it. What was hidden is shown again by sweeps.
    ///
    /// # Errors
    /// The database's; the transaction must then be given up.
    pub fn unblock(&mut self, target: BlockTarget) -> Result<bool, StoreError> {
        let table = target.table(self.tables);
        let was_listed = table.delete(&mut self.txn, target.bytes())?;
        if was_listed {
            self.settle_later(target)?;
        }
        Ok(was_listed)
    }

    /// From the start, also when an earlier word about the target was not carried out to the end.
    fn settle_later(&mut self, target: BlockTarget) -> Result<(), StoreError> {
        let key = target.waiting_key();
        Ok(self.tables.moderating.put(&mut self.txn, &key, &[])?)
    }

    pub(crate) fn is_blocked(&self, author: &[u8; 32], id: &[u8; 32]) -> Result<bool, StoreError> {
        is_blocked(self.tables, &self.txn, author, id)
    }
}
