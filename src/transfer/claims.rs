//! Who fetches what: among the exchanges of one run, each missing id is asked of one peer at a time.
//!
//! An exchange claims ids just before it asks for them and lets them go when they are stored, refused or not
//! delivered; what another one holds it puts off and looks at again when something was let go. So each peer takes the
//! next free part of its own list, and all work at once. Whoever claims an id that was let go looks into the store
//! first: it may be there by then.
//!
//! Invariant: an id has at most one holder; a dropped [`Claimant`] holds nothing. Claims are only ever held for what
//! is being asked for, never while waiting for another's: no two exchanges can wait for each other. A claim whose
//! answer is overdue may be taken over, so a peer that stalls, or trickles, keeps an id from nobody for longer than
//! that. Bounded: ids under way, of as many exchanges as run at a time.
//!
//! It also counts the bytes that all exchanges of the run have fetched and not stored yet: memory is one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::CLAIM_OVERDUE;

type Id = [u8; 32];

/// The registry of one run.
#[derive(Debug, Default)]
pub struct Claims {
    registry: Mutex<Registry>,
    /// Counts what was let go.
    released: watch::Sender<u64>,
    unsettled: AtomicUsize,
}

#[derive(Debug, Default)]
struct Registry {
    held: HashMap<Id, Claim>,
    claimants: u64,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    holder: u64,
    since: Instant,
    /// The event has come: its fate is our store's matter, and nobody takes it over.
    delivered: bool,
}

/// One exchange's share in the registry. Dropping it lets everything go.
#[derive(Debug)]
pub struct Claimant {
    claims: Arc<Claims>,
    number: u64,
    unsettled: usize,
}

impl Claims {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Maps are whole after every line.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part.
    pub fn join(self: &Arc<Self>) -> Claimant {
        let mut registry = self.registry();
        registry.claimants += 1;
        Claimant {
            number: registry.claimants,
            claims: Arc::clone(self),
            unsettled: 0,
        }
    }

    /// Ids that are being fetched.
    pub fn held(&self) -> usize {
        self.registry().held.len()
    }

    /// Bytes that were fetched and are not stored yet.
    pub fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Waits until nothing is being fetched.
    pub async fn quiet(&self) {
        let mut released = self.released.subscribe();
        while self.held() > 0 {
            // The sender is ours: it cannot be gone.
            if released.changed().await.is_err() {
                return;
            }
        }
    }

    fn tell(&self) {
        self.released.send_modify(|count| *count += 1);
    }
}

impl Claimant {
    /// Changes when something was let go.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.claims.released.subscribe()
    }

    /// Whether no other exchange has taken part in this run so far.
    pub fn is_alone(&self) -> bool {
        self.claims.registry().claimants == 1
    }

    /// Claims what is free, in order, until `at_most` are claimed; says of each id that it looked at whether it was.
    pub fn claim(&self, ids: &[Id], at_most: usize) -> Vec<bool> {
        let now = Instant::now();
        let mut registry = self.claims.registry();
        let mut taken = 0;
        let mut claimed = Vec::with_capacity(ids.len().min(at_most));
        for id in ids {
            if taken == at_most {
                break;
            }
            let free = registry
                .held
                .get(id)
                .is_none_or(|claim| claim.holder != self.number && claim.is_overdue(now));
            if free {
                let claim = Claim {
                    holder: self.number,
                    since: now,
                    delivered: false,
                };
                registry.held.insert(*id, claim);
                taken += 1;
            }
            claimed.push(free);
        }
        claimed
    }

    /// These are being asked for now, which is what their time counts from; says of each whether it is still ours.
    pub fn renew(&self, ids: &[Id]) -> Vec<bool> {
        let now = Instant::now();
        let mut registry = self.claims.registry();
        ids.iter()
            .map(|id| match registry.held.get_mut(id) {
                Some(claim) if claim.holder == self.number => {
                    claim.since = now;
                    true
                }
                _ => false,
            })
            .collect()
    }

    /// The event of this id has come: nobody takes it over. Says whether it was still ours; what it brought is welcome
    /// in any case.
    pub fn delivered(&self, id: &Id) -> bool {
        let mut registry = self.claims.registry();
        match registry.held.get_mut(id) {
            Some(claim) if claim.holder == self.number => {
                claim.delivered = true;
                true
            }
            _ => false,
        }
    }

    /// Lets ids go: whoever wants them may claim them.
    pub fn release<'i>(&self, ids: impl IntoIterator<Item = &'i Id>) {
        let mut registry = self.claims.registry();
        let mut any = false;
        for id in ids {
            if registry
                .held
                .get(id)
                .is_some_and(|claim| claim.holder == self.number)
            {
                registry.held.remove(id);
                any = true;
            }
        }
        drop(registry);
        if any {
            self.claims.tell();
        }
    }

    /// Bytes have come that are to be stored.
    pub fn add_unsettled(&mut self, bytes: usize) {
        self.unsettled += bytes;
        self.claims.unsettled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Their fate is decided.
    pub fn settle(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unsettled);
        self.unsettled -= bytes;
        self.claims.unsettled.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of this exchange whose fate is not decided, and of all.
    pub fn unsettled(&self) -> (usize, usize) {
        (self.unsettled, self.claims.unsettled())
    }
}

impl Claim {
    fn is_overdue(&self, now: Instant) -> bool {
        !self.delivered && now.saturating_duration_since(self.since) > CLAIM_OVERDUE
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        let number = self.number;
        let mut registry = self.claims.registry();
        registry.held.retain(|_, claim| claim.holder != number);
        drop(registry);
        let unsettled = self.unsettled;
        self.settle(unsettled);
        self.claims.tell();
    }
}
