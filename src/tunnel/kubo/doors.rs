//! Where kubo hands in the streams that stations open: one private port of loopback for each exposed service.
//!
//! Takes connections that begin with `<PeerID>` and a line feed; gives [`InboundStream`]s into a bounded queue, or counts
//! a [`Refusal`]. Invariant: nothing after the line feed is lost, and nobody passes whom the guest list does not name at
//! that moment. What connects and is not kubo counts as not admitted. Worst case: 1,024 connections that say nothing
//! occupy the entrance for ten seconds; further ones wait in the system's queue. Only processes of kubo's user can do so.
//! A station that knocks too often is dropped when it has said its name, before anybody is looked up.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::callers::Callers;
use super::places::{PlacedStream, Places};
use crate::tasks::{GroupFull, TaskGroup};
use crate::time::Clock;
use crate::tunnel::refusals::Refusals;
use crate::tunnel::{GuestList, InboundStream, PeerId, Refusal, ServiceName};

/// Streams that wait for somebody to take them.
pub(super) const QUEUE: usize = 4_096;
/// Connections that have not said whose they are.
pub(super) const GREETINGS_MAX: usize = 1_024;
/// How long they may take: kubo says it at once.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a PeerID: the longest, of an RSA key in base 58 or a CID in base 36, has far fewer.
const GREETING_BYTES_MAX: usize = 128;
/// How long the port rests when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all doors share.
#[derive(Debug)]
pub(super) struct Entrance {
    guests: watch::Receiver<Arc<GuestList>>,
    places: Arc<Places>,
    callers: Arc<Callers>,
    queue: mpsc::Sender<InboundStream>,
    greetings: Arc<Semaphore>,
    accepted: AtomicU64,
    refusals: Mutex<Refusals>,
    clock: Clock,
}

impl Entrance {
    pub(super) fn new(
        guests: watch::Receiver<Arc<GuestList>>,
        places: Arc<Places>,
        callers: Arc<Callers>,
        queue: mpsc::Sender<InboundStream>,
        clock: Clock,
    ) -> Self {
        Self {
            guests,
            places,
            callers,
            queue,
            greetings: Arc::new(Semaphore::new(GREETINGS_MAX)),
            accepted: AtomicU64::new(0),
            refusals: Mutex::default(),
            clock,
        }
    }

    /// Streams let in.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Streams not let in.
    pub(super) fn refused(&self) -> BTreeMap<Refusal, u64> {
        self.refusals().counts().clone()
    }

    /// To be called now and then: logs what has been counted since a peer's last line.
    pub(super) fn sweep(&self) {
        let now = self.clock.monotonic();
        self.refusals().sweep(now);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, peer: Option<PeerId>, service: &ServiceName, refusal: Refusal) {
        let now = self.clock.monotonic();
        match peer {
            Some(peer) => {
                self.refusals().note(peer, service, refusal, now);
            }
            None => self.refusals().note_nameless(refusal),
        }
    }

    /// Hears who it is, and lets it in or not.
    async fn greet(&self, stream: TcpStream, caller: SocketAddr, door: u16, service: &ServiceName) {
        let mut named = None;
        match self.admit(stream, caller, door, service, &mut named).await {
            Ok(()) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => {
                self.refuse(named, service, refusal);
            }
        }
    }

    /// Whose stream kubo says it is; `None` also for whoever is not kubo, and for those who knock too often.
    async fn hear(
        &self,
        stream: &mut TcpStream,
        caller: SocketAddr,
        door: u16,
        service: &ServiceName,
    ) -> Option<PeerId> {
        let mut named = pin!(peer_of(stream));
        let mut is_kubo = pin!(self.callers.is_kubo(caller, door));
        // kubo says the name at once, and whoever is not kubo is not waited for until it does.
        tokio::select! {
            biased;
            peer = &mut named => {
                let peer = peer?;
                (!self.is_weary_of(&peer, service) && is_kubo.await).then_some(peer)
            }
            yes = &mut is_kubo => {
                if yes { named.await } else { None }
            }
        }
    }

