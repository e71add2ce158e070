//! Services of other stations through tunnels, with the real binary: all six that are known by name, who may use them,
//! and a real OpenSSH server.

mod common;
#[path = "services/ssh.rs"]
mod ssh;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::echo::{Echo, name_at};
use common::tunnelled::{address, open, own_node, peer_id, port_of, refused, start, text, tunnels};
use common::{Home, Station, wait_within};

/// What the original scripts know by name.
const SIX: [&str; 6] = [
    "strfry",
    "ssh",
    "ollama",
    "comfyui",
    "orpheus",
    "perplexica",
];
/// Within which an opened tunnel works again after either end has restarted.
const SOON: Duration = Duration::from_secs(10);

/// Where a service is opened does not depend on the others of this file.
static LOCAL_PORTS: Mutex<()> = Mutex::new(());

fn local_ports() -> MutexGuard<'static, ()> {
    LOCAL_PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A home whose station keeps its libp2p port across restarts, as one that others know the address of does.
fn settled(tunnel: &str) -> Home {
    let home = Home::with_config(&own_node(tunnel));
    let station = start(&home);
    let at = address(&home);
    station.stop();
    let (listen, _) = at.split_once("/p2p/").expect("with a PeerID");
    let config = own_node(tunnel).replace("/ip4/127.0.0.1/tcp/0", listen);
    home.configure(&config);
    home
}

/// Both run, and `client` may enter at `server`.
fn two<'h>(server: &'h Home, client: &'h Home) -> (Station<'h>, Station<'h>) {
    let running = (start(server), start(client));
    server
        .run(&["peers", "allow", &peer_id(client)])
        .with_code(0);
    running
}

#[track_caller]
fn expose(home: &Home, name: &str, port: u16, more: &[&str]) {
    let port = port.to_string();
    let words = ["tunnel", "expose", name, &port];
    let words: Vec<&str> = words.iter().chain(more).copied().collect();
    home.run(&words).with_code(0);
}

fn speaks(port: u16, name: &str) -> bool {
    name_at(port).is_ok_and(|heard| heard == name)
}

#[test]
fn all_six_services_are_open_at_once_and_keep_their_ports_when_either_end_restarts() {
    let _alone = local_ports();
    let (server, client) = (settled(""), Home::with_config(&own_node("")));
    let (serving, opening) = two(&server, &client);
    let echoes: BTreeMap<&str, Echo> = SIX.map(|name| (name, Echo::start(name))).into();
    for (name, echo) in &echoes {
        expose(&server, name, echo.port(), &[]);
    }
    let at = address(&server);
    let ports: BTreeMap<&str, u16> = SIX.map(|name| (name, open(&client, name, &at))).into();
    for (name, port) in &ports {
        assert!(*port >= 1024, "{name} at {port}");
        assert_eq!(name_at(*port).as_deref(), Ok(*name));
    }
    let is_open = |report: &serde_json::Value| -> BTreeMap<String, u16> {
        let open = report["open"].as_array().expect("a list").iter();
        open.map(|open| (text(&open["name"]), port_of(&open["listen"])))
            .collect()
    };
    let expected: BTreeMap<String, u16> = ports
        .iter()
        .map(|(name, port)| ((*name).to_owned(), *port))
        .collect();
    let report = tunnels(&client);
    assert_eq!(is_open(&report), expected, "{report}");
    // What is shown follows a moment later than what is.
    wait_within(SOON, "the tunnels are shown as connected", || {
        let report = tunnels(&client);
        let mut open = report["open"].as_array().expect("a list").iter();
        open.all(|open| open["state"] == "connected")
    });
    let exposed = tunnels(&server)["exposed"].as_array().map(Vec::len);
    assert_eq!(exposed, Some(SIX.len()));

    let all_speak = || ports.iter().all(|(name, port)| speaks(*port, name));
    opening.stop();
    let opening = start(&client);
    assert_eq!(is_open(&tunnels(&client)), expected, "after a restart");
    wait_within(SOON, "all speak after the client's restart", all_speak);
    serving.kill();
    let serving = start(&server);
    assert_eq!(is_open(&tunnels(&client)), expected, "the ports were held");
    wait_within(SOON, "all speak after the server's death", all_speak);
    opening.stop();
    serving.stop();
}

