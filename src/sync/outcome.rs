//! How a run and its exchanges ended. The shape of `sync --json`, of the history and of every report.

use std::collections::BTreeMap;

use constellation_event::Rejection;
use serde::{Deserialize, Serialize};

use super::facts::RunFacts;
use crate::limits::NO_CARRIER_EXCUSED_FOR;
use crate::protocol::ReasonPrefix;
use crate::transfer::{Tally, TransferError, Unresolved};
use crate::tunnel::OpenError;

/// How a run, or an exchange, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The sets are equal, refusals on either side aside (D8).
    Converged,
    /// Something was achieved, something is left over; the report says what.
    Partial,
    /// It broke off.
    Failed,
    /// Another run was in progress.
    Skipped,
    /// The time was up.
    Deadline,
}

impl Outcome {
    /// The name used in JSON, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Deadline => "deadline",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The step at which an exchange broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reaching the peer.
    Connect,
    /// The first reconciliation.
    Reconcile,
    /// Fetching.
    Download,
    /// Offering.
    Upload,
    /// Reconciling again after a transfer.
    Confirm,
}

/// The reason of a peer that was left alone for the hour of the day.
pub(super) const QUIET: &str = "quiet_hours";
/// The reason of a peer that was left alone because what carries our tunnels is away.
pub(super) const NO_CARRIER: &str = "no_carrier";

/// Why an exchange broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub step: Step,
    /// Why, as a stable name.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
}

const fn first_step() -> Step {
    Step::Connect
}

/// One exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer's address.
    pub address: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it broke off, if it did.
    pub error: Option<Failure>,
    /// How the sets were compared.
    pub method: String,
    /// Rounds of reconciling.
    pub rounds: u64,
    /// Events that the peer had and we lacked, at first.
    pub need: u64,
    /// Events that we had and the peer lacked, at first.
    pub have: u64,
    /// The same by the last reconciliation; `null` if there was none after a transfer.
    pub need_after: Option<u64>,
    /// The same by the last reconciliation; `null` if there was none after a transfer.
    pub have_after: Option<u64>,
    /// Events that came.
    pub downloaded: u64,
    /// Events that came and are stored.
    pub stored: u64,
    /// Events that came though we had them.
    pub duplicates: u64,
    /// Events that came and were not taken, by reason.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Events that the peer took.
    pub uploaded: u64,
    /// Events that the peer did not take, by its reason.
    pub refused_by_peer: BTreeMap<ReasonPrefix, u64>,
    /// What could not be achieved, and why.
    pub unresolved: Vec<Unresolved>,
    /// Stored events by kind.
    pub by_kind: BTreeMap<u16, u64>,
    /// Seconds since the last successful exchange with this peer; `null` if there never was one.
    pub lag_s: Option<u64>,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// The step it is at, or ended in.
    #[serde(skip, default = "first_step")]
    pub step: Step,
    /// Distinct authors of the events stored.
    #[serde(skip)]
    pub authors: std::collections::HashSet<[u8; 32]>,
}

