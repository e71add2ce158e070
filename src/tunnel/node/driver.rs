//! The task that owns the swarm: commands in, events in, a tick (`upkeep`); connections, streams and state out.
//!
//! Reacts and never waits for anything but its inputs, so that no peer holds up another. Publishes what it sees at most
//! four times a second. Ends when its node is dropped or its task group ends. Worst case: a flood of events makes the
//! state late; requests wait in a bounded queue meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use libp2p::Swarm;
use libp2p::futures::StreamExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::addresses::{SharedBook, leads_through, opened, without_peer};
use super::behaviour::Behaviour;
use super::describe::dial_error;
use super::dialler::{Dialler, Step};
use super::links::Links;
use super::listeners::Listeners;
use super::options::{KademliaMode, NodeOptions};
use super::rendezvous::Rendezvous;
use super::reservations::Reservations;
use super::streams::{Door, OpenRequest, Weary};
use crate::random::Random;
use crate::time::Clock;
use crate::tunnel::{CarrierKind, CarrierState, Found, GuestList, Multiaddr, PeerId};

/// How often the driver looks at what is due and publishes what has changed.
const TICK: Duration = Duration::from_millis(250);
/// Addresses that others say they see us at; the oldest goes first.
const OBSERVED_MAX: usize = 8;

/// What a node asks of its driver.
#[derive(Debug)]
pub(super) enum Command {
    /// A stream.
    Open(PeerId, OpenRequest),
    /// A new address of a station is in the book.
    Learnt(PeerId),
}

/// What the driver hears and tells besides the swarm.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) kept: watch::Receiver<Arc<BTreeSet<PeerId>>>,
    pub(super) relays: watch::Receiver<Arc<Vec<PeerId>>>,
    /// Under which hash stations meet in the hash table.
    pub(super) meeting: watch::Receiver<Option<[u8; 32]>>,
    pub(super) guests: watch::Receiver<Arc<GuestList>>,
    pub(super) weary: mpsc::Receiver<Weary>,
    pub(super) found: mpsc::Sender<Found>,
    pub(super) state: watch::Sender<Arc<CarrierState>>,
}

