//! Tests of the client's messages: every form both ways, every error with its addressee.

use nostr::event::Kind;
use proptest::prelude::*;

use super::*;

const FILTERS_MAX: usize = 3;

fn parse(text: &str) -> Result<ClientMessage<'_>, ClientMessageError> {
    ClientMessage::parse(text, FILTERS_MAX)
}

fn kind_of(text: &str) -> ClientMessageErrorKind {
    parse(text).expect_err(text).kind
}

#[test]
fn an_event_stays_raw_and_borrowed() {
    let text = " [ \"EVENT\" , {\"id\": \"x\", \"content\":\"\\u00e9\"} , 7 ] ";
    let Ok(ClientMessage::Event(json)) = parse(text) else {
        panic!("an event")
    };
    assert_eq!(json, "{\"id\": \"x\", \"content\":\"\\u00e9\"}");
    assert!(text.as_bytes().as_ptr_range().contains(&json.as_ptr()));
}

#[test]
fn every_message_is_read_as_it_is_written() {
    let filter = Filter::new().kind(Kind::TextNote).limit(3);
    let name = || Cow::Borrowed("a\"\\\n\u{1F680}");
    let subscription = "a\"\\\n\u{1F680}";
    let filters = vec![filter.clone(), Filter::new()];
    for (text, message) in [
        (encode_event("{\"a\":1}"), ClientMessage::Event("{\"a\":1}")),
        (encode_auth("{}"), ClientMessage::Auth("{}")),
        (
            encode_request(subscription, &filters),
            ClientMessage::Request {
                subscription: name(),
                filters: filters.clone(),
            },
        ),
        (
            encode_count(subscription, &filters),
            ClientMessage::Count {
                subscription: name(),
                filters: filters.clone(),
            },
        ),
        (
            encode_close(subscription),
            ClientMessage::Close {
                subscription: name(),
            },
        ),
        (
            encode_neg_open(subscription, &filter, &[0x61, 0xff]),
            ClientMessage::NegOpen {
                subscription: name(),
                filter: filter.clone(),
                message: vec![0x61, 0xff],
            },
        ),
        (
            encode_neg_message(subscription, &[0x61]),
            ClientMessage::NegMessage {
                subscription: name(),
                message: vec![0x61],
            },
        ),
        (
            encode_neg_close(subscription),
            ClientMessage::NegClose {
                subscription: name(),
            },
        ),
    ] {
        assert_eq!(parse(&text), Ok(message), "{text}");
    }
}

#[test]
fn a_request_by_ids_states_its_limit() {
    let text = encode_request_ids("r1", &[[0xab; 32], [1; 32]]);
    let Ok(ClientMessage::Request {
        subscription,
        filters,
    }) = parse(&text)
    else {
        panic!("a request: {text}")
    };
    assert_eq!(subscription, "r1");
    assert_eq!(
        filters[0].ids.as_ref().map(std::collections::BTreeSet::len),
        Some(2)
    );
    assert_eq!(filters[0].limit, Some(2));
    assert!(matches!(
        parse(&encode_request_ids("r", &[])),
        Ok(ClientMessage::Request { .. })
    ));
}

#[test]
fn errors_say_what_is_wrong() {
    use ClientMessageErrorKind as Kind;
    for (text, kind) in [
        ("", Kind::NotAnArray),
        ("{}", Kind::NotAnArray),
        ("[\"REQ\",\"a\",{}] x", Kind::NotAnArray),
        ("[\"REQ\",\"a\",{}", Kind::NotAnArray),
        ("[]", Kind::UnknownMessage),
        ("[1]", Kind::UnknownMessage),
        ("[\"req\",\"a\",{}]", Kind::UnknownMessage),
        ("[\"EVENT\"]", Kind::NoEvent),
        ("[\"EVENT\",[]]", Kind::NoEvent),
        ("[\"REQ\"]", Kind::InvalidSubscription),
        ("[\"REQ\",7,{}]", Kind::InvalidSubscription),
        ("[\"REQ\",\"\",{}]", Kind::InvalidSubscription),
        ("[\"REQ\",\"a\"]", Kind::NoFilter),
        ("[\"REQ\",\"a\",{},{},{},{}]", Kind::TooManyFilters),
        ("[\"REQ\",\"a\",{},{},{},{},{},{},{}]", Kind::TooManyFilters),
        (
            "[\"REQ\",\"a\",[]]",
            Kind::InvalidFilter("not an object".to_owned()),
        ),
        ("[\"NEG-OPEN\",\"a\",{},16,\"61\"]", Kind::OldNegOpen),
        ("[\"NEG-OPEN\",\"a\",{}]", Kind::InvalidHex),
        ("[\"NEG-OPEN\",\"a\",{},\"6\"]", Kind::InvalidHex),
        ("[\"NEG-OPEN\",\"a\",{},\"AB\"]", Kind::InvalidHex),
        ("[\"NEG-OPEN\",\"a\"]", Kind::NoFilter),
        ("[\"NEG-MSG\",\"a\"]", Kind::InvalidHex),
    ] {
        assert_eq!(kind_of(text), kind, "{text}");
    }
    let long = "é".repeat(SUBSCRIPTION_ID_CHARS_MAX + 1);
    assert_eq!(kind_of(&encode_close(&long)), Kind::InvalidSubscription);
    assert!(parse(&encode_close(&"é".repeat(SUBSCRIPTION_ID_CHARS_MAX))).is_ok());
}

#[test]
fn errors_carry_whom_to_answer() {
    let error = parse("[\"REQ\",\"sub\",{\"kinds\":[\"x\"]}]").expect_err("no filter");
    assert_eq!(error.label, Some(ClientMessageLabel::Request));
    assert_eq!(error.subscription.as_deref(), Some("sub"));

    let broken = parse("[\"NEG-OPEN\",\"sub\",{\"kinds\":").expect_err("breaks off");
    assert_eq!(broken.label, Some(ClientMessageLabel::NegOpen));
    assert_eq!(broken.subscription.as_deref(), Some("sub"));

    let id = hex::encode(&[7; 32]);
    let event = parse(&format!(
        "[\"EVENT\",{{\"id\" : \"{id}\",\"content\":\"\\x\"}}]"
    ))
    .map(|_| ())
    .expect_err("a wrong escape");
    assert_eq!(event.label, Some(ClientMessageLabel::Event));
    assert_eq!(event.event_id, Some([7; 32]));
    assert_eq!(event.subscription, None);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_message_like_text_makes_it_panic(
        label in "(EVENT|REQ|COUNT|CLOSE|AUTH|NEG-OPEN|NEG-MSG|NEG-CLOSE)",
        rest in prop::collection::vec("(\"[a-f0-9]{0,6}\"|\\{\\}|\\[|[0-9]|null|\"id\":\"[é]{0,40})", 0..6),
    ) {
        let _ = parse(&format!("[\"{label}\",{}]", rest.join(",")));
    }

    #[test]
    fn any_subscription_survives_the_round_trip(name in "\\PC{1,64}", message: Vec<u8>) {
        let text = encode_neg_message(&name, &message);
        prop_assert_eq!(
            parse(&text),
            Ok(ClientMessage::NegMessage { subscription: Cow::Owned(name), message })
        );
    }
}
