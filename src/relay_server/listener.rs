//! The relay's port: accepts connections and serves each, up to a bound.
//!
//! Takes an address; runs until its task group is cancelled. Then no more connections are accepted, those there are
//! answer what is due and say goodbye, and what has not ended within ten seconds is dropped. A connection over the
//! bound is closed at once. A system without room for more is given time. Dropping `serve` drops its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;
use tokio::time::{sleep, timeout};

use super::bounds::{ACCEPT_PAUSE, CLOSING_DEADLINE};
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

    /// Serves until `tasks` is cancelled; then ends the connections in good order.
    ///
    /// Await it outside of `tasks`: a task of that group is dropped when it is cancelled, and this with its clients.
    pub async fn serve(&self, listener: BoundListener, tasks: TaskGroup) {
        let connections = TaskGroup::new(self.context.options().connections_max);
        let _end_with_this = connections.token().clone().drop_guard();
        select! {
            () = tasks.token().cancelled() => {}
            () = self.accept(&listener.listener, &connections) => {}
        }
        drop(listener);
        self.context.close();
        let mut alive = self.context.connections();
        // Twice: once for the answers that are due, once for the client to take them.
        let ended = timeout(2 * CLOSING_DEADLINE, alive.wait_for(|alive| *alive == 0))
            .await
            .is_ok();
        if !ended {
            tracing::info!(
                connections = connections.len(),
                "dropping connections that do not end"
            );
        }
        connections.end().await;
    }

    async fn accept(&self, listener: &TcpListener, connections: &TaskGroup) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.start(stream, address, connections),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, address: SocketAddr, connections: &TaskGroup) {
        // Small messages must not wait for each other; a stream that cannot do it still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let party = RemoteParty::of_tcp(address, stream.local_addr().ok());
        let served = serve_connection(stream, party, Arc::clone(&self.context));
        let started = connections.spawn(async move {
            let end = served.await;
            tracing::debug!(%address, %end, "connection ended");
        });
        if started.is_err() {
            tracing::debug!(%address, "no room for another connection");
        }
    }
}
