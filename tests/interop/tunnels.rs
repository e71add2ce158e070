//! Our own libp2p node and a kubo daemon: relays through its listeners and forwards, private swarms, keys.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::common::tunnelled::{address, own_node, peer_id, port_of, refused, start, text};
use super::common::{Home, author, ids_of, notes, wait_for, wait_until};
use super::kubo::{Kubo, Setup};

/// The text of a `swarm.key`.
pub(crate) fn swarm_key(byte: &str) -> String {
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", byte.repeat(32))
}

/// A home with our own node, in a private swarm if there is a key.
fn home_in(swarm: Option<&str>) -> Home {
    let home = Home::with_config(&own_node(""));
    if let Some(key) = swarm {
        let path = home.config().with_file_name("swarm.key");
        std::fs::write(&path, key).expect("our own folder");
        home.configure(&own_node(&naming(&path)));
    }
    home
}

fn naming(path: &Path) -> String {
    format!("swarm_key = \"{}\"", path.display())
}

fn kubo_in(swarm_key: Option<&str>) -> Kubo {
    Kubo::start(Setup {
        swarm_key,
        ..Setup::default()
    })
}

/// Where a station reaches this kubo over TCP.
#[track_caller]
pub(crate) fn tcp_of(kubo: &Kubo) -> String {
    let addresses = kubo.addresses();
    let mut tcp = addresses
        .iter()
        .filter(|address| address.starts_with("/ip4/127.0.0.1/tcp/"));
    tcp.next().expect("it listens").clone()
}

/// A relay of nobody in particular, with events of its own, known to nobody.
fn plain_relay(events: u8) -> (Home, BTreeSet<String>) {
    let home = Home::new();
    let events = notes(&author(events), 1_700_000_000, 40);
    home.import(&events);
    (home, ids_of(&events))
}

/// Makes a forward in kubo, as a script does; gives its port.
#[track_caller]
pub(crate) fn forward(kubo: &Kubo, service: &str, peer: &str) -> u16 {
    let protocol = format!("/x/{service}-{peer}");
    let target = format!("/p2p/{peer}");
    kubo.ipfs(&["p2p", "forward", &protocol, "/ip4/127.0.0.1/tcp/0", &target]);
    let mounts = kubo.mounts();
    let made = mounts
        .iter()
        .find(|mount| mount.starts_with(&protocol) && mount.ends_with(&target));
    let listens = made.and_then(|mount| mount.split(' ').nth(1));
    port_of(&Value::from(listens.expect("just made")))
}

