//! A REQ: its events as they come, until the relay has sent all that it stores.
//!
//! Gives raw, unverified JSON. Dropping it tells the relay CLOSE. Invariant: events come in the relay's order, and
//! exactly one end after the last. A consumer that is slow slows the whole conversation (see `driver`); one that
//! stops and keeps the request stops it.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::conversation::{Conversation, ConversationError};
use super::registry::{About, Lasting, request_name};
use crate::protocol::ReasonPrefix;

/// What the driver hands over.
#[derive(Debug)]
pub(super) enum Delivery {
    Event {
        json: Bytes,
        /// The share of the bytes that may wait; given back when the consumer takes the event.
        _room: OwnedSemaphorePermit,
    },
    End(RequestEnd),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestEnd {
    /// EOSE: the relay has sent what it stores, or as much of it as its limit allows.
    EndOfStored,
    /// CLOSED: the relay refused or broke it off.
    Closed {
        /// Why, for programs.
        prefix: ReasonPrefix,
        /// Why, in words.
        text: String,
    },
}

/// What a request yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestItem {
    /// An event's raw JSON: nothing about it is checked, not even that it was asked for.
    Event(Bytes),
    /// The end; it is given again when asked again.
    End(RequestEnd),
}

/// A request in progress.
#[derive(Debug)]
pub struct Request {
    conversation: Conversation,
    number: u64,
    deliveries: mpsc::Receiver<Delivery>,
    /// The REQ is queued, so the relay hears of it.
    queued: bool,
    end: Option<RequestEnd>,
}

impl Request {
    pub(super) async fn begin(
        conversation: &Conversation,
        encode: impl FnOnce(&str) -> String,
    ) -> Result<Self, ConversationError> {
        Self::begin_as(conversation, encode, Lasting::UntilStored).await
    }

    /// One that EOSE does not close.
    pub(super) async fn begin_standing(
        conversation: &Conversation,
        encode: impl FnOnce(&str) -> String,
    ) -> Result<Self, ConversationError> {
        Self::begin_as(conversation, encode, Lasting::Standing).await
    }

    async fn begin_as(
        conversation: &Conversation,
        encode: impl FnOnce(&str) -> String,
        lasting: Lasting,
    ) -> Result<Self, ConversationError> {
        let shared = &conversation.shared;
        let slot = shared.request_slot().await;
        let number = shared.next_number();
        let (sender, deliveries) = mpsc::channel(shared.limits.events_queued_max.max(1));
        shared.lock().add_request(number, sender, slot, lasting)?;
        let mut request = Self {
            conversation: conversation.clone(),
            number,
            deliveries,
            queued: false,
            end: None,
        };
        conversation
            .queue(encode(&request_name(number)), About::Request(number))
            .await?;
        request.queued = true;
        Ok(request)
    }

    /// Forgets an end that was none.
    pub(super) fn go_on(&mut self) {
        self.end = None;
    }

    /// The next event, or the end. Cancel safe: nothing is lost when it is dropped.
    ///
    /// # Errors
    /// [`ConversationError`] when the conversation ended before the request; events that came before are given
    /// first.
    pub async fn next(&mut self) -> Result<RequestItem, ConversationError> {
        if let Some(end) = &self.end {
            return Ok(RequestItem::End(end.clone()));
        }
        match self.deliveries.recv().await {
            Some(Delivery::Event { json, .. }) => Ok(RequestItem::Event(json)),
            Some(Delivery::End(end)) => {
                self.end = Some(end.clone());
                Ok(RequestItem::End(end))
            }
            None => Err(self.conversation.shared.reason()),
        }
    }

    /// Appends the events that have come, waiting for at least one, at most `events_max`; gives the end when it
    /// has come. Cancel safe: `events` is untouched when it is dropped.
    ///
    /// # Errors
    /// As [`Self::next`]; `events` keeps what was appended.
    pub async fn next_batch(
        &mut self,
        events: &mut Vec<Bytes>,
        events_max: usize,
    ) -> Result<Option<RequestEnd>, ConversationError> {
        let mut item = self.next().await?;
        let mut taken = 0;
        loop {
            match item {
                RequestItem::Event(json) => events.push(json),
                RequestItem::End(end) => return Ok(Some(end)),
            }
            taken += 1;
            if taken >= events_max {
                return Ok(None);
            }
            item = match self.deliveries.try_recv() {
                Ok(Delivery::Event { json, .. }) => RequestItem::Event(json),
                Ok(Delivery::End(end)) => {
                    self.end = Some(end.clone());
                    RequestItem::End(end)
                }
                // Nothing more now; if the conversation ended, the next call says so.
                Err(_) => return Ok(None),
            };
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.conversation
            .shared
            .abandon_request(self.number, self.queued);
    }
}
