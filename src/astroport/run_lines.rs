//! What the logs say of a run: the lines that the network's report scripts look for, with our figures.
//!
//! Takes a report; gives lines. Pure. `SYNC_STATS:`, `SYNC_IMPORT:`, `SYNC_PEERS:`, `SYNC_HEX:` and `SYNC_PROFILES:` come
//! last: of each the last one counts, so nothing that a peer said in a line before can stand for ours. Counts are of events
//! that were stored, by kind; what only the content of an event would tell (which of kind 10000 is encrypted) counts as plain.
//! Deliberately absent: event contents. Worst case: a line for each peer.

use std::collections::BTreeMap;

use super::log_file::Level;
use crate::sync::{Outcome, PeerReport, RunPlan, RunReport, Step};

/// Whose events are shared, and of how many of them a name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GraphFigures {
    /// Authors in the graph.
    pub authors: u64,
    /// Of these, those with a profile that names them.
    pub profiles_found: u64,
}

type Line = (Level, String);

fn info(text: impl Into<String>) -> Line {
    (Level::Info, text.into())
}

/// What is said when a run begins.
pub(super) fn first_lines(plan: &RunPlan) -> Vec<Line> {
    let home = plan.home.as_ref().map(|home| home.relay.clone());
    let peers: Vec<String> = plan
        .exchanges
        .iter()
        .filter(|exchange| Some(&exchange.address) != home.as_ref())
        .map(|exchange| exchange.address.to_string())
        .collect();
    let mut lines = vec![
        info("Starting Astroport constellation backfill process"),
        info(format!("Found {} constellation peers", peers.len())),
    ];
    lines.extend(peers.into_iter().map(|peer| info(format!("  - {peer}"))));
    lines
}

/// What is said of a run that ended. `home` is the address of the home relay, which is no peer to the scripts; `graph` is
/// given where profiles are looked at.
pub fn run_lines(report: &RunReport, home: Option<&str>, graph: Option<GraphFigures>) -> Vec<Line> {
    let is_home = |peer: &&PeerReport| Some(peer.address.as_str()) == home;
    let mut lines = Vec::new();
    for peer in report.peers.iter().filter(is_home) {
        if peer.outcome != Outcome::Converged {
            let why = why(peer);
            lines.push((
                Level::Error,
                format!("❌ Failed to import events to strfry: {why}"),
            ));
        }
    }
    let peers: Vec<&PeerReport> = report
        .peers
        .iter()
        .filter(|peer| !is_home(peer) && !peer.is_left_alone())
        .collect();
    for peer in &peers {
        lines.push(info(format!("Processing peer: {}", peer.address)));
        lines.push(info(format!(
            "Collected {} events from {}",
            peer.downloaded, peer.address
        )));
        lines.push(ending(peer));
    }
    for peer in report.peers.iter().filter(|peer| peer.is_left_alone()) {
        lines.push(info(format!("Left alone: {}: {}", peer.address, why(peer))));
    }
    if report.outcome == Outcome::Deadline {
        lines.push((
            Level::Warn,
            "Backfill timeout, the run was ended".to_owned(),
        ));
    }
    lines.push(info(stats(&report.totals.by_kind)));
    lines.push(info(format!(
        "SYNC_IMPORT: events={} mode=verified",
        report.totals.stored
    )));
    lines.push(info("Backfill process completed"));
    let converged = peers
        .iter()
        .filter(|peer| peer.outcome == Outcome::Converged);
    lines.push(info(format!(
        "SYNC_PEERS: success={} total={}",
        converged.count(),
        peers.len()
    )));
    if let Some(graph) = graph {
        lines.push(info(format!("Targeting {} HEX pubkeys", graph.authors)));
        lines.push(info(format!("SYNC_HEX: count={}", graph.authors)));
        lines.push(info(format!(
            "SYNC_PROFILES: found={} missing={}",
            graph.profiles_found,
            graph.authors.saturating_sub(graph.profiles_found)
        )));
    }
    lines
}

/// How the exchange with a peer ended, in the words that are counted.
fn ending(peer: &PeerReport) -> Line {
    let (way, name) = match peer.address.strip_prefix("/p2p/") {
        Some(station) => ("P2P WebSocket", station),
        None => ("WebSocket", peer.address.as_str()),
    };
    match peer.outcome {
        Outcome::Converged => info(format!("✅ {way} backfill successful for {name}")),
        Outcome::Partial => (
            Level::Warn,
            format!("⚠️ {way} backfill incomplete for {name}: {}", why(peer)),
        ),
        Outcome::Failed | Outcome::Deadline | Outcome::Skipped => {
            let is_tunnel = way != "WebSocket"
                && peer
                    .error
                    .as_ref()
                    .is_some_and(|error| error.step == Step::Connect);
            let what = if is_tunnel {
                format!("Failed to create P2P tunnel for {name}, backfill failed")
            } else {
                format!("{way} backfill failed for {name}")
            };
            (Level::Error, format!("❌ {what}: {}", why(peer)))
        }
    }
}

fn why(peer: &PeerReport) -> String {
    match &peer.error {
        Some(error) => format!("{} ({})", error.detail, error.reason),
        None => format!(
            "{} to fetch and {} to offer are left over",
            peer.need_after.unwrap_or(peer.need),
            peer.have_after.unwrap_or(peer.have)
        ),
    }
}

