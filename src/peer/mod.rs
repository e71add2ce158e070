//! Who we exchange with: addresses, what a link to a peer is for, and bytes to it.
//!
//! Pure types. A peer is keyed by its PeerID or its normalised URL, never by a port that happens to be forwarded to it.

mod address;
mod bandwidth;
mod link;
mod quiet_hours;
mod stream;
mod visitors;

pub use address::{AddressError, PeerAddress, StationAddress, Target};
pub use bandwidth::Bandwidth;
pub use link::{Direction, Role};
pub use multiaddr::{Multiaddr, PeerId};
pub use quiet_hours::QuietHours;
pub use stream::{ByteStream, Stream};
pub use visitors::{Visit, Visitors};
