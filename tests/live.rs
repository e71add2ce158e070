//! Live links with the real binary and, where there are many stations, with stations in this process: what is published on
//! one is everywhere at once, nothing goes back to where it came from, a gap is closed, and who may not share has no links.

#[path = "live/by_author.rs"]
mod by_author;
mod common;
#[path = "live/echo.rs"]
mod echo;
#[path = "live/many.rs"]
mod many;
#[path = "live/relays.rs"]
mod relays;
#[path = "live/troubles.rs"]
mod troubles;
#[path = "live/twenty.rs"]
mod twenty;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use common::tunnelled::{address, own_node, peer_id};
use common::{Home, QUIET, Station, author, note, notes, wait_for_within, wait_until};
use constellation::relay_client::{
    ConnectOptions, Conversation, ConversationLimits, Subscription, SubscriptionNews, connect,
};
use constellation::tasks::TaskGroup;
use nostr::event::Event;
use nostr::filter::Filter;
use rustix::process::Signal;
use serde_json::Value;
use url::Url;

/// A relay that syncs only when asked, with live links.
fn live(rest: &str) -> String {
    format!("{QUIET}[live]\nenabled = true\n{rest}")
}

fn with_peers(stations: &[&Station<'_>]) -> String {
    let peers = stations
        .iter()
        .map(|station| format!("[[peers]]\naddress = \"{}\"\n", station.address()));
    live(&peers.collect::<String>())
}

fn links(home: &Home) -> Vec<Value> {
    let status = home.status();
    let links = status["live"]["links"].as_array();
    links
        .unwrap_or_else(|| panic!("no links in {status}"))
        .clone()
}

/// Waits until so many links stand, and the exchanges that they asked for have been made.
#[track_caller]
fn wait_for_links(home: &Home, count: usize) {
    wait_until("the links stand", || links(home).len() == count);
    wait_until("their exchanges are made", || {
        let status = home.status();
        let dialled = links(home)
            .iter()
            .filter(|link| link["opened"] == "dialled")
            .count();
        let made = status["live"]["exchanges"].as_u64() >= Some(u64::from(dialled > 0));
        made && status["run_in_progress"] == false
    });
}

/// A client of a relay that publishes and listens.
struct Client {
    runtime: tokio::runtime::Runtime,
    _tasks: TaskGroup,
    conversation: Conversation,
    subscription: Subscription,
}

impl Client {
    fn of(station: &Station<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let tasks = TaskGroup::new(1);
        let url = Url::parse(station.address()).expect("an address");
        let options = ConnectOptions {
            as_station: false,
            ..ConnectOptions::default()
        };
        let (conversation, subscription) = runtime.block_on(async {
            let socket = connect(&url, &options).await.expect("it serves");
            let limits = ConversationLimits::default();
            let conversation = Conversation::start(socket, limits, &tasks).expect("room");
            let only_new = Filter::new().limit(0);
            let mut subscription = conversation.subscribe(&[only_new]).await.expect("open");
            let news = subscription.next_batch(&mut Vec::new(), 1).await;
            assert_eq!(news, Ok(Some(SubscriptionNews::CaughtUp)));
            (conversation, subscription)
        });
        Self {
            runtime,
            _tasks: tasks,
            conversation,
            subscription,
        }
    }

    fn publish(&self, event: &Event) {
        let answer = self.runtime.block_on(async {
            let id = *event.id.as_bytes();
            let pending = self.conversation.publish(id, &event.as_json()).await;
            pending.expect("offered").await
        });
        assert!(answer.expect("an answer").accepted);
    }

    /// The ids of the next events.
    #[track_caller]
    fn hear(&mut self, count: usize, within: Duration) -> BTreeSet<String> {
        let mut heard: Vec<Bytes> = Vec::new();
        let hearing = async {
            while heard.len() < count {
                let news = self.subscription.next_batch(&mut heard, count).await;
                assert_eq!(news, Ok(None));
            }
        };
        let in_time = async { tokio::time::timeout(within, hearing).await.is_ok() };
        assert!(
            self.runtime.block_on(in_time),
            "heard {} of {count}",
            heard.len()
        );
        heard
            .iter()
            .map(|json| {
                let event: Value = serde_json::from_slice(json).expect("JSON");
                event["id"].as_str().expect("an id").to_owned()
            })
            .collect()
    }
}

#[test]
fn along_a_chain_an_event_is_at_the_far_end_within_a_second_and_none_goes_back() {
    let (one, middle, far) = (
        Home::with_config(&live("")),
        Home::with_config(&live("")),
        Home::with_config(&live("")),
    );
    let (first, last) = (one.start(), far.start());
    middle.configure(&with_peers(&[&first, &last]));
    let _between = middle.start();
    wait_for_links(&middle, 2);

    let (mut at_first, mut at_last) = (Client::of(&first), Client::of(&last));
    let event = note(&author(1), common::now(), "to the far end");
    at_first.publish(&event);
    let heard = at_last.hear(1, Duration::from_secs(1));
    assert_eq!(heard, common::ids_of(std::slice::from_ref(&event)));
    at_first.hear(1, Duration::from_secs(1));

    let there = notes(&author(2), 1_700_000_000, 40);
    let back = notes(&author(3), 1_700_000_000, 30);
    there.iter().for_each(|event| at_first.publish(event));
    back.iter().for_each(|event| at_last.publish(event));
    let all: BTreeSet<String> = &common::ids_of(&there) | &common::ids_of(&back);
    assert_eq!(at_last.hear(70, Duration::from_secs(20)), all);
    assert_eq!(at_first.hear(70, Duration::from_secs(20)), all);

    let by_peer: BTreeMap<String, Value> = links(&middle)
        .into_iter()
        .map(|link| (link["peer"].as_str().expect("a peer").to_owned(), link))
        .collect();
    for (station, came, went) in [(&first, 41, 30), (&last, 30, 41)] {
        let link = &by_peer[station.address()];
        assert_eq!(link["opened"], "dialled", "{link}");
        assert_eq!(link["events_in"], came, "{link}");
        assert_eq!(link["events_out"], went, "{link}");
        for none in [
            "duplicates_in",
            "duplicates_out",
            "refused_in",
            "refused_out",
        ] {
            assert_eq!(link[none], 0, "{none}: {link}");
        }
        assert!(
            link["seen_p99_us"].as_u64() >= link["seen_p50_us"].as_u64(),
            "{link}"
        );
        assert!(link["seen_p50_us"].as_u64() > Some(0), "{link}");
    }
    let accepted = links(&one);
    assert_eq!(accepted.len(), 1);
    let expected = ("accepted", 30, 0, 41);
    let told = (
        accepted[0]["opened"].as_str().expect("a word"),
        accepted[0]["events_in"].as_i64().expect("a number"),
        accepted[0]["duplicates_in"].as_i64().expect("a number"),
        accepted[0]["events_out"].as_i64().expect("a number"),
    );
    assert_eq!(told, expected, "{accepted:?}");
}

#[test]
fn what_was_published_while_the_middle_was_cut_off_is_there_soon_after_it_is_back() {
    let (one, middle, far) = (
        Home::with_config(&live("")),
        Home::with_config(&live("")),
        Home::with_config(&live("")),
    );
    let (first, last) = (one.start(), far.start());
    middle.configure(&with_peers(&[&first, &last]));
    let between = middle.start();
    wait_for_links(&middle, 2);
    between.kill();

    let (at_first, mut at_last) = (Client::of(&first), Client::of(&last));
    let missed = notes(&author(1), 1_700_000_000, 25);
    missed.iter().for_each(|event| at_first.publish(event));
    let _between = middle.start();
    let heard = at_last.hear(25, Duration::from_secs(5));
    assert_eq!(heard, common::ids_of(&missed));
    // And it carries on.
    wait_for_links(&middle, 2);
    let next = note(&author(1), 1_700_000_100, "and on");
    at_first.publish(&next);
    at_last.hear(1, Duration::from_secs(1));
}

#[test]
fn a_peer_that_comes_back_is_dialled_again_and_what_both_missed_is_exchanged() {
    let (one, other) = (Home::with_config(&live("")), Home::with_config(&live("")));
    let peer = one.start();
    let at = peer
        .address()
        .strip_prefix("ws://")
        .expect("a relay")
        .to_owned();
    other.configure(&with_peers(&[&peer]));
    let running = other.start();
    wait_for_links(&other, 1);
    peer.kill();
    wait_until("the link is gone", || links(&other).is_empty());
    let client = Client::of(&running);
    let missed = notes(&author(1), 1_700_000_000, 5);
    missed.iter().for_each(|event| client.publish(event));
    let also_missed = notes(&author(2), 1_700_000_000, 5);
    one.import(&also_missed);
    // Where it was: a port that we have just had.
    one.configure(&live("").replace("127.0.0.1:0", &at));
    let _peer = one.start();
    let all: BTreeSet<String> = &common::ids_of(&missed) | &common::ids_of(&also_missed);
    wait_for_within(Duration::from_secs(20), "both have all", || {
        (one.ids() == all && other.ids() == all).then_some(())
    });
}

#[test]
fn what_is_more_than_a_link_carries_goes_by_an_exchange() {
    let (one, other) = (Home::with_config(&live("")), Home::with_config(&live("")));
    let peer = one.start();
    other.configure(&with_peers(&[&peer]));
    let _running = other.start();
    wait_for_links(&other, 1);
    let before = other.status()["live"]["exchanges"].as_u64();
    let there = notes(&author(1), 1_700_000_000, 5_000);
    one.import(&there);
    wait_until("all is there", || other.count("{}") == 5_000);
    let back = notes(&author(2), 1_700_000_000, 5_000);
    other.import(&back);
    wait_until("all is here", || one.count("{}") == 10_000);
    assert!(other.status()["live"]["exchanges"].as_u64() > before);
    let link = &links(&other)[0];
    let moved = [&link["events_in"], &link["events_out"]].map(Value::as_u64);
    assert!(moved.iter().all(|moved| *moved < Some(5_000)), "{link}");
}

#[test]
fn stations_that_dial_each_other_have_one_link_and_none_once_nothing_may_be_shared() {
    let named = |name: &str| {
        let node = own_node("");
        format!("[station]\nconstellation = \"{name}\"\n{node}[live]\nenabled = true\n")
    };
    let (one, other) = (
        Home::with_config(&named("ours")),
        Home::with_config(&named("ours")),
    );
    let running = one.start();
    let also_running = other.start();
    let invited = one.run(&["invite", "--json"]).with_code(0).json();
    let token = invited["token"].as_str().expect("a token").to_owned();
    other.run(&["join", &token]).with_code(0);
    one.run(&["peers", "add", &address(&other)]).with_code(0);
    wait_for_links(&one, 1);
    wait_for_links(&other, 1);
    let (seen, also_seen) = (&links(&one)[0], &links(&other)[0]);
    assert_eq!(seen["station"], peer_id(&other), "{seen}");
    assert_eq!(also_seen["station"], peer_id(&one), "{also_seen}");
    let opened = BTreeSet::from([seen["opened"].as_str(), also_seen["opened"].as_str()]);
    assert_eq!(opened, BTreeSet::from([Some("accepted"), Some("dialled")]));

    let client = Client::of(&running);
    let mut listener = Client::of(&also_running);
    client.publish(&note(&author(1), common::now(), "through the tunnel"));
    listener.hear(1, Duration::from_secs(1));

    one.configure(&named("theirs"));
    running.signal(Signal::HUP);
    wait_until("there are no links", || {
        links(&one).is_empty() && links(&other).is_empty()
    });
    one.configure(&named("ours"));
    running.signal(Signal::HUP);
    wait_until("there is one again", || {
        links(&one).len() == 1 && links(&other).len() == 1
    });
}

#[test]
fn who_has_no_live_links_takes_none_and_a_reload_is_enough() {
    let (one, other) = (Home::with_config(&live("")), Home::with_config(&live("")));
    let peer = one.start();
    other.configure(&with_peers(&[&peer]));
    let running = other.start();
    wait_for_links(&other, 1);
    one.configure(&format!("{QUIET}[live]\nenabled = false\n"));
    peer.signal(Signal::HUP);
    wait_until("both have none", || {
        links(&one).is_empty() && links(&other).is_empty()
    });
    assert_eq!(one.status()["live"]["enabled"], false);
    // A lone command has none either.
    running.stop();
    assert!(links(&other).is_empty());
    other.configure("[live]\nlinks_max = 1\n");
    let wrong = other.run(&["status"]).with_code(2);
    assert!(
        wrong.err.contains("links_max") || wrong.err.contains("expected 2 to 8"),
        "{wrong:?}"
    );
}
