//! WebSocket framing over any byte stream, by the `yawc` crate, compressed where [`Compression`] says so.
//!
//! Takes a byte stream (or an upgraded HTTP request); gives whole text messages under a limit of bytes, checked to
//! be UTF-8. Pings are answered and closing is answered while [`SocketReceiver::recv`] is awaited.
//! Halves: `futures`' `split` would swallow the receiver's errors, so both halves share the socket through a mutex
//! that is held for the length of one poll, never over a wait; they may live in one task or in two.
//! Cancel safety: `recv`, `feed`, `flush` and `send` may be dropped at any wait. Frames are queued whole or not at
//! all, so a dropped `send` either has not begun or is finished by the next flush.
//! Nothing here has a deadline: a peer that stops reading holds up `feed` and `flush` until their caller gives up.
//! A message that unfolds to more than the limit is refused like any other that is too large.
//! Worst case of memory: twice one message read, one message and 64 KiB waiting to be written, 64 unsent pongs.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use yawc::{Frame, OpCode, Options, WebSocket, WebSocketError};

pub use yawc::Role;

use crate::limits::MESSAGE_BYTES_MAX;

mod compression;
mod handshake;

pub use compression::Compression;
pub use handshake::{
    HandshakeError, PendingSocket, STATION_HEADER, STATION_PEER_HEADER, accept, accept_with,
    connect_websocket, is_upgrade,
};

/// Bytes that may wait to be written before [`SocketSender::feed`] waits for the peer.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Pongs that may wait for a peer that pings without reading.
const PONGS_OWED_MAX: u32 = 64;

/// Bounds of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLimits {
    /// The largest message taken, in bytes.
    pub message_bytes_max: usize,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

impl SocketLimits {
    fn options(self) -> Options {
        // yawc's limits are exclusive.
        let limit = self.message_bytes_max.saturating_add(1);
        Options::default()
            .with_limits(limit, limit)
            .with_backpressure_boundary(WRITE_BUFFER_BYTES)
            .without_compression()
    }
}

/// Why a socket cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer sent a message over the limit; it is told so (1009) and the socket is closed.
    #[error("message larger than {limit} bytes")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer sent text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// The peer pings without reading our answers.
    #[error("more pings than the peer lets us answer")]
    PingFlood,
    /// The peer does not keep to RFC 6455.
    #[error("WebSocket protocol: {0}")]
    Protocol(String),
    /// Sending on a socket that is closed.
    #[error("closed")]
    Closed,
    /// The byte stream failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
}

