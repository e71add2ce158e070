//! More stations than each has links: stations of this process, over `ws://`, all of which know all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use constellation::config::Config;
use constellation::control;
use constellation::daemon::{DataDirectory, Station, StationRelay};
use constellation::live::LinkReport;
use constellation::relay_client::{ConnectOptions, Conversation, ConversationLimits, connect};
use constellation::sync::PeerOptions;
use constellation::tasks::TaskGroup;
use constellation::time::Clock;
use nostr::event::Event;
use tokio::time::{sleep, timeout};
use url::Url;

use super::common::{PATIENCE, author, note, now};

const STATIONS: usize = 8;
/// Fewer than there are others, so that the choice matters.
const LINKS_MAX: usize = 4;

struct Member {
    station: Station,
    relay: StationRelay,
}

impl Member {
    async fn start(folder: &std::path::Path, number: usize) -> Self {
        let mut config = Config::default();
        config.relay.listen = Some("127.0.0.1:0".parse().expect("an address"));
        config.live.links_max = LINKS_MAX;
        let directory = DataDirectory::at(folder.join(number.to_string()));
        let opened = Station::open(directory, &config, Clock::system()).await;
        let station = opened.expect("it opens");
        let relay = station.start_relay(&config).expect("a free port");
        station.start_live(&relay).expect("room for its tasks");
        Self { station, relay }
    }

    async fn meet(&self, all: &[String]) {
        let mut config = Config::default();
        config.live.links_max = LINKS_MAX;
        let own = self.url();
        let others = all.iter().filter(|address| **address != own);
        config.peers = others
            .map(|address| PeerOptions::of(address.parse().expect("an address")))
            .collect();
        self.station.reconfigure(&config).await.expect("in force");
    }

    fn url(&self) -> String {
        format!("ws://{}", self.relay.address())
    }

    async fn links(&self) -> Vec<LinkReport> {
        let context = self.station.control_context(self.station.tasks().clone());
        let status = control::status(&context).await;
        status.expect("a status").live.links
    }

    async fn publish(&self, event: &Event) {
        let tasks = TaskGroup::new(1);
        let url = Url::parse(&self.url()).expect("an address");
        let options = ConnectOptions {
            as_station: false,
            ..ConnectOptions::default()
        };
        let socket = connect(&url, &options).await.expect("it serves");
        let limits = ConversationLimits::default();
        let conversation = Conversation::start(socket, limits, &tasks).expect("room");
        let id = *event.id.as_bytes();
        let pending = conversation.publish(id, &event.as_json()).await;
        let answer = pending.expect("offered").await.expect("an answer");
        assert!(answer.accepted);
        tasks.end().await;
    }

    async fn has(&self, event: &Event) -> bool {
        let (store, id) = (self.station.ingest().store().clone(), *event.id.as_bytes());
        let looked = tokio::task::spawn_blocking(move || {
            let snapshot = store.snapshot().expect("readable");
            snapshot.by_id(&id).expect("readable").is_some()
        });
        looked.await.expect("no panic")
    }
}

/// Who is linked with whom, by PeerID, and how many links one has at most.
async fn graph(members: &[Member]) -> (BTreeMap<String, BTreeSet<String>>, usize) {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut most = 0;
    for member in members {
        let links = member.links().await;
        most = most.max(links.len());
        let own = member.station.peer_id();
        for other in links.into_iter().filter_map(|link| link.station) {
            graph.entry(own.clone()).or_default().insert(other.clone());
            graph.entry(other).or_default().insert(own.clone());
        }
    }
    (graph, most)
}

/// Whether all others reach each other when this one is gone.
pub(crate) fn is_connected_without(graph: &BTreeMap<String, BTreeSet<String>>, gone: &str) -> bool {
    let Some(first) = graph.keys().find(|one| *one != gone) else {
        return false;
    };
    let mut reached = BTreeSet::from([first]);
    let mut queue = VecDeque::from([first]);
    while let Some(one) = queue.pop_front() {
        for other in graph[one].iter().filter(|other| *other != gone) {
            if reached.insert(other) {
                queue.push_back(other);
            }
        }
    }
    reached.len() + 1 == graph.len()
}

async fn until_all_have(members: &[Member], event: &Event) {
    let all_have = async {
        for member in members {
            while !member.has(event).await {
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let in_time = timeout(PATIENCE, all_have).await;
    assert!(in_time.is_ok(), "it does not get everywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_stations_with_four_links_each_are_connected_also_when_any_one_dies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut members = Vec::new();
    for number in 0..STATIONS {
        members.push(Member::start(folder.path(), number).await);
    }
    let all: Vec<String> = members.iter().map(Member::url).collect();
    for member in &members {
        member.meet(&all).await;
    }
    let connected = async {
        loop {
            // They are asked one after another: what is between two decisions of theirs is no graph.
            let (graph, most) = graph(&members).await;
            let alone = |member: &Member| is_connected_without(&graph, &member.station.peer_id());
            if graph.len() == STATIONS && most <= LINKS_MAX && members.iter().all(alone) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(PATIENCE, connected).await;
    assert!(in_time.is_ok(), "{:?}", graph(&members).await);

    let event = note(&author(1), now(), "to all");
    members[0].publish(&event).await;
    until_all_have(&members, &event).await;
    let dead = members.remove(STATIONS / 2);
    dead.station.close().await;
    let next = note(&author(1), now(), "to all the others");
    members[1].publish(&next).await;
    until_all_have(&members, &next).await;
    for member in members {
        member.station.close().await;
    }
}
