//! Changes to the captain's list of what is blocked, on their way to the writer.
//!
//! Takes one change; gives what became of it, durable. What is stored is settled afterwards, by sweeps.

use constellation_eventstore::{Block, BlockTarget, Blocking, StoreError, Writer};

/// A change to the captain's list of what is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChange {
    /// Put on it.
    Block(Block),
    /// Taken off it.
    Unblock(BlockTarget),
}

/// Changes the list of what is blocked.
///
/// # Errors
/// The store's; then it is as it was.
pub(super) fn write_list(writer: &mut Writer, change: &ListChange) -> Result<Blocking, StoreError> {
    let committed = writer.transact(|transaction| match change {
        ListChange::Block(block) => transaction.block(block),
        ListChange::Unblock(target) => {
            transaction.unblock(*target)?;
            Ok(Blocking::Listed)
        }
    })?;
    Ok(committed.value)
}
