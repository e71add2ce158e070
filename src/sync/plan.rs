//! What a run will do: from a request, the configured peers and scope, to one plan per peer. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use constellation_event::KindClass;
use constellation_eventstore::KindSet;
use serde::{Deserialize, Serialize};

use crate::ingest::Scope;
use crate::limits;
use crate::peer::{Direction, PeerAddress};

/// Kinds shared by default (D11): profiles, notes, contacts, deletions, reposts, reactions, requests to vanish,
/// articles and their drafts, and the calendar.
pub const DEFAULT_KINDS: [u16; 13] = [
    0, 1, 3, 5, 6, 7, 62, 30_023, 30_024, 31_922, 31_923, 31_924, 31_925,
];

/// Added by `--dms`: direct messages, seals, gift wraps.
pub const PRIVATE_KINDS: [u16; 3] = [4, 13, 1059];

/// Kinds as they are written: `all`, or `0,1,30000-30003`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindsSpec {
    /// Every kind that can be stored.
    All,
    /// These.
    List(BTreeSet<u16>),
}

impl std::str::FromStr for KindsSpec {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let wrong = || PlanError::Kinds(text.to_owned());
        let mut kinds = BTreeSet::new();
        for part in text.split(',') {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u16 = first.trim().parse().map_err(|_| wrong())?;
            let last: u16 = last.trim().parse().map_err(|_| wrong())?;
            if first > last {
                return Err(wrong());
            }
            kinds.extend(first..=last);
        }
        Ok(Self::List(kinds))
    }
}

impl std::fmt::Display for KindsSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(kinds) => {
                let kinds: Vec<String> = kinds.iter().map(u16::to_string).collect();
                f.write_str(&kinds.join(","))
            }
        }
    }
}

impl Serialize for KindsSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KindsSpec {
    /// A text as on the command line, or a list of numbers.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "\"all\", a list such as \"0,1,30000-30003\", or numbers"
        )]
        enum Written {
            Text(String),
            Numbers(BTreeSet<u16>),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Written::Numbers(kinds) => Ok(Self::List(kinds)),
        }
    }
}

/// `[scope]`: what is shared, unless a request says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeOptions {
    /// Kinds to share: "all", a list such as "0,1,30000-30003", or numbers. Absent: notes, profiles, contacts,
    /// deletions, reposts, reactions, articles, calendars.
    pub kinds: Option<KindsSpec>,
    /// Also share private messages (kinds 4, 13, 1059).
    pub dms: bool,
}

/// One `[[peers]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerOptions {
    /// Address: ws://host:port or wss://host.
    pub address: PeerAddress,
    /// Which way events go: "down" (to us), "up" (to the peer) or "both".
    #[serde(default)]
    pub direction: Direction,
    /// Kinds to share with this peer, instead of those of `[scope]`.
    #[serde(default)]
    pub kinds: Option<KindsSpec>,
}

/// What is asked of one run. The default asks for nothing special.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncRequest {
    /// Only the last so many days; 0 is the whole history.
    pub days: Option<u32>,
    /// Unix seconds of the oldest event.
    pub since: Option<u64>,
    /// Unix seconds of the newest event.
    pub until: Option<u64>,
    /// The whole history, whatever the configuration says.
    pub full: bool,
    /// These peers instead of the configured ones.
    pub peers: Vec<PeerAddress>,
    /// These kinds.
    pub kinds: Option<KindsSpec>,
    /// Private messages too.
    pub dms: bool,
    /// Which way.
    pub direction: Option<Direction>,
    /// Compare only, move nothing.
    pub dry_run: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Connecting.
    pub connect: Duration,
    /// One answer.
    pub step: Duration,
    /// One exchange.
    pub exchange: Duration,
    /// The run.
    pub run: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_DEADLINE,
            step: limits::STEP_DEADLINE,
            exchange: limits::EXCHANGE_DEADLINE,
            run: limits::RUN_DEADLINE,
        }
    }
}

