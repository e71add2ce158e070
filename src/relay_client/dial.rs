//! How a peer's address becomes a byte stream: the seam at which tunnels, and simulations, come in.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use url::Url;

use super::connect::{ByteStream, ConnectError, dial};

/// A byte stream on its way.
pub type Dialling<'d> = Pin<Box<dyn Future<Output = Result<ByteStream, ConnectError>> + Send + 'd>>;

/// Opens byte streams to peers.
pub trait Dial: std::fmt::Debug + Send + Sync {
    /// Opens one to `url` within `deadline`. Cancel safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`ConnectError`], but not its `Handshake`.
    fn dial<'d>(&'d self, url: &'d Url, deadline: Duration) -> Dialling<'d>;
}

/// Dials over the network: TCP, with TLS for `wss://`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkDialer;

impl Dial for NetworkDialer {
    fn dial<'d>(&'d self, url: &'d Url, deadline: Duration) -> Dialling<'d> {
        Box::pin(dial(url, deadline))
    }
}
