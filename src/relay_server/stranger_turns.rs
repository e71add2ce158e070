//! Turns of strangers at work that may take seconds: one at a time for each household, and a part of the readers for all.
//!
//! Takes who is at the other end; gives a turn to wait for, held until it is dropped. A household that asks for a hundred such
//! works at once waits for itself, in the order in which it asked; others wait for one of its works at most. Programs on this
//! machine and admitted stations wait for nobody here. What is kept is a semaphore for each household that is connected.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::addresses::Owner;
use super::context::{ReadError, RemoteParty};

/// Where all strangers' turns are.
#[derive(Debug)]
pub(super) struct StrangerTurns {
    all: Arc<Semaphore>,
    households: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// The turns of whoever is at the other end of one connection.
#[derive(Debug, Clone)]
pub(super) enum Turns {
    /// No need to wait.
    Trusted,
    /// Behind the household's others (if it is known), then behind other strangers.
    Stranger {
        own: Option<Arc<Semaphore>>,
        all: Arc<Semaphore>,
    },
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl StrangerTurns {
    /// So many works of strangers at a time.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(at_once)),
            households: Mutex::default(),
        }
    }

    /// The turns of this party's connection.
    pub(super) fn of(&self, party: &RemoteParty) -> Turns {
        let Owner::Stranger(household) = Owner::of(party) else {
            return Turns::Trusted;
        };
        let own = household.map(|household| {
            let mut households = self
                .households
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(own) = households.get(&household).and_then(Weak::upgrade) {
                return own;
            }
            households.retain(|_, own| own.strong_count() > 0);
            let own = Arc::new(Semaphore::new(1));
            households.insert(household, Arc::downgrade(&own));
            own
        });
        Turns::Stranger {
            own,
            all: Arc::clone(&self.all),
        }
    }
}

impl Turns {
    /// Whether it is a stranger who waits.
    pub(super) fn is_of_stranger(&self) -> bool {
        matches!(self, Self::Stranger { .. })
    }

    /// Waits for a turn. Cancel safe: who gives up waiting leaves the line.
    ///
    /// # Errors
    /// [`ReadError::BrokenOff`] when everything ends.
    pub(super) async fn wait(&self) -> Result<Turn, ReadError> {
        let Self::Stranger { own, all } = self else {
            return Ok(Turn {
                _permits: Vec::new(),
            });
        };
        let mut permits = Vec::new();
        // The own first, so that who waits for themselves takes no place from others.
        for line in own.iter().chain([all]) {
            let permit = Arc::clone(line).acquire_owned().await;
            permits.push(permit.map_err(|_| ReadError::BrokenOff)?);
        }
        Ok(Turn { _permits: permits })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn party(address: &str) -> RemoteParty {
        RemoteParty::of_tcp(address.parse().unwrap(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_household_waits_for_itself_and_nobody_who_is_trusted_waits() {
        let turns = StrangerTurns::new(2);
        let within = Duration::from_secs(1);
        let (first, second) = (
            turns.of(&party("192.0.2.1:5")),
            turns.of(&party("192.0.2.1:6")),
        );
        let taken = first.wait().await.unwrap();
        let waits = async || timeout(within, second.wait()).await.is_err();
        assert!(waits().await, "one at a time for a household");
        let other = turns.of(&party("192.0.2.2:5"));
        let of_other = other.wait().await.unwrap();
        let third = turns.of(&party("192.0.2.3:5"));
        assert!(
            timeout(within, third.wait()).await.is_err(),
            "two at a time"
        );
        let captain = turns.of(&party("127.0.0.1:5"));
        assert!(timeout(within, captain.wait()).await.is_ok());
        drop((taken, of_other));
        assert!(!waits().await, "it is free again");
        drop((first, second, other, third));
        let _new = turns.of(&party("192.0.2.9:5"));
        assert_eq!(turns.households.lock().unwrap().len(), 1);
    }
}
