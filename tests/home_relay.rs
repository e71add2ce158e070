//! A station beside an existing relay: read first, written last, by its own import and never by EVENT.
//!
//! The relay is a stand-in with strfry's documented behaviour (`common/strfry.rs`); the station is the real binary.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::delay::Distance;
use common::fake_relay::{Delivery, FakeRelay, Script};
use common::runs::{SHORT, run_with};
use common::strfry::{Import, Strfry, named_in};
use common::tunnelled::{address, own_node, peer_id};
use common::{
    Home, QUIET, author, deletion, event, ids_of, note, notes, now, wait_for, wait_until,
};
use constellation::home::{HomeOptions, HomeWrite, StrfryCommand};
use constellation::sync::{Deadlines, Outcome, SyncOptions};
use nostr::event::Event;
use rustix::process::{Pid, Signal, test_kill_process_group};
use serde_json::{Value, json};

/// A station beside this relay, found at `address`.
fn beside_at(strfry: &Strfry, address: &str) -> Home {
    Home::with_config(&format!("{}{QUIET}", strfry.station_config_at(address)))
}

fn beside(strfry: &Strfry) -> Home {
    beside_at(strfry, strfry.address())
}

fn some_notes(by: u8, count: u64) -> Vec<Event> {
    notes(&author(by), now() - 10_000, count)
}

/// The entry of the home relay, which is the first.
fn of_home<'r>(report: &'r Value, strfry: &Strfry) -> &'r Value {
    let entry = &report["peers"][0];
    assert_eq!(entry["address"], strfry.address(), "{report}");
    entry
}

/// Demands that nothing was to be done, for less than 2 kB.
#[track_caller]
fn assert_idle(report: &Value) {
    assert_eq!(report["outcome"], "converged", "{report}");
    for key in ["need", "have", "downloaded", "stored", "uploaded"] {
        assert_eq!(report["totals"][key], 0, "{key}: {report}");
    }
    let bytes = ["bytes_in", "bytes_out"].map(|key| report["totals"][key].as_u64().expect("bytes"));
    assert!(bytes[0] + bytes[1] < 2_000, "{bytes:?}: {report}");
}

