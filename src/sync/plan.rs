//! What a run will do: from a request, the configured peers and scope, to one plan per peer. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::authors::{AuthorsSpec, authors_in_scope};
use super::facts::GraphSizes;
use super::options::{Deadlines, PeerOptions, ScopeOptions, SyncRequest, kind_set};
use crate::graph::Graph;
use crate::home::HomeOptions;
use crate::ingest::Scope;
use crate::peer::{Bandwidth, Direction, PeerAddress, Role};

/// What to do with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangePlan {
    /// The peer.
    pub address: PeerAddress,
    /// What it is to us.
    pub role: Role,
    /// Which way.
    pub direction: Direction,
    /// What is shared.
    pub scope: Arc<Scope>,
    /// Unix seconds of the oldest event.
    pub since: Option<u64>,
    /// Unix seconds of the newest event.
    pub until: Option<u64>,
    /// Nothing special was asked for: where the whole history cannot be compared, windows are chosen (D9).
    pub is_automatic: bool,
    /// Neither kinds, authors nor direction were named for this run alone: what it achieves counts for the next one.
    pub is_whole: bool,
    /// Compare only.
    pub dry_run: bool,
    /// How fast bytes may go, each way.
    pub bandwidth: Option<Bandwidth>,
    /// Not now: these are hours in which a scheduled run leaves it alone.
    pub is_quiet: bool,
}

/// What to do in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// One for each peer.
    pub exchanges: Vec<ExchangePlan>,
    /// The home relay, if one of them is with it.
    pub home: Option<HomeOptions>,
    /// Compare only.
    pub dry_run: bool,
    /// Nobody asked for it: peers that rest are left alone.
    pub is_scheduled: bool,
    /// It only closes a gap.
    pub is_brief: bool,
    /// Only peers that were named take part.
    pub names_peers: bool,
    /// How many authors are shared, with whomever; `None` means all.
    pub authors_in_scope: Option<u64>,
    /// How many members there are, whom they follow, and whom those follow.
    pub graph: GraphSizes,
    /// How long it may take.
    pub deadlines: Deadlines,
}

/// Why there is no plan. The remedy is in the text; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody to exchange with.
    #[error(
        "no peers: name one with --peer, add one (constellation peers add), or join a constellation (constellation join)"
    )]
    NoPeers,
    /// This is no longer the constellation that the events are of.
    #[error("{0}")]
    Halted(String),
    /// Kinds that cannot be read.
    #[error(
        "{0:?} is no list of kinds: expected \"all\", or numbers and ranges such as 0,1,30000-30003"
    )]
    Kinds(String),
    /// Authors that cannot be read.
    #[error(
        "{0:?} names no authors: expected \"all\", \"n2\", or public keys (npub or 64 hex digits)"
    )]
    Authors(String),
    /// There is no graph.
    #[error(
        "n2 is the members, whom they follow, and whom those follow, but no member is known: name members in the \
         configuration ([scope] members or member_files), or say --authors all"
    )]
    NoMembers,
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

