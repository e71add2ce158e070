//! How a peer's address becomes a byte stream: the seam at which tunnels, and simulations, come in.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    /// Set once tunnels have started.
    carrier: Arc<OnceLock<Arc<dyn Carrier>>>,
}

impl Dialer {
    /// Reaches relays; stations too once [`Self::take_carrier`] was called.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reaches stations by this carrier from now on. The first one stays.
    pub fn take_carrier(&self, carrier: Arc<dyn Carrier>) {
        if self.carrier.set(carrier).is_err() {
            tracing::error!("the dialer has a carrier already");
        }
    }
}

impl Dial for Dialer {
    fn dial<'d>(&'d self, address: &'d PeerAddress, deadline: Duration) -> Dialling<'d> {
        let station = match address.target() {
            Target::Relay(url) => return Box::pin(dial(url, deadline)),
            Target::Station(station) => station,
        };
        Box::pin(async move {
            let Some(carrier) = self.carrier.get() else {
                let down = "tunnels are switched off here ([tunnel] enabled = false)";
                return Err(OpenError::CarrierDown(down.to_owned()).into());
            };
            if let Some(hint) = &station.hint {
                carrier.learn(station.peer, std::slice::from_ref(hint), Source::Static);
            }
            let service = ServiceName::strfry();
            Ok(carrier.open(station.peer, &service, deadline).await?)
        })
    }
}
