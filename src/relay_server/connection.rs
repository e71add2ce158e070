//! One WebSocket conversation: reads messages, starts what they ask for, sends what comes of it.
//!
//! Takes an open socket and who is at its other end; ends with the reason. One task: a sender, and a loop over what
//! may happen (a message, a verdict, a slice read, news). Handlers never wait. Invariant: while a bound is reached,
//! be it of bytes to send or of events in flight, the client is not read from, so that it waits and not we.
//! Everything the conversation started ends with it, but for a slice of reading that has begun.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::select;
use tokio::time::timeout;

use super::authentication::{Authentication, RelayNames};
use super::bounds::{CLOSING_DEADLINE, MALFORMED_MAX};
use super::context::{ConnectionEnd, RelayContext, RemoteParty};
use super::filter_memory::ConnectionFilters;
use super::jobs::{Jobs, Outcome};
use super::links::LinkGuard;
use super::negotiation::Session;
use super::outbox::{BytesSent, Outbox};
use super::publish::{Answer, Offer, Publishing};
use super::stranger_turns::Turns;
use super::subscriptions::{Serial, Subscription, Subscriptions};
use crate::peer::{PeerId, Visit};
use crate::protocol::client_message::ClientMessageLabel;
use crate::protocol::relay_message::{
    encode_auth, encode_closed, encode_neg_error, encode_notice, encode_ok,
};
use crate::protocol::{
    ClientMessage, ClientMessageError, Message, ReasonPrefix, SocketError, SocketReceiver,
    TextSocket,
};

/// Who is at the other end, after the handshake.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) party: RemoteParty,
    /// The `Host` header.
    pub(super) host: Option<String>,
    /// Whether it says that it is a station.
    pub(super) is_station: bool,
    /// Which one, if that is known: proved by a tunnel, or claimed by a program on this machine.
    pub(super) station: Option<PeerId>,
}

impl Visitor {
    /// Whether it is a station with the rights of one.
    pub(super) fn is_trusted_station(&self) -> bool {
        self.is_station && self.party.is_trusted()
    }
}

/// A negentropy session between messages, or the one that is being worked on.
#[derive(Debug)]
pub(super) enum SessionSlot {
    Idle(Box<Session>),
    Busy(Serial),
}

/// The state of one conversation.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) context: Arc<RelayContext>,
    pub(super) visitor: Visitor,
    pub(super) outbox: Arc<Outbox>,
    pub(super) authentication: Authentication,
    pub(super) subscriptions: Subscriptions,
    pub(super) sessions: std::collections::HashMap<String, SessionSlot>,
    /// COUNTs that are being answered.
    pub(super) counts: usize,
    pub(super) filters: ConnectionFilters,
    pub(super) turns: Turns,
    pub(super) jobs: Jobs,
    /// If this is a live link of another station: the subscription, and its place among the links.
    pub(super) live_link: Option<(Arc<Subscription>, LinkGuard)>,
    /// Another station reconciles over this connection.
    pub(super) visit: Option<Visit>,
    publishing: Publishing,
    malformed: u32,
    next_serial: u64,
}

/// A slice being read.
pub(super) type Reading = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Serves one client until either side ends it.
pub(super) async fn converse(
    socket: TextSocket,
    visitor: Visitor,
    context: Arc<RelayContext>,
    sent: BytesSent,
) -> ConnectionEnd {
    let (mut sender, receiver) = socket.split();
    let outbox = Arc::new(Outbox::default());
    let mut connection = Connection::new(visitor, context, Arc::clone(&outbox));
    let end = select! {
        end = outbox.send_to(&mut sender, &sent) => end,
        end = connection.run(receiver) => end,
    };
    drop(connection);
    if matches!(end, ConnectionEnd::Closing | ConnectionEnd::Malformed) {
        outbox.finish();
        // A client that does not take its last answers in time has had its chance.
        let _ = timeout(CLOSING_DEADLINE, outbox.send_to(&mut sender, &sent)).await;
    }
    end
}

