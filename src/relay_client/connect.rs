//! From a relay's address to a byte stream, and from a byte stream to a WebSocket.
//!
//! Takes `ws://` and `wss://` addresses; gives a [`ByteStream`] or a [`TextSocket`]. A byte stream may also be handed
//! in, which is how tunnels come here. TLS is rustls on ring with Mozilla's roots; certificates are always checked.
//! Worst case: [`ConnectOptions::deadline`], name, TCP, TLS and handshake together. Up to four addresses of a
//! name are tried in turn, each with its share of the time, so that one dead address does not cost all of it.
//! Cancel safe in that dropping closes; a name look-up goes on in the runtime's bounded blocking pool.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::HeaderValue;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use url::{Host, Url};

use crate::limits::CONNECT_DEADLINE;
use crate::peer::{ByteStream, PeerId};
use crate::protocol::websocket::{STATION_HEADER, STATION_PEER_HEADER, connect_websocket};
use crate::protocol::{HandshakeError, SocketLimits, TextSocket};
use crate::tunnel::OpenError;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why a relay could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not `ws://host…` or `wss://host…`.
    #[error("not a relay address")]
    InvalidAddress,
    /// The name has no address.
    #[error("name does not resolve: {0}")]
    Resolve(String),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No route, reset, or another failure of the network.
    #[error("network: {0}")]
    Network(String),
    /// Nothing came in time.
    #[error("timed out")]
    Timeout,
    /// The certificate is not the host's, or TLS failed otherwise.
    #[error("TLS: {0}")]
    Tls(String),
    /// No tunnel to the station.
    #[error("tunnel: {0}")]
    Tunnel(#[from] OpenError),
    /// The other side does not open a WebSocket.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl ConnectError {
    /// A stable name for reports and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::InvalidAddress => "invalid_address",
            Self::Resolve(_) => "resolve",
            Self::Refused => "refused",
            Self::Network(_) => "network",
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::Tunnel(error) => error.label(),
            Self::Handshake(_) => "handshake",
        }
    }

    fn from_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            std::io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Network(error.to_string()),
        }
    }
}

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For everything up to the open WebSocket.
    pub deadline: Duration,
    /// Say that we are a station (`X-Constellation: 1`).
    pub as_station: bool,
    /// Say which (`X-Constellation-Peer`). Who is reached on the same machine believes it.
    pub own: Option<PeerId>,
    /// Bounds of the socket.
    pub socket: SocketLimits,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            deadline: CONNECT_DEADLINE,
            as_station: true,
            own: None,
            socket: SocketLimits::default(),
        }
    }
}

/// Opens a WebSocket to a relay.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(url: &Url, options: &ConnectOptions) -> Result<TextSocket, ConnectError> {
    let opened = Box::pin(async {
        let stream = dial(url, options.deadline).await?;
        handshake(stream, url, options).await
    });
    timeout(options.deadline, opened)
        .await
        .map_err(|_| ConnectError::Timeout)?
}

/// Opens a WebSocket over a byte stream, for instance a tunnel; `url` gives host and path of the request.
///
/// # Errors
/// [`ConnectError::Timeout`] or [`ConnectError::Handshake`].
pub async fn connect_over(
    stream: ByteStream,
    url: &Url,
    options: &ConnectOptions,
) -> Result<TextSocket, ConnectError> {
    timeout(options.deadline, Box::pin(handshake(stream, url, options)))
        .await
        .map_err(|_| ConnectError::Timeout)?
}

async fn handshake(
    stream: ByteStream,
    url: &Url,
    options: &ConnectOptions,
) -> Result<TextSocket, ConnectError> {
    let mut headers = Vec::new();
    if options.as_station {
        headers.push((STATION_HEADER, HeaderValue::from_static("1")));
    }
    let own = options.own.filter(|_| options.as_station);
    if let Some(own) = own.and_then(|own| HeaderValue::from_str(&own.to_string()).ok()) {
        headers.push((STATION_PEER_HEADER, own));
    }
    Ok(connect_websocket(stream, url, &headers, options.socket).await?)
}

/// Opens a TCP connection to a `ws://` or `wss://` address, with TLS for the latter.
///
/// # Errors
/// [`ConnectError`], but not its `Handshake`.
pub async fn dial(url: &Url, deadline: Duration) -> Result<ByteStream, ConnectError> {
    let secure = match url.scheme() {
        "ws" => false,
        "wss" => true,
        _ => return Err(ConnectError::InvalidAddress),
    };
    let host = url.host().ok_or(ConnectError::InvalidAddress)?;
    let port = url
        .port_or_known_default()
        .ok_or(ConnectError::InvalidAddress)?;
    let dialled = async {
        let stream = dial_host(&host, port, deadline).await?;
        // Small messages must not wait for each other; a stream that cannot do it still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        if secure {
            start_tls(stream, &host).await
        } else {
            Ok(Box::new(stream) as ByteStream)
        }
    };
    timeout(deadline, Box::pin(dialled))
        .await
        .map_err(|_| ConnectError::Timeout)?
}

async fn dial_host(
    host: &Host<&str>,
    port: u16,
    deadline: Duration,
) -> Result<TcpStream, ConnectError> {
    let addresses: Vec<SocketAddr> = match host {
        Host::Ipv4(ip) => vec![(*ip, port).into()],
        Host::Ipv6(ip) => vec![(*ip, port).into()],
        Host::Domain(name) => tokio::net::lookup_host((*name, port))
            .await
            .map_err(|error| ConnectError::Resolve(error.to_string()))?
            .take(ADDRESSES_MAX)
            .collect(),
    };
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failed = ConnectError::Resolve("no address".to_owned());
    for address in addresses {
        match timeout(deadline / count, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = ConnectError::from_io(&error),
            Err(_) => failed = ConnectError::Timeout,
        }
    }
    Err(failed)
}

async fn start_tls(stream: TcpStream, host: &Host<&str>) -> Result<ByteStream, ConnectError> {
    let name = match host {
        Host::Domain(name) => {
            ServerName::try_from((*name).to_owned()).map_err(|_| ConnectError::InvalidAddress)?
        }
        Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
        Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
    };
    let connector = TlsConnector::from(Arc::clone(&TLS));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    Ok(Box::new(stream))
}

/// Built once: it holds some 150 roots.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});
