//! A relay that is no station is asked by author, as far as it takes that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use constellation::protocol::websocket::{Message, Role, SocketLimits, TextSocket};
use constellation::protocol::{ClientMessage, relay_message};
use nostr::event::Event;
use nostr::key::Keys;
use rustix::process::Signal;
use serde_json::Value;

use super::common::fake_relay::FakeRelay;
use super::common::{Home, author, note, now, wait_until};
use super::{links, live};

/// Room for 29 authors in half a message, and for four subscriptions and a question.
const SMALL: &str = r#"{"limitation":{"max_message_length":4096,"max_subscriptions":5}}"#;

/// What a relay holds, and what it was asked by live links.
#[derive(Debug, Default)]
struct Relay {
    held: Mutex<Vec<Event>>,
    /// Every filter of a live link so far.
    asked: Mutex<Vec<Value>>,
    largest: Mutex<usize>,
    /// Subscriptions by author that it bears at a time.
    bears: usize,
    most_open: Mutex<usize>,
}

fn hold<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while holding it")
}

fn authors_of(filter: &Value) -> BTreeSet<String> {
    let keys = filter["authors"].as_array().into_iter().flatten();
    keys.map(|key| key.as_str().expect("a key").to_owned())
        .collect()
}

impl Relay {
    fn start(self) -> (FakeRelay, Arc<Self>) {
        let shared = Arc::new(self);
        let relay = Arc::clone(&shared);
        let serving = FakeRelay::informed(Some(SMALL), move |stream| {
            let socket = TextSocket::over(stream, Role::Server, SocketLimits::default());
            Arc::clone(&relay).serve(socket.expect("valid options"))
        });
        (serving, shared)
    }

