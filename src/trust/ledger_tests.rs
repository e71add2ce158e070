//! Our own word: tokens let in once and in time, a revoked station stays out, and nothing is forgotten.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::tunnel::Identity;

const NOW: u64 = 1_700_000_000;
const HOUR: u64 = 3_600;

fn key(number: u8) -> StationKey {
    Identity::from_seed([number; 32]).public_key()
}

fn peer(number: u8) -> PeerId {
    key(number).peer_id()
}

fn ours() -> ConstellationId {
    ConstellationId::of_name("ours")
}

fn terms(expires: u64) -> InvitationTerms {
    InvitationTerms {
        peer: peer(0),
        addresses: vec!["/ip4/192.0.2.1/tcp/4011".parse().expect("an address"); 20],
        constellation: ours(),
        expires,
        private: false,
    }
}

fn invited(ledger: &mut Ledger, random: &Random) -> Secret {
    let invitation = ledger.invite(terms(NOW + HOUR), NOW, random);
    invitation.expect("there is room").secret
}

fn comes(ledger: &mut Ledger, secret: &Secret, number: u8, now: u64) -> Result<bool, TokenRefusal> {
    let newcomer = Newcomer {
        peer: peer(number),
        key: &key(number),
        constellation: ours(),
    };
    ledger.redeem(secret, &newcomer, ours(), now)
}

fn vouched(ledger: &Ledger) -> BTreeSet<PeerId> {
    ledger.vouches().iter().map(|vouch| vouch.peer).collect()
}

#[test]
fn a_token_lets_in_one_station_once_and_in_time() {
    let (mut ledger, random) = (Ledger::default(), Random::seeded(1));
    assert!(!ledger.is_anyone_invited(NOW));
    let invitation = ledger
        .invite(terms(NOW + HOUR), NOW, &random)
        .expect("there is room");
    assert!(invitation.to_token().is_ok(), "not more addresses than fit");
    assert!(ledger.is_anyone_invited(NOW + HOUR));
    assert!(!ledger.is_anyone_invited(NOW + HOUR + 1));
    let secret = invitation.secret;
    let foreign = Newcomer {
        peer: peer(1),
        key: &key(1),
        constellation: ConstellationId::of_name("theirs"),
    };
    let refused = ledger.redeem(&secret, &foreign, ours(), NOW);
    assert_eq!(refused, Err(TokenRefusal::Foreign));
    let guessed = Secret::from_bytes([0; 16]);
    assert_eq!(
        comes(&mut ledger, &guessed, 1, NOW),
        Err(TokenRefusal::Unknown)
    );
    let late = comes(&mut ledger.clone(), &secret, 1, NOW + HOUR + 1);
    assert_eq!(late, Err(TokenRefusal::Expired));
    assert_eq!(vouched(&ledger), [].into());
    assert_eq!(comes(&mut ledger, &secret, 1, NOW + HOUR), Ok(true));
    assert!(!ledger.is_anyone_invited(NOW), "nobody else is expected");
    // The answer was lost.
    assert_eq!(comes(&mut ledger, &secret, 1, NOW + HOUR), Ok(false));
    assert_eq!(comes(&mut ledger, &secret, 2, NOW), Err(TokenRefusal::Used));
    assert_eq!(vouched(&ledger), [peer(1)].into());
    // Much later nobody remembers it.
    let later = NOW + HOUR + EXPIRED_REMEMBERED_SECONDS + 1;
    assert_eq!(
        comes(&mut ledger, &secret, 2, later),
        Err(TokenRefusal::Unknown)
    );
    assert_eq!(
        vouched(&ledger),
        [peer(1)].into(),
        "but whom it let in is in"
    );
}

