//! A station: its data directory, its parts, and how they start and end.
//!
//! ```text
//! DataDirectory ─► Station::open (lock, identity, store, ingest, control socket) ─► start_graph, start_relay, start_tunnels ─► service (signals, schedule)
//! ```
//!
//! The composition root: everything is built here and handed down; nothing below knows of it. Shutdown follows the
//! flow: tasks (relay, runs, commands) end first, then ingest commits what it took, then the store closes.

mod astroport;
mod calibration;
mod directory;
mod live;
mod policy;
mod relay;
mod reporting;
mod runs;
mod scope;
mod service;
mod station;
mod tunnels;

pub use directory::DataDirectory;
pub use relay::StationRelay;
pub use service::{ServiceError, serve_until_signalled};
pub use station::{Station, StationError};
pub use tunnels::{TunnelError, accept_constellation};
