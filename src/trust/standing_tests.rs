//! Who is admitted: against the rules written down naively (`worlds.rs`), and what must hold in any world.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::card::Vouch;
use super::super::worlds::{Naive, STATIONS, World, identity, peer, peers, worlds};
use super::super::{
    Card, ConstellationId, Evidence, InvitationTerms, Newcomer, SignedCard, Statement,
    UnverifiedCard,
};
use super::*;
use crate::random::Random;
use crate::tunnel::Identity;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_rules_are_followed_to_the_letter(world in worlds()) {
        let standing = world.judged();
        let naive = Naive::of(&world);
        for (number, peer) in (0..STATIONS).zip(peers()).skip(1) {
            let level = (1..u32::from(STATIONS)).find(|level| naive.is_at(number, *level));
            prop_assert_eq!(standing.is_judged(&peer), level.is_some());
            let admitted = level.filter(|level| naive.is_admitted(number, *level));
            prop_assert_eq!(standing.admitted.get(&peer).map(|why| why.level), admitted);
            if let Some(level) = level {
                let revoked = standing.revoked.get(&peer);
                prop_assert_eq!(revoked.is_some(), admitted.is_none());
                let silenced = revoked.is_some_and(|revoked| revoked.silenced);
                prop_assert_eq!(silenced, naive.is_silenced(number, level));
            }
        }
        prop_assert!(!standing.crowded);
    }
}