#[test]
fn the_home_relay_is_read_first_and_written_last_and_never_sent_an_event() {
    let (strfry, peer) = (Strfry::start(), Home::new());
    let (of_home_relay, of_peer, of_us) =
        (some_notes(1, 1_200), some_notes(2, 300), some_notes(3, 50));
    strfry.hold(&of_home_relay);
    let at_peer = peer.start();
    peer.import(&of_peer);
    // Its answers take so long that a peer on loopback would be done with, were both met at once.
    let far = Distance::to(strfry.address(), Duration::from_millis(200));
    let home = beside_at(&strfry, far.address());
    home.import(&of_us);
    let report = home.sync(&["--peer", at_peer.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    let all = ids_of(&[of_home_relay.clone(), of_peer.clone(), of_us.clone()].concat());
    assert_eq!(home.ids(), all);
    assert_eq!(peer.ids(), all, "what the home relay had came first");
    assert_eq!(strfry.ids(), all, "what the peer had went there last");
    assert_eq!(strfry.plugin_calls(), [""; 0]);

    // One entry for its two exchanges.
    assert_eq!(report["peers"].as_array().expect("a list").len(), 2);
    let entry = &report["peers"][0];
    for (key, value) in [
        ("outcome", json!("converged")),
        ("error", Value::Null),
        ("need", json!(1_200)),
        ("have", json!(350)),
        ("need_after", json!(0)),
        ("have_after", json!(0)),
        ("downloaded", json!(1_200)),
        ("stored", json!(1_200)),
        ("uploaded", json!(350)),
        ("by_kind", json!({"1": 1_200})),
        ("unresolved", json!([])),
    ] {
        assert_eq!(entry[key], value, "{key}: {entry}");
    }
    assert!(
        entry["duration_ms"].as_u64().expect("a time") > 800,
        "{entry}"
    );

    // A run with it alone.
    let idle = home.sync(&[], 0);
    assert_idle(&idle);
    assert_eq!(idle["totals"]["rounds"], 1, "equal sets are compared once");
}

#[test]
fn what_a_slow_peer_brings_reaches_the_home_relay_in_the_same_run() {
    let (strfry, peer) = (Strfry::start(), Home::new());
    let at_peer = peer.start();
    let events = some_notes(1, 300);
    peer.import(&events);
    let far = Distance::to(at_peer.address(), Duration::from_millis(400));
    let home = beside(&strfry);
    let report = home.sync(&["--peer", far.address()], 0);
    assert_eq!(of_home(&report, &strfry)["uploaded"], 300, "{report}");
    assert_eq!(strfry.ids(), ids_of(&events));
    assert_eq!(strfry.imports(), 1, "all at once");
}

#[test]
fn one_way_only_and_a_dry_run_have_one_part() {
    let strfry = Strfry::start();
    let (theirs, ours) = (some_notes(1, 20), some_notes(2, 10));
    strfry.hold(&theirs);
    let home = beside(&strfry);
    home.import(&ours);
    let dry = home.sync(&["--dry-run"], 0);
    let entry = of_home(&dry, &strfry);
    assert_eq!((&entry["need"], &entry["have"]), (&json!(20), &json!(10)));
    assert_eq!(strfry.ids(), ids_of(&theirs));
    home.sync(&["--direction", "up"], 0);
    assert_eq!(
        strfry.ids(),
        ids_of(&[theirs.clone(), ours.clone()].concat())
    );
    assert_eq!(home.ids(), ids_of(&ours));
    home.sync(&["--direction", "down"], 0);
    assert_eq!(home.ids(), strfry.ids());
    assert_eq!(strfry.plugin_calls(), [""; 0]);
}

/// Events that strfry rejects, for each of its reasons, and we do not.
fn rejected_there() -> Vec<Event> {
    let (one, at) = (author(1), now() - 5_000);
    let other = author(2).public_key().to_hex();
    vec![
        note(&one, at, &"x".repeat(70_000)),
        event(&one, 1, at, &[&["e", "not an id"]], "a quote"),
        event(&one, 1, at, &[&["p", "npub1…"]], "a mention"),
        event(&one, 1, at, &[&["expiration", "tomorrow"]], "for today"),
        event(
            &one,
            5,
            at,
            &[&["a", &format!("30023:{other}:x")]],
            "not mine",
        ),
    ]
}

#[test]
fn what_strfry_rejects_is_named_once_and_not_offered_again() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    let (good, bad) = (some_notes(3, 100), rejected_there());
    home.import(&[good.clone(), bad.clone()].concat());
    let report = home.sync(&[], 0);
    let entry = of_home(&report, &strfry);
    assert_eq!(entry["outcome"], "converged", "{entry}");
    assert_eq!(entry["uploaded"], 100, "{entry}");
    assert_eq!(entry["refused_by_peer"], json!({"invalid": bad.len()}));
    assert_eq!(named_in(&report), (ids_of(&bad), bad.len() as u64));
    let why = &entry["unresolved"][0]["why"];
    assert_eq!(why, "rejected by the home relay's import");
    assert_eq!(strfry.ids(), ids_of(&good));
    let second = home.sync(&[], 0);
    assert_idle(&second);
    assert_eq!(named_in(&second), (BTreeSet::new(), 0));
    assert_eq!(strfry.imports(), 1);
    // What comes later is offered by itself.
    let more = some_notes(4, 10);
    home.import(&more);
    let third = home.sync(&[], 0);
    assert_eq!(of_home(&third, &strfry)["have"], 10, "{third}");
    assert_eq!(strfry.ids(), ids_of(&[good, more].concat()));
}

#[test]
fn a_second_run_costs_less_than_two_kilobytes_with_ten_thousand_refused_on_either_side() {
    let strfry = Strfry::start();
    let (one, two, at) = (author(1), author(2), now() - 50_000);
    // Each of these is refused there, and the deleted ones here.
    let refused_there: Vec<Event> = (0..10_000)
        .map(|number| event(&one, 1, at + number, &[&["e", "no id"]], ""))
        .collect();
    let refused_here = notes(&two, at, 10_000);
    let deletions: Vec<Event> = refused_here
        .chunks(1_000)
        .map(|targets| {
            let ids: Vec<String> = targets.iter().map(|target| target.id.to_hex()).collect();
            let tags: Vec<[&str; 2]> = ids.iter().map(|id| ["e", id.as_str()]).collect();
            let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
            event(&two, 5, now() - 100, &tags, "")
        })
        .collect();
    strfry.hold(&refused_here);
    let home = beside(&strfry);
    home.import(&[refused_there.clone(), deletions.clone()].concat());
    // Too large for it, so that it never hears of them: 1,000 ids are 70 kB.
    let first = home.sync(&[], 0);
    let entry = of_home(&first, &strfry);
    assert_eq!(entry["outcome"], "converged", "{entry}");
    assert_eq!(entry["refused_by_peer"], json!({"invalid": 10_010}));
    assert_eq!(entry["rejected"], json!({"deleted": 10_000}));
    let (named, count) = named_in(&first);
    assert_eq!((named.len(), count), (100, 10_010), "{entry}");
    assert_idle(&home.sync(&[], 0));
    assert_eq!(strfry.ids(), ids_of(&refused_here));
    assert_eq!(strfry.plugin_calls(), [""; 0]);
}

#[test]
fn an_import_that_fails_counts_for_nothing_and_is_made_up_for_later() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    let events = some_notes(1, 30);
    home.import(&events);
    for (import, reason, said) in [
        (
            Import::Fails,
            "import_exit_code",
            "exit code 1: no space left",
        ),
        (Import::IsKilled, "import_killed", "signal 9"),
        (Import::Lies, "import_not_stored", "none of the 30 events"),
        (
            Import::IsSilent,
            "import_not_stored",
            "none of the 30 events",
        ),
        (Import::Miscounts, "import_miscounted", "given 30 events"),
    ] {
        strfry.import_now(import);
        let report = home.sync(&[], 1);
        let entry = of_home(&report, &strfry);
        assert_eq!(entry["outcome"], "failed", "{import:?}: {entry}");
        assert_eq!(entry["error"]["step"], "upload", "{import:?}: {entry}");
        assert_eq!(entry["error"]["reason"], reason, "{import:?}: {entry}");
        let detail = entry["error"]["detail"].as_str().expect("words");
        assert!(detail.contains(said), "{import:?}: {detail}");
        assert_eq!(entry["uploaded"], 0, "{import:?}: {entry}");
        assert_eq!(entry["refused_by_peer"], json!({}), "{import:?}: {entry}");
        assert_eq!(entry["have"], 30, "{import:?}: {entry}");
    }
    let config = strfry
        .station_config()
        .replace("\"sh\"", "\"/nowhere/strfry\"");
    home.configure(&format!("{config}{QUIET}"));
    let report = home.sync(&[], 1);
    let error = &of_home(&report, &strfry)["error"];
    assert_eq!(error["reason"], "import_not_found", "{error}");
    assert_eq!(strfry.ids(), BTreeSet::new());
    home.configure(&format!("{}{QUIET}", strfry.station_config()));
    strfry.import_now(Import::Works);
    let report = home.sync(&[], 0);
    assert_eq!(of_home(&report, &strfry)["uploaded"], 30, "{report}");
    assert_eq!(strfry.ids(), ids_of(&events));
    assert_eq!(strfry.plugin_calls(), [""; 0]);
}