/// The swarm's owner.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) ends: Ends,
    pub(super) door: Arc<Door>,
    pub(super) book: SharedBook,
    pub(super) links: Links,
    pub(super) dialler: Dialler,
    pub(super) listeners: Listeners,
    pub(super) reservations: Reservations,
    pub(super) rendezvous: Option<Rendezvous>,
    pub(super) kademlia: KademliaMode,
    pub(super) serve_relay: bool,
    is_private: bool,
    /// Whether the captain says how others reach us.
    pub(super) has_external: bool,
    pub(super) observed: VecDeque<Multiaddr>,
    /// Connections that a better one replaces, and since when.
    pub(super) superfluous: BTreeMap<ConnectionId, Instant>,
    pub(super) dirty: bool,
    pub(super) clock: Clock,
    pub(super) random: Random,
    door_changes: u64,
    pub(super) ticks: u32,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        ends: Ends,
        door: Arc<Door>,
        book: SharedBook,
        options: &NodeOptions,
        clock: Clock,
        random: Random,
    ) -> Self {
        let now = Instant::now();
        let rendezvous = match (options.kademlia, options.rendezvous) {
            (KademliaMode::Off, _) | (_, None) => None,
            (_, Some(key)) => Some(Rendezvous::new(key, now)),
        };
        let links = Links::new(*swarm.local_peer_id());
        Self {
            swarm,
            ends,
            door,
            book,
            links,
            dialler: Dialler::new(random.clone()),
            listeners: Listeners::default(),
            reservations: Reservations::new(&options.relays, now),
            rendezvous,
            kademlia: options.kademlia,
            serve_relay: options.serve_relay,
            is_private: options.swarm_key.is_some(),
            has_external: !options.external.is_empty(),
            observed: VecDeque::new(),
            superfluous: BTreeMap::new(),
            dirty: true,
            clock,
            random,
            door_changes: 0,
            ticks: 0,
        }
    }

    /// Runs until the node is dropped.
    ///
    /// Cancel safe: dropping it closes all connections.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.rethink_wanted();
        let mut guests_change = true;
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.ends.commands.recv() => match command {
                    Some(Command::Open(peer, request)) => self.open(peer, request),
                    Some(Command::Learnt(peer)) => self.dialler.hurry(&peer, Instant::now()),
                    None => return,
                },
                changed = self.ends.guests.changed(), if guests_change => match changed {
                    Ok(()) => self.rethink_guests(),
                    // Nobody changes it any more; the last one stays valid.
                    Err(_) => guests_change = false,
                },
                changed = self.ends.kept.changed() => match changed {
                    Ok(()) => self.rethink_wanted(),
                    Err(_) => return,
                },
                changed = self.ends.relays.changed() => match changed {
                    Ok(()) => self.rethink_relays(),
                    Err(_) => return,
                },
                changed = self.ends.meeting.changed() => match changed {
                    Ok(()) => self.meet_elsewhere(),
                    Err(_) => return,
                },
                Some(peer) = self.ends.weary.recv() => {
                    if !self.door.is_trusted(&peer) {
                        self.disconnect(peer);
                    }
                }
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    fn open(&mut self, peer: PeerId, request: OpenRequest) {
        if let Some(link) = self.links.best(&peer) {
            let id = link.id;
            self.swarm.behaviour_mut().streams.open(id, request);
        } else if let Some(step) = self.dialler.wait(peer, request, Instant::now()) {
            self.carry_out(step);
        }
    }

    /// Everyone who waited gets a stream asked for on the best connection.
    pub(super) fn serve_waiting(&mut self, peer: PeerId) {
        for request in self.dialler.connected(&peer) {
            self.open(peer, request);
        }
    }

    fn rethink_wanted(&mut self) {
        let kept = Arc::clone(&self.ends.kept.borrow_and_update());
        let relays = self.reservations.named();
        let wanted: Arc<BTreeSet<PeerId>> = Arc::new(kept.iter().copied().chain(relays).collect());
        opened(&self.book).set_wanted(Arc::clone(&wanted));
        self.door.set_wanted(wanted);
        self.swarm.behaviour_mut().reconsider();
        self.dialler.keep(kept, Instant::now());
        self.carry_out_due();
    }

    fn rethink_relays(&mut self) {
        let relays = Arc::clone(&self.ends.relays.borrow_and_update());
        self.reservations.offer(&relays, Instant::now());
    }

    fn rethink_guests(&mut self) {
        self.door.renew_offer();
        for peer in self.links.not_admitted_any_more(&self.door) {
            tracing::info!(%peer, "disconnected: not admitted any more");
            self.disconnect(peer);
        }
        self.swarm.behaviour_mut().reconsider();
        self.dirty = true;
    }

    /// At once: what still lies in buffers is not read any more.
    fn disconnect(&mut self, peer: PeerId) {
        self.swarm.behaviour().streams.cut(&peer);
        if self.swarm.disconnect_peer_id(peer).is_err() {
            tracing::debug!(%peer, "has gone by itself");
        }
    }

    pub(super) fn carry_out(&mut self, step: Step) {
        // A step may lead to the next at once: directly, through relays, an answer.
        let mut step = Some(step);
        while let Some(now) = step {
            step = match now {
                Step::Direct(peer) => self.dial(
                    peer,
                    DialOpts::peer_id(peer)
                        .condition(PeerCondition::Always)
                        .build(),
                ),
                Step::Relayed(peer) => {
                    let mut ways = opened(&self.book).relayed(&peer);
                    ways.extend(self.reservations.ways_to(peer));
                    let ours = *self.swarm.local_peer_id();
                    ways.retain(|way| !leads_through(way, &ours));
                    if ways.is_empty() {
                        self.dialler.failed(peer, None, None, Instant::now())
                    } else {
                        self.dial(
                            peer,
                            DialOpts::peer_id(peer)
                                .condition(PeerCondition::Always)
                                .addresses(ways)
                                .build(),
                        )
                    }
                }
            };
        }
    }

    fn dial(&mut self, peer: PeerId, options: DialOpts) -> Option<Step> {
        let dial = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialler.dialling(peer, dial);
                None
            }
            Err(error) => {
                let known = !matches!(error, DialError::NoAddresses);
                let detail = known.then(|| dial_error(&error, self.is_private));
                self.dialler.failed(peer, None, detail, Instant::now())
            }
        }
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId, dial: ConnectionId, error: &DialError) {
        let detail = Some(dial_error(error, self.is_private));
        let step = self
            .dialler
            .failed(peer, Some(dial), detail, Instant::now());
        if let Some(step) = step {
            self.carry_out(step);
        }
    }

    pub(super) fn carry_out_due(&mut self) {
        let (room, links) = (self.room_for_dials(), &self.links);
        let steps = self
            .dialler
            .due(Instant::now(), room, |peer| links.is_connected(peer));
        for step in steps {
            self.carry_out(step);
        }
    }

    pub(super) fn observe(&mut self, address: Multiaddr) {
        if !self.observed.contains(&address) {
            if self.observed.len() >= OBSERVED_MAX {
                self.observed.pop_front();
            }
            self.observed.push_back(address);
            self.dirty = true;
        }
    }

    /// Publishes the state if it has changed.
    pub(super) fn publish(&mut self) {
        let changes = self.door.changes();
        if !self.dirty && changes == self.door_changes {
            return;
        }
        self.dirty = false;
        self.door_changes = changes;
        let mut state = CarrierState::new(CarrierKind::Libp2p);
        let ours = *self.swarm.local_peer_id();
        let addresses = self
            .swarm
            .listeners()
            .chain(self.swarm.external_addresses())
            .chain(&self.observed);
        let addresses: BTreeSet<String> = addresses
            .filter_map(|address| without_peer(address, &ours))
            .map(|address| address.to_string())
            .collect();
        state.addresses = addresses.into_iter().collect();
        state.links = self.links.states(&self.door);
        (state.accepted, state.refused) = self.door.totals();
        state.problem = self.listeners.problem();
        self.ends.state.send_if_modified(|published| {
            let changed = **published != state;
            if changed {
                *published = Arc::new(state);
            }
            changed
        });
    }
}
