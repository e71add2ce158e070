//! REQ, COUNT and CLOSE: what is stored, what is live, and nothing between them missing or told twice.

use std::collections::BTreeMap;

use super::*;

#[tokio::test(start_paused = true)]
async fn every_filter_gives_its_newest_and_nothing_comes_twice() {
    let relay = Relay::new();
    let notes: Vec<Event> = (0..40)
        .map(|ago| note(u8::from(ago % 3 == 0), ago + 1))
        .collect();
    relay.store(&notes).await;
    let mut client = relay.local().await;
    let by = |author: u8| keys(author).public_key().to_hex();
    for filters in [
        vec![json!({})],
        vec![json!({"limit": 7})],
        vec![json!({"limit": 5}), json!({"authors": [by(0)], "limit": 9})],
        vec![
            json!({"authors": [by(1)], "limit": 3}),
            json!({"limit": 20}),
            json!({"kinds": [1]}),
        ],
        vec![
            json!({"limit": 0}),
            json!({"limit": 2}),
            json!({"limit": 4}),
        ],
        vec![
            json!({"since": NOW - 9}),
            json!({"until": NOW - 5, "limit": 10}),
        ],
    ] {
        let found = client.query(&filters).await;
        assert_eq!(found.len(), set(&found).len(), "{filters:?}");
        let mut expected = BTreeSet::new();
        for filter in &filters {
            let matching = notes.iter().filter(|note| {
                let at = note.created_at.as_secs();
                filter["authors"][0]
                    .as_str()
                    .is_none_or(|key| note.pubkey.to_hex() == key)
                    && filter["since"].as_u64().is_none_or(|since| at >= since)
                    && filter["until"].as_u64().is_none_or(|until| at <= until)
            });
            let limit = filter["limit"]
                .as_u64()
                .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
            expected.extend(matching.take(limit).map(|note| note.id.to_hex()));
        }
        assert_eq!(set(&found), expected, "{filters:?}");
        let counted = filters.iter().all(|filter| filter["limit"].is_null());
        if counted {
            let mut count = vec![json!("COUNT"), json!("c")];
            count.extend(filters);
            let answer = client.ask(Value::Array(count)).await;
            assert_eq!(answer, json!(["COUNT", "c", {"count": found.len()}]));
        }
    }
    let answer = client
        .ask(json!(["COUNT", "c", {"authors": [by(0)]}, {"limit": 1}]))
        .await;
    assert_eq!(answer[2]["count"], 40, "of a union, without limits");
}

