//! Ways from a connection on this machine to the target: none, and through tunnels of every kind.
//!
//! A way holds the processes that make it up, one that exposes the target and one that opens it; both end when it is
//! dropped. A distance lies between the two, not between them and whoever uses them.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use constellation::distance::DelayingProxy;
use tokio::runtime::Runtime;

use crate::kubo::{Kubo, Setup};
use crate::station::{Home, Process, Station, text, until};
use crate::target::Target;
use crate::{Asked, Measured};

const SERVICE: &str = "bulk";
/// Any key but the one of all zeros.
const SWARM_KEY: &str = "/key/swarm/psk/1.0.0/\n/base16/\n4d0a1c9b7f6e5d3c2b1a09f8e7d6c5b4a3928170615243f4e5d6c7b8a9908172\n";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Which program is at an end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ours,
    Kubo,
}

/// What a tunnel is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    opener: End,
    exposer: End,
    listen: &'static str,
    keyed: bool,
    /// Noise, where kubo would choose TLS.
    noise_only: bool,
}

/// Between two stations: TLS, with AES where the processor has it.
pub(crate) const OVER_TCP: Kind = Kind {
    name: "tunnel, TLS over TCP",
    opener: End::Ours,
    exposer: End::Ours,
    listen: TCP,
    keyed: false,
    noise_only: false,
};
pub(crate) const KEYED: Kind = Kind {
    name: "tunnel, swarm key",
    keyed: true,
    ..OVER_TCP
};
pub(crate) const BY_QUIC: Kind = Kind {
    name: "tunnel, QUIC",
    listen: QUIC,
    ..OVER_TCP
};
/// Between two daemons, as they are.
pub(crate) const KUBO: Kind = Kind {
    name: "kubo to kubo, TLS over TCP",
    opener: End::Kubo,
    exposer: End::Kubo,
    ..OVER_TCP
};
pub(crate) const KUBO_NOISE: Kind = Kind {
    name: "kubo to kubo, Noise over TCP",
    noise_only: true,
    ..KUBO
};
pub(crate) const KUBO_KEYED: Kind = Kind {
    name: "kubo to kubo, swarm key",
    keyed: true,
    ..KUBO
};
pub(crate) const FROM_KUBO: Kind = Kind {
    name: "kubo to us",
    opener: End::Kubo,
    ..OVER_TCP
};
pub(crate) const TO_KUBO: Kind = Kind {
    name: "us to kubo",
    exposer: End::Kubo,
    ..OVER_TCP
};

impl Kind {
    fn has_kubo(self) -> bool {
        self.opener == End::Kubo || self.exposer == End::Kubo
    }
}

/// One end, while it runs.
#[derive(Debug)]
enum Running {
    Ours(Station),
    Kubo(Box<Kubo>),
}

impl Running {
    fn process(&self) -> Process {
        match self {
            Self::Ours(station) => station.process(),
            Self::Kubo(kubo) => Process(kubo.process_id()),
        }
    }
}

/// A tunnel.
#[derive(Debug)]
pub(crate) struct Way {
    /// What leads to the target.
    pub(crate) mouth: SocketAddr,
    opener: Running,
    exposer: Running,
    _distance: Option<Distance>,
}

impl Way {
    /// A tunnel of this kind; `None` where it needs kubo, which is not there.
    pub(crate) fn through(
        kind: Kind,
        asked: &Asked,
        target: &Target,
        one_way: Option<Duration>,
    ) -> Measured<Option<Self>> {
        if kind.has_kubo() && !asked.has_kubo() {
            return Ok(None);
        }
        // Each must know the other before it starts, or be told of it later.
        let (opener, exposer) = (
            Before::new(kind.opener, kind, asked)?,
            Before::new(kind.exposer, kind, asked)?,
        );
        let (opener_peer, exposer_peer) = (opener.peer(), exposer.peer());
        let (exposer, address) = exposer.expose(kind, &opener_peer, target)?;
        let distance = one_way
            .map(|one_way| Distance::before(&address, one_way))
            .transpose()?;
        let address = distance
            .as_ref()
            .map_or(address, |distance| distance.address.clone());
        let (opener, mouth) = opener.open(kind, &exposer_peer, &address)?;
        Ok(Some(Self {
            mouth,
            opener,
            exposer,
            _distance: distance,
        }))
    }

    /// What opens it, and what exposes the target.
    pub(crate) fn processes(&self) -> [Process; 2] {
        [self.opener.process(), self.exposer.process()]
    }
}

/// An end that is about to be.
#[derive(Debug)]
enum Before {
    Ours(Home),
    Kubo(Box<Kubo>),
}

