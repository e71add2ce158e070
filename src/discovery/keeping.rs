//! Files of the registry: written one after the other, and never while anybody waits to ask who may enter.
//!
//! Takes changes; gives what came of them, on disk. Whoever changes what the captain said holds the pen from reading to
//! writing, so that no change is lost and the file's order is the one in which they count. The registry's lock is taken
//! only to read and to put in what is written. Invariant: the pen is taken before the lock, never while it is held; what
//! could not be written does not count. Deliberately absent: what is changed. Worst case: those who change wait for the
//! disk, one after the other; nobody else does.

use std::sync::{MutexGuard, PoisonError};

use super::added;
use super::captain::CaptainError;
use super::registry::Registry;
use crate::peer::PeerAddress;
use crate::trust::{Ledger, StateError};

/// The right to change what the captain said.
pub(super) type Pen<'p> = MutexGuard<'p, ()>;

impl Registry {
    /// Waits until nobody else changes what the captain said.
    pub(super) fn pen(&self) -> Pen<'_> {
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes our own word. If it cannot be written, nothing was said.
    pub(super) fn say<T, E: From<StateError>>(
        &self,
        _pen: &Pen<'_>,
        change: impl FnOnce(&mut Ledger) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.lock().ledger.clone();
        let mut ledger = before.clone();
        let answer = change(&mut ledger)?;
        if ledger != before {
            ledger.save(&self.options.state.join("trust.json"))?;
            self.change(|inner| inner.ledger = ledger);
        }
        Ok(answer)
    }

    /// Changes the peers that the captain added. If that cannot be written, nothing was said.
    pub(super) fn keep_added<T>(
        &self,
        _pen: &Pen<'_>,
        change: impl FnOnce(&mut Vec<PeerAddress>) -> Result<T, CaptainError>,
    ) -> Result<T, CaptainError> {
        let before = self.lock().added.clone();
        let mut added = before.clone();
        let answer = change(&mut added)?;
        if added != before {
            added::save(&self.options.state.join("peers.json"), &added)?;
            self.change(|inner| inner.added = added);
        }
        Ok(answer)
    }

    /// Writes the cards, if there is something new.
    pub fn save_cards(&self) {
        // Two that save at once would write into one draft, and the older copy could be the last.
        let _writing = self
            .cards_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let copy = {
            let mut inner = self.lock();
            if std::mem::replace(&mut inner.book_is_saved, true) {
                return;
            }
            inner.book.copy()
        };
        if let Err(error) = copy.save(&self.options.state.join("cards.json")) {
            tracing::error!(%error, "cannot keep the cards; it is tried again with the next one");
            self.lock().book_is_saved = false;
        }
    }
}
