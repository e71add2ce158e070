//! The station's relay: NIP-01, 09, 11, 40, 42, 45, 62, 70 and 77, for clients and other stations, on one port.
//!
//! ```text
//! listener ─► http ─┬► information (NIP-11), page      outbox ─► socket
//!  (or a tunnel)    └► connection ─┬► publish ─► ingest   ▲
//!                                  ├► authentication      │ frames
//!                                  └► jobs, one at a time ┴ stored · live · counting · negotiation
//! ```
//!
//! Invariant: live events come from scanning the store, so each subscription gets what was stored after its query's
//! snapshot exactly once. A connection is one task and at most one read of the store at a time; all ends with it.
//! Worst case of one connection: `bounds.rs` lists what it may hold. It delays no other: reads are slices of 25 ms
//! that take turns, and a client that does not read is not read from either, and then cut.
//! Deliberately absent: TLS (a proxy's business), admission of tunnels (the caller says who is at the other end).

mod addresses;
mod adhoc;
mod authentication;
mod bounds;
mod connection;
mod context;
mod counting;
mod filter_memory;
mod http;
mod information;
mod jobs;
mod links;
mod listener;
mod live;
mod matching;
mod negotiation;
mod options;
mod outbox;
mod page;
mod plugin_asked;
mod publish;
mod requests;
mod stored;
mod stranger_turns;
mod subscriptions;

pub use context::{ConnectionEnd, RelayContext, RemoteParty};
pub use http::serve_connection;
pub use links::{AcceptedLink, AcceptedLinks};
pub use listener::{BindError, BoundListener, RelayServer};
pub use options::{RelayOptions, WritePolicy};

#[cfg(test)]
mod tests;
