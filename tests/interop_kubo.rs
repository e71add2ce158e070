//! kubo as the carrier: two real daemons, and what befalls them daily.
//!
//! `tests/interop/install.sh` builds kubo. Where it is missing, the tests say so and pass; with `CI=true` they fail.

#[path = "interop/carried.rs"]
mod carried;
#[path = "interop/kubo.rs"]
mod kubo;

use std::collections::BTreeSet;
use std::sync::Arc;

use carried::{
    BACK_WITHIN, PATIENCE, Station, converse, converse_again, start_carrier, two, wait_until,
};
use constellation::peer::ByteStream;
use constellation::tunnel::{
    Carrier, CarrierState, KuboError, OpenError, PeerId, Refusal, ServiceName,
};
use kubo::{Kubo, Setup};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// Streams opened at once.
const BURST: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_only_the_admitted_enter() {
    if !Kubo::is_installed() {
        return;
    }
    let [first, mut second] = two(Setup::default()).await;
    let [mut out, mut entered] = converse(&first, &mut second).await.expect("admitted");
    let streams = |state: &CarrierState, peer: PeerId| {
        let link = state.links.get(&peer.to_string());
        link.map_or((0, 0), |link| (link.streams_out, link.streams_in))
    };
    let peer = second.peer();
    first
        .state_where("its stream is seen", |state| streams(state, peer) == (1, 0))
        .await;
    let peer = first.peer();
    let state = second
        .state_where("its guest is seen", |state| streams(state, peer) == (0, 1))
        .await;
    assert_eq!((state.accepted, state.refused.len()), (1, 0));
    assert_eq!(state.problem, None);
    assert!(!state.addresses.is_empty());

    // Struck off the list: what is open is cut, and nothing enters.
    second.admit(&[]);
    let mut rest = Vec::new();
    let cut = timeout(PATIENCE, entered.read_to_end(&mut rest)).await;
    assert_eq!(cut.expect("at once").expect("as an end"), 0);
    drop(entered);
    let cut = timeout(PATIENCE, out.read_to_end(&mut rest)).await;
    assert!(!matches!(cut.expect("it is cut"), Ok(1..)));
    let error = converse(&first, &mut second).await.err();
    assert!(error.is_some_and(|error| error.starts_with("closed")));
    second
        .state_where("the refusal is counted", |state| {
            state.refused.get(&Refusal::NotAdmitted) == Some(&1)
        })
        .await;

    // A service that is not there: kubo closes the stream at once.
    let ssh: ServiceName = "ssh".parse().expect("a name");
    let opened = first.carrier().open(second.peer(), &ssh, PATIENCE).await;
    let mut opened = opened.expect("kubo accepts it");
    let ended = timeout(PATIENCE, opened.read_to_end(&mut rest)).await;
    assert!(!matches!(ended.expect("in time"), Ok(1..)));
}

