//! The card book: the newest card of each station, whoever brings it and in whatever order.

use proptest::prelude::*;

use super::super::card::CARD_BYTES_MAX;
use super::super::drafts::{DAY, Draft, NOW, allowing, identity, ours, peer};
use super::super::{Card, Evidence, Ledger, Statement, Vouch, VouchedKeys, evaluate};
use super::*;

/// The same, and 1 says by which keys 2 signs.
fn naming(keys: &[u16]) -> Standing {
    let vouches: Vec<Vouch> = keys
        .iter()
        .map(|key| Vouch {
            peer: peer(2),
            key: Some(identity(*key).public_key()),
            since: 1,
        })
        .collect();
    let mut statement = Statement::new(ours(), 1);
    statement.vouches = vouches;
    let card = Card {
        created: Some(NOW),
        constellation: Some(statement),
        ..Card::of(peer(1))
    };
    let signed = SignedCard::sign(&card, &identity(1)).expect("signed");
    let evidence = Evidence {
        now: NOW,
        constellation: ours(),
        carried_by: None,
        keys: &VouchedKeys::new(),
    };
    let card = UnverifiedCard::of(signed).and_then(|card| card.verify(&evidence));
    let allowed = [peer(1)].into();
    evaluate(
        peer(0),
        &Ledger::default(),
        &allowed,
        &[card.expect("genuine")],
    )
}

fn book() -> CardBook {
    CardBook::empty(&Random::seeded(1))
}

fn envelopes(book: &CardBook) -> Vec<SignedCard> {
    book.cards().map(|card| card.envelope().clone()).collect()
}