impl SocketError {
    fn from_yawc(error: WebSocketError, limit: usize) -> Self {
        match error {
            WebSocketError::FrameTooLarge => Self::MessageTooLarge { limit },
            WebSocketError::InvalidUTF8 => Self::NotUtf8,
            WebSocketError::ConnectionClosed => Self::Closed,
            WebSocketError::IoError(error) => Self::Io(error),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// One message of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(Text),
    /// Bytes; Nostr has no use for them.
    Binary(Bytes),
}

/// A text message: bytes that are known to be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    fn new(bytes: Bytes) -> Result<Self, SocketError> {
        std::str::from_utf8(&bytes).map_err(|_| SocketError::NotUtf8)?;
        Ok(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked again rather than `unsafe`: cheap beside the parsing that follows.
        std::str::from_utf8(&self.0).expect("checked when it was received")
    }

    /// The text's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// What both halves need of a `yawc` socket, whatever byte stream it runs over.
trait FramePort: Send {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, WebSocketError>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>>;
    fn start_send(&mut self, frame: Frame) -> Result<(), WebSocketError>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>>;
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>>;
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> FramePort for WebSocket<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, WebSocketError>> {
        self.poll_next_frame(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Sink::poll_ready(Pin::new(self), cx)
    }

    fn start_send(&mut self, frame: Frame) -> Result<(), WebSocketError> {
        Sink::start_send(Pin::new(self), frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Sink::poll_flush(Pin::new(self), cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Sink::poll_close(Pin::new(self), cx)
    }
}

/// The socket that both halves share.
struct Shared {
    port: Box<dyn FramePort>,
    /// Who waits in [`SocketSender`]; see [`Shared::answer_ping`].
    sender_waker: Option<Waker>,
    pongs_owed: u32,
    limit: usize,
    /// We have said goodbye; `yawc` forgets that it did.
    closed: bool,
}

impl Shared {
    /// Tries to get the pongs out that `yawc` has queued without bound.
    ///
    /// `yawc` keeps one waker for writing; polling here takes it from the sender, who is therefore woken to
    /// register again.
    fn answer_ping(&mut self) -> Result<(), SocketError> {
        let written = self
            .port
            .poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Some(waker) = self.sender_waker.take() {
            waker.wake();
        }
        self.pongs_owed = if written.is_ready() {
            0
        } else {
            self.pongs_owed + 1
        };
        if self.pongs_owed > PONGS_OWED_MAX {
            Err(SocketError::PingFlood)
        } else {
            Ok(())
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, SocketError>> {
        loop {
            let frame = match self.port.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(frame)) => frame,
                Poll::Ready(Err(WebSocketError::ConnectionClosed)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => {
                    // One more poll writes the close frame that says why, as far as the peer takes it now.
                    let _ = self.port.poll_frame(cx);
                    return Poll::Ready(Err(SocketError::from_yawc(error, self.limit)));
                }
            };
            match frame.opcode() {
                OpCode::Text => {
                    let text = Text::new(frame.into_payload());
                    return Poll::Ready(text.map(|text| Some(Message::Text(text))));
                }
                OpCode::Binary => {
                    return Poll::Ready(Ok(Some(Message::Binary(frame.into_payload()))));
                }
                OpCode::Ping => self.answer_ping()?,
                OpCode::Close => {
                    // Likewise: writes the answer to the close frame.
                    let _ = self.port.poll_frame(cx);
                    return Poll::Ready(Ok(None));
                }
                OpCode::Pong | OpCode::Continuation => {}
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panic inside a poll leaves at worst a broken stream, which the next poll reports.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A WebSocket that carries text messages, in either role.
#[derive(Debug)]
pub struct TextSocket {
    sender: SocketSender,
    receiver: SocketReceiver,
}

impl TextSocket {
    /// Frames a byte stream on which somebody else has done the handshake.
    ///
    /// # Errors
    /// [`HandshakeError::Protocol`] if the options contradict each other; they do not.
    pub fn over<S>(stream: S, role: Role, limits: SocketLimits) -> Result<Self, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let socket = WebSocket::from_stream(stream, role, limits.options())?;
        Ok(Self::from_yawc(socket, limits))
    }

    fn from_yawc<S>(socket: WebSocket<S>, limits: SocketLimits) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Mutex::new(Shared {
            port: Box::new(socket),
            sender_waker: None,
            pongs_owed: 0,
            limit: limits.message_bytes_max,
            closed: false,
        }));
        Self {
            sender: SocketSender(Arc::clone(&shared)),
            receiver: SocketReceiver(shared),
        }
    }

    /// The two halves. The connection ends when both are dropped.
    pub fn split(self) -> (SocketSender, SocketReceiver) {
        (self.sender, self.receiver)
    }

    /// See [`SocketReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<Message>, SocketError> {
        self.receiver.recv().await
    }

    /// See [`SocketSender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, text: impl Into<Bytes> + Send) -> Result<(), SocketError> {
        self.sender.send(text).await
    }

    /// See [`SocketSender::close`].
    ///
    /// # Errors
    /// As there.
    pub async fn close(&mut self) -> Result<(), SocketError> {
        self.sender.close().await
    }
}

/// The half that receives, and answers pings while it does.
pub struct SocketReceiver(Arc<Mutex<Shared>>);

impl SocketReceiver {
    /// The next message; `None` when the peer closed the connection. Cancel safe.
    ///
    /// # Errors
    /// [`SocketError`], after which there is nothing more to receive.
    pub async fn recv(&mut self) -> Result<Option<Message>, SocketError> {
        poll_fn(|cx| lock(&self.0).poll_message(cx)).await
    }
}

impl std::fmt::Debug for SocketReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SocketReceiver")
    }
}

/// The half that sends.
pub struct SocketSender(Arc<Mutex<Shared>>);

impl SocketSender {
    /// Queues one text message (which must be UTF-8), waiting while the peer is slow. Follow it by
    /// [`Self::flush`]; many small messages then share one write.
    ///
    /// # Errors
    /// [`SocketError::Closed`] or what the byte stream reports.
    pub async fn feed(&mut self, text: impl Into<Bytes> + Send) -> Result<(), SocketError> {
        if lock(&self.0).closed {
            return Err(SocketError::Closed);
        }
        self.wait(|port, cx| port.poll_ready(cx)).await?;
        let mut shared = lock(&self.0);
        let limit = shared.limit;
        shared
            .port
            .start_send(Frame::text(text.into()))
            .map_err(|error| SocketError::from_yawc(error, limit))
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        self.wait(|port, cx| port.poll_flush(cx)).await
    }

    /// Sends one text message (which must be UTF-8).
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub async fn send(&mut self, text: impl Into<Bytes> + Send) -> Result<(), SocketError> {
        self.feed(text).await?;
        self.flush().await
    }

    /// Sends many text messages with one flush.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub async fn send_many<T: Into<Bytes> + Send>(
        &mut self,
        texts: impl IntoIterator<Item = T, IntoIter: Send> + Send,
    ) -> Result<(), SocketError> {
        for text in texts {
            self.feed(text).await?;
        }
        self.flush().await
    }

    /// Says goodbye and closes the byte stream for writing. Does not wait for the peer's answer.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub async fn close(&mut self) -> Result<(), SocketError> {
        if lock(&self.0).closed {
            return Ok(());
        }
        self.wait(|port, cx| port.poll_close(cx)).await?;
        lock(&self.0).closed = true;
        Ok(())
    }

    async fn wait(
        &mut self,
        mut poll: impl FnMut(&mut dyn FramePort, &mut Context<'_>) -> Poll<Result<(), WebSocketError>>,
    ) -> Result<(), SocketError> {
        poll_fn(|cx| {
            let mut shared = lock(&self.0);
            let polled = poll(shared.port.as_mut(), cx);
            shared.sender_waker = polled.is_pending().then(|| cx.waker().clone());
            let limit = shared.limit;
            polled.map_err(|error| SocketError::from_yawc(error, limit))
        })
        .await
    }
}

impl std::fmt::Debug for SocketSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SocketSender")
    }
}

#[cfg(test)]
mod compression_tests;
#[cfg(test)]
mod tests;
