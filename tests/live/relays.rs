//! Live links with relays that are no stations: in this process, so that it is seen what they are asked and sent.

use std::sync::{Arc, Mutex, MutexGuard};

use constellation::protocol::websocket::{Message, TextSocket};
use constellation::protocol::{ClientMessage, relay_message};
use nostr::event::Event;
use serde_json::Value;

use super::common::fake_relay::FakeRelay;
use super::common::{Home, author, note, notes, now, wait_until, with_bad_signature};
use super::{Client, links, live};

/// What a relay was asked by the link, and which events it was offered over it.
#[derive(Debug, Default)]
struct Seen {
    filters: Mutex<Vec<Value>>,
    offered: Mutex<Vec<String>>,
}

fn hold<T>(seen: &Mutex<T>) -> MutexGuard<'_, T> {
    seen.lock().expect("nobody panics while holding it")
}

/// Answers a subscription by EOSE, then tells it of `news`; refuses to be listed; takes every event.
fn telling(news: Vec<String>) -> (FakeRelay, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let shared = Arc::clone(&seen);
    let relay = FakeRelay::sockets(move |socket| serve(socket, news.clone(), Arc::clone(&shared)));
    (relay, seen)
}

async fn serve(mut socket: TextSocket, news: Vec<String>, seen: Arc<Seen>) {
    while let Ok(Some(Message::Text(text))) = socket.recv().await {
        let mut answers = Vec::new();
        match ClientMessage::parse(text.as_str(), 20) {
            Ok(ClientMessage::Request { subscription, .. }) => {
                let asked: Value = serde_json::from_str(text.as_str()).expect("JSON");
                let filter = asked[2].clone();
                if filter["limit"].is_null() {
                    answers.push(relay_message::encode_end_of_stored(&subscription));
                    let told = news.iter();
                    answers
                        .extend(told.map(|json| relay_message::encode_event(&subscription, json)));
                } else {
                    // An exchange would offer what it lacks: this is about the link alone.
                    let refusal = "blocked: no listing here";
                    answers.push(relay_message::encode_closed(&subscription, refusal));
                }
                hold(&seen.filters).push(filter);
            }
            Ok(ClientMessage::Event(json)) => {
                let event: Value = serde_json::from_str(json).expect("JSON");
                let id = event["id"].as_str().expect("an id").to_owned();
                let bytes = constellation::protocol::hex::decode_array(&id).expect("an id");
                answers.push(relay_message::encode_ok(&bytes, true, ""));
                hold(&seen.offered).push(id);
            }
            _ => answers.push(relay_message::encode_notice("error: unknown message")),
        }
        for answer in answers {
            if socket.send(answer).await.is_err() {
                return;
            }
        }
    }
}

fn peer(relay: &FakeRelay) -> Home {
    let peer = format!("[[peers]]\naddress = \"{}\"\n", relay.address());
    Home::with_config(&live(&peer))
}

#[test]
fn a_relay_that_is_no_station_is_asked_for_the_last_minutes_and_told_what_is_new() {
    let news: Vec<Event> = notes(&author(1), now(), 3);
    let (relay, seen) = telling(news.iter().map(Event::as_json).collect());
    let home = peer(&relay);
    let station = home.start();
    wait_until("what it told is stored", || home.count("{}") == 3);
    let filter = hold(&seen.filters)[0].clone();
    assert!(filter["limit"].is_null(), "{filter}");
    let since = filter["since"].as_u64().expect("a time");
    assert!(now() - since >= 300 && now() - since < 400, "{filter}");

    let ours = note(&author(2), now(), "ours");
    Client::of(&station).publish(&ours);
    wait_until("it was offered", || !hold(&seen.offered).is_empty());
    assert_eq!(
        *hold(&seen.offered),
        [ours.id.to_hex()],
        "and nothing that it told"
    );
    let link = &links(&home)[0];
    assert_eq!(link["station"], Value::Null, "{link}");
    assert_eq!(
        (&link["events_in"], &link["events_out"]),
        (&3.into(), &1.into()),
        "{link}"
    );
}

#[test]
fn a_relay_that_sends_forgeries_is_left_alone_and_nothing_of_it_is_stored() {
    let forged = notes(&author(1), now() - 1_000, 150);
    let (relay, _) = telling(forged.iter().map(with_bad_signature).collect());
    let home = peer(&relay);
    let station = home.start();
    wait_until("the link has ended", || {
        station
            .log()
            .contains("were forged, unreadable or not asked for")
    });
    wait_until("it is not shown any more", || links(&home).is_empty());
    assert_eq!(home.count("{}"), 0);
}
