//! Constellation keeps a group of Nostr relays equal.

pub mod ingest;
pub mod limits;
pub mod tasks;
pub mod time;