/// Half of what kubo is known to bear at once over TCP.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_streams_loses_none() {
    if !Kubo::is_installed() {
        return;
    }
    let setup = Setup {
        quic: false,
        ..Setup::default()
    };
    let [first, mut second] = two(setup).await;
    let opening = (0..BURST).map(|_| first.open(&second));
    let opened = futures_util::future::join_all(opening).await;
    let mut streams: Vec<ByteStream> = opened
        .into_iter()
        .map(|opened| opened.expect("kubo listens"))
        .collect();
    let mut entered = Vec::new();
    let arriving = async {
        while entered.len() < BURST {
            entered.push(second.inbound.recv().await.expect("the carrier lives"));
        }
    };
    let arrived = timeout(PATIENCE, arriving).await.is_ok();
    let (accepted, refused) = {
        let state = second.carrier().state();
        let state = state.borrow();
        (state.accepted, state.refused.clone())
    };
    assert!(arrived, "{} arrived; {accepted} {refused:?}", entered.len());
    for stream in &mut streams {
        stream.write_all(b"x").await.expect("open");
    }
    for guest in &mut entered {
        let byte = timeout(PATIENCE, guest.stream.read_u8()).await;
        assert_eq!(byte.expect("in time").expect("open"), b'x');
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_in_a_private_swarm() {
    if !Kubo::is_installed() {
        return;
    }
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "7c".repeat(32));
    let setup = Setup {
        swarm_key: Some(&key),
        ..Setup::default()
    };
    let [mut first, mut second] = two(setup).await;
    converse(&first, &mut second).await.expect("one swarm");
    converse(&second, &mut first).await.expect("one swarm");
    // Without the key there is no way in.
    let stranger = Station::start(Setup::default()).await;
    stranger.learn(&second);
    let opened = stranger.open(&second).await;
    assert!(
        matches!(opened.err(), Some(OpenError::Unreachable { .. })),
        "another swarm"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_are_kept_are_connected_with() {
    if !Kubo::is_installed() {
        return;
    }
    let [first, second] = two(Setup::default()).await;
    let peer = second.peer();
    first.carrier().keep([peer].into());
    let linked = |state: &CarrierState| state.links.contains_key(&peer.to_string());
    first.state_where("they are connected", linked).await;
    let is_connected = || {
        let peers = first.kubo.ipfs(&["swarm", "peers"]);
        peers.contains(&peer.to_string())
    };
    first
        .kubo
        .ipfs(&["swarm", "disconnect", &format!("/p2p/{peer}")]);
    assert!(!is_connected());
    wait_until(BACK_WITHIN, "they are connected again", is_connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_told_kubo_to_close_all_finds_ours_back_on_the_same_ports() {
    if !Kubo::is_installed() {
        return;
    }
    let [first, mut second] = two(Setup::default()).await;
    converse(&first, &mut second).await.expect("admitted");
    for closes_at_first in [true, false] {
        let told = if closes_at_first { &first } else { &second };
        let before = told.mounts();
        assert!(!before.is_empty());
        let closed = told.kubo.ipfs(&["p2p", "close", "--all"]);
        assert_eq!(closed, format!("Closed {} stream(s)\n", before.len()));
        wait_until(BACK_WITHIN, "all is back", || told.mounts() == before).await;
        converse(&first, &mut second).await.expect("as before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_restarts_finds_ours_back_on_the_same_ports() {
    if !Kubo::is_installed() {
        return;
    }
    let [mut first, mut second] = two(Setup::default()).await;
    converse(&first, &mut second).await.expect("admitted");

    let before = first.mounts();
    assert_eq!(before.len(), 2, "a forward and a listener: {before:?}");
    first.kubo.stop();
    first
        .state_where("it is noticed", |state| state.problem.is_some())
        .await;
    let opened = first.open(&second).await.err();
    assert!(
        matches!(&opened, Some(OpenError::CarrierDown(why)) if why.contains("kubo does not answer at")),
        "{opened:?}"
    );
    first.kubo.start_again();
    wait_until(BACK_WITHIN, "all is back", || first.mounts() == before).await;
    first
        .state_where("nothing is wrong", |state| state.problem.is_none())
        .await;
    converse_again(&first, &mut second).await;

    let before = second.mounts();
    second.kubo.stop();
    second.kubo.start_again();
    wait_until(BACK_WITHIN, "all is back", || second.mounts() == before).await;
    converse_again(&first, &mut second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_took_meanwhile_is_left_to_them() {
    if !Kubo::is_installed() {
        return;
    }
    let [mut first, mut second] = two(Setup::default()).await;
    converse(&first, &mut second).await.expect("admitted");
    let target = format!("/p2p/{}", second.peer());
    let port = |mounts: &BTreeSet<String>| -> u16 {
        let forward = mounts.iter().find(|mount| mount.ends_with(&target));
        let listens = forward.and_then(|mount| mount.split(' ').nth(1));
        let port = listens.and_then(|address| address.rsplit('/').next());
        port.and_then(|port| port.parse().ok()).expect("a forward")
    };
    let taken = port(&first.mounts());
    first.kubo.stop();
    first
        .state_where("it is noticed", |state| state.problem.is_some())
        .await;
    let theirs = tokio::net::TcpListener::bind(("127.0.0.1", taken)).await;
    let theirs = theirs.expect("kubo has let go of it");
    first.kubo.start_again();
    converse_again(&first, &mut second).await;
    assert_ne!(port(&first.mounts()), taken);
    drop(theirs);
}

/// Somebody's script has a forward and a listener of its own, also one of the same protocol as ours.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_opened_outlives_our_end_and_our_crash() {
    if !Kubo::is_installed() {
        return;
    }
    let [mut first, mut second] = two(Setup::default()).await;
    let protocol = ServiceName::strfry().protocol(&second.peer());
    let target = format!("/p2p/{}", second.peer());
    let any_port = "/ip4/127.0.0.1/tcp/0";
    for theirs in [protocol.as_str(), "/x/theirs"] {
        first
            .kubo
            .ipfs(&["p2p", "forward", theirs, any_port, &target]);
    }
    let leads_to = "/ip4/127.0.0.1/tcp/9";
    first.kubo.ipfs(&["p2p", "listen", "/x/theirs", leads_to]);
    let is_ours =
        |mount: &&String| mount.starts_with(&ServiceName::strfry().protocol(&first.peer()));
    let mut theirs: BTreeSet<String> = first.kubo.mounts().into_iter().collect();
    theirs.retain(|mount| !is_ours(&mount));
    assert_eq!(theirs.len(), 3, "{theirs:?}");

    converse(&first, &mut second).await.expect("admitted");
    let all = || -> BTreeSet<String> { first.kubo.mounts().into_iter().collect() };
    let with_ours = all();
    assert_eq!(
        with_ours.len(),
        5,
        "a forward and a listener: {with_ours:?}"
    );

    // A crash: nothing is closed, and the next start closes what the last one opened.
    drop(first.carrier.take());
    let left =
        |station: &Station| -> BTreeSet<String> { station.kubo.mounts().into_iter().collect() };
    assert_eq!(left(&first), with_ours, "nobody has tidied up");
    first.guests.send_replace(Arc::default());
    first.carry().await;
    assert_eq!(left(&first), theirs, "after the crash");

    // The port is remembered across starts.
    first.learn(&second);
    first.admit(&[second.peer()]);
    converse(&first, &mut second).await.expect("admitted");
    let forward = |mounts: &BTreeSet<String>| -> BTreeSet<String> {
        let forwards = mounts.iter().filter(|mount| mount.ends_with(&target));
        forwards.cloned().collect()
    };
    assert_eq!(forward(&left(&first)), forward(&with_ours));

    first.carrier().close().await;
    assert_eq!(left(&first), theirs, "after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubo_without_stream_mounting_is_told_how_to_switch_it_on() {
    if !Kubo::is_installed() {
        return;
    }
    let setup = Setup {
        stream_mounting: false,
        ..Setup::default()
    };
    let kubo = Kubo::start(setup);
    let folder = TempDir::new().expect("a temporary folder");
    let (guests, _) = watch::channel(Arc::default());
    let started = start_carrier(&kubo, &guests, folder.path().join("kubo.json")).await;
    let error = started.expect_err("it is off");
    assert_eq!(error, KuboError::MountingDisabled);
    let command = "ipfs config --json Experimental.Libp2pStreamMounting true";
    assert!(error.to_string().contains(command), "{error}");
}
