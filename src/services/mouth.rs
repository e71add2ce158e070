//! The mouth of an opened tunnel: a port on this machine that leads to a service of another station.
//!
//! Takes connections on loopback and brings each to the station by a stream of its own. The port stays bound while the
//! station is away: a connection made meanwhile waits for the station as long as a stream may take to open, then is
//! closed. Worst case: `MOUTH_CONNECTIONS_MAX` connections for each mouth.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use super::known::mouth_ports;
use super::splice::splice;
use crate::limits::CONNECT_DEADLINE;
use crate::peer::PeerId;
use crate::tasks::TaskGroup;
use crate::tunnel::{Carrier, CarrierState, Path, ServiceName};

/// Connections through one mouth at a time.
const MOUTH_CONNECTIONS_MAX: usize = 1_100;
/// Connections that the system holds until they are accepted: a burst of as many as a mouth takes loses none.
const BACKLOG: u32 = 2_048;
/// How long to wait when the system cannot give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How an opened tunnel is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MouthStatus {
    /// The service.
    pub name: ServiceName,
    /// The station.
    pub peer: String,
    /// Where it is opened: `127.0.0.1:port`.
    pub listen: String,
    /// Whether there is a connection with the station: `connected` or `connecting`.
    pub state: String,
    /// `direct` or `relayed`; `null` while there is no connection.
    pub path: Option<String>,
    /// Connections brought there so far.
    pub connections: u64,
    /// What came of the last that could not be; `null` if none failed since one succeeded.
    pub last_error: Option<String>,
    /// Whether the configuration says so, rather than a command.
    pub configured: bool,
}

/// An open mouth; closed when dropped.
#[derive(Debug)]
pub(super) struct Mouth {
    pub(super) name: ServiceName,
    pub(super) peer: PeerId,
    pub(super) address: SocketAddr,
    pub(super) configured: bool,
    seen: Arc<Seen>,
    tasks: TaskGroup,
}

/// A mouth, to look at.
#[derive(Debug)]
pub(super) struct MouthView {
    name: ServiceName,
    pub(super) peer: PeerId,
    address: SocketAddr,
    configured: bool,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Seen {
    fn set_error(&self, error: Option<String>) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// How long a port may take to come free that was ours a moment ago: its mouth was closed, but not yet let go.
const PORT_PATIENCE: Duration = Duration::from_millis(300);
const PORT_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Binds a port for a mouth: the named one or none; else the first that is free of those that suit. Blocks for a moment
/// where the port that it had is busy.
pub(super) fn bind(
    name: &ServiceName,
    named: Option<u16>,
    remembered: Option<u16>,
) -> std::io::Result<TcpListener> {
    let ports = named.map_or_else(|| mouth_ports(name, remembered), |port| vec![port]);
    let mut failed = std::io::Error::other("no port to try");
    for port in ports {
        let was_ours = remembered == Some(port);
        match bind_patiently(port, was_ours) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bind_patiently(port: u16, was_ours: bool) -> std::io::Result<TcpListener> {
    let mut waited = Duration::ZERO;
    loop {
        match bind_port(port) {
            Err(error)
                if was_ours
                    && error.kind() == std::io::ErrorKind::AddrInUse
                    && waited < PORT_PATIENCE =>
            {
                std::thread::sleep(PORT_LOOK_EVERY);
                waited += PORT_LOOK_EVERY;
            }
            bound => return bound,
        }
    }
}

fn bind_port(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The port is ours again at once after a restart, whatever connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

impl Mouth {
    /// Serves `listener` until dropped.
    ///
    /// # Errors
    /// The system's; or no room for its task.
    pub(super) fn open(
        listener: TcpListener,
        name: ServiceName,
        peer: PeerId,
        configured: bool,
        carrier: Arc<dyn Carrier>,
        tasks: &TaskGroup,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        // One more than connections: the task that accepts them.
        let tasks = tasks.child(MOUTH_CONNECTIONS_MAX + 1);
        let accepting = accept(
            listener,
            name.clone(),
            peer,
            carrier,
            Arc::clone(&seen),
            tasks.clone(),
        );
        tasks.spawn(accepting).map_err(std::io::Error::other)?;
        Ok(Self {
            name,
            peer,
            address,
            configured,
            seen,
            tasks,
        })
    }

    /// Whether it is a mouth for this service, and on the port that was named, if one was.
    pub(super) fn fits(&self, name: &ServiceName, port: Option<u16>) -> bool {
        self.name == *name && port.is_none_or(|port| port == self.address.port())
    }

    /// What can be told of it without the table.
    pub(super) fn view(&self) -> MouthView {
        MouthView {
            name: self.name.clone(),
            peer: self.peer,
            address: self.address,
            configured: self.configured,
            seen: Arc::clone(&self.seen),
        }
    }
}

impl MouthView {
    /// How it is, by what the carrier says of its station.
    pub(super) fn status(&self, carrier: &CarrierState) -> MouthStatus {
        let peer = self.peer.to_string();
        let link = carrier.links.get(&peer);
        let last_error = self.seen.last_error.lock();
        MouthStatus {
            name: self.name.clone(),
            listen: self.address.to_string(),
            state: if link.is_some() {
                "connected"
            } else {
                "connecting"
            }
            .to_owned(),
            path: link.map(|link| match link.path {
                Path::Direct => "direct".to_owned(),
                Path::Relayed => "relayed".to_owned(),
            }),
            connections: self.seen.connections.load(Ordering::Relaxed),
            last_error: last_error.unwrap_or_else(PoisonError::into_inner).clone(),
            configured: self.configured,
            peer,
        }
    }
}

impl Drop for Mouth {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

async fn accept(
    listener: TcpListener,
    name: ServiceName,
    peer: PeerId,
    carrier: Arc<dyn Carrier>,
    seen: Arc<Seen>,
    tasks: TaskGroup,
) {
    loop {
        let local = match listener.accept().await {
            Ok((local, _)) => local,
            Err(error) => {
                tracing::warn!(%name, %error, "cannot accept a connection to a tunnel");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let bringing = bring(
            local,
            name.clone(),
            peer,
            Arc::clone(&carrier),
            Arc::clone(&seen),
        );
        if tasks.spawn(bringing).is_err() {
            seen.set_error(Some("too many connections at a time".to_owned()));
        }
    }
}

async fn bring(
    local: TcpStream,
    name: ServiceName,
    peer: PeerId,
    carrier: Arc<dyn Carrier>,
    seen: Arc<Seen>,
) {
    if let Err(error) = local.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match carrier.open(peer, &name, CONNECT_DEADLINE).await {
        Ok(stream) => {
            seen.connections.fetch_add(1, Ordering::Relaxed);
            seen.set_error(None);
            if let Err(error) = splice(local, stream).await {
                tracing::debug!(%name, %peer, %error, "a connection through a tunnel broke");
            }
        }
        Err(error) => {
            tracing::debug!(%name, %peer, %error, "a connection finds no tunnel");
            seen.set_error(Some(error.to_string()));
        }
    }
}
