//! Whose events are shared, as it is written: `all`, `n2`, or a list of keys.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::PlanError;
use crate::graph::{AuthorKey, Graph, author_key};
use crate::ingest::Scope;
use crate::peer::PeerAddress;
use crate::protocol::hex;

/// Whose events are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorsSpec {
    /// Everybody's.
    All,
    /// Members', those of whom members follow (N1), and those of whom N1 follow.
    N2,
    /// These authors'.
    List(Arc<HashSet<AuthorKey>>),
}

impl AuthorsSpec {
    /// What holds with a peer of which nothing is said (D18): all with stations, and with relays `n2` once members are
    /// known.
    pub fn by_default(peer: &PeerAddress, graph: &Graph) -> Self {
        if peer.peer_id().is_none() && graph.members > 0 {
            Self::N2
        } else {
            Self::All
        }
    }

    /// The authors; `None` means all.
    ///
    /// # Errors
    /// [`PlanError::NoMembers`].
    pub(super) fn authors(
        &self,
        graph: &Graph,
    ) -> Result<Option<Arc<HashSet<AuthorKey>>>, PlanError> {
        match self {
            Self::All => Ok(None),
            Self::N2 if graph.members == 0 => Err(PlanError::NoMembers),
            Self::N2 => Ok(Some(Arc::clone(&graph.authors))),
            Self::List(authors) => Ok(Some(Arc::clone(authors))),
        }
    }

    fn list<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Self, PlanError> {
        let keys = texts.map(|text| author_key(text).map_err(|error| PlanError::Authors(error.0)));
        Ok(Self::List(Arc::new(keys.collect::<Result<_, _>>()?)))
    }
}

impl std::str::FromStr for AuthorsSpec {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text.trim() {
            "all" => Ok(Self::All),
            "n2" => Ok(Self::N2),
            list => Self::list(list.split(',')),
        }
    }
}

impl std::fmt::Display for AuthorsSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::N2 => f.write_str("n2"),
            Self::List(authors) => {
                let mut keys: Vec<String> = authors.iter().map(|key| hex::encode(key)).collect();
                keys.sort_unstable();
                f.write_str(&keys.join(","))
            }
        }
    }
}

impl Serialize for AuthorsSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AuthorsSpec {
    /// A text as on the command line, or a list of keys.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"all\", \"n2\", or a list of public keys")]
        enum Written {
            Text(String),
            Keys(Vec<String>),
        }
        let read = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse(),
            // An empty list would share nothing, and say nothing of it.
            Written::Keys(keys) if keys.is_empty() => Err(PlanError::Authors(String::new())),
            Written::Keys(keys) => Self::list(keys.iter().map(String::as_str)),
        };
        read.map_err(serde::de::Error::custom)
    }
}

/// How many authors these scopes share together; `None` if one of them shares all.
pub(super) fn authors_in_scope<'s>(scopes: impl Iterator<Item = &'s Scope>) -> Option<u64> {
    let mut sets: Vec<&Arc<HashSet<AuthorKey>>> = Vec::new();
    for scope in scopes {
        let authors = scope.authors.as_ref()?;
        if !sets.iter().any(|known| Arc::ptr_eq(known, authors)) {
            sets.push(authors);
        }
    }
    let count = match sets.as_slice() {
        [one] => one.len(),
        several => {
            let all: HashSet<&AuthorKey> = several.iter().flat_map(|set| set.iter()).collect();
            all.len()
        }
    };
    Some(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
    const HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

    #[test]
    fn authors_are_a_word_or_keys() {
        assert_eq!("all".parse(), Ok(AuthorsSpec::All));
        assert_eq!(" n2".parse(), Ok(AuthorsSpec::N2));
        let list: AuthorsSpec = format!("{NPUB}, {HEX}").parse().unwrap();
        assert_eq!(list.to_string(), HEX, "one author under two spellings");
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<AuthorsSpec>(&json).unwrap(), list);
        let keys = format!("[\"{NPUB}\"]");
        assert_eq!(serde_json::from_str::<AuthorsSpec>(&keys).unwrap(), list);
        for wrong in ["", "n3", "everybody", "all,n2", "7e7e"] {
            let error = wrong.parse::<AuthorsSpec>().unwrap_err();
            assert!(matches!(error, PlanError::Authors(_)), "{wrong}");
        }
        assert!(serde_json::from_str::<AuthorsSpec>("[]").is_err());
    }

    #[test]
    fn stations_share_all_and_relays_n2_once_members_are_known() {
        let relay: PeerAddress = "wss://relay.example".parse().unwrap();
        let station = PeerAddress::of_station(crate::peer::PeerId::random());
        let nobody = Graph::default();
        let somebody = Graph {
            members: 1,
            ..Graph::default()
        };
        let by_default = AuthorsSpec::by_default;
        assert_eq!(by_default(&relay, &nobody), AuthorsSpec::All);
        assert_eq!(by_default(&relay, &somebody), AuthorsSpec::N2);
        assert_eq!(by_default(&station, &somebody), AuthorsSpec::All);
        assert_eq!(AuthorsSpec::N2.authors(&nobody), Err(PlanError::NoMembers));
        assert_eq!(
            AuthorsSpec::N2.authors(&somebody),
            Ok(Some(Arc::clone(&somebody.authors)))
        );
    }
}
