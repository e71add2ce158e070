//! Signed cards: what is taken, and that nothing else is.

use proptest::prelude::*;

use super::super::card::{CARD_REVOCATIONS_MAX, CARD_VOUCHES_MAX, Revocation, Vouch};
use super::super::{CARD_ADDRESSES_MAX, CARD_SERVICES_MAX};
use super::*;

const NOW: u64 = 1_700_000_000;

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn peer(number: u8) -> PeerId {
    identity(number).public_key().peer_id()
}

fn ours() -> ConstellationId {
    ConstellationId::of_name("ours")
}

fn card(of: PeerId) -> Card {
    Card {
        created: Some(NOW),
        constellation: Some(Statement::new(ours(), 1)),
        ..Card::of(of)
    }
}

/// A station beside kubo: its PeerID is `number`'s, its cards are signed by `number + 100`.
fn beside_kubo(number: u8) -> SignedCard {
    let signer = identity(number + 100);
    let mut card = card(peer(number));
    if let Some(statement) = &mut card.constellation {
        statement.station_key = Some(signer.public_key());
    }
    SignedCard::sign(&card, &signer).expect("signed")
}

fn evidence(keys: &VouchedKeys) -> Evidence<'_> {
    Evidence {
        now: NOW,
        constellation: ours(),
        carried_by: None,
        keys,
    }
}

fn read(signed: &SignedCard) -> UnverifiedCard {
    let json = serde_json::to_vec(signed).expect("JSON");
    UnverifiedCard::parse(&json).expect("an envelope")
}

#[test]
fn a_card_of_the_identity_key_is_taken_from_anyone() {
    let signed = SignedCard::sign(&card(peer(1)), &identity(1)).expect("signed");
    let keys = VouchedKeys::new();
    for carried_by in [None, Some(peer(1)), Some(peer(2))] {
        let evidence = Evidence {
            carried_by,
            ..evidence(&keys)
        };
        let verified = read(&signed).verify(&evidence).expect("genuine");
        assert_eq!(verified.peer(), peer(1));
        assert_eq!(verified.binding(), Binding::Itself);
        assert_eq!(verified.envelope(), &signed);
    }
}

#[test]
fn a_card_beside_kubo_needs_the_station_itself_or_who_let_it_in() {
    let signed = beside_kubo(1);
    let none = VouchedKeys::new();
    let verify = |carried_by, keys: &VouchedKeys| {
        let evidence = Evidence {
            carried_by,
            ..evidence(keys)
        };
        read(&signed).verify(&evidence).map(|card| card.binding())
    };
    assert_eq!(verify(None, &none), Err(CardError::Unbound));
    assert_eq!(verify(Some(peer(2)), &none), Err(CardError::Unbound));
    assert_eq!(verify(Some(peer(1)), &none), Ok(Binding::Carried));
    let named = |station, key: u8| -> VouchedKeys {
        [(peer(station), [identity(key).public_key()].into())].into()
    };
    assert_eq!(verify(None, &named(1, 101)), Ok(Binding::VouchedFor));
    assert_eq!(verify(None, &named(1, 102)), Err(CardError::Unbound));
    assert_eq!(verify(None, &named(2, 101)), Err(CardError::Unbound));
}

#[test]
fn a_card_that_does_not_name_its_key_is_refused_whoever_brings_it() {
    // Signed by 2 for 1, without saying so; and by 1, naming 2's key.
    let forged = SignedCard::sign(&card(peer(1)), &identity(2));
    assert_eq!(forged, Err(CardError::OtherKey), "we do not make such");
    let mut naming = card(peer(1));
    if let Some(statement) = &mut naming.constellation {
        statement.station_key = Some(identity(2).public_key());
    }
    for (card, signer) in [(card(peer(1)), 2), (naming, 1)] {
        let text = serde_json::to_string(&card).expect("JSON");
        let signature = identity(signer).sign(&signed_bytes(&text)).expect("signed");
        let signed = SignedCard {
            card: text,
            key: identity(signer).public_key(),
            signature: hex::encode(&signature),
        };
        let keys = VouchedKeys::new();
        let evidence = Evidence {
            carried_by: Some(peer(1)),
            ..evidence(&keys)
        };
        let refused = read(&signed).verify(&evidence);
        assert_eq!(refused, Err(CardError::OtherKey));
    }
}

