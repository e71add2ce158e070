//! From HTTP to a [`TextSocket`], as client and as server.
//!
//! Takes a byte stream and an address, or a request that our HTTP server received; gives the socket.
//! The client's handshake runs on a task of `yawc` that ends with the handshake or when the future is dropped.
//! Invariant: whatever address or answer comes in, the result is a typed error, never a panic of the libraries
//! below, which take an address without a host for a bug. Neither side has a deadline of its own.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, Uri};
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite};
use url::{Position, Url};
use yawc::{HttpRequest, UpgradeFut, WebSocket, WebSocketError};

use super::{Compression, SocketLimits, TextSocket};

/// By this header an initiating station says that it is one (value `1`).
pub const STATION_HEADER: HeaderName = HeaderName::from_static("x-constellation");
/// By this one it says which: its PeerID. A claim, believed only from the same machine.
pub const STATION_PEER_HEADER: HeaderName = HeaderName::from_static("x-constellation-peer");

/// Why no WebSocket came of a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The address is no `ws://` or `wss://` with a host, or too long.
    #[error("not a WebSocket address")]
    InvalidAddress,
    /// The server answered with another status than 101.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The server sends us elsewhere; redirects are not followed.
    #[error("HTTP status {status}, redirected to {location}")]
    Redirected {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// One side's headers are not those of a WebSocket handshake.
    #[error("WebSocket handshake: {0}")]
    Protocol(String),
    /// The connection broke, or what came was not HTTP.
    #[error("connection: {0}")]
    Connection(String),
}

impl From<WebSocketError> for HandshakeError {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::InvalidStatusCode(status) => Self::Status(status),
            WebSocketError::Redirected {
                status_code,
                location,
            } => Self::Redirected {
                status: status_code,
                location,
            },
            WebSocketError::HTTPError(error) => Self::Connection(error.to_string()),
            WebSocketError::IoError(error) => Self::Connection(error.to_string()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// Opens a WebSocket as client over `stream`; `url` gives host and path, `headers` what is said besides.
///
/// Cancel safe in that dropping it closes the stream.
///
/// # Errors
/// [`HandshakeError`].
pub async fn connect_websocket<S>(
    stream: S,
    url: &Url,
    headers: &[(HeaderName, HeaderValue)],
    limits: SocketLimits,
) -> Result<TextSocket, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let target = &url[Position::BeforePath..Position::AfterQuery];
    if !matches!(url.scheme(), "ws" | "wss")
        || url.host().is_none()
        || target.parse::<Uri>().is_err()
    {
        return Err(HandshakeError::InvalidAddress);
    }
    let mut url = url.clone();
    url.set_fragment(None);
    let request = headers
        .iter()
        .fold(HttpRequest::builder(), |request, (name, value)| {
            request.header(name, value)
        });
    // Boxed: the HTTP client's state is large, and dead after the handshake.
    let handshake = Box::pin(WebSocket::handshake_with_request(
        url,
        stream,
        limits.options(),
        request,
    ));
    Ok(TextSocket::from_yawc(handshake.await?, limits))
}

/// Whether a request's headers ask for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// A WebSocket that exists once the response to its handshake is sent.
#[derive(Debug)]
pub struct PendingSocket {
    upgraded: UpgradeFut,
    limits: SocketLimits,
}

impl PendingSocket {
    /// Waits for hyper to hand over the connection, which must be served `with_upgrades`.
    ///
    /// # Errors
    /// [`HandshakeError::Connection`] if the connection breaks before.
    pub async fn open(self) -> Result<TextSocket, HandshakeError> {
        let socket = self
            .upgraded
            .await
            .map_err(|error| HandshakeError::Connection(error.to_string()))?;
        Ok(TextSocket::from_yawc(socket, self.limits))
    }
}

/// Accepts a WebSocket as server, without compression: the response to send, and the socket to be.
///
/// # Errors
/// As [`accept_with`].
pub fn accept<B>(
    request: Request<B>,
    limits: SocketLimits,
) -> Result<(Response<Empty<Bytes>>, PendingSocket), HandshakeError> {
    accept_with(request, limits, Compression::Never)
}

/// Accepts a WebSocket as server: the response to send, and the socket to be; compressed if the client offers it and
/// `compression` lets it.
///
/// # Errors
/// [`HandshakeError::Protocol`] if the request is no WebSocket handshake; answer it with 400.
pub fn accept_with<B>(
    mut request: Request<B>,
    limits: SocketLimits,
    compression: Compression,
) -> Result<(Response<Empty<Bytes>>, PendingSocket), HandshakeError> {
    if !is_upgrade(request.headers()) {
        return Err(HandshakeError::Protocol("no upgrade asked for".to_owned()));
    }
    let options = compression.options(limits.options(), request.headers());
    let (response, upgraded) = WebSocket::upgrade_with_options(&mut request, options)?;
    Ok((response, PendingSocket { upgraded, limits }))
}
