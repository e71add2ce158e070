//! Live links of other stations: what they are told, what not, and how many there may be.

use super::*;
use crate::peer::{PeerAddress, PeerId};
use crate::protocol::websocket::{STATION_HEADER, STATION_PEER_HEADER};
use crate::recent_ids::BroughtByPeers;
use crate::relay_server::links::AcceptedLinks;

impl Relay {
    /// A station on this machine that says who it is.
    async fn station(&self, peer: PeerId) -> Client {
        let headers = [
            (STATION_HEADER, HeaderValue::from_static("1")),
            (
                STATION_PEER_HEADER,
                HeaderValue::from_str(&peer.to_string()).unwrap(),
            ),
        ];
        self.connect_with(local_party(), 1 << 20, &headers).await
    }
}

fn only_new(name: &str) -> Value {
    json!(["REQ", name, {"limit": 0}])
}

#[tokio::test(start_paused = true)]
async fn a_station_is_told_what_is_new_but_not_what_came_from_it() {
    let relay = Relay::new();
    relay.store(&[note(1, 9)]).await;
    let peer = PeerId::random();
    let mut station = relay.station(peer).await;
    station.say(only_new("live")).await;
    assert!(station.stored("live").await.is_empty());
    let link = relay.context.accepted_links().list().pop().unwrap();
    assert_eq!(link.station, Some(peer));

    let its = note(1, 8);
    assert!(station.offer(&its).await.0);
    // Over another connection of the same station too.
    let also_its = note(1, 7);
    let mut another = relay.station(peer).await;
    assert!(another.offer(&also_its).await.0);
    // What is not shared, and what nobody keeps, is for those who listen here.
    relay
        .store(&[
            event(1, 1, 6, &[&["-"]], "protected"),
            event(1, 20_001, 5, &[], "ephemeral"),
        ])
        .await;
    let others = note(2, 4);
    relay.store(std::slice::from_ref(&others)).await;
    assert_eq!(station.live("live").await, others.id.to_hex());
    let counted = [&link.events_in, &link.duplicates_in, &link.events_out];
    assert_eq!(
        counted.map(|counter| counter.load(Ordering::SeqCst)),
        [1, 0, 1]
    );

    // A client hears its own, as NIP-01 has it.
    let mut client = relay.local().await;
    client.say(only_new("all")).await;
    client.stored("all").await;
    let own = note(3, 3);
    client.say(json!(["EVENT", own])).await;
    let heard = [client.hear().await, client.hear().await];
    let labels: BTreeSet<&str> = heard.iter().filter_map(|one| one[0].as_str()).collect();
    assert_eq!(labels, BTreeSet::from(["EVENT", "OK"]), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_station_is_not_told_what_an_exchange_fetched_from_it() {
    let brought = BroughtByPeers::default();
    let known = brought.clone();
    let relay = Relay::with(|context| context.links = Arc::new(AcceptedLinks::knowing(known)));
    let peer = PeerId::random();
    let mut station = relay.station(peer).await;
    station.say(only_new("live")).await;
    station.stored("live").await;
    // As an exchange with it does, before it stores them.
    let fetched = [note(1, 9), note(1, 8)];
    let of_peer = brought.of(PeerAddress::of_station(peer).as_str());
    of_peer.note(fetched.each_ref().map(|event| *event.id.as_bytes()));
    relay.store(&fetched).await;
    let others = note(2, 4);
    relay.store(std::slice::from_ref(&others)).await;
    assert_eq!(station.live("live").await, others.id.to_hex());
}

#[tokio::test(start_paused = true)]
async fn a_further_link_is_refused_and_one_that_has_to_go_is_told_so() {
    let relay = Relay::new();
    let links = relay.context.accepted_links();
    links.allow(1);
    let mut first = relay.station(PeerId::random()).await;
    first.say(only_new("live")).await;
    first.stored("live").await;
    let mut second = relay.station(PeerId::random()).await;
    let refused = second.ask(only_new("live")).await;
    assert_eq!(refused[0], "CLOSED", "{refused}");
    assert!(
        refused[2].as_str().unwrap().starts_with("blocked:"),
        "{refused}"
    );
    // Others may ask for what is new as they like.
    let mut client = relay.local().await;
    client.say(only_new("live")).await;
    client.stored("live").await;

    links.allow(0);
    let ended = first.hear().await;
    assert_eq!((&ended[0], &ended[1]), (&json!("CLOSED"), &json!("live")));
    assert!(links.list().is_empty());
    links.allow(1);
    second.say(only_new("live")).await;
    assert!(second.stored("live").await.is_empty(), "there is room now");
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_a_link_carries_closes_it_and_holds_up_no_client() {
    let relay = Relay::new();
    let mut station = relay.station(PeerId::random()).await;
    station.say(only_new("live")).await;
    station.stored("live").await;
    let mut client = relay.local().await;
    client
        .say(json!(["REQ", "all", {"kinds": [7], "limit": 0}]))
        .await;
    client.stored("all").await;
    let backlog = usize::try_from(crate::limits::LIVE_BACKLOG_MAX).unwrap() + 1;
    let mut events = crate::samples::uniform(1, NOW - 10, backlog);
    let last = event(1, 7, 1, &[], "the last");
    events.push(last.clone());
    relay.store(&events).await;
    let closed = station.hear().await;
    assert_eq!(closed[0], "CLOSED", "{closed}");
    assert!(
        closed[2].as_str().unwrap().starts_with("rate-limited:"),
        "{closed}"
    );
    assert_eq!(client.live("all").await, last.id.to_hex());
    station.say(only_new("live")).await;
    station.stored("live").await;
    let next = note(2, 0);
    relay.store(std::slice::from_ref(&next)).await;
    assert_eq!(station.live("live").await, next.id.to_hex());
}

#[tokio::test(start_paused = true)]
async fn who_only_says_that_it_is_a_station_is_a_client() {
    let relay = Relay::new();
    let links = relay.context.accepted_links();
    links.allow(0);
    let header = [(STATION_HEADER, HeaderValue::from_static("1"))];
    let mut stranger = relay
        .connect_with(RemoteParty::default(), 1 << 20, &header)
        .await;
    stranger.say(only_new("live")).await;
    assert!(stranger.stored("live").await.is_empty());
    assert!(links.list().is_empty());
}
