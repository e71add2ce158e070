//! Graphs of a few authors, named by numbers.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> AuthorKey {
    [number; 32]
}

/// Who follows whom, and how often each list was read.
#[derive(Debug, Default)]
struct World {
    lists: BTreeMap<u8, Vec<u8>>,
    reads: BTreeMap<u8, u32>,
}

impl World {
    fn of(lists: &[(u8, &[u8])]) -> Self {
        Self {
            lists: lists
                .iter()
                .map(|(author, list)| (*author, list.to_vec()))
                .collect(),
            reads: BTreeMap::new(),
        }
    }

    fn rank(&mut self, follows: &mut Follows, roots: &Roots, authors_max: usize) -> Graph {
        let Self { lists, reads } = self;
        let ranked = follows.rank(roots, authors_max, &mut |author: &AuthorKey| {
            *reads.entry(author[0]).or_default() += 1;
            let list = lists.get(&author[0]).into_iter().flatten();
            Ok::<_, Infallible>(list.map(|number| key(*number)).collect())
        });
        let Ok(graph) = ranked;
        graph
    }
}

fn roots(members: &[u8]) -> Roots {
    let mut why = Whys::default();
    why.add(Why::Configured);
    Roots {
        members: members.iter().map(|number| (key(*number), why)).collect(),
        ..Roots::default()
    }
}

fn ranked(graph: &Graph) -> Vec<(u8, Level, u32)> {
    let authors = graph.ranked.iter();
    authors
        .map(|author| (author.key[0], author.level, author.followers))
        .collect()
}

/// A member whose list names others every hour filled the memory with all keys that it ever named.
#[test]
fn keys_that_nobody_names_any_more_do_not_pile_up() {
    let mut follows = Follows::default();
    let member = roots(&[1]);
    for hour in 0..400_u32 {
        follows.forget(&key(1));
        let graph = follows.rank(&member, 10_000, &mut |author: &AuthorKey| {
            let named = (0..1_000_u32).map(|number| {
                let mut key = [9; 32];
                key[..4].copy_from_slice(&(hour * 1_000 + number).to_be_bytes());
                key
            });
            let list = if author[0] == 1 {
                named.collect()
            } else {
                Vec::new()
            };
            Ok::<_, Infallible>(list)
        });
        let Ok(graph) = graph;
        assert_eq!((graph.members, graph.n1), (1, 1_000));
    }
    assert!(follows.keys.len() < 110_000, "{}", follows.keys.len());
}

#[test]
fn members_then_whom_they_follow_then_whom_those_follow() {
    let mut world = World::of(&[
        (1, &[2, 3, 1, 3]),
        (9, &[3]),
        (2, &[4, 5]),
        (3, &[5, 9]),
        (4, &[6]),
    ]);
    let graph = world.rank(&mut Follows::default(), &roots(&[1, 9]), 100);
    use Level::{Member, N1, N2};
    assert_eq!(
        ranked(&graph),
        [
            (9, Member, 1),
            (1, Member, 0),
            (3, N1, 2),
            (2, N1, 1),
            (5, N2, 2),
            (4, N2, 1)
        ],
        "6 is whom N2 follow; oneself and repetitions do not count"
    );
    assert_eq!((graph.members, graph.n1, graph.n2), (2, 2, 2));
    assert!(graph.cut.is_nothing());
    assert_eq!(graph.authors.len(), 6);
    let why = graph.ranked[0].why.list();
    assert_eq!(why, [Why::Configured, Why::Followed]);
}

