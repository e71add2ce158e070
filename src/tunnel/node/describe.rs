//! Failures to connect, in words for captains.
//!
//! Takes libp2p's errors; gives a short text that names at most [`ADDRESSES_NAMED`] addresses. A station of another
//! swarm cannot say so: it sees noise, as we do. So a handshake that comes to nothing is explained by what it most
//! often means.

use std::error::Error;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;

use crate::peer::Multiaddr;

/// Addresses in one message; the rest is counted.
const ADDRESSES_NAMED: usize = 4;
/// With these the network itself has said no.
const NOBODY_ANSWERS: [io::ErrorKind; 4] = [
    io::ErrorKind::ConnectionRefused,
    io::ErrorKind::HostUnreachable,
    io::ErrorKind::NetworkUnreachable,
    io::ErrorKind::AddrNotAvailable,
];

/// What came of dialling, by a node that is in a private swarm or not.
pub(super) fn dial_error(error: &DialError, is_private: bool) -> String {
    match error {
        DialError::Transport(tried) => {
            let named = tried.iter().take(ADDRESSES_NAMED).map(|(address, why)| {
                let hint = swarm_hint(why, address, is_private);
                let why = innermost(why);
                format!("{address}: {why}{hint}")
            });
            let mut text = named.collect::<Vec<_>>().join("; ");
            if tried.len() > ADDRESSES_NAMED {
                text.push_str(&format!("; and {} more", tried.len() - ADDRESSES_NAMED));
            }
            text
        }
        DialError::WrongPeerId { obtained, address } => {
            format!("{address}: another station answers there, {obtained}")
        }
        DialError::LocalPeerId { address } => format!("{address}: that is this station itself"),
        DialError::Denied { cause } => innermost(cause),
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => "given up".to_owned(),
    }
}

/// The last of the causes: those above it only say in which layer it happened.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The next cause. What an [`io::Error`] wraps is not its source, but stands for it.
fn beneath<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// Says so where it may be that only one end is in a private swarm, or each in another: something is at the address,
/// or may be, and no handshake came about. What does not understand the other may also wait in silence.
fn swarm_hint(
    error: &TransportError<io::Error>,
    address: &Multiaddr,
    is_private: bool,
) -> &'static str {
    let TransportError::Other(error) = error else {
        return "";
    };
    let first: &(dyn Error + 'static) = error;
    let nobody_answers = std::iter::successors(Some(first), |cause| beneath(*cause))
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| NOBODY_ANSWERS.contains(&error.kind()));
    // Private swarms have no QUIC.
    if nobody_answers || address.iter().any(|part| part == Protocol::QuicV1) {
        return "";
    }
    if is_private {
        " (has it another swarm key, or none?)"
    } else {
        " (if it is in a private swarm: [tunnel] swarm_key must name its swarm key)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_something_may_have_answered_another_swarm_is_suspected() {
        let tcp: Multiaddr = "/ip4/192.0.2.1/tcp/4011".parse().expect("a multiaddr");
        let quic: Multiaddr = "/ip4/192.0.2.1/udp/4011/quic-v1"
            .parse()
            .expect("a multiaddr");
        let hint = |kind: io::ErrorKind, address: &Multiaddr, is_private| {
            let wrapped = io::Error::other(io::Error::other(io::Error::from(kind)));
            swarm_hint(&TransportError::Other(wrapped), address, is_private)
        };
        for is_private in [true, false] {
            for kind in [io::ErrorKind::InvalidData, io::ErrorKind::TimedOut] {
                assert!(hint(kind, &tcp, is_private).contains("swarm key"));
                assert_eq!(hint(kind, &quic, is_private), "");
            }
            assert_eq!(hint(io::ErrorKind::ConnectionRefused, &tcp, is_private), "");
            let unfit = TransportError::MultiaddrNotSupported(tcp.clone());
            assert_eq!(swarm_hint(&unfit, &tcp, is_private), "");
        }
    }
}