/// What a station judges of those of whom this says something, it hands over.
fn offer_judged(book: &mut CardBook, standing: &Standing) -> bool {
    book.offer_all(|peer| standing.is_judged(peer) || *peer == standing.me)
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let draft = (1..4u16, 0..3u64, 0..2u64, 0..2u8).prop_map(|(of, sequence, age, host)| Draft {
        created: NOW - age,
        hostname: format!("host {host}"),
        ..Draft::plain(of, sequence)
    });
    prop::collection::vec(draft, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_newest_card_stays_in_whatever_order_they_come(
        drafts in drafts(), order in prop::collection::vec(any::<u32>(), 12),
    ) {
        let standing = allowing(1..4);
        let cards: Vec<VerifiedCard> = drafts.iter().map(Draft::own).collect();
        let (mut forwards, mut otherwise) = (book(), book());
        for card in &cards {
            forwards.insert(card.clone(), &standing);
        }
        let mut shuffled: Vec<_> = order.iter().zip(&cards).collect();
        shuffled.sort_by_key(|(place, _)| **place);
        for (_, card) in shuffled {
            otherwise.insert(card.clone(), &standing);
        }
        prop_assert_eq!(envelopes(&forwards), envelopes(&otherwise));
        for card in &cards {
            let kept = forwards.get(&card.peer()).expect("one of each station");
            prop_assert!(kept.age_key() >= card.age_key());
            let again = forwards.insert(card.clone(), &standing);
            let is_kept = forwards.get(&card.peer()).map(VerifiedCard::envelope) == Some(card.envelope());
            prop_assert_eq!(again, if is_kept { Insertion::Same } else { Insertion::Older });
        }
        prop_assert_eq!(forwards.bytes, forwards.kept.values().map(|kept| kept.bytes).sum::<usize>());
        prop_assert_eq!(forwards.changes.len(), forwards.kept.len());
    }

    /// Somebody asks now and then while cards come in, and we start anew now and then: in the end it has them all.
    #[test]
    fn who_asks_for_what_is_new_misses_nothing(
        steps in prop::collection::vec((1..6u16, 0..8u8), 1..30),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cards.json");
        let standing = allowing(1..6);
        let (mut ours_now, mut theirs) = (book(), BTreeMap::new());
        let (mut cursor, mut read) = (Cursor::default(), 0);
        for (at, (of, then)) in (0u64..).zip(&steps) {
            let card = Draft::plain(*of, at).own();
            prop_assert_eq!(ours_now.insert(card, &standing), Insertion::Inserted);
            if *then == 0 {
                ours_now.save(&path).expect("written");
                let random = Random::seeded(100 + at); // a start of its own
                ours_now = CardBook::load(&path, ours(), &random).expect("readable");
                offer_judged(&mut ours_now, &standing);
            }
            if *then < 4 || at + 1 == steps.len() as u64 {
                let handover = ours_now.since(cursor, NOW);
                prop_assert!(!handover.more);
                read += handover.cards.len();
                for signed in handover.cards {
                    let card = UnverifiedCard::of(signed.clone()).expect("a card");
                    theirs.insert(card.claimed_peer(), signed.clone());
                }
                cursor = handover.next;
                prop_assert!(ours_now.since(cursor, NOW).cards.is_empty());
            }
        }
        prop_assert_eq!(theirs.into_values().collect::<Vec<_>>(), envelopes(&ours_now));
        // And it is not told everything each time.
        prop_assert!(read <= steps.len() + 5 * steps.iter().filter(|(_, then)| *then == 0).count());
    }
}

#[test]
fn an_answer_is_bounded_and_the_next_goes_on_where_it_ended() {
    let cases = [(600, 10, 2), (30, CARD_BYTES_MAX - 2_000, 2), (5, 10, 1)];
    for (stations, bytes, answers) in cases {
        let standing = allowing(1..=stations);
        let mut book = book();
        for of in 1..=stations {
            let draft = Draft {
                hostname: "h".repeat(bytes),
                ..Draft::plain(of, 1)
            };
            assert_eq!(book.insert(draft.own(), &standing), Insertion::Inserted);
        }
        let (mut cursor, mut seen) = (Cursor::default(), 0);
        for answer in 1..=answers {
            let handover = book.since(cursor, NOW);
            assert_eq!(handover.more, answer < answers, "{stations} stations");
            assert!(handover.cards.len() <= HANDOVER_CARDS_MAX);
            let bytes: usize = handover.cards.iter().map(|card| card.len_bytes()).sum();
            assert!(bytes <= HANDOVER_BYTES_MAX);
            seen += handover.cards.len();
            cursor = handover.next;
        }
        assert_eq!(seen, usize::from(stations));
    }
}

#[test]
fn old_cards_and_those_of_strangers_are_not_handed_over() {
    let mut book = book();
    for (of, age) in [(0, 0), (1, 29 * DAY), (2, 31 * DAY), (3, 0)] {
        let draft = Draft {
            created: NOW - age,
            ..Draft::plain(of, 1)
        };
        assert_eq!(
            book.insert(draft.own(), &allowing([1, 2])),
            Insertion::Inserted
        );
    }
    let handover = book.since(Cursor::default(), NOW);
    let handed_over = |of| {
        handover
            .cards
            .contains(&book.get(&peer(of)).expect("kept").envelope())
    };
    assert_eq!([0, 1, 2, 3].map(handed_over), [true, true, false, false]);
}

#[test]
fn a_card_that_could_not_be_judged_yet_is_offered_when_it_can_be() {
    let mut book = book();
    book.insert(Draft::plain(1, 1).own(), &allowing([1]));
    book.insert(Draft::plain(2, 1).own(), &allowing([1]));
    let first = book.since(Cursor::default(), NOW);
    assert_eq!(first.cards, [&Draft::plain(1, 1).signed()]);
    let read = first.next;
    // Somebody has let it in: whoever read to the end before is told now.
    assert!(offer_judged(&mut book, &allowing([1, 2])));
    assert!(!offer_judged(&mut book, &allowing([1, 2])), "once");
    let then = book.since(read, NOW);
    assert_eq!(then.cards, [&Draft::plain(2, 1).signed()]);
    // And nobody vouches for it any more.
    assert!(!offer_judged(&mut book, &allowing([1])));
    let everything = book.since(Cursor::default(), NOW);
    assert_eq!(everything.cards, [&Draft::plain(1, 1).signed()]);
}

#[test]
fn addresses_are_fresh_for_two_days_and_then_a_last_resort() {
    let mut book = book();
    book.insert(Draft::plain(1, 1).own(), &allowing([1]));
    for (age, is_fresh) in [
        (0, true),
        (2 * DAY, true),
        (2 * DAY + 1, false),
        (400 * DAY, false),
    ] {
        let (addresses, fresh) = book.addresses(&peer(1), NOW + age).expect("known");
        assert_eq!((addresses.len(), fresh), (1, is_fresh), "{age}");
    }
    assert!(book.addresses(&peer(2), NOW).is_none());
}

#[test]
fn a_station_that_is_out_says_no_more() {
    let mut book = book();
    let admitted = allowing([1, 2]);
    book.insert(Draft::plain(1, 1).own(), &admitted);
    let mut ledger = Ledger::default();
    for of in [1, 3] {
        ledger.revoke(peer(of), NOW).expect("there is room");
    }
    let allowed = [peer(1), peer(2)].into();
    let standing = evaluate(peer(0), &ledger, &allowed, book.cards());
    assert_eq!(
        book.insert(Draft::plain(1, 2).own(), &standing),
        Insertion::Revoked
    );
    assert_eq!(book.get(&peer(1)).expect("kept").statement().sequence, 1);
    assert_eq!(
        book.insert(Draft::plain(3, 1).own(), &standing),
        Insertion::Revoked
    );
    assert_eq!(
        book.insert(Draft::plain(1, 2).own(), &admitted),
        Insertion::Inserted
    );
}

#[test]
fn what_a_third_station_says_of_a_key_never_weighs_more_than_the_station_itself() {
    let of_two = |signer, sequence| Draft {
        signer,
        ..Draft::plain(2, sequence)
    };
    let standing = naming(&[20, 21]);
    let vouched = |signer, sequence, standing: &Standing| {
        let card = of_two(signer, sequence).verified(None, standing.keys());
        card.expect("its key is vouched for")
    };
    let mut book = book();
    // A false word with the highest number.
    let insert = |book: &mut CardBook, card, standing: &Standing| book.insert(card, standing);
    let claimed = vouched(21, u64::MAX, &standing);
    assert_eq!(
        insert(&mut book, claimed.clone(), &standing),
        Insertion::Inserted
    );
    assert_eq!(
        insert(&mut book, vouched(20, 5, &standing), &standing),
        Insertion::Older
    );
    // When nobody says any more that this is its key, the other one counts.
    let corrected = naming(&[20]);
    let genuine = vouched(20, 5, &corrected);
    assert_eq!(
        insert(&mut book, genuine.clone(), &corrected),
        Insertion::Inserted
    );
    assert_eq!(
        insert(&mut book, claimed.clone(), &standing),
        Insertion::Inserted
    );
    // The station itself.
    let carried = of_two(20, 5).own();
    assert_eq!(carried.binding(), Binding::Carried);
    assert_eq!(insert(&mut book, carried, &standing), Insertion::Inserted);
    assert_eq!(insert(&mut book, claimed, &standing), Insertion::OtherKey);
    // The same card on a third one's word does not weaken what is known.
    assert_eq!(insert(&mut book, genuine, &standing), Insertion::Same);
    assert_eq!(
        book.get(&peer(2)).expect("kept").binding(),
        Binding::Carried
    );
    // It may take another key itself, with a newer card.
    assert_eq!(
        insert(&mut book, of_two(22, 5).own(), &standing),
        Insertion::Inserted
    );
    assert_eq!(
        insert(&mut book, of_two(2, 4).own(), &standing),
        Insertion::Older
    );
    assert_eq!(
        insert(&mut book, of_two(2, 6).own(), &standing),
        Insertion::Inserted
    );
}

#[test]
fn a_full_book_has_room_for_our_stations_and_none_for_strangers() {
    let big = |of| {
        let draft = Draft {
            hostname: "h".repeat(CARD_BYTES_MAX - 2_000),
            ..Draft::plain(of, 1)
        };
        draft.own()
    };
    let mut book = book();
    let nobody = allowing([]);
    let mut of = 1;
    while book.insert(big(of), &nobody) == Insertion::Inserted {
        of += 1;
        assert!(book.bytes <= BOOK_BYTES_MAX);
    }
    assert!(of > 60, "{of}");
    // One of ours takes the room of strangers.
    assert_eq!(book.insert(big(of), &allowing([of])), Insertion::Inserted);
    assert_eq!(book.kept.len(), 1);
    let all = allowing(1..200);
    while book.insert(big(of), &all) != Insertion::Full {
        of += 1;
        assert!(of < 200, "it ends");
    }
    assert!(book.bytes <= BOOK_BYTES_MAX);
}

#[test]
fn cards_are_kept_over_a_restart_and_a_damaged_file_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cards.json");
    let random = Random::seeded(2);
    let load = |constellation| CardBook::load(&path, constellation, &random);
    assert!(envelopes(&load(ours()).expect("none yet")).is_empty());
    let mut book = book();
    let standing = naming(&[20]);
    let beside_kubo = Draft {
        signer: 20,
        created: NOW - 20 * DAY,
        ..Draft::plain(2, 1)
    };
    let card = beside_kubo
        .verified(None, standing.keys())
        .expect("vouched for");
    book.insert(card, &standing);
    book.insert(Draft::plain(1, 1).own(), &standing);
    book.save(&path).expect("written");
    let kept = load(ours()).expect("readable");
    assert!(kept.cards().eq(book.cards()), "also how the keys are known");
    let theirs = load(ConstellationId::of_name("theirs")).expect("readable");
    assert_eq!(
        theirs.cards().count(),
        0,
        "cards of the constellation before"
    );
    let text = std::fs::read_to_string(&path).expect("readable");
    for damaged in [
        text[..text.len() / 2].to_owned(),
        text.replace("host", "most"),
        text.replace("\"vouched_for\"", "\"itself\""),
    ] {
        std::fs::write(&path, damaged).expect("ours");
        let error = load(ours()).expect_err("refused");
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_fullest_book_can_be_read_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cards.json");
    // Quotation marks take most room: two bytes in the card, four in the file.
    let standing = allowing(1..200);
    let mut book = book();
    let mut of = 1;
    loop {
        let draft = Draft {
            hostname: "\"".repeat(CARD_BYTES_MAX / 2 - 2_000),
            ..Draft::plain(of, 1)
        };
        if book.insert(draft.own(), &standing) == Insertion::Full {
            break;
        }
        of += 1;
    }
    book.save(&path).expect("written");
    let kept = CardBook::load(&path, ours(), &Random::seeded(3)).expect("readable");
    assert!(kept.cards().eq(book.cards()));
}
