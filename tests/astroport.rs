//! A station in the place of an Astroport station's scripts, with the real binary and a home as those have it.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use common::tunnelled::{address, open, own_node, peer_id, refused, start};
use common::{Ended, Home, Process, author, ids_of, nobody, notes, now, wait_for, wait_until};
use constellation::peer::PeerId;
use nostr::key::Keys;
use rustix::process::Signal;
use serde_json::json;

/// Which UPlanet the stations are of.
const UPLANET: &str = "AwdjhpJNqzQgmSrvpUk5Fd2GxBZMJVQkBQmXn4JQLr6z";
/// No process has a number beyond the kernel's largest.
const NO_PROCESS: &str = "4194305\n";
const SYNC_LOCK: &str = ".zen/strfry/constellation-sync.lock";
const BACKFILL_LOCK: &str = ".zen/strfry/constellation-backfill.lock";
const LAST_RUN: &str = ".zen/tmp/backfill_constellation.lastrun";
const LAST_SUCCESS: &str = ".zen/strfry/last_constellation_sync";

/// An Astroport station's home.
struct Astroport(Home);

impl Astroport {
    /// With this in its configuration besides.
    fn new(config: &str) -> Self {
        let station = Self(Home::with_config(config));
        station.write(".zen/Astroport.ONE/tools/my.sh", "#!/bin/bash\n");
        station.write(
            ".zen/game/players/.current/.player",
            "captain@example.org\n",
        );
        for folder in [".zen/strfry", ".zen/tmp/swarm"] {
            fs::create_dir_all(station.path(folder)).expect("our own folder");
        }
        station.write(".zen/strfry/blacklist.txt", "");
        let key = "a".repeat(64);
        let swarm_key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n");
        station.write(".ipfs/swarm.key", &swarm_key);
        station
    }

    fn path(&self, below_home: &str) -> PathBuf {
        let data = self.0.data();
        data.parent().expect("a folder").join(below_home)
    }

    fn write(&self, below_home: &str, text: &str) {
        let path = self.path(below_home);
        fs::create_dir_all(path.parent().expect("a folder")).expect("our own folder");
        fs::write(path, text).expect("our own folder");
    }

    fn read(&self, below_home: &str) -> String {
        fs::read_to_string(self.path(below_home)).unwrap_or_default()
    }

    fn is_there(&self, below_home: &str) -> bool {
        self.path(below_home).exists()
    }

    fn member(&self, name: &str, keys: &Keys) {
        let hex = format!("{}\n", keys.public_key().to_hex());
        self.write(&format!(".zen/game/nostr/{name}/HEX"), &hex);
    }

    /// A card in the folder of the swarm, or in its own; `more`: what it says besides.
    fn card(&self, folder: &str, peer: &str, more: serde_json::Value) {
        let mut card = json!({
            "version": "12345.0.2", "hostname": "host", "ipfsnodeid": peer, "UPLANETG1PUB": UPLANET,
            "myRELAY": "ws://127.0.0.1:7777",
        });
        for (key, value) in more.as_object().expect("an object") {
            card[key] = value.clone();
        }
        self.write(&format!("{folder}/{peer}/12345.json"), &card.to_string());
    }

    fn trigger(&self, arguments: &[&str]) -> Ended {
        let words = ["astroport", "trigger"];
        let all: Vec<&str> = words.iter().chain(arguments).copied().collect();
        self.0.run(&all)
    }

    /// Of the last line of the backfill's log with this mark the number behind `key=`, as the report script takes it.
    fn figure(&self, mark: &str, key: &str) -> Option<u64> {
        let log = self.read(".zen/strfry/constellation-backfill.log");
        let line = log.lines().rfind(|line| line.contains(mark))?;
        let (_, behind) = line.split_once(mark)?;
        let mut pairs = behind.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key)?.1.parse().ok()
    }

    fn has_locks(&self) -> bool {
        self.is_there(SYNC_LOCK) || self.is_there(BACKFILL_LOCK)
    }
}

/// Of its PeerID others must know before it first runs.
fn identity_of(home: &Home) -> String {
    home.status()["peer_id"]
        .as_str()
        .expect("a PeerID")
        .to_owned()
}

/// Takes connections and says nothing, so that a run lasts until its limit.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("ws://{}", listener.local_addr().expect("bound"));
    (listener, address)
}

/// Without tunnels, and with this one peer.
fn with_peer(peer: &str, run_limit: &str) -> String {
    format!(
        "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n[astroport]\nrun_limit = \"{run_limit}\"\n\
         [[peers]]\naddress = \"{peer}\"\n"
    )
}

