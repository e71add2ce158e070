//! An open stream, as the rest of the program sees it: counted while it lives, and cut when its connection is.
//!
//! Takes a libp2p stream; gives tokio's traits. Invariant: after an error every call gives one. Deliberately absent: buffering. Dropping it resets the stream unless
//! both sides have finished.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use libp2p::swarm::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::handler::Assumed;

/// What all streams of one connection share.
#[derive(Debug, Default)]
pub(crate) struct ConnectionShare {
    streams: AtomicUsize,
    cut: AtomicBool,
}

impl ConnectionShare {
    /// Streams open on it, and being opened by us.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// From now on its streams fail, whatever still lies in buffers.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
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
        Self {
            share,
            release: Some(release),
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.share.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the station does not answer, or is not admitted any more",
            ));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
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
}

impl Tunnelled {
    pub(super) fn new(stream: Stream, place: Place, assumed: Option<Assumed>) -> Self {
        Self {
            bytes: stream.compat(),
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
        poll: impl FnOnce(Pin<&mut Compat<Stream>>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.place.check()?;
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(io::Error::new(kind, "the stream has failed")));
        }
        let polled = poll(Pin::new(&mut self.bytes));
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
        let polled = self.drive(|bytes| bytes.poll_read(context, buffer));
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
        self.drive(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.drive(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(|stream| stream.poll_shutdown(context))
    }
}
