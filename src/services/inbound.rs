//! Streams that other stations opened, brought to what they asked for.
//!
//! Takes the carrier's queue; each stream is served in a task of its own, up to a bound that the carrier keeps. A local
//! target is dialled first, and the stream dropped (reset) if that fails, as kubo does. Who may enter was decided
//! before; what is exposed is looked up once more, since the list may have changed while the stream waited.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::manager::Services;
use super::splice::splice;
use super::table::Exposure;
use crate::limits::CONNECT_DEADLINE;
use crate::peer::{ByteStream, PeerId};
use crate::tasks::TaskGroup;
use crate::tunnel::{InboundStream, ServiceName};

/// A conversation with a station that came in, on its way.
pub type Visit = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves stations that come in to our relay, told who they are.
pub type RelayEntrance = Arc<dyn Fn(PeerId, ByteStream) -> Visit + Send + Sync>;

/// What serves the two services that are parts of this program.
#[derive(Clone)]
pub struct Inbound {
    /// Our relay, told who is at the other end; `None`: there is none.
    pub relay: Option<RelayEntrance>,
    /// The constellation's own service: cards, joining.
    pub constellation: RelayEntrance,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("relay", &self.relay.is_some())
            .finish_non_exhaustive()
    }
}

impl Services {
    /// Serves what comes out of `streams` until it ends. Conversations are tasks of `tasks`.
    pub async fn serve(
        self: Arc<Self>,
        mut streams: mpsc::Receiver<InboundStream>,
        parts: Inbound,
        tasks: TaskGroup,
    ) {
        while let Some(inbound) = streams.recv().await {
            let InboundStream {
                peer,
                service,
                stream,
            } = inbound;
            let Some(visit) = self.visit(peer, &service, stream, &parts) else {
                continue;
            };
            if tasks.spawn(visit).is_err() {
                tracing::warn!(%peer, %service, "no room to serve a stream");
            }
        }
    }

    fn visit(
        &self,
        peer: PeerId,
        service: &ServiceName,
        stream: ByteStream,
        parts: &Inbound,
    ) -> Option<Visit> {
        if service.as_str() == ServiceName::CONSTELLATION {
            return Some((parts.constellation)(peer, stream));
        }
        match self.exposure(service)? {
            Exposure::Relay => parts.relay.as_ref().map(|relay| relay(peer, stream)),
            Exposure::Port(port) => {
                let service = service.clone();
                Some(Box::pin(async move {
                    if let Err(error) = lead_to(port, stream).await {
                        tracing::debug!(%peer, %service, port, %error, "a stream broke");
                    }
                }))
            }
        }
    }
}

async fn lead_to(port: u16, stream: ByteStream) -> std::io::Result<()> {
    let dialling = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let local = timeout(CONNECT_DEADLINE, dialling).await??;
    local.set_nodelay(true)?;
    splice(stream, local).await
}