#[test]
fn a_service_is_opened_elsewhere_when_its_own_port_is_busy_and_at_a_named_port_or_not_at_all() {
    let _alone = local_ports();
    let (server, client) = (
        Home::with_config(&own_node("")),
        Home::with_config(&own_node("")),
    );
    let _running = two(&server, &client);
    let echo = Echo::start("ollama");
    expose(&server, "ollama", echo.port(), &[]);
    let at = address(&server);
    let (native, alternative) = (11_434, 21_434);
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    // Where others hold one of them already, it is busy as well.
    let native_held = bind(native);
    let alternative_is_free = bind(alternative).is_ok();
    let port = open(&client, "ollama", &at);
    assert_ne!(port, native);
    if alternative_is_free {
        assert_eq!(port, alternative);
    }
    assert_eq!(name_at(port).as_deref(), Ok("ollama"));

    // Still there when the native port is free again: local ports do not move.
    drop(native_held);
    assert_eq!(open(&client, "ollama", &at), port);

    let held = bind(0).expect("a free port");
    let busy = held.local_addr().expect("bound").port().to_string();
    let refused = client.run(&["tunnel", "open", "comfyui", &at, &busy]);
    let refused = refused.with_code(2);
    assert!(refused.err.contains(&busy), "{refused:?}");
    drop(held);
    let named = client.run(&["tunnel", "open", "ollama", &at, &busy, "--json"]);
    let named = named.with_code(0).json();
    assert_eq!(port_of(&named["listen"]).to_string(), busy);
    assert!(bind(port).is_ok(), "the tunnel has moved to the named port");
    assert!(speaks(port_of(&named["listen"]), "ollama"));
}

#[test]
fn what_is_private_or_a_tunnel_is_never_exposed_and_a_service_may_be_for_some_only() {
    let server = Home::with_config(&own_node("private = [\"ssh\", \"diary\"]"));
    let [friend, other] = [(); 2].map(|()| Home::with_config(&own_node("")));
    let _running = (start(&server), start(&friend), start(&other));
    for home in [&friend, &other] {
        server.run(&["peers", "allow", &peer_id(home)]).with_code(0);
    }
    let at = address(&server);
    let [echo, open_to_all] = ["album", "wall"].map(Echo::start);

    for private in ["ssh", "diary"] {
        let port = echo.port().to_string();
        let ended = server.run(&["tunnel", "expose", private, &port]);
        let ended = ended.with_code(2);
        assert!(
            ended.err.contains(private) && ended.err.contains("private"),
            "{ended:?}"
        );
    }
    let friends_id = format!("/p2p/{}", peer_id(&friend));
    expose(&server, "album", echo.port(), &["--allow", &friends_id]);
    expose(&server, "wall", open_to_all.port(), &[]);
    let album = open(&friend, "album", &at);
    assert_eq!(name_at(album).as_deref(), Ok("album"));
    for home in [&friend, &other] {
        assert_eq!(name_at(open(home, "wall", &at)).as_deref(), Ok("wall"));
    }
    let refusals = refused(&server, "not_this_service");
    let name = name_at(open(&other, "album", &at));
    assert!(name.is_err(), "{name:?}");
    wait_within(SOON, "the refusal is counted", || {
        refused(&server, "not_this_service") > refusals
    });

    // What the friend reaches through a tunnel it cannot hand on, by any name.
    let mouth = album.to_string();
    let handed_on = friend.run(&["tunnel", "expose", "photos", &mouth]);
    let handed_on = handed_on.with_code(2);
    assert!(
        handed_on.err.contains("mouth of a tunnel") && handed_on.err.contains(&mouth),
        "{handed_on:?}"
    );
    let exposed = tunnels(&friend)["exposed"].to_string();
    assert!(!exposed.contains("photos"), "{exposed}");

    // Closed at either end, it is closed, and stays so.
    server.run(&["tunnel", "close", "album"]).with_code(0);
    let name = name_at(album);
    assert!(name.is_err(), "no longer exposed: {name:?}");
    friend.run(&["tunnel", "close", "album"]).with_code(0);
    wait_within(SOON, "its port is free", || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, album)).is_ok()
    });
    friend.run(&["tunnel", "close", "album"]).with_code(2);
    assert!(
        !tunnels(&friend)["open"].to_string().contains("album"),
        "{}",
        tunnels(&friend)
    );
}