#[test]
fn the_trigger_finds_the_right_peers_and_leaves_what_the_scripts_read() {
    let [first, second] = [1, 2].map(author);
    // The swarm key is in the home of each.
    let ours = Astroport::new(&own_node(""));
    let own = identity_of(&ours.0);
    let theirs = Astroport::new(&own_node(&format!("allow = [\"{own}\"]")));
    let by_tunnel = &theirs.0;
    by_tunnel.import(&notes(&first, 1_700_000_000, 5));
    let _tunnelled = start(by_tunnel);
    let direct = Home::new();
    direct.import(&notes(&second, 1_700_000_100, 3));
    let relay = direct.start();

    let swarm = ".zen/tmp/swarm";
    let others = [(); 4].map(|()| PeerId::random().to_string());
    let [of_relay, without_tunnel, broken, stale] = &others;
    let peer = peer_id(by_tunnel);
    ours.card(
        swarm,
        &peer,
        json!({"constellation": {"addresses": [address(by_tunnel)]}}),
    );
    ours.write(&format!("{swarm}/{peer}/x_strfry.sh"), "#!/bin/bash\n");
    // Loopback, but not by its usual name: what the cards call routable.
    let port = relay
        .address()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let routable = format!("ws://[::ffff:127.0.0.1]:{port}");
    ours.card(swarm, of_relay, json!({"myRELAY": routable}));
    ours.card(swarm, without_tunnel, json!({}));
    ours.write(
        &format!("{swarm}/{}/12345.json", broken),
        "{\"ipfsnodeid\": \"12D",
    );
    ours.card(swarm, stale, json!({"myRELAY": "wss://stale.invalid"}));
    let half_a_day_ago = now() - 13 * 3600;
    ours.write(
        &format!("{swarm}/{}/_MySwarm.moats", stale),
        &half_a_day_ago.to_string(),
    );
    ours.card(swarm, &own, json!({}));
    ours.card(".zen/tmp", &own, json!({}));
    ours.member("first@example.org", &first);
    ours.member("second@example.org", &second);
    // An old process died with a lock.
    ours.write(BACKFILL_LOCK, NO_PROCESS);

    let began = now();
    let ended = ours.trigger(&["--days", "1", "--verbose"]).with_code(0);
    let expected = [
        notes(&first, 1_700_000_000, 5),
        notes(&second, 1_700_000_100, 3),
    ]
    .concat();
    assert_eq!(ours.0.ids(), ids_of(&expected));
    for shown in [
        format!("Processing peer: /p2p/{peer}"),
        format!("backfill successful for {peer}"),
    ] {
        assert!(ended.out.contains(&shown), "{ended:#?}");
    }
    assert_eq!(ours.figure("SYNC_PEERS:", "success"), Some(2));
    assert_eq!(ours.figure("SYNC_PEERS:", "total"), Some(2));
    assert_eq!(ours.figure("SYNC_STATS:", "events"), Some(8));
    assert_eq!(ours.figure("SYNC_STATS:", "text"), Some(8));
    assert_eq!(ours.figure("SYNC_IMPORT:", "events"), Some(8));
    assert_eq!(ours.figure("SYNC_HEX:", "count"), Some(2));
    assert_eq!(ours.figure("SYNC_PROFILES:", "missing"), Some(2));
    let log = ours.read(".zen/strfry/constellation-backfill.log");
    for mark in [
        "Starting Astroport constellation backfill process",
        "Backfill process completed",
    ] {
        let line = log.lines().find(|line| line.contains(mark)).expect(mark);
        let time = line.get(1..20).expect("a time");
        assert!(
            line.starts_with('[') && line.contains("] [INFO] "),
            "{line}"
        );
        assert!(
            time.as_bytes()[4] == b'-' && time.as_bytes()[13] == b':',
            "{line}"
        );
    }
    for times in [LAST_SUCCESS, LAST_RUN] {
        let time: u64 = ours.read(times).trim().parse().expect("a Unix time");
        assert!((began..=now()).contains(&time), "{times}: {time}");
    }
    assert!(!ours.has_locks());
    let trigger_log = ours.read(".zen/strfry/constellation-trigger.log");
    assert!(trigger_log.contains("Removed stale lock file (PID 4194305 not running)"));
    assert!(trigger_log.contains("Constellation sync completed successfully"));
    let counts = ours.trigger(&["--log-stats"]).with_code(0).out;
    assert!(
        counts.contains("constellation-trigger.log (") && counts.contains("lines"),
        "{counts}"
    );
    let keys = ours.trigger(&["--show-hex"]).with_code(0).out;
    assert!(
        keys.contains("Found 2 HEX pubkeys") && keys.contains(&first.public_key().to_hex()[..8])
    );
    let stats = ours.trigger(&["--stats"]).with_code(0).out;
    assert!(stats.contains("Current events in database: 8"), "{stats}");

    // As every evening. Our own run of a moment ago keeps nobody out.
    for folder in [swarm.to_owned(), format!(".zen/tmp/{own}")] {
        fs::remove_dir_all(ours.path(&folder)).expect("our own folder");
    }
    fs::create_dir(ours.path(swarm)).expect("our own folder");
    direct.import(&notes(&second, 1_700_000_200, 2));
    ours.trigger(&["--days", "1"]).with_code(0);
    assert_eq!(ours.figure("SYNC_PEERS:", "success"), Some(2));
    assert_eq!(ours.figure("SYNC_STATS:", "events"), Some(2));
}

