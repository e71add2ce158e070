//! The door: lets streams in by the guest list, counts all that are open, and remembers who keeps knocking.
//!
//! Shared by all connections of a node; every call holds one lock for a few map operations. Takes negotiated streams;
//! gives them to the queue, or a counted [`Refusal`]. Invariant: what is let in is in the queue, what is not is
//! counted. Deliberately absent: closing connections (it reports the weary ones to the driver). Worst case: the bounds
//! below, and those of [`Refusals`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::upgrade::{Offer, Offered};
use super::wrapper::{ConnectionShare, Place, Tunnelled};
use crate::time::Clock;
use crate::tunnel::refusals::Refusals;
use crate::tunnel::{GuestList, InboundStream, PeerId, Refusal, ServiceName};

/// Streams that one station may have open here: a burst of 1,000 with some to spare.
pub(crate) const STREAMS_IN_PER_PEER: usize = 1_100;
/// Streams that all stations together may have open here.
pub(crate) const STREAMS_IN_TOTAL: usize = 4_096;
/// Streams that we may have open to one station. With those it opens they stay below what Yamux bears.
pub(crate) const STREAMS_OUT_PER_PEER: usize = 1_100;
/// The same towards whoever is neither admitted nor wanted: what a narrow connection bears, less the node's own.
pub(crate) const STREAMS_OUT_NARROW: usize = 16;
/// Names that scripts know by heart: attempts at them are counted also where they are not exposed.
const KNOWN_NAMES: [&str; 7] = [
    ServiceName::STRFRY,
    ServiceName::CONSTELLATION,
    "ssh",
    "ollama",
    "comfyui",
    "orpheus",
    "perplexica",
];

/// A peer that has knocked too often, to be disconnected.
pub(crate) type Weary = PeerId;

/// How many streams there are with a peer.
#[derive(Debug, Default)]
struct Open {
    inward: BTreeMap<ServiceName, usize>,
    inward_total: usize,
    outward: usize,
}

#[derive(Debug, Default)]
struct Ledger {
    open: HashMap<PeerId, Open>,
    inward_total: usize,
    accepted: u64,
    refusals: Refusals,
    changes: u64,
}

/// Counts of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inward: usize,
    pub(crate) outward: usize,
}

/// The door of a node.
#[derive(Debug)]
pub(crate) struct Door {
    local: PeerId,
    guests: watch::Receiver<Arc<GuestList>>,
    queue: mpsc::Sender<InboundStream>,
    weary: mpsc::Sender<Weary>,
    clock: Clock,
    wanted: Mutex<Arc<BTreeSet<PeerId>>>,
    offer: Mutex<Offer>,
    ledger: Mutex<Ledger>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    pub(crate) fn new(
        local: PeerId,
        guests: watch::Receiver<Arc<GuestList>>,
        queue: mpsc::Sender<InboundStream>,
        weary: mpsc::Sender<Weary>,
        clock: Clock,
    ) -> Self {
        let offer = Mutex::new(offer_of(&guests.borrow(), &local));
        Self {
            local,
            guests,
            queue,
            weary,
            clock,
            wanted: Mutex::default(),
            offer,
            ledger: Mutex::default(),
        }
    }

    /// Whether streams of this station are let in, some of them at least.
    pub(crate) fn is_admitted(&self, peer: &PeerId) -> bool {
        self.guests.borrow().enters_somewhere(peer)
    }

    /// Whether it is one of ours, for whom we do more than let streams in.
    pub(crate) fn is_one_of_us(&self, peer: &PeerId) -> bool {
        self.guests.borrow().is_admitted(peer)
    }

    /// Whether this station is out.
    pub(crate) fn is_banned(&self, peer: &PeerId) -> bool {
        self.guests.borrow().banned.contains(peer)
    }

    /// Whether a connection with it is worth keeping and may be wide: it is admitted, or we want to reach it.
    pub(crate) fn is_trusted(&self, peer: &PeerId) -> bool {
        let guests = self.guests.borrow();
        !guests.banned.contains(peer)
            && (guests.enters_somewhere(peer) || locked(&self.wanted).contains(peer))
    }

    /// Whom we want to reach.
    pub(crate) fn set_wanted(&self, wanted: Arc<BTreeSet<PeerId>>) {
        *locked(&self.wanted) = wanted;
    }

    /// To be called when the guest list has changed.
    pub(crate) fn renew_offer(&self) {
        *locked(&self.offer) = offer_of(&self.guests.borrow(), &self.local);
    }

    pub(super) fn offer(&self) -> Offer {
        locked(&self.offer).clone()
    }

    /// Whether a stream is open that would not be let in now.
    pub(crate) fn has_unwelcome_streams(&self, peer: &PeerId) -> bool {
        let guests = self.guests.borrow();
        locked(&self.ledger).open.get(peer).is_some_and(|open| {
            open.inward
                .keys()
                .any(|service| guests.admit(peer, service).is_err())
        })
    }

