//! One connection to a relay, shared by everything that is asked over it.
//!
//! Takes an open [`TextSocket`]; gives a cheap, clonable handle. Requests, publications and one negotiation run over
//! it at the same time; see `driver` for who waits for whom. It ends when the last handle (and request, publication,
//! negotiation) is dropped, when its task group ends, when the relay goes, or when the relay sends too much garbage;
//! every waiter then gets the reason. Waits for answers have no deadline of their own: wrap them.
//! Cancel safety: any call may be dropped while it waits; what it has begun is withdrawn.
//! Worst case of memory: the limits below, once per conversation, and the socket's.

use std::sync::Arc;
use std::time::Duration;

use nostr::filter::Filter;
use tokio::sync::{mpsc, watch};

use super::driver::{Driver, Outgoing};
use super::negotiation::{Negotiation, NegotiationBusy};
use super::publication::{PendingPublication, PublishError};
use super::registry::{About, Shared};
use super::request::Request;
use super::subscription::Subscription;
use crate::limits::{DOWNLOAD_IDS_PER_REQUEST_STATION, STEP_DEADLINE};
use crate::protocol::{SocketError, TextSocket, client_message};
use crate::tasks::{GroupFull, TaskGroup};

/// Messages that may wait to be written; their bytes are bounded besides.
const OUTGOING_MAX: usize = 256;

/// Bounds of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationLimits {
    /// Requests open at the relay; a further one waits.
    pub requests_max: usize,
    /// Events of one request that wait for their consumer.
    pub events_queued_max: usize,
    /// Bytes of all events that wait for their consumers.
    pub event_bytes_queued_max: usize,
    /// Publications without an answer; a further one is refused.
    pub publications_max: usize,
    /// Bytes that wait to be written; a further message waits.
    pub outgoing_bytes_max: usize,
    /// Messages that are none, before the conversation ends.
    pub garbage_max: u64,
    /// How long the relay may let one message wait to be written.
    pub write_stall: Duration,
}

impl Default for ConversationLimits {
    fn default() -> Self {
        Self {
            requests_max: 20,
            // A whole answer to the largest request: other answers need not wait behind it.
            events_queued_max: DOWNLOAD_IDS_PER_REQUEST_STATION,
            event_bytes_queued_max: 8 * 1024 * 1024,
            publications_max: 4096,
            outgoing_bytes_max: 4 * 1024 * 1024,
            garbage_max: 100,
            write_stall: STEP_DEADLINE,
        }
    }
}

/// Why a conversation ended. Given to everyone who waits, and to everyone who asks afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// The relay closed the connection.
    #[error("the relay closed the connection")]
    Closed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The relay sent a message over our limit.
    #[error("the relay sent a message larger than {limit} bytes")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The relay does not keep to the WebSocket protocol.
    #[error("the relay breaks the protocol: {0}")]
    Protocol(String),
    /// The relay sent more messages that are none than we bear.
    #[error("{count} messages were garbage")]
    Garbage {
        /// How many.
        count: u64,
    },
    /// The relay did not take what we wrote.
    #[error("the relay does not read")]
    WriteStalled,
    /// We ended it.
    #[error("ended here")]
    Finished,
}

impl ConversationError {
    /// A stable name for reports and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost(_) => "lost",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::Protocol(_) => "protocol",
            Self::Garbage { .. } => "garbage",
            Self::WriteStalled => "write_stalled",
            Self::Finished => "finished",
        }
    }
}

impl From<SocketError> for ConversationError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::MessageTooLarge { limit } => Self::MessageTooLarge { limit },
            SocketError::Closed => Self::Closed,
            SocketError::Io(error) => Self::Lost(error.to_string()),
            SocketError::NotUtf8 | SocketError::PingFlood | SocketError::Protocol(_) => {
                Self::Protocol(error.to_string())
            }
        }
    }
}

/// What has passed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConversationCounters {
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// Bytes of the largest message sent in the last seconds.
    pub largest_lately: usize,
    /// Events delivered to requests.
    pub events: u64,
    /// Well-formed messages that nobody waits for (any more).
    pub unsolicited: u64,
    /// Messages that are none.
    pub garbage: u64,
}

