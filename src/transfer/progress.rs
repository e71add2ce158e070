//! How far a transfer is, for whoever shows it.

use serde::{Deserialize, Serialize};

/// How far the transfer with one peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransferProgress {
    /// Rounds of reconciling so far.
    pub rounds: u64,
    /// Events to fetch, and fetched.
    pub need: u64,
    /// Events fetched so far, whatever became of them.
    pub downloaded: u64,
    /// Events to offer.
    pub have: u64,
    /// Events offered so far, whatever the answer.
    pub uploaded: u64,
}
