//! Streams of one connection: asks for those that we open, passes those that the peer opens to the door.
//!
//! Takes [`OpenRequest`]s; answers each once. Invariant: of the streams that it handed on, at most [`UNCONFIRMED_MAX`]
//! have neither the peer's yes nor a byte of it. Deliberately absent: retrying. Worst case: a peer that does not answer
//! keeps a request for [`NEGOTIATION_DEADLINE`].

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use tokio::sync::oneshot;

use super::door::{Door, STREAMS_OUT_NARROW, STREAMS_OUT_PER_PEER};
use super::upgrade::{Offer, Proposal};
use super::wrapper::{ConnectionShare, Place, Tunnelled};
use crate::tunnel::{PeerId, ServiceName};

/// How long a peer may take to say whether it speaks a protocol.
const NEGOTIATION_DEADLINE: Duration = Duration::from_secs(10);
/// So many streams of a connection may be open on the assumption that the peer says yes, where it has said yes before,
/// and bring nothing from it yet. Beyond them each waits for its yes: kubo declines some when it is overloaded, and only
/// then can they be asked for again.
const UNCONFIRMED_MAX: usize = 16;

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenFailure {
    /// Nobody knows where the peer is.
    NoAddress,
    /// None of its addresses answers; what was tried.
    Unreachable(String),
    /// The peer does not speak the protocol, or not now.
    Declined,
    /// The connection ended, or the stream was reset before it began.
    Lost,
    /// The peer did not answer.
    Silent,
    /// Too many streams are open to it already.
    TooMany,
}

/// Asks for a stream.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(crate) service: ServiceName,
    /// Where it goes, or why it does not.
    pub(crate) reply: oneshot::Sender<Result<Tunnelled, OpenFailure>>,
}

/// Services that the peer has taken streams for on this connection.
type Confirmed = Arc<Mutex<BTreeSet<ServiceName>>>;

/// That the peer takes this stream was assumed, since it took one before. Lives until the peer's first byte, or as long
/// as the stream.
#[derive(Debug)]
pub(crate) struct Assumed {
    service: ServiceName,
    confirmed: Confirmed,
    _unconfirmed: Unconfirmed,
}

/// One of the streams of a connection that go ahead, counted from when it is asked for.
#[derive(Debug)]
struct Unconfirmed(Arc<AtomicUsize>);

impl Unconfirmed {
    /// `None` if there are enough of them.
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count| (count < UNCONFIRMED_MAX).then_some(count + 1);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Assumed {
    /// It did not. The next stream asks first.
    pub(crate) fn refuted(self, error: io::Error) -> io::Error {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.service);
        let detail = format!("{} is not offered to us any more ({error})", self.service);
        io::Error::new(io::ErrorKind::ConnectionRefused, detail)
    }
}

/// A request that was made.
#[derive(Debug)]
pub(crate) struct Opening {
    request: OpenRequest,
    place: Place,
    /// That it goes ahead; `None`: it waits for the peer's yes.
    ahead: Option<Unconfirmed>,
}

/// Streams of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    door: Arc<Door>,
    share: Arc<ConnectionShare>,
    /// Streams that we may have open to the peer.
    outward_max: usize,
    requests: VecDeque<OpenRequest>,
    confirmed: Confirmed,
    unconfirmed: Arc<AtomicUsize>,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) fn new(peer: PeerId, door: Arc<Door>, share: Arc<ConnectionShare>) -> Self {
        let outward_max = if door.is_trusted(&peer) {
            STREAMS_OUT_PER_PEER
        } else {
            STREAMS_OUT_NARROW
        };
        Self {
            peer,
            door,
            share,
            outward_max,
            requests: VecDeque::new(),
            confirmed: Confirmed::default(),
            unconfirmed: Arc::default(),
            waker: None,
        }
    }

    fn is_confirmed(&self, service: &ServiceName) -> bool {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(service)
    }

    fn opened(&mut self, stream: libp2p::swarm::Stream, opening: Opening) {
        let Opening {
            request,
            place,
            ahead,
        } = opening;
        let assumed = if let Some(unconfirmed) = ahead {
            Some(Assumed {
                service: request.service,
                confirmed: Arc::clone(&self.confirmed),
                _unconfirmed: unconfirmed,
            })
        } else {
            self.confirmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(request.service);
            None
        };
        let stream = Tunnelled::new(stream, place, assumed);
        // Whoever asked may have gone; the stream is then reset.
        drop(request.reply.send(Ok(stream)));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Proposal;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.door.offer(), ()).with_timeout(NEGOTIATION_DEADLINE)
    }

    fn connection_keep_alive(&self) -> bool {
        !self.requests.is_empty() || self.door.is_trusted(&self.peer)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Proposal, Opening, Infallible>> {
        while let Some(request) = self.requests.pop_front() {
            if request.reply.is_closed() {
                continue;
            }
            let place = self
                .door
                .count_outward(self.peer, &self.share, self.outward_max);
            let Some(place) = place else {
                drop(request.reply.send(Err(OpenFailure::TooMany)));
                continue;
            };
            let ahead = self
                .is_confirmed(&request.service)
                .then(|| Unconfirmed::take(&self.unconfirmed))
                .flatten();
            let proposal = Proposal {
                protocol: request.service.protocol(&self.peer).into(),
                confirm: ahead.is_none(),
            };
            let opening = Opening {
                request,
                place,
                ahead,
            };
            let protocol =
                SubstreamProtocol::new(proposal, opening).with_timeout(NEGOTIATION_DEADLINE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        self.requests.push_back(request);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Proposal, (), Opening>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, offered),
                ..
            }) => self
                .door
                .enter(self.peer, offered.service(), &self.share, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: opening,
            }) => self.opened(stream, opening),
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: opening,
                error,
            }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => OpenFailure::Silent,
                    StreamUpgradeError::Apply(_) | StreamUpgradeError::NegotiationFailed => {
                        OpenFailure::Declined
                    }
                    StreamUpgradeError::Io(_) => OpenFailure::Lost,
                };
                drop(opening.request.reply.send(Err(failure)));
            }
            _ => {}
        }
    }
}
