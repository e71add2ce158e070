//! One conversation and what waiting on it needs: whether the peer is alive, who we are to it, how long is too long.
//!
//! Takes what is to be asked or offered; gives answers under the step deadline. Whoever asks, an exchange or a
//! comparison of two relays, asks over one of these. Nothing of a store is known here. Cancel safety: what was asked
//! is withdrawn.

use std::time::Duration;

use super::{Introduction, PeerLimits, Pulse, TransferError};
use crate::protocol::ReasonPrefix;
use crate::relay_client::{Conversation, Publication};
use crate::time::Clock;

/// A way to a peer that is in use. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Line<'t> {
    /// The conversation.
    pub conversation: &'t Conversation,
    /// Whether the peer is alive.
    pub pulse: &'t Pulse,
    /// Who we are to the peer, should it ask.
    pub introduction: &'t Introduction,
    /// What the peer can be asked at a time.
    pub limits: &'t PeerLimits,
    /// How long one answer may take.
    pub step_deadline: Duration,
    /// Wall time.
    pub clock: &'t Clock,
    /// The peer, for the log.
    pub peer: &'t str,
}

impl Line<'_> {
    /// Waits for an answer of the peer, which counts as one.
    ///
    /// # Errors
    /// [`TransferError::Timeout`], and what the wait ends with.
    pub async fn answered<T, E>(
        self,
        wait: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        TransferError: From<E>,
    {
        let answer = self.in_time(wait).await?;
        self.pulse.beat();
        Ok(answer)
    }

    /// Waits for the peer to take something from us: no answer yet.
    ///
    /// # Errors
    /// As [`Self::answered`].
    pub async fn in_time<T, E>(
        self,
        wait: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        TransferError: From<E>,
    {
        self.pulse.in_time(self.step_deadline, wait).await
    }

    /// Offers an event and waits for its OK; once more if the peer first wants to know who we are.
    ///
    /// # Errors
    /// [`TransferError`]. A refusal is none.
    pub async fn offer(self, id: [u8; 32], json: &str) -> Result<Publication, TransferError> {
        let first = self.offer_once(id, json).await?;
        if first.prefix == ReasonPrefix::AuthRequired
            && !first.accepted
            && self.authenticate().await?
        {
            return self.offer_once(id, json).await;
        }
        Ok(first)
    }

    async fn offer_once(self, id: [u8; 32], json: &str) -> Result<Publication, TransferError> {
        let queued = self.conversation.publish(id, json);
        let pending = self.in_time(queued).await?;
        self.answered(pending).await
    }
}
