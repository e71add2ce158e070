//! Nodes on loopback and in memory: bytes, refusals, bounds, links that come back, relays, the hash table.

#[path = "tests/bounds.rs"]
mod bounds;
#[path = "tests/bytes.rs"]
mod bytes;
#[path = "tests/links.rs"]
mod links;
#[path = "tests/support.rs"]
mod support;
#[path = "tests/ways.rs"]
mod ways;