/// Events large enough that one slice holds a few.
fn large(author: u8, ago: u64) -> Event {
    event(
        author,
        1,
        ago,
        &[],
        &format!("{ago} {}", "x".repeat(60_000)),
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_while_a_request_is_answered_comes_exactly_once() {
    let relay = Relay::new();
    let before: Vec<Event> = (0..40).map(|ago| large(1, 100 + ago)).collect();
    relay.store(&before).await;
    let mut reader = relay.connect_with(local_party(), 64 << 10, &[]).await;
    reader.say(json!(["REQ", "a", {"kinds": [1]}])).await;
    reader
        .say(json!(["REQ", "b", {"authors": [keys(2).public_key().to_hex()]}]))
        .await;
    // While that is sent, others write: older, newer and between.
    let during: Vec<Event> = (0..60).map(|n| note(2, 70 + n)).collect();
    let (mut told, mut ended) = (BTreeMap::<String, Vec<String>>::new(), BTreeSet::new());
    for (index, event) in during.iter().enumerate() {
        relay.store(std::slice::from_ref(event)).await;
        if index % 2 == 0 {
            hear_one(&mut reader, &mut told, &mut ended).await;
        }
    }
    while told.values().map(Vec::len).sum::<usize>() < 40 + 60 + 60 || ended.len() < 2 {
        hear_one(&mut reader, &mut told, &mut ended).await;
    }
    assert_eq!(told["a"].len(), 100);
    assert_eq!(
        set(&told["a"]),
        set(&ids(&[before, during.clone()].concat()))
    );
    assert_eq!(told["b"].len(), 60);
    assert_eq!(set(&told["b"]), set(&ids(&during)));
    // And nothing is left over.
    let last = note(2, 1);
    relay.store(std::slice::from_ref(&last)).await;
    let names = set(&[
        hear_live(&mut reader, &last).await,
        hear_live(&mut reader, &last).await,
    ]);
    assert_eq!(names, set(&["a".to_owned(), "b".to_owned()]));
}

async fn hear_one(
    reader: &mut Client,
    told: &mut BTreeMap<String, Vec<String>>,
    ended: &mut BTreeSet<String>,
) {
    let message = reader.hear().await;
    let name = message[1].as_str().unwrap().to_owned();
    match message[0].as_str().unwrap() {
        "EVENT" => told.entry(name).or_default().push(id_in(&message)),
        "EOSE" => assert!(ended.insert(name), "one EOSE each"),
        _ => panic!("{message}"),
    }
}

async fn hear_live(reader: &mut Client, event: &Event) -> String {
    let message = reader.hear().await;
    assert_eq!(
        (&message[0], id_in(&message)),
        (&json!("EVENT"), event.id.to_hex())
    );
    message[1].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn requests_take_turns() {
    let relay = Relay::new();
    let many: Vec<Event> = (0..60).map(|ago| large(1, ago)).collect();
    relay.store(&many).await;
    let mut reader = relay.connect_with(local_party(), 16 << 10, &[]).await;
    reader.say(json!(["REQ", "long", {}])).await;
    reader.say(json!(["REQ", "short", {"limit": 1}])).await;
    let mut before_short = 0;
    loop {
        let message = reader.hear().await;
        match message[1].as_str().unwrap() {
            "short" if message[0] == "EOSE" => break,
            "short" => {}
            _ => before_short += 1,
        }
        assert_ne!(message, json!(["EOSE", "long"]));
    }
    assert!(before_short < 40, "{before_short}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_of_the_same_name_replaces_the_old_and_close_ends_it() {
    let relay = Relay::new();
    let (one, two): (Vec<Event>, Vec<Event>) = (
        (0..30).map(|ago| large(1, ago)).collect(),
        (0..3).map(|ago| note(2, ago)).collect(),
    );
    relay.store(&one).await;
    relay.store(&two).await;
    let mut reader = relay.connect_with(local_party(), 8 << 10, &[]).await;
    reader
        .say(json!(["REQ", "x", {"authors": [keys(1).public_key().to_hex()]}]))
        .await;
    reader
        .say(json!(["REQ", "x", {"authors": [keys(2).public_key().to_hex()]}]))
        .await;
    let heard = reader.stored("x").await;
    assert!(heard.len() < 30 + 3, "the first was given up");
    assert_eq!(heard[heard.len() - 3..], ids(&two));
    // Of the old one, nothing is live.
    relay.store(&[large(1, 50), note(2, 50)]).await;
    assert_eq!(reader.live("x").await, note(2, 50).id.to_hex());
    reader.say(json!(["CLOSE", "x"])).await;
    reader.say(json!(["REQ", "y", {"limit": 0}])).await;
    assert!(reader.stored("y").await.is_empty());
    relay.store(&[note(2, 51)]).await;
    assert_eq!(reader.live("y").await, note(2, 51).id.to_hex());
}

#[tokio::test(start_paused = true)]
async fn ephemeral_events_reach_who_listens_and_expired_ones_nobody() {
    let relay = Relay::new();
    let mut reader = relay.local().await;
    reader
        .say(json!(["REQ", "e", {"kinds": [20_001, 1]}]))
        .await;
    assert!(reader.stored("e").await.is_empty());
    let (first, other) = (event(1, 20_001, 0, &[], "1"), event(1, 20_002, 0, &[], "2"));
    relay.store(&[first.clone(), other]).await;
    assert_eq!(reader.live("e").await, first.id.to_hex());
    let soon = (NOW + 10).to_string();
    let expiring = event(1, 1, 5, &[&["expiration", &soon]], "soon gone");
    relay.store(std::slice::from_ref(&expiring)).await;
    assert_eq!(reader.live("e").await, expiring.id.to_hex());
    assert_eq!(reader.query(&[json!({})]).await, [expiring.id.to_hex()]);
    relay.time.0.fetch_add(10, Ordering::SeqCst);
    assert!(reader.query(&[json!({})]).await.is_empty());
    let count = reader.ask(json!(["COUNT", "c", {}])).await;
    assert_eq!(count[2]["count"], 0);
}

#[tokio::test(start_paused = true)]
async fn private_kinds_are_for_those_involved() {
    let relay = Relay::new();
    relay.set(|options| options.own_urls = vec!["wss://relay.example.org".to_owned()]);
    let to_two = keys(2).public_key().to_hex();
    let message = event(1, 4, 9, &[&["p", &to_two]], "secret");
    let wrap = event(3, 1059, 8, &[&["p", &to_two]], "wrapped");
    let public = note(1, 7);
    relay
        .store(&[message.clone(), wrap.clone(), public.clone()])
        .await;
    // What belongs inside a wrap and was published without: no addressee is named, so its author alone may read it.
    let unwrapped = [13, 14, 15].map(|kind| event(3, kind, 8, &[], "should have been wrapped"));
    relay.store(&unwrapped).await;
    let mut everything = vec![message.clone(), wrap.clone(), public.clone()];
    everything.extend(unwrapped);
    let all = set(&ids(&everything));

    for party in [local_party(), RemoteParty::station("12D3")] {
        let mut trusted = relay.connect(party).await;
        assert_eq!(set(&trusted.query(&[json!({})]).await), all);
    }
    let mut stranger = relay.stranger().await;
    assert_eq!(stranger.query(&[json!({})]).await, ids(&[public]));
    assert!(stranger.query(&[json!({"kinds": [4, 5]})]).await.is_empty());
    for (label, name) in [("REQ", "p"), ("COUNT", "c")] {
        let refused = stranger
            .ask(json!([label, name, {"kinds": [4, 1059]}]))
            .await;
        assert_eq!((&refused[0], &refused[1]), (&json!("CLOSED"), &json!(name)));
        assert!(refused[2].as_str().unwrap().starts_with("auth-required: "));
    }
    // A listener gets none of it either, until it has shown who it is.
    stranger.say(json!(["REQ", "live", {"limit": 0}])).await;
    stranger.stored("live").await;
    let later = event(1, 4, 6, &[&["p", &to_two]], "another");
    relay.store(&[later.clone(), note(1, 6)]).await;
    assert_eq!(stranger.live("live").await, note(1, 6).id.to_hex());

    let (accepted, reason) = stranger
        .authenticate(&keys(2), "wss://relay.example.org/")
        .await;
    assert!(accepted, "{reason}");
    let theirs = stranger.query(&[json!({"kinds": [4, 1059]})]).await;
    assert_eq!(set(&theirs), set(&ids(&[message, wrap, later])));
    let live = event(1, 4, 5, &[&["p", &to_two]], "for two");
    relay
        .store(&[event(1, 4, 5, &[], "for none"), live.clone()])
        .await;
    assert_eq!(stranger.live("live").await, live.id.to_hex());
    let count = stranger.ask(json!(["COUNT", "c", {"kinds": [4]}])).await;
    assert_eq!(count[2]["count"], 3);
}

#[tokio::test(start_paused = true)]
async fn requests_have_bounds() {
    let relay = Relay::new();
    relay.set(|options| {
        options.subscriptions_max = 2;
        options.filters_max = 3;
    });
    let mut client = relay.stranger().await;
    for name in ["a", "b", "a"] {
        client.say(json!(["REQ", name, {}])).await;
        client.stored(name).await;
    }
    for (request, prefix) in [
        (json!(["REQ", "c", {}]), "blocked: "),
        (json!(["REQ", "c", {}, {}, {}, {}]), "invalid: "),
        (json!(["REQ", "c", {"search": "x"}]), "unsupported: "),
        (json!(["COUNT", "c", {"search": "x"}]), "unsupported: "),
    ] {
        let refused = client.ask(request).await;
        assert_eq!((&refused[0], &refused[1]), (&json!("CLOSED"), &json!("c")));
        assert!(
            refused[2].as_str().unwrap().starts_with(prefix),
            "{refused}"
        );
    }
    client.say(json!(["CLOSE", "b"])).await;
    client.say(json!(["REQ", "c", {}])).await;
    client.stored("c").await;
    // Two filters of almost a megabyte are as much as one connection may have open.
    relay.set(|options| options.subscriptions_max = 20);
    let id = |n: u64| format!("{n:064x}");
    let large = json!({"ids": (0..15_000).map(id).collect::<Vec<_>>()});
    for name in ["l1", "l2"] {
        client.say(json!(["REQ", name, large])).await;
        client.stored(name).await;
    }
    let refused = client.ask(json!(["REQ", "l3", large])).await;
    assert!(
        refused[2].as_str().unwrap().starts_with("blocked: "),
        "{refused}"
    );
    client.say(json!(["CLOSE", "l1"])).await;
    client.say(json!(["REQ", "l3", large])).await;
    client.stored("l3").await;
    // Half a megabyte of short values takes ten times that in memory: what counts is what they take.
    let mut other = relay.stranger().await;
    let value = |n: u64| format!("{n:x}");
    let short = json!({"#t": (0..60_000).map(value).collect::<Vec<_>>()});
    for request in [
        json!(["REQ", "s", short]),
        json!(["COUNT", "s", short]),
        json!(["NEG-OPEN", "s", short, "6100000200"]),
    ] {
        let refused = other.ask(request).await;
        assert!(refused.to_string().contains("blocked: "), "{refused}");
    }
}