impl PeerReport {
    /// A report of nothing yet: what stands if the exchange is cut off.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            outcome: Outcome::Deadline,
            error: None,
            method: "negentropy".into(),
            rounds: 0,
            need: 0,
            have: 0,
            need_after: None,
            have_after: None,
            downloaded: 0,
            stored: 0,
            duplicates: 0,
            rejected: BTreeMap::new(),
            uploaded: 0,
            refused_by_peer: BTreeMap::new(),
            unresolved: Vec::new(),
            by_kind: BTreeMap::new(),
            lag_s: None,
            bytes_in: 0,
            bytes_out: 0,
            duration_ms: 0,
            step: first_step(),
            authors: std::collections::HashSet::new(),
        }
    }

    /// Whether it was left alone and that is nobody's failure: these are its quiet hours, or what carries our tunnels is
    /// away and has not been for long.
    pub fn is_left_alone(&self) -> bool {
        let reason = self.error.as_ref().map(|error| error.reason.as_str());
        self.outcome == Outcome::Skipped && matches!(reason, Some(QUIET | NO_CARRIER))
    }

    /// What carries our tunnels is away: the peer counts as left alone, until nothing was achieved with it for too long.
    /// `since_success`: seconds since the last success with it; `None`: there was none.
    pub(super) fn excuse_missing_carrier(&mut self, since_success: Option<u64>) {
        let is_recent = since_success.is_some_and(|age| age < NO_CARRIER_EXCUSED_FOR.as_secs());
        if let Some(error) = &mut self.error
            && self.outcome == Outcome::Failed
            && error.step == Step::Connect
            && error.reason == OpenError::CARRIER_DOWN_LABEL
            && is_recent
        {
            self.outcome = Outcome::Skipped;
            error.reason = NO_CARRIER.to_owned();
        }
    }

    /// The run ended before this exchange did, because nothing may be shared any more.
    pub(super) fn halt(&mut self, why: &str) {
        if self.outcome == Outcome::Deadline {
            self.outcome = if self.stored > 0 || self.uploaded > 0 {
                Outcome::Partial
            } else {
                Outcome::Failed
            };
            self.error = Some(Failure {
                step: self.step,
                reason: "halted".to_owned(),
                detail: why.to_owned(),
            });
        }
    }

    /// Whether the peer was reached at all.
    pub fn was_reached(&self) -> bool {
        self.error
            .as_ref()
            .is_none_or(|error| error.step != Step::Connect)
    }

    pub(super) fn take_tally(&mut self, tally: Tally) {
        self.downloaded = tally.downloaded;
        self.stored = tally.stored;
        self.duplicates = tally.duplicates;
        self.unresolved = tally.unresolved();
        self.rejected = tally.rejected;
        self.uploaded = tally.uploaded;
        self.refused_by_peer = tally.refused_by_peer;
        self.by_kind = tally.by_kind;
        self.authors = tally.authors;
    }
}

/// Sums over all peers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Peers of the run.
    pub peers_total: u64,
    /// Peers that converged.
    pub peers_succeeded: u64,
    /// All others.
    pub peers_failed: u64,
    /// Authors that are shared; `null` means all.
    pub authors_in_scope: Option<u64>,
    /// Distinct authors of the events stored.
    pub authors_received: u64,
    /// Rounds of reconciling.
    pub rounds: u64,
    /// Events that peers had and we lacked.
    pub need: u64,
    /// Events that we had and peers lacked.
    pub have: u64,
    /// Left over by the last reconciliations; where none followed the transfer, at most what there was at first.
    pub need_after: u64,
    /// Left over by the last reconciliations; where none followed the transfer, at most what there was at first.
    pub have_after: u64,
    /// Events that came.
    pub downloaded: u64,
    /// Events that came and are stored.
    pub stored: u64,
    /// Events that came though we had them.
    pub duplicates: u64,
    /// Events that came and were not taken, by reason.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Events that peers took.
    pub uploaded: u64,
    /// Events that peers did not take, by their reasons.
    pub refused_by_peer: BTreeMap<ReasonPrefix, u64>,
    /// Stored events by kind.
    pub by_kind: BTreeMap<u16, u64>,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Names the run: its start, and a random part.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether anything was to be moved at all.
    pub dry_run: bool,
    /// Whether only peers that were named took part: the captain named them, or an earlier run missed them.
    #[serde(default)]
    pub named_peers: bool,
    /// One for each peer.
    pub peers: Vec<PeerReport>,
    /// The sums.
    pub totals: Totals,
    /// What the store says afterwards; `null` for a dry run, and where it could not be read.
    #[serde(default)]
    pub facts: Option<RunFacts>,
}

