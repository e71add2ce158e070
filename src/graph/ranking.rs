//! From members and follow lists to the graph. Pure: follow lists come from whoever reads them.
//!
//! Holds the lists of members and N1, each read once and forgotten when it changed or when its author is neither any more;
//! keys are numbered, so that an entry of a list takes four bytes. Members come first, then N1, then N2, each the most
//! followed first, then by key: the same inputs give the same graph. Bounded by `authors_max` and `GRAPH_FOLLOWS_MAX`; what
//! is left out is counted. Worst case: one pass over all lists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::keys::AuthorKey;
use super::ranked::{Cut, Graph, Level, RankedAuthor, Why, Whys};
use crate::limits::GRAPH_FOLLOWS_MAX;

/// Numbers of keys that nobody names any more which are kept, besides as many as there are keys that are named: 6 MB.
const UNNAMED_NUMBERS_KEPT: usize = 100_000;

/// Who is to be in the graph before anybody is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// With the reasons.
    pub(super) members: BTreeMap<AuthorKey, Whys>,
    /// Friends of friends, by other stations' lists.
    pub(super) friends: BTreeSet<AuthorKey>,
    /// Not to be brought in by those lists.
    pub(super) blacklist: BTreeSet<AuthorKey>,
    /// Files, or keys of them, beyond the bounds.
    pub(super) unread: usize,
}

/// Reads whom an author follows.
pub(super) type ReadFollows<'r, E> = &'r mut dyn FnMut(&AuthorKey) -> Result<Vec<AuthorKey>, E>;

/// Follow lists by number.
#[derive(Debug)]
pub(super) struct Follows {
    numbers: HashMap<AuthorKey, u32>,
    keys: Vec<AuthorKey>,
    lists: HashMap<u32, Box<[u32]>>,
    entries: usize,
    entries_max: usize,
}

impl Default for Follows {
    fn default() -> Self {
        Self::bounded(GRAPH_FOLLOWS_MAX)
    }
}

/// What is found out about a number on the way.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    level: Option<Level>,
    followers: u32,
    why: Whys,
}

impl Follows {
    fn bounded(entries_max: usize) -> Self {
        Self {
            numbers: HashMap::new(),
            keys: Vec::new(),
            lists: HashMap::new(),
            entries: 0,
            entries_max,
        }
    }

    /// Whether a change of this author's follow list changes the graph.
    pub(super) fn is_held(&self, author: &AuthorKey) -> bool {
        let number = self.numbers.get(author);
        number.is_some_and(|number| self.lists.contains_key(number))
    }

    /// Whether no list is held.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The author's list has changed: it is read again.
    pub(super) fn forget(&mut self, author: &AuthorKey) {
        if let Some(number) = self.numbers.get(author)
            && let Some(list) = self.lists.remove(number)
        {
            self.entries -= list.len();
        }
    }

    /// Computes the graph. An error is `read`'s: what was read before it is kept.
    pub(super) fn rank<E>(
        &mut self,
        roots: &Roots,
        authors_max: usize,
        read: ReadFollows<'_, E>,
    ) -> Result<Graph, E> {
        // Numbers of those who are named no more are not used again. A member whose list names others every hour must not
        // fill the memory with all that it ever named: beyond twice what is named now, all is begun anew.
        let named = self.entries + roots.members.len() + roots.friends.len();
        if self.keys.len() > 2 * named + UNNAMED_NUMBERS_KEPT {
            *self = Self::bounded(self.entries_max);
        }
        let mut cut = Cut {
            file_keys: roots.unread,
            ..Cut::default()
        };
        let mut standings: Vec<Standing> = Vec::new();
        let mut members = Vec::with_capacity(roots.members.len());
        for (key, why) in &roots.members {
            let number = self.number(*key);
            let standing = at(&mut standings, number);
            standing.level = Some(Level::Member);
            standing.why = *why;
            members.push(number);
        }
        let n1 = self.follow(&members, Level::N1, &mut standings, &mut cut, read)?;
        let (n1, beyond) = self.nearest(n1, authors_max.saturating_sub(members.len()), &standings);
        cut.n1 = beyond.len();
        self.keep_lists_of(&members, &n1);
        let mut n2 = self.follow(&n1, Level::N2, &mut standings, &mut cut, read)?;
        for key in &roots.friends {
            let number = self.number(*key);
            let standing = at(&mut standings, number);
            if standing.level.is_none() && !roots.blacklist.contains(key) {
                standing.level = Some(Level::N2);
                n2.push(number);
            }
            standing.why.add(Why::File);
        }
        let (members, beyond) = self.nearest(members, authors_max, &standings);
        cut.members = beyond.len();
        let room = authors_max - members.len() - n1.len();
        let (n2, beyond) = self.nearest(n2, room, &standings);
        cut.n2 = beyond.len();
        let (n1, _) = self.nearest(n1, authors_max, &standings);
        let ranked: Arc<[RankedAuthor]> = [&members, &n1, &n2]
            .into_iter()
            .flatten()
            .filter_map(|number| self.ranked(*number, &standings))
            .collect();
        Ok(Graph {
            authors: Arc::new(
                ranked
                    .iter()
                    .map(|author| author.key)
                    .collect::<HashSet<_>>(),
            ),
            members: members.len(),
            n1: n1.len(),
            n2: n2.len(),
            ranked,
            cut,
        })
    }

