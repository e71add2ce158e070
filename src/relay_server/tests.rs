//! Tests of the relay over byte streams in memory, with a real store and an inline ingest; the clock is paused.

mod ending;
mod linking;
mod negotiating;
mod plugin;
mod publishing;
mod requesting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use constellation_event::BreakEven;
use constellation_event::UnverifiedEvent;
use constellation_eventstore::{Options, open};
use http::header::{HeaderName, HeaderValue};
use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use serde_json::{Value, json};
use tokio::io::duplex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;

use super::{ConnectionEnd, RelayContext, RelayOptions, RemoteParty, serve_connection};
use crate::ingest::{Ingest, Lane, Mode, Origin, Parts, Scope, Verdict};
use crate::protocol::websocket::connect_websocket;
use crate::protocol::{Message, SocketLimits, TextSocket};
use crate::tasks::TaskGroup;
use crate::time::{Clock, TimeSource};

const NOW: u64 = 1_700_000_000;

/// Wall time that stands where it is put; monotonic time follows it.
#[derive(Clone)]
struct HandClock(Arc<AtomicU64>);

impl TimeSource for HandClock {
    fn wall(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

/// A relay under test.
struct Relay {
    context: Arc<RelayContext>,
    ingest: Ingest,
    options: watch::Sender<Arc<RelayOptions>>,
    scope: watch::Sender<Arc<Scope>>,
    time: HandClock,
    tasks: TaskGroup,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut RelayContext)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, writer) =
            open(folder.path(), Options::new(Arc::new(|| Duration::ZERO))).unwrap();
        let time = HandClock(Arc::new(AtomicU64::new(NOW)));
        let clock = Clock::new(time.clone());
        let ingest = Ingest::start(
            Parts {
                store,
                writer,
                break_even: Box::new(BreakEven::default),
                clock: clock.clone(),
                random: crate::random::Random::seeded(2),
            },
            Mode::Inline,
        )
        .unwrap();
        let options = watch::Sender::new(Arc::new(RelayOptions::default()));
        let scope = watch::Sender::new(Arc::new(Scope::everything()));
        let mut context = RelayContext::new(
            ingest.clone(),
            clock,
            crate::random::Random::seeded(1),
            options.subscribe(),
            scope.subscribe(),
            watch::Sender::new(crate::peer::PeerId::random()).subscribe(),
        );
        change(&mut context);
        Self {
            context: Arc::new(context),
            ingest,
            options,
            scope,
            time,
            tasks: TaskGroup::new(100),
            _folder: folder,
        }
    }

    fn set(&self, change: impl FnOnce(&mut RelayOptions)) {
        let mut options = RelayOptions::clone(&self.options.borrow());
        change(&mut options);
        self.options.send_replace(Arc::new(options));
    }

    async fn store(&self, events: &[Event]) {
        let events: Vec<_> = events.iter().map(UnverifiedEvent::from_event).collect();
        let count = events.len();
        let verdicts = self
            .ingest
            .submit(&self.ingest.source(Lane::Bulk), Origin::Import, events)
            .await
            .unwrap();
        let kept = |verdict: &Verdict| matches!(verdict, Verdict::Stored | Verdict::Ephemeral);
        assert_eq!(
            verdicts.iter().filter(|verdict| kept(verdict)).count(),
            count
        );
    }

    /// A byte stream to the relay, and how its connection ends.
    fn dial(
        &self,
        party: RemoteParty,
        buffer: usize,
    ) -> (tokio::io::DuplexStream, JoinHandle<Option<ConnectionEnd>>) {
        let (ours, theirs) = duplex(buffer);
        let served = serve_connection(theirs, party, Arc::clone(&self.context));
        (ours, self.tasks.spawn(served).unwrap())
    }

    async fn connect_with(
        &self,
        party: RemoteParty,
        buffer: usize,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Client {
        let (stream, end) = self.dial(party, buffer);
        let url = Url::parse("ws://localhost:7777/").unwrap();
        let limits = SocketLimits {
            message_bytes_max: 8 << 20,
        };
        let socket = within(connect_websocket(stream, &url, headers, limits))
            .await
            .unwrap();
        let mut client = Client {
            socket,
            end,
            challenge: String::new(),
        };
        let challenge = client.hear().await;
        assert_eq!(challenge[0], "AUTH");
        client.challenge = challenge[1].as_str().unwrap().to_owned();
        client
    }

    async fn connect(&self, party: RemoteParty) -> Client {
        self.connect_with(party, 1 << 20, &[]).await
    }

    /// The captain.
    async fn local(&self) -> Client {
        self.connect(local_party()).await
    }

    async fn stranger(&self) -> Client {
        self.connect(RemoteParty::default()).await
    }
}