    /// Takes a negotiated stream: it is in the queue when this returns, or reset and counted.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: PeerId,
        service: &ServiceName,
        share: &Arc<ConnectionShare>,
        stream: libp2p::swarm::Stream,
    ) {
        if let Err(why) = self.let_in(peer, service, share, stream) {
            self.refuse(peer, service, why);
        }
    }

    fn let_in(
        self: &Arc<Self>,
        peer: PeerId,
        service: &ServiceName,
        share: &Arc<ConnectionShare>,
        stream: libp2p::swarm::Stream,
    ) -> Result<(), Refusal> {
        self.guests.borrow().admit(&peer, service)?;
        let room = self.queue.try_reserve().map_err(|_| Refusal::Overloaded)?;
        let release = self.count_inward(peer, service)?;
        let place = Place::new(Arc::clone(share), release);
        room.send(InboundStream {
            peer,
            service: service.clone(),
            stream: Box::new(Tunnelled::new(stream, place, None)),
        });
        Ok(())
    }

    fn count_inward(
        self: &Arc<Self>,
        peer: PeerId,
        service: &ServiceName,
    ) -> Result<Release, Refusal> {
        let mut ledger = locked(&self.ledger);
        let theirs = ledger.open.get(&peer).map_or(0, |open| open.inward_total);
        if theirs >= STREAMS_IN_PER_PEER || ledger.inward_total >= STREAMS_IN_TOTAL {
            return Err(Refusal::TooMany);
        }
        let open = ledger.open.entry(peer).or_default();
        open.inward_total += 1;
        *open.inward.entry(service.clone()).or_default() += 1;
        ledger.inward_total += 1;
        ledger.accepted += 1;
        ledger.changes += 1;
        Ok(Release {
            door: Arc::clone(self),
            peer,
            inward: Some(service.clone()),
        })
    }

    /// A place for a stream that we open; `None` if there are too many.
    pub(super) fn count_outward(
        self: &Arc<Self>,
        peer: PeerId,
        share: &Arc<ConnectionShare>,
        at_most: usize,
    ) -> Option<Place> {
        let mut ledger = locked(&self.ledger);
        let open = ledger.open.entry(peer).or_default();
        if open.outward >= at_most {
            return None;
        }
        open.outward += 1;
        ledger.changes += 1;
        drop(ledger);
        let release = Release {
            door: Arc::clone(self),
            peer,
            inward: None,
        };
        Some(Place::new(Arc::clone(share), release))
    }

    fn refuse(&self, peer: PeerId, service: &ServiceName, why: Refusal) {
        let now = self.clock.monotonic();
        let spent = {
            let mut ledger = locked(&self.ledger);
            ledger.changes += 1;
            ledger.refusals.note(peer, service, why, now)
        };
        if spent && why == Refusal::NotAdmitted && self.weary.try_send(peer).is_err() {
            // The driver has enough of them to do; the next attempt says so again.
            tracing::trace!(%peer, "not disconnected yet");
        }
    }

    /// Counts somebody who was turned away before it was known who it is, or before it opened a stream.
    pub(crate) fn count_refusal(&self, why: Refusal) {
        let mut ledger = locked(&self.ledger);
        ledger.changes += 1;
        ledger.refusals.note_nameless(why);
    }

    /// To be called now and then: logs what has been counted since a peer's last line.
    pub(crate) fn sweep(&self) {
        let now = self.clock.monotonic();
        locked(&self.ledger).refusals.sweep(now);
    }

    /// Streams open with a peer.
    pub(crate) fn counts(&self, peer: &PeerId) -> Counts {
        locked(&self.ledger)
            .open
            .get(peer)
            .map_or_else(Counts::default, |open| Counts {
                inward: open.inward_total,
                outward: open.outward,
            })
    }

    /// Streams let in, and refused by reason, since the start.
    pub(crate) fn totals(&self) -> (u64, BTreeMap<Refusal, u64>) {
        let ledger = locked(&self.ledger);
        (ledger.accepted, ledger.refusals.counts().clone())
    }

    /// Grows with every change of what is counted.
    pub(crate) fn changes(&self) -> u64 {
        locked(&self.ledger).changes
    }
}

/// Everything exposed, and the known names.
fn offer_of(guests: &GuestList, local: &PeerId) -> Offer {
    let known = KNOWN_NAMES
        .iter()
        .map(|name| name.parse().expect("a constant that is a service's name"));
    let names: BTreeSet<ServiceName> = guests.services.keys().cloned().chain(known).collect();
    let offered = names.into_iter().map(|name| Offered::new(name, local));
    Offer(Arc::new(offered.collect()))
}

/// Uncounts a stream when dropped.
#[derive(Debug)]
pub(crate) struct Release {
    door: Arc<Door>,
    peer: PeerId,
    /// The service, if the peer opened it.
    inward: Option<ServiceName>,
}

impl Drop for Release {
    fn drop(&mut self) {
        let mut guard = locked(&self.door.ledger);
        let ledger = &mut *guard;
        ledger.changes += 1;
        let Some(open) = ledger.open.get_mut(&self.peer) else {
            return;
        };
        match &self.inward {
            Some(service) => {
                open.inward_total -= 1;
                ledger.inward_total -= 1;
                if let Some(count) = open.inward.get_mut(service) {
                    *count -= 1;
                    if *count == 0 {
                        open.inward.remove(service);
                    }
                }
            }
            None => open.outward -= 1,
        }
        if open.inward_total == 0 && open.outward == 0 {
            ledger.open.remove(&self.peer);
        }
    }
}
