//! Whether a port is free, before libp2p shares it with whoever has it.
//!
//! Takes an address to listen on; binds it for an instant. Port 0 and addresses that are not IP are always free.
//! Worst case: a program that takes the port in between goes unnoticed.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};

use libp2p::multiaddr::Protocol;

use crate::tunnel::Multiaddr;

/// # Errors
/// The system's answer: the port is taken, or the address is not this machine's.
pub(super) fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}
