//! Many stations that decide for themselves, without a network: what graph their decisions come to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn station(number: usize) -> PeerId {
    let mut bytes = [7; 38];
    // An identity hash of an Ed25519 key.
    bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    bytes[6..14].copy_from_slice(&(number as u64).to_be_bytes());
    PeerId::from_bytes(&bytes).expect("a PeerID")
}

const LINKS_MAX: usize = 8;

struct World {
    peers: Vec<PeerId>,
    knows: Vec<BTreeSet<usize>>,
    /// By number: who dialled whom.
    links: BTreeMap<u64, (usize, usize)>,
    accept_max: Vec<usize>,
    /// Until which round one does not dial another again.
    away: BTreeMap<(usize, usize), u32>,
    dead: BTreeSet<usize>,
    next: u64,
    round: u32,
    chance: StdRng,
}

impl World {
    fn new(knows: Vec<BTreeSet<usize>>, seed: u64) -> Self {
        let count = knows.len();
        Self {
            peers: (0..count).map(station).collect(),
            knows,
            links: BTreeMap::new(),
            accept_max: vec![LINKS_MAX; count],
            away: BTreeMap::new(),
            dead: BTreeSet::new(),
            next: 0,
            round: 0,
            chance: StdRng::seed_from_u64(seed),
        }
    }

    fn all_know_all(count: usize, seed: u64) -> Self {
        let others = |one: usize| (0..count).filter(|other| *other != one).collect();
        Self::new((0..count).map(others).collect(), seed)
    }

    fn number(&self, peer: &PeerId) -> usize {
        self.peers
            .iter()
            .position(|one| one == peer)
            .expect("one of us")
    }

    fn decide(&self, one: usize) -> Decision {
        let reach_of = |other: usize| {
            if self.links.values().any(|link| *link == (one, other)) {
                Reach::Linked
            } else if self
                .away
                .get(&(one, other))
                .is_some_and(|until| *until > self.round)
            {
                Reach::Away
            } else {
                Reach::Free
            }
        };
        let known = self.knows[one].iter();
        let stations = known.map(|other| (self.peers[*other], reach_of(*other)));
        let stations: BTreeMap<PeerId, Reach> = stations.collect();
        let accepted = self.links.iter().filter(|(_, (_, to))| *to == one);
        let accepted: Vec<Accepted> = accepted
            .map(|(number, (from, _))| Accepted {
                number: *number,
                station: Some(self.peers[*from]),
            })
            .collect();
        decide(&View {
            own: self.peers[one],
            links_max: LINKS_MAX,
            stations: &stations,
            accepted: &accepted,
        })
    }

    fn stay_away(&mut self, one: usize, other: usize) {
        let rounds = self.chance.random_range(2..8);
        self.away.insert((one, other), self.round + rounds);
    }

    /// One station decides and acts; says whether anything changed.
    fn act(&mut self, one: usize) -> bool {
        let decision = self.decide(one);
        self.accept_max[one] = decision.accept_max;
        let mut changed = false;
        for number in decision.end_accepted {
            if let Some((from, _)) = self.links.remove(&number) {
                self.stay_away(from, one);
                changed = true;
            }
        }
        for peer in decision.end_dialled {
            let other = self.number(&peer);
            self.links.retain(|_, link| *link != (one, other));
            changed = true;
        }
        for peer in decision.dial {
            let other = self.number(&peer);
            let accepted = self.links.values().filter(|(_, to)| *to == other).count();
            if self.dead.contains(&other) || accepted >= self.accept_max[other] {
                self.stay_away(one, other);
                continue;
            }
            self.next += 1;
            self.links.insert(self.next, (one, other));
            changed = true;
        }
        changed
    }