#[test]
fn whoever_else_works_or_has_just_worked_keeps_the_trigger_out() {
    let peer = Home::new();
    peer.import(&notes(&author(1), 1_700_000_000, 3));
    let relay = peer.start();
    let ours = Astroport::new(&with_peer(relay.address(), "1m"));
    let skips = |ended: Ended| {
        assert!(ended.out.contains("skipped"), "{ended:#?}");
        assert!(!ours.is_there(LAST_SUCCESS));
        ended.with_code(0);
    };
    for lock in [SYNC_LOCK, BACKFILL_LOCK] {
        // The first process lives as long as the machine runs.
        ours.write(lock, "1\n");
        skips(ours.trigger(&[]));
        assert_eq!(ours.read(lock), "1\n");
        fs::remove_file(ours.path(lock)).expect("our own folder");
        assert!(!ours.has_locks());
    }
    ours.write(LAST_RUN, &format!("{}\n", now() - 60));
    skips(ours.trigger(&[]));
    assert!(ours.0.ids().is_empty());
    // Who names other days wants them.
    ours.trigger(&["--days", "0"]).with_code(0);
    assert_eq!(ours.0.ids().len(), 3);
    assert!(ours.is_there(LAST_SUCCESS));
    // From now on the last run is ours.
    ours.trigger(&[]).with_code(0);
    assert_eq!(ours.figure("SYNC_PEERS:", "success"), Some(1));
}

#[test]
fn it_exits_by_the_table_and_leaves_no_lock() {
    let nowhere = Home::new();
    let ended = nowhere.run(&["astroport", "trigger"]).with_code(1);
    assert!(
        ended.err.contains("NEEDS ~/.zen/Astroport.ONE"),
        "{ended:#?}"
    );
    let ours = Astroport::new(&with_peer(&nobody(), "1m"));
    ours.trigger(&["--bogus"]).with_code(2);
    assert!(!ours.is_there(".zen/strfry/constellation-trigger.log"));
    ours.trigger(&["--DRYRUN"]).with_code(3);
    assert!(!ours.is_there(".zen/strfry/constellation-trigger.log"));
    ours.trigger(&[]).with_code(3);
    let errors = ours.read(".zen/strfry/constellation-backfill.error.log");
    assert!(
        errors.contains("[ERROR] ❌ WebSocket backfill failed for ws://"),
        "{errors}"
    );
    let (_listener, silent) = silent();
    ours.0.configure(&with_peer(&silent, "1s"));
    ours.trigger(&[]).with_code(4);
    let log = ours.read(".zen/strfry/constellation-backfill.log");
    assert!(log.contains("[WARN] Backfill timeout"), "{log}");
    ours.0.configure(&format!(
        "{}[scope]\nkinds = \"all\"\n",
        with_peer(&silent, "1s")
    ));
    ours.trigger(&["--no-dms"]).with_code(2);
    assert!(!ours.has_locks() && !ours.is_there(LAST_SUCCESS));
    ours.0.configure("[astroport]\nenabled = false\n");
    ours.trigger(&[]).with_code(2);
}

#[test]
fn a_signal_and_a_full_folder_of_logs_leave_no_lock_behind() {
    let (_listener, silent) = silent();
    let ours = Astroport::new(&with_peer(&silent, "1m"));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let running = ours.0.spawn(&["astroport", "trigger"]);
        wait_until("it holds the locks", || {
            ours.is_there(SYNC_LOCK) && ours.is_there(BACKFILL_LOCK)
        });
        assert_eq!(ours.read(SYNC_LOCK), ours.read(BACKFILL_LOCK));
        running.signal(signal);
        running.finish().with_code(130);
        assert!(!ours.has_locks(), "{signal:?}");
    }
    // Whoever ignores that the terminal has gone goes on without it.
    ours.0.configure(&with_peer(&silent, "2s"));
    let mut without_terminal = std::process::Command::new("sh");
    let command = ours.0.command(&["astroport", "trigger"]);
    without_terminal.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    without_terminal
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => without_terminal.env(name, value),
            None => without_terminal.env_remove(name),
        };
    }
    let running = Process::start(without_terminal, None);
    wait_until("it holds the locks", || ours.has_locks());
    running.signal(Signal::HUP);
    running.finish().with_code(4);
    assert!(!ours.has_locks());
    // Where nothing can be written the run takes place all the same.
    fs::remove_dir_all(ours.path(".zen/strfry")).expect("our own folder");
    let peer = Home::new();
    let relay = peer.start();
    ours.0.configure(&with_peer(relay.address(), "1m"));
    ours.trigger(&[]).with_code(0);
    assert!(!ours.is_there(".zen/strfry"));
}