/// Plans a run at `now` (Unix seconds), with the authors of `graph` where `n2` is shared.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    request: &SyncRequest,
    peers: &[PeerOptions],
    scope: &ScopeOptions,
    graph: &Graph,
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
        let named = request.kinds.as_ref().or(peer.kinds.as_ref());
        // Kinds named for this run or peer stand for those of the scope, its private messages included.
        let dms = request.dms || (scope.dms && named.is_none());
        let kinds = kind_set(named.or(scope.kinds.as_ref()), dms)?;
        let is_narrowed = request.kinds.is_some()
            || request.authors.is_some()
            || request
                .direction
                .is_some_and(|direction| direction != peer.direction);
        let is_automatic =
            !request.full && request.days.is_none() && (since, until) == (None, None);
        let whose = request.authors.as_ref().or(peer.authors.as_ref());
        let whose = match whose.or(scope.authors.as_ref()) {
            Some(said) => said.authors(graph)?,
            None if peer.is_home => None,
            None => AuthorsSpec::by_default(&peer.address, graph).authors(graph)?,
        };
        exchanges.push(ExchangePlan {
            address: peer.address,
            role: Role::Peer,
            direction: request.direction.unwrap_or(peer.direction),
            scope: Arc::new(Scope {
                kinds,
                authors: whose,
            }),
            since,
            until,
            is_automatic,
            is_whole: !is_narrowed && (is_automatic || (since, until) == (None, None)),
            dry_run: request.dry_run,
            bandwidth: peer.bandwidth,
            is_quiet: request.scheduled && peer.quiet_hours.is_some_and(|hours| hours.include(now)),
        });
    }
    if exchanges.is_empty() {
        return Err(PlanError::NoPeers);
    }
    Ok(RunPlan {
        authors_in_scope: authors_in_scope(exchanges.iter().map(|exchange| &*exchange.scope)),
        exchanges,
        home: None,
        dry_run: request.dry_run,
        is_scheduled: request.scheduled,
        is_brief: request.brief,
        names_peers: !request.peers.is_empty(),
        graph: GraphSizes::of(graph),
        deadlines: if request.brief {
            deadlines.of_brief_runs()
        } else {
            deadlines
        },
    })
}

impl RunPlan {
    /// The same plan with the home relay's role for the exchange with it, which comes first in every list.
    pub fn with_home(mut self, home: HomeOptions) -> Self {
        for exchange in &mut self.exchanges {
            if exchange.address == home.relay {
                exchange.role = Role::Home;
            }
        }
        self.exchanges
            .sort_by_key(|exchange| exchange.role != Role::Home);
        self.home = Some(home);
        self
    }
}

