//! Stations with tunnels, as the suites that are about tunnels use them: configurations, and what `tunnel ls` says.

use serde_json::Value;

use super::{Home, Station, wait_for};

/// A relay and a node of our own on loopback that nobody finds by chance. `tunnel` is more of `[tunnel]`.
pub(crate) fn own_node(tunnel: &str) -> String {
    format!(
        "{NAMELESS}[kubo]\nuse = \"never\"\n[tunnel]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\nkademlia = \
         \"off\"\n{tunnel}\n"
    )
}

/// A relay on loopback, and tunnels that the kubo at this RPC address carries.
pub(crate) fn beside_kubo(api: &str) -> String {
    format!("{NAMELESS}[tunnel]\nmdns = false\n[kubo]\nuse = \"always\"\napi = \"{api}\"\n")
}

const NAMELESS: &str = "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n";

/// Starts the station and waits until it has tunnels: its relay serves a moment before.
#[track_caller]
pub(crate) fn start(home: &Home) -> Station<'_> {
    let station = home.start();
    tunnels(home);
    station
}

/// `tunnel ls --json` of a running station, as soon as it has tunnels.
#[track_caller]
pub(crate) fn tunnels(home: &Home) -> Value {
    wait_for("there are tunnels", || {
        let ended = home.run(&["tunnel", "ls", "--json"]);
        (ended.code == Some(0)).then(|| ended.json())
    })
}

/// Its PeerID, as its carrier has it.
#[track_caller]
pub(crate) fn peer_id(home: &Home) -> String {
    text(&tunnels(home)["peer_id"])
}

/// Where its carrier is reached on loopback over TCP: `/ip4/127.0.0.1/tcp/…/p2p/<PeerID>`.
#[track_caller]
pub(crate) fn address(home: &Home) -> String {
    let report = tunnels(home);
    let addresses = report["carrier"]["addresses"].as_array();
    let texts = addresses.expect("a list").iter().filter_map(Value::as_str);
    let mut tcp = texts.filter(|text| text.starts_with("/ip4/127.0.0.1/tcp/"));
    let listens = tcp.next().expect("it listens");
    format!("{listens}/p2p/{}", text(&report["peer_id"]))
}

/// Streams that it refused for this reason.
#[track_caller]
pub(crate) fn refused(home: &Home, reason: &str) -> u64 {
    let report = tunnels(home);
    report["carrier"]["refused"][reason].as_u64().unwrap_or(0)
}

/// Opens a service of a station; gives the local port.
#[track_caller]
pub(crate) fn open(home: &Home, name: &str, peer: &str) -> u16 {
    let opened = home.run(&["tunnel", "open", name, peer, "--json"]);
    port_of(&opened.with_code(0).json()["listen"])
}

/// The port of `127.0.0.1:port`, or of a multiaddr that ends in one.
#[track_caller]
pub(crate) fn port_of(address: &Value) -> u16 {
    let address = text(address);
    let port = address.rsplit([':', '/']).next();
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {address}"))
}

#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