/// What a station that is not admitted meets, and what it reaches once it is.
fn a_forward_of_kubo_reaches_our_relay(swarm: Option<&str>) {
    if !Kubo::is_installed() {
        return;
    }
    let ours = home_in(swarm);
    let here = notes(&author(1), 1_700_000_000, 50);
    ours.import(&here);
    let _serving = start(&ours);
    let kubo = kubo_in(swarm);
    kubo.ipfs(&["swarm", "connect", &address(&ours)]);
    let port = forward(&kubo, "strfry", &peer_id(&ours));
    let at = format!("ws://127.0.0.1:{port}");

    let (third, there) = plain_relay(2);
    let report = third.sync(&["--peer", &at], 3);
    assert_eq!(report["outcome"], "failed", "{report}");
    wait_until("the refusal is counted", || {
        refused(&ours, "not_admitted") > 0
    });
    assert!(ours.ids().is_disjoint(&there));

    ours.run(&["peers", "allow", kubo.peer()]).with_code(0);
    let report = third.sync(&["--peer", &at], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(report["totals"]["downloaded"], 50, "{report}");
    assert_eq!(third.export(), ours.export());
    assert_eq!(ours.ids().len(), 90);
}

/// Also over QUIC, where there is no swarm key.
fn our_station_converges_with_a_relay_that_kubo_exposes(swarm: Option<&str>) {
    if !Kubo::is_installed() {
        return;
    }
    let (relay, there) = plain_relay(3);
    let serving = relay.start();
    let relay_port = port_of(&Value::from(serving.address()));
    let kubo = kubo_in(swarm);
    kubo.ipfs(&[
        "p2p",
        "listen",
        &format!("/x/strfry-{}", kubo.peer()),
        &format!("/ip4/127.0.0.1/tcp/{relay_port}"),
    ]);

    let ours = home_in(swarm);
    let here = notes(&author(4), 1_700_000_000, 60);
    ours.import(&here);
    let running = start(&ours);
    let at = tcp_of(&kubo);
    let report = ours.sync(&["--peer", &at], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(report["totals"]["uploaded"], 60, "{report}");
    assert_eq!(report["totals"]["downloaded"], 40, "{report}");
    let both: BTreeSet<String> = there.union(&ids_of(&here)).cloned().collect();
    assert_eq!(ours.ids(), both);
    assert_eq!(ours.export(), relay.export());
    let again = ours.sync(&["--peer", &at], 0);
    assert_eq!(again["totals"]["downloaded"], 0, "{again}");

    // A command without a running station has a node of its own for the time that it takes.
    running.stop();
    relay.import(&notes(&author(5), 1_700_000_000, 7));
    let report = ours.sync(&["--peer", &at], 0);
    assert_eq!(report["totals"]["downloaded"], 7, "{report}");
    assert_eq!(ours.export(), relay.export());
}

#[test]
fn kubo_reaches_our_relay_once_it_is_allowed() {
    a_forward_of_kubo_reaches_our_relay(None);
}

#[test]
fn kubo_reaches_our_relay_in_a_private_swarm() {
    a_forward_of_kubo_reaches_our_relay(Some(&swarm_key("7c")));
}

#[test]
fn our_station_reaches_a_relay_behind_kubo() {
    our_station_converges_with_a_relay_that_kubo_exposes(None);
}

#[test]
fn our_station_reaches_a_relay_behind_kubo_in_a_private_swarm() {
    our_station_converges_with_a_relay_that_kubo_exposes(Some(&swarm_key("8d")));
}

/// Our key is another than kubo's, or only one side has any.
#[test]
fn without_the_swarms_key_there_is_no_way_in_and_the_error_says_what_to_look_at() {
    if !Kubo::is_installed() {
        return;
    }
    let kubo = kubo_in(Some(&swarm_key("8d")));
    let at = tcp_of(&kubo);
    for ours in [Some(swarm_key("8e")), None] {
        let home = home_in(ours.as_deref());
        home.import(&notes(&author(6), 1_700_000_000, 3));
        let _running = start(&home);
        let report = home.sync(&["--peer", &at], 3);
        let error = &report["peers"][0]["error"];
        assert_eq!(error["step"], "connect", "{report}");
        let detail = text(&error["detail"]);
        assert!(detail.contains("swarm key"), "{report}");
    }
}

/// The seed and the public half of an Ed25519 key, as libp2p writes private keys.
fn libp2p_form(key: &ssh_key::private::Ed25519Keypair) -> Vec<u8> {
    // Field 1, the type: 1 is Ed25519. Field 2, 64 bytes.
    let mut bytes = vec![0x08, 0x01, 0x12, 0x40];
    bytes.extend(key.private.as_ref());
    bytes.extend(key.public.as_ref());
    bytes
}

/// kubo is given the private key of an `ssh-keygen` key pair; we are told the line of the public one.
#[test]
fn an_ssh_key_has_the_peer_id_that_kubo_gives_it() {
    if !Kubo::is_installed() {
        return;
    }
    let home = Home::with_config(&own_node(""));
    let folder = home.config().with_file_name("keys");
    std::fs::create_dir(&folder).expect("our own folder");
    let path = folder.join("station");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "captain@home", "-f"])
        .arg(&path)
        .status();
    assert!(made.expect("OpenSSH is installed").success());
    let private = std::fs::read(&path).expect("just made");
    let private = ssh_key::PrivateKey::from_openssh(private).expect("OpenSSH's form");
    let pair = private.key_data().ed25519().expect("of type ed25519");
    let form = folder.join("libp2p");
    std::fs::write(&form, libp2p_form(pair)).expect("our own folder");

    let kubo = kubo_in(None);
    let form = form.to_str().expect("UTF-8");
    kubo.ipfs(&["key", "import", "station", form]);
    let keys = kubo.ipfs(&["key", "list", "-l", "--ipns-base=b58mh"]);
    let of_kubo = keys
        .lines()
        .find_map(|line| line.trim().strip_suffix("station"))
        .expect("just imported")
        .trim();
    assert!(of_kubo.starts_with("12D3KooW"), "{keys}");

    let line = std::fs::read_to_string(path.with_extension("pub")).expect("just made");
    let allowed = home.run(&["peers", "allow", line.trim()]).with_code(0);
    assert_eq!(allowed.out, format!("{of_kubo} may enter\n"));
    let peers = wait_for("it is listed", || {
        let peers = home.run(&["peers", "--json"]).with_code(0).json();
        let peers: Vec<Value> = peers.as_array()?.clone();
        (!peers.is_empty()).then_some(peers)
    });
    assert_eq!(text(&peers[0]["address"]), format!("/p2p/{of_kubo}"));
}
