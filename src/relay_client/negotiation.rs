//! The negentropy session of a conversation (NIP-77): NEG-OPEN, then NEG-MSG by turns.
//!
//! Takes and gives opaque negentropy messages; what is in them is the business of `constellation_reconcile`.
//! One session at a time: opening again replaces the last. Dropping it tells the relay NEG-CLOSE, unless the relay
//! ended it. Silence is the caller's to time out: relays that claim NIP-77 and do not speak it often say nothing.

use nostr::filter::Filter;
use tokio::sync::oneshot;

use super::conversation::{Conversation, ConversationError};
use super::registry::{About, NegotiationEntry, negotiation_name};
use crate::protocol::{ReasonPrefix, client_message};

/// A relay's answer to a negentropy message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NegReply {
    /// The next negentropy message.
    Message(Vec<u8>),
    /// NEG-ERR (or CLOSED): the session is over.
    Error {
        /// Why, for programs.
        prefix: ReasonPrefix,
        /// Why, in words.
        text: String,
        /// With `blocked`: the most results that the relay reconciles.
        cap: Option<u64>,
    },
    /// A NOTICE that reads as a complaint about the message: most likely a relay that does not know NIP-77.
    Notice(String),
}

/// Another part of the program negotiates over this conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a negotiation is in progress")]
pub struct NegotiationBusy;

/// The right to the conversation's negentropy session.
#[derive(Debug)]
pub struct Negotiation {
    conversation: Conversation,
}

impl Negotiation {
    pub(super) fn claim(conversation: &Conversation) -> Result<Self, NegotiationBusy> {
        let mut registry = conversation.shared.lock();
        if registry.negotiation.is_some() {
            return Err(NegotiationBusy);
        }
        registry.negotiation = Some(NegotiationEntry::default());
        drop(registry);
        Ok(Self {
            conversation: conversation.clone(),
        })
    }

    /// Opens a session with the first negentropy message, and waits for the answer. When it is dropped while it
    /// waits, the session is closed by the next `open` or by dropping this.
    ///
    /// # Errors
    /// [`ConversationError`] if the conversation ends.
    pub async fn open(
        &mut self,
        filter: &Filter,
        first: &[u8],
    ) -> Result<NegReply, ConversationError> {
        let shared = &self.conversation.shared;
        let number = shared.next_number();
        let (sender, answer) = oneshot::channel();
        {
            let mut registry = shared.lock();
            registry.still_on()?;
            shared.close_negotiation(&mut registry);
            registry.negotiation = Some(NegotiationEntry {
                number,
                answer: Some(sender),
                ..Default::default()
            });
        }
        let text = client_message::encode_neg_open(&negotiation_name(number), filter, first);
        self.conversation
            .queue(text, About::Negotiation(number))
            .await?;
        answer.await.map_err(|_| shared.reason())
    }

    /// Sends the next negentropy message of the open session, and waits for the answer. If it is dropped while it
    /// waits, the session cannot go on: open a new one.
    ///
    /// # Errors
    /// [`ConversationError`] if the conversation ends.
    pub async fn message(&mut self, message: &[u8]) -> Result<NegReply, ConversationError> {
        let shared = &self.conversation.shared;
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut registry = shared.lock();
            registry.still_on()?;
            match registry.negotiation.as_mut() {
                Some(entry) if entry.open => {
                    entry.written = false;
                    entry.answer = Some(sender);
                    entry.number
                }
                // What the relay would say, without asking it.
                _ => return Ok(no_session()),
            }
        };
        let text = client_message::encode_neg_message(&negotiation_name(number), message);
        self.conversation
            .queue(text, About::Negotiation(number))
            .await?;
        answer.await.map_err(|_| shared.reason())
    }
}

fn no_session() -> NegReply {
    NegReply::Error {
        prefix: ReasonPrefix::Closed,
        text: "no session is open".to_owned(),
        cap: None,
    }
}

impl Drop for Negotiation {
    fn drop(&mut self) {
        let shared = &self.conversation.shared;
        let mut registry = shared.lock();
        shared.close_negotiation(&mut registry);
        registry.negotiation = None;
    }
}
