//! Our own libp2p node as a carrier of streams, compatible with what kubo's `ipfs p2p` puts on the wire.
//!
//! ```text
//! Node (Carrier) ─ commands ─► driver: one task that owns the swarm
//!    ▲                            ├ streams     our stream behaviour, and the door (who may enter, how many)
//!    │ state, found, inbound      ├ addresses   where stations are, whatever fails
//!    └────────────────────────────├ dialler     who is wanted, when to dial, directly or through a relay
//!                                 ├ links       which connections there are, which of several lasts, which are dead
//!                                 ├ upkeep      at every tick: what is due, what could be better, what has closed
//!                                 ├ gate        limits on connections; who is out is out at once
//!                                 └ behaviour   identify, ping, Kademlia, mDNS, relay, hole punching, UPnP
//! ```
//!
//! Takes an identity, [`NodeOptions`] and a guest list that changes; gives a [`Carrier`](super::Carrier), a queue of
//! inbound streams and one of stations found. Deliberately absent: what the streams carry, who is admitted.

mod addresses;
mod behaviour;
mod describe;
mod dialler;
mod driver;
mod ending;
mod events;
mod gate;
mod handle;
mod identify_guard;
mod links;
mod listeners;
mod memory;
mod options;
mod probe;
mod relay_guard;
mod rendezvous;
mod reservations;
mod routes;
mod security;
mod streams;
mod swarm_key;
mod tls;
mod transport;
mod upkeep;

#[cfg(test)]
mod tests;

pub use addresses::KnownAddress;
pub use handle::{Node, NodeError, NodeStarted};
pub use options::{KademliaMode, NodeOptions, OptionsError};
pub use swarm_key::{SwarmKey, SwarmKeyError};
