//! What goes over the socket, and what commands print with `--json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::commands::TunnelsReport;
use crate::live::LiveReport;
use crate::schedule::DueReason;
use crate::sync::{Outcome, RunReport, TriggerError};
use crate::transfer::TransferProgress;

/// Why a command fails; decides the exit code (DESIGN §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Wrong usage or configuration: 2.
    Usage,
    /// It was asked, and was refused: 1.
    Refused,
    /// Nothing could be reached: 3.
    Unreachable,
    /// A failure of this machine or store: 5.
    Local,
}

/// A command that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Whose fault it is.
    pub exit: ExitReason,
    /// What is wrong, and what to do.
    pub message: String,
}

impl CommandError {
    /// Wrong usage or configuration.
    pub fn usage(message: impl ToString) -> Self {
        Self {
            exit: ExitReason::Usage,
            message: message.to_string(),
        }
    }

    /// Whoever was asked said no.
    pub fn refused(message: impl ToString) -> Self {
        Self {
            exit: ExitReason::Refused,
            message: message.to_string(),
        }
    }

    /// Nobody could be reached.
    pub fn unreachable(message: impl ToString) -> Self {
        Self {
            exit: ExitReason::Unreachable,
            message: message.to_string(),
        }
    }

    /// A failure of this machine or store.
    pub fn local(message: impl ToString) -> Self {
        Self {
            exit: ExitReason::Local,
            message: message.to_string(),
        }
    }
}

impl From<TriggerError> for CommandError {
    fn from(error: TriggerError) -> Self {
        match error {
            TriggerError::Plan(error) => Self::usage(error),
            TriggerError::Graph(error) => Self::local(error),
            TriggerError::Run(error) => Self::local(error),
        }
    }
}

/// One line of the answer to a request for a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncLine {
    /// How far each peer is.
    Progress(Vec<(String, TransferProgress)>),
    /// The end.
    Report(Box<RunReport>),
    /// There is no run.
    Refused(CommandError),
}

/// A peer, as history knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer's address.
    pub address: String,
    /// How the last exchange ended; `null` if there was none.
    pub last_outcome: Option<Outcome>,
    /// Seconds since the last successful exchange; `null` if there never was one.
    pub lag_s: Option<u64>,
}

/// How much is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockedStatus {
    /// Public keys.
    pub authors: u64,
    /// Ids of events.
    pub events: u64,
}

/// What `constellation status --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReport {
    /// Of this program.
    pub version: String,
    /// Whether the station runs, or was only looked at.
    pub running: bool,
    /// The station's name.
    pub name: String,
    /// The station's libp2p PeerID.
    pub peer_id: String,
    /// Where its data is.
    pub data_directory: String,
    /// Where its relay listens.
    pub relay: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: Option<String>,
    /// Events stored.
    pub events: u64,
    /// Events that are shared, by kind.
    pub by_kind: BTreeMap<u16, u64>,
    /// What this station blocks.
    pub blocked: BlockedStatus,
    /// Bytes of the store in use.
    pub store_bytes: u64,
    /// Whether a run is in progress.
    pub run_in_progress: bool,
    /// RFC 3339, UTC; `null` if none is scheduled.
    pub next_run_at: Option<String>,
    /// Why it is due then; `null` if none is scheduled.
    pub next_run_why: Option<DueReason>,
    /// The last run; `null` if there was none.
    pub last_run: Option<RunReport>,
    /// Why nothing may be shared at present; `null` if it may.
    pub halted: Option<String>,
    /// Links that stay open.
    pub live: LiveReport,
    /// How tunnels are; `null` while there are none.
    pub tunnels: Option<TunnelsReport>,
    /// Why there are no tunnels; `null` if there are.
    pub no_tunnels: Option<String>,
    /// The configured peers, and those that were found.
    pub peers: Vec<PeerStatus>,
}
