//! The captain's word where no tunnels have started: kept on disk, in force when they do.
//!
//! So a station can be put out while kubo is away, or with tunnels switched off. Where a registry is open it is the one
//! that keeps these files; whoever opens one holds [`TrustFiles::busy`] until it is there. Blocks: off the runtime.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::added::{self, ADDED_MAX};
use super::captain::{CaptainError, another_station};
use super::reports::REVOKED_HERE;
use crate::peer::{PeerAddress, PeerId};
use crate::time::Clock;
use crate::trust::Ledger;

/// The files that hold the captain's word.
#[derive(Debug, Clone)]
pub struct TrustFiles {
    state: PathBuf,
    clock: Clock,
    /// Held by whoever reads or writes them.
    pub busy: Arc<Mutex<()>>,
}

impl TrustFiles {
    /// Those in a station's state folder.
    pub fn in_folder(state: PathBuf, clock: Clock) -> Self {
        Self {
            state,
            clock,
            busy: Arc::default(),
        }
    }

    /// Lets a station in.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn allow(&self, who: &str, own: PeerId) -> Result<PeerId, CaptainError> {
        let peer = another_station(who, own)?;
        let now = self.clock.unix_seconds();
        self.change_ledger(|ledger| Ok(ledger.allow(peer, None, now)?))?;
        Ok(peer)
    }

    /// Puts a station out, everywhere.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn revoke(&self, who: &str, own: PeerId) -> Result<PeerId, CaptainError> {
        let peer = another_station(who, own)?;
        let now = self.clock.unix_seconds();
        self.change_ledger(|ledger| Ok(ledger.revoke(peer, now)?))?;
        self.change_added(|added| added.retain(|address| address.peer_id() != Some(peer)))?;
        Ok(peer)
    }

    /// Adds a peer to exchange with; a station may also enter, unless our captain has revoked it: gives by whom it is out
    /// still.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn add(&self, address: PeerAddress, own: PeerId) -> Result<Option<String>, CaptainError> {
        let peer = address.peer_id();
        if peer == Some(own) {
            return Err(CaptainError::Ourselves);
        }
        let mut is_full = false;
        self.change_added(|added| {
            added.retain(|other| *other != address);
            is_full = added.len() >= ADDED_MAX;
            if !is_full {
                added.push(address);
            }
        })?;
        if is_full {
            return Err(CaptainError::TooMany);
        }
        let ledger = Ledger::load(&self.state.join("trust.json"))?;
        let is_out = peer.is_some_and(|peer| ledger.revoked().contains_key(&peer));
        Ok(is_out.then(|| REVOKED_HERE.to_owned()))
    }

    /// Takes back that a peer was added or allowed.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn remove(&self, who: &str, own: PeerId) -> Result<(), CaptainError> {
        let address = match who.parse::<PeerAddress>() {
            Ok(address) => address,
            Err(_) => PeerAddress::of_station(another_station(who, own)?),
        };
        let mut changed = self.change_added(|added| added.retain(|other| *other != address))?;
        if let Some(peer) = address.peer_id() {
            changed |= self.change_ledger(|ledger| Ok(ledger.remove(&peer)))?;
        }
        if changed {
            Ok(())
        } else {
            Err(CaptainError::NotKnown(address.to_string()))
        }
    }

    /// The peers that were added.
    ///
    /// # Errors
    /// [`CaptainError`].
    pub fn added(&self) -> Result<Vec<PeerAddress>, CaptainError> {
        Ok(added::load(&self.state.join("peers.json"))?)
    }

    fn change_ledger(
        &self,
        change: impl FnOnce(&mut Ledger) -> Result<bool, CaptainError>,
    ) -> Result<bool, CaptainError> {
        let path = self.state.join("trust.json");
        let before = Ledger::load(&path)?;
        let mut ledger = before.clone();
        let said_anew = change(&mut ledger)?;
        if ledger != before {
            ledger.save(&path)?;
        }
        Ok(said_anew)
    }

    fn change_added(
        &self,
        change: impl FnOnce(&mut Vec<PeerAddress>),
    ) -> Result<bool, CaptainError> {
        let path = self.state.join("peers.json");
        let before = added::load(&path)?;
        let mut now = before.clone();
        change(&mut now);
        let changed = now != before;
        if changed {
            added::save(&path, &now)?;
        }
        Ok(changed)
    }
}
