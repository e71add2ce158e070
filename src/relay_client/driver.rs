//! The task behind a conversation: one loop that reads, one that writes, joined so that each waits alone.
//!
//! - The reader waits for the socket, and for the consumer of the event at hand: that is the back-pressure. While a
//!   consumer does not take its events, *nothing* is read from this relay, OK and EOSE included. So whoever holds
//!   several requests takes from all of them (or drops them), and none waits for one answer while leaving another.
//! - The writer waits for the socket and for something to write. The reader never waits for the writer: what it has
//!   to say (CLOSE after EOSE) goes to a list bounded by the request slots. So they cannot lock each other up.
//!
//! Worst case: a relay that does not read is given [`ConversationLimits::write_stall`] per message, then the
//! conversation ends. A relay that neither sends nor closes is ended by its callers' deadlines.
//!
//! [`ConversationLimits::write_stall`]: super::conversation::ConversationLimits::write_stall

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::conversation::ConversationError;
use super::negotiation::NegReply;
use super::publication::Publication;
use super::registry::{About, Shared, count, negotiation_number, request_number, shorten};
use super::request::{Delivery, RequestEnd};
use crate::protocol::{
    Message, ReasonPrefix, RelayMessage, SocketError, SocketReceiver, SocketSender, TextSocket,
};

/// Messages that are written with one flush.
const BATCH_MAX: usize = 64;

/// How long a goodbye may take, and how long the relay's last words are listened to.
const GRACE: Duration = Duration::from_secs(1);

/// A longer challenge is none.
const CHALLENGE_BYTES_MAX: usize = 1024;

/// One message to be written, with its share of the bytes that may wait.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) text: String,
    pub(super) about: About,
    pub(super) _room: OwnedSemaphorePermit,
}

/// The driver of one conversation.
#[derive(Debug)]
pub(super) struct Driver {
    sender: SocketSender,
    receiver: SocketReceiver,
    queue: mpsc::Receiver<Outgoing>,
    /// Dropped with the driver, however it ends: also before it was ever polled.
    ending: Ending,
}

/// Ends the conversation for its waiters when dropped.
#[derive(Debug)]
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(ConversationError::Finished);
    }
}

impl Driver {
    pub(super) fn new(
        socket: TextSocket,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Outgoing>,
    ) -> Self {
        let (sender, receiver) = socket.split();
        Self {
            sender,
            receiver,
            queue,
            ending: Ending(shared),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = &self.ending.0;
        let reason = {
            let reading = read_all(&mut self.receiver, shared);
            let writing = write_all(&mut self.sender, &mut self.queue, shared);
            tokio::pin!(reading, writing);
            tokio::select! {
                biased;
                reason = &mut reading => reason,
                reason = &mut writing => match reason {
                    ConversationError::Finished => reason,
                    // What the relay said before it closed is worth more than our failure to write.
                    failed => timeout(GRACE, reading).await.unwrap_or(failed),
                },
            }
        };
        shared.end(reason);
        // Best effort: the relay is gone, or will see the stream end.
        let _ = timeout(GRACE, self.sender.close()).await;
    }
}

async fn write_all(
    sender: &mut SocketSender,
    queue: &mut mpsc::Receiver<Outgoing>,
    shared: &Shared,
) -> ConversationError {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH_MAX) => if taken == 0 {
                return ConversationError::Finished;
            },
            () = shared.closes_waiting.notified() => {}
        }
        if let Err(reason) = write_batch(sender, &mut batch, shared).await {
            return reason;
        }
    }
}

async fn write_batch(
    sender: &mut SocketSender,
    batch: &mut Vec<Outgoing>,
    shared: &Shared,
) -> Result<(), ConversationError> {
    // First what makes room at the relay.
    let closes = shared.lock().take_closes();
    for mut close in closes {
        write(sender, std::mem::take(&mut close.text), shared).await?;
    }
    for outgoing in batch.drain(..) {
        // Withdrawn meanwhile? Its CLOSE may have been written already.
        if shared.lock().begin_write(outgoing.about) {
            write(sender, outgoing.text, shared).await?;
        }
    }
    in_time(sender.flush(), shared).await
}

