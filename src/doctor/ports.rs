//! Where the station listens: free, held by our own station, or by somebody else.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use multiaddr::Protocol;
use url::Url;

use super::remedy::toml_text;
use super::{CheckName, Finding, Remedy, Scene, holders, relay};
use crate::peer::Multiaddr;

/// How far a free port is looked for above one that is held.
const PORTS_TRIED: u16 = 64;

pub(super) async fn check(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = vec![relay_port(scene).await];
    found.extend(tunnel_ports(scene));
    found
}

/// A transport, as libp2p and the kernel name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn bind(self, at: SocketAddr) -> std::io::Result<()> {
        match self {
            Self::Tcp => TcpListener::bind(at).map(drop),
            Self::Udp => UdpSocket::bind(at).map(drop),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

async fn relay_port(scene: &Scene<'_>) -> Finding {
    let name = CheckName::RelayPort;
    if let Some(relay) = scene.running().and_then(|status| status.relay.as_ref()) {
        return name.ok(format!("our station serves {relay}"));
    }
    let listens = scene.config.relay_listens();
    let Err(error) = Transport::Tcp.bind(listens) else {
        return name.ok(format!("{listens} is free"));
    };
    let free = |ip: IpAddr, from: u16| {
        let port = free_port(ip, from, &[Transport::Tcp]);
        scene.setting(
            "relay",
            "listen",
            toml_text(&SocketAddr::new(ip, port).to_string()),
        )
    };
    match error.kind() {
        ErrorKind::AddrInUse => {
            let who = held_by(Transport::Tcp, listens.port());
            if scene.config.station.home_relay.is_none()
                && let Some(home) = relay_at(scene, listens).await
            {
                let remedy = scene.setting("station", "home_relay", toml_text(&home));
                let seen =
                    format!("{listens} is held by {who}, a relay: this station can serve it");
                return name.problem(seen, remedy);
            }
            let seen = format!("{listens} is held by {who}");
            name.problem(seen, free(listens.ip(), listens.port()))
        }
        ErrorKind::PermissionDenied => {
            let seen = format!("{listens}: only root may listen below port 1024");
            name.problem(seen, free(listens.ip(), 7_777))
        }
        _ => {
            let seen = format!("cannot listen on {listens}: {error}");
            name.problem(seen, free(IpAddr::from([127, 0, 0, 1]), listens.port()))
        }
    }
}

/// The address of the relay that answers there, if one does.
async fn relay_at(scene: &Scene<'_>, at: SocketAddr) -> Option<String> {
    let ip = if at.ip().is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        at.ip()
    };
    let address = format!("ws://{}", SocketAddr::new(ip, at.port()));
    let url = Url::parse(&address).ok()?;
    let visit = relay::visit(&url, &scene.around.clock).await.ok()?;
    visit.information.map(|_| address)
}

fn held_by(transport: Transport, port: u16) -> String {
    holders::of_port(transport.label(), port).map_or_else(
        || "another program (as root, `ss -ltnup` tells which)".to_owned(),
        |holder| holder.to_string(),
    )
}

/// The first port from this one on that is free for all these; the last that was tried if none is.
fn free_port(ip: IpAddr, from: u16, transports: &[Transport]) -> u16 {
    let last = from.saturating_add(PORTS_TRIED);
    let is_free = |port: &u16| {
        let at = SocketAddr::new(ip, *port);
        transports
            .iter()
            .all(|transport| transport.bind(at).is_ok())
    };
    (from.max(1)..=last).find(is_free).unwrap_or(last)
}

fn tunnel_ports(scene: &Scene<'_>) -> Option<Finding> {
    let name = CheckName::TunnelPorts;
    if !scene.config.tunnel.enabled {
        return Some(name.ok("tunnels are switched off"));
    }
    if let Some(status) = scene.running() {
        // A kubo that is missing is another check's.
        return match (&status.tunnels, &status.no_tunnels) {
            (Some(tunnels), _) => match &tunnels.carrier.problem {
                None => Some(name.ok("our station has its tunnels")),
                Some(problem) => Some(name.warning(
                    problem.clone(),
                    Remedy::words("restart the station when that is mended"),
                )),
            },
            (None, Some(why)) => Some(name.ok(format!("not yet: {why}"))),
            (None, None) => None,
        };
    }
    if scene.around.directory.carried_by_kubo().exists() {
        return Some(name.ok("kubo carries the tunnels"));
    }
    let listening = scene.config.tunnel.listening();
    for address in &listening {
        let Some((at, transport)) = socket_of(address) else {
            continue;
        };
        let Err(error) = transport.bind(at) else {
            continue;
        };
        let port = free_port(
            at.ip(),
            at.port().max(1_024),
            &[Transport::Tcp, Transport::Udp],
        );
        let moved: Vec<String> = listening
            .iter()
            .map(|address| toml_text(&with_port(address, port).to_string()))
            .collect();
        let remedy = scene.setting("tunnel", "listen", format!("[{}]", moved.join(", ")));
        let seen = if error.kind() == ErrorKind::AddrInUse {
            format!("{address} is held by {}", held_by(transport, at.port()))
        } else {
            format!("cannot listen on {address}: {error}")
        };
        return Some(name.problem(seen, remedy));
    }
    let shown: Vec<String> = listening.iter().map(ToString::to_string).collect();
    Some(name.ok(format!("free: {}", shown.join(", "))))
}

/// Where a multiaddr listens, if the kernel can be asked about that.
fn socket_of(address: &Multiaddr) -> Option<(SocketAddr, Transport)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), Transport::Tcp)),
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), Transport::Udp)),
        _ => None,
    }
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let moved = address.iter().map(|part| match part {
        // Any free port is free already.
        Protocol::Tcp(0) | Protocol::Udp(0) => part,
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        other => other,
    });
    moved.collect()
}