/// The names under which the report script looks for counts, and the kinds of each.
const COUNTED: [(&str, &[u16]); 27] = [
    ("deletions", &[5]),
    ("videos", &[21, 22]),
    ("files", &[1063]),
    ("comments", &[1111]),
    ("voice", &[1222, 1244]),
    ("tags", &[1985]),
    ("tmdb", &[1986, 30_001]),
    ("channels", &[40, 41, 42, 44]),
    ("playlists", &[10_001, 30_005]),
    ("status", &[30_315]),
    ("did", &[30_800]),
    ("ore_spaces", &[30_312]),
    ("ore_meetings", &[30_313]),
    ("oracle", &[30_500, 30_501, 30_502, 30_503]),
    ("workflows", &[31_900, 31_901, 31_902]),
    ("profiles", &[0]),
    ("text", &[1]),
    ("contacts", &[3]),
    ("reposts", &[6]),
    ("reactions", &[7]),
    ("blog", &[30_023]),
    ("calendar", &[30_024]),
    ("analytics", &[10_000]),
    ("encrypted_analytics", &[]),
    ("badge_awards", &[8]),
    ("profile_badges", &[30_008]),
    ("badge_definitions", &[30_009]),
];

fn stats(by_kind: &BTreeMap<u16, u64>) -> String {
    let count = |kinds: &[u16]| -> u64 { kinds.iter().filter_map(|kind| by_kind.get(kind)).sum() };
    let (all, private): (u64, u64) = (by_kind.values().sum(), count(&[4]));
    let mut text = format!(
        "SYNC_STATS: events={all} dms={private} public={}",
        all - private
    );
    for (name, kinds) in COUNTED {
        text.push_str(&format!(" {name}={}", count(kinds)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Failure;

    const STATION: &str = "/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn peer(address: &str, outcome: Outcome) -> PeerReport {
        let mut peer = PeerReport::new(address);
        peer.outcome = outcome;
        peer
    }

    fn report(peers: Vec<PeerReport>) -> RunReport {
        RunReport {
            run_id: String::new(),
            outcome: RunReport::outcome_of(&peers),
            started_at: String::new(),
            duration_ms: 0,
            dry_run: false,
            named_peers: false,
            facts: None,
            totals: RunReport::totals_of(&peers, None),
            peers,
        }
    }

    /// As the report script finds a figure: of the last line with this mark, the first number behind `key=`.
    fn figure(lines: &[Line], mark: &str, key: &str) -> u64 {
        let line = lines.iter().rev().find(|(_, line)| line.contains(mark));
        let line = &line.expect("such a line").1;
        let behind = line.split_once(mark).expect("the mark").1;
        let value = behind
            .split(' ')
            .find_map(|pair| pair.strip_prefix(&format!("{key}=")));
        value.expect("the key").parse().expect("a number")
    }

    #[test]
    fn the_figures_are_where_the_scripts_look_for_them() {
        let mut good = peer(STATION, Outcome::Converged);
        (good.downloaded, good.stored) = (12, 10);
        good.by_kind = [(0, 1), (1, 4), (4, 2), (5, 1), (21, 1), (22, 1)].into();
        let mut bad = peer("wss://relay.example", Outcome::Failed);
        bad.error = Some(Failure {
            step: Step::Download,
            reason: "closed".into(),
            detail: "it said SYNC_PEERS: success=9 total=9".into(),
        });
        let home = peer("ws://127.0.0.1:7777", Outcome::Converged);
        let figures = GraphFigures {
            authors: 7,
            profiles_found: 5,
        };
        let report = report(vec![home, good, bad]);
        let lines = run_lines(&report, Some("ws://127.0.0.1:7777"), Some(figures));
        for (mark, key, expected) in [
            ("SYNC_STATS:", "events", 10),
            ("SYNC_STATS:", "dms", 2),
            ("SYNC_STATS:", "public", 8),
            ("SYNC_STATS:", "deletions", 1),
            ("SYNC_STATS:", "videos", 2),
            ("SYNC_STATS:", "text", 4),
            ("SYNC_STATS:", "badge_definitions", 0),
            ("SYNC_IMPORT:", "events", 10),
            ("SYNC_PEERS:", "success", 1),
            ("SYNC_PEERS:", "total", 2),
            ("SYNC_HEX:", "count", 7),
            ("SYNC_PROFILES:", "found", 5),
            ("SYNC_PROFILES:", "missing", 2),
        ] {
            assert_eq!(figure(&lines, mark, key), expected, "{mark} {key}");
        }
        let count = |words: &str| {
            lines
                .iter()
                .filter(|(_, line)| line.contains(words))
                .count()
        };
        assert_eq!(count("Processing peer:"), 2);
        assert_eq!(count("backfill successful"), 1);
        assert_eq!(count("backfill failed"), 1);
        let errors = lines.iter().filter(|(level, _)| *level == Level::Error);
        assert_eq!(errors.count(), 1);
        // Every kind is counted under one name at most.
        let mut kinds: Vec<u16> = COUNTED
            .iter()
            .flat_map(|(_, kinds)| *kinds)
            .copied()
            .collect();
        let all = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), all);
    }

    #[test]
    fn a_station_that_cannot_be_reached_is_a_tunnel_that_failed() {
        let mut away = peer(STATION, Outcome::Failed);
        away.error = Some(Failure {
            step: Step::Connect,
            reason: "unreachable".into(),
            detail: "nobody there".into(),
        });
        let lines = run_lines(&report(vec![away]), None, None);
        let (level, line) = &lines[2];
        assert_eq!(*level, Level::Error);
        assert!(line.contains("Failed to create P2P tunnel") && line.contains("nobody there"));
        assert!(!lines.iter().any(|(_, line)| line.contains("SYNC_HEX")));
    }
}
