//! How a peer's address becomes a byte stream: the seam at which tunnels, and simulations, come in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::connect::{ConnectError, dial};
use crate::peer::{ByteStream, PeerAddress, Target};
use crate::tunnel::{Carrier, OpenError, ServiceName, Source};

/// A byte stream on its way.
pub type Dialling<'d> = Pin<Box<dyn Future<Output = Result<ByteStream, ConnectError>> + Send + 'd>>;

/// Opens byte streams to peers.
pub trait Dial: std::fmt::Debug + Send + Sync {
    /// Opens one to the relay at `address` within `deadline`. Cancel safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`ConnectError`], but not its `Handshake`.
    fn dial<'d>(&'d self, address: &'d PeerAddress, deadline: Duration) -> Dialling<'d>;
}

/// Dials relays over the network (TCP, with TLS for `wss://`) and stations through tunnels.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// Once tunnels have started; before, why they have not.
    carrier: watch::Sender<Result<Arc<dyn Carrier>, String>>,
}

impl Dialer {
    /// Reaches relays; stations too once [`Self::take_carrier`] was called.
    pub fn new() -> Self {
        let none = "tunnels have not started here".to_owned();
        Self {
            carrier: watch::Sender::new(Err(none)),
        }
    }

    /// Reaches stations by this carrier from now on.
    pub fn take_carrier(&self, carrier: Arc<dyn Carrier>) {
        self.carrier.send_modify(|current| *current = Ok(carrier));
    }

    /// Reaches no stations, and says why.
    pub fn tell_why_none(&self, why: String) {
        self.carrier.send_modify(|current| *current = Err(why));
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::new()
    }
}

impl Dial for Dialer {
    fn dial<'d>(&'d self, address: &'d PeerAddress, deadline: Duration) -> Dialling<'d> {
        let station = match address.target() {
            Target::Relay(url) => return Box::pin(dial(url, deadline)),
            Target::Station(station) => station,
        };
        Box::pin(async move {
            let carrier = self.carrier.borrow().clone();
            let carrier = carrier.map_err(OpenError::CarrierDown)?;
            if let Some(hint) = &station.hint {
                carrier.learn(station.peer, std::slice::from_ref(hint), Source::Static);
            }
            let service = ServiceName::strfry();
            Ok(carrier.open(station.peer, &service, deadline).await?)
        })
    }
}
