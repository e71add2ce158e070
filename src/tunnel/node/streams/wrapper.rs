//! An open stream, as the rest of the program sees it: counted while it lives, and cut when its connection is.
//!
//! Takes a libp2p stream; gives tokio's traits. Invariant: after an error every call gives one. Deliberately absent: buffering. Dropping it resets the stream unless
//! both sides have finished.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use libp2p::swarm::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::handler::Assumed;

/// What all streams of one connection share.
#[derive(Debug)]
pub(crate) struct ConnectionShare {
    streams: AtomicUsize,
    cut: AtomicBool,
    /// Cancelled when the connection has ended or is cut: libp2p wakes nobody who waits on a connection that we close.
    over: CancellationToken,
    /// When a stream last began or ended.
    used: Mutex<Instant>,
}

impl Default for ConnectionShare {
    fn default() -> Self {
        Self {
            streams: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            over: CancellationToken::new(),
            used: Mutex::new(Instant::now()),
        }
    }
}

impl ConnectionShare {
    /// Streams open on it, and being opened by us.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// From now on its streams fail, whatever still lies in buffers.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.over.cancel();
    }

    /// The connection is no more: its streams fail once what has arrived is read.
    pub(crate) fn ended(&self) {
        self.over.cancel();
    }

    /// Since when it has carried no stream; `None` while it carries one.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        (self.streams() == 0).then(|| *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn use_now(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A place among the streams that may be open. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    share: Arc<ConnectionShare>,
    release: Option<super::door::Release>,
}

impl Place {
    pub(super) fn new(share: Arc<ConnectionShare>, release: super::door::Release) -> Self {
        share.streams.fetch_add(1, Ordering::Relaxed);
        share.use_now();
        Self {
            share,
            release: Some(release),
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.share.cut.load(Ordering::Acquire) {
            return Err(aborted());
        }
        Ok(())
    }
}

fn aborted() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the station does not answer, or is not admitted any more",
    )
}

impl Drop for Place {
    fn drop(&mut self) {
        self.share.use_now();
        self.share.streams.fetch_sub(1, Ordering::Relaxed);
        drop(self.release.take());
    }
}

/// A stream through a tunnel.
pub(crate) struct Tunnelled {
    bytes: Compat<Stream>,
    place: Place,
    /// We went ahead without waiting for the peer's yes, which comes with its first byte.
    assumed: Option<Assumed>,
    /// How it failed: it is not touched again.
    failed: Option<io::ErrorKind>,
    /// Wake whoever waits to read, and whoever waits to write, when the connection is over: they may be two tasks.
    over_for_reader: Over,
    over_for_writer: Over,
}

type Over = Pin<Box<WaitForCancellationFutureOwned>>;

/// Who waits.
#[derive(Clone, Copy)]
enum Waiting {
    Reader,
    Writer,
}

impl Tunnelled {
    pub(super) fn new(stream: Stream, place: Place, assumed: Option<Assumed>) -> Self {
        let over = || Box::pin(place.share.over.clone().cancelled_owned());
        Self {
            bytes: stream.compat(),
            over_for_reader: over(),
            over_for_writer: over(),
            place,
            assumed,
            failed: None,
        }
    }
}

impl std::fmt::Debug for Tunnelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnelled")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Tunnelled {
    /// Polls the stream, unless it has failed: libp2p panics when a stream is used whose negotiation has failed.
    fn drive<T>(
        &mut self,
        waiting: Waiting,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Compat<Stream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.place.check()?;
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(io::Error::new(kind, "the stream has failed")));
        }
        let polled = poll(Pin::new(&mut self.bytes), context);
        let over = match waiting {
            Waiting::Reader => &mut self.over_for_reader,
            Waiting::Writer => &mut self.over_for_writer,
        };
        let polled = if polled.is_pending() && over.as_mut().poll(context).is_ready() {
            Poll::Ready(Err(aborted()))
        } else {
            polled
        };
        if let Poll::Ready(Err(error)) = &polled {
            self.failed = Some(error.kind());
        }
        polled
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.drive(Waiting::Reader, context, |bytes, context| {
            bytes.poll_read(context, buffer)
        });
        if polled.is_ready()
            && let Some(assumed) = self.assumed.take()
            && let Poll::Ready(Err(error)) = polled
        {
            return Poll::Ready(Err(assumed.refuted(error)));
        }
        polled
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.drive(Waiting::Writer, context, |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.drive(Waiting::Writer, context, |stream, context| {
            stream.poll_write_vectored(context, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(Waiting::Writer, context, |stream, context| {
            stream.poll_flush(context)
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(Waiting::Writer, context, |stream, context| {
            stream.poll_shutdown(context)
        })
    }
}
