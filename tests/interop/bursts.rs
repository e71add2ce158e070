//! A thousand streams at once: from kubo, to kubo, and between two stations of ours. None is lost, none mixed up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::common::Home;
use super::common::echo::{Echo, burst};
use super::common::tunnelled::{address, open, own_node, peer_id, start, tunnels};
use super::kubo::{Kubo, Setup};
use super::tunnels::{forward, tcp_of};

/// Streams open at the same time: more than a process may have files open, unless it asks for more.
const BURST: u32 = 1_050;

/// One burst at a time: what is measured is not how they share a processor.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Over TCP alone: on a QUIC connection kubo bears 256 streams at once, and more wait.
fn kubo() -> Kubo {
    Kubo::start(Setup {
        quic: false,
        ..Setup::default()
    })
}

/// Demands that all went well.
#[track_caller]
fn none_is_lost(port: u16, stations: &[&Home]) {
    let lost = burst(port, BURST);
    let seen: Vec<String> = stations
        .iter()
        .map(|home| tunnels(home).to_string())
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {BURST} lost, such as {:?}; {seen:#?}",
        lost.len(),
        &lost[..lost.len().min(3)]
    );
}

/// A station that lets `guest` use an echo.
#[track_caller]
fn serve(home: &Home, echo: &Echo, guest: &str) {
    let port = echo.port().to_string();
    home.run(&["tunnel", "expose", "echo", &port]).with_code(0);
    home.run(&["peers", "allow", guest]).with_code(0);
}

#[test]
fn a_burst_from_kubo_loses_none() {
    if !Kubo::is_installed() {
        return;
    }
    let _alone = alone();
    let home = Home::with_config(&own_node(""));
    let _running = start(&home);
    let (kubo, echo) = (kubo(), Echo::start("echo"));
    serve(&home, &echo, kubo.peer());
    kubo.ipfs(&["swarm", "connect", &address(&home)]);
    none_is_lost(forward(&kubo, "echo", &peer_id(&home)), &[&home]);
}

#[test]
fn a_burst_to_kubo_loses_none() {
    if !Kubo::is_installed() {
        return;
    }
    let _alone = alone();
    let home = Home::with_config(&own_node(""));
    let _running = start(&home);
    let (kubo, echo) = (kubo(), Echo::start("echo"));
    kubo.ipfs(&[
        "p2p",
        "listen",
        &format!("/x/echo-{}", kubo.peer()),
        &format!("/ip4/127.0.0.1/tcp/{}", echo.port()),
    ]);
    none_is_lost(open(&home, "echo", &tcp_of(&kubo)), &[&home]);
}

/// Needs nothing that others wrote; it stands here beside what it is compared to.
#[test]
fn a_burst_between_two_stations_loses_none() {
    let _alone = alone();
    let [server, client] = [(); 2].map(|()| Home::with_config(&own_node("")));
    let _running = [start(&server), start(&client)];
    let echo = Echo::start("echo");
    serve(&server, &echo, &peer_id(&client));
    let mouth = open(&client, "echo", &address(&server));
    none_is_lost(mouth, &[&server, &client]);
}