#[test]
fn a_station_beside_kubo_is_vouched_for_with_its_key() {
    let (mut ledger, random) = (Ledger::default(), Random::seeded(2));
    let secret = invited(&mut ledger, &random);
    for (number, is_new) in [(7, true), (7, false), (8, true)] {
        let newcomer = Newcomer {
            peer: peer(1),
            key: &key(number),
            constellation: ours(),
        };
        assert_eq!(ledger.redeem(&secret, &newcomer, ours(), NOW), Ok(is_new));
        let keys: Vec<_> = ledger
            .vouches()
            .into_iter()
            .map(|vouch| vouch.key)
            .collect();
        assert_eq!(keys, [Some(key(number))]);
    }
    // Its own key needs no naming.
    assert_eq!(comes(&mut ledger, &secret, 1, NOW), Ok(true));
    assert_eq!(ledger.vouches()[0].key, None);
}

#[test]
fn whoever_was_put_out_does_not_come_back_with_a_token() {
    let (mut ledger, random) = (Ledger::default(), Random::seeded(3));
    let (first, second) = (invited(&mut ledger, &random), invited(&mut ledger, &random));
    assert_eq!(comes(&mut ledger, &first, 1, NOW), Ok(true));
    assert_eq!(ledger.revoke(peer(1), NOW), Ok(true));
    assert_eq!(ledger.revoke(peer(1), NOW + 1), Ok(false));
    assert_eq!(
        comes(&mut ledger, &first, 1, NOW),
        Err(TokenRefusal::Unknown)
    );
    assert_eq!(
        comes(&mut ledger, &second, 1, NOW),
        Err(TokenRefusal::Revoked)
    );
    assert_eq!(
        ledger.revocations(),
        [Revocation {
            peer: peer(1),
            at: NOW
        }]
    );
    // That it came in through us must stay known, also after `remove`.
    assert!(!ledger.remove(&peer(1)));
    assert_eq!(vouched(&ledger), [peer(1)].into());
    assert_eq!(ledger.allow(peer(1), None, NOW), Ok(true));
    assert_eq!(ledger.revocations(), []);
    // The token that it could not use is still good, for one.
    assert_eq!(comes(&mut ledger, &second, 2, NOW), Ok(true));
    assert!(ledger.remove(&peer(2)));
    assert_eq!(
        comes(&mut ledger, &second, 2, NOW),
        Err(TokenRefusal::Unknown)
    );
    assert_eq!(vouched(&ledger), [peer(1)].into());
}

#[test]
fn allowing_and_removing_say_whether_they_changed_anything() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.allow(peer(1), Some("a friend"), NOW), Ok(true));
    assert_eq!(ledger.allow(peer(1), Some("a friend"), NOW), Ok(false));
    assert_eq!(
        ledger.allow(peer(1), None, NOW),
        Ok(false),
        "the note stays"
    );
    assert_eq!(ledger.allow(peer(1), Some("a cousin"), NOW), Ok(true));
    assert_eq!(ledger.allowed()[&peer(1)].note.as_deref(), Some("a cousin"));
    assert!(ledger.remove(&peer(1)));
    assert!(!ledger.remove(&peer(1)));
}

#[test]
fn tokens_are_bounded_and_make_room_when_they_are_worth_nothing() {
    let (mut ledger, random) = (Ledger::default(), Random::seeded(4));
    let first = invited(&mut ledger, &random);
    for _ in 1..TOKENS_MAX {
        invited(&mut ledger, &random);
    }
    let refused = ledger.invite(terms(NOW + HOUR), NOW, &random);
    assert_eq!(refused, Err(LedgerFull("tokens")));
    assert_eq!(comes(&mut ledger, &first, 1, NOW), Ok(true));
    let second = invited(&mut ledger, &random);
    assert_eq!(comes(&mut ledger, &second, 2, NOW), Ok(true));
    let later = NOW + HOUR + 1;
    assert!(ledger.invite(terms(later), later, &random).is_ok());
    assert_eq!(ledger.tokens.len(), 1);
}