    async fn serve(self: Arc<Self>, mut socket: TextSocket) {
        let mut open: BTreeMap<String, Value> = BTreeMap::new();
        while let Ok(Some(Message::Text(text))) = socket.recv().await {
            let mut answers = Vec::new();
            match ClientMessage::parse(text.as_str(), 20) {
                Ok(ClientMessage::Request { subscription, .. }) => {
                    let length = text.as_str().len();
                    let asked: Value = serde_json::from_str(text.as_str()).expect("JSON");
                    let filter = asked[2].clone();
                    let is_of_link = filter["limit"].is_null();
                    if !is_of_link {
                        let refusal = "blocked: no listing here";
                        answers.push(relay_message::encode_closed(&subscription, refusal));
                    } else if filter["authors"].is_array() && open.len() >= self.bears {
                        let refusal = "error: too many subscriptions";
                        answers.push(relay_message::encode_closed(&subscription, refusal));
                    } else {
                        let wanted = authors_of(&filter);
                        let told = hold(&self.held).clone().into_iter().filter(|event| {
                            wanted.is_empty() || wanted.contains(&event.pubkey.to_hex())
                        });
                        answers.extend(told.map(|event| {
                            relay_message::encode_event(&subscription, &event.as_json())
                        }));
                        answers.push(relay_message::encode_end_of_stored(&subscription));
                        open.insert(subscription.to_string(), filter.clone());
                        let most = &mut *hold(&self.most_open);
                        *most = (*most).max(open.len());
                    }
                    if is_of_link {
                        let largest = &mut *hold(&self.largest);
                        *largest = (*largest).max(length);
                        hold(&self.asked).push(filter);
                    }
                }
                Ok(ClientMessage::Close { subscription }) => drop(open.remove(&*subscription)),
                _ => answers.push(relay_message::encode_notice("error: unknown message")),
            }
            for answer in answers {
                if socket.send(answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn hex(keys: &Keys) -> String {
    keys.public_key().to_hex()
}

fn sharing(relay: &FakeRelay, authors: &[Keys]) -> String {
    let keys: Vec<String> = authors
        .iter()
        .map(|keys| format!("\"{}\"", hex(keys)))
        .collect();
    let rest = format!(
        "[scope]\nauthors = [{}]\n[[peers]]\naddress = \"{}\"\n",
        keys.join(", "),
        relay.address()
    );
    live(&rest)
}

fn exchanges(home: &Home) -> u64 {
    home.status()["live"]["exchanges"]
        .as_u64()
        .expect("a number")
}

#[test]
fn it_is_asked_by_author_in_messages_that_it_takes_and_anew_when_the_scope_changes() {
    let authors: Vec<Keys> = (1..=101).map(author).collect();
    let (known, joins) = authors.split_at(100);
    let its = [&authors[0], &authors[99], &author(200)].map(|keys| note(keys, now(), "new"));
    let relay = Relay {
        held: Mutex::new(its.to_vec()),
        bears: 4,
        ..Relay::default()
    };
    let (serving, relay) = relay.start();
    let home = Home::with_config(&sharing(&serving, known));
    let station = home.start();
    wait_until("what it told is stored", || home.count("{}") == 2);
    let asked = hold(&relay.asked).clone();
    assert_eq!(asked.len(), 4, "{asked:?}");
    let named: BTreeSet<String> = asked.iter().flat_map(authors_of).collect();
    assert_eq!(named, known.iter().map(hex).collect());
    assert!(*hold(&relay.largest) <= 4_096);
    assert_eq!(links(&home)[0]["authors_asked"], 100);
    // The stranger's would have been refused: it was never sent.
    assert_eq!(links(&home)[0]["refused_in"], 0);

    wait_until("the exchange after connecting is made", || {
        exchanges(&home) > 0
    });
    let before = exchanges(&home);
    hold(&relay.held).push(note(&joins[0], now(), "from one who joins"));
    home.configure(&sharing(&serving, &authors));
    station.signal(Signal::HUP);
    wait_until("what the one who joins wrote is stored", || {
        home.count("{}") == 3
    });
    assert_eq!(links(&home)[0]["authors_asked"], 101);
    let named: BTreeSet<String> = hold(&relay.asked)[4..]
        .iter()
        .flat_map(authors_of)
        .collect();
    assert_eq!(named, authors.iter().map(hex).collect());
    assert!(
        *hold(&relay.most_open) <= 4,
        "the old ones were closed first"
    );
    wait_until("an exchange closes the gap", || exchanges(&home) > before);
    assert_eq!(links(&home).len(), 1, "over the same link");
}

#[test]
fn one_that_does_not_take_so_many_subscriptions_is_asked_for_everybodys_and_it_is_said() {
    let authors: Vec<Keys> = (1..=100).map(author).collect();
    let its = [&authors[0], &author(200)].map(|keys| note(keys, now(), "new"));
    let relay = Relay {
        held: Mutex::new(its.to_vec()),
        bears: 2,
        ..Relay::default()
    };
    let (serving, relay) = relay.start();
    let home = Home::with_config(&sharing(&serving, &authors));
    let station = home.start();
    wait_until("what is in scope is stored", || home.count("{}") == 1);
    wait_until("the link stands", || links(&home).len() == 1);
    let last = hold(&relay.asked).last().cloned().expect("asked");
    assert!(last["authors"].is_null(), "{last}");
    assert_eq!(links(&home)[0]["authors_asked"], Value::Null);
    assert!(
        station
            .log()
            .contains("does not take subscriptions by author")
    );

    // More than it says it takes: it is not even tried.
    let many: Vec<Keys> = (1..=150).map(author).collect();
    let (serving, relay) = Relay::default().start();
    let home = Home::with_config(&sharing(&serving, &many));
    let station = home.start();
    wait_until("the link stands", || links(&home).len() == 1);
    assert!(
        hold(&relay.asked)
            .iter()
            .all(|filter| filter["authors"].is_null())
    );
    assert!(
        station
            .log()
            .contains("more authors than the relay can be asked for")
    );
}