#[test]
fn a_failing_import_does_not_keep_back_what_the_home_relay_gives() {
    let strfry = Strfry::start();
    let (theirs, ours) = (some_notes(1, 40), some_notes(2, 10));
    strfry.hold(&theirs);
    strfry.import_now(Import::Fails);
    let home = beside(&strfry);
    home.import(&ours);
    let report = home.sync(&[], 1);
    let entry = of_home(&report, &strfry);
    assert_eq!(entry["outcome"], "partial", "{entry}");
    assert_eq!(
        (&entry["stored"], &entry["uploaded"]),
        (&json!(40), &json!(0))
    );
    assert_eq!(home.ids(), ids_of(&[theirs, ours].concat()));
}

/// The process group of an import that hangs, once it has started.
fn hanging_group(told: &Path) -> Pid {
    let number = wait_for("the import has started", || {
        let text = std::fs::read_to_string(told).ok()?;
        text.strip_suffix('\n')?.parse::<i32>().ok()
    });
    Pid::from_raw(number).expect("a process group")
}

/// Waits until no process of the group is left, a zombie neither.
fn wait_until_gone(group: Pid) {
    wait_until("the import and its child are gone", || {
        test_kill_process_group(group).is_err()
    });
}

/// What runs in this process go by.
fn options_beside(strfry: &Strfry, deadlines: Deadlines) -> SyncOptions {
    let words = vec!["sh".to_owned(), strfry.script().display().to_string()];
    SyncOptions {
        home: Some(HomeOptions {
            relay: strfry.address().parse().expect("an address"),
            write: HomeWrite::Import,
            strfry_command: StrfryCommand::try_from(words).expect("a command"),
        }),
        deadlines,
        ..SyncOptions::default()
    }
}

