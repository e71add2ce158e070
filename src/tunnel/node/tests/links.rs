//! Links that come back: addresses that survive failures, stations that restart, news that cuts pauses short.

use std::net::SocketAddr;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::super::NodeOptions;
use super::support::{PATIENCE, Station, TCP, identity, name, on, pair, station, station_of};
use crate::tasks::TaskGroup;
use crate::tunnel::{Carrier, CarrierState, Multiaddr, OpenError, PeerId, Source};

#[tokio::test]
async fn a_station_that_restarts_is_linked_again_by_its_old_address() {
    let host = identity();
    let guest = station(on(TCP)).await;
    let first_life = station_of(&host, on(TCP)).await;
    first_life.admit(guest.id());
    guest.admit(first_life.id());
    guest.knows(&first_life);
    let far = first_life.id();
    guest.keep([far]);
    guest.until_linked(far).await;
    let address = first_life.addresses().remove(0);
    first_life.tasks.end().await;
    drop(first_life);
    guest.until(|state| state.links.is_empty()).await;
    // Not there: the address fails, more than once, and is not forgotten.
    let error = guest.try_open(far, "strfry").await.err().expect("gone");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let known = guest.node.addresses();
    assert!(
        known
            .iter()
            .any(|one| one.address == address.to_string() && one.failures > 0)
    );
    let again = NodeOptions {
        listen: vec![address],
        ..on(TCP)
    };
    let second_life = station_of(&host, again).await;
    second_life.admit(guest.id());
    let began = Instant::now();
    guest.until_linked(far).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let known = guest.node.addresses();
    assert!(
        known
            .iter()
            .any(|one| one.failures == 0 && one.last_success.is_some())
    );
}

#[tokio::test]
async fn a_kept_station_is_linked_as_soon_as_its_address_is_learnt() {
    let (first, second) = (station(on(TCP)).await, station(on(TCP)).await);
    first.admit(second.id());
    second.admit(first.id());
    first.keep([second.id()]);
    let error = first
        .node
        .open(second.id(), &name("strfry"), Duration::from_secs(5))
        .await;
    assert_eq!(error.err(), Some(OpenError::NoAddress(second.id())));
    first.knows(&second);
    first.until_linked(second.id()).await;
    // The one that was called has learnt the caller's address.
    let listening: Vec<String> = first.addresses().iter().map(ToString::to_string).collect();
    let began = Instant::now();
    while !second
        .node
        .addresses()
        .iter()
        .any(|one| listening.contains(&one.address))
    {
        assert!(began.elapsed() < super::support::PATIENCE, "not learnt");
        tokio::task::yield_now().await;
    }
}

/// What a passage does with the connections through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// They wait.
    Held,
    /// Bytes go through.
    Open,
    /// They stay, and nothing gets through.
    Frozen,
}

/// A way to a station that a test can hold up.
struct Passage {
    address: Multiaddr,
    flow: watch::Sender<Flow>,
    /// Connections through it.
    borne: watch::Receiver<usize>,
}

impl Passage {
    async fn to(station: &Station, flow: Flow, tasks: &TaskGroup) -> Self {
        let there = station.addresses().remove(0);
        let port = there.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let to = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (flow, flows) = watch::channel(flow);
        let (count, borne) = watch::channel(0);
        let group = tasks.clone();
        let accept = async move {
            while let Ok((near, _)) = listener.accept().await {
                let (flows, count) = (flows.clone(), count.clone());
                let pass = async move {
                    count.send_modify(|borne| *borne += 1);
                    pass(near, to, flows).await;
                    count.send_modify(|borne| *borne -= 1);
                };
                drop(group.spawn(pass));
            }
        };
        drop(tasks.spawn(accept).expect("room"));
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        Self {
            address: address.parse().expect("an address"),
            flow,
            borne,
        }
    }

    /// Waits until it bears so many.
    async fn bears(&self, wanted: usize) {
        let mut borne = self.borne.clone();
        let waited = timeout(PATIENCE, borne.wait_for(|borne| *borne == wanted)).await;
        drop(waited.expect("in time").expect("runs"));
    }