proptest! {
    #[test]
    fn whoever_is_in_has_a_chain_from_us(world in worlds()) {
        let standing = world.judged();
        let numbers: HashMap<PeerId, u8> = peers().into_iter().zip(0..).collect();
        prop_assert!(!standing.admitted.contains_key(&standing.me));
        prop_assert!(!standing.revoked.contains_key(&standing.me));
        for (peer, why) in &standing.admitted {
            prop_assert!(!standing.revoked.contains_key(peer));
            let mut chain = vec![standing.me];
            chain.extend(standing.chain(peer));
            prop_assert_eq!(chain.len(), why.level as usize);
            prop_assert_eq!(chain.last(), Some(&why.through));
            // Somebody who is out is named only where there is nobody else.
            if why.level > 1 && !standing.admitted.contains_key(&why.through) {
                let of = numbers[peer];
                let is_better = standing.admitted.iter().any(|(by, before)| {
                    before.level + 1 == why.level && world.vouches.contains(&(numbers[by], of))
                });
                prop_assert!(!is_better);
            }
            chain.push(*peer);
            for link in chain.windows(2) {
                let (by, of) = (numbers[&link[0]], numbers[&link[1]]);
                let is_allowed = by == 0 && world.allowed.contains(&of);
                prop_assert!(is_allowed || world.vouches.contains(&(by, of)));
            }
        }
    }

    /// Nobody judges those through whom it came in, nor whom our captain allowed, whatever it says.
    #[test]
    fn a_station_changes_nothing_of_those_through_whom_alone_it_came_in(
        world in worlds(), who in 1..STATIONS, said in worlds(),
    ) {
        let world = world.without_revocations();
        let (before, peers) = (world.judged(), peers());
        let Some(why) = before.admitted.get(&peers[usize::from(who)]) else {
            return Ok(());
        };
        let mut changed = world.clone();
        changed.vouches.retain(|pair| pair.0 != who);
        changed.vouches.extend(said.vouches.iter().map(|pair| (who, pair.1)));
        changed.revokes.extend(said.revokes.iter().map(|pair| (who, pair.1)));
        let after = changed.judged();
        let naive = Naive::of(&world);
        for (number, peer) in (0..STATIONS).zip(&peers) {
            let is_before = naive.needs(number, who, why.level);
            let is_allowed = world.allowed.contains(&number);
            if let Some(was) = before.admitted.get(peer).filter(|_| is_before || is_allowed) {
                let now = after.admitted.get(peer);
                // Of several who let it in, another may be named now.
                prop_assert_eq!(
                    now.map(|now| (now.level, now.ground)),
                    Some((was.level, was.ground))
                );
            }
        }
    }

    /// One word puts out a station everywhere: any that is in may say it, but of those through whom alone it came in.
    #[test]
    fn whoever_is_in_puts_out_whom_it_revokes(world in worlds(), by in 1..STATIONS, of in 1..STATIONS) {
        let mut world = world.without_revocations();
        let (before, peers) = (world.judged(), peers());
        let (by_peer, of_peer) = (peers[usize::from(by)], peers[usize::from(of)]);
        let Some(why) = before.admitted.get(&by_peer) else {
            return Ok(());
        };
        let depends = Naive::of(&world).needs(of, by, why.level);
        let is_allowed = world.allowed.contains(&of);
        world.revokes.insert((by, of));
        let after = world.judged();
        if depends || is_allowed {
            prop_assert_eq!(after.admitted.get(&of_peer), before.admitted.get(&of_peer));
            if before.admitted.contains_key(&of_peer) {
                prop_assert!(after.disputed[&of_peer].contains(&by_peer));
            }
        } else {
            prop_assert!(!after.admitted.contains_key(&of_peer));
        }
    }

    /// Our own revocation always holds; and where only we revoke, another one never lets anybody in.
    #[test]
    fn whom_we_revoke_is_out(world in worlds(), ours in prop::collection::vec(1..STATIONS, 1..4)) {
        let mut world = world;
        let mut only_ours = world.clone().without_revocations();
        for revoked in ours {
            let before = only_ours.admitted();
            world.revokes.insert((0, revoked));
            only_ours.revokes.insert((0, revoked));
            prop_assert!(!world.admitted().contains(&revoked));
            let after = only_ours.admitted();
            prop_assert!(!after.contains(&revoked));
            prop_assert!(after.is_subset(&before));
        }
    }

    /// A station is taken over and puts out whom it can. When somebody through whom it came in, or we, revoke it, all
    /// is as if it had said nothing.
    #[test]
    fn whom_a_compromised_station_revoked_returns(
        world in worlds(), compromised in 1..STATIONS, victims in prop::collection::btree_set(0..STATIONS, 1..7),
    ) {
        let world = world.without_revocations();
        let peers = peers();
        let chain = world.judged().chain(&peers[usize::from(compromised)]);
        let seniors = (0..STATIONS).filter(|number| *number == 0 || chain.contains(&peers[usize::from(*number)]));
        for senior in seniors {
            let mut mended = world.clone();
            mended.revokes.insert((senior, compromised));
            let mut as_if_silent = mended.clone();
            as_if_silent.vouches.retain(|pair| pair.0 != compromised);
            mended.revokes.extend(victims.iter().map(|victim| (compromised, *victim)));
            if !world.allowed.contains(&compromised) || senior == 0 {
                prop_assert_eq!(mended.admitted(), as_if_silent.admitted());
            }
        }
    }
}

/// Revoked by somebody through whom it did not come in, it is out, and those it let in stay.
#[test]
fn a_stranger_to_the_chain_puts_out_one_only() {
    for senior in [0, 1] {
        let mut world = World::default();
        world
            .vouches
            .extend([(0, 1), (0, 2), (1, 3), (3, 4), (4, 5)]);
        world.revokes.insert((2, 3));
        assert_eq!(world.admitted(), [1, 2, 4, 5].into());
        // By us or one of the chain, it takes them along, but for those whom another lets in.
        world.revokes.insert((senior, 3));
        assert_eq!(world.admitted(), [1, 2].into());
        world.vouches.insert((2, 5));
        assert_eq!(world.admitted(), [1, 2, 5].into());
    }
}

/// The chain of those who joined one after another, seen from its beginning, its middle and its end.
#[test]
fn in_a_chain_the_last_puts_out_a_branch_of_the_middle_wherever_one_looks_from() {
    for me in 0..5_u8 {
        let place = |number: u8| {
            if number == me {
                0
            } else if number == 0 {
                me
            } else {
                number
            }
        };
        // 0 to 4 in a row; 5 came in by 1.
        let links = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5)];
        let mut world = World::default();
        for (one, other) in links {
            world
                .vouches
                .extend([(place(one), place(other)), (place(other), place(one))]);
        }
        world.revokes.insert((place(4), place(5)));
        let admitted = world.admitted();
        assert!(!admitted.contains(&place(5)), "seen from {me}");
        assert_eq!(admitted.len(), 4, "seen from {me}");
    }
}

