//! Who we exchange with: addresses, and what a link to a peer is for.
//!
//! Pure types. A peer is keyed by its normalised address, never by a port that happens to be forwarded to it.

mod address;
mod link;

pub use address::{AddressError, PeerAddress};
pub use link::Direction;