#[test]
fn only_lists_that_changed_are_read_again() {
    let mut world = World::of(&[(1, &[2, 3]), (2, &[4]), (3, &[5])]);
    let mut follows = Follows::default();
    world.rank(&mut follows, &roots(&[1]), 100);
    assert_eq!(world.reads, [(1, 1), (2, 1), (3, 1)].into());
    assert!(follows.is_held(&key(3)) && !follows.is_held(&key(5)));
    world.lists.insert(3, vec![6]);
    follows.forget(&key(3));
    let graph = world.rank(&mut follows, &roots(&[1]), 100);
    assert_eq!(world.reads, [(1, 1), (2, 1), (3, 2)].into());
    assert!(graph.authors.contains(&key(6)) && !graph.authors.contains(&key(5)));
    // Whom nobody follows any more is forgotten, and read again when that changes back.
    world.lists.insert(1, vec![2]);
    follows.forget(&key(1));
    world.rank(&mut follows, &roots(&[1]), 100);
    assert!(!follows.is_held(&key(3)));
    world.lists.insert(1, vec![2, 3]);
    follows.forget(&key(1));
    let graph = world.rank(&mut follows, &roots(&[1]), 100);
    assert!(graph.authors.contains(&key(6)));
    assert_eq!(world.reads[&3], 3);
}

#[test]
fn what_is_beyond_the_bounds_is_the_least_followed_and_is_counted() {
    let mut world = World::of(&[(1, &[3, 4]), (2, &[4]), (3, &[6, 7]), (4, &[7])]);
    let graph = world.rank(&mut Follows::default(), &roots(&[1, 2]), 3);
    assert_eq!(
        ranked(&graph)
            .iter()
            .map(|(number, ..)| *number)
            .collect::<Vec<_>>(),
        [1, 2, 4]
    );
    assert_eq!(
        graph.cut,
        Cut {
            n1: 1,
            n2: 1,
            ..Cut::default()
        }
    );
    let graph = world.rank(&mut Follows::default(), &roots(&[1, 2]), 1);
    assert_eq!((graph.members, graph.n1, graph.n2), (1, 0, 0));
    assert_eq!(graph.cut.members, 1);
    // Room for the lists of both members and of 4, whom most follow.
    let graph = world.rank(&mut Follows::bounded(4), &roots(&[1, 2]), 100);
    assert_eq!(
        graph.cut,
        Cut {
            follow_lists: 1,
            ..Cut::default()
        }
    );
    assert!(graph.authors.contains(&key(7)) && !graph.authors.contains(&key(6)));
}

#[test]
fn a_blacklist_blocks_only_whom_lists_of_others_alone_bring_in() {
    let mut world = World::of(&[(1, &[2]), (2, &[3])]);
    let roots = Roots {
        friends: [key(3), key(4), key(5)].into(),
        blacklist: [key(1), key(2), key(3), key(4)].into(),
        ..roots(&[1])
    };
    let graph = world.rank(&mut Follows::default(), &roots, 100);
    let expected: HashSet<AuthorKey> = [1, 2, 3, 5].map(key).into();
    assert_eq!(*graph.authors, expected);
    let friend = graph.ranked.last().expect("somebody");
    assert_eq!(
        (friend.key, friend.level, friend.why.list()),
        (key(5), Level::N2, vec![Why::File])
    );
}

proptest! {
    /// However lists change, what is held over gives what reading everything anew gives.
    #[test]
    fn incremental_equals_from_scratch(
        changes in proptest::collection::vec(
            (0u8..12, proptest::collection::vec(0u8..12, 0..5), proptest::collection::btree_set(0u8..12, 0..3)),
            1..30,
        ),
        authors_max in 1usize..14,
    ) {
        let mut world = World::default();
        let mut follows = Follows::default();
        for (author, list, members) in changes {
            world.lists.insert(author, list);
            follows.forget(&key(author));
            let members: Vec<u8> = members.into_iter().collect();
            let kept = world.rank(&mut follows, &roots(&members), authors_max);
            let anew = world.rank(&mut Follows::default(), &roots(&members), authors_max);
            prop_assert_eq!(&kept, &anew);
            prop_assert!(kept.ranked.len() <= authors_max);
            prop_assert_eq!(kept.members + kept.n1 + kept.n2, kept.ranked.len());
        }
    }
}