/// Whoever vouches for everybody below is not out of their reach for that.
#[test]
fn a_vouch_that_nobody_asked_for_protects_nobody() {
    let mut world = World::default();
    world
        .vouches
        .extend([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]);
    world.revokes.extend([(4, 2)]);
    assert_eq!(world.admitted(), [1, 3, 4].into());
    world.vouches.remove(&(1, 3));
    assert_eq!(
        world.admitted(),
        [1, 2, 3, 4].into(),
        "it came in by that one alone"
    );
}

/// Whom the revoked had put out before returns, and where two want each other out the nearer one's word holds.
#[test]
fn a_junior_puts_out_a_compromised_senior_and_whom_that_one_had_put_out_returns() {
    let mut world = World::default();
    world
        .vouches
        .extend([(0, 1), (0, 2), (1, 3), (3, 4), (1, 5)]);
    world.revokes.extend([(2, 5), (4, 2)]);
    assert_eq!(world.admitted(), [1, 3, 4, 5].into());
    world.revokes.insert((2, 4));
    assert_eq!(world.admitted(), [1, 2, 3].into());
}

#[test]
fn equals_who_revoke_each_other_are_both_out_and_disputes_are_told() {
    let mut world = World::default();
    world.vouches.extend([(0, 1), (0, 2), (1, 3), (2, 4)]);
    world.revokes.extend([(1, 2), (2, 1)]);
    assert_eq!(
        world.admitted(),
        [3, 4].into(),
        "they judged as equals, and are out"
    );
    world.allowed.insert(1);
    assert_eq!(
        world.admitted(),
        [1, 3, 4].into(),
        "our captain's word holds"
    );
    world.revokes = [(3, 1), (3, 0), (4, 2), (4, 4)].into();
    world.allowed.clear();
    let peers = peers();
    let standing = world.judged();
    assert_eq!(world.admitted(), [1, 2, 3].into(), "one may put out itself");
    let disputed: BTreeMap<_, _> =
        [(peers[0], [peers[3]].into()), (peers[1], [peers[3]].into())].into();
    assert_eq!(
        standing.disputed, disputed,
        "4 is out: its word counts no more"
    );
}

#[test]
fn strangers_whom_an_admitted_station_revoked_are_out() {
    let mut world = World::default();
    world.vouches.extend([(0, 1)]);
    world.revokes.extend([(1, 2), (3, 4)]);
    let (standing, peers) = (world.judged(), peers());
    assert_eq!(standing.revoked.keys().collect::<Vec<_>>(), [&peers[2]]);
    assert_eq!(standing.revoked[&peers[2]].by, peers[1]);
}

