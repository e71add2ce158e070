//! Answering a peer that wants to know who asks (NIP-42), once for each conversation.
//!
//! A relay sends its challenge when we connect, or only with the first refusal: either way the answer is given when
//! something was refused for want of it, and whoever was refused asks again. Bounded: one wait for the challenge, one
//! for the answer's OK.

use tokio::sync::Mutex;
use url::Url;

use super::{Line, Transfer, TransferError};
use crate::relay_client::NostrKey;

/// Who we are to a peer, and whether it knows.
#[derive(Debug)]
pub struct Introduction {
    /// What the peer is told.
    pub key: NostrKey,
    /// The address by which we know the peer: it is part of what is signed.
    pub relay: Url,
    /// Whether the peer took the answer; `None` before it was asked.
    pub taken: Mutex<Option<bool>>,
}

impl Introduction {
    /// Not made yet.
    pub fn new(key: NostrKey, relay: Url) -> Self {
        Self {
            key,
            relay,
            taken: Mutex::new(None),
        }
    }
}

impl Transfer {
    /// As [`Line::authenticate`].
    ///
    /// # Errors
    /// [`TransferError`].
    pub(super) async fn authenticate(&self) -> Result<bool, TransferError> {
        self.line().authenticate().await
    }

    /// Whether the peer has asked who we are, and knows.
    pub async fn is_introduced(&self) -> bool {
        *self.introduction.taken.lock().await == Some(true)
    }
}

impl Line<'_> {
    /// Answers the peer's challenge, if that was not done before. Says whether the peer knows us now, so that what it
    /// refused is worth asking for again.
    ///
    /// # Errors
    /// [`TransferError`]: the conversation ended. A challenge that does not come, and an answer that is refused, are
    /// none.
    pub async fn authenticate(self) -> Result<bool, TransferError> {
        let mut taken = self.introduction.taken.lock().await;
        if let Some(taken) = *taken {
            return Ok(taken);
        }
        let accepted = self.introduce().await;
        // Also after a failure: once is enough.
        *taken = Some(*accepted.as_ref().unwrap_or(&false));
        accepted
    }

    async fn introduce(self) -> Result<bool, TransferError> {
        let challenge = match self.in_time(self.conversation.challenged()).await {
            Ok(challenge) => challenge,
            Err(TransferError::Timeout) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Introduction { key, relay, .. } = self.introduction;
        let now = self.clock.unix_seconds();
        let (id, answer) = match key.answer(&challenge, relay, now).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, peer = %self.peer, "cannot say who we are");
                return Ok(false);
            }
        };
        let queued = self.conversation.authenticate(id, &answer);
        let pending = self.in_time(queued).await?;
        let publication = match self.answered(pending).await {
            Err(TransferError::Timeout) => return Ok(false),
            answered => answered?,
        };
        if !publication.accepted {
            tracing::warn!(peer = %self.peer, reason = %publication.text, "the peer does not take who we are");
        }
        Ok(publication.accepted)
    }
}