    fn number(&mut self, key: AuthorKey) -> u32 {
        *self.numbers.entry(key).or_insert_with(|| {
            let number = u32::try_from(self.keys.len()).expect("far fewer keys than numbers");
            self.keys.push(key);
            number
        })
    }

    /// Counts whom `authors` follow; gives those who have come into the graph by that, at `level`.
    fn follow<E>(
        &mut self,
        authors: &[u32],
        level: Level,
        standings: &mut Vec<Standing>,
        cut: &mut Cut,
        read: ReadFollows<'_, E>,
    ) -> Result<Vec<u32>, E> {
        let mut reached = Vec::new();
        for author in authors {
            if !self.lists.contains_key(author) && !self.read_list(*author, read)? {
                cut.follow_lists += 1;
                continue;
            }
            for followed in self.lists.get(author).into_iter().flatten() {
                let standing = at(standings, *followed);
                standing.followers += 1;
                standing.why.add(Why::Followed);
                if standing.level.is_none() {
                    standing.level = Some(level);
                    reached.push(*followed);
                }
            }
        }
        Ok(reached)
    }

    /// Reads a list; `false` if there is no room for it.
    fn read_list<E>(&mut self, author: u32, read: ReadFollows<'_, E>) -> Result<bool, E> {
        if self.entries >= self.entries_max {
            return Ok(false);
        }
        let Some(key) = self.keys.get(author as usize).copied() else {
            return Ok(false);
        };
        let mut follows = read(&key)?;
        follows.sort_unstable();
        follows.dedup();
        follows.retain(|followed| *followed != key);
        if self.entries + follows.len() > self.entries_max {
            return Ok(false);
        }
        let list: Box<[u32]> = follows.into_iter().map(|key| self.number(key)).collect();
        self.entries += list.len();
        self.lists.insert(author, list);
        Ok(true)
    }

    fn keep_lists_of(&mut self, members: &[u32], n1: &[u32]) {
        let kept: HashSet<u32> = members.iter().chain(n1).copied().collect();
        self.lists.retain(|author, _| kept.contains(author));
        self.entries = self.lists.values().map(|list| list.len()).sum();
    }

    /// The most followed, up to `most`, and the others.
    fn nearest(
        &self,
        mut numbers: Vec<u32>,
        most: usize,
        standings: &[Standing],
    ) -> (Vec<u32>, Vec<u32>) {
        let followers = |number: &u32| standings.get(*number as usize).map(|of| of.followers);
        numbers.sort_by(|one, other| {
            let key = |number: &u32| self.keys.get(*number as usize);
            followers(other)
                .cmp(&followers(one))
                .then_with(|| key(one).cmp(&key(other)))
        });
        let beyond = numbers.split_off(most.min(numbers.len()));
        (numbers, beyond)
    }

    fn ranked(&self, number: u32, standings: &[Standing]) -> Option<RankedAuthor> {
        let standing = standings.get(number as usize)?;
        Some(RankedAuthor {
            key: *self.keys.get(number as usize)?,
            level: standing.level?,
            followers: standing.followers,
            why: standing.why,
        })
    }
}

fn at(standings: &mut Vec<Standing>, number: u32) -> &mut Standing {
    let place = number as usize;
    if place >= standings.len() {
        standings.resize(place + 1, Standing::default());
    }
    &mut standings[place]
}

#[cfg(test)]
#[path = "ranking_tests.rs"]
mod tests;
