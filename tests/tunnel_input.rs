//! What a captain may write wrongly about tunnels, with the real binary: refused with exit code 2, the place where it
//! stands, and what was expected there.

mod common;

use common::tunnelled::{own_node, start};
use common::{Home, set_mode};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Runs a command that must be refused as wrongly used, with all of `words` in what it says.
#[track_caller]
fn refused(home: &Home, arguments: &[&str], words: &[&str]) {
    let ended = home.run(arguments).with_code(2);
    for word in words {
        assert!(
            ended.err.contains(word),
            "{arguments:?}: no {word:?} in {ended:?}"
        );
    }
    assert!(ended.out.is_empty(), "{ended:?}");
}

#[test]
fn a_wrong_address_or_station_in_the_configuration_is_refused_with_its_line() {
    let plain = own_node("");
    let lines = plain.lines().count();
    let without_peer = "address = \"/ip4/127.0.0.1/tcp/4011\"";
    let bad_port = format!("address = \"/ip4/127.0.0.1/tcp/many/p2p/{PEER}\"");
    let bad_peer = "address = \"/ip4/127.0.0.1/tcp/4011/p2p/12D3KooWnobody\"";
    for (address, expected) in [
        (without_peer, "add /p2p/<PeerID>"),
        (bad_port.as_str(), "/ip4/192.0.2.1/tcp/4011/p2p/<PeerID>"),
        (bad_peer, "/ip4/192.0.2.1/tcp/4011/p2p/<PeerID>"),
    ] {
        let home = Home::with_config(&format!("{plain}[[peers]]\n{address}\n"));
        let line = format!("line {}", lines + 2);
        for command in ["run", "sync", "peers"] {
            refused(&home, &[command], &[&line, expected]);
        }
        assert!(!home.data().exists(), "nothing was begun");
    }
    for (key, expected) in [
        ("allow = [\"12D3KooWnobody\"]", "expected a PeerID"),
        ("allow = [\"ssh-ed25519 AAAA captain\"]", "ssh-ed25519 line"),
        ("external = [\"192.0.2.1:4011\"]", "/ip4/0.0.0.0/tcp/4011"),
    ] {
        let home = Home::with_config(&own_node(key));
        // The blank line that ends an absent key is its place.
        let line = format!("line {lines}");
        refused(&home, &["run"], &[&line, expected]);
    }
    let listen = plain.replace("/ip4/127.0.0.1/tcp/0", "127.0.0.1:4011");
    let home = Home::with_config(&listen);
    refused(&home, &["run"], &["line 8", "/ip4/0.0.0.0/tcp/4011"]);
}

#[test]
fn a_wrong_address_or_station_on_the_command_line_is_refused_and_changes_nothing() {
    let home = Home::with_config(&own_node(""));
    let station = start(&home);
    let without_peer = "/ip4/127.0.0.1/tcp/4011";
    let no_multiaddr = "expected for instance /ip4/192.0.2.1/tcp/4011/p2p/<PeerID>";
    for (arguments, expected) in [
        (["sync", "--peer", without_peer].as_slice(), "/p2p/<PeerID>"),
        (&["sync", "--peer", "/ip4/::1/tcp/1"], no_multiaddr),
        (&["sync", "--peer", "/p2p/12D3KooWnobody"], no_multiaddr),
        (&["peers", "add", without_peer], "/p2p/<PeerID>"),
        (&["peers", "allow", "12D3KooWnobody"], "expected a PeerID"),
        (
            &["peers", "allow", "ssh-ed25519 AAAA captain"],
            "ssh-ed25519 line",
        ),
        (&["peers", "revoke", "nobody"], "expected a PeerID"),
        (
            &["tunnel", "open", "ssh", "12D3KooWnobody"],
            "/p2p/<PeerID>",
        ),
        (
            &["tunnel", "open", "ssh", "ws://127.0.0.1:1"],
            "/p2p/<PeerID>",
        ),
        (&["tunnel", "expose", "no/name", "80"], "no/name"),
        (&["tunnel", "expose", "own-name"], "name the port"),
        (&["join", "token"], "constellation1"),
    ] {
        refused(&home, arguments, &[expected]);
    }
    let peers = home.run(&["peers", "--json"]).with_code(0).json();
    assert_eq!(peers, serde_json::json!([]));
    station.stop();
}

#[test]
fn a_wrong_swarm_key_is_refused_with_its_line() {
    let home = Home::new();
    let path = home.config().with_file_name("swarm.key");
    let key = format!("swarm_key = \"{}\"", path.display());
    home.configure(&own_node(&key));
    refused(&home, &["run"], &["swarm.key", "No such file"]);
    for (text, line, expected) in [
        ("", "line 1", "/key/swarm/psk/1.0.0/"),
        (
            "/key/swarm/psk/1.0.0/\n/base64/\nAAAA\n",
            "line 2",
            "/base16/",
        ),
        (
            "/key/swarm/psk/1.0.0/\n/base16/\n0123\n",
            "line 3",
            "64 hexadecimal digits",
        ),
    ] {
        std::fs::write(&path, text).expect("our own folder");
        for command in [["run"].as_slice(), &["tunnel", "ls"], &["invite"]] {
            refused(&home, command, &["swarm.key", line, expected]);
        }
    }
}

#[test]
fn an_identity_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let home = Home::with_config(&own_node(""));
    start(&home).stop();
    let key = home.data().join("identity.key");
    set_mode(&key, 0o640);
    let remedy = format!("chmod 600 {}", key.display());
    for command in [["run"].as_slice(), &["sync"], &["tunnel", "ls"]] {
        refused(&home, command, &["640", &remedy]);
    }
    let mended = std::process::Command::new("sh")
        .args(["-c", &remedy])
        .status();
    assert!(mended.expect("a shell").success());
    start(&home).stop();
}
