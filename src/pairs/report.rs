//! What came of it: the shape of `diff --json` and `mirror --json`.
//!
//! Takes counts and ids; gives an object whose names do not change. Ids are named up to a bound and counted beyond.

use std::collections::BTreeMap;

use constellation_event::Rejection;
use serde::Serialize;

use super::side::Method;
use crate::protocol::ReasonPrefix;
use crate::sync::Failure;
use crate::transfer::Unresolved;

/// How a comparison or a mirroring ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairOutcome {
    /// Compared to the end: nothing is missing where it was asked for.
    Converged,
    /// Compared: something is missing, or could not be compared; the report says what.
    Partial,
    /// It broke off.
    Failed,
    /// The time was up.
    Deadline,
}

impl PairOutcome {
    /// The name used in JSON and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
        }
    }
}

impl std::fmt::Display for PairOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One of the two relays.
#[derive(Debug, Clone, Serialize)]
pub struct SideReport {
    /// Its address.
    pub address: String,
    /// How it was compared; `null` if it was not.
    pub method: Option<Method>,
    /// Negentropy messages that it answered, or that were answered from what it listed.
    pub rounds: u64,
    /// Events that it had alone, by the first comparison; `null` if there was none.
    pub only_at_first: Option<u64>,
    /// Events that it has alone, by the last one.
    pub only: Option<u64>,
    /// Events that it delivered.
    pub delivered: u64,
    /// Events that it delivered and that were not passed on, by reason.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Events of the other one that it took.
    pub taken: u64,
    /// Events of the other one that it did not take, by its reason.
    pub refused: BTreeMap<ReasonPrefix, u64>,
    /// Bytes of messages received from it.
    pub bytes_in: u64,
    /// Bytes of messages sent to it.
    pub bytes_out: u64,
    /// Why it ended everything, if it did.
    pub error: Option<Failure>,
}

/// What is left, and on which side.
#[derive(Debug, Clone, Serialize)]
pub struct PairUnresolved {
    /// `a` or `b`: who has these events alone, or could not be made to list the range.
    pub side: &'static str,
    /// Which, and why.
    #[serde(flatten)]
    pub what: Unresolved,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct PairReport {
    /// How it ended.
    pub outcome: PairOutcome,
    /// Whether nothing was to be moved.
    pub dry_run: bool,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took.
    pub duration_ms: u64,
    /// The first relay.
    pub a: SideReport,
    /// The second relay.
    pub b: SideReport,
    /// Hex ids, at most a hundred, that only the first has.
    pub only_a: Vec<String>,
    /// Hex ids, at most a hundred, that only the second has.
    pub only_b: Vec<String>,
    /// More differs than is held at a time: the numbers are what was found of it.
    pub is_cut_off: bool,
    /// What could not be compared, or was to be moved and was not, and why.
    pub unresolved: Vec<PairUnresolved>,
}

impl PairReport {
    /// Whether anything was reached on both sides.
    pub fn were_reached(&self) -> bool {
        [&self.a, &self.b].iter().all(|side| {
            let error = side.error.as_ref();
            error.is_none_or(|error| error.step != crate::sync::Step::Connect)
        })
    }
}
