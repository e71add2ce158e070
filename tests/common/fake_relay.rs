//! Relays that misbehave, in this process, on a port of their own.
//!
//! [`FakeRelay::tcp`], [`FakeRelay::upgraded`] and [`FakeRelay::sockets`] hand each connection to a function, before
//! and after the WebSocket handshake. [`FakeRelay::scripted`] is a relay that does what NIP-01 and NIP-77 ask, but
//! for what its [`Script`] says. A relay ends when it is dropped, and its connections with it.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use constellation::protocol::websocket::{Message, Role, SocketLimits, TextSocket, accept};
use constellation::protocol::{ClientMessage, hex, relay_message};
use constellation::tasks::TaskGroup;
use constellation_event::{EventLimits, UnverifiedEvent};
use constellation_reconcile::{FrameLimit, Item, VecSet, respond};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nostr::event::Event;
use nostr::filter::Filter;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// What whoever says who it is has to sign.
const CHALLENGE: &str = "sign-this";

/// What is left of a connection after the WebSocket handshake: the bytes.
pub(crate) type Stream = TokioIo<Upgraded>;

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve<S> = Arc<dyn Fn(S) -> Served + Send + Sync>;

/// A relay on a free port of loopback.
#[derive(Debug)]
pub(crate) struct FakeRelay {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeRelay {
    /// Hands over each connection as it is accepted.
    pub(crate) fn tcp<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve<TcpStream> = Arc::new(move |stream| Box::pin(serve(stream)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = format!("ws://{}", listener.local_addr().expect("bound"));
        let group = TaskGroup::new(256);
        let accepting = {
            let group = group.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    drop(group.spawn(serve(stream)));
                }
            }
        };
        runtime.block_on(async { drop(group.spawn(accepting)) });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Hands over each connection after the handshake. Whoever asks for NIP-11 gets a 404.
    pub(crate) fn upgraded<F>(serve: impl Fn(Stream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::informed(None, serve)
    }

    /// The same; whoever asks for NIP-11 gets this document.
    pub(crate) fn informed<F>(
        information: Option<&'static str>,
        serve: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve<Stream> = Arc::new(move |stream| Box::pin(serve(stream)));
        Self::tcp(move |stream| shake_hands(stream, information, Arc::clone(&serve)))
    }

    /// Hands over each WebSocket.
    pub(crate) fn sockets<F>(serve: impl Fn(TextSocket) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::upgraded(move |stream| {
            let socket = TextSocket::over(stream, Role::Server, SocketLimits::default());
            serve(socket.expect("valid options"))
        })
    }

    /// A relay that does what is asked, but for what the script says.
    pub(crate) fn scripted(script: Script) -> (Self, Arc<Played>) {
        let information = script.information;
        let limits = SocketLimits {
            message_bytes_max: script
                .message_bytes_max
                .unwrap_or(SocketLimits::default().message_bytes_max),
        };
        let played = Arc::new(Played {
            script: Mutex::new(script),
            ..Played::default()
        });
        let shared = Arc::clone(&played);
        let relay = Self::informed(information, move |stream| {
            let socket = TextSocket::over(stream, Role::Server, limits);
            play(socket.expect("valid options"), Arc::clone(&shared))
        });
        (relay, played)
    }

    /// `ws://127.0.0.1:…`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for FakeRelay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn shake_hands(stream: TcpStream, information: Option<&'static str>, serve: Serve<Stream>) {
    let (opened, opening) = tokio::sync::oneshot::channel();
    let opened = Mutex::new(Some(opened));
    let answer = service_fn(|mut request: Request<Incoming>| {
        let upgraded = hyper::upgrade::on(&mut request);
        let response = match accept(request, SocketLimits::default()) {
            Ok((response, _)) => {
                if let Some(opened) = opened.lock().expect("not poisoned").take() {
                    drop(opened.send(upgraded));
                }
                response.map(|_| Full::default())
            }
            Err(_) => {
                let status = information.map_or(StatusCode::NOT_FOUND, |_| StatusCode::OK);
                Response::builder()
                    .status(status)
                    .header("content-type", "application/nostr+json")
                    .body(Full::<Bytes>::from(information.unwrap_or_default()))
                    .expect("a response")
            }
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    if serving.await.is_ok()
        && let Ok(upgraded) = opening.await
        && let Ok(upgraded) = upgraded.await
    {
        serve(TokioIo::new(upgraded)).await;
    }
}

/// How a scripted relay answers NEG-OPEN and NEG-MSG.
#[derive(Debug, Default, Clone)]
pub(crate) enum Negentropy {
    /// As NIP-77 has it, over what is listed, whatever the filter.
    #[default]
    Honest,
    /// Not at all.
    Silent,
    /// By a NOTICE with this text.
    Notice(&'static str),
    /// By NEG-ERR with this reason.
    Error(&'static str),
    /// Always by this negentropy message.
    Always(Vec<u8>),
    /// Always by another fingerprint for everything.
    NeverEqual,
    /// It hangs up.
    HangsUp,
    /// As NIP-77 has it, over what is listed, delivered and matches the filter; unless that is more than so many.
    UpTo {
        /// The most that are compared.
        events: usize,
        /// Whether it says how many that are when there are more.
        is_stated: bool,
    },
}

/// How a scripted relay answers a REQ for ids.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Delivery {
    /// What it has of them, then EOSE.
    #[default]
    Whole,
    /// So many of each REQ, then nothing more.
    StopsAfter(usize),
    /// So many in all, then nothing more.
    Stalls(usize),
    /// So many of each REQ, then EOSE.
    Capped(usize),
    /// What it has of them, one in so much time.
    Slow(Duration),
    /// What it has of them, then notes that nobody asked for, without end.
    Endless,
}

/// How a scripted relay answers EVENT.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Publishing {
    /// OK, and keeps it.
    #[default]
    Keeps,
    /// OK, and forgets it.
    Forgets,
    /// Refuses it with this reason.
    Refuses(&'static str),
    /// Refuses it with this reason, and does not say what: the id is empty, as nostr_relay has it.
    RefusesNameless(&'static str),
    /// Refuses so many as too fast, then keeps.
    Limits(usize),
    /// Refuses as of the future what was made after this second, as a relay whose clock is behind; keeps the rest.
    UpTo(u64),
    /// Says nothing.
    Silent,
}

/// How a scripted relay refuses a REQ beyond those it bears.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Crowded {
    /// By CLOSED with this reason.
    Closed(&'static str),
    /// By a notice that does not say which REQ it is about.
    Notice(&'static str),
}

/// How a scripted relay answers a REQ that names no ids.
#[derive(Debug, Default, Clone)]
pub(crate) struct Listing {
    /// At most so many events, the newest first; whatever limit is asked for.
    pub(crate) cap: Option<usize>,
    /// Each event twice.
    pub(crate) repeats: bool,
    /// These too, in each answer, whatever is asked for.
    pub(crate) unwanted: Vec<String>,
    /// What is asked for does not matter: always the newest of all.
    pub(crate) ignores_filters: bool,
    /// So many REQs are refused as too fast.
    pub(crate) limits: usize,
    /// REQs that name no ids are refused with this reason.
    pub(crate) refuses: Option<&'static str>,
    /// REQs that name no ids but this kind are refused with this reason.
    pub(crate) refuses_kind: Option<(u16, &'static str)>,
    /// It greets with this notice whoever asks, and takes so long to answer.
    pub(crate) dawdles: Option<(&'static str, Duration)>,
    /// It answers with this event, again and again, without end.
    pub(crate) sends_for_ever: Option<String>,
    /// No answer to a REQ that names no ids comes to its end.
    pub(crate) never_ends: bool,
    /// What was made in the second of `until` is left out, as nostr_relay does.
    pub(crate) excludes_until: bool,
}

/// When a scripted relay asks who is there (NIP-42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// When somebody connects.
    AtFirst,
    /// With the first thing that it refuses.
    Late,
}

/// A relay's part.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) listed: Vec<Item>,
    pub(crate) delivered: HashMap<[u8; 32], String>,
    pub(crate) negentropy: Negentropy,
    pub(crate) delivery: Delivery,
    pub(crate) publishing: Publishing,
    pub(crate) listing: Listing,
    /// It gives and takes nothing before it knows who asks.
    pub(crate) asks: Option<Asks>,
    /// It takes no answer of anybody.
    pub(crate) knows_nobody: bool,
    /// So many answers to REQs break off in their middle, and the connection with them.
    pub(crate) breaks_off: usize,
    /// It hangs up after so many messages of a connection.
    pub(crate) hangs_up_after: Option<usize>,
    /// Its NIP-11 document.
    pub(crate) information: Option<&'static str>,
    /// The largest message that it reads.
    pub(crate) message_bytes_max: Option<usize>,
    /// REQs that it bears at a time, and how it refuses others.
    pub(crate) crowded: Option<(usize, Crowded)>,
    /// So many REQs for ids are closed for no fault of theirs.
    pub(crate) is_busy: usize,
}

impl Script {
    /// Holds these events.
    pub(crate) fn holding(events: &[Event]) -> Self {
        events.iter().fold(Self::default(), |script, event| {
            script.and(event, event.as_json())
        })
    }

    /// Lists this event too, and delivers this text for it.
    pub(crate) fn and(mut self, event: &Event, delivered: impl Into<String>) -> Self {
        self = self.and_only_lists(event);
        self.delivered.insert(event.id.to_bytes(), delivered.into());
        self
    }

    /// Lists this event too, and never delivers it.
    pub(crate) fn and_only_lists(mut self, event: &Event) -> Self {
        let item = Item {
            timestamp: event.created_at.as_secs(),
            id: event.id.to_bytes(),
        };
        self.listed.push(item);
        self
    }
}

/// What a scripted relay was asked.
#[derive(Debug, Default)]
pub(crate) struct Played {
    script: Mutex<Script>,
    requested: Mutex<Vec<String>>,
    offered: Mutex<Vec<String>>,
    delivered: Mutex<Vec<String>>,
    connections: AtomicUsize,
    negotiated: AtomicUsize,
    introduced: Mutex<Vec<String>>,
    /// Events that were looked at before.
    parsed: Mutex<HashMap<[u8; 32], UnverifiedEvent>>,
}

impl Played {
    /// Answers negentropy so from now on.
    pub(crate) fn negotiate_now(&self, negentropy: Negentropy) {
        self.script.lock().expect("not poisoned").negentropy = negentropy;
    }

    /// How often somebody has connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many negentropy messages it was sent since this was last asked.
    pub(crate) fn take_negotiated(&self) -> usize {
        self.negotiated.swap(0, Ordering::Relaxed)
    }

    /// The keys of those who said who they are.
    pub(crate) fn introduced(&self) -> Vec<String> {
        self.introduced.lock().expect("not poisoned").clone()
    }

    /// Changes what it does from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().expect("not poisoned"));
    }

    /// The ids of all that it holds.
    pub(crate) fn held(&self) -> std::collections::BTreeSet<String> {
        let script = self.script.lock().expect("not poisoned");
        script.delivered.keys().map(|id| hex::encode(id)).collect()
    }

    /// The ids that were requested since the last call.
    pub(crate) fn take_requested(&self) -> Vec<String> {
        std::mem::take(&mut self.requested.lock().expect("not poisoned"))
    }

    /// The ids of the events that were offered since the last call.
    pub(crate) fn take_offered(&self) -> Vec<String> {
        std::mem::take(&mut self.offered.lock().expect("not poisoned"))
    }

    /// The ids of the events that were delivered since the last call.
    pub(crate) fn take_delivered(&self) -> Vec<String> {
        std::mem::take(&mut self.delivered.lock().expect("not poisoned"))
    }

    /// How many events were delivered since they were last taken.
    pub(crate) fn delivered(&self) -> usize {
        self.delivered.lock().expect("not poisoned").len()
    }

    /// Whether it holds the event now.
    pub(crate) fn holds(&self, event: &Event) -> bool {
        let script = self.script.lock().expect("not poisoned");
        script
            .listed
            .iter()
            .any(|item| item.id == event.id.to_bytes())
    }

    /// The answer to AUTH, with `true`; else the refusal of whoever has not said who it is.
    fn ask(&self, text: &str, knows: bool) -> Option<(String, bool)> {
        let message = ClientMessage::parse(text, 20).ok()?;
        let reason = "auth-required: who are you?";
        match message {
            ClientMessage::Auth(json) => {
                let event: Value = serde_json::from_str(json).expect("an event");
                let id = hex::decode_array(event["id"].as_str()?).expect("an id");
                let event = UnverifiedEvent::parse(json.as_bytes(), &EventLimits::default());
                let event = event.expect("an event").verify().expect("a genuine event");
                assert!(json.contains(CHALLENGE), "{json}");
                let author = hex::encode(event.author());
                self.introduced.lock().expect("not poisoned").push(author);
                if self.script.lock().expect("not poisoned").knows_nobody {
                    let reason = "restricted: never heard of you";
                    return Some((relay_message::encode_ok(&id, false, reason), false));
                }
                Some((relay_message::encode_ok(&id, true, ""), true))
            }
            _ if knows => None,
            ClientMessage::Request { subscription, .. } => {
                Some((relay_message::encode_closed(&subscription, reason), false))
            }
            ClientMessage::NegOpen { subscription, .. } => {
                let refusal = relay_message::encode_neg_error(&subscription, reason, None);
                Some((refusal, false))
            }
            ClientMessage::Event(json) => {
                let event: Value = serde_json::from_str(json).expect("an event");
                let id = hex::decode_array(event["id"].as_str()?).expect("an id");
                Some((relay_message::encode_ok(&id, false, reason), false))
            }
            _ => None,
        }
    }

    /// Those that match the filter, by time and id, of what is delivered.
    fn matching(&self, script: &Script, filter: &Filter) -> Vec<(u64, [u8; 32])> {
        let mut parsed = self.parsed.lock().expect("not poisoned");
        let mut matching = Vec::new();
        for (id, json) in &script.delivered {
            if !parsed.contains_key(id) {
                match UnverifiedEvent::parse(json.as_bytes(), &EventLimits::default()) {
                    Ok(event) => _ = parsed.insert(*id, event),
                    Err(_) => continue,
                }
            }
            let event = &parsed[id];
            if event.matches(filter) {
                matching.push((event.created_at(), *id));
            }
        }
        matching
    }

    /// What is compared under a filter; else the refusal.
    fn compared(&self, subscription: &str, filter: Filter) -> Result<VecSet, String> {
        let script = self.script.lock().expect("not poisoned");
        let Negentropy::UpTo { events, is_stated } = script.negentropy else {
            return Ok(VecSet::from_unsorted(script.listed.clone()));
        };
        let matching = self.matching(&script, &filter);
        if matching.len() > events {
            let cap = is_stated.then_some(events as u64);
            let reason = "blocked: too many query results";
            return Err(relay_message::encode_neg_error(subscription, reason, cap));
        }
        let items = matching
            .into_iter()
            .map(|(timestamp, id)| Item { timestamp, id });
        Ok(VecSet::from_unsorted(items.collect()))
    }

    fn negotiate(
        &self,
        subscription: &str,
        message: &[u8],
        compared: Option<&VecSet>,
        round: &mut u64,
    ) -> Option<String> {
        let script = self.script.lock().expect("not poisoned");
        self.negotiated.fetch_add(1, Ordering::Relaxed);
        *round += 1;
        let reply = match &script.negentropy {
            Negentropy::Honest => {
                let set = VecSet::from_unsorted(script.listed.clone());
                respond(&set, message, FrameLimit::NONE).expect("a well-formed message")
            }
            Negentropy::UpTo { .. } => {
                let set = compared.expect("a session begins with NEG-OPEN");
                respond(set, message, FrameLimit::NONE).expect("a well-formed message")
            }
            Negentropy::Silent | Negentropy::HangsUp => return None,
            Negentropy::Notice(text) => return Some(relay_message::encode_notice(text)),
            Negentropy::Error(reason) => {
                return Some(relay_message::encode_neg_error(subscription, reason, None));
            }
            Negentropy::Always(reply) => reply.clone(),
            Negentropy::NeverEqual => {
                // Version 1; up to infinity; a fingerprint.
                let mut reply = vec![0x61, 0, 0, 1];
                reply.extend_from_slice(&[round.to_be_bytes(), round.to_le_bytes()].concat());
                reply
            }
        };
        Some(relay_message::encode_neg_message(subscription, &reply))
    }

    fn publish(&self, event: &str) -> Option<String> {
        let json: Value = serde_json::from_str(event).expect("an event");
        let id: [u8; 32] =
            hex::decode_array(json["id"].as_str().expect("an id")).expect("32 bytes of hex");
        self.offered
            .lock()
            .expect("not poisoned")
            .push(hex::encode(&id));
        let mut script = self.script.lock().expect("not poisoned");
        match script.publishing {
            Publishing::Silent => return None,
            Publishing::Refuses(reason) => {
                return Some(relay_message::encode_ok(&id, false, reason));
            }
            Publishing::RefusesNameless(reason) => {
                let named = relay_message::encode_ok(&id, false, reason);
                return Some(named.replace(&hex::encode(&id), ""));
            }
            Publishing::Limits(more) if more > 0 => {
                script.publishing = Publishing::Limits(more - 1);
                return Some(relay_message::encode_ok(
                    &id,
                    false,
                    "rate-limited: slow down",
                ));
            }
            Publishing::UpTo(last) if json["created_at"].as_u64() > Some(last) => {
                let reason = "invalid: created_at is too late";
                return Some(relay_message::encode_ok(&id, false, reason));
            }
            Publishing::Forgets => {}
            Publishing::UpTo(_) | Publishing::Keeps | Publishing::Limits(_) => {
                let timestamp = json["created_at"].as_u64().expect("a time");
                script.listed.push(Item { timestamp, id });
                script.delivered.insert(id, event.to_owned());
            }
        }
        Some(relay_message::encode_ok(&id, true, ""))
    }

    /// What is said to a REQ that names no ids.
    fn list(&self, subscription: &str, filter: &Value) -> Vec<String> {
        let mut script = self.script.lock().expect("not poisoned");
        if script.listing.limits > 0 {
            script.listing.limits -= 1;
            return vec![relay_message::encode_closed(
                subscription,
                "rate-limited: slow down",
            )];
        }
        if let Some(reason) = script.listing.refuses {
            return vec![relay_message::encode_closed(subscription, reason)];
        }
        let listing = script.listing.clone();
        let names = |kind: u16| {
            let kinds = filter["kinds"].as_array();
            kinds.is_some_and(|kinds| kinds.contains(&Value::from(kind)))
        };
        if let Some((kind, reason)) = listing.refuses_kind
            && names(kind)
            && filter["kinds"].as_array().map(Vec::len) <= Some(2)
        {
            return vec![relay_message::encode_closed(subscription, reason)];
        }
        let mut filter: Filter = serde_json::from_value(filter.clone()).expect("a filter");
        let limit = listing.cap.unwrap_or(usize::MAX);
        let limit = limit.min(filter.limit.unwrap_or(usize::MAX));
        if listing.ignores_filters {
            filter = Filter::new();
        } else if listing.excludes_until {
            filter.until = filter.until.map(|until| until - Duration::from_secs(1));
        }
        let mut found = self.matching(&script, &filter);
        found.sort_by_key(|(time, id)| (std::cmp::Reverse(*time), *id));
        found.truncate(limit);
        let times = if listing.repeats { 2 } else { 1 };
        let mut replies: Vec<String> = found
            .iter()
            .flat_map(|(_, id)| std::iter::repeat_n(&script.delivered[id], times))
            .chain(&listing.unwanted)
            .map(|json| relay_message::encode_event(subscription, json))
            .collect();
        if !listing.never_ends {
            replies.push(relay_message::encode_end_of_stored(subscription));
        }
        replies
    }

    fn hangs_up_on_comparing(&self) -> bool {
        let script = self.script.lock().expect("not poisoned");
        matches!(script.negentropy, Negentropy::HangsUp)
    }

    /// How a REQ is answered, if it names no ids.
    fn listing_of(&self, text: &str) -> Listing {
        let request: Value = serde_json::from_str(text).expect("JSON");
        if request[2].get("ids").is_some() {
            return Listing::default();
        }
        let script = self.script.lock().expect("not poisoned");
        script.listing.clone()
    }

    /// Whether this answer breaks off.
    fn breaks_off(&self) -> bool {
        let mut script = self.script.lock().expect("not poisoned");
        let left = script.breaks_off.checked_sub(1);
        script.breaks_off = left.unwrap_or(0);
        left.is_some()
    }

    /// What is said to a REQ, and what is to follow it.
    fn deliver(&self, subscription: &str, text: &str) -> (Vec<String>, Delivery) {
        let request: Value = serde_json::from_str(text).expect("JSON");
        if request[2].get("ids").is_none() {
            return (self.list(subscription, &request[2]), Delivery::Whole);
        }
        let ids = request[2]["ids"].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = ids
            .iter()
            .map(|id| id.as_str().expect("a text").to_owned())
            .collect();
        self.requested
            .lock()
            .expect("not poisoned")
            .extend(ids.iter().cloned());
        let mut script = self.script.lock().expect("not poisoned");
        if let Some(less) = script.is_busy.checked_sub(1) {
            script.is_busy = less;
            let reason = "error: the database is busy";
            return (
                vec![relay_message::encode_closed(subscription, reason)],
                Delivery::Whole,
            );
        }
        let mut found: Vec<(String, String)> = ids
            .into_iter()
            .filter_map(|id| {
                let json = script
                    .delivered
                    .get(&hex::decode_array(&id).expect("an id"))?;
                Some((relay_message::encode_event(subscription, json), id))
            })
            .collect();
        let delivery = script.delivery;
        let ends = match delivery {
            Delivery::Whole | Delivery::Slow(_) => true,
            Delivery::Endless => false,
            Delivery::StopsAfter(events) => {
                found.truncate(events);
                false
            }
            Delivery::Stalls(events) => {
                found.truncate(events);
                script.delivery = Delivery::Stalls(events - found.len());
                false
            }
            Delivery::Capped(events) => {
                found.truncate(events);
                true
            }
        };
        let (mut replies, ids): (Vec<String>, Vec<String>) = found.into_iter().unzip();
        self.delivered.lock().expect("not poisoned").extend(ids);
        if ends {
            replies.push(relay_message::encode_end_of_stored(subscription));
        }
        (replies, delivery)
    }

    /// What is said to a REQ while so many are open, if it is one too many.
    fn refuse(&self, subscription: &str, open: usize) -> Option<String> {
        let script = self.script.lock().expect("not poisoned");
        let (most, how) = script.crowded?;
        (open >= most).then(|| match how {
            Crowded::Closed(reason) => relay_message::encode_closed(subscription, reason),
            Crowded::Notice(text) => relay_message::encode_notice(text),
        })
    }
}

/// Serves one connection.
async fn play(mut socket: TextSocket, played: Arc<Played>) {
    let mut round = 0;
    let mut compared = None;
    let mut open: HashSet<String> = HashSet::new();
    played.connections.fetch_add(1, Ordering::Relaxed);
    let (asks, mut hangs_up_after) = {
        let script = played.script.lock().expect("not poisoned");
        (script.asks, script.hangs_up_after)
    };
    let challenge = || relay_message::encode_auth(CHALLENGE);
    if asks == Some(Asks::AtFirst) && socket.send(challenge()).await.is_err() {
        return;
    }
    let mut knows = asks.is_none();
    while let Ok(Some(Message::Text(text))) = socket.recv().await {
        let text = text.as_str();
        if let Some(left) = hangs_up_after.as_mut() {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return,
            }
        }
        if let Some((refusal, is_auth)) = played.ask(text, knows) {
            knows |= is_auth;
            let mut replies = vec![refusal];
            if !is_auth && asks == Some(Asks::Late) {
                replies.insert(0, challenge());
            }
            if socket.send_all(replies).await.is_err() {
                return;
            }
            continue;
        }
        let replies = match ClientMessage::parse(text, 20).expect("a message of NIP-01 or NIP-77") {
            ClientMessage::NegOpen {
                subscription,
                filter,
                message,
            } => match played.compared(&subscription, filter) {
                Ok(_) if played.hangs_up_on_comparing() => return,
                Ok(set) => {
                    compared = Some(set);
                    let reply =
                        played.negotiate(&subscription, &message, compared.as_ref(), &mut round);
                    reply.into_iter().collect()
                }
                Err(refusal) => vec![refusal],
            },
            ClientMessage::NegMessage {
                subscription,
                message,
            } => played
                .negotiate(&subscription, &message, compared.as_ref(), &mut round)
                .into_iter()
                .collect(),
            ClientMessage::Event(event) => played.publish(event).into_iter().collect(),
            ClientMessage::Close { subscription } => {
                open.remove(subscription.as_ref());
                Vec::new()
            }
            ClientMessage::Request { subscription, .. } => {
                if let Some(refusal) = played.refuse(&subscription, open.len()) {
                    drop(socket.send(refusal).await);
                    continue;
                }
                open.insert(subscription.to_string());
                let listing = played.listing_of(text);
                if let Some((greeting, pause)) = listing.dawdles {
                    let greeting = relay_message::encode_notice(greeting);
                    if socket.send(greeting).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
                if let Some(event) = listing.sends_for_ever {
                    let message = relay_message::encode_event(&subscription, &event);
                    while socket.send(message.clone()).await.is_ok() {
                        tokio::task::yield_now().await;
                    }
                    return;
                }
                let (replies, delivery) = played.deliver(&subscription, text);
                if matches!(delivery, Delivery::Endless) {
                    drop(socket.send_all(replies).await);
                    return endless_events(&mut socket, &subscription).await;
                }
                if let Delivery::Slow(pace) = delivery {
                    for reply in &replies {
                        tokio::time::sleep(pace).await;
                        drop(socket.send(reply.clone()).await);
                    }
                    continue;
                }
                if replies.len() > 1 && played.breaks_off() {
                    drop(socket.send_all(replies[..replies.len() / 2].to_vec()).await);
                    return;
                }
                replies
            }
            _ => Vec::new(),
        };
        if socket.send_all(replies).await.is_err() {
            return;
        }
    }
}

/// Sends the same event for ever, or until the peer has enough.
pub(crate) async fn endless_events(socket: &mut TextSocket, subscription: &str) {
    let unwanted = super::note(&super::author(98), 1_700_000_000, "nobody asked").as_json();
    let message = relay_message::encode_event(subscription, &unwanted);
    while socket.send(message.clone()).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

trait SendAll {
    async fn send_all(
        &mut self,
        texts: Vec<String>,
    ) -> Result<(), constellation::protocol::SocketError>;
}

impl SendAll for TextSocket {
    async fn send_all(
        &mut self,
        texts: Vec<String>,
    ) -> Result<(), constellation::protocol::SocketError> {
        for text in texts {
            self.send(text).await?;
        }
        Ok(())
    }
}