#[test]
fn a_damaged_ledger_is_an_error_and_never_an_empty_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("trust.json");
    assert_eq!(Ledger::load(&path).expect("none yet"), Ledger::default());
    let mut ledger = Ledger::default();
    ledger.revoke(peer(1), NOW).expect("there is room");
    ledger.save(&path).expect("written");
    let text = std::fs::read(&path).expect("readable");
    for end in 0..text.len() {
        std::fs::write(&path, &text[..end]).expect("ours");
        let error = Ledger::load(&path).expect_err("half a file");
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    }
    let unknown = String::from_utf8_lossy(&text).replacen('{', "{\"later\": [],", 1);
    std::fs::write(&path, unknown).expect("ours");
    let error = Ledger::load(&path).expect_err("of a later version");
    assert!(error.to_string().contains("later"), "{error}");
}

#[derive(Debug, Clone)]
enum Command {
    Allow(u8),
    Remove(u8),
    Revoke(u8),
    Invite,
    /// A station comes with one of the tokens made so far.
    Come(u8, prop::sample::Index),
    Restart,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let station = 1..4u8;
    let command = prop_oneof![
        station.clone().prop_map(Command::Allow),
        station.clone().prop_map(Command::Remove),
        station.clone().prop_map(Command::Revoke),
        Just(Command::Invite),
        (station, any::<prop::sample::Index>()).prop_map(|(who, which)| Command::Come(who, which)),
        Just(Command::Restart),
    ];
    prop::collection::vec(command, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a few sets that say what should be.
    #[test]
    fn the_ledger_does_what_the_captain_said(commands in commands()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("trust.json");
        let random = Random::seeded(5);
        let mut ledger = Ledger::default();
        let (mut allowed, mut revoked, mut vouched_for) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        // Each with whom it let in.
        let mut tokens: Vec<(Secret, Option<u8>)> = Vec::new();
        for command in commands {
            match command {
                Command::Allow(who) => {
                    let changes = !allowed.contains(&peer(who));
                    prop_assert_eq!(ledger.allow(peer(who), None, NOW), Ok(changes));
                    allowed.insert(peer(who));
                    revoked.remove(&peer(who));
                }
                Command::Remove(who) => {
                    let mut changes = allowed.remove(&peer(who));
                    if !revoked.contains(&peer(who)) {
                        changes |= vouched_for.remove(&peer(who));
                    }
                    prop_assert_eq!(ledger.remove(&peer(who)), changes);
                    tokens.retain(|(_, user)| *user != Some(who));
                }
                Command::Revoke(who) => {
                    let changes = revoked.insert(peer(who));
                    prop_assert_eq!(ledger.revoke(peer(who), NOW), Ok(changes));
                    allowed.remove(&peer(who));
                    if changes {
                        tokens.retain(|(_, user)| *user != Some(who));
                    }
                }
                Command::Invite => tokens.push((invited(&mut ledger, &random), None)),
                Command::Come(who, which) => {
                    if tokens.is_empty() {
                        continue;
                    }
                    let at = which.index(tokens.len());
                    let (secret, user) = &mut tokens[at];
                    let result = comes(&mut ledger, secret, who, NOW);
                    if user.is_some_and(|user| user != who) {
                        prop_assert_eq!(result, Err(TokenRefusal::Used));
                    } else if revoked.contains(&peer(who)) {
                        prop_assert_eq!(result, Err(TokenRefusal::Revoked));
                    } else {
                        prop_assert_eq!(result, Ok(user.is_none()));
                        *user = Some(who);
                        vouched_for.insert(peer(who));
                    }
                }
                Command::Restart => {
                    ledger.save(&path).expect("written");
                    let kept = Ledger::load(&path).expect("readable");
                    prop_assert_eq!(&kept, &ledger);
                    ledger = kept;
                }
            }
            prop_assert_eq!(ledger.allowed().keys().copied().collect::<BTreeSet<_>>(), allowed.clone());
            prop_assert_eq!(ledger.revoked().keys().copied().collect::<BTreeSet<_>>(), revoked.clone());
            prop_assert_eq!(vouched(&ledger), vouched_for.clone());
        }
    }
}
