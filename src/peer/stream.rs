//! Bytes to and from a peer, whatever carries them.

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes in both directions: a TCP or TLS connection, or a tunnel.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Any byte stream.
pub type ByteStream = Box<dyn Stream>;
