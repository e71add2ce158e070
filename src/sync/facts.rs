//! What the store says after a run, for the history and every report: authors seen for the first time, profiles, sizes.
//!
//! Takes the run's exchanges and the store; gives [`RunFacts`]. Reads off the runtime, in slices. "For the first time" is
//! counted from the last whole run that has such facts, so that what live links and clients brought since is told too.
//! A store that cannot be read is no reason to lose the report: the facts are then missing. Deliberately absent: how any
//! of it is shown. Worst case: [`FACTS_AUTHORS_MAX`] authors looked up twice; what is beyond is counted, not looked up.

use std::collections::HashSet;
use std::path::Path;

use constellation_eventstore::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::history::History;
use super::outcome::PeerReport;
use super::plan::RunPlan;
use super::run::RunContext;
use crate::graph::{Graph, Newest, name_in_profile};
use crate::limits::{FACTS_AUTHORS_MAX, FACTS_AUTHORS_NAMED};
use crate::protocol::hex;

/// Kind of profiles (NIP-01).
const PROFILE: u16 = 0;
/// How many runs back the last whole one is looked for.
const RUNS_LOOKED_AT: usize = 100;

/// How many there are on each level of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GraphSizes {
    /// Members.
    pub members: u64,
    /// Whom members follow.
    pub n1: u64,
    /// Whom those follow.
    pub n2: u64,
}

impl GraphSizes {
    /// Of this graph.
    pub(super) fn of(graph: &Graph) -> Self {
        Self {
            members: graph.members as u64,
            n1: graph.n1 as u64,
            n2: graph.n2 as u64,
        }
    }
}

/// An author, and the name by which it calls itself: cut, and without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorName {
    /// 64 hex digits.
    pub pubkey: String,
    /// From its profile; `null` if there is none.
    pub name: Option<String>,
}

/// What the store says after a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// The graph that the run went by.
    pub graph: GraphSizes,
    /// Authors that the store has ever heard of.
    pub authors_heard_of: u32,
    /// Authors of stored events whom it had not heard of before.
    pub first_seen: u64,
    /// The first of them.
    pub first_seen_named: Vec<AuthorName>,
    /// Authors received of whom a profile (kind 0) is stored.
    pub profiles_found: u64,
    /// Authors received of whom none is.
    pub profiles_missing: u64,
    /// Bytes of the store in use.
    pub store_bytes: u64,
    /// Bytes that the disk has left; `null` if it does not tell.
    pub free_bytes: Option<u64>,
}

/// Looks them up. `None` for a dry run, for one that only closes a gap, and where the store cannot be read.
pub(super) async fn gather(
    context: &RunContext,
    plan: &RunPlan,
    history: &History,
    peers: &[PeerReport],
) -> Option<RunFacts> {
    if plan.dry_run || plan.is_brief {
        return None;
    }
    let received: HashSet<[u8; 32]> = peers
        .iter()
        .flat_map(|peer| peer.authors.iter().copied())
        .take(FACTS_AUTHORS_MAX)
        .collect();
    let (store, history) = (context.ingest.store().clone(), history.clone());
    let (state, graph) = (context.state.clone(), plan.graph);
    let now = context.clock.unix_seconds();
    let reading = tokio::task::spawn_blocking(move || {
        let known = heard_of_before(&history);
        let mut facts = read(&store, known, &received, now)?;
        facts.graph = graph;
        facts.free_bytes = free_bytes(&state);
        Ok::<_, StoreError>(facts)
    });
    match reading.await {
        Ok(Ok(facts)) => Some(facts),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the report will not say what the store holds");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the report will not say what the store holds");
            None
        }
    }
}

/// How many authors the store had heard of when the last whole run ended.
fn heard_of_before(history: &History) -> u32 {
    // Without a history everybody is new, and it is the run's own business to complain about it.
    let runs = history.last_runs(RUNS_LOOKED_AT).unwrap_or_default();
    let whole = runs.iter().rev().filter(|run| !run.named_peers);
    whole
        .filter_map(|run| run.facts.as_ref())
        .map(|facts| facts.authors_heard_of)
        .next()
        .unwrap_or_default()
}

fn read(
    store: &Store,
    known: u32,
    received: &HashSet<[u8; 32]>,
    now: u64,
) -> Result<RunFacts, StoreError> {
    let (authors_heard_of, new) = {
        let snapshot = store.snapshot()?;
        let new = snapshot.authors_heard_of_after(known, FACTS_AUTHORS_MAX)?;
        (snapshot.authors_heard_of()?, new)
    };
    let mut newest = Newest::new(store, now);
    let beyond = u64::from(authors_heard_of.saturating_sub(known)) - new.len() as u64;
    let mut facts = RunFacts {
        authors_heard_of,
        first_seen: beyond,
        store_bytes: store.sizes().1,
        ..RunFacts::default()
    };
    for author in new {
        // Of some nothing is kept but that they are out of scope.
        if !newest.has_any(&author)? {
            continue;
        }
        facts.first_seen += 1;
        if facts.first_seen_named.len() < FACTS_AUTHORS_NAMED {
            let profile = newest.event(&author, PROFILE)?;
            facts.first_seen_named.push(AuthorName {
                pubkey: hex::encode(&author),
                name: profile.as_deref().and_then(name_in_profile),
            });
        }
    }
    for author in received {
        match newest.event(author, PROFILE)? {
            Some(_) => facts.profiles_found += 1,
            None => facts.profiles_missing += 1,
        }
    }
    Ok(facts)
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
