//! Several runs as one, for the daily report.
//!
//! Takes reports of runs, the oldest first; gives one. Pure. What was moved adds up; how it ended, and what was left over, is
//! what the last one says. Nobody knows which authors came in two runs: whoever shows the sum of them must not.

use std::collections::{BTreeMap, HashSet};

use crate::limits::FACTS_AUTHORS_NAMED;
use crate::sync::{Outcome, PeerReport, RunReport};

/// `None` if there are none.
pub(super) fn merged(runs: &[RunReport]) -> Option<RunReport> {
    let last = runs.last()?;
    let mut peers: Vec<PeerReport> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for peer in runs.iter().flat_map(|run| &run.peers) {
        match places.get(peer.address.as_str()) {
            None => {
                places.insert(&peer.address, peers.len());
                peers.push(peer.clone());
            }
            Some(place) => follow(&mut peers[*place], peer),
        }
    }
    let mut totals = RunReport::totals_of(&peers, last.totals.authors_in_scope);
    totals.authors_received = runs.iter().map(|run| run.totals.authors_received).sum();
    let mut facts = last.facts.clone();
    if let Some(facts) = &mut facts {
        let seen = runs.iter().filter_map(|run| run.facts.as_ref());
        facts.first_seen = seen.clone().map(|facts| facts.first_seen).sum();
        let mut told = HashSet::new();
        let named = seen.clone().flat_map(|facts| &facts.first_seen_named);
        let named = named.filter(|author| told.insert(author.pubkey.clone()));
        facts.first_seen_named = named.take(FACTS_AUTHORS_NAMED).cloned().collect();
    }
    Some(RunReport {
        duration_ms: runs.iter().map(|run| run.duration_ms).sum(),
        peers,
        totals,
        facts,
        ..last.clone()
    })
}

/// A later exchange with the same peer.
fn follow(peer: &mut PeerReport, later: &PeerReport) {
    // A run that left it alone tells nothing new of it.
    if later.outcome == Outcome::Skipped && peer.outcome != Outcome::Skipped {
        return;
    }
    let before = std::mem::replace(peer, later.clone());
    peer.need += before.need;
    peer.have += before.have;
    peer.downloaded += before.downloaded;
    peer.stored += before.stored;
    peer.duplicates += before.duplicates;
    peer.uploaded += before.uploaded;
    peer.bytes_in += before.bytes_in;
    peer.bytes_out += before.bytes_out;
    peer.duration_ms += before.duration_ms;
    for (reason, count) in before.rejected {
        *peer.rejected.entry(reason).or_default() += count;
    }
    for (reason, count) in before.refused_by_peer {
        *peer.refused_by_peer.entry(reason).or_default() += count;
    }
    for (kind, count) in before.by_kind {
        *peer.by_kind.entry(kind).or_default() += count;
    }
}
