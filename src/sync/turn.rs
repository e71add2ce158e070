//! Whose turn it is to make a run: one at a time for each station.
//!
//! Takes those who want a run; gives each its turn, or says that a run is in progress that does the same. Invariant: whoever
//! does not wait is turned away by a full run only: a brief one, with a few peers that a live link asked for, is no
//! substitute for what a captain wants. Deliberately absent: other processes, which the file lock keeps out. Worst case: a
//! captain waits for one brief run.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The turns of one station. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// Its one permit is held during a run.
    permit: Arc<Semaphore>,
    /// A full run has begun and has not ended.
    full: watch::Sender<bool>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    full: watch::Sender<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            permit: Arc::new(Semaphore::new(1)),
            full: watch::Sender::new(false),
        }
    }

    /// Whether somebody has the turn.
    pub(super) fn is_taken(&self) -> bool {
        self.permit.available_permits() == 0
    }

    /// Waits for whatever run is in progress.
    ///
    /// Cancel safety: nothing is taken before it is given.
    pub(super) async fn in_turn(&self, is_brief: bool) -> Turn {
        let permit = Arc::clone(&self.permit).acquire_owned().await;
        self.begin(permit.expect("nobody closes it"), is_brief)
    }

    /// Waits for brief runs in progress; `None` if a full one is, or begins first.
    ///
    /// Cancel safety: nothing is taken before it is given.
    pub(super) async fn unless_taken(&self) -> Option<Turn> {
        let mut full = self.full.subscribe();
        tokio::select! {
            biased;
            permit = Arc::clone(&self.permit).acquire_owned() => {
                Some(self.begin(permit.expect("nobody closes it"), false))
            }
            _ = full.wait_for(|full| *full) => None,
        }
    }

    fn begin(&self, permit: OwnedSemaphorePermit, is_brief: bool) -> Turn {
        self.full.send_replace(!is_brief);
        Turn {
            full: self.full.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Turn {
    /// Before the permit goes: whoever gets it next says itself what it is.
    fn drop(&mut self) {
        self.full.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, timeout};

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_captain_waits_for_a_brief_run_and_is_turned_away_by_a_full_one() {
        let turns = Turns::new();
        let brief = turns.in_turn(true).await;
        assert!(turns.is_taken());
        let waiting = timeout(SOON, turns.unless_taken()).await;
        assert!(waiting.is_err(), "turned away, or not one at a time");
        let mut captain = Box::pin(turns.unless_taken());
        assert!(timeout(SOON, &mut captain).await.is_err());
        drop(brief);
        let captains = captain.await.expect("it was a brief run");
        assert!(turns.unless_taken().await.is_none());
        drop(captains);
        drop(turns.unless_taken().await.expect("nobody has it"));
        assert!(!turns.is_taken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_run_that_was_waiting_first_makes_the_captains_unneeded() {
        let turns = Turns::new();
        let brief = turns.in_turn(true).await;
        let mut scheduled = Box::pin(turns.in_turn(false));
        assert!(timeout(SOON, &mut scheduled).await.is_err());
        let mut captain = Box::pin(turns.unless_taken());
        assert!(timeout(SOON, &mut captain).await.is_err());
        drop(brief);
        let scheduled = scheduled.await;
        assert!(captain.await.is_none());
        drop(scheduled);
    }
}