impl Before {
    fn new(end: End, kind: Kind, asked: &Asked) -> Measured<Self> {
        Ok(match end {
            End::Ours => Self::Ours(Home::new(asked)?),
            End::Kubo => {
                let setup = Setup {
                    quic: false,
                    noise_only: kind.noise_only,
                    swarm_key: kind.keyed.then_some(SWARM_KEY),
                    ..Setup::default()
                };
                Self::Kubo(Box::new(Kubo::start_with(asked.kubo.clone(), setup)))
            }
        })
    }

    fn peer(&self) -> String {
        match self {
            Self::Ours(home) => home.peer().to_owned(),
            Self::Kubo(kubo) => kubo.peer().to_owned(),
        }
    }

    /// Lets `opener` reach the target; says where it is to be dialled.
    fn expose(self, kind: Kind, opener: &str, target: &Target) -> Measured<(Running, String)> {
        let port = target.address.port();
        match self {
            Self::Ours(home) => {
                home.configure(&format!(
                    "listen = [\"{}\"]\nallow = [\"{opener}\"]\n{}\
                     [[tunnel.services]]\nname = \"{SERVICE}\"\nport = {port}",
                    kind.listen,
                    swarm_key(&home, kind)?,
                ))?;
                let station = home.start()?;
                let address = station.address()?;
                Ok((Running::Ours(station), address))
            }
            Self::Kubo(kubo) => {
                let protocol = format!("/x/{SERVICE}-{}", kubo.peer());
                kubo.ipfs(&[
                    "p2p",
                    "listen",
                    &protocol,
                    &format!("/ip4/127.0.0.1/tcp/{port}"),
                ]);
                let addresses = kubo.addresses();
                let address = addresses.iter().find(|address| address.contains("/tcp/"));
                let address = address.ok_or("kubo does not listen")?;
                let address = address.split("/p2p/").next().unwrap_or_default().to_owned();
                Ok((Running::Kubo(kubo), address))
            }
        }
    }

    /// Opens the target of `exposer`; says on which port.
    fn open(self, kind: Kind, exposer: &str, address: &str) -> Measured<(Running, SocketAddr)> {
        match self {
            Self::Ours(home) => {
                // It listens nowhere: there is one connection, and it goes the way that is measured.
                let peer = format!("{address}/p2p/{exposer}");
                home.configure(&format!(
                    "listen = []\n{}[[tunnel.open]]\nname = \"{SERVICE}\"\npeer = \"{peer}\"",
                    swarm_key(&home, kind)?,
                ))?;
                let station = home.start()?;
                let mouth = until("the tunnel is open", || {
                    let open = &station.tunnels()?["open"][0];
                    if open["state"] != "connected" {
                        return Ok(None);
                    }
                    Ok(Some(text(&open["listen"])?.parse()?))
                })?;
                Ok((Running::Ours(station), mouth))
            }
            Self::Kubo(kubo) => {
                kubo.ipfs(&["swarm", "connect", &format!("{address}/p2p/{exposer}")]);
                let mouth = free()?;
                let listen = format!("/ip4/127.0.0.1/tcp/{}", mouth.port());
                let protocol = format!("/x/{SERVICE}-{exposer}");
                kubo.ipfs(&[
                    "p2p",
                    "forward",
                    &protocol,
                    &listen,
                    &format!("/p2p/{exposer}"),
                ]);
                Ok((Running::Kubo(kubo), mouth))
            }
        }
    }
}

fn swarm_key(home: &Home, kind: Kind) -> Measured<String> {
    if !kind.keyed {
        return Ok(String::new());
    }
    let path = home.write("swarm.key", SWARM_KEY)?;
    Ok(format!("swarm_key = \"{}\"\n", path.display()))
}

/// A port that was free a moment ago: kubo does not say which it took.
fn free() -> Measured<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A distance, on a runtime of its own. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Distance {
    address: String,
    runtime: Option<Runtime>,
}

impl Distance {
    /// Before `address` (`/ip4/127.0.0.1/tcp/PORT`).
    fn before(address: &str, one_way: Duration) -> Measured<Self> {
        let port = address.rsplit('/').next().ok_or("no port")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let target = format!("127.0.0.1:{port}");
        let proxy = runtime.block_on(DelayingProxy::start(&target, one_way))?;
        let listens = proxy.address();
        let port = listens.rsplit(':').next().ok_or("no port")?;
        Ok(Self {
            address: format!("/ip4/127.0.0.1/tcp/{port}"),
            runtime: Some(runtime),
        })
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
