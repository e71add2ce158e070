//! What is told of a run: the one shape from which text, HTML, JSON, mail and note are made.
//!
//! Takes a run's report, the runs before it, and who the station is; gives a [`Summary`]. Pure. Invariant: whatever came
//! from peers is plain, on one line and cut; it is escaped where it is shown. Bounded: [`PEERS_SHOWN`] peers (those with
//! trouble first), [`KINDS_SHOWN`] kinds, [`RUNS_SHOWN`] runs; the rest is counted. Deliberately absent: whether anybody is
//! told (`deciding`), and what it looks like.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::deciding::State;
use super::disk::{Filling, Fills, fills};
use super::kinds;
use super::merging::merged;
use super::numbers::shown;
use super::troubles::sentences;
use crate::sync::{AuthorName, DIRECT_MESSAGE_KINDS, GraphSizes, Outcome, PeerReport, RunReport};

/// Peers that are told one by one.
const PEERS_SHOWN: usize = 100;
/// Kinds that are told one by one.
const KINDS_SHOWN: usize = 24;
/// Runs of the chart.
pub(super) const RUNS_SHOWN: usize = 24;
/// Characters of an address.
const ADDRESS_CHARS_MAX: usize = 200;
/// Characters of names.
const NAME_CHARS_MAX: usize = 64;

/// Who tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StationName {
    /// What the station calls itself.
    pub name: String,
    /// Its PeerID.
    pub peer_id: String,
}

/// Of what is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// One run.
    Run,
    /// All runs of a span.
    Digest {
        /// RFC 3339.
        since: String,
        /// RFC 3339.
        until: String,
        /// How many there were.
        runs: u64,
        /// How many converged.
        converged: u64,
    },
}

/// A reason and how often.
pub type Counts = Vec<(String, u64)>;

/// Stored events of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// The kind; `null` for all that are not named.
    pub kind: Option<u16>,
    /// What it is, if it has a name.
    pub name: Option<String>,
    /// How many.
    pub count: u64,
}

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSummary {
    /// Its address.
    pub address: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How the sets were compared.
    pub method: String,
    /// Events that the peer had and we lacked.
    pub need: u64,
    /// Events that we had and the peer lacked.
    pub have: u64,
    /// Left over afterwards; `null` where that was not compared.
    pub need_after: Option<u64>,
    /// Left over afterwards; `null` where that was not compared.
    pub have_after: Option<u64>,
    /// Events that came and are stored.
    pub stored: u64,
    /// Events that the peer took.
    pub uploaded: u64,
    /// Events that came and were not taken, by reason.
    pub rejected: Counts,
    /// Events that the peer did not take, by its reason.
    pub refused_by_peer: Counts,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Seconds since the last success; `null` if there never was one.
    pub lag_s: Option<u64>,
    /// What went wrong, in sentences.
    pub troubles: Vec<String>,
}

/// A run of the chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPoint {
    /// RFC 3339.
    pub started_at: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Events stored.
    pub stored: u64,
    /// Events that peers took.
    pub uploaded: u64,
}

/// The store and its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSummary {
    /// Bytes of the store in use.
    pub store_bytes: u64,
    /// Bytes left on the disk; `null` if it does not tell.
    pub free_bytes: Option<u64>,
    /// When it is full at the present rate.
    pub fills: Fills,
}