/// A handle on a conversation with a relay.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub(super) shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Conversation {
    /// Starts to converse over `socket`, on one task of `group`.
    ///
    /// # Errors
    /// [`GroupFull`]; the socket is dropped.
    pub fn start(
        socket: TextSocket,
        limits: ConversationLimits,
        group: &TaskGroup,
    ) -> Result<Self, GroupFull> {
        let shared = Arc::new(Shared::new(limits));
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        group.spawn(Driver::new(socket, Arc::clone(&shared), queue).run())?;
        Ok(Self { shared, outgoing })
    }

    /// Sends a REQ. Waits while as many requests are open as the limits allow.
    ///
    /// # Errors
    /// [`ConversationError`] if the conversation has ended.
    pub async fn request(&self, filters: &[Filter]) -> Result<Request, ConversationError> {
        Request::begin(self, |name| client_message::encode_request(name, filters)).await
    }

    /// Sends a REQ for exactly these events.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn fetch(&self, ids: &[[u8; 32]]) -> Result<Request, ConversationError> {
        Request::begin(self, |name| client_message::encode_request_ids(name, ids)).await
    }

    /// Sends a REQ that stays open until it is dropped or the relay closes it. Waits as [`Self::request`] does.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn subscribe(&self, filters: &[Filter]) -> Result<Subscription, ConversationError> {
        Subscription::begin(self, filters).await
    }

    /// Queues an EVENT and returns what becomes of it. Waits only while too much is queued to be written; the
    /// caller keeps as many answers outstanding as it sees fit. Dropping the result before the event is written
    /// withdraws it.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(
        &self,
        id: [u8; 32],
        event: &str,
    ) -> Result<PendingPublication, PublishError> {
        let text = client_message::encode_event(event);
        PendingPublication::begin(self, id, text).await
    }

    /// Claims the conversation's one negentropy session until the result is dropped.
    ///
    /// # Errors
    /// [`NegotiationBusy`] while another holds it.
    pub fn negotiation(&self) -> Result<Negotiation, NegotiationBusy> {
        Negotiation::claim(self)
    }

    /// The relay's last AUTH challenge (NIP-42).
    pub fn challenge(&self) -> Option<String> {
        self.shared.challenge.borrow().clone()
    }

    /// Waits for a challenge, if none has come. Cancel safe.
    ///
    /// # Errors
    /// [`ConversationError`] if the conversation ends first; it may also end unnoticed, so wrap it in a deadline.
    pub async fn challenged(&self) -> Result<String, ConversationError> {
        let mut challenge = self.shared.challenge.subscribe();
        let there = challenge.wait_for(Option::is_some).await;
        let challenge = there.ok().and_then(|challenge| challenge.clone());
        challenge.ok_or_else(|| self.shared.reason())
    }

    /// Queues AUTH with the signed answer to a challenge, and returns what becomes of it, as [`Self::publish`] does.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn authenticate(
        &self,
        id: [u8; 32],
        answer: &str,
    ) -> Result<PendingPublication, PublishError> {
        let text = client_message::encode_auth(answer);
        PendingPublication::begin(self, id, text).await
    }

    /// The relay's last few notices, shortened, oldest first.
    pub fn notices(&self) -> Vec<String> {
        self.shared.lock().notices.iter().cloned().collect()
    }

    /// Counts notices as they come. Some relays refuse a request by nothing else.
    pub fn notices_heard(&self) -> watch::Receiver<u64> {
        self.shared.notices_heard.subscribe()
    }

    /// What has passed so far.
    pub fn counters(&self) -> ConversationCounters {
        self.shared.counters.snapshot()
    }

    /// Why the conversation has ended, if it has.
    pub fn ended(&self) -> Option<ConversationError> {
        self.shared.lock().ended.clone()
    }

    /// Queues one message, waiting for room.
    pub(super) async fn queue(&self, text: String, about: About) -> Result<(), ConversationError> {
        let room = self.shared.outgoing_room(text.len()).await;
        self.outgoing
            .send(Outgoing {
                text,
                about,
                _room: room,
            })
            .await
            .map_err(|_| self.shared.reason())
    }
}