#[test]
fn a_crowd_and_a_long_chain_are_cut_off() {
    let stranger = |number: u16| {
        let mut seed = [0xee; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(seed).public_key().peer_id()
    };
    let vouch = |peer| Vouch {
        peer,
        key: None,
        since: 1,
    };
    let crowd: Vec<PeerId> = (0..5_000).map(stranger).collect();
    let said: Vec<Vec<Vouch>> = crowd
        .chunks(1_000)
        .map(|part| part.iter().copied().map(vouch).collect())
        .collect();
    let chain: Vec<Vouch> = crowd[..100].iter().copied().map(vouch).collect();
    let only = |vouches| Word {
        vouches,
        revocations: &[],
        vouched_key: None,
    };
    let roots: Vec<Vouch> = (1..=5).map(|number| vouch(peer(number))).collect();
    let own = Own {
        me: peer(0),
        allowed: BTreeSet::new(),
        word: only(&roots),
    };
    let words = (1..=5)
        .map(peer)
        .zip(said.iter().map(|vouches| only(vouches)));
    let standing = judgement::judge(&own, &words.collect());
    assert!(standing.crowded);
    assert_eq!(standing.admitted.len(), STATIONS_MAX);

    let words = crowd.iter().copied().zip(
        chain[1..]
            .iter()
            .map(|next| only(std::slice::from_ref(next))),
    );
    let own = Own {
        word: only(&chain[..1]),
        ..own
    };
    let standing = judgement::judge(&own, &words.collect());
    assert_eq!(standing.admitted.len(), LEVELS_MAX as usize);
    assert_eq!(standing.chain(&crowd[63]), crowd[..63]);
}

/// With real cards and a real ledger: a newcomer beside kubo comes in by a token at 1, and everybody takes its card.
#[test]
fn a_newcomer_is_known_everywhere_by_the_cards_alone() {
    let ours = ConstellationId::of_name("ours");
    let random = Random::seeded(1);
    let (newcomer, signs_as) = (peer(2), identity(102));
    let mut ledger = Ledger::default();
    let terms = InvitationTerms {
        peer: peer(1),
        addresses: Vec::new(),
        constellation: ours,
        expires: 10,
        private: false,
    };
    let token = ledger.invite(terms, 1, &random).expect("there is room");
    let comes = Newcomer {
        peer: newcomer,
        key: &signs_as.public_key(),
        constellation: ours,
    };
    assert_eq!(ledger.redeem(&token.secret, &comes, ours, 1), Ok(true));
    let signed = |of: PeerId, identity: &Identity, sequence, fill: &dyn Fn(&mut Statement)| {
        let mut statement = Statement::new(ours, sequence);
        fill(&mut statement);
        let card = Card {
            created: Some(1),
            constellation: Some(statement),
            ..Card::of(of)
        };
        SignedCard::sign(&card, identity).expect("signed")
    };
    let verify = |signed: SignedCard, keys: &VouchedKeys| {
        let evidence = Evidence {
            now: 1,
            constellation: ours,
            carried_by: None,
            keys,
        };
        UnverifiedCard::of(signed).and_then(|card| card.verify(&evidence))
    };
    let host = |sequence, says: &Ledger| {
        signed(peer(1), &identity(1), sequence, &|statement| {
            statement.vouches = says.vouches();
            statement.revocations = says.revocations();
        })
    };
    let newcomers = signed(newcomer, &signs_as, 1, &|statement| {
        statement.station_key = Some(signs_as.public_key());
        statement.vouches = vec![Vouch {
            peer: peer(3),
            key: None,
            since: 1,
        }];
    });
    // A third station, 4, that allows 1 only.
    let allowed = [peer(1)].into();
    let judge = |cards: &[VerifiedCard]| evaluate(peer(4), &Ledger::default(), &allowed, cards);
    let nobody = judge(&[]);
    assert!(verify(newcomers.clone(), nobody.keys()).is_err());
    let old = verify(host(1, &ledger), nobody.keys()).expect("genuine");
    let standing = judge(std::slice::from_ref(&old));
    let newcomers = verify(newcomers, standing.keys()).expect("its key is vouched for");
    let mut cards = vec![old, newcomers];
    let standing = judge(&cards);
    let admitted: Vec<_> = [peer(1), newcomer, peer(3)].to_vec();
    assert!(
        admitted
            .iter()
            .all(|peer| standing.admitted.contains_key(peer))
    );
    // 1 puts it out: a newer card counts, wherever it stands in the list; and 3 goes along.
    ledger.revoke(newcomer, 2).expect("there is room");
    let newer = verify(host(2, &ledger), standing.keys()).expect("genuine");
    for place in 0..=cards.len() {
        cards.insert(place, newer.clone());
        let standing = judge(&cards);
        assert_eq!(standing.admitted.keys().collect::<Vec<_>>(), [&peer(1)]);
        assert!(standing.revoked[&newcomer].silenced);
        cards.remove(place);
    }
    // When 1 does not name the key any more, what it signed counts no more.
    let plain = signed(peer(1), &identity(1), 3, &|statement| {
        statement.vouches = vec![Vouch {
            peer: newcomer,
            key: None,
            since: 1,
        }];
    });
    cards.push(verify(plain, standing.keys()).expect("genuine"));
    let standing = judge(&cards);
    assert!(standing.admitted.contains_key(&newcomer));
    assert!(!standing.admitted.contains_key(&peer(3)));
}