/// What is told of a run, or of all runs of a span. The shape of `report --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Who tells.
    pub station: StationName,
    /// Names the run, or the last one of the span.
    pub run_id: String,
    /// Of what is told.
    pub covers: Covers,
    /// How the run, or the last one of the span, ended.
    pub outcome: Outcome,
    /// How things stand, as far as is known.
    pub state: State,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether it only compared.
    pub dry_run: bool,
    /// Peers of the run.
    pub peers_total: u64,
    /// Peers that converged.
    pub peers_succeeded: u64,
    /// All others.
    pub peers_failed: u64,
    /// Events collected: that came and are stored.
    pub stored: u64,
    /// Events that peers took.
    pub uploaded: u64,
    /// Private messages among those stored.
    pub private_stored: u64,
    /// Distinct authors of the events stored; `null` where that cannot be summed up.
    pub authors_received: Option<u64>,
    /// Authors that are shared; `null` means all.
    pub authors_in_scope: Option<u64>,
    /// The graph; `null` if it is not known.
    pub graph: Option<GraphSizes>,
    /// Authors seen for the first time; `null` if it is not known.
    pub first_seen: Option<u64>,
    /// The first of them.
    pub first_seen_named: Vec<AuthorName>,
    /// Authors received with a profile, and without; `null` if it is not known.
    pub profiles: Option<(u64, u64)>,
    /// Stored events by kind, the most first.
    pub by_kind: Vec<KindCount>,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// The exchanges, those with trouble first.
    pub peers: Vec<PeerSummary>,
    /// Exchanges beyond these.
    pub peers_not_shown: u64,
    /// The store and its disk; `null` if it is not known.
    pub disk: Option<DiskSummary>,
    /// The last runs, the newest last.
    pub runs: Vec<RunPoint>,
}

impl Summary {
    /// Of one run. `before`: those before it, the oldest first; `state`: how things stand after it.
    pub fn of_run(
        run: &RunReport,
        before: &[RunReport],
        state: State,
        station: &StationName,
    ) -> Self {
        let shown_runs: Vec<&RunReport> = before.iter().chain([run]).collect();
        Self::of(run, &shown_runs, state, station, Covers::Run)
    }

    /// Of all runs between two moments, the oldest first; `None` if there are none. `state`: how things stand after the
    /// last one.
    pub fn of_digest(
        runs: &[RunReport],
        since: &str,
        until: &str,
        state: State,
        station: &StationName,
    ) -> Option<Self> {
        let merged = merged(runs)?;
        let converged = runs.iter().filter(|run| run.outcome == Outcome::Converged);
        let covers = Covers::Digest {
            since: since.to_owned(),
            until: until.to_owned(),
            runs: runs.len() as u64,
            converged: converged.count() as u64,
        };
        let shown_runs: Vec<&RunReport> = runs.iter().collect();
        let mut summary = Self::of(&merged, &shown_runs, state, station, covers);
        // Who came in two runs is one author; nobody knows which of them did.
        if runs.len() > 1 {
            (summary.authors_received, summary.profiles) = (None, None);
        }
        Some(summary)
    }

    fn of(
        run: &RunReport,
        runs: &[&RunReport],
        state: State,
        station: &StationName,
        covers: Covers,
    ) -> Self {
        let totals = &run.totals;
        let facts = run.facts.as_ref();
        let mut peers: Vec<PeerSummary> = run.peers.iter().map(peer_summary).collect();
        peers.sort_by_key(|peer| (rank(peer.outcome), peer.troubles.is_empty()));
        let peers_not_shown = peers.len().saturating_sub(PEERS_SHOWN) as u64;
        peers.truncate(PEERS_SHOWN);
        let first_runs = runs.len().saturating_sub(RUNS_SHOWN);
        let name = |author: &AuthorName| AuthorName {
            pubkey: shown(&author.pubkey, 64),
            name: author
                .name
                .as_deref()
                .map(|name| shown(name, NAME_CHARS_MAX)),
        };
        Self {
            station: StationName {
                name: shown(&station.name, 256),
                peer_id: shown(&station.peer_id, NAME_CHARS_MAX),
            },
            run_id: shown(&run.run_id, NAME_CHARS_MAX),
            covers,
            outcome: run.outcome,
            state,
            started_at: run.started_at.clone(),
            duration_ms: run.duration_ms,
            dry_run: run.dry_run,
            peers_total: totals.peers_total,
            peers_succeeded: totals.peers_succeeded,
            peers_failed: totals.peers_failed,
            stored: totals.stored,
            uploaded: totals.uploaded,
            private_stored: DIRECT_MESSAGE_KINDS
                .iter()
                .filter_map(|kind| totals.by_kind.get(kind))
                .sum(),
            authors_received: Some(totals.authors_received),
            authors_in_scope: totals.authors_in_scope,
            graph: facts.map(|facts| facts.graph),
            first_seen: facts.map(|facts| facts.first_seen),
            first_seen_named: facts.map_or_else(Vec::new, |facts| {
                facts.first_seen_named.iter().map(name).collect()
            }),
            profiles: facts.map(|facts| (facts.profiles_found, facts.profiles_missing)),
            by_kind: by_kind(&totals.by_kind),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            peers,
            peers_not_shown,
            disk: disk(run, runs),
            runs: runs[first_runs..].iter().map(|run| point(run)).collect(),
        }
    }
}

