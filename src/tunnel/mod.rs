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
#[cfg(test)]
pub(crate) mod hub;
mod identity;
mod kubo;
mod kubo_identity;
mod node;
mod openssh;
mod refusals;
mod service;
mod station_key;
#[cfg(test)]
mod test_keys;

pub use carrier::{
    Carrier, CarrierKind, CarrierState, Found, InboundStream, LinkState, OpenError, Opening, Path,
    Source,
};
pub use gate::{GuestList, Guests, Refusal};
pub use identity::{Identity, IdentityError, SigningError};
pub use kubo::{KuboApi, KuboCarrier, KuboError, KuboLook, look as look_at_kubo};
pub use node::{
    KademliaMode, KnownAddress, Node, NodeError, NodeOptions, NodeStarted, OptionsError, SwarmKey,
    SwarmKeyError,
};
pub use service::{ServiceName, ServiceNameError};
pub use station_key::{StationKey, StationKeyError};

pub use crate::peer::{Multiaddr, PeerId};
