//! What goes through tunnels, at both of their ends.
//!
//! ```text
//! InboundStream ─► inbound: our relay, the constellation's own service, or a local port    (exposed services)
//! local port    ─► mouth ─► carrier.open(peer, service)                                    (opened services)
//! ```
//!
//! Takes what is configured and what commands ask; gives the carrier the list of what is exposed, and captains local
//! ports that stay the same. Who may enter is decided before a stream gets here (`tunnel::GuestList`). Invariant: the
//! mouth of a tunnel is never exposed again, and a service on the private list never at all. Deliberately absent: what
//! the bytes mean.

mod detect;
mod error;
mod inbound;
mod known;
mod manager;
mod mouth;
mod options;
mod published;
mod splice;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use detect::{Detected, detect};
pub use error::ServiceError;
pub use inbound::{Inbound, RelayEntrance, Visit};
pub use known::{KNOWN, KnownService, known};
pub use manager::Services;
pub use mouth::MouthStatus;
pub use options::{ExposedOptions, OpenOptions};
pub(crate) use splice::splice;
pub use status::{ExposedStatus, ServicesStatus};
