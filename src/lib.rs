//! Constellation keeps a group of Nostr relays equal, over connections that nobody else listens to, without a
//! central server.
//!
//! The modules in the order in which data passes:
//!
//! ```text
//!  cli ─► daemon ─► config                   who starts what, and with which options
//!            │
//!            ├─► schedule ─► sync ─► relay_client ─► transfer ─► ingest ─► (eventstore)
//!            │     when      plan,    a peer's       reconcile,   verify,
//!            │               run      relay          fetch, offer store
//!            ├─► report ◄─ the history of runs                        mail, command, note
//!            ├─► graph ─► (sync, relay_server)                        whose events are shared
//!            ├─► live ─► links that stay open ─────────────────────►│
//!            ├─► relay_server ─────────────────────────────────────►┘
//!            │     clients and other stations
//!            └─► control ─► archive                                 import, export, count, check
//! ```
//!
//! Dependencies point one way: what stands further down knows nothing of what stands above it.

// Commands.
pub mod cli;
// What is wrong, and what to do.
pub mod doctor;
// One station, composed of its parts.
pub mod daemon;
// The file that says how.
pub mod config;
// The socket through which commands speak to the running station.
pub mod control;
// Telling the captain what runs achieved.
pub mod report;
// When the next run is due.
pub mod schedule;
// Links that stay open: what is new anywhere is everywhere at once.
pub mod live;
// What the scripts of an Astroport station expect of whoever exchanges in their place.
pub mod astroport;
// Runs: plan, exchange, report, history.
pub mod sync;
// Two relays that are not ours: compared, and made equal.
pub mod pairs;
// Clients and other stations, served.
pub mod relay_server;
// Who else there is, and who may enter.
pub mod discovery;
// What goes through tunnels, at both of their ends.
pub mod services;
// Whose events are shared: members, and whom they follow.
pub mod graph;
// Events as JSON lines, in and out.
pub mod archive;
// The relay on this machine that the station serves.
pub mod home;
// Making our set and a peer's equal.
pub mod transfer;
// A conversation with a relay.
pub mod relay_client;
// A write policy that somebody else wrote.
pub mod plugin;
// The only door into the store.
pub mod ingest;
// Nostr messages and WebSocket framing.
pub mod protocol;
// Who we exchange with.
pub mod peer;
// Who is admitted: cards, tokens, our own word, and what follows from them.
pub mod trust;
// A byte stream to another station.
pub mod tunnel;
// Events and distance made up for demonstration, measuring and tests.
pub mod distance;
pub mod samples;
// What everything rests on: memory, child processes, open files, bounds, tasks, time, randomness, small files.
pub mod allocator;
pub mod child_process;
pub mod limits;
pub mod open_files;
pub mod random;
pub mod recent_ids;
pub mod state_file;
pub mod tasks;
pub mod time;
