//! js-libp2p, which shares no code with ours or kubo's: it opens the relay's stream and reads through it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::tunnelled::{address, own_node, refused, start, text};
use super::common::{Home, Process, author, ids_of, notes, wait_until};
use super::kubo::say;

/// Whence its key is made.
const SEED: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
/// What it exits with when it was not let in.
const REFUSED: i32 = 3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/js-libp2p")
}

fn is_installed() -> bool {
    let is_installed = folder().join("node_modules/.installed-lock").exists();
    if !is_installed {
        let missing = "js-libp2p is not installed: run tests/interop/install.sh";
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{missing}"
        );
        say(&format!("skipped: {missing}"));
    }
    is_installed
}

/// Runs it; gives what it printed.
#[track_caller]
fn run(action: &str, arguments: &[&str], code: i32) -> Value {
    let mut command = Command::new("node");
    command
        .arg(folder().join("station.mjs"))
        .args([action, SEED])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Process::start(command, None)
        .finish()
        .with_code(code)
        .json()
}

#[test]
fn js_libp2p_reads_our_relay_through_a_stream_once_it_is_allowed() {
    if !is_installed() {
        return;
    }
    let home = Home::with_config(&own_node(""));
    let events = notes(&author(1), 1_700_000_000, 400);
    home.import(&events);
    let _serving = start(&home);
    let at = address(&home);
    let peer = text(&run("identity", &[], 0)["peer"]);

    let kept_out = run("read", &[&at, "{}"], REFUSED);
    assert!(kept_out["refused"].is_string(), "{kept_out}");
    wait_until("the refusal is counted", || {
        refused(&home, "not_admitted") > 0
    });

    home.run(&["peers", "allow", &peer]).with_code(0);
    let read = run("read", &[&at, r#"{"kinds":[1]}"#], 0);
    let ids: Vec<String> = read["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(text)
        .collect();
    assert_eq!(ids.len(), events.len(), "each once");
    assert_eq!(
        ids.into_iter().collect::<std::collections::BTreeSet<_>>(),
        ids_of(&events)
    );

    home.run(&["peers", "remove", &peer]).with_code(0);
    let kept_out = run("read", &[&at, "{}"], REFUSED);
    assert!(kept_out["refused"].is_string(), "{kept_out}");
}
