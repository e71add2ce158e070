//! What the graph is made of, as the configuration says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::keys::AuthorKey;
use crate::limits::GRAPH_AUTHORS_DEFAULT;

/// A path, or a pattern of paths (`*`, `**`, `?`, `[…]`). Absolute: a station has no folder that it is started in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FilePattern(glob::Pattern);

impl TryFrom<String> for FilePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is no absolute path"));
        }
        glob::Pattern::new(&text)
            .map(Self)
            .map_err(|error| format!("{text:?} is no pattern of paths: {error}"))
    }
}

impl FilePattern {
    /// The pattern.
    pub(super) fn pattern(&self) -> &glob::Pattern {
        &self.0
    }
}

/// What the graph is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphOptions {
    /// Keys that the captain vouches for.
    pub members: BTreeSet<AuthorKey>,
    /// Files with members' keys, one a line.
    pub member_files: Vec<FilePattern>,
    /// Files with friends of friends, as other stations merge them: they count as N2.
    pub friend_files: Vec<FilePattern>,
    /// Files with keys that `friend_files` do not bring in.
    pub blacklist_files: Vec<FilePattern>,
    /// The most authors in scope.
    pub authors_max: usize,
    /// The file that N1 and N2 are merged into.
    pub merge_into: Option<PathBuf>,
    /// Whether the keys of cards are members.
    pub cards: bool,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            members: BTreeSet::new(),
            member_files: Vec::new(),
            friend_files: Vec::new(),
            blacklist_files: Vec::new(),
            authors_max: GRAPH_AUTHORS_DEFAULT,
            merge_into: None,
            cards: false,
        }
    }
}
