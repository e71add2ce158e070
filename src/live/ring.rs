//! Whom a station dials: all stations stand on a ring by the hash of their PeerIDs, and each dials some that follow it.
//! Pure.
//!
//! The first is the next one on the ring, so that the ring is closed and one that dies leaves a line; the others are n^¼,
//! n^½ and n^¾ further on (with four), so that the way around is short however many there are. Everybody is dialled by as
//! many as it dials, if all know the same. Whoever knows less dials the next of those that it knows: that is its own
//! next one sooner or later, since cards go round.

use sha2::{Digest, Sha256};

use crate::peer::PeerId;

/// Where a station stands on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place([u8; 32]);

impl Place {
    /// Of this station.
    pub(super) fn of(station: &PeerId) -> Self {
        Self(Sha256::digest(station.to_bytes()).into())
    }
}

/// Those of `others` that the one at `own` dials, at most `most`: the next one first. `others` does not hold `own`.
pub(super) fn successors(
    own: Place,
    others: impl Iterator<Item = Place>,
    most: usize,
) -> Vec<Place> {
    let mut ahead: Vec<Place> = others.collect();
    // From our own place on, and around.
    ahead.sort_unstable_by_key(|place| (*place <= own, *place));
    ahead.dedup();
    let mut chosen: Vec<usize> = Vec::with_capacity(most);
    for number in 0..most {
        let wanted = offset(ahead.len() + 1, number, most);
        let index = chosen
            .last()
            .map_or(wanted - 1, |last| (wanted - 1).max(last + 1));
        if index >= ahead.len() {
            break;
        }
        chosen.push(index);
    }
    chosen.into_iter().map(|index| ahead[index]).collect()
}

/// How far on a ring of `stations` the successor with this number stands: at least 1.
fn offset(stations: usize, number: usize, of: usize) -> usize {
    #[allow(clippy::cast_precision_loss)] // numbers of stations are far below 2^52
    let (stations, part) = (stations as f64, number as f64 / of.max(1) as f64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // between 1 and the number of stations
    let far = stations.powf(part).round() as usize;
    far.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn places(count: usize, seed: u64) -> Vec<Place> {
        let place = |number: usize| Place(Sha256::digest(format!("{seed} {number}")).into());
        (0..count).map(place).collect()
    }

    type Links = BTreeSet<(usize, usize)>;

    /// Who is linked with whom when each dials its successors among those that it knows.
    fn links(places: &[Place], knows: impl Fn(usize, usize) -> bool, most: usize) -> Links {
        let mut links = Links::new();
        for (number, own) in places.iter().enumerate() {
            let known = (0..places.len()).filter(|other| *other != number && knows(number, *other));
            for dialled in successors(*own, known.map(|other| places[other]), most) {
                let other = places.iter().position(|place| *place == dialled).unwrap();
                links.insert((number.min(other), number.max(other)));
            }
        }
        links
    }

    fn neighbours(links: &Links, of: usize) -> impl Iterator<Item = usize> + '_ {
        links.iter().filter_map(move |(one, other)| {
            (*one == of)
                .then_some(*other)
                .or_else(|| (*other == of).then_some(*one))
        })
    }

    /// How many steps it takes from `start` to whom; without `dead`.
    fn steps(links: &Links, start: usize, dead: Option<usize>) -> Vec<(usize, usize)> {
        let mut reached = BTreeSet::from([start]);
        let mut queue = VecDeque::from([(start, 0)]);
        let mut all = Vec::new();
        while let Some((at, far)) = queue.pop_front() {
            all.push((at, far));
            for next in neighbours(links, at) {
                if Some(next) != dead && reached.insert(next) {
                    queue.push_back((next, far + 1));
                }
            }
        }
        all
    }

    fn is_connected(links: &Links, count: usize, dead: Option<usize>) -> bool {
        let start = (0..count).find(|one| Some(*one) != dead);
        start.is_none_or(|start| {
            steps(links, start, dead).len() == count - usize::from(dead.is_some())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn who_all_know_each_other_are_connected_also_without_any_one(
            count in 2_usize..=100, seed: u64, most in 1_usize..=4,
        ) {
            let links = links(&places(count, seed), |_, _| true, most);
            for one in 0..count {
                prop_assert!(neighbours(&links, one).count() <= 2 * most);
                prop_assert!(is_connected(&links, count, Some(one)));
            }
            prop_assert!(is_connected(&links, count, None));
            if most == 4 {
                let farthest = steps(&links, 0, None).into_iter().map(|(_, far)| far).max();
                prop_assert!(farthest <= Some(6), "{farthest:?}");
            }
        }

        #[test]
        fn who_knows_little_is_connected_too_if_knowledge_is(
            count in 2_usize..=60, seed: u64, share in 5_u64..=10,
        ) {
            // All know the first, who let them in, and a share of the others, each another one.
            let knows = |one: usize, other: usize| {
                let lot = Sha256::digest(format!("{seed} {one} {other}"));
                other == 0 || one == 0 || u64::from(lot[0]) % 10 < share
            };
            let places = places(count, seed);
            let links = links(&places, knows, 4);
            prop_assert!(is_connected(&links, count, None));
            for (number, own) in places.iter().enumerate() {
                let known = (0..count).filter(|other| *other != number && knows(number, *other));
                let dialled = successors(*own, known.map(|other| places[other]), 4);
                prop_assert!(dialled.len() <= 4);
            }
        }
    }

    #[test]
    fn the_first_is_the_next_one_and_the_others_are_ever_further() {
        let mut all = places(101, 1);
        all.sort_unstable();
        let (own, others) = (
            all[40],
            all.iter().copied().filter(|place| *place != all[40]),
        );
        let chosen = successors(own, others, 4);
        let ahead = |far: usize| all[(40 + far) % 101];
        assert_eq!(chosen, [1, 3, 10, 32].map(ahead));
        assert!(successors(own, std::iter::empty(), 4).is_empty());
        assert_eq!(successors(own, [all[3]].into_iter(), 4), [all[3]]);
    }
}
