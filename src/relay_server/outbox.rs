//! What waits to be sent to one client, and the writer that sends it.
//!
//! Takes frames from the connection, without waiting; gives them to the socket in order, as fast as the client
//! reads. Back-pressure is the connection's: it asks [`Outbox::has_room`] before it makes more. The writer ends the
//! connection when not a single byte was taken for `SLOW_READER_DEADLINE`; progress is seen on the byte stream
//! itself, so one large frame on a thin line is no offence. Cancel safe: no frame is lost or sent twice.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::bounds::HIGH_WATER;
use super::context::ConnectionEnd;
use crate::limits::SLOW_READER_DEADLINE;
use crate::protocol::{SocketError, SocketSender};

/// Frames waiting for one client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    finished: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame.
    pub(super) fn push(&self, frame: impl Into<Bytes>) {
        let frame = frame.into();
        let mut queue = self.lock();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
    }

    /// Whether more may be made for this client.
    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < HIGH_WATER
    }

    /// Waits until the client has taken some of what waits.
    pub(super) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Nothing more will be queued: the writer says goodbye after the last frame.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
    }

    fn first(&self) -> Option<Bytes> {
        self.lock().frames.front().cloned()
    }

    fn remove_first(&self) {
        let mut queue = self.lock();
        if let Some(frame) = queue.frames.pop_front() {
            queue.bytes -= frame.len();
        }
        drop(queue);
        self.drained.notify_one();
    }

    /// Sends what is queued, and what comes, until the client is lost or the outbox finished.
    pub(super) async fn send_to(
        &self,
        sender: &mut SocketSender,
        sent: &BytesSent,
    ) -> ConnectionEnd {
        match self.send_all_to(sender, sent).await {
            Ok(()) => ConnectionEnd::Closing,
            Err(end) => end,
        }
    }

    async fn send_all_to(
        &self,
        sender: &mut SocketSender,
        sent: &BytesSent,
    ) -> Result<(), ConnectionEnd> {
        loop {
            while let Some(frame) = self.first() {
                with_progress(sent, sender.feed(frame)).await?;
                self.remove_first();
            }
            with_progress(sent, sender.flush()).await?;
            let (empty, finished) = {
                let queue = self.lock();
                (queue.frames.is_empty(), queue.finished)
            };
            if empty && finished {
                return with_progress(sent, sender.close()).await;
            }
            if empty {
                self.filled.notified().await;
            }
        }
    }
}

/// Waits for `sending` as long as the client takes bytes.
async fn with_progress(
    sent: &BytesSent,
    sending: impl Future<Output = Result<(), SocketError>>,
) -> Result<(), ConnectionEnd> {
    let mut sending = pin!(sending);
    let mut before = sent.count();
    loop {
        match timeout(SLOW_READER_DEADLINE, &mut sending).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(ConnectionEnd::Socket(error.to_string())),
            Err(_) if sent.count() == before => return Err(ConnectionEnd::SlowReader),
            Err(_) => before = sent.count(),
        }
    }
}

/// How many bytes the other end's machine has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct BytesSent(Arc<AtomicU64>);

impl BytesSent {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A byte stream that counts what is written to it.
#[derive(Debug)]
pub(super) struct CountedStream<S> {
    inner: S,
    sent: BytesSent,
}

impl<S> CountedStream<S> {
    pub(super) fn new(inner: S, sent: BytesSent) -> Self {
        Self { inner, sent }
    }

    fn count(&self, written: &Poll<std::io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            let bytes = u64::try_from(*bytes).unwrap_or(u64::MAX);
            self.sent.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
