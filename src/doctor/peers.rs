//! Each peer: whether it is reached, and when the last exchange with it succeeded. Eight at a time.
//!
//! Relays are visited; stations are looked for among the links of the station that runs here. Where none runs, an address
//! that a station was named with is dialled, no more: who answers shows only through a tunnel.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use multiaddr::Protocol;
use tokio::net::TcpStream;

use super::{CheckName, Finding, Remedy, Scene, relay};
use crate::discovery::TrustFiles;
use crate::peer::{Multiaddr, PeerAddress, StationAddress, Target};
use crate::sync::History;

const PEERS_AT_A_TIME: usize = 8;
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// An exchange that is older than this, and than three intervals of the schedule, is late.
const LATE_AFTER_SECONDS: u64 = 24 * 3_600;

pub(super) async fn check(scene: &Scene<'_>, dates: &mut Vec<i64>) -> Vec<Finding> {
    let peers = known(scene).await;
    if peers.is_empty() {
        return vec![CheckName::Peer.warning(
            "none is known: there is nobody to exchange with",
            Remedy::words(
                "constellation join TOKEN (a token is made by constellation invite on another station), or constellation \
                 peers add ADDRESS",
            ),
        )];
    }
    let visits = stream::iter(&peers).map(|address| reached(scene, address));
    let visits: Vec<(Finding, Option<i64>)> = visits.buffered(PEERS_AT_A_TIME).collect().await;
    dates.extend(visits.iter().filter_map(|(_, ahead)| *ahead));
    let mut found: Vec<Finding> = visits.into_iter().map(|(finding, _)| finding).collect();
    found.extend(successes(scene, &peers).await);
    found
}

/// Those that are configured, that the captain added, and that the running station has found.
async fn known(scene: &Scene<'_>) -> Vec<PeerAddress> {
    let mut peers: Vec<PeerAddress> = scene
        .config
        .peers
        .iter()
        .map(|peer| peer.address.clone())
        .collect();
    if let Some(status) = scene.running() {
        let home = scene
            .config
            .station
            .home_relay
            .as_ref()
            .map(|home| home.0.to_string());
        let told = status.peers.iter().map(|peer| &peer.address);
        let told = told.filter(|address| Some(*address) != home.as_ref());
        peers.extend(told.filter_map(|address| address.parse::<PeerAddress>().ok()));
    } else {
        let files =
            TrustFiles::in_folder(scene.around.directory.state(), scene.around.clock.clone());
        let added = tokio::task::spawn_blocking(move || files.added());
        peers.extend(added.await.ok().and_then(Result::ok).unwrap_or_default());
    }
    let mut known: Vec<PeerAddress> = Vec::new();
    for peer in peers {
        if !known.contains(&peer) {
            known.push(peer);
        }
    }
    known
}

async fn reached(scene: &Scene<'_>, address: &PeerAddress) -> (Finding, Option<i64>) {
    match address.target() {
        Target::Relay(url) => {
            let visit = match relay::visit(url, &scene.around.clock).await {
                Ok(visit) => visit,
                Err(why) => return (not_reached(scene, address, &why), None),
            };
            let how = match relay::compares(url, &scene.around.clock).await {
                Ok(()) => "compares sets".to_owned(),
                Err(why) => format!("answers; without NIP-77 ({why}) it is read by windows"),
            };
            (CheckName::Peer.ok(format!("{address} {how}")), visit.ahead)
        }
        Target::Station(station) => (of_station(scene, address, station).await, None),
    }
}

async fn of_station(scene: &Scene<'_>, address: &PeerAddress, station: &StationAddress) -> Finding {
    let name = CheckName::Peer;
    if let Some(status) = scene.running() {
        let Some(tunnels) = &status.tunnels else {
            let why = status
                .no_tunnels
                .clone()
                .unwrap_or_else(|| "no tunnels".to_owned());
            return not_reached(scene, address, &why);
        };
        return match tunnels.carrier.links.get(&station.peer.to_string()) {
            Some(_) => name.ok(format!("{address} is connected")),
            None => not_reached(scene, address, "no tunnel to it stands"),
        };
    }
    let Some(place) = station.hint.as_ref().and_then(dialled) else {
        return name.ok(format!("{address} is looked for when the station runs"));
    };
    match tokio::time::timeout(DIAL_DEADLINE, TcpStream::connect(&place)).await {
        Ok(Ok(_)) => name.ok(format!("{address} answers")),
        Ok(Err(error)) => not_reached(scene, address, &error.to_string()),
        Err(_) => not_reached(scene, address, "it does not answer"),
    }
}

/// `host:port`, if TCP leads there.
fn dialled(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => format!("[{ip}]"),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(format!("{host}:{port}")),
        _ => None,
    }
}

/// A peer that is away is no fault of ours: runs try it again.
fn not_reached(scene: &Scene<'_>, address: &PeerAddress, why: &str) -> Finding {
    let seen = format!("{address} is not reached: {why}");
    let is_configured = scene
        .config
        .peers
        .iter()
        .any(|peer| peer.address == *address);
    let remedy = if is_configured {
        Remedy::words(format!(
            "it is tried again in each run; start it there, or, if it is gone for good, delete its [[peers]] entry from {}",
            scene.around.file.display()
        ))
    } else {
        scene.command(&["peers", "remove", &address.written()])
    };
    CheckName::Peer.warning(seen, remedy)
}

async fn successes(scene: &Scene<'_>, peers: &[PeerAddress]) -> Vec<Finding> {
    let name = CheckName::LastSuccess;
    let history = History::in_folder(&scene.around.directory.state());
    let read = tokio::task::spawn_blocking(move || history.last_successes());
    let successes = match read.await {
        Ok(Ok(successes)) => successes,
        Ok(Err(error)) => {
            let remedy = Remedy::command(format!(
                "chmod u+rw {}",
                super::remedy::quoted_path(&scene.around.directory.state().join("history.jsonl"))
            ));
            return vec![name.problem(error.to_string(), remedy)];
        }
        Err(_) => return Vec::new(),
    };
    let now = scene.around.clock.unix_seconds();
    let late = LATE_AFTER_SECONDS.max(3 * scene.config.schedule.every.as_secs());
    let judged = |address: &PeerAddress| {
        let again = || scene.command(&["sync", "--peer", &address.written()]);
        match successes.get(&address.to_string()) {
            None => name.warning(format!("{address}: never"), again()),
            Some(at) => {
                let hours = now.saturating_sub(*at) / 3_600;
                let seen = format!(
                    "{address}: {} ({hours} hours ago)",
                    crate::time::rfc3339(*at)
                );
                if now.saturating_sub(*at) > late {
                    name.warning(seen, again())
                } else {
                    name.ok(seen)
                }
            }
        }
    };
    peers.iter().map(judged).collect()
}
