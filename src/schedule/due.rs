//! Why and when runs are due: what is told of them.

use serde::{Deserialize, Serialize};

/// Why a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueReason {
    /// The station has started.
    Start,
    /// Its time has come.
    Schedule,
    /// Its time had come while the station, or the machine, was off.
    CatchUp,
    /// A station was found that no run has met.
    Found,
    /// The last run did not reach somebody.
    Missed,
    /// What carries the tunnels was away and is back.
    Carrier,
}

impl DueReason {
    /// The name used in JSON, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Schedule => "schedule",
            Self::CatchUp => "catch_up",
            Self::Found => "found",
            Self::Missed => "missed",
            Self::Carrier => "carrier",
        }
    }
}

impl std::fmt::Display for DueReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// When a run is due, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Unix seconds.
    pub at: u64,
    /// Why.
    pub why: DueReason,
}

/// What is due next, of all that makes a run due.
#[derive(Debug, Clone, Copy, Default)]
pub struct NextRuns {
    /// By the timetable.
    pub by_timetable: Option<Due>,
    /// With whom the last run missed.
    pub again: Option<Due>,
}

impl NextRuns {
    /// The next one.
    pub fn next(&self) -> Option<Due> {
        let both = [self.by_timetable, self.again];
        both.into_iter().flatten().min_by_key(|due| due.at)
    }
}
