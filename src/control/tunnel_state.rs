//! Whether there are tunnels, and if not, why.
//!
//! Set by whoever starts them; read by commands and by whoever dials. Invariant: it is `Started` only when all of the tunnels
//! is there. Deliberately absent: how tunnels are, which they say themselves.

use std::sync::Arc;

use super::commands::Tunnels;

/// Whether there are tunnels.
#[derive(Debug, Clone, Default)]
pub enum TunnelState {
    /// Nothing has needed them so far: the station is open for a command.
    #[default]
    NotStarted,
    /// The configuration says no.
    SwitchedOff,
    /// In a moment.
    Starting,
    /// Not yet: what is missing.
    Waiting(String),
    /// There they are.
    Started(Arc<Tunnels>),
}

impl TunnelState {
    /// The tunnels, if they have started.
    pub fn started(&self) -> Option<&Arc<Tunnels>> {
        match self {
            Self::Started(tunnels) => Some(tunnels),
            _ => None,
        }
    }

    /// Why there are none, and what to do; `None` if there are.
    pub fn why_none(&self) -> Option<String> {
        match self {
            Self::NotStarted => Some("tunnels have not started here".to_owned()),
            Self::SwitchedOff => {
                Some("tunnels are switched off here ([tunnel] enabled = false)".to_owned())
            }
            Self::Starting => Some("tunnels are just starting: try again".to_owned()),
            Self::Waiting(what) => Some(format!("tunnels wait: {what}")),
            Self::Started(_) => None,
        }
    }
}
