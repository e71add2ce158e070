//! Which of our own IP addresses a connection uses.
//!
//! Takes the two ends of a new connection; gives our IP address, so that the connection can be given up when this machine
//! loses the address. libp2p does not tell it of connections that we dialled, so the system is asked which address it
//! would use: a socket is bound and told where to send, and nothing is sent. `None` for names, circuits and memory.
//! Worst case: the route changes in between; then a dead connection is noticed by its pings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;

use super::addresses::is_relayed;
use crate::tunnel::Multiaddr;

/// Any port: nothing is sent.
const ANY_PORT: u16 = 9;

/// Our IP address at a connection.
pub(super) fn local_ip(endpoint: &ConnectedPoint) -> Option<IpAddr> {
    match endpoint {
        ConnectedPoint::Listener { local_addr, .. } => ip_of(local_addr),
        ConnectedPoint::Dialer { address, .. } => towards(ip_of(address)?),
    }
}

/// The IP address that an address begins with, unless it leads through another station.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) if !is_relayed(address) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) if !is_relayed(address) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

fn towards(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(remote, ANY_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_which_address_it_uses() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(towards(loopback), Some(loopback));
        let address = |text: &str| ip_of(&text.parse().expect("an address"));
        assert_eq!(address("/ip4/127.0.0.1/tcp/1"), Some(loopback));
        assert_eq!(address("/dns4/example.org/tcp/1"), None);
        let relay = libp2p::PeerId::random();
        let circuit = format!("/ip4/127.0.0.1/tcp/1/p2p/{relay}/p2p-circuit");
        assert_eq!(address(&circuit), None);
    }
}