    /// Whether it knocks too often, and still would not be let in.
    pub(super) fn is_weary_of(&self, peer: &PeerId, service: &ServiceName) -> bool {
        let now = self.clock.monotonic();
        self.refusals().is_weary_of(peer, now) && self.guests.borrow().admit(peer, service).is_err()
    }

    async fn admit(
        &self,
        mut stream: TcpStream,
        caller: SocketAddr,
        door: u16,
        service: &ServiceName,
        named: &mut Option<PeerId>,
    ) -> Result<(), Refusal> {
        let heard = self.hear(&mut stream, caller, door, service);
        let heard = timeout(GREETING_DEADLINE, heard).await;
        let peer = heard.ok().flatten().ok_or(Refusal::NotAdmitted)?;
        *named = Some(peer);
        let admitted = || self.guests.borrow().admit(&peer, service);
        admitted()?;
        let place = self.places.inbound(peer, service)?;
        // Whoever was struck off before it had its place was not cut with the others.
        admitted()?;
        // Without it small messages wait for acknowledgements; where it cannot be had they do.
        let _ = stream.set_nodelay(true);
        let inbound = InboundStream {
            peer,
            service: service.clone(),
            stream: Box::new(PlacedStream::new(stream, place)),
        };
        self.queue
            .try_send(inbound)
            .map_err(|_| Refusal::Overloaded)
    }
}

/// Reads the line that kubo writes first, and not a byte more.
async fn peer_of(stream: &mut TcpStream) -> Option<PeerId> {
    let mut line = [0; GREETING_BYTES_MAX];
    let mut length = 0;
    loop {
        let rest = line.get_mut(length..).filter(|rest| !rest.is_empty())?;
        let seen = stream.peek(rest).await.ok().filter(|seen| *seen > 0)?;
        let end = rest.iter().take(seen).position(|byte| *byte == b'\n');
        let take = end.map_or(seen, |end| end + 1);
        stream.read_exact(rest.get_mut(..take)?).await.ok()?;
        length += take;
        if end.is_some() {
            let text = std::str::from_utf8(line.get(..length - 1)?).ok()?;
            return text.parse().ok();
        }
    }
}

/// A private port that leads to one service.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) port: u16,
    group: TaskGroup,
}

impl Door {
    /// Opens one on the port that it had before, if that is free, else on any.
    ///
    /// # Errors
    /// The system's; [`GroupFull`] when the station ends.
    pub(super) async fn open(
        service: &ServiceName,
        before: Option<u16>,
        entrance: &Arc<Entrance>,
        tasks: &TaskGroup,
    ) -> io::Result<Self> {
        let listener = match before {
            Some(port) => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok(),
            None => None,
        };
        let listener = match listener {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let port = listener.local_addr()?.port();
        // The one that accepts, and those it greets.
        let group = tasks.child(1 + GREETINGS_MAX);
        let accepting = accept(
            listener,
            port,
            service.clone(),
            Arc::clone(entrance),
            group.clone(),
        );
        let full = |full: GroupFull| io::Error::other(full);
        group.spawn(accepting).map_err(full)?;
        Ok(Self { port, group })
    }

    /// Closes the port. Streams that were let in go on.
    pub(super) async fn close(self) {
        self.group.end().await;
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    service: ServiceName,
    entrance: Arc<Entrance>,
    group: TaskGroup,
) {
    loop {
        let Ok(room) = Arc::clone(&entrance.greetings).acquire_owned().await else {
            return; // it is never closed
        };
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, %service, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (guest, service) = (Arc::clone(&entrance), service.clone());
        let greeted = group.spawn(async move {
            guest.greet(stream, caller, port, &service).await;
            drop(room);
        });
        if greeted.is_err() {
            entrance.refusals().note_nameless(Refusal::Overloaded);
        }
    }
}
