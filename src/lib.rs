//! Constellation keeps a group of Nostr relays equal.

pub mod archive;
pub mod control;
pub mod ingest;
pub mod limits;
pub mod peer;
pub mod protocol;
pub mod relay_client;
pub mod schedule;
pub mod sync;
pub mod tasks;
pub mod time;
pub mod transfer;
pub mod tunnel;
