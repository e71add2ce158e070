//! The home relay: an existing relay on this machine that the station serves, strfry for instance.
//!
//! ```text
//! transfer::importing ─► HomeWriter ─► Importer ─► strfry import (a child process) ─► the relay's database
//! ```
//!
//! Says what can be configured of it ([`HomeOptions`]), and writes into it ([`Importer`]). Reading it, comparing it and
//! the order in which it is met are a run's business (`transfer`, `sync`). Invariants: by import, never by EVENT, unless
//! the captain says so; whatever the command says, nothing counts before it is read back (`transfer::importing`).

mod import;
mod options;
mod output;

pub use import::Importer;
pub use options::{HomeOptions, HomeRelayAddress, HomeWrite, StrfryCommand};