#[test]
fn time_and_constellation_are_checked() {
    let keys = VouchedKeys::new();
    let at = |created: Option<u64>, id: ConstellationId, carried_by| {
        let card = Card {
            created,
            constellation: Some(Statement::new(id, 1)),
            ..Card::of(peer(1))
        };
        let text = serde_json::to_string(&card).expect("JSON");
        let signature = identity(1).sign(&signed_bytes(&text)).expect("signed");
        let signed = SignedCard {
            card: text,
            key: identity(1).public_key(),
            signature: hex::encode(&signature),
        };
        let evidence = Evidence {
            carried_by,
            ..evidence(&keys)
        };
        read(&signed).verify(&evidence).map(|card| card.created())
    };
    let soon = NOW + FUTURE_SECONDS_MAX;
    let long_ago = NOW - HANDED_OVER_SECONDS_MAX;
    assert_eq!(at(Some(soon), ours(), None), Ok(soon));
    let refused = at(Some(soon + 1), ours(), Some(peer(1)));
    assert_eq!(refused, Err(CardError::FromTheFuture));
    assert_eq!(
        at(Some(u64::MAX), ours(), None),
        Err(CardError::FromTheFuture)
    );
    assert_eq!(at(Some(long_ago), ours(), None), Ok(long_ago));
    assert_eq!(
        at(Some(long_ago - 1), ours(), Some(peer(2))),
        Err(CardError::TooOld)
    );
    assert_eq!(
        at(Some(long_ago - 1), ours(), Some(peer(1))),
        Ok(long_ago - 1)
    );
    assert_eq!(at(None, ours(), Some(peer(1))), Err(CardError::NoTime));
    let theirs = ConstellationId::of_name("theirs");
    let refused = at(Some(NOW), theirs, Some(peer(1)));
    assert_eq!(refused, Err(CardError::OtherConstellation));
}

#[test]
fn the_fullest_card_fits_and_one_more_of_anything_does_not() {
    let key = identity(200).public_key();
    // The longest PeerIDs are those of Ed25519.
    let vouch = Vouch {
        peer: peer(1),
        key: Some(key),
        since: NOW,
    };
    let revocation = Revocation {
        peer: peer(1),
        at: NOW,
    };
    let mut statement = Statement::new(ours(), u64::MAX);
    let relayed = format!(
        "/ip4/192.0.2.111/udp/65535/quic-v1/p2p/{}/p2p-circuit/p2p/{}",
        peer(1),
        peer(2)
    );
    statement.addresses = vec![relayed.parse().expect("an address"); CARD_ADDRESSES_MAX];
    statement.services = vec!["x".repeat(48).parse().expect("a name"); CARD_SERVICES_MAX];
    statement.name = Some("n".repeat(256));
    statement.relay_url = Some("u".repeat(256));
    statement.vouches = vec![vouch.clone(); CARD_VOUCHES_MAX];
    statement.revocations = vec![revocation.clone(); CARD_REVOCATIONS_MAX];
    let signed = |statement: &Statement| {
        let card = Card {
            constellation: Some(statement.clone()),
            ..card(peer(1))
        };
        SignedCard::sign(&card, &identity(1))
    };
    let fullest = signed(&statement).expect("within the bounds");
    let keys = VouchedKeys::new();
    let verified = read(&fullest).verify(&evidence(&keys)).expect("genuine");
    assert_eq!(verified.statement(), &statement);

    let more: [fn(&mut Statement); 6] = [
        |s| s.addresses.push(s.addresses[0].clone()),
        |s| s.services.push(s.services[0].clone()),
        |s| s.vouches.push(s.vouches[0].clone()),
        |s| s.revocations.push(s.revocations[0].clone()),
        |s| s.name = Some("n".repeat(257)),
        |s| s.relay_url = Some("u".repeat(257)),
    ];
    for add in more {
        let mut statement = Statement::new(ours(), 1);
        statement.clone_from(verified.statement());
        add(&mut statement);
        let refused = signed(&statement);
        assert!(matches!(refused, Err(CardError::TooMany(_))), "{refused:?}");
    }
    let newer = Statement {
        version: 2,
        ..Statement::new(ours(), 1)
    };
    assert_eq!(signed(&newer), Err(CardError::Version(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is changed in an envelope, it is refused or says the same as before.
    #[test]
    fn a_changed_envelope_never_says_anything_else(
        place in any::<prop::sample::Index>(), byte: u8, is_beside_kubo: bool,
    ) {
        let signed = if is_beside_kubo {
            beside_kubo(1)
        } else {
            SignedCard::sign(&card(peer(1)), &identity(1)).expect("signed")
        };
        let keys = VouchedKeys::new();
        let evidence = Evidence { carried_by: Some(peer(1)), ..evidence(&keys) };
        let genuine = read(&signed).verify(&evidence).expect("genuine");
        let mut json = serde_json::to_vec(&signed).expect("JSON");
        let at = place.index(json.len());
        json[at] = byte;
        let verified = UnverifiedCard::parse(&json).and_then(|card| card.verify(&evidence));
        if let Ok(verified) = verified {
            prop_assert_eq!(verified, genuine);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), card in ".{0,40}") {
        prop_assert!(UnverifiedCard::parse(&bytes).is_err());
        let envelope = SignedCard { card, key: identity(1).public_key(), signature: String::new() };
        prop_assert!(UnverifiedCard::of(envelope).is_err());
    }
}
