//! What is around a station: swarm key, kubo, home relay, peers, clock.

use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::common;
use crate::common::fake_relay::{FakeRelay, Negentropy, Script};
use crate::common::{Process, QUIET, nobody, set_mode};
use crate::patient::{Patient, peer};

const GOOD_KEY: &str = "/key/swarm/psk/1.0.0/\n/base16/\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

#[test]
fn a_swarm_key_is_well_formed_and_private() {
    let mut patient = Patient::new("");
    let folder = patient.folder();
    let key = folder.join("swarm.key");
    let config = |more: &str| {
        format!(
            "{QUIET}[tunnel]\nenabled = false\nswarm_key = \"{}\"\n{more}",
            key.display()
        )
    };
    patient.home.configure(&config(""));
    std::fs::write(&key, GOOD_KEY).expect("ours");
    set_mode(&key, 0o644);
    patient.is_cured("swarm_key", "warning");

    std::fs::write(&key, "nonsense").expect("ours");
    let words = patient.ails("swarm_key", "problem")["remedy"]["text"].to_string();
    assert!(words.contains("make a swarm of your own"), "{words}");
    let text = patient.ails("swarm_key", "problem")["remedy"]["text"]
        .as_str()
        .expect("words")
        .to_owned();
    let (_, line) = text.split_once("own: ").expect("a command");
    let ended = Process::start(patient.shell(line), None).finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    set_mode(&key, 0o600);
    patient.is_well("swarm_key");

    // Where kubo has a good one, that is taken.
    let of_kubo = folder.join(".ipfs/swarm.key");
    std::fs::create_dir(folder.join(".ipfs")).expect("ours");
    std::fs::write(&of_kubo, GOOD_KEY).expect("ours");
    set_mode(&of_kubo, 0o600);
    std::fs::remove_file(&key).expect("ours");
    patient.is_cured("swarm_key", "problem");

    let zeros = "0".repeat(64);
    std::fs::write(&key, format!("/key/swarm/psk/1.0.0/\n/base16/\n{zeros}\n")).expect("ours");
    set_mode(&key, 0o600);
    patient.home.configure(&config("swarm_key_admits = true\n"));
    patient.is_cured("swarm_key", "problem");
}

