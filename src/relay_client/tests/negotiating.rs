//! The negentropy session, and relays that do not have it.

use nostr::filter::Filter;

use super::*;
use crate::protocol::ReasonPrefix;
use crate::relay_client::NegReply;

/// The session's name in the NEG-OPEN that comes next.
async fn hear_open(relay: &mut Relay) -> String {
    let text = relay.hear().await;
    match ClientMessage::parse(&text, 20) {
        Ok(ClientMessage::NegOpen { subscription, .. }) => subscription.into_owned(),
        other => panic!("a NEG-OPEN expected, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_go_back_and_forth_and_dropping_closes() {
    let (conversation, mut relay) = converse();
    let mut negotiation = conversation.negotiation().unwrap();
    assert!(conversation.negotiation().is_err(), "one at a time");
    let filter = Filter::new();
    let opening = negotiation.open(&filter, &[0x61]);
    let answering = async {
        let name = hear_open(&mut relay).await;
        relay.say(relay_message::encode_notice("welcome")).await;
        relay
            .say(relay_message::encode_neg_message("n999", &[9]))
            .await;
        relay
            .say(relay_message::encode_neg_message(&name, &[0x61, 1]))
            .await;
        name
    };
    let (reply, name) = within(async { tokio::join!(opening, answering) }).await;
    assert_eq!(
        reply,
        Ok(NegReply::Message(vec![0x61, 1])),
        "the greeting was no answer"
    );

    let sending = negotiation.message(&[0x61, 2]);
    let answering = async {
        assert_eq!(
            relay.hear().await,
            format!("[\"NEG-MSG\",\"{name}\",\"6102\"]")
        );
        relay
            .say(relay_message::encode_notice("error: unrelated"))
            .await;
        relay
            .say(relay_message::encode_neg_message(&name, &[0x61]))
            .await;
    };
    let (reply, ()) = within(async { tokio::join!(sending, answering) }).await;
    assert_eq!(reply, Ok(NegReply::Message(vec![0x61])));

    drop(negotiation);
    assert_eq!(relay.hear().await, format!("[\"NEG-CLOSE\",\"{name}\"]"));
    assert!(conversation.negotiation().is_ok());
    assert_eq!(conversation.notices(), ["welcome", "error: unrelated"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_the_session_with_its_cap() {
    let (conversation, mut relay) = converse();
    let mut negotiation = conversation.negotiation().unwrap();
    let filter = Filter::new();
    let answering = async {
        let name = hear_open(&mut relay).await;
        let text = relay_message::encode_neg_error(&name, "blocked: too many", Some(500));
        relay.say(text).await;
    };
    let (reply, ()) =
        within(async { tokio::join!(negotiation.open(&filter, &[0x61]), answering) }).await;
    let expected = NegReply::Error {
        prefix: ReasonPrefix::Blocked,
        text: "blocked: too many".to_owned(),
        cap: Some(500),
    };
    assert_eq!(reply, Ok(expected));
    let reply = within(negotiation.message(&[0x61])).await;
    assert!(
        matches!(
            reply,
            Ok(NegReply::Error {
                prefix: ReasonPrefix::Closed,
                ..
            })
        ),
        "nothing is sent on a session that is over: {reply:?}"
    );
    drop(negotiation);
    drop(conversation);
    relay.hear_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_know_negentropy_answers_in_its_own_way() {
    for (answer, expected) in [
        ("ERROR: bad msg: negentropy disabled", true),
        ("unknown message type NEG-OPEN", true),
        ("could not parse command", true),
        ("Unrecognised envelope", true),
        ("welcome to this relay", false),
        ("please pay your fees", false),
    ] {
        let (conversation, mut relay) = converse();
        let mut negotiation = conversation.negotiation().unwrap();
        // Before it is asked, a notice is no answer, whatever it says.
        relay
            .say(relay_message::encode_notice("error: early"))
            .await;
        while conversation.notices().is_empty() {
            tokio::task::yield_now().await;
        }
        let filter = Filter::new();
        let opening = timeout(Duration::from_secs(30), negotiation.open(&filter, &[0x61]));
        let answering = async {
            hear_open(&mut relay).await;
            relay.say(relay_message::encode_notice(answer)).await;
        };
        let (reply, ()) = tokio::join!(opening, answering);
        let notice = NegReply::Notice(answer.to_owned());
        assert_eq!(reply.ok(), expected.then_some(Ok(notice)), "{answer}");
    }
    let (conversation, mut relay) = converse();
    let mut negotiation = conversation.negotiation().unwrap();
    let filter = Filter::new();
    let answering = async {
        let name = hear_open(&mut relay).await;
        relay
            .say(relay_message::encode_closed(&name, "unsupported: no"))
            .await;
    };
    let (reply, ()) =
        within(async { tokio::join!(negotiation.open(&filter, &[0x61]), answering) }).await;
    assert!(matches!(
        reply,
        Ok(NegReply::Error {
            prefix: ReasonPrefix::Unsupported,
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn silence_is_the_callers_timeout_and_the_next_session_is_a_new_one() {
    let (conversation, mut relay) = converse();
    let mut negotiation = conversation.negotiation().unwrap();
    let filter = Filter::new();
    let silent = timeout(Duration::from_secs(30), negotiation.open(&filter, &[0x61])).await;
    assert!(silent.is_err());
    let first = hear_open(&mut relay).await;
    let answering = async {
        assert_eq!(relay.hear().await, format!("[\"NEG-CLOSE\",\"{first}\"]"));
        let second = hear_open(&mut relay).await;
        assert_ne!(first, second);
        // The late answer to the first is not taken for one to the second.
        relay
            .say(relay_message::encode_neg_message(&first, &[1]))
            .await;
        relay
            .say(relay_message::encode_neg_message(&second, &[2]))
            .await;
    };
    let (reply, ()) =
        within(async { tokio::join!(negotiation.open(&filter, &[0x61]), answering) }).await;
    assert_eq!(reply, Ok(NegReply::Message(vec![2])));
}
