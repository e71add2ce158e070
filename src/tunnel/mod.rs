//! Reaching other stations: a byte stream to a service of a station, known by its PeerID.
//!
//! ```text
//! GuestList (who may enter) ─► carrier: node (our own libp2p) or kubo (a daemon's RPC)
//!                                 open(peer, service) ─► ByteStream        to relay_client and local ports
//!                                 InboundStream {peer, service, stream} ─► to our relay and exposed ports
//! ```
//!
//! The only module that names libp2p. Deliberately absent: what streams are used for, and who is admitted.

mod carrier;
mod gate;
mod identity;
mod service;

pub use carrier::{
    Carrier, CarrierKind, CarrierState, Found, InboundStream, LinkState, OpenError, Opening, Path,
    Source,
};
pub use gate::{GuestList, Guests, Refusal};
pub use identity::{Identity, IdentityError};
pub use service::{ServiceName, ServiceNameError};

pub use crate::peer::{Multiaddr, PeerId};
