//! Who else there is, and who may enter: sources that feed one registry, and cards that go round.
//!
//! ```text
//! configuration, captain ─► captain ─┐
//! swarm_folder ──────────────────────┼─► registry ─► guests, found, wanted
//! mDNS, Kademlia (from the carrier) ─┤      ▲ │
//! exchange (cards of stations) ──────┘      │ ▼
//!                                        gossip: cards going round
//! ```
//!
//! Discovery meets dialling only through what the registry publishes.

mod added;
mod captain;
mod exchange;
mod gossip;
mod holdings;
mod http;
mod inputs;
mod joining;
mod keeping;
mod receiving;
mod registry;
mod reports;
mod roster;
mod swarm_card;
mod swarm_folder;
#[cfg(test)]
mod tests;
mod trust_files;
mod visits;

pub use captain::{CaptainError, station_named};
pub use exchange::{ExchangeError, answer, redeem};
pub use gossip::gossip;
pub use http::AskError;
pub use joining::JoinRefusal;
pub use registry::{Registry, RegistryOptions, RegistrySettings};
pub use reports::{InvitationReport, PeerReport};
pub use swarm_card::{Reach, SwarmStation};
pub use swarm_folder::{SwarmFolder, SwarmFolderOptions};
pub use trust_files::TrustFiles;
