//! Whether a peer is alive: one silence for everything that is asked over its conversation.
//!
//! Rounds, requests and offers share one connection, and so wait behind each other's answers: none of them is late
//! while another one is answered, nor while we do not read because our own store is behind. Takes beats and holds,
//! gives deadlines that know of them ([`Line::answered`]). It does not judge what came: whoever takes an answer
//! bounds how much of it may be worthless. Worst case: a peer that answers something now and then is left by the
//! exchange's deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Line, Transfer, TransferError};

/// Answers heard so far, and who keeps us from listening.
#[derive(Debug, Default)]
pub struct Pulse {
    heard: AtomicU64,
    held: AtomicU64,
}

impl Pulse {
    /// The peer answered something.
    pub(super) fn beat(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// We do not listen for as long as the guard lives.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    fn count(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Waits until the peer was silent for as long as `silence`, or to the end.
    pub(super) async fn in_time<T, E>(
        &self,
        silence: Duration,
        wait: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        TransferError: From<E>,
    {
        let mut wait = std::pin::pin!(wait);
        loop {
            let heard = self.count();
            match tokio::time::timeout(silence, &mut wait).await {
                Ok(result) => return Ok(result?),
                Err(_) if self.is_held() || self.count() != heard => {}
                Err(_) => return Err(TransferError::Timeout),
            }
        }
    }
}

/// Says that silence is ours.
#[derive(Debug)]
pub(crate) struct Held<'p>(&'p Pulse);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.beat();
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Transfer {
    /// The way to the peer.
    pub(super) fn line(&self) -> Line<'_> {
        Line {
            conversation: &self.conversation,
            pulse: &self.pulse,
            introduction: &self.introduction,
            limits: &self.limits,
            step_deadline: self.step_deadline,
            clock: &self.clock,
            peer: &self.peer,
        }
    }

    /// As [`Line::answered`].
    pub(super) async fn answered<T, E>(
        &self,
        wait: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        TransferError: From<E>,
    {
        self.line().answered(wait).await
    }

    /// As [`Line::in_time`].
    pub(super) async fn in_time<T, E>(
        &self,
        wait: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        TransferError: From<E>,
    {
        self.line().in_time(wait).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    async fn never() -> Result<(), TransferError> {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_wait_and_other_answers_prolong_it() {
        let pulse = Pulse::default();
        let began = Instant::now();
        let silent = pulse.in_time(SILENCE, never()).await;
        assert_eq!(
            (silent, began.elapsed()),
            (Err(TransferError::Timeout), SILENCE)
        );

        let began = Instant::now();
        let answers = async {
            for _ in 0..10 {
                sleep(SILENCE / 2).await;
                pulse.beat();
            }
        };
        let (waited, ()) = tokio::join!(pulse.in_time(SILENCE, never()), answers);
        assert_eq!(waited, Err(TransferError::Timeout));
        assert!((SILENCE * 6..=SILENCE * 7).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn while_we_do_not_listen_silence_is_ours() {
        let pulse = Pulse::default();
        let began = Instant::now();
        let busy = async {
            let _held = pulse.hold();
            sleep(SILENCE * 20).await;
        };
        let (waited, ()) = tokio::join!(pulse.in_time(SILENCE, never()), busy);
        assert_eq!(waited, Err(TransferError::Timeout));
        assert!(began.elapsed() >= SILENCE * 20);
    }
}
