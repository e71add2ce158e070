//! What a link to a peer is for.

use serde::{Deserialize, Serialize};

/// Which way events go.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the peer to us.
    Down,
    /// From us to the peer.
    Up,
    /// Both ways.
    #[default]
    Both,
}

/// What a peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Another station, or a relay anywhere.
    #[default]
    Peer,
    /// The relay on this machine that the station serves: met first, and last.
    Home,
}

impl Direction {
    /// Whether events are fetched.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }

    /// Whether events are offered.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }
}
