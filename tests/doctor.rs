//! `constellation doctor`: each check is shown to fail by breaking that one thing, and its remedy, done literally, mends it.
//!
//! A remedy that is a command is given to a shell, one that is a setting is written into the file, and one in words is
//! done by the test. Programs that are not ours (`ipfs`, `sudo`, `timedatectl`) are scripts in a folder of their own.

#[path = "common/mod.rs"]
mod common;

#[path = "doctor/around.rs"]
mod around;
#[path = "doctor/patient.rs"]
mod patient;

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Process, set_mode, wait_until};
use patient::{Patient, is_root, peer};
use serde_json::Value;

#[test]
fn of_a_station_that_is_well_every_line_says_so() {
    let (_relay, config) = peer();
    let mut patient = Patient::new(&config);
    // A first exchange, which is its own remedy.
    patient.is_cured("last_success", "warning");
    let found = patient.examined();
    let ill: Vec<&Value> = found
        .iter()
        .filter(|one| one["verdict"] == "problem")
        .collect();
    assert!(ill.is_empty(), "{ill:#?}");

    patient.variables.push(("LC_ALL".into(), "C.UTF-8".into()));
    let ended = patient.examined_with("").with_code(0);
    assert!(ended.out.contains("✓ configuration"), "{ended:?}");
    assert!(
        !ended.out.contains('\u{1b}'),
        "no terminal, no colours: {ended:?}"
    );
    patient.variables.push(("LC_ALL".into(), "C".into()));
    let ended = patient.examined_with("").with_code(0);
    assert!(
        ended.out.contains("+ configuration") && ended.out.is_ascii(),
        "{ended:?}"
    );
    patient
        .variables
        .push(("CLICOLOR_FORCE".into(), "1".into()));
    assert!(patient.examined_with("").out.contains('\u{1b}'));
    patient.variables.push(("NO_COLOR".into(), "1".into()));
    assert!(!patient.examined_with("").out.contains('\u{1b}'));
}

#[test]
fn beside_a_running_station_the_doctor_asks_it() {
    let (_relay, config) = peer();
    let patient = Patient::new(&config);
    let station = patient.home.start();
    for check in ["lock", "store", "relay_port", "peer", "configuration"] {
        patient.is_well(check);
    }
    let lock = patient.finding("lock")["seen"].to_string();
    assert!(lock.contains("our station"), "{lock}");
    station.stop();
}

#[test]
fn a_line_of_the_configuration_that_is_wrong_is_commented_out() {
    let mut patient = Patient::new("[station]\nname = \"a\"\nnmae = \"b\"\n");
    let finding = patient.is_cured("configuration", "problem");
    assert!(finding["seen"].to_string().contains("nmae"), "{finding}");
    let text = std::fs::read_to_string(patient.home.config()).expect("there");
    assert!(
        text.contains("\n#nmae = \"b\"\n") && text.contains("\nname = \"a\"\n"),
        "{text}"
    );
}

#[test]
fn a_configuration_that_is_not_there_is_written() {
    let mut patient = Patient::new("");
    std::fs::remove_file(patient.home.config()).expect("ours");
    patient.is_cured("configuration", "problem");
}

#[test]
fn a_variable_that_is_wrong_is_unset() {
    let mut patient = Patient::new("");
    let wrong = ("CONSTELLATION_STATION__NMAE".to_owned(), "b".to_owned());
    patient.variables.push(wrong);
    patient.is_cured("configuration", "problem");
}

#[test]
fn a_station_that_would_be_its_own_home_is_none() {
    let home = "[station]\nhome_relay = \"ws://127.0.0.1:9\"\n";
    let mut patient = Patient::new("");
    patient
        .home
        .configure(&format!("{home}[relay]\nlisten = \"127.0.0.1:9\"\n"));
    patient.is_cured("configuration", "problem");
}

#[test]
fn the_data_directory_is_ours_alone() {
    let mut patient = Patient::new("");
    let data = patient.home.data();
    for (mode, verdict) in [(0o777, "problem"), (0o755, "warning")] {
        set_mode(&data, mode);
        patient.is_cured("data_directory", verdict);
    }
    std::fs::remove_dir_all(&data).expect("ours");
    patient.is_cured("data_directory", "warning");
    std::fs::remove_dir_all(&data).expect("ours");
    std::fs::write(&data, "a file").expect("ours");
    patient.is_cured("data_directory", "problem");
}

#[test]
fn what_another_user_left_behind_is_taken_over() {
    if !is_root() {
        return;
    }
    let mut patient = Patient::new("");
    let left = patient.home.data().join("state");
    std::fs::create_dir(&left).expect("ours");
    std::os::unix::fs::chown(&left, Some(12_345), None).expect("root");
    let finding = patient.is_cured("data_directory", "problem");
    assert!(finding["seen"].to_string().contains("state"), "{finding}");
}

#[test]
fn keys_are_readable_by_us_alone_and_are_keys() {
    let mut patient = Patient::new("");
    patient.home.status();
    let identity = patient.home.data().join("identity.key");
    set_mode(&identity, 0o644);
    patient.is_cured("keys", "problem");
    std::fs::write(&identity, "no key").expect("ours");
    patient.is_cured("keys", "problem");
    let nostr = patient.home.data().join("nostr.key");
    std::fs::write(&nostr, "").expect("ours");
    set_mode(&nostr, 0o640);
    patient.is_cured("keys", "problem");
}