impl Connection {
    fn new(visitor: Visitor, context: Arc<RelayContext>, outbox: Arc<Outbox>) -> Self {
        let authentication = Authentication::new(&visitor.party, &context.random);
        outbox.push(encode_auth(authentication.challenge()));
        let publishing = Publishing::new(&context.ingest);
        let filters = ConnectionFilters::of(&context.filters, &visitor.party);
        let turns = context.turns.of(&visitor.party);
        Self {
            context,
            visitor,
            outbox,
            authentication,
            subscriptions: Subscriptions::default(),
            sessions: std::collections::HashMap::new(),
            counts: 0,
            filters,
            turns,
            jobs: Jobs::default(),
            live_link: None,
            visit: None,
            publishing,
            malformed: 0,
            next_serial: 0,
        }
    }

    async fn run(&mut self, mut receiver: SocketReceiver) -> ConnectionEnd {
        let mut news = self.context.ingest.published();
        let closing = self.context.closing.clone();
        let mut reading: Option<Reading> = None;
        loop {
            let has_room = self.outbox.has_room();
            if has_room && reading.is_none() {
                reading = self.next_task();
            }
            select! {
                () = closing.cancelled() => return self.answer_what_is_due().await,
                message = receiver.recv(), if has_room && self.publishing.has_room() => {
                    if let Err(end) = self.receive(message) {
                        return end;
                    }
                }
                answer = self.publishing.next(), if !self.publishing.is_empty() => {
                    self.say_ok(&answer);
                }
                outcome = finished(&mut reading) => {
                    reading = None;
                    self.take_outcome(outcome);
                }
                changed = news.changed() => {
                    if changed.is_err() {
                        return ConnectionEnd::Closing;
                    }
                    self.look_for_news();
                }
                () = self.outbox.drained(), if !has_room => {}
                () = link_ended(&self.live_link) => self.close_live_link(),
            }
        }
    }

    /// What was taken gets its OK, also when the relay closes.
    async fn answer_what_is_due(&mut self) -> ConnectionEnd {
        let due = async {
            while !self.publishing.is_empty() {
                let answer = self.publishing.next().await;
                self.outbox
                    .push(encode_ok(&answer.id, answer.accepted, &answer.reason));
            }
        };
        // Those that are late are stored all the same; the client will find them to be duplicates.
        let _ = timeout(CLOSING_DEADLINE, due).await;
        ConnectionEnd::Closing
    }

    pub(super) fn serial(&mut self) -> Serial {
        self.next_serial += 1;
        Serial(self.next_serial)
    }

    pub(super) fn say(&self, frame: String) {
        self.outbox.push(frame);
    }

    fn say_ok(&self, answer: &Answer) {
        if let Some((_, guard)) = &self.live_link {
            guard.count(answer);
        }
        self.say(encode_ok(&answer.id, answer.accepted, &answer.reason));
    }

    fn receive(
        &mut self,
        message: Result<Option<Message>, SocketError>,
    ) -> Result<(), ConnectionEnd> {
        match message {
            Ok(Some(Message::Text(text))) => self.dispatch(text.as_str()),
            Ok(Some(Message::Binary(_))) => {
                self.malformed(encode_notice("invalid: messages are text"))
            }
            Ok(None) => Err(ConnectionEnd::Left),
            Err(error) => Err(ConnectionEnd::Socket(error.to_string())),
        }
    }

    /// Answers what is no message, as long as there is not too much of it.
    fn malformed(&mut self, answer: String) -> Result<(), ConnectionEnd> {
        self.malformed += 1;
        self.say(answer);
        if self.malformed < MALFORMED_MAX {
            return Ok(());
        }
        self.say(encode_notice("closed: too many malformed messages"));
        Err(ConnectionEnd::Malformed)
    }

