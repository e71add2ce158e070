//! How many bytes a second may go to a peer, and come from it.
//!
//! Takes a byte stream; gives one that reads and writes no faster, each way by itself. A second's worth may go at once.
//! Invariant: over any span of time, no more than the rate times the span and one second's worth. It delays only its own
//! stream. What is framed on top must not be larger than some seconds' worth, or it looks like silence.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::ByteStream;

/// The least that can be configured: below it a single message would take longer than an answer may.
const LEAST: u32 = 16_000;

/// Bytes a second, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Bandwidth(u32);

impl TryFrom<u32> for Bandwidth {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        if bytes < LEAST {
            return Err(format!(
                "{bytes} bytes a second are too few for an exchange: expected at least {LEAST}"
            ));
        }
        Ok(Self(bytes))
    }
}

impl From<Bandwidth> for u32 {
    fn from(bandwidth: Bandwidth) -> Self {
        bandwidth.0
    }
}

impl Bandwidth {
    /// What goes through in this time.
    pub fn bytes_in(self, time: Duration) -> usize {
        let bytes = u128::from(self.0) * time.as_millis() / 1_000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The same stream, no faster than this.
    pub fn throttle(self, stream: ByteStream) -> ByteStream {
        Box::new(Throttled {
            stream,
            down: Bucket::new(self),
            up: Bucket::new(self),
        })
    }
}

struct Throttled {
    stream: ByteStream,
    down: Bucket,
    up: Bucket,
}

/// What may go now. Filled evenly, and never fuller than a second's worth.
struct Bucket {
    rate: Bandwidth,
    /// When it will be full again.
    full_at: Instant,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Bucket {
    fn new(rate: Bandwidth) -> Self {
        Self {
            rate,
            full_at: Instant::now(),
            waiting: None,
        }
    }

    /// Waits until something may go; gives how much at most.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            let now = Instant::now();
            let owed = self.full_at.saturating_duration_since(now);
            let room = self
                .rate
                .bytes_in(Duration::from_secs(1).saturating_sub(owed));
            if room > 0 {
                return Poll::Ready(room);
            }
            // Some bytes at a time, not one.
            let until = self.full_at + Duration::from_millis(20);
            let until = until.checked_sub(Duration::from_secs(1)).unwrap_or(until);
            self.waiting = Some(Box::pin(tokio::time::sleep_until(until.max(now))));
        }
    }

    fn take(&mut self, bytes: usize) {
        let takes = Duration::from_secs(1).saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
            / self.rate.0;
        self.full_at = self.full_at.max(Instant::now()) + takes;
    }
}

impl AsyncRead for Throttled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = ready!(this.down.poll_room(context)).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        this.down.take(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Throttled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let room = ready!(this.up.poll_room(context)).min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..room]))?;
        this.up.take(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seconds_worth_goes_at_once_and_the_rest_evenly_each_way() {
        let rate = Bandwidth::try_from(20_000).expect("enough");
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut ours = rate.throttle(Box::new(ours));
        let began = Instant::now();
        ours.write_all(&[1; 20_000]).await.expect("open");
        assert!(began.elapsed() < Duration::from_millis(100));
        ours.write_all(&[1; 100_000]).await.expect("open");
        let took = began.elapsed();
        assert!((4_900..5_300).contains(&took.as_millis()), "{took:?}");
        theirs.write_all(&[2; 60_000]).await.expect("open");
        let began = Instant::now();
        let mut read = vec![0; 60_000];
        ours.read_exact(&mut read).await.expect("open");
        let took = began.elapsed();
        assert!((1_900..2_300).contains(&took.as_millis()), "{took:?}");
    }

    #[test]
    fn too_little_is_refused() {
        assert!(Bandwidth::try_from(1_000).is_err());
    }
}
