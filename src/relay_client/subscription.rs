//! A REQ that stays open: what is stored first, as far as its filters ask for it, then what is new, for as long as it lives.
//!
//! EOSE does not end it: it says that from here on what comes is new. It ends with CLOSED, with the conversation, or when
//! it is dropped (then the relay is told CLOSE). Its queue is bounded as that of a request is: a consumer that is slow
//! slows this conversation and nobody else.

use bytes::Bytes;
use nostr::filter::Filter;

use super::conversation::{Conversation, ConversationError};
use super::request::{Request, RequestEnd};
use crate::protocol::{ReasonPrefix, client_message};

/// What a subscription tells besides events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionNews {
    /// EOSE: what was stored has been sent; what comes from now on is new.
    CaughtUp,
    /// CLOSED: the relay refused it or broke it off. Told again when asked again.
    Closed {
        /// Why, for programs.
        prefix: ReasonPrefix,
        /// Why, in words.
        text: String,
    },
}

/// A subscription that is open.
#[derive(Debug)]
pub struct Subscription {
    request: Request,
}

impl Subscription {
    pub(super) async fn begin(
        conversation: &Conversation,
        filters: &[Filter],
    ) -> Result<Self, ConversationError> {
        let encode = |name: &str| client_message::encode_request(name, filters);
        let request = Request::begin_standing(conversation, encode).await?;
        Ok(Self { request })
    }

    /// Appends the events that have come, waiting for at least one, at most `events_max`; or tells what else came. Events
    /// are raw JSON: nothing about them is checked. Cancel safe: `events` is untouched when it is dropped.
    ///
    /// # Errors
    /// [`ConversationError`] when the conversation ended; `events` keeps what was appended.
    pub async fn next_batch(
        &mut self,
        events: &mut Vec<Bytes>,
        events_max: usize,
    ) -> Result<Option<SubscriptionNews>, ConversationError> {
        match self.request.next_batch(events, events_max).await? {
            None => Ok(None),
            Some(RequestEnd::EndOfStored) => {
                self.request.go_on();
                Ok(Some(SubscriptionNews::CaughtUp))
            }
            Some(RequestEnd::Closed { prefix, text }) => {
                Ok(Some(SubscriptionNews::Closed { prefix, text }))
            }
        }
    }
}
