//! A write policy plugin, from the configuration of the real binary to what a publisher is told.

mod common;

use common::{Home, QUIET, author, ids_of, note, notes, now, wait_until};
use nostr::event::Event;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Rejects what says "bad", and accepts the rest. Writes down what it is asked.
const RULES: &str = r#"#!/bin/sh
while read -r line; do
  printf '%s\n' "$line" >> "$1"
  case "$line" in *'"content":"bad'*) action=reject;; *) action=accept;; esac
  printf '%s\n' "$line" | sed -e "s/.*\"event\":{\"id\":\"\([0-9a-f]*\)\".*/{\"id\":\"\1\",\"action\":\"$action\",\"msg\":\"bad words\"}/"
done
"#;

/// The same with live links.
fn live(config: &str) -> String {
    format!("{config}[live]\nenabled = true\n")
}

fn saying(at: u64, content: &str) -> Event {
    note(&author(1), at, content)
}

/// A plugin, as lines of `[relay]`.
struct Policy {
    folder: tempfile::TempDir,
}

impl Policy {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("script"), script).expect("our own file");
        Self { folder }
    }

    /// A station that syncs only when asked, with this plugin.
    fn configured(&self, more: &str) -> String {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let plugin = format!(
            "plugin = [\"sh\", \"{}\", \"{}\"]\n{more}\n",
            path("script"),
            path("asked")
        );
        QUIET.replace("[relay]\n", &format!("[relay]\n{plugin}"))
    }

    /// What it was asked so far.
    fn asked(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}

#[test]
fn what_runs_fetch_is_ruled_on_where_the_captain_says_so_and_not_fetched_again() {
    let policy = Policy::new(RULES);
    let (station, other) = (
        Home::with_config(&policy.configured("plugin_asks = [\"runs\"]")),
        Home::new(),
    );
    let at = now() - 1_000;
    let good = saying(at, "good");
    other.import(&[
        good.clone(),
        saying(at + 1, "bad"),
        saying(at + 2, "bad too"),
    ]);
    let at_other = other.start();
    let to_other = ["--peer", at_other.address(), "--direction", "down"];
    // By itself, and by the station that runs.
    let report = station.sync(&to_other, 0);
    let peer = &report["peers"][0];
    assert_eq!(peer["outcome"], "converged", "{peer}");
    assert_eq!(peer["stored"], 1, "{peer}");
    assert_eq!(peer["rejected"], json!({"write_policy": 2}), "{peer}");
    assert_eq!(peer["need_after"], 0, "{peer}");
    assert_eq!(station.ids(), ids_of(std::slice::from_ref(&good)));
    let asked = policy.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0]["sourceType"], "Sync");
    let info = asked[0]["sourceInfo"].as_str().expect("a text");
    assert!(info.starts_with(at_other.address()), "{info}");

    let running = station.start();
    let later = saying(at + 3, "good, and later");
    other.import(&[later.clone(), saying(at + 4, "bad, and later")]);
    let report = station.sync(&to_other, 0);
    let peer = &report["peers"][0];
    assert_eq!(
        peer["downloaded"], 2,
        "what was refused is not fetched again: {peer}"
    );
    assert_eq!(station.ids(), ids_of(&[good, later]));
    let report = station.sync(&to_other, 0);
    assert_eq!(report["peers"][0]["downloaded"], 0, "{report}");
    assert_eq!(
        policy.asked().len(),
        5,
        "a duplicate or a refusal is not asked about"
    );

    // About clients it is not asked.
    let publisher = Home::new();
    publisher.import(&[saying(at + 5, "bad, but nobody asks")]);
    let report = publisher.sync(&["--peer", running.address(), "--direction", "up"], 0);
    assert_eq!(report["peers"][0]["uploaded"], 1, "{report}");
    assert_eq!(policy.asked().len(), 5);
}

#[test]
fn what_live_links_bring_is_ruled_on_where_the_captain_says_so_and_not_fetched_by_a_run() {
    let policy = Policy::new(RULES);
    let (station, other) = (Home::new(), Home::with_config(&live(QUIET)));
    let at_other = other.start();
    let peer = format!("[[peers]]\naddress = \"{}\"\n", at_other.address());
    let asks = "plugin_asks = [\"live\"]";
    station.configure(&live(&format!("{}{peer}", policy.configured(asks))));
    let _running = station.start();
    wait_until("the link stands", || {
        station.status()["live"]["links"].as_array().map(Vec::len) == Some(1)
    });
    let publisher = Home::new();
    let good = saying(now(), "good");
    // In this order: the second is stored after the first was refused.
    for event in [saying(now() - 1, "bad"), good.clone()] {
        publisher.import(std::slice::from_ref(&event));
        publisher.sync(&["--peer", at_other.address(), "--direction", "up"], 0);
    }
    wait_until("the good one is here", || station.count("{}") == 1);
    assert_eq!(station.ids(), ids_of(&[good]));
    let asked = policy.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0]["sourceType"], "Stream");
    wait_until("it is remembered what was refused", || {
        let report = station.sync(&["--peer", at_other.address(), "--dry-run"], 0);
        report["peers"][0]["need"] == 0
    });
    let report = station.sync(&["--peer", at_other.address()], 0);
    assert_eq!(report["peers"][0]["downloaded"], 0, "{report}");
    assert_eq!(report["peers"][0]["outcome"], "converged", "{report}");
}

#[test]
fn a_plugin_that_hangs_or_dies_holds_up_no_run_and_the_stated_policy_decides() {
    let other = Home::new();
    other.import(&notes(&author(1), now() - 1_000, 90));
    let at_other = other.start();
    let to_other = ["--peer", at_other.address(), "--direction", "down"];
    for script in ["cat > /dev/null", "read line; exit 1"] {
        let policy = Policy::new(script);
        let more = "plugin_asks = [\"runs\"]\nplugin_timeout = \"300ms\"\n";
        let station = Home::with_config(&policy.configured(more));
        let report = station.sync(&to_other, 1);
        let peer = &report["peers"][0];
        assert_eq!(peer["outcome"], "partial", "{peer}");
        assert_eq!(
            (&peer["stored"], &peer["need_after"]),
            (&json!(0), &json!(90)),
            "{peer}"
        );
        let why = peer["unresolved"][0]["why"].as_str().expect("a reason");
        assert!(why.contains("did not rule"), "{peer}");
        assert_eq!(peer["unresolved"][0]["count"], 90, "{peer}");

        let lenient = format!("{more}plugin_on_failure = \"accept\"\n");
        station.configure(&policy.configured(&lenient));
        let report = station.sync(&to_other, 0);
        assert_eq!(
            report["peers"][0]["stored"], 90,
            "nothing was remembered: {report}"
        );
    }
}

#[test]
fn the_plugin_rules_over_publishers_until_it_is_taken_out_and_not_over_runs_and_imports() {
    let policy = Policy::new(RULES);
    let (station, publisher) = (Home::with_config(&policy.configured("")), Home::new());
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