/// What to do with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangePlan {
    /// The peer.
    pub address: PeerAddress,
    /// Which way.
    pub direction: Direction,
    /// What is shared.
    pub scope: Arc<Scope>,
    /// Unix seconds of the oldest event.
    pub since: Option<u64>,
    /// Unix seconds of the newest event.
    pub until: Option<u64>,
    /// Compare only.
    pub dry_run: bool,
}

/// What to do in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// One for each peer.
    pub exchanges: Vec<ExchangePlan>,
    /// Compare only.
    pub dry_run: bool,
    /// How long it may take.
    pub deadlines: Deadlines,
}

/// Why there is no plan. The remedy is in the text; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody to exchange with.
    #[error(
        "no peers: name one with --peer ws://host:port, or add a [[peers]] entry to the configuration"
    )]
    NoPeers,
    /// Kinds that cannot be read.
    #[error(
        "{0:?} is no list of kinds: expected \"all\", or numbers and ranges such as 0,1,30000-30003"
    )]
    Kinds(String),
    /// Nothing would be shared.
    #[error("no kinds are left to share: ephemeral kinds (20000-29999) are never reconciled")]
    NoKinds,
    /// The window is empty.
    #[error("the window is empty: since ({since}) is after until ({until})")]
    EmptyWindow {
        /// Unix seconds.
        since: u64,
        /// Unix seconds.
        until: u64,
    },
}

/// Plans a run at `now` (Unix seconds).
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    request: &SyncRequest,
    peers: &[PeerOptions],
    scope: &ScopeOptions,
    deadlines: Deadlines,
    now: u64,
) -> Result<RunPlan, PlanError> {
    let (since, until) = window(request, now)?;
    let chosen: Vec<PeerOptions> = if request.peers.is_empty() {
        peers.to_vec()
    } else {
        request
            .peers
            .iter()
            .map(|address| options_of(address, peers))
            .collect()
    };
    let mut seen = BTreeSet::new();
    let mut exchanges = Vec::with_capacity(chosen.len());
    for peer in chosen {
        if !seen.insert(peer.address.clone()) {
            continue;
        }
        let kinds = request
            .kinds
            .as_ref()
            .or(peer.kinds.as_ref())
            .or(scope.kinds.as_ref());
        let kinds = kind_set(kinds, request.dms || scope.dms)?;
        exchanges.push(ExchangePlan {
            address: peer.address,
            direction: request.direction.unwrap_or(peer.direction),
            scope: Arc::new(Scope {
                kinds,
                authors: None,
            }),
            since,
            until,
            dry_run: request.dry_run,
        });
    }
    if exchanges.is_empty() {
        return Err(PlanError::NoPeers);
    }
    Ok(RunPlan {
        exchanges,
        dry_run: request.dry_run,
        deadlines,
    })
}

/// A peer named in a request keeps what the configuration says of it.
fn options_of(address: &PeerAddress, peers: &[PeerOptions]) -> PeerOptions {
    peers
        .iter()
        .find(|peer| peer.address == *address)
        .cloned()
        .unwrap_or_else(|| PeerOptions {
            address: address.clone(),
            direction: Direction::default(),
            kinds: None,
        })
}

fn window(request: &SyncRequest, now: u64) -> Result<(Option<u64>, Option<u64>), PlanError> {
    if request.full {
        return Ok((None, None));
    }
    let days = request.days.filter(|days| *days > 0);
    let since = request
        .since
        .or_else(|| days.map(|days| now.saturating_sub(u64::from(days) * 24 * 3600)));
    match (since, request.until) {
        (Some(since), Some(until)) if since > until => Err(PlanError::EmptyWindow { since, until }),
        window => Ok(window),
    }
}

impl ScopeOptions {
    /// What these options share.
    pub fn shared(&self) -> Scope {
        // A list of nothing but ephemeral kinds shares nothing; a run says so, others just see nothing shared.
        let kinds = kind_set(self.kinds.as_ref(), self.dms)
            .unwrap_or_else(|_| KindSet::Only(BTreeSet::new()));
        Scope {
            kinds,
            authors: None,
        }
    }
}

