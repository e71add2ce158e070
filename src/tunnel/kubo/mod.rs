//! A kubo daemon on this machine as the carrier, driven by its RPC: the station then has kubo's PeerID.
//!
//! ```text
//! open(peer, service) ─► forward, kept on one local port for each (peer, service) ─► TCP to kubo ─► libp2p stream
//! libp2p stream ─► kubo's listener with `report-peer-id` ─► our private port ─► caller, PeerID, GuestList ─► queue
//! supervisor: every two seconds, what kubo has is compared with what it should have, and mended
//! ```
//!
//! Invariant: what others made kubo do is never touched; what we made it do is written down before (`ledger`), so that
//! the next start after a crash undoes exactly that. Deliberately absent: half-close (kubo has none), and knowing why
//! kubo could not open a stream: it accepts every local connection and closes it when the station does not answer.
//! Worst case: kubo is down for an hour; streams are refused with its address, and ten seconds after its return all
//! is as before, on the same ports.

mod api;
mod callers;
mod carrier;
mod connections;
mod doors;
mod forwards;
mod ledger;
mod places;
mod probe;
mod rpc;
mod shared;
mod supervisor;
#[cfg(test)]
mod tests;

pub use api::KuboApi;
pub use carrier::KuboCarrier;
pub use probe::{KuboLook, look};
pub use rpc::KuboError;
