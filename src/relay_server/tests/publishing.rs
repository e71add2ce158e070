//! EVENT and AUTH: who may write, and what the OK says.

use std::collections::HashSet;

use super::*;
use crate::ingest::ListChange;
use crate::relay_server::WritePolicy;
use constellation_eventstore::{Block, BlockTarget, KindSet};

#[tokio::test(start_paused = true)]
async fn every_verdict_has_its_words() {
    let relay = Relay::new();
    let mut client = relay.local().await;
    let hello = note(1, 10);
    assert_eq!(client.offer(&hello).await, (true, String::new()));
    let (accepted, reason) = client.offer(&hello).await;
    assert!(accepted && reason.starts_with("duplicate: "), "{reason}");

    let target = note(1, 20);
    let deletion = event(1, 5, 5, &[&["e", &target.id.to_hex()]], "");
    let newer = event(1, 0, 5, &[], "newer");
    let ephemeral = event(1, 20_001, 0, &[], "");
    for event in [&deletion, &newer, &ephemeral] {
        assert_eq!(client.offer(event).await, (true, String::new()));
    }
    let past = (NOW - 1).to_string();
    let future = EventBuilder::new(Kind::TextNote, "future")
        .custom_created_at(Timestamp::from_secs(NOW + 1_000))
        .finalize(&keys(1))
        .unwrap();
    let mut forged = note(1, 11);
    forged.content = "forged".to_owned();
    let mut unsigned = note(1, 12);
    unsigned.sig = hello.sig;
    for (event, reason) in [
        (target, "blocked: deleted by its author"),
        (
            event(1, 0, 6, &[], "older"),
            "blocked: a newer version is stored",
        ),
        (
            event(1, 1, 9, &[&["expiration", &past]], ""),
            "invalid: expired",
        ),
        (future, "invalid: created_at is too far in the future"),
        (forged, "invalid: the id is not the event's hash"),
        (unsigned, "invalid: bad signature"),
        (
            event(1, 1, 9, &[&["-"]], ""),
            "auth-required: only its author may publish it",
        ),
        (
            event(1, 22_242, 0, &[], ""),
            "invalid: this kind belongs into AUTH",
        ),
        (
            event(1, 1, 3, &[], &"x".repeat(300_000)),
            "invalid: too large",
        ),
    ] {
        assert_eq!(client.offer(&event).await, (false, reason.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_answered_by_id_or_notice() {
    let relay = Relay::new();
    let mut client = relay.local().await;
    let id = "ab".repeat(32);
    let ok = client
        .ask(json!(["EVENT", {"id": id, "created_at": "yesterday"}]))
        .await;
    assert_eq!(
        (&ok[0], &ok[1], &ok[2]),
        (&json!("OK"), &json!(id), &json!(false))
    );
    assert!(ok[3].as_str().unwrap().starts_with("invalid: "));
    for message in [
        json!(["EVENT", {"id": "x"}]),
        json!(["EVENT", "x"]),
        json!(["EVENT"]),
    ] {
        assert_eq!(client.ask(message).await[0], "NOTICE");
    }
    assert!(client.offer(&note(1, 1)).await.0);
}

#[tokio::test(start_paused = true)]
async fn who_may_write_is_a_matter_of_policy_and_may_change_meanwhile() {
    let relay = Relay::new();
    let (mut stranger, mut local) = (relay.stranger().await, relay.local().await);
    let mut ago = 1_000;
    let mut fresh = |author: u8, kind: u16| {
        ago -= 1;
        event(author, kind, ago, &[], "")
    };
    let one = Arc::new(HashSet::from([keys(1).public_key().to_bytes()]));
    let scope = Scope {
        kinds: KindSet::Only(BTreeSet::from([1])),
        authors: Some(Arc::clone(&one)),
    };
    relay.scope.send_replace(Arc::new(scope));
    for (policy, allowed) in [
        (WritePolicy::Loopback, [false; 4]),
        (WritePolicy::Authors(one), [true, true, false, false]),
        (WritePolicy::Scope, [true, false, false, false]),
        (WritePolicy::Anyone, [true; 4]),
    ] {
        relay.set(|options| options.write = policy.clone());
        for ((author, kind), allowed) in [(1, 1), (1, 7), (2, 1), (2, 7)].into_iter().zip(allowed) {
            let (accepted, reason) = stranger.offer(&fresh(author, kind)).await;
            assert_eq!(accepted, allowed, "{policy:?} {author} {kind}: {reason}");
            assert!(accepted || reason.starts_with("restricted: "), "{reason}");
            assert!(local.offer(&fresh(author, kind)).await.0, "{policy:?}");
        }
    }
    // What is there already is a duplicate, whoever offers it.
    relay.set(|options| options.write = WritePolicy::Loopback);
    let known = fresh(2, 1);
    relay.store(std::slice::from_ref(&known)).await;
    let (accepted, reason) = stranger.offer(&known).await;
    assert!(accepted && reason.starts_with("duplicate: "), "{reason}");
    // All authors: then anyone, about the kinds in scope.
    relay.set(|options| options.write = WritePolicy::Scope);
    relay
        .scope
        .send_modify(|scope| Arc::make_mut(scope).authors = None);
    assert!(stranger.offer(&fresh(2, 1)).await.0);
    assert!(!stranger.offer(&fresh(2, 7)).await.0);
}

#[tokio::test(start_paused = true)]
async fn an_admitted_station_gives_what_is_in_scope_and_nothing_protected() {
    let relay = Relay::new();
    relay.scope.send_modify(|scope| {
        Arc::make_mut(scope).kinds = KindSet::Only(BTreeSet::from([1]));
    });
    let mut station = relay.connect(RemoteParty::station("12D3")).await;
    assert!(station.offer(&note(1, 1)).await.0);
    let (_, reason) = station.offer(&event(1, 7, 1, &[], "")).await;
    assert_eq!(reason, "blocked: outside what this station shares");
    let (_, reason) = station.offer(&event(1, 1, 1, &[&["-"]], "")).await;
    assert_eq!(reason, "restricted: only its author may publish it");
}

#[tokio::test(start_paused = true)]
async fn strangers_have_a_rate_and_many_may_be_in_flight() {
    let relay = Relay::new();
    relay.set(|options| {
        options.write = WritePolicy::Anyone;
        options.events_per_minute = 10;
    });
    let mut stranger = relay.stranger().await;
    let notes: Vec<Event> = (0..15).map(|ago| note(1, ago + 1)).collect();
    for note in &notes {
        stranger.say(json!(["EVENT", note])).await;
    }
    let mut answers = Vec::new();
    for _ in &notes {
        answers.push(stranger.hear().await);
    }
    let refused: Vec<_> = answers.iter().filter(|ok| ok[2] == false).collect();
    assert_eq!(refused.len(), 5);
    assert!(
        refused
            .iter()
            .all(|ok| ok[3].as_str().unwrap().starts_with("rate-limited: "))
    );
    relay.time.0.fetch_add(6, Ordering::SeqCst);
    assert!(
        stranger.offer(&notes[14]).await.0,
        "one more every six seconds"
    );
    let mut local = relay.local().await;
    for ago in 100..130 {
        assert!(local.offer(&note(1, ago)).await.0, "this machine is exempt");
    }
}

#[tokio::test(start_paused = true)]
async fn several_keys_may_be_proven_and_proofs_for_others_are_none() {
    let relay = Relay::new();
    relay.set(|options| {
        options.write = WritePolicy::Anyone;
        options.own_urls = vec!["wss://relay.example.org".to_owned()];
    });
    let mut client = relay.stranger().await;
    let protected = |author: u8| event(author, 1, 9, &[&["-"]], "mine");
    assert!(
        client
            .offer(&protected(1))
            .await
            .1
            .starts_with("auth-required: ")
    );
    for relay in ["wss://evil.example", "ws://localhost:7777/", "nonsense"] {
        let (accepted, reason) = client.authenticate(&keys(1), relay).await;
        assert!(
            !accepted && reason.starts_with("invalid: "),
            "{relay}: {reason}"
        );
    }
    let challenge = std::mem::replace(&mut client.challenge, "another".to_owned());
    assert!(
        !client
            .authenticate(&keys(1), "wss://relay.example.org")
            .await
            .0
    );
    client.challenge = challenge;
    for author in [1, 2] {
        assert!(
            client
                .authenticate(&keys(author), "wss://relay.example.org")
                .await
                .0
        );
        assert!(client.offer(&protected(author)).await.0);
    }
    assert!(
        client
            .offer(&protected(3))
            .await
            .1
            .starts_with("restricted: ")
    );
    // On this machine, the name that was dialled is good enough.
    assert!(
        relay
            .local()
            .await
            .authenticate(&keys(1), "ws://localhost:7777")
            .await
            .0
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_captain_blocks_is_refused_from_everyone_and_shown_to_nobody() {
    let relay = Relay::new();
    let (stored, other) = (note(1, 10), note(2, 10));
    relay.store(&[stored.clone(), other.clone()]).await;
    let target = BlockTarget::Author(keys(1).public_key().to_bytes());
    let block = Block {
        target,
        purged: false,
        since: NOW,
        reason: String::new(),
    };
    let mut local = relay.local().await;
    let mut station = relay.connect(RemoteParty::station("12D3")).await;
    relay
        .ingest
        .change_list(ListChange::Block(block))
        .await
        .unwrap();
    for client in [&mut local, &mut station] {
        for event in [&stored, &note(1, 5), &event(1, 20_001, 0, &[], "")] {
            let (accepted, reason) = client.offer(event).await;
            assert!(!accepted);
            assert_eq!(reason, "blocked: by the operator of this relay");
        }
        assert_eq!(client.query(&[json!({})]).await, [other.id.to_hex()]);
        let by_id = json!({"ids": [stored.id.to_hex()]});
        assert!(client.query(&[by_id]).await.is_empty());
        let counted = client.ask(json!(["COUNT", "c", {}])).await;
        assert_eq!(counted[2]["count"], 1);
    }
    relay
        .ingest
        .change_list(ListChange::Unblock(target))
        .await
        .unwrap();
    let (accepted, reason) = local.offer(&stored).await;
    assert!(accepted && reason.starts_with("duplicate: "), "{reason}");
    assert!(local.offer(&note(1, 5)).await.0);
    assert_eq!(local.query(&[json!({"kinds": [1]})]).await.len(), 3);
}