#[test]
fn a_peer_that_trickles_to_the_end_of_the_run_leaves_time_for_the_home_relay() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    let ours = some_notes(1, 10);
    home.import(&ours);
    let mut script = Script::holding(&some_notes(2, 400));
    script.delivery = Delivery::Slow(Duration::from_millis(100));
    let (trickling, _played) = FakeRelay::scripted(script);
    let deadlines = Deadlines {
        run: Duration::from_secs(6),
        ..SHORT
    };
    let options = options_beside(&strfry, deadlines);
    let report = run_with(&home, &[trickling.address()], options);
    assert_eq!(report.outcome, Outcome::Deadline, "{report:?}");
    let outcomes: Vec<Outcome> = report.peers.iter().map(|peer| peer.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Converged, Outcome::Deadline],
        "{report:?}"
    );
    assert!(strfry.ids().is_superset(&ids_of(&ours)));
}

#[test]
fn an_import_that_hangs_is_ended_in_its_time_with_all_that_it_started() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    home.import(&some_notes(1, 10));
    strfry.import_now(Import::Hangs);
    let report = run_with(&home, &[], options_beside(&strfry, SHORT));
    let entry = &report.peers[0];
    let reason = entry.error.as_ref().map(|error| error.reason.as_str());
    assert_eq!(reason, Some("import_deadline"), "{entry:?}");
    assert_eq!((entry.uploaded, strfry.ids().len()), (0, 0));
    wait_until_gone(hanging_group(&strfry.group_file()));
}

#[test]
fn an_import_ends_with_the_run_that_is_interrupted() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    home.import(&some_notes(1, 10));
    strfry.import_now(Import::Hangs);
    let syncing = home.spawn(&["sync", "--json"]);
    let group = hanging_group(&strfry.group_file());
    assert!(test_kill_process_group(group).is_ok(), "it hangs");
    syncing.signal(Signal::INT);
    syncing.finish().with_code(130);
    wait_until_gone(group);
}

#[test]
fn by_event_if_so_configured_and_then_the_plugin_is_asked() {
    let strfry = Strfry::start();
    let config = strfry.station_config() + "home_write = \"event\"\n" + QUIET;
    let home = Home::with_config(&config);
    let events = some_notes(1, 10);
    home.import(&events);
    let report = home.sync(&[], 0);
    assert_eq!(of_home(&report, &strfry)["uploaded"], 10, "{report}");
    let calls: BTreeSet<String> = strfry.plugin_calls().into_iter().collect();
    assert_eq!(calls, ids_of(&events));
    assert_eq!(strfry.imports(), 0);
}

#[test]
fn old_events_and_private_messages_get_there_though_strfry_does_not_show_them() {
    let strfry = Strfry::start();
    let home = beside(&strfry);
    let one = author(1);
    let other = author(2).public_key().to_hex();
    let old = note(&one, now() - 4 * 365 * 24 * 3600, "of another age");
    let private = event(&one, 4, now() - 100, &[&["p", &other]], "secret");
    home.import(&[old.clone(), private.clone()]);
    let report = home.sync(&["--dms"], 0);
    let entry = of_home(&report, &strfry);
    assert_eq!(entry["outcome"], "converged", "{entry}");
    assert_eq!(entry["uploaded"], 2, "{entry}");
    assert_eq!(strfry.ids(), ids_of(&[old, private]));
    assert_idle(&home.sync(&["--dms"], 0));
}

