//! Relays that break, flood, fall silent or stop reading.

use nostr::filter::Filter;

use super::*;
use crate::relay_client::{ConversationError, PublishError};

#[tokio::test(start_paused = true)]
async fn when_the_relay_goes_every_waiter_gets_the_reason() {
    let (conversation, mut relay) = converse();
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    let pending = conversation.publish([1; 32], &event_json(1)).await.unwrap();
    let mut negotiation = conversation.negotiation().unwrap();
    let filter = Filter::new();
    let name = relay.hear_request().await;
    relay
        .say(relay_message::encode_event(&name, &event_json(1)))
        .await;
    let leaving = async {
        relay.hear_event().await;
        relay.hear().await;
        drop(relay.socket);
        relay.group
    };
    let (opened, group) =
        within(async { tokio::join!(negotiation.open(&filter, &[0x61]), leaving) }).await;
    assert_eq!(opened, Err(ConversationError::Closed));
    assert_eq!(within(pending).await, Err(ConversationError::Closed));
    assert!(
        matches!(request.next().await, Ok(RequestItem::Event(_))),
        "what came is given"
    );
    assert_eq!(request.next().await, Err(ConversationError::Closed));
    assert_eq!(
        conversation.request(&[]).await.map(|_| ()),
        Err(ConversationError::Closed),
        "and whoever asks afterwards"
    );
    assert_eq!(
        conversation.publish([2; 32], "{}").await.map(|_| ()),
        Err(PublishError::Conversation(ConversationError::Closed))
    );
    assert_eq!(conversation.ended(), Some(ConversationError::Closed));
    within(group.end()).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_counted_and_a_flood_of_it_ends_the_conversation() {
    let limits = ConversationLimits {
        garbage_max: 10,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 64 * 1024);
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    for garbage in ["", "{}", "[\"HELLO\"]", "[\"OK\",1]", "[[[[[["] {
        relay.say(garbage).await;
    }
    relay
        .say(relay_message::encode_event(&name, &event_json(1)))
        .await;
    assert!(matches!(
        within(request.next()).await,
        Ok(RequestItem::Event(_))
    ));
    assert_eq!(conversation.counters().garbage, 5);
    for _ in 0..6 {
        relay.say("garbage").await;
    }
    assert_eq!(
        within(request.next()).await,
        Err(ConversationError::Garbage { count: 11 })
    );
    relay.hear_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_the_conversation() {
    let (conversation, mut relay) = converse_with(ConversationLimits::default(), 1 << 20);
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    relay.say("x".repeat(SOCKET.message_bytes_max + 1)).await;
    let limit = SOCKET.message_bytes_max;
    assert_eq!(
        within(request.next()).await,
        Err(ConversationError::MessageTooLarge { limit })
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_is_the_callers_timeout_and_harms_nobody_else() {
    let (conversation, mut relay) = converse();
    let pending = conversation.publish([1; 32], &event_json(1)).await.unwrap();
    assert!(timeout(Duration::from_secs(30), pending).await.is_err());
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    assert!(
        timeout(Duration::from_secs(30), request.next())
            .await
            .is_err()
    );
    assert_eq!(conversation.ended(), None);
    assert_eq!(relay.hear_event().await, [1; 32]);
    let name = relay.hear_request().await;
    relay.say(relay_message::encode_end_of_stored(&name)).await;
    assert_eq!(
        within(request.next()).await,
        Ok(RequestItem::End(RequestEnd::EndOfStored))
    );
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_read_holds_up_publishers_and_is_given_up() {
    let limits = ConversationLimits {
        outgoing_bytes_max: 10_000,
        ..Default::default()
    };
    let (conversation, relay) = converse_with(limits, 1024);
    let event = "x".repeat(5_000);
    let mut pending = Vec::new();
    let refused = loop {
        let id = [u8::try_from(pending.len()).unwrap(); 32];
        match within(conversation.publish(id, &event)).await {
            Ok(publication) => pending.push(publication),
            Err(error) => break error,
        }
    };
    assert_eq!(
        refused,
        PublishError::Conversation(ConversationError::WriteStalled)
    );
    assert!(
        pending.len() < 30,
        "{} events of 5 kB were queued",
        pending.len()
    );
    for publication in pending {
        assert_eq!(
            within(publication).await,
            Err(ConversationError::WriteStalled)
        );
    }
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn the_conversation_ends_with_its_last_handle_or_with_its_group() {
    let (conversation, mut relay) = converse();
    let request = conversation.request(&[Filter::new()]).await.unwrap();
    drop(conversation);
    relay.hear_request().await;
    assert_eq!(relay.group.len(), 1, "the request keeps it");
    drop(request);
    relay.hear_end().await;
    while !relay.group.is_empty() {
        tokio::task::yield_now().await;
    }

    let (conversation, mut relay) = converse();
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    within(relay.group.end()).await;
    assert_eq!(
        within(request.next()).await,
        Err(ConversationError::Finished)
    );
    assert_eq!(
        conversation.request(&[]).await.map(|_| ()),
        Err(ConversationError::Finished)
    );
    relay.socket.recv().await.ok();
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_says_is_kept_only_in_part() {
    let (conversation, mut relay) = converse();
    for n in 0..100 {
        relay
            .say(relay_message::encode_notice(&format!(
                "{n} {}",
                "é".repeat(5_000)
            )))
            .await;
    }
    relay
        .say(relay_message::encode_auth(&"c".repeat(5_000)))
        .await;
    relay.say(relay_message::encode_auth("short")).await;
    while conversation.challenge().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(conversation.challenge().as_deref(), Some("short"));
    let notices = conversation.notices();
    assert_eq!(notices.len(), 16);
    assert_eq!(*conversation.notices_heard().borrow(), 100);
    assert!(notices[15].starts_with("99 ") && notices[15].chars().count() == 512);
}
