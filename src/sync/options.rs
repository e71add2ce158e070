//! What can be asked of runs: kinds, scope, peers, one request, deadlines. Read by whoever plans.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use constellation_event::KindClass;
use constellation_eventstore::KindSet;
use serde::{Deserialize, Serialize};

use super::authors::AuthorsSpec;
use super::plan::PlanError;
use crate::graph::{AuthorKey, FilePattern, Graph, GraphOptions, author_keys};
use crate::ingest::Scope;
use crate::limits;
use crate::peer::{Bandwidth, Direction, PeerAddress, QuietHours};

/// Kinds shared by default (D11): profiles, notes, contacts, deletions, reposts, reactions, requests to vanish,
/// articles and their drafts, and the calendar.
pub const DEFAULT_KINDS: [u16; 13] = [
    0, 1, 3, 5, 6, 7, 62, 30_023, 30_024, 31_922, 31_923, 31_924, 31_925,
];

/// Added by `--dms`: direct messages, seals, gift wraps.
pub const DIRECT_MESSAGE_KINDS: [u16; 3] = [4, 13, 1059];

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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeOptions {
    /// Kinds to share: "all", a list such as "0,1,30000-30003", or numbers. Absent: notes, profiles, contacts,
    /// deletions, reposts, reactions, articles, calendars.
    pub kinds: Option<KindsSpec>,
    /// Also share private messages (kinds 4, 13, 1059).
    pub dms: bool,
    /// Whose events to share: "all", "n2", or a list of public keys. Absent: all with stations, and with relays `n2` once
    /// members are known.
    pub authors: Option<AuthorsSpec>,
    /// Members: public keys (npub or hex) that the station vouches for.
    #[serde(deserialize_with = "author_keys")]
    pub members: BTreeSet<AuthorKey>,
    /// Files with members' keys, one a line: paths or patterns.
    pub member_files: Vec<FilePattern>,
    /// Files with friends of friends, one key a line, as other stations merge them.
    pub friend_files: Vec<FilePattern>,
    /// Files with keys that `friend_files` do not bring in.
    pub blacklist_files: Vec<FilePattern>,
    /// The most authors under `n2`.
    #[serde(deserialize_with = "authors_max")]
    pub authors_max: usize,
    /// The file that N1 and N2 are merged into.
    pub merge_into: Option<PathBuf>,
}

impl Default for ScopeOptions {
    fn default() -> Self {
        let graph = GraphOptions::default();
        Self {
            kinds: None,
            dms: false,
            authors: None,
            members: graph.members,
            member_files: graph.member_files,
            friend_files: graph.friend_files,
            blacklist_files: graph.blacklist_files,
            authors_max: graph.authors_max,
            merge_into: graph.merge_into,
        }
    }
}

fn authors_max<'de, D: serde::Deserializer<'de>>(source: D) -> Result<usize, D::Error> {
    let most = usize::deserialize(source)?;
    if (1..=limits::GRAPH_AUTHORS_MAX).contains(&most) {
        return Ok(most);
    }
    Err(serde::de::Error::custom(format!(
        "{most} is not between 1 and {}",
        limits::GRAPH_AUTHORS_MAX
    )))
}

/// One `[[peers]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerOptions {
    /// Its address.
    pub address: PeerAddress,
    /// Which way events go: "down" (to us), "up" (to the peer) or "both".
    #[serde(default)]
    pub direction: Direction,
    /// Kinds to share with this peer, instead of those of `[scope]`.
    #[serde(default)]
    pub kinds: Option<KindsSpec>,
    /// Whose events to share with this peer, instead of those of `[scope]`.
    #[serde(default)]
    pub authors: Option<AuthorsSpec>,
    /// Bytes a second that may go to this peer, and come from it.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// Hours of the day in which scheduled runs leave it alone.
    #[serde(default)]
    pub quiet_hours: Option<QuietHours>,
    /// It is the home relay: not written here, but in `[station]`.
    #[serde(skip)]
    pub is_home: bool,
}

impl PeerOptions {
    /// A peer of which nothing is configured.
    pub fn of(address: PeerAddress) -> Self {
        Self {
            address,
            direction: Direction::default(),
            kinds: None,
            authors: None,
            bandwidth: None,
            quiet_hours: None,
            is_home: false,
        }
    }
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
    /// Whose events.
    pub authors: Option<AuthorsSpec>,
    /// Private messages too.
    pub dms: bool,
    /// Which way.
    pub direction: Option<Direction>,
    /// Compare only, move nothing.
    pub dry_run: bool,
    /// It is due, but nobody asked for it.
    pub scheduled: bool,
    /// It only closes a gap, so that the history tells of it where it did not end well.
    pub brief: bool,
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

impl Deadlines {
    /// The same, but an exchange that takes long is cut off: others are waiting for the next run.
    pub(super) fn of_brief_runs(self) -> Self {
        Self {
            exchange: self.exchange.min(limits::LIVE_EXCHANGE_DEADLINE),
            ..self
        }
    }
}

impl ScopeOptions {
    /// What these options share with stations, which may push it to us. Under `n2` nothing, while no member is known.
    pub fn shared(&self, graph: &Graph) -> Scope {
        // A list of nothing but ephemeral kinds shares nothing; a run says so, others just see nothing shared.
        let kinds = kind_set(self.kinds.as_ref(), self.dms)
            .unwrap_or_else(|_| KindSet::Only(BTreeSet::new()));
        let authors = match &self.authors {
            None | Some(AuthorsSpec::All) => None,
            Some(AuthorsSpec::N2) => Some(Arc::clone(&graph.authors)),
            Some(AuthorsSpec::List(authors)) => Some(Arc::clone(authors)),
        };
        Scope { kinds, authors }
    }

    /// What the graph is made of. `cards`: whether the keys of cards are members.
    pub fn graph(&self, cards: bool) -> GraphOptions {
        GraphOptions {
            members: self.members.clone(),
            member_files: self.member_files.clone(),
            friend_files: self.friend_files.clone(),
            blacklist_files: self.blacklist_files.clone(),
            authors_max: self.authors_max,
            merge_into: self.merge_into.clone(),
            cards,
        }
    }
}

pub(super) fn kind_set(kinds: Option<&KindsSpec>, dms: bool) -> Result<KindSet, PlanError> {
    let mut kinds = match kinds {
        Some(KindsSpec::All) => return Ok(KindSet::all()),
        Some(KindsSpec::List(kinds)) => kinds.clone(),
        None => BTreeSet::from(DEFAULT_KINDS),
    };
    if dms {
        kinds.extend(DIRECT_MESSAGE_KINDS);
    }
    kinds.retain(|kind| KindClass::of(*kind) != KindClass::Ephemeral);
    if kinds.is_empty() {
        Err(PlanError::NoKinds)
    } else {
        Ok(KindSet::Only(kinds))
    }
}