fn kind_set(kinds: Option<&KindsSpec>, dms: bool) -> Result<KindSet, PlanError> {
    let mut kinds = match kinds {
        Some(KindsSpec::All) => return Ok(KindSet::all()),
        Some(KindsSpec::List(kinds)) => kinds.clone(),
        None => BTreeSet::from(DEFAULT_KINDS),
    };
    if dms {
        kinds.extend(PRIVATE_KINDS);
    }
    kinds.retain(|kind| KindClass::of(*kind) != KindClass::Ephemeral);
    if kinds.is_empty() {
        Err(PlanError::NoKinds)
    } else {
        Ok(KindSet::Only(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn peer(address: &str) -> PeerOptions {
        PeerOptions {
            address: address.parse().expect("an address"),
            direction: Direction::Down,
            kinds: None,
        }
    }

    fn planned(request: &SyncRequest, peers: &[PeerOptions]) -> Result<RunPlan, PlanError> {
        plan(
            request,
            peers,
            &ScopeOptions::default(),
            Deadlines::default(),
            NOW,
        )
    }

    #[test]
    fn a_request_for_nothing_special_takes_the_configured_peers_and_the_whole_history() {
        let plan = planned(
            &SyncRequest::default(),
            &[peer("ws://a"), peer("ws://b"), peer("ws://a/")],
        )
        .expect("a plan");
        assert_eq!(
            plan.exchanges.len(),
            2,
            "one peer under two spellings is one peer"
        );
        let first = &plan.exchanges[0];
        assert_eq!(
            (first.since, first.until, first.direction),
            (None, None, Direction::Down)
        );
        assert_eq!(
            first.scope.kinds,
            KindSet::Only(BTreeSet::from(DEFAULT_KINDS))
        );
    }

    #[test]
    fn a_named_peer_keeps_what_is_configured_of_it() {
        let request = SyncRequest {
            peers: vec![
                "ws://A".parse().expect("an address"),
                "ws://new".parse().expect("an address"),
            ],
            ..SyncRequest::default()
        };
        let plan = planned(&request, &[peer("ws://a"), peer("ws://b")]).expect("a plan");
        let directions: Vec<_> = plan
            .exchanges
            .iter()
            .map(|exchange| exchange.direction)
            .collect();
        assert_eq!(directions, [Direction::Down, Direction::Both]);
    }

    #[test]
    fn windows() {
        let days = |days| SyncRequest {
            days: Some(days),
            ..SyncRequest::default()
        };
        let since = |request: &SyncRequest| {
            planned(request, &[peer("ws://a")])
                .expect("a plan")
                .exchanges[0]
                .since
        };
        assert_eq!(since(&days(2)), Some(NOW - 172_800));
        assert_eq!(since(&days(0)), None, "0 is documented as everything");
        assert_eq!(
            since(&SyncRequest {
                full: true,
                ..days(2)
            }),
            None
        );
        let backwards = SyncRequest {
            since: Some(5),
            until: Some(4),
            ..SyncRequest::default()
        };
        assert!(matches!(
            planned(&backwards, &[peer("ws://a")]),
            Err(PlanError::EmptyWindow { .. })
        ));
    }

    #[test]
    fn kinds_are_read_as_written_and_ephemeral_ones_left_out() {
        let spec: KindsSpec = "0, 1,30000-30003".parse().expect("kinds");
        assert_eq!(spec.to_string(), "0,1,30000,30001,30002,30003");
        for wrong in ["", "a", "3-1", "1,,2", "70000", "-1"] {
            assert!(wrong.parse::<KindsSpec>().is_err(), "{wrong}");
        }
        let ephemeral = SyncRequest {
            kinds: Some("20000-29999".parse().expect("kinds")),
            ..SyncRequest::default()
        };
        assert_eq!(
            planned(&ephemeral, &[peer("ws://a")]),
            Err(PlanError::NoKinds)
        );
        let with_dms = SyncRequest {
            dms: true,
            ..SyncRequest::default()
        };
        let plan = planned(&with_dms, &[peer("ws://a")]).expect("a plan");
        assert!(plan.exchanges[0].scope.kinds.contains(1059));
    }

    #[test]
    fn nobody_to_exchange_with_is_an_error_in_words() {
        assert_eq!(
            planned(&SyncRequest::default(), &[]),
            Err(PlanError::NoPeers)
        );
    }
}