fn local_party() -> RemoteParty {
    RemoteParty::of_tcp("127.0.0.1:5".parse().unwrap(), None)
}

/// The other end of a conversation.
struct Client {
    socket: TextSocket,
    end: JoinHandle<Option<ConnectionEnd>>,
    challenge: String,
}

impl Client {
    async fn say(&mut self, message: Value) {
        self.say_text(message.to_string()).await;
    }

    async fn say_text(&mut self, text: impl Into<String>) {
        within(self.socket.send(text.into())).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        match within(self.socket.recv()).await.unwrap() {
            Some(Message::Text(text)) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("a message expected, not {other:?}"),
        }
    }

    /// Says something, and hears the next answer.
    async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    /// The ids of a subscription's events up to its EOSE; nothing else may come.
    async fn stored(&mut self, name: &str) -> Vec<String> {
        let mut ids = Vec::new();
        loop {
            let message = self.hear().await;
            assert_eq!(message[1], name, "{message}");
            match message[0].as_str().unwrap() {
                "EVENT" => ids.push(id_in(&message)),
                "EOSE" => return ids,
                _ => panic!("EVENT or EOSE expected, not {message}"),
            }
        }
    }

    async fn query(&mut self, filters: &[Value]) -> Vec<String> {
        let mut message = vec![json!("REQ"), json!("q")];
        message.extend_from_slice(filters);
        self.say(Value::Array(message)).await;
        let ids = self.stored("q").await;
        // The answer to a later message tells that the subscription is closed.
        self.say(json!(["CLOSE", "q"])).await;
        let closed = self.ask(json!(["COUNT", "closed", {"ids": []}])).await;
        assert_eq!(closed, json!(["COUNT", "closed", {"count": 0}]));
        ids
    }

    /// The next message must be a live event.
    async fn live(&mut self, name: &str) -> String {
        let message = self.hear().await;
        assert_eq!(
            (&message[0], &message[1]),
            (&json!("EVENT"), &json!(name)),
            "{message}"
        );
        id_in(&message)
    }

    /// Offers an event; gives what the OK says.
    async fn offer(&mut self, event: &Event) -> (bool, String) {
        let ok = self.ask(json!(["EVENT", event])).await;
        assert_eq!(
            (&ok[0], &ok[1]),
            (&json!("OK"), &json!(event.id.to_hex())),
            "{ok}"
        );
        (ok[2].as_bool().unwrap(), ok[3].as_str().unwrap().to_owned())
    }

    async fn authenticate(&mut self, keys: &Keys, relay: &str) -> (bool, String) {
        let event = EventBuilder::new(Kind::from_u16(22_242), "")
            .tags([tag(&["relay", relay]), tag(&["challenge", &self.challenge])])
            .custom_created_at(Timestamp::from_secs(NOW))
            .finalize(keys)
            .unwrap();
        let ok = self.ask(json!(["AUTH", event])).await;
        assert_eq!(ok[0], "OK", "{ok}");
        (ok[2].as_bool().unwrap(), ok[3].as_str().unwrap().to_owned())
    }

    /// Hears everything until the relay ends the connection, and says why it did.
    async fn ends(mut self) -> (Vec<Value>, ConnectionEnd) {
        let mut heard = Vec::new();
        while let Ok(Some(Message::Text(text))) = within(self.socket.recv()).await {
            heard.push(serde_json::from_str(text.as_str()).unwrap());
        }
        (heard, within(self.end).await.unwrap().unwrap())
    }
}

fn id_in(message: &Value) -> String {
    message[2]["id"].as_str().unwrap().to_owned()
}

/// Every wait of a test is under a deadline; the clock is paused, so it costs nothing.
async fn within<F: Future>(waiting: F) -> F::Output {
    timeout(Duration::from_secs(36_000), waiting)
        .await
        .expect("must not hang")
}

fn keys(number: u8) -> Keys {
    let mut secret = [number; 32];
    secret[31] = 1;
    Keys::new(SecretKey::from_slice(&secret).unwrap())
}

fn tag(parts: &[&str]) -> Tag {
    Tag::parse(parts.iter().copied()).unwrap()
}

/// An event `ago` seconds old.
fn event(author: u8, kind: u16, ago: u64, tags: &[&[&str]], content: &str) -> Event {
    EventBuilder::new(Kind::from_u16(kind), content)
        .tags(tags.iter().map(|parts| tag(parts)))
        .custom_created_at(Timestamp::from_secs(NOW - ago))
        .finalize(&keys(author))
        .unwrap()
}

fn note(author: u8, ago: u64) -> Event {
    event(author, 1, ago, &[], &format!("{author} {ago}"))
}

fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id.to_hex()).collect()
}

fn set<T: Ord + Clone>(items: &[T]) -> BTreeSet<T> {
    items.iter().cloned().collect()
}