/// RFC 3339 in Unix seconds; 0 for what is none.
pub(super) fn started(started_at: &str) -> u64 {
    let time: Option<jiff::Timestamp> = started_at.parse().ok();
    time.and_then(|time| u64::try_from(time.as_second()).ok())
        .unwrap_or_default()
}

/// What needs the captain's eye comes first.
const fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed | Outcome::Deadline => 0,
        Outcome::Partial => 1,
        Outcome::Converged => 2,
        Outcome::Skipped => 3,
    }
}

fn point(run: &RunReport) -> RunPoint {
    RunPoint {
        started_at: run.started_at.clone(),
        outcome: run.outcome,
        stored: run.totals.stored,
        uploaded: run.totals.uploaded,
    }
}

fn peer_summary(peer: &PeerReport) -> PeerSummary {
    let rejected = peer.rejected.iter();
    let refused = peer.refused_by_peer.iter();
    PeerSummary {
        address: shown(&peer.address, ADDRESS_CHARS_MAX),
        outcome: peer.outcome,
        method: shown(&peer.method, NAME_CHARS_MAX),
        need: peer.need,
        have: peer.have,
        need_after: peer.need_after,
        have_after: peer.have_after,
        stored: peer.stored,
        uploaded: peer.uploaded,
        rejected: rejected
            .map(|(reason, count)| (reason.to_string(), *count))
            .collect(),
        refused_by_peer: refused
            .map(|(reason, count)| (reason.to_string(), *count))
            .collect(),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        duration_ms: peer.duration_ms,
        lag_s: peer.lag_s,
        troubles: sentences(peer),
    }
}

fn by_kind(counts: &BTreeMap<u16, u64>) -> Vec<KindCount> {
    let mut kinds: Vec<KindCount> = counts
        .iter()
        .map(|(kind, count)| KindCount {
            kind: Some(*kind),
            name: kinds::name(*kind).map(str::to_owned),
            count: *count,
        })
        .collect();
    kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.count), kind.kind));
    if kinds.len() > KINDS_SHOWN {
        let rest = kinds.split_off(KINDS_SHOWN - 1);
        kinds.push(KindCount {
            kind: None,
            name: Some(format!("{} other kinds", rest.len())),
            count: rest.iter().map(|kind| kind.count).sum(),
        });
    }
    kinds
}

fn disk(run: &RunReport, runs: &[&RunReport]) -> Option<DiskSummary> {
    let facts = run.facts.as_ref()?;
    let filling = runs.iter().filter_map(|run| {
        let facts = run.facts.as_ref()?;
        Some(Filling {
            at: started(&run.started_at),
            store_bytes: facts.store_bytes,
            free_bytes: facts.free_bytes,
        })
    });
    let filling: Vec<Filling> = filling.collect();
    Some(DiskSummary {
        store_bytes: facts.store_bytes,
        free_bytes: facts.free_bytes,
        fills: fills(&filling),
    })
}