async fn write(
    sender: &mut SocketSender,
    text: String,
    shared: &Shared,
) -> Result<(), ConversationError> {
    count(&shared.counters.bytes_out, text.len());
    let largest = &shared.counters.largest_lately;
    largest.sent(text.len(), Instant::now());
    in_time(sender.feed(text), shared).await
}

async fn in_time(
    writing: impl Future<Output = Result<(), SocketError>>,
    shared: &Shared,
) -> Result<(), ConversationError> {
    match timeout(shared.limits.write_stall, writing).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(ConversationError::WriteStalled),
    }
}

async fn read_all(receiver: &mut SocketReceiver, shared: &Shared) -> ConversationError {
    loop {
        let taken = match receiver.recv().await {
            Ok(Some(Message::Text(text))) => {
                count(&shared.counters.bytes_in, text.bytes().len());
                match RelayMessage::parse(text.as_str()) {
                    Ok(message) => {
                        dispatch(message, shared).await;
                        true
                    }
                    Err(error) => {
                        tracing::debug!(%error, bytes = text.bytes().len(), "garbage from a relay");
                        false
                    }
                }
            }
            Ok(Some(Message::Binary(bytes))) => {
                count(&shared.counters.bytes_in, bytes.len());
                false
            }
            Ok(None) => return ConversationError::Closed,
            Err(error) => return error.into(),
        };
        if !taken {
            let garbage = count(&shared.counters.garbage, 1);
            if garbage > shared.limits.garbage_max {
                return ConversationError::Garbage { count: garbage };
            }
        }
    }
}

/// Hands a message to whoever waits for it. Waits only for the consumer of an event.
async fn dispatch(message: RelayMessage<'_>, shared: &Shared) {
    let wanted = match message {
        RelayMessage::Event {
            subscription,
            event,
        } => deliver(&subscription, event, shared).await,
        RelayMessage::EndOfStored { subscription } => {
            end_request(&subscription, RequestEnd::EndOfStored, shared).await
        }
        RelayMessage::Closed {
            subscription,
            reason,
        } => {
            let prefix = ReasonPrefix::parse(&reason);
            let text = shorten(&reason);
            // Some relays close a NEG-OPEN that they do not know as they would a REQ.
            let refused = NegReply::Error {
                prefix,
                text: text.clone(),
                cap: None,
            };
            answer_negotiation(&subscription, refused, shared)
                || end_request(&subscription, RequestEnd::Closed { prefix, text }, shared).await
        }
        RelayMessage::Ok {
            id,
            accepted,
            reason,
        } => {
            let answer = shared.lock().answer_publication(&id);
            answer.is_some_and(|answer| answer.send(publication(accepted, &reason)).is_ok())
        }
        RelayMessage::UnnamedRefusal { reason } => {
            let answer = shared.lock().answer_oldest_publication();
            answer.is_some_and(|answer| answer.send(publication(false, &reason)).is_ok())
        }
        RelayMessage::NegMessage {
            subscription,
            message,
        } => answer_negotiation(&subscription, NegReply::Message(message), shared),
        RelayMessage::NegError {
            subscription,
            reason,
            cap,
        } => {
            let (prefix, text) = (ReasonPrefix::parse(&reason), shorten(&reason));
            answer_negotiation(&subscription, NegReply::Error { prefix, text, cap }, shared)
        }
        RelayMessage::Notice(notice) => {
            shared.lock().note(&notice);
            shared.notices_heard.send_modify(|count| *count += 1);
            answer_negotiation_by_notice(&notice, shared);
            true
        }
        RelayMessage::Auth(challenge) => {
            if challenge.len() <= CHALLENGE_BYTES_MAX {
                shared.challenge.send_replace(Some(challenge.into_owned()));
            }
            true
        }
        // We do not ask.
        RelayMessage::Count { .. } => false,
    };
    if !wanted {
        count(&shared.counters.unsolicited, 1);
    }
}