impl RunReport {
    /// The sums of `peers`.
    pub fn totals_of(peers: &[PeerReport], authors_in_scope: Option<u64>) -> Totals {
        let mut totals = Totals {
            peers_total: peers.len() as u64,
            authors_in_scope,
            ..Totals::default()
        };
        let mut authors: std::collections::HashSet<[u8; 32]> = std::collections::HashSet::new();
        for peer in peers {
            if peer.outcome == Outcome::Converged {
                totals.peers_succeeded += 1;
            } else {
                totals.peers_failed += 1;
            }
            totals.rounds += peer.rounds;
            totals.need += peer.need;
            totals.have += peer.have;
            totals.need_after += peer.need_after.unwrap_or(peer.need);
            totals.have_after += peer.have_after.unwrap_or(peer.have);
            totals.downloaded += peer.downloaded;
            totals.stored += peer.stored;
            totals.duplicates += peer.duplicates;
            totals.uploaded += peer.uploaded;
            totals.bytes_in += peer.bytes_in;
            totals.bytes_out += peer.bytes_out;
            add_counts(&mut totals.rejected, &peer.rejected);
            add_counts(&mut totals.refused_by_peer, &peer.refused_by_peer);
            add_counts(&mut totals.by_kind, &peer.by_kind);
            authors.extend(&peer.authors);
        }
        totals.authors_received = authors.len() as u64;
        totals
    }

    /// The outcome of a run that was in time, from those of its exchanges. A peer that is left alone has no part in it.
    pub fn outcome_of(peers: &[PeerReport]) -> Outcome {
        let peers: Vec<&PeerReport> = peers.iter().filter(|peer| !peer.is_left_alone()).collect();
        if peers.is_empty() {
            return Outcome::Skipped;
        }
        let all = |outcome| peers.iter().all(|peer| peer.outcome == outcome);
        if all(Outcome::Converged) {
            Outcome::Converged
        } else if peers.iter().all(|peer| {
            // A peer whose own time was up, or that was left alone: the run itself was in time.
            matches!(
                peer.outcome,
                Outcome::Failed | Outcome::Deadline | Outcome::Skipped
            )
        }) {
            Outcome::Failed
        } else {
            Outcome::Partial
        }
    }

    /// Whether every exchange came to its end.
    pub fn peers_without_error(&self) -> bool {
        self.peers.iter().all(|peer| peer.error.is_none())
    }

    /// Whether our own store failed on the way.
    pub fn failed_locally(&self) -> bool {
        self.peers
            .iter()
            .filter_map(|peer| peer.error.as_ref())
            .any(|error| TransferError::LOCAL_LABELS.contains(&error.reason.as_str()))
    }
}

fn add_counts<K: Ord + Copy>(totals: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        *totals.entry(*key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that was not reached, since what carries tunnels is away, after so many seconds without an achievement.
    fn without_carrier(since_success: Option<u64>) -> PeerReport {
        let mut peer = PeerReport::new("/p2p/x");
        peer.outcome = Outcome::Failed;
        peer.error = Some(Failure {
            step: Step::Connect,
            reason: OpenError::CarrierDown(String::new()).label().to_owned(),
            detail: String::new(),
        });
        peer.excuse_missing_carrier(since_success);
        peer
    }

    #[test]
    fn a_carrier_that_is_away_is_no_failure_for_twenty_six_hours() {
        const HOUR: u64 = 3_600;
        for (since_success, is_excused) in [
            (Some(0), true),
            (Some(26 * HOUR - 1), true),
            (Some(26 * HOUR), false),
            (None, false),
        ] {
            let peer = without_carrier(since_success);
            assert_eq!(peer.is_left_alone(), is_excused, "{since_success:?}");
            let reason = peer.error.expect("still said").reason;
            let expected = if is_excused {
                NO_CARRIER
            } else {
                "carrier_down"
            };
            assert_eq!(reason, expected);
        }
        let mut converged = PeerReport::new("ws://home");
        converged.outcome = Outcome::Converged;
        let outcome = |peers: &[PeerReport]| RunReport::outcome_of(peers);
        let excused = without_carrier(Some(0));
        assert_eq!(
            outcome(&[converged.clone(), excused.clone()]),
            Outcome::Converged
        );
        assert_eq!(outcome(&[excused]), Outcome::Skipped);
        let failed = without_carrier(None);
        assert_eq!(outcome(&[converged, failed]), Outcome::Partial);
        // Whoever cannot be reached for another reason is not excused.
        let mut unreachable = without_carrier(None);
        unreachable.error.as_mut().expect("said").reason = "unreachable".to_owned();
        unreachable.excuse_missing_carrier(Some(0));
        assert_eq!(unreachable.outcome, Outcome::Failed);
    }
}
