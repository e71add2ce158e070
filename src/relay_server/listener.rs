//! The relay's port: accepts connections and serves each, up to a bound.
//!
//! Takes an address and a task group, in which the connections live; accepts until the group is cancelled or
//! [`RelayContext::close`] is called. The latter lets connections answer what is due and say goodbye, the former
//! drops them. A connection over the bound is closed at once; the last places are for programs on this machine, which
//! strangers must not lock out. A system without room for more is given time. Tunnels are no connections of this port: they
//! are bounded where they come in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::bounds::{ACCEPT_PAUSE, PLACES_FOR_THIS_MACHINE};
use super::context::{RelayContext, RemoteParty};
use super::http::serve_connection;
use crate::tasks::TaskGroup;

/// Connections that the system holds until we accept them.
const BACKLOG: u32 = 1_024;

/// Why the relay cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// The system's answer.
    pub source: io::Error,
}

/// A port that is bound and not served yet.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundListener {
    /// The address, with the port that the system chose if none was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// The port's places for connections.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    /// Those of them that strangers may have.
    of_strangers: Arc<Semaphore>,
}

impl Places {
    fn new(connections_max: usize) -> Self {
        let kept = (connections_max / PLACES_FOR_THIS_MACHINE).min(connections_max);
        Self {
            all: Arc::new(Semaphore::new(connections_max)),
            of_strangers: Arc::new(Semaphore::new(connections_max - kept)),
        }
    }

    /// A place for a connection from there, free again when it is dropped; `None` if there is none left.
    fn take(
        &self,
        is_stranger: bool,
    ) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let one_of = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let of_strangers = match is_stranger {
            true => Some(one_of(&self.of_strangers)?),
            false => None,
        };
        Some((one_of(&self.all)?, of_strangers))
    }
}

/// The relay as a TCP server.
#[derive(Debug, Clone)]
pub struct RelayServer {
    context: Arc<RelayContext>,
}

impl RelayServer {
    /// A server of this relay.
    pub fn new(context: Arc<RelayContext>) -> Self {
        Self { context }
    }

    /// Binds an address. Clients wait until it is served.
    ///
    /// # Errors
    /// [`BindError`], for instance if the port is taken.
    pub fn bind(address: SocketAddr) -> Result<BoundListener, BindError> {
        let bound = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            // Accepted connections inherit it: the system finds out when a client is gone without a word.
            socket.set_keepalive(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(BoundListener { listener, address })
        };
        bound().map_err(|source| BindError { address, source })
    }

    /// Serves until the relay is closed or `tasks` is cancelled. The connections are tasks of that group.
    pub async fn serve(&self, listener: BoundListener, tasks: TaskGroup) {
        select! {
            () = tasks.token().cancelled() => {}
            () = self.context.closing.cancelled() => {}
            () = self.accept(&listener.listener, &tasks) => {}
        }
    }

    async fn accept(&self, listener: &TcpListener, tasks: &TaskGroup) {
        let places = Places::new(self.context.options().connections_max);
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.start(stream, address, &places, tasks),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, address: SocketAddr, places: &Places, tasks: &TaskGroup) {
        let party = RemoteParty::of_tcp(address, stream.local_addr().ok());
        // Where this machine has no rights of its own, a proxy on it brings strangers.
        let is_stranger = !party.loopback || !self.context.options().trust_loopback;
        let Some(place) = places.take(is_stranger) else {
            tracing::debug!(%address, "too many connections");
            return;
        };
        // Small messages must not wait for each other; a stream that cannot do it still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let served = serve_connection(stream, party, Arc::clone(&self.context));
        let started = tasks.spawn(async move {
            let end = served.await;
            drop(place);
            tracing::debug!(%address, %end, "connection ended");
        });
        if started.is_err() {
            tracing::debug!(%address, "no room for another connection");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_take_the_last_places() {
        let places = Places::new(32);
        let strangers: Vec<_> = std::iter::from_fn(|| places.take(true)).collect();
        assert_eq!(strangers.len(), 30);
        let captain: Vec<_> = std::iter::from_fn(|| places.take(false)).collect();
        assert_eq!(captain.len(), 2);
        drop(strangers);
        // What this machine takes beyond its own is taken from all.
        let more: Vec<_> = std::iter::from_fn(|| places.take(false)).collect();
        assert_eq!(more.len(), 30);
        assert!(places.take(true).is_none());
        drop(captain);
        assert!(places.take(true).is_some());
        assert!(
            Places::new(1).take(true).is_some(),
            "one place is anybody's"
        );
    }
}