/// A peer named in a request keeps what the configuration says of it, but is dialled as it is named now.
fn options_of(address: &PeerAddress, peers: &[PeerOptions]) -> PeerOptions {
    let known = peers.iter().find(|peer| peer.address == *address);
    PeerOptions {
        address: address.clone(),
        ..known
            .cloned()
            .unwrap_or_else(|| PeerOptions::of(address.clone()))
    }
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

#[cfg(test)]
mod tests {
    use constellation_eventstore::KindSet;

    use super::*;
    use crate::home::{HomeWrite, StrfryCommand};
    use crate::sync::{DEFAULT_KINDS, KindsSpec};

    const NOW: u64 = 1_700_000_000;

    fn peer(address: &str) -> PeerOptions {
        PeerOptions {
            direction: Direction::Down,
            ..PeerOptions::of(address.parse().expect("an address"))
        }
    }

    fn planned(request: &SyncRequest, peers: &[PeerOptions]) -> Result<RunPlan, PlanError> {
        plan(
            request,
            peers,
            &ScopeOptions::default(),
            &Graph::default(),
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
    fn a_station_named_with_a_new_address_is_not_dialled_at_the_configured_one() {
        let at = |port: u16| {
            format!(
                "/ip4/192.0.2.1/tcp/{port}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
            )
        };
        let request = SyncRequest {
            peers: vec![at(2).parse().expect("an address")],
            ..SyncRequest::default()
        };
        let plan = planned(&request, &[peer(&at(1))]).expect("a plan");
        assert_eq!(plan.exchanges[0].address.written(), at(2));
        assert_eq!(plan.exchanges[0].direction, Direction::Down);
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
    fn private_messages_of_the_scope_do_not_go_to_a_peer_with_kinds_of_its_own() {
        let public = PeerOptions {
            kinds: Some("0,1".parse().expect("kinds")),
            ..peer("ws://public")
        };
        let scope = ScopeOptions {
            dms: true,
            ..ScopeOptions::default()
        };
        let request = SyncRequest::default();
        let peers = [public, peer("ws://friend")];
        let plan = plan(
            &request,
            &peers,
            &scope,
            &Graph::default(),
            Deadlines::default(),
            NOW,
        )
        .expect("a plan");
        let shares_private: Vec<bool> = plan
            .exchanges
            .iter()
            .map(|exchange| exchange.scope.kinds.contains(1059))
            .collect();
        assert_eq!(shares_private, [false, true]);
    }

    #[test]
    fn quiet_hours_hold_for_scheduled_runs_alone() {
        let with = |hours: &str| PeerOptions {
            quiet_hours: Some(hours.parse().expect("a span")),
            ..peer("ws://a")
        };
        let is_quiet = |hours: &str, scheduled| {
            let request = SyncRequest {
                scheduled,
                ..SyncRequest::default()
            };
            let plan = planned(&request, &[with(hours)]).expect("a plan");
            plan.exchanges[0].is_quiet
        };
        // Wherever this is, one of them is now.
        let (day, night) = ("06:00-18:00", "18:00-06:00");
        assert_ne!(is_quiet(day, true), is_quiet(night, true));
        assert!(!is_quiet(day, false) && !is_quiet(night, false));
    }

    #[test]
    fn the_home_relay_has_its_role_and_comes_first() {
        let home = HomeOptions {
            relay: "ws://home".parse().expect("an address"),
            write: HomeWrite::Import,
            strfry_command: StrfryCommand::default(),
        };
        let peers = [peer("ws://a"), peer("ws://home"), peer("ws://b")];
        let plan = planned(&SyncRequest::default(), &peers).expect("a plan");
        let plan = plan.with_home(home.clone());
        let planned: Vec<_> = plan
            .exchanges
            .iter()
            .map(|exchange| (exchange.address.as_str(), exchange.role))
            .collect();
        let expected = [
            ("ws://home", Role::Home),
            ("ws://a", Role::Peer),
            ("ws://b", Role::Peer),
        ];
        assert_eq!(planned, expected);
        assert_eq!(plan.home, Some(home));
    }

    #[test]
    fn the_request_then_the_peer_then_the_scope_say_whose_events_are_shared() {
        let authors = |keys: &[u8]| Arc::new(keys.iter().map(|key| [*key; 32]).collect());
        let list = |keys: &[u8]| Some(AuthorsSpec::List(authors(keys)));
        let graph = Graph {
            authors: authors(&[7, 8, 9]),
            members: 1,
            ..Graph::default()
        };
        let peers = [
            peer("ws://unsaid"),
            PeerOptions {
                authors: list(&[1, 2]),
                ..peer("ws://said")
            },
            peer("/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"),
        ];
        let shared = |request: Option<AuthorsSpec>, scope: Option<AuthorsSpec>, graph: &Graph| {
            let request = SyncRequest {
                authors: request,
                ..SyncRequest::default()
            };
            let scope = ScopeOptions {
                authors: scope,
                ..ScopeOptions::default()
            };
            let plan = plan(&request, &peers, &scope, graph, Deadlines::default(), NOW)?;
            let counts: Vec<Option<usize>> = plan
                .exchanges
                .iter()
                .map(|exchange| exchange.scope.authors.as_ref().map(|set| set.len()))
                .collect();
            Ok((counts, plan.authors_in_scope))
        };
        let nobody = Graph::default();
        assert_eq!(
            shared(None, None, &graph),
            Ok((vec![Some(3), Some(2), None], None))
        );
        assert_eq!(
            shared(None, None, &nobody),
            Ok((vec![None, Some(2), None], None))
        );
        assert_eq!(
            shared(None, Some(AuthorsSpec::N2), &graph),
            Ok((vec![Some(3), Some(2), Some(3)], Some(5)))
        );
        assert_eq!(
            shared(list(&[5]), Some(AuthorsSpec::N2), &nobody),
            Ok((vec![Some(1); 3], Some(1)))
        );
        assert_eq!(
            shared(None, Some(AuthorsSpec::N2), &nobody),
            Err(PlanError::NoMembers)
        );
    }

    #[test]
    fn nobody_to_exchange_with_is_an_error_in_words() {
        assert_eq!(
            planned(&SyncRequest::default(), &[]),
            Err(PlanError::NoPeers)
        );
    }
}