fn publication(accepted: bool, reason: &str) -> Publication {
    Publication {
        accepted,
        prefix: ReasonPrefix::parse(reason),
        text: shorten(reason),
    }
}

async fn deliver(subscription: &str, event: &str, shared: &Shared) -> bool {
    let deliveries =
        request_number(subscription).and_then(|number| shared.lock().deliveries_of(number));
    let Some(deliveries) = deliveries else {
        return false;
    };
    let room = tokio::select! {
        room = shared.event_room(event.len()) => room,
        // Its consumer has gone: do not wait for the others' on its behalf.
        () = deliveries.closed() => return false,
    };
    // A copy: a slice of the message would keep the socket's whole buffer alive.
    let json = Bytes::copy_from_slice(event.as_bytes());
    if deliveries
        .send(Delivery::Event { json, _room: room })
        .await
        .is_err()
    {
        return false;
    }
    count(&shared.counters.events, 1);
    true
}

async fn end_request(subscription: &str, end: RequestEnd, shared: &Shared) -> bool {
    let deliveries = {
        let mut registry = shared.lock();
        let Some(number) = request_number(subscription) else {
            return false;
        };
        let standing = registry.standing(number);
        match standing.filter(|_| end == RequestEnd::EndOfStored) {
            Some(deliveries) => deliveries,
            None => {
                let Some(entry) = registry.remove_request(number) else {
                    return false;
                };
                let deliveries = entry.deliveries.clone();
                // After CLOSED the relay has forgotten it; after EOSE it has to be told.
                if end == RequestEnd::EndOfStored {
                    registry.close_request(number, entry);
                    shared.closes_waiting.notify_one();
                }
                deliveries
            }
        }
    };
    deliveries.send(Delivery::End(end)).await.is_ok()
}

fn answer_negotiation(subscription: &str, reply: NegReply, shared: &Shared) -> bool {
    let mut registry = shared.lock();
    let Some(entry) = registry
        .negotiation
        .as_mut()
        .filter(|entry| negotiation_number(subscription) == Some(entry.number))
    else {
        return false;
    };
    match reply {
        NegReply::Message(_) => entry.confirmed = true,
        NegReply::Error { .. } | NegReply::Notice(_) => entry.open = false,
    }
    entry
        .answer
        .take()
        .is_some_and(|answer| answer.send(reply).is_ok())
}

/// A relay that does not know NEG-OPEN answers by NOTICE, and so does one that dislikes a NEG-MSG.
fn answer_negotiation_by_notice(notice: &str, shared: &Shared) {
    let mut registry = shared.lock();
    if let Some(entry) = registry.negotiation.as_mut()
        && entry.written
        && entry.answer.is_some()
        && (mentions_negentropy(notice) || (!entry.confirmed && complains(notice)))
    {
        entry.open = false;
        if let Some(answer) = entry.answer.take() {
            // Whoever waited may have given up.
            let _ = answer.send(NegReply::Notice(shorten(notice)));
        }
    }
}

fn mentions_negentropy(notice: &str) -> bool {
    let notice = notice.to_ascii_lowercase();
    notice.contains("negentropy") || notice.contains("neg-") || notice.contains("nip-77")
}

/// Whether a notice may be a complaint about a message, rather than a greeting or news.
pub(crate) fn complains(notice: &str) -> bool {
    const WORDS: [&str; 16] = [
        "neg",
        "unknown",
        "unrecogni",
        "unsupported",
        "not supported",
        "unexpected",
        "bad",
        "invalid",
        "error",
        "parse",
        "malformed",
        "disabled",
        "not allowed",
        "fail",
        "unimplemented",
        "unhandled",
    ];
    let notice = notice.to_ascii_lowercase();
    WORDS.iter().any(|word| notice.contains(word))
}
