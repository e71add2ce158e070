//! Subscriptions that stay open.

use super::*;
use crate::protocol::ReasonPrefix;
use crate::relay_client::SubscriptionNews;
use nostr::filter::Filter;

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_after_what_is_stored_and_ends_when_it_is_dropped() {
    let (conversation, mut relay) = converse();
    let filter = Filter::new().limit(0);
    let mut subscription = conversation.subscribe(&[filter]).await.unwrap();
    let asked = relay.hear().await;
    assert!(asked.contains("\"limit\":0"), "{asked}");
    let name = "r1";
    relay.say(relay_message::encode_end_of_stored(name)).await;
    let mut events = Vec::new();
    let news = within(subscription.next_batch(&mut events, 10)).await;
    assert_eq!(news, Ok(Some(SubscriptionNews::CaughtUp)));
    for id in [1, 2] {
        relay
            .say(relay_message::encode_event(name, &event_json(id)))
            .await;
    }
    while events.len() < 2 {
        let news = within(subscription.next_batch(&mut events, 10)).await;
        assert_eq!(news, Ok(None));
    }
    assert_eq!(events, [event_json(1), event_json(2)]);
    drop(subscription);
    assert_eq!(relay.hear().await, format!("[\"CLOSE\",\"{name}\"]"));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_relay_closes_says_why_and_one_whose_conversation_ends_too() {
    let (conversation, mut relay) = converse();
    let mut closed = conversation.subscribe(&[Filter::new()]).await.unwrap();
    let mut lost = conversation.subscribe(&[Filter::new()]).await.unwrap();
    let first = relay.hear_request().await;
    relay.hear_request().await;
    relay
        .say(relay_message::encode_closed(&first, "blocked: full"))
        .await;
    let mut events = Vec::new();
    for again in [false, true] {
        let news = within(closed.next_batch(&mut events, 10)).await;
        let Ok(Some(SubscriptionNews::Closed { prefix, text })) = news else {
            panic!("closed; again: {again}")
        };
        assert_eq!(
            (prefix, text.as_str()),
            (ReasonPrefix::Blocked, "blocked: full")
        );
    }
    drop(relay);
    let ended = within(lost.next_batch(&mut events, 10)).await;
    assert_eq!(ended, Err(conversation.ended().expect("it has ended")));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_consumer_is_slow_holds_up_its_relay_and_no_memory() {
    let limits = ConversationLimits {
        events_queued_max: 2,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 1024);
    let mut subscription = conversation.subscribe(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    let telling = async {
        for id in 0..200 {
            relay
                .say(relay_message::encode_event(&name, &event_json(id)))
                .await;
        }
    };
    tokio::pin!(telling);
    let stalled = tokio::time::timeout(std::time::Duration::from_secs(60), &mut telling).await;
    assert!(stalled.is_err(), "the relay waits");
    let mut events = Vec::new();
    let taking = async {
        while events.len() < 200 {
            within(subscription.next_batch(&mut events, 10))
                .await
                .unwrap();
        }
    };
    tokio::join!(telling, taking);
    assert_eq!(events.last(), Some(&event_json(199).into()));
}