/// A kubo as far as the doctor asks it: it answers while `up` is there, mounts streams while `mounts` is.
fn kubo(state: PathBuf) -> FakeRelay {
    FakeRelay::tcp(move |mut stream: TcpStream| {
        let state = state.clone();
        async move {
            if !state.join("up").exists() {
                return;
            }
            let mut request = vec![0; 4_096];
            let read = stream.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let (status, body) = if request.contains("/api/v0/id") {
                ("200 OK", r#"{"ID":"12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA","Addresses":[]}"#.to_owned())
            } else if request.contains("/api/v0/version") {
                ("200 OK", r#"{"Version":"0.40.0"}"#.to_owned())
            } else if request.contains("/api/v0/repo/stat") {
                ("200 OK", format!(r#"{{"RepoPath":"{}"}}"#, state.display()))
            } else if !state.join("mounts").exists() {
                let message = r#"{"Message":"libp2p stream mounting not enabled","Code":0}"#;
                ("500 Internal Server Error", message.to_owned())
            } else {
                ("200 OK", r#"{"Listeners":null}"#.to_owned())
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            drop(stream.write_all(answer.as_bytes()).await);
        }
    })
}

#[test]
fn a_kubo_runs_mounts_streams_and_is_in_our_swarm() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let daemon = kubo(state.path().to_owned());
    let api = daemon.address().replace("ws://", "http://");
    let kubo = format!("[kubo]\nuse = \"always\"\napi = \"{api}\"\n");
    let mut patient = Patient::new(&format!("{kubo}[tunnel]\nlisten = []\n"));
    let folder = state.path().display();
    patient.program(
        "ipfs",
        &format!(
            "case \"$1\" in daemon) touch '{folder}/up';; shutdown) rm -f '{folder}/up';; \
             config) touch '{folder}/mounts';; *) exit 1;; esac"
        ),
    );
    patient.is_cured_by("kubo", "kubo does not answer", &["stream mounting is off"]);
    patient.is_cured("kubo", "problem");

    // It is in a private swarm, and we are not; then in another than we are.
    std::fs::write(state.path().join("swarm.key"), GOOD_KEY).expect("ours");
    patient.is_cured("kubo", "problem");
    let ours = patient.folder().join("ours.key");
    std::fs::write(&ours, GOOD_KEY.replace("0123", "3210")).expect("ours");
    patient.home.configure(&format!(
        "{QUIET}{kubo}[tunnel]\nlisten = []\nswarm_key = \"{}\"\n",
        ours.display()
    ));
    patient.is_cured("kubo", "problem");
}

#[test]
fn a_home_relay_that_is_down_is_started_and_its_command_may_be_run() {
    let (behind, played) = FakeRelay::scripted(Script {
        information: Some(
            r#"{"software":"git+https://github.com/hoytech/strfry.git","limitation":{"max_limit":500}}"#,
        ),
        ..Script::default()
    });
    let state = tempfile::tempdir().expect("a temporary folder");
    let up = state.path().join("up");
    let door = {
        let (up, behind) = (up.clone(), behind.address().replace("ws://", ""));
        FakeRelay::tcp(move |mut stream: TcpStream| {
            let (up, behind) = (up.clone(), behind.clone());
            async move {
                if up.exists()
                    && let Ok(mut relay) = TcpStream::connect(&behind).await
                {
                    drop(copy_bidirectional(&mut stream, &mut relay).await);
                }
            }
        })
    };
    let mut patient = Patient::new("");
    let body = format!(
        "case \"$1\" in relay) touch '{}';; --version) echo strfry;; *) exit 9;; esac",
        up.display()
    );
    let command = patient.program("relay-program", &body);
    patient.home.configure(&format!(
        "{QUIET}[station]\nhome_relay = \"{}\"\nstrfry_command = [\"{}\"]\n",
        door.address(),
        command.display()
    ));
    patient.is_cured("home_relay", "problem");

    // The remedy in strfry.conf is done where the script of the relay is.
    played.negotiate_now(Negentropy::Error("blocked: switched off"));
    let finding = patient.ails("home_relay", "problem");
    assert!(
        finding["remedy"]["text"].to_string().contains("negentropy"),
        "{finding}"
    );
    played.negotiate_now(Negentropy::Honest);
    patient.is_well("home_relay");

    patient.is_well("home_writer");
    set_mode(&command, 0o644);
    patient.is_cured("home_writer", "problem");
    std::fs::remove_file(&command).expect("ours");
    let finding = patient.ails("home_writer", "problem");
    assert_eq!(finding["remedy"]["key"], "home_write", "{finding}");
    // Where an Astroport station has its strfry, that one is named.
    let usual = patient.folder().join(".zen/strfry/strfry");
    std::fs::create_dir_all(usual.parent().expect("a folder")).expect("ours");
    std::fs::write(&usual, format!("#!/bin/sh\n{body}\n")).expect("ours");
    set_mode(&usual, 0o755);
    patient.is_cured("home_writer", "problem");
}

#[test]
fn a_home_relay_that_takes_only_small_messages_is_worth_knowing() {
    let small = r#"{"software":"strfry","limitation":{"max_message_length":1024}}"#;
    let (relay, _) = FakeRelay::scripted(Script {
        information: Some(small),
        ..Script::default()
    });
    let patient = Patient::new(&format!(
        "[station]\nhome_relay = \"{}\"\nhome_write = \"event\"\n",
        relay.address()
    ));
    let finding = patient.ails("home_relay", "warning");
    assert!(
        finding["remedy"]["text"]
            .to_string()
            .contains("maxWebsocketPayloadSize"),
        "{finding}"
    );
    // After the edit and the restart it is another relay.
    let large = small.replace("1024", "131072");
    let (relay, _) = FakeRelay::scripted(Script {
        information: Some(large.leak()),
        ..Script::default()
    });
    patient.home.configure(&format!(
        "{QUIET}[station]\nhome_relay = \"{}\"\nhome_write = \"event\"\n",
        relay.address()
    ));
    patient.is_well("home_relay");
}

#[test]
fn peers_that_are_away_are_named_with_what_can_be_done() {
    let away = nobody();
    let (_relay, reached) = peer();
    let patient = Patient::new(&format!("{reached}[[peers]]\naddress = \"{away}\"\n"));
    let found = patient.examined();
    let ill: Vec<&Value> = found
        .iter()
        .filter(|one| one["check"] == "peer" && one["verdict"] != "ok")
        .collect();
    let [ill] = ill.as_slice() else {
        panic!("{found:#?}");
    };
    assert!(ill["seen"].to_string().contains(&away), "{ill}");
    let text = ill["remedy"]["text"].to_string();
    assert!(text.contains("delete its [[peers]] entry"), "{text}");
    patient.home.configure(&format!("{QUIET}{reached}"));
    patient.is_well("peer");
}

#[test]
fn without_peers_one_is_added_and_one_that_was_added_is_removed() {
    let mut patient = Patient::new("");
    let finding = patient.ails("peer", "warning");
    assert!(
        finding["remedy"]["text"]
            .to_string()
            .contains("peers add ADDRESS"),
        "{finding}"
    );
    let (relay, _) = peer();
    patient
        .home
        .run(&["peers", "add", relay.address()])
        .with_code(0);
    patient.is_well("peer");
    let away = nobody();
    patient.home.run(&["peers", "add", &away]).with_code(0);
    let found = patient.examined();
    let ill = found
        .iter()
        .find(|one| one["check"] == "peer" && one["verdict"] == "warning");
    let ill = ill.expect("the one that is away").clone();
    patient.apply(&ill["remedy"]);
    let found = patient.examined();
    assert!(
        found
            .iter()
            .all(|one| !one["seen"].to_string().contains(&away)),
        "{found:#?}"
    );
}

#[test]
fn a_clock_that_differs_from_what_relays_say_is_set() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let set = state.path().join("set");
    let relay = {
        let set = set.clone();
        FakeRelay::tcp(move |mut stream: TcpStream| {
            let set = set.clone();
            async move {
                let mut request = [0; 4_096];
                drop(stream.read(&mut request).await);
                let off = if set.exists() { 0 } else { 3_600 };
                let now = i64::try_from(common::now()).expect("this century") + off;
                let time = jiff::Timestamp::from_second(now).expect("a time");
                let date = time.strftime("%a, %d %b %Y %H:%M:%S GMT");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
                );
                drop(stream.write_all(answer.as_bytes()).await);
            }
        })
    };
    let mut patient = Patient::new(&format!("[[peers]]\naddress = \"{}\"\n", relay.address()));
    let body = format!(
        "[ \"$1 $2\" = 'set-ntp true' ] && touch '{}'",
        set.display()
    );
    patient.program("timedatectl", &body);
    patient.is_cured("clock", "problem");
}
