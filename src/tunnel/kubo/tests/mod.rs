//! The carrier against a daemon that answers wrongly, hugely, slowly or not at all, and against what others made it do.
//! What a real daemon does is in `tests/interop_kubo.rs`.

mod entering;
mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::rpc::{Mount, Rpc};
use super::{KuboCarrier, KuboError};
use crate::random::Random;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::{Carrier, CarrierState, GuestList, Guests, OpenError, PeerId, ServiceName};
use fake::{Answer, FakeKubo, Table, with_table};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_cannot_be_understood_is_an_error_that_names_the_command() {
    let raw = |text: &str| text.as_bytes().to_vec();
    for wrong in [
        raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"ID\":\"12D\"}"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<!doctype"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"ID\":"),
        raw("+OK POP3 ready\r\n"),
        vec![0; 4_096],
    ] {
        let shown = String::from_utf8_lossy(&wrong).into_owned();
        let kubo = FakeKubo::scripted(move |_| Answer::Raw(wrong.clone())).await;
        let error = Rpc::new(kubo.api.clone()).daemon().await.expect_err(&shown);
        assert!(
            matches!(&error, KuboError::Malformed { command, .. } if command == "id"),
            "{shown:?}: {error}"
        );
    }
    let kubo = FakeKubo::scripted(|_| Answer::Raw(Vec::new())).await;
    let error = Rpc::new(kubo.api.clone()).daemon().await;
    assert!(
        matches!(error, Err(KuboError::Unreachable { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_kubo_refuses_is_told_in_its_words_and_on_one_line() {
    let kubo =
        FakeKubo::scripted(|_| Answer::Error("all dials failed\n  * [/ip4/…] refused")).await;
    let error = Rpc::new(kubo.api.clone()).mounts().await;
    let expected = KuboError::Status {
        command: "p2p/ls".to_owned(),
        message: "all dials failed * [/ip4/…] refused".to_owned(),
    };
    assert_eq!(error, Err(expected));
    let kubo = FakeKubo::scripted(|_| Answer::Error("libp2p stream mounting not enabled")).await;
    let error = Rpc::new(kubo.api.clone()).mounts().await.expect_err("off");
    assert_eq!(error, KuboError::MountingDisabled);
    let remedy = "ipfs config --json Experimental.Libp2pStreamMounting true";
    assert!(error.to_string().contains(remedy), "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let kubo = FakeKubo::scripted(|_| Answer::Endless).await;
    let error = Rpc::new(kubo.api.clone()).connections().await;
    assert!(
        matches!(error, Err(KuboError::Malformed { .. })),
        "{error:?}"
    );
}

/// The clock stands still but for the deadline.
#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    let kubo = FakeKubo::scripted(|_| Answer::Nothing).await;
    let error = Rpc::new(kubo.api.clone()).daemon().await;
    assert!(matches!(error, Err(KuboError::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let kubo = FakeKubo::scripted(|_| Answer::Nothing).await;
    let api = kubo.api.clone();
    kubo.tasks.end().await;
    let error = Rpc::new(api.clone()).daemon().await.expect_err("gone");
    assert!(error.to_string().contains(&api.to_string()), "{error}");
}

fn exposing(services: &[&ServiceName]) -> Arc<GuestList> {
    Arc::new(GuestList {
        services: services
            .iter()
            .map(|service| ((*service).clone(), Guests::Admitted))
            .collect(),
        ..GuestList::default()
    })
}

/// A carrier over a made-up daemon.
struct Stage {
    table: Arc<Mutex<Table>>,
    carrier: KuboCarrier,
    guests: watch::Sender<Arc<GuestList>>,
    peer: PeerId,
    kubo: FakeKubo,
    tasks: TaskGroup,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn start(list: Arc<GuestList>, mounts: impl FnOnce(&PeerId) -> Vec<Mount>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, list, mounts).await
    }

    /// In the folder of an earlier start.
    async fn start_in(
        folder: tempfile::TempDir,
        list: Arc<GuestList>,
        mounts: impl FnOnce(&PeerId) -> Vec<Mount>,
    ) -> Self {
        let peer = PeerId::random();
        let table = Arc::new(Mutex::new(Table {
            peer: Some(peer),
            mounts: mounts(&peer),
            peers: json!(null),
        }));
        let kubo = with_table(Arc::clone(&table)).await;
        let memory = folder.path().join("kubo.json");
        let tasks = TaskGroup::new(1);
        let (guests, seen) = watch::channel(list);
        let started = KuboCarrier::start(
            kubo.api.clone(),
            seen,
            &memory,
            Clock::system(),
            Random::seeded(1),
            &tasks,
        );
        let (carrier, _inbound) = started.await.expect("it answers");
        Self {
            table,
            carrier,
            guests,
            peer,
            kubo,
            tasks,
            folder,
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        self.table.lock().expect("not poisoned").mounts.clone()
    }

    async fn state_where(&self, what: &str, holds: impl Fn(&CarrierState) -> bool) {
        let mut state = self.carrier.state();
        let reached = timeout(PATIENCE, state.wait_for(|state| holds(state))).await;
        let reached = reached.unwrap_or_else(|_| panic!("waited in vain until {what}"));
        reached.expect("the carrier lives");
    }
}

#[tokio::test]
async fn listeners_follow_the_guest_list_and_are_closed_at_the_end() {
    let (strfry, ssh) = (ServiceName::strfry(), "ssh".parse().expect("a name"));
    let stage = Stage::start(exposing(&[&strfry]), |_| Vec::new()).await;
    let protocols = || -> Vec<String> {
        let mounts = stage.mounts().into_iter();
        mounts.map(|mount| mount.protocol).collect()
    };
    assert_eq!(
        protocols(),
        [strfry.protocol(&stage.peer)],
        "from the start"
    );
    stage.guests.send_replace(exposing(&[&ssh]));
    let followed = async {
        while protocols() != [ssh.protocol(&stage.peer)] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, followed).await.expect("it follows");
    stage.carrier.close().await;
    assert_eq!(protocols(), [""; 0]);
}

#[tokio::test]
async fn the_private_port_of_a_service_is_the_same_after_an_end_and_after_a_crash() {
    let list = exposing(&[&ServiceName::strfry()]);
    let first = Stage::start(Arc::clone(&list), |_| Vec::new()).await;
    let target = first.mounts()[0].target.clone();
    first.carrier.close().await;
    let second = Stage::start_in(first.folder, Arc::clone(&list), |_| Vec::new()).await;
    assert_eq!(second.mounts()[0].target, target, "after an end");
    let port = second.mounts()[0].target.rsplit('/').next().map(str::parse);
    let port: u16 = port.expect("a port").expect("a port");
    let Stage {
        carrier, folder, ..
    } = second;
    drop(carrier);
    let ended = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it ends");
    let third = Stage::start_in(folder, list, |_| Vec::new()).await;
    assert_eq!(third.mounts()[0].target, target, "after a crash");
}

#[tokio::test]
async fn what_we_opened_is_closed_also_when_the_station_is_cancelled() {
    let stage = Stage::start(exposing(&[&ServiceName::strfry()]), |_| Vec::new()).await;
    assert_eq!(stage.mounts().len(), 1);
    stage.tasks.end().await;
    let closed = async {
        while !stage.mounts().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("it is closed");
}

#[tokio::test]
async fn a_listener_that_leads_straight_to_a_service_is_reported_and_not_touched() {
    let strfry = ServiceName::strfry();
    let stage = Stage::start(exposing(&[&strfry]), |peer| {
        vec![Mount::listener(peer, &ServiceName::strfry(), 7777)]
    })
    .await;
    let foreign = stage.mounts();
    let problem = stage.carrier.state().borrow().problem.clone();
    let problem = problem.expect("anyone may enter");
    let command = format!(
        "ipfs p2p close --protocol {} --target-address /ip4/127.0.0.1/tcp/7777",
        strfry.protocol(&stage.peer)
    );
    assert!(problem.contains(&command), "{problem}");

    // Somebody does so: the way is free for ours.
    stage.table.lock().expect("not poisoned").mounts.clear();
    stage
        .state_where("nothing is wrong", |state| state.problem.is_none())
        .await;
    assert_eq!(stage.mounts().len(), 1);
    assert_ne!(stage.mounts(), foreign);

    // And opens it again after an end of ours.
    stage.table.lock().expect("not poisoned").mounts = foreign.clone();
    stage.carrier.close().await;
    assert_eq!(stage.mounts(), foreign);
}

#[tokio::test]
async fn a_daemon_that_is_somebody_else_now_serves_nobody() {
    let stage = Stage::start(exposing(&[]), |_| Vec::new()).await;
    let other = PeerId::random();
    stage.table.lock().expect("not poisoned").peer = Some(other);
    let named = |state: &CarrierState| {
        let problem = state.problem.as_ref();
        problem.is_some_and(|problem| problem.contains(&other.to_string()))
    };
    stage.state_where("it is noticed", named).await;
    let opened = stage
        .carrier
        .open(PeerId::random(), &ServiceName::strfry(), PATIENCE)
        .await;
    assert!(matches!(opened.err(), Some(OpenError::CarrierDown(_))));
    assert_eq!(stage.carrier.peer_id(), stage.peer, "until the next start");
}

/// The clock goes on only while nothing else is to be done: what is noticed before the next regular look takes no time.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_daemon_is_noticed_before_the_next_look() {
    let stage = Stage::start(exposing(&[]), |_| Vec::new()).await;
    // Some looks later.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(stage.carrier.state().borrow().problem, None);
    let began = tokio::time::Instant::now();
    stage.kubo.tasks.end().await;
    stage
        .state_where("it is noticed", |state| state.problem.is_some())
        .await;
    let noticed = began.elapsed();
    assert!(noticed < Duration::from_millis(300), "{noticed:?}");
}

#[tokio::test]
async fn links_are_those_with_admitted_stations() {
    let admitted = PeerId::random();
    let list = GuestList {
        admitted: [admitted].into(),
        ..GuestList::default()
    };
    let stage = Stage::start(Arc::new(list), |_| Vec::new()).await;
    stage.table.lock().expect("not poisoned").peers = json!([
        {"Peer": admitted.to_string(), "Addr": "/ip4/192.0.2.1/tcp/4001", "Latency": "12.5ms"},
        {"Peer": PeerId::random().to_string(), "Addr": "/ip4/192.0.2.2/tcp/4001"},
    ]);
    stage
        .state_where("the link is seen", |state| !state.links.is_empty())
        .await;
    let state = stage.carrier.state().borrow().clone();
    assert_eq!(state.links.len(), 1);
    assert_eq!(state.links[&admitted.to_string()].rtt_ms, Some(12.5));
}