    /// Whether a link goes through it.
    fn is_used(&self, state: &CarrierState, peer: PeerId) -> bool {
        let link = state.links.get(&peer.to_string());
        link.is_some_and(|link| link.address.starts_with(&self.address.to_string()))
    }
}

async fn pass(mut near: TcpStream, to: SocketAddr, mut flows: watch::Receiver<Flow>) {
    drop(flows.wait_for(|flow| *flow == Flow::Open).await);
    let mut far = TcpStream::connect(to).await.expect("connected");
    let frozen = async { drop(flows.wait_for(|flow| *flow == Flow::Frozen).await) };
    tokio::select! {
        ended = tokio::io::copy_bidirectional(&mut near, &mut far) => drop(ended),
        () = frozen => std::future::pending::<()>().await,
    }
}

#[tokio::test]
async fn a_link_that_nothing_gets_through_is_replaced_in_time() {
    let tasks = TaskGroup::new(8);
    let (guest, host) = (station(on(TCP)).await, station(on(TCP)).await);
    // Told of the passage only; where the host listens itself, it says when they are connected.
    let passage = Passage::to(&host, Flow::Open, &tasks).await;
    let far = host.id();
    let through = std::slice::from_ref(&passage.address);
    guest.node.learn(far, through, Source::Static);
    guest.keep([far]);
    guest.until(|state| passage.is_used(state, far)).await;
    passage.flow.send_replace(Flow::Frozen);
    let began = Instant::now();
    let real = host.addresses().remove(0).to_string();
    guest
        .until(|state| {
            let link = state.links.get(&far.to_string());
            link.is_some_and(|link| link.address.starts_with(&real))
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(15));
    tasks.end().await;
}

#[tokio::test]
async fn two_stations_that_dial_each_other_at_once_keep_one_link() {
    let tasks = TaskGroup::new(8);
    let (first, second) = (station(on(TCP)).await, station(on(TCP)).await);
    let (smaller, larger) = if first.id() < second.id() {
        (first, second)
    } else {
        (second, first)
    };
    let to_smaller = Passage::to(&smaller, Flow::Held, &tasks).await;
    let to_larger = Passage::to(&larger, Flow::Held, &tasks).await;
    for (one, other, passage) in [
        (&smaller, &larger, &to_larger),
        (&larger, &smaller, &to_smaller),
    ] {
        one.admit(other.id());
        let through = std::slice::from_ref(&passage.address);
        one.node.learn(other.id(), through, Source::Static);
        one.keep([other.id()]);
    }
    // Both have dialled before either is connected.
    to_smaller.bears(1).await;
    to_larger.bears(1).await;
    for passage in [&to_smaller, &to_larger] {
        passage.flow.send_replace(Flow::Open);
    }
    to_smaller.bears(0).await;
    assert_eq!(*to_larger.borne.borrow(), 1);
    let far = larger.id();
    smaller.until(|state| to_larger.is_used(state, far)).await;
    larger.until_linked(smaller.id()).await;
    tasks.end().await;
}

#[tokio::test]
async fn what_a_node_knew_serves_the_next_one() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    drop(first.open(second.id(), "strfry").await);
    let known = first.node.addresses();
    let json = serde_json::to_string(&known).expect("a text");
    let next = NodeOptions {
        known: serde_json::from_str(&json).expect("the same"),
        ..on(TCP)
    };
    let next = station(next).await;
    second.admit(next.id());
    drop(next.open(second.id(), "strfry").await);
}

#[tokio::test]
async fn another_station_at_a_known_address_is_not_taken_for_the_one_meant() {
    let (first, impostor) = (station(on(TCP)).await, station(on(TCP)).await);
    let meant = identity().keypair().public().to_peer_id();
    let there = impostor.addresses();
    first.node.learn(meant, &there, Source::Card);
    let error = first.try_open(meant, "strfry").await.err().expect("not it");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn nobody_opens_a_stream_to_itself() {
    let alone = station(on(TCP)).await;
    let error = alone
        .try_open(alone.id(), "strfry")
        .await
        .err()
        .expect("refused");
    assert!(error.to_string().contains("itself"), "{error}");
}