#[test]
fn a_running_station_makes_the_runs_and_publishes_the_way_to_its_relay() {
    let (_listener, silent) = silent();
    let config = format!(
        "{}[astroport]\nrun_limit = \"1m\"\n[[peers]]\naddress = \"{silent}\"\n",
        own_node("")
    );
    let ours = Astroport::new(&config);
    let own = identity_of(&ours.0);
    ours.card(".zen/tmp", &own, json!({}));
    let station = start(&ours.0);
    let script = format!(".zen/tmp/{own}/x_strfry.sh");
    let leads_to_us = || {
        ours.read(&script)
            .contains(&format!("PROTO=\"/x/strfry-{own}\""))
    };
    wait_until("x_strfry.sh is beside the card", leads_to_us);
    // As every evening.
    fs::remove_dir_all(ours.path(&format!(".zen/tmp/{own}"))).expect("our own folder");
    ours.card(".zen/tmp", &own, json!({}));
    wait_until("it is there again", leads_to_us);

    let asking = ours.0.spawn(&["astroport", "trigger"]);
    wait_until("the station holds the locks", || {
        ours.is_there(SYNC_LOCK) && ours.is_there(BACKFILL_LOCK)
    });
    let holder = ours.read(BACKFILL_LOCK);
    let command = fs::read(format!("/proc/{}/cmdline", holder.trim())).expect("it lives");
    let command = String::from_utf8_lossy(&command).into_owned();
    assert!(command.split('\0').any(|word| word == "run"), "{command}");
    // Our own lock is not foreign, but two runs at a time there are not.
    let second = ours.trigger(&[]).with_code(0);
    assert!(second.out.contains("skipped"), "{second:#?}");
    station.stop();
    assert!(!ours.has_locks() && !ours.is_there(&script));
    drop(asking);
}

#[test]
fn stations_of_the_swarm_may_open_the_relay_and_nothing_else() {
    let ours = Astroport::new(&own_node(""));
    let own = identity_of(&ours.0);
    ours.0.import(&notes(&author(1), 1_700_000_000, 4));
    let guest = Astroport::new(&own_node(&format!("allow = [\"{own}\"]")));
    let peer = identity_of(&guest.0);
    ours.card(".zen/tmp", &own, json!({}));
    ours.card(".zen/tmp/swarm", &peer, json!({}));
    let _ours = start(&ours.0);
    let _guest = start(&guest.0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    ours.0.run(&["tunnel", "expose", "ssh", &port]).with_code(0);

    let at = address(&ours.0);
    wait_for("the relay is open to it", || {
        let ended = guest.0.run(&["sync", "--peer", &at]);
        (ended.code == Some(0)).then_some(())
    });
    assert_eq!(guest.0.ids().len(), 4);
    let standing = |of: &str| {
        let peers = ours.0.run(&["peers", "--json"]).with_code(0).json();
        let peers = peers.as_array().expect("a list").clone();
        let name = format!("/p2p/{of}");
        let known = peers.iter().find(|peer| peer["address"] == name.as_str());
        known.map(|peer| peer["standing"].as_str().unwrap_or_default().to_owned())
    };
    assert_ne!(standing(&peer).as_deref(), Some("admitted"));
    let before = refused(&ours.0, "not_admitted");
    let mouth = open(&guest.0, "ssh", &at);
    wait_until("it is refused", || {
        // Whoever connects is hung up on.
        drop(std::net::TcpStream::connect(("127.0.0.1", mouth)));
        refused(&ours.0, "not_admitted") > before
    });
    listener.set_nonblocking(true).expect("ours");
    assert!(listener.accept().is_err(), "nothing came through");
    // A card of another UPlanet, or of none, opens nothing.
    ours.card(".zen/tmp/swarm", &peer, json!({"UPLANETG1PUB": "another"}));
    wait_until("it is out", || {
        let ended = guest.0.run(&["sync", "--peer", &at]);
        ended.code != Some(0)
    });
}
