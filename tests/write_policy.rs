//! A write policy plugin, from the configuration of the real binary to what a publisher is told.

mod common;

use common::{Home, QUIET, author, ids_of, note, now, wait_until};
use nostr::event::Event;
use rustix::process::Signal;
use serde_json::json;

/// Rejects what says "bad", and accepts the rest.
const RULES: &str = r#"#!/bin/sh
while read -r line; do
  case "$line" in *'"content":"bad'*) action=reject;; *) action=accept;; esac
  printf '%s\n' "$line" | sed -e "s/.*\"event\":{\"id\":\"\([0-9a-f]*\)\".*/{\"id\":\"\1\",\"action\":\"$action\",\"msg\":\"bad words\"}/"
done
"#;

fn saying(at: u64, content: &str) -> Event {
    note(&author(1), at, content)
}

#[test]
fn the_plugin_rules_over_publishers_until_it_is_taken_out_and_not_over_runs_and_imports() {
    let script = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(script.path(), RULES).expect("our own file");
    let plugin = format!("plugin = [\"sh\", \"{}\"]\n", script.path().display());
    let ruled = QUIET.replace("[relay]\n", &format!("[relay]\n{plugin}"));
    let (station, publisher) = (Home::with_config(&ruled), Home::new());
    let running = station.start();
    let at = now() - 1_000;
    let (good, bad) = (saying(at, "good"), saying(at + 1, "bad"));
    publisher.import(&[good.clone(), bad.clone()]);
    let report = publisher.sync(&["--peer", running.address()], 0);
    let peer = &report["peers"][0];
    assert_eq!(peer["uploaded"], 1, "{peer}");
    assert_eq!(peer["refused_by_peer"], json!({"blocked": 1}), "{peer}");
    assert_eq!(station.ids(), ids_of(std::slice::from_ref(&good)));

    // The captain's own hand, and what its own run fetches.
    let imported = saying(at + 2, "bad, but imported");
    station.import(std::slice::from_ref(&imported));
    let other = Home::new();
    let fetched = saying(at + 3, "bad, but fetched");
    other.import(std::slice::from_ref(&fetched));
    let at_other = other.start();
    station.sync(&["--peer", at_other.address(), "--direction", "down"], 0);
    let kept = ids_of(&[good, imported, fetched]);
    assert_eq!(station.ids(), kept);

    // Without it anything goes.
    station.configure(QUIET);
    running.signal(Signal::HUP);
    wait_until("the configuration is read", || {
        running.log().contains("configuration read again")
    });
    let later = saying(at + 4, "bad, but nobody minds");
    publisher.import(std::slice::from_ref(&later));
    let report = publisher.sync(&["--peer", running.address()], 0);
    assert_eq!(report["peers"][0]["uploaded"], 1, "{report}");
    assert!(station.ids().contains(&later.id.to_hex()));
    running.stop();
}