    /// Each of them decides in turn, as often as it has something to do.
    fn go_on(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.round += 1;
            let start = self.chance.random_range(0..self.peers.len());
            for turn in 0..self.peers.len() {
                let one = (start + turn) % self.peers.len();
                if self.dead.contains(&one) {
                    continue;
                }
                for _ in 0..20 {
                    if !self.act(one) {
                        break;
                    }
                }
                let links = self.links_of(one).count();
                assert!(links <= LINKS_MAX, "{one} has {links} links");
            }
        }
    }

    fn kill(&mut self, one: usize) {
        self.dead.insert(one);
        let dead = self.dead.clone();
        self.links
            .retain(|_, (from, to)| !dead.contains(from) && !dead.contains(to));
    }

    fn links_of(&self, one: usize) -> impl Iterator<Item = usize> + '_ {
        self.links.values().filter_map(move |(from, to)| {
            (*from == one)
                .then_some(*to)
                .or_else(|| (*to == one).then_some(*from))
        })
    }

    fn is_connected_without(&self, gone: Option<usize>) -> bool {
        let is_there = |one: &usize| !self.dead.contains(one) && Some(*one) != gone;
        let alive: Vec<usize> = (0..self.peers.len()).filter(is_there).collect();
        let Some(first) = alive.first() else {
            return true;
        };
        let mut reached = BTreeSet::from([*first]);
        let mut queue = VecDeque::from([*first]);
        while let Some(one) = queue.pop_front() {
            for other in self.links_of(one).filter(is_there) {
                if reached.insert(other) {
                    queue.push_back(other);
                }
            }
        }
        reached.len() == alive.len()
    }

    fn has_doubles(&self) -> bool {
        let pair = |(from, to): &(usize, usize)| (*from.min(to), *from.max(to));
        let pairs: BTreeSet<_> = self.links.values().map(pair).collect();
        pairs.len() < self.links.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn stations_that_know_each_other_are_connected_after_any_one_dies_and_again_after_that(
        count in 3_usize..=40, seed: u64,
    ) {
        let mut world = World::all_know_all(count, seed);
        world.go_on(40);
        prop_assert!(!world.has_doubles());
        for one in 0..count {
            prop_assert!(world.is_connected_without(Some(one)), "without {one}");
        }
        world.kill(count / 2);
        world.go_on(60);
        for one in 0..count {
            prop_assert!(world.is_connected_without(Some(one)), "then without {one}");
        }
    }

    #[test]
    fn newcomers_that_know_only_who_let_them_in_are_connected_and_soon_make_room_for_each_other(
        count in 10_usize..=40, seed: u64,
    ) {
        // Each came in by the first, or by one of the others, and knows that one; they know it.
        let mut knows = vec![BTreeSet::new(); count];
        for one in 1..count {
            let by = if one < 7 { 0 } else { one - 6 };
            knows[one].insert(by);
            knows[by].insert(one);
        }
        let mut world = World::new(knows, seed);
        world.go_on(40);
        prop_assert!(world.is_connected_without(None), "by those that let them in");
        // The cards have gone round.
        world.knows = World::all_know_all(count, seed).knows;
        world.go_on(60);
        for one in 0..count {
            prop_assert!(world.is_connected_without(Some(one)), "without {one}");
        }
    }
}

#[test]
fn twenty_stations_have_eight_links_at_most_and_whoever_dies_the_others_are_connected() {
    let mut world = World::all_know_all(20, 1);
    world.go_on(60);
    for one in 0..20 {
        assert!(world.links_of(one).count() <= LINKS_MAX);
        assert!(world.is_connected_without(Some(one)), "without {one}");
    }
    let before = world.links.clone();
    world.go_on(20);
    assert_eq!(world.links, before, "it has come to rest");
}

#[test]
fn one_that_was_accepted_while_we_dialled_goes_if_it_is_one_too_many() {
    let others: Vec<PeerId> = (1..=3).map(station).collect();
    let stations = BTreeMap::from([(others[0], Reach::Linked)]);
    let accepted = [1, 2].map(|number| Accepted {
        number,
        station: usize::try_from(number).ok().map(|number| others[number]),
    });
    let decision = decide(&View {
        own: station(0),
        links_max: 2,
        stations: &stations,
        accepted: &accepted,
    });
    let ended = decision.end_dialled.len() + decision.end_accepted.len();
    assert_eq!(ended, 1, "{decision:?}");
}

#[test]
fn of_two_links_with_one_station_the_one_that_the_smaller_dialled_stays() {
    let (small, large) = (station(1).min(station(2)), station(1).max(station(2)));
    let ends = |own: PeerId, other: PeerId| {
        let stations = BTreeMap::from([(other, Reach::Linked)]);
        let accepted = [Accepted {
            number: 1,
            station: Some(other),
        }];
        decide(&View {
            own,
            links_max: LINKS_MAX,
            stations: &stations,
            accepted: &accepted,
        })
        .end_dialled
    };
    assert_eq!(ends(large, small), [small]);
    assert!(ends(small, large).is_empty());
}
