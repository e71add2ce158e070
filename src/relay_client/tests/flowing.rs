//! Requests and publications as they should go, and back-pressure.

use super::*;
use crate::protocol::ReasonPrefix;
use crate::relay_client::PublishError;
use futures_util::future::join_all;
use nostr::filter::Filter;

#[tokio::test(start_paused = true)]
async fn a_request_yields_its_events_and_its_end_and_is_closed() {
    let (conversation, mut relay) = converse();
    let mut request = conversation.fetch(&[[1; 32], [2; 32]]).await.unwrap();
    let name = relay.hear_request().await;
    for id in [1, 2] {
        relay
            .say(relay_message::encode_event(&name, &event_json(id)))
            .await;
    }
    relay
        .say(relay_message::encode_event("other", &event_json(3)))
        .await;
    relay.say(relay_message::encode_end_of_stored(&name)).await;
    for id in [1, 2] {
        let RequestItem::Event(json) = within(request.next()).await.unwrap() else {
            panic!("an event")
        };
        assert_eq!(json, event_json(id));
    }
    let end = RequestItem::End(RequestEnd::EndOfStored);
    assert_eq!(within(request.next()).await, Ok(end.clone()));
    assert_eq!(
        within(request.next()).await,
        Ok(end),
        "again when asked again"
    );
    assert_eq!(relay.hear().await, format!("[\"CLOSE\",\"{name}\"]"));
    let counters = conversation.counters();
    assert_eq!(
        (counters.events, counters.unsolicited, counters.garbage),
        (2, 1, 0)
    );
    assert!(counters.bytes_in > 0 && counters.bytes_out > 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_relay_closes_says_why() {
    let (conversation, mut relay) = converse();
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    relay
        .say(relay_message::encode_event(&name, &event_json(1)))
        .await;
    relay
        .say(relay_message::encode_closed(
            &name,
            "auth-required: who are you",
        ))
        .await;
    let mut events = Vec::new();
    let end = loop {
        if let Some(end) = within(request.next_batch(&mut events, 10)).await.unwrap() {
            break end;
        }
    };
    assert_eq!(events, [event_json(1)]);
    let text = "auth-required: who are you".to_owned();
    assert_eq!(
        end,
        RequestEnd::Closed {
            prefix: ReasonPrefix::AuthRequired,
            text
        }
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_closes_it_and_makes_room_for_the_next() {
    let limits = ConversationLimits {
        requests_max: 1,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 64 * 1024);
    let first = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    let filters = [Filter::new()];
    let second = conversation.request(&filters);
    tokio::pin!(second);
    assert!(
        timeout(Duration::from_secs(60), &mut second).await.is_err(),
        "no room yet"
    );
    drop(first);
    let _second = within(second).await.unwrap();
    assert_eq!(relay.hear().await, format!("[\"CLOSE\",\"{name}\"]"));
    assert_ne!(relay.hear_request().await, name);
    relay
        .say(relay_message::encode_event(&name, &event_json(1)))
        .await;
    relay.say(relay_message::encode_auth("c")).await;
    while conversation.challenge().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        conversation.counters().unsolicited,
        1,
        "an event of a dropped request"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_to_publications_find_their_event_in_any_order() {
    let (conversation, mut relay) = converse();
    let mut pending = Vec::new();
    for id in 0..100 {
        pending.push(
            conversation
                .publish([id; 32], &event_json(id))
                .await
                .unwrap(),
        );
    }
    let again = conversation
        .publish([7; 32], &event_json(7))
        .await
        .map(|_| ());
    assert_eq!(again, Err(PublishError::AlreadyInFlight));
    let mut heard = Vec::new();
    for _ in 0..100 {
        heard.push(relay.hear_event().await);
    }
    for id in heard.iter().rev() {
        let (accepted, reason) = if id[0] == 3 {
            (false, "blocked: no")
        } else {
            (id[0] != 4, "")
        };
        relay
            .say(relay_message::encode_ok(id, accepted, reason))
            .await;
    }
    for (id, answer) in within(join_all(pending)).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.accepted, id != 3 && id != 4);
        let prefix = if id == 3 {
            ReasonPrefix::Blocked
        } else {
            ReasonPrefix::Policy
        };
        assert_eq!(answer.prefix, prefix);
    }
    assert!(
        conversation.publish([7; 32], &event_json(7)).await.is_ok(),
        "answered, so again"
    );
}

#[tokio::test(start_paused = true)]
async fn publications_are_bounded_and_dropping_one_makes_room() {
    let limits = ConversationLimits {
        publications_max: 1,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 64 * 1024);
    let first = conversation.publish([1; 32], &event_json(1)).await.unwrap();
    let second = conversation
        .publish([2; 32], &event_json(2))
        .await
        .map(|_| ());
    assert_eq!(second, Err(PublishError::TooManyInFlight));
    relay.hear_event().await;
    drop(first);
    let second = conversation.publish([2; 32], &event_json(2)).await.unwrap();
    relay
        .say(relay_message::encode_ok(&[1; 32], true, ""))
        .await;
    relay
        .say(relay_message::encode_ok(
            &[2; 32],
            true,
            "duplicate: have it",
        ))
        .await;
    assert_eq!(
        within(second).await.unwrap().prefix,
        ReasonPrefix::Duplicate
    );
    assert_eq!(conversation.counters().unsolicited, 1);
}

#[tokio::test(start_paused = true)]
async fn publishing_and_fetching_go_on_at_the_same_time() {
    const EVENTS: u64 = 2_000;
    const UPLOADS: u8 = 200;
    let (conversation, mut relay) = converse_with(ConversationLimits::default(), 1024);
    let serving = async {
        let mut heard = 0;
        while heard <= UPLOADS {
            let text = relay.hear().await;
            match ClientMessage::parse(&text, 20).unwrap() {
                ClientMessage::Request { subscription, .. } => {
                    for _ in 0..EVENTS {
                        relay
                            .say(relay_message::encode_event(&subscription, &event_json(1)))
                            .await;
                    }
                    relay
                        .say(relay_message::encode_end_of_stored(&subscription))
                        .await;
                }
                ClientMessage::Event(json) => {
                    let id = hex::decode_array(&json[7..71]).unwrap();
                    relay.say(relay_message::encode_ok(&id, true, "")).await;
                }
                ClientMessage::Close { .. } => continue,
                other => panic!("{other:?}"),
            }
            heard += 1;
        }
        relay
    };
    let fetching = async {
        let mut request = conversation.request(&[Filter::new()]).await.unwrap();
        let mut events = Vec::new();
        while request
            .next_batch(&mut events, 100)
            .await
            .unwrap()
            .is_none()
        {}
        events.len() as u64
    };
    let publishing = async {
        let mut pending = Vec::new();
        for id in 0..UPLOADS {
            pending.push(
                conversation
                    .publish([id; 32], &event_json(id))
                    .await
                    .unwrap(),
            );
        }
        join_all(pending)
            .await
            .into_iter()
            .filter(|answer| answer.as_ref().unwrap().accepted)
            .count()
    };
    let (relay, events, accepted) =
        within(async { tokio::join!(serving, fetching, publishing) }).await;
    assert_eq!((events, accepted), (EVENTS, usize::from(UPLOADS)));
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_slows_the_relay_and_memory_stays_bounded() {
    const EVENTS: usize = 10_000;
    let limits = ConversationLimits {
        events_queued_max: 16,
        event_bytes_queued_max: 1000,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 1024);
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    let sending = async {
        for sent in 0..EVENTS {
            let event = relay_message::encode_event(&name, &event_json(1));
            if timeout(Duration::from_secs(60), relay.say(event))
                .await
                .is_err()
            {
                return sent;
            }
        }
        EVENTS
    };
    let sent = within(sending).await;
    // 1,000 bytes of events, 1 kB in the pipe, and what the two sockets buffer.
    assert!(sent < 200, "{sent} sent while nobody took any");
    assert!(conversation.counters().events <= 1000 / event_json(1).len() as u64);

    // While the reader is held up, the writer is not.
    let _pending = conversation.publish([9; 32], &event_json(9)).await.unwrap();
    assert_eq!(relay.hear_event().await, [9; 32]);

    // Taking them lets it go on; what `say` had queued when it was dropped comes whole.
    let mut events = Vec::new();
    let taking = async { while request.next_batch(&mut events, 7).await.unwrap().is_none() {} };
    let ending = async { relay.say(relay_message::encode_end_of_stored(&name)).await };
    within(async { tokio::join!(taking, ending) }).await;
    assert_eq!(events.len(), sent + 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_larger_than_all_that_may_wait_still_passes() {
    let limits = ConversationLimits {
        event_bytes_queued_max: 10,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 64 * 1024);
    let mut request = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    for id in 0..5 {
        relay
            .say(relay_message::encode_event(&name, &event_json(id)))
            .await;
    }
    for id in 0..5 {
        let item = within(request.next()).await.unwrap();
        assert_eq!(item, RequestItem::Event(event_json(id).into()));
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_request_that_holds_up_the_reader_lets_it_go_on() {
    let limits = ConversationLimits {
        events_queued_max: 1,
        ..Default::default()
    };
    let (conversation, mut relay) = converse_with(limits, 64 * 1024);
    let stuck = conversation.request(&[Filter::new()]).await.unwrap();
    let name = relay.hear_request().await;
    for _ in 0..10 {
        relay
            .say(relay_message::encode_event(&name, &event_json(1)))
            .await;
    }
    let mut other = conversation.request(&[Filter::new()]).await.unwrap();
    let other_name = relay.hear_request().await;
    relay
        .say(relay_message::encode_end_of_stored(&other_name))
        .await;
    assert!(
        timeout(Duration::from_secs(60), other.next())
            .await
            .is_err()
    );
    drop(stuck);
    assert_eq!(
        within(other.next()).await,
        Ok(RequestItem::End(RequestEnd::EndOfStored))
    );
}