#[test]
fn who_holds_the_lock_and_does_not_answer_is_named_and_ended() {
    let mut patient = Patient::new("");
    patient.home.status();
    let lock = patient.home.data().join("constellation.lock");
    // Who took the lock has gone; who has the file open still holds it.
    let mut holder = Command::new("sh");
    let line = "exec 9<>\"$0\"; flock 9; exec sleep 600";
    holder.args(["-c", line]).arg(&lock);
    let mut holder = Process::start(holder, None);
    wait_until("the lock is held", || {
        let mut trying = Command::new("flock");
        trying.arg("-n").arg(&lock).arg("true");
        trying.status().is_ok_and(|status| !status.success())
    });
    wait_until("it sleeps", || {
        let seen = patient.ails("lock", "problem")["seen"].to_string();
        seen.contains("sleep (process")
    });
    let finding = patient.ails("lock", "problem");
    patient.apply(&finding["remedy"]);
    wait_until("it has ended", || holder.exited().is_some());
    patient.is_well("lock");
}

/// A small file system at the data directory, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a message, where none can be mounted.
    fn at(path: PathBuf, options: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=700,{options}"), "tmpfs"])
            .arg(&path)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: no file system can be mounted here");
        None
    }

    fn grow(&self, options: &str) {
        let grown = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status();
        assert!(grown.is_ok_and(|status| status.success()), "remounted");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// The number that a remedy in words names before its unit.
fn how_much(finding: &Value, unit: &str) -> u64 {
    let text = finding["remedy"]["text"]
        .as_str()
        .expect("words")
        .to_owned();
    let (before, _) = text.split_once(&format!(" {unit} more")).expect("how much");
    let number = before.rsplit(' ').next().expect("a word");
    number.parse().expect("a number")
}

#[test]
fn a_disk_that_is_nearly_full_needs_the_room_that_is_named() {
    if !is_root() {
        return;
    }
    let patient = Patient::new("");
    let Some(disk) = SmallDisk::at(patient.home.data(), "size=50m") else {
        return;
    };
    let finding = patient.ails("disk_space", "problem");
    disk.grow(&format!(
        "size={}",
        50 * 1_048_576 + how_much(&finding, "MB") * 1_000_000
    ));
    patient.is_well("disk_space");
    disk.grow("size=300m");
    let finding = patient.ails("disk_space", "warning");
    disk.grow(&format!(
        "size={}",
        300 * 1_048_576 + how_much(&finding, "MB") * 1_000_000
    ));
    patient.is_well("disk_space");
}

#[test]
fn a_disk_that_has_no_room_for_files_needs_what_is_named() {
    if !is_root() {
        return;
    }
    let patient = Patient::new("");
    let Some(disk) = SmallDisk::at(patient.home.data(), "nr_inodes=50") else {
        return;
    };
    let finding = patient.ails("disk_inodes", "problem");
    disk.grow(&format!("nr_inodes={}", 50 + how_much(&finding, "files")));
    patient.is_well("disk_inodes");
}

#[test]
fn the_store_needs_addresses() {
    let mut patient = Patient::new("");
    patient.before = "ulimit -Sv 1500000;".into();
    patient.is_cured("map_size", "problem");
}

#[test]
fn tunnels_need_many_files() {
    let mut patient = Patient::new("");
    let may_raise = {
        let mut raising = Command::new("sh");
        raising.args(["-c", "ulimit -n 500 && ulimit -n 16384"]);
        raising
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    for (files, verdict) in [(500, "problem"), (5_000, "warning")] {
        patient.before = format!("ulimit -n {files};");
        let finding = patient.ails("open_files", verdict);
        if may_raise {
            patient.apply(&finding["remedy"]);
        } else {
            eprintln!("skipped: nobody may raise the limit here; it is not lowered instead");
            patient.before.clear();
        }
        patient.is_well("open_files");
    }
}

#[test]
fn a_store_that_is_none_is_set_aside() {
    let mut patient = Patient::new("");
    patient.home.status();
    let stored = patient.home.data().join("events/data.mdb");
    patient.is_well("store");
    std::fs::write(&stored, vec![b'x'; 65_536]).expect("ours");
    let finding = patient.ails("store", "problem");
    patient.apply(&finding["remedy"]);
    patient.home.status();
    patient.is_well("store");
}

#[test]
fn a_port_that_another_program_holds_is_left_to_it() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held = holder.local_addr().expect("bound");
    let mut patient = Patient::new("");
    patient
        .home
        .configure(&format!("[relay]\nlisten = \"{held}\"\n"));
    let finding = patient.is_cured("relay_port", "problem");
    let process = format!("process {}", std::process::id());
    assert!(finding["seen"].to_string().contains(&process), "{finding}");
}

#[test]
fn a_relay_at_our_port_is_served() {
    let strfry = common::strfry::Strfry::start();
    let address = strfry.address().strip_prefix("ws://").expect("a relay");
    let mut patient = Patient::new("");
    patient
        .home
        .configure(&format!("[relay]\nlisten = \"{address}\"\n"));
    let finding = patient.ails("relay_port", "problem");
    assert_eq!(finding["remedy"]["key"], "home_relay", "{finding}");
    // Beside one the station listens elsewhere; here the port was named, so that has to go.
    patient.home.configure("");
    patient.apply(&finding["remedy"]);
    patient.is_well("home_relay");
}

#[test]
fn ports_of_tunnels_that_are_held_are_left() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for held in [
        format!(
            "/ip4/127.0.0.1/tcp/{}",
            tcp.local_addr().expect("bound").port()
        ),
        format!(
            "/ip4/127.0.0.1/udp/{}/quic-v1",
            udp.local_addr().expect("bound").port()
        ),
    ] {
        let mut patient = Patient::new(&format!("[tunnel]\nlisten = [\"{held}\"]\n"));
        patient.is_cured("tunnel_ports", "problem");
    }
}
