//! What can be configured of the home relay: keys of section `[station]`.
//!
//! Values that make no sense are refused: a station is no home relay, and a command has at least one word.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::peer::{PeerAddress, Target};

/// The home relay and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeOptions {
    /// Where it is read.
    pub relay: PeerAddress,
    /// How it is written.
    pub write: HomeWrite,
    /// The command that is given `import`.
    pub strfry_command: StrfryCommand,
}

/// How events get into the home relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeWrite {
    /// By the import of `strfry_command`: its write policy is never asked.
    #[default]
    Import,
    /// By EVENT, as any peer: its write policy is asked about each event.
    Event,
}

/// The address of a relay: `ws://` or `wss://`, not a station's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeRelayAddress(pub PeerAddress);

impl<'de> Deserialize<'de> for HomeRelayAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = PeerAddress::deserialize(deserializer)?;
        match address.target() {
            Target::Relay(_) => Ok(Self(address)),
            Target::Station(_) => Err(D::Error::custom(
                "home_relay is a relay's address (ws://127.0.0.1:7777), not a station's",
            )),
        }
    }
}

/// The words of a command, to which `import` is added. It is run as it stands, by no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrfryCommand(Vec<String>);

impl StrfryCommand {
    /// The program and what it is given; never empty.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl Default for StrfryCommand {
    fn default() -> Self {
        Self(vec!["strfry".to_owned()])
    }
}

impl TryFrom<Vec<String>> for StrfryCommand {
    type Error = &'static str;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self(words)),
            _ => Err("strfry_command names no program: expected for instance [\"strfry\"]"),
        }
    }
}

impl<'de> Deserialize<'de> for StrfryCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Self::try_from(words).map_err(D::Error::custom)
    }
}
