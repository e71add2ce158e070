//! The graph as others see it: who is in scope, how near, and why.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keys::AuthorKey;

/// How near an author is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The station vouches for it.
    Member,
    /// A member follows it.
    N1,
    /// Somebody in N1 follows it, or another station's list names it.
    N2,
}

impl Level {
    /// The name used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::N1 => "n1",
            Self::N2 => "n2",
        }
    }
}

/// Why an author is in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The configuration names it.
    Configured,
    /// A file names it.
    File,
    /// It is a station's or captain's key in a card.
    Card,
    /// A member, or somebody in N1, follows it.
    Followed,
}

impl Why {
    const ALL: [Self; 4] = [Self::Configured, Self::File, Self::Card, Self::Followed];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The name used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::File => "file",
            Self::Card => "card",
            Self::Followed => "followed",
        }
    }
}

/// Several of [`Why`], in one byte: there are many authors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whys(u8);

impl Whys {
    pub(super) fn add(&mut self, why: Why) {
        self.0 |= why.bit();
    }

    /// Which.
    pub fn list(self) -> Vec<Why> {
        let mut all = Why::ALL.to_vec();
        all.retain(|why| self.0 & why.bit() != 0);
        all
    }
}

/// An author in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankedAuthor {
    /// Who.
    pub key: AuthorKey,
    /// How near.
    pub level: Level,
    /// Follow lists, of those that were read, that name the author.
    pub followers: u32,
    /// Why.
    pub why: Whys,
}

/// What the bounds left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut {
    /// Members beyond `authors_max`.
    pub members: usize,
    /// N1 beyond it: the least followed.
    pub n1: usize,
    /// N2 beyond it: the least followed.
    pub n2: usize,
    /// Follow lists that were not read.
    pub follow_lists: usize,
    /// Files, or keys of files, that were not read.
    pub file_keys: usize,
}

impl Cut {
    /// Whether nothing was left out.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose events are in scope under `n2`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// Everybody in it.
    pub authors: Arc<HashSet<AuthorKey>>,
    /// The same, members first, then N1, then N2, each the most followed first.
    pub ranked: Arc<[RankedAuthor]>,
    /// How many members.
    pub members: usize,
    /// How many in N1.
    pub n1: usize,
    /// How many in N2.
    pub n2: usize,
    /// What was left out.
    pub cut: Cut,
}