#[test]
fn what_the_home_relay_deleted_by_its_own_rules_is_told_and_remembered() {
    let strfry = Strfry::start();
    let (one, at) = (author(1), now() - 1_000);
    // strfry lets a deletion delete a deletion; we do not.
    let target = note(&one, at, "to be deleted");
    let first = deletion(&one, at + 1, &target);
    let second = deletion(&one, at + 2, &first);
    let home = beside(&strfry);
    home.import(&[first.clone(), second.clone()]);
    let report = home.sync(&[], 0);
    let entry = of_home(&report, &strfry);
    assert_eq!(entry["outcome"], "converged", "{entry}");
    assert_eq!(entry["refused_by_peer"], json!({"deleted": 1}), "{entry}");
    assert_eq!(named_in(&report), (ids_of(&[first]), 1));
    assert_eq!(strfry.ids(), ids_of(&[second]));
    assert_idle(&home.sync(&[], 0));
}

/// The newer version is there when the older one comes to it, and goes with the same import.
#[test]
fn an_older_version_gets_there_with_the_deletion_of_the_newer_one() {
    let strfry = Strfry::start();
    let keys = author(1);
    let (old, new) = (
        event(&keys, 0, now() - 300, &[], "old"),
        event(&keys, 0, now() - 200, &[], "new"),
    );
    let removal = deletion(&keys, now() - 100, &new);
    strfry.hold(&[new]);
    let home = beside(&strfry);
    home.import(&[old.clone(), removal.clone()]);
    let report = home.sync(&[], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    let all = ids_of(&[old, removal]);
    assert_eq!(home.ids(), all);
    assert_eq!(strfry.ids(), all, "{report}");
    assert_idle(&home.sync(&[], 0));
}

#[test]
fn what_a_running_station_stores_goes_on_to_the_home_relay_by_import() {
    let strfry = Strfry::start();
    let home = Home::with_config(&format!(
        "{}{QUIET}[live]\n",
        strfry.station_config_at(strfry.address())
    ));
    let station = home.start();
    let ours = some_notes(3, 5);
    home.import(&ours);
    wait_until("the home relay has it", || strfry.ids() == ids_of(&ours));
    assert_eq!(strfry.plugin_calls(), [""; 0]);
    station.stop();
}

#[test]
fn a_relay_that_refuses_the_whole_history_is_compared_in_slices() {
    let strfry = Strfry::start();
    let theirs = some_notes(1, 35);
    strfry.hold(&theirs);
    strfry.set_sync_events_max(10);
    let home = beside(&strfry);
    let report = home.sync(&[], 0);
    let entry = of_home(&report, &strfry);
    assert_eq!(entry["outcome"], "converged", "{entry}");
    assert_eq!(entry["stored"], 35, "{entry}");
    // What we have by then tells which slices it bears.
    let again = home.sync(&[], 0);
    assert_eq!(again["totals"]["stored"], 0, "{again}");
    let rounds = again["totals"]["rounds"].as_u64().expect("a number");
    assert!(rounds <= 8, "{again}");
}

#[test]
fn the_tunnels_relay_service_leads_to_the_station_and_never_to_its_home_relay() {
    let strfry = Strfry::start();
    let served = Home::with_config(&format!("{}{}", strfry.station_config(), own_node("")));
    let guest = Home::with_config(&own_node(""));
    let _running = common::tunnelled::start(&served);
    let guest_id = {
        let _once = common::tunnelled::start(&guest);
        peer_id(&guest)
    };
    served
        .run(&["peers", "allow", &format!("/p2p/{guest_id}")])
        .with_code(0);
    let events = some_notes(1, 5);
    guest.import(&events);
    let before = strfry.connections();
    guest.sync(&["--peer", &address(&served)], 0);
    assert_eq!(served.ids(), ids_of(&events));
    assert_eq!(strfry.connections(), before, "nobody spoke with it");
    assert_eq!(strfry.ids(), BTreeSet::new());
    // It gets there by the station's own run, past its plugin.
    served.sync(&["--peer", strfry.address()], 0);
    assert_eq!(strfry.ids(), ids_of(&events));
    assert_eq!(strfry.plugin_calls(), [""; 0]);
}
