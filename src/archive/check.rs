//! The store's check, off the runtime, in the words of `store verify --json`.

use constellation_eventstore::Store;
use serde::{Deserialize, Serialize};

use super::export::{ArchiveError, off_runtime};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Events whose id, signature and index entries were checked.
    pub events: u64,
    /// Range fingerprints that were computed again.
    pub segments: u64,
    /// What is wrong; at most 100 are named.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problems_total: u64,
}

/// Whether indexes and segments equal a rebuild from the records, and every stored event verifies.
///
/// # Errors
/// The store's.
pub async fn check(store: &Store) -> Result<VerifyReport, ArchiveError> {
    let store = store.clone();
    let report = off_runtime(move || Ok(constellation_eventstore::check(&store, true)?)).await?;
    Ok(VerifyReport {
        events: report.events,
        segments: report.segments,
        problems: report.problems,
        problems_total: report.problems_total,
    })
}