    fn dispatch(&mut self, text: &str) -> Result<(), ConnectionEnd> {
        let filters_max = self.context.options().filters_max;
        match ClientMessage::parse(text, filters_max) {
            Ok(ClientMessage::Event(json)) => return self.publish(json),
            Ok(ClientMessage::Auth(json)) => return self.authenticate(json),
            Ok(ClientMessage::Request {
                subscription,
                filters,
            }) => self.request(subscription.into_owned(), filters, text.len()),
            Ok(ClientMessage::Count {
                subscription,
                filters,
            }) => self.count(subscription.into_owned(), filters, text.len()),
            Ok(ClientMessage::Close { subscription }) => self.end_subscription(&subscription),
            Ok(ClientMessage::NegOpen {
                subscription,
                filter,
                message,
            }) => self.open_session(subscription.into_owned(), filter, message, text.len()),
            Ok(ClientMessage::NegMessage {
                subscription,
                message,
            }) => self.continue_session(subscription.into_owned(), message),
            Ok(ClientMessage::NegClose { subscription }) => self.end_session(&subscription),
            Err(error) => return self.malformed_message(&error),
        }
        Ok(())
    }

    /// Answers where the client will look: on the subscription, session or event it named.
    fn malformed_message(&mut self, error: &ClientMessageError) -> Result<(), ConnectionEnd> {
        let reason = ReasonPrefix::Invalid.with(&error.to_string());
        let answer = match (error.label, &error.subscription, &error.event_id) {
            (Some(ClientMessageLabel::Event | ClientMessageLabel::Auth), _, Some(id)) => {
                encode_ok(id, false, &reason)
            }
            (Some(ClientMessageLabel::Request), Some(name), _) => {
                // NIP-01: the REQ would have replaced the subscription of this name.
                self.end_subscription(name);
                encode_closed(name, &reason)
            }
            (Some(ClientMessageLabel::Count), Some(name), _) => encode_closed(name, &reason),
            (Some(ClientMessageLabel::NegOpen | ClientMessageLabel::NegMessage), Some(name), _) => {
                self.end_session(name);
                encode_neg_error(name, &reason, None)
            }
            _ => encode_notice(&reason),
        };
        self.malformed(answer)
    }

    fn publish(&mut self, json: &str) -> Result<(), ConnectionEnd> {
        let offer = self.publishing.offer(
            json,
            &self.visitor.party,
            self.authentication.keys(),
            &self.context,
        );
        match offer {
            Offer::Submitted(id) => {
                if let Some((_, guard)) = &self.live_link {
                    guard.link.note_published(id);
                } else if let Some(station) = &self.visitor.station {
                    self.context.links.note_published(station, id);
                }
            }
            Offer::Answered(answer) => self.say_ok(&answer),
            Offer::Unreadable(rejection) => {
                let notice = ReasonPrefix::Invalid.with(&format!("event: {rejection}"));
                return self.malformed(encode_notice(&notice));
            }
        }
        Ok(())
    }

    fn authenticate(&mut self, json: &str) -> Result<(), ConnectionEnd> {
        let options = self.context.options();
        let names = RelayNames {
            own_urls: &options.own_urls,
            host: self.visitor.host.as_deref(),
            party: &self.visitor.party,
        };
        let now = self.context.clock.unix_seconds();
        match self.authentication.authenticate(json, &names, now) {
            Ok(answer) if answer.accepted => {
                self.say_ok(&answer);
                Ok(())
            }
            // Counted: each costs the checking of a signature.
            Ok(answer) => self.malformed(encode_ok(&answer.id, false, &answer.reason)),
            Err(_) => self.malformed(encode_notice("invalid: AUTH: not an event")),
        }
    }
}

/// Until the live link has to end; never if there is none.
async fn link_ended(link: &Option<(Arc<Subscription>, LinkGuard)>) {
    match link {
        Some((_, guard)) => guard.link.ended().cancelled().await,
        None => std::future::pending().await,
    }
}

/// The outcome of what is being read; never if nothing is.
async fn finished(reading: &mut Option<Reading>) -> Outcome {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
