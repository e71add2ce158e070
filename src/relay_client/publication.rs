//! An EVENT that we offer to a relay, and its OK.
//!
//! A [`PendingPublication`] is a future: the caller keeps as many as it wants in flight, and answers may come in any
//! order. A relay that never answers is the caller's to time out. Dropping it forgets the answer, and withdraws the
//! event if it has not been written yet. Retrying is the caller's decision.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::conversation::{Conversation, ConversationError};
use super::registry::About;
use crate::protocol::ReasonPrefix;

/// A relay's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether the relay says that it has the event now.
    pub accepted: bool,
    /// Why (not), for programs. `Policy` if the relay gave no reason, also when it accepted.
    pub prefix: ReasonPrefix,
    /// Why (not), in words, shortened.
    pub text: String,
}

/// Why an event was not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The same event is being offered already.
    #[error("the event is being published already")]
    AlreadyInFlight,
    /// As many events are unanswered as the limits allow.
    #[error("too many events without an answer")]
    TooManyInFlight,
    /// The conversation has ended.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
}

/// An event on its way; resolves to the relay's answer. May be polled again only before it resolved.
#[derive(Debug)]
pub struct PendingPublication {
    conversation: Conversation,
    id: [u8; 32],
    number: u64,
    answer: oneshot::Receiver<Publication>,
}

impl PendingPublication {
    pub(super) async fn begin(
        conversation: &Conversation,
        id: [u8; 32],
        text: String,
    ) -> Result<Self, PublishError> {
        let shared = &conversation.shared;
        let number = shared.next_number();
        let (sender, answer) = oneshot::channel();
        {
            let mut registry = shared.lock();
            registry.still_on()?;
            if registry.is_publishing(&id) {
                return Err(PublishError::AlreadyInFlight);
            }
            if registry.publications_in_flight() >= shared.limits.publications_max {
                return Err(PublishError::TooManyInFlight);
            }
            registry.add_publication(id, number, sender);
        }
        let pending = Self {
            conversation: conversation.clone(),
            id,
            number,
            answer,
        };
        conversation
            .queue(text, About::Publication(number, id))
            .await?;
        Ok(pending)
    }

    /// The event that was offered.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }
}

impl Future for PendingPublication {
    type Output = Result<Publication, ConversationError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|answer| answer.map_err(|_| self.conversation.shared.reason()))
    }
}

impl Drop for PendingPublication {
    fn drop(&mut self) {
        self.conversation
            .shared
            .lock()
            .abandon_publication(&self.id, self.number);
    }
}
