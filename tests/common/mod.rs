//! What the suites share: homes in temporary folders, commands and stations as processes of the real binary, events
//! made here.
//!
//! Every process is ended by its id, also when a test panics. Nothing here listens on a fixed port or waits for a
//! fixed time: conditions are waited for, each under a deadline. No suite uses all of it.
#![allow(dead_code)] // each suite uses its part

pub(crate) mod delay;
pub(crate) mod echo;
pub(crate) mod fake_relay;
pub(crate) mod runs;
pub(crate) mod strfry;
pub(crate) mod tunnelled;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use constellation::time::Clock;
use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);

/// The tests' clock.
pub(crate) fn clock() -> &'static Clock {
    &CLOCK
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    CLOCK.unix_seconds()
}

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_within(PATIENCE, what, condition)
}

/// The same under a deadline of its own.
#[track_caller]
pub(crate) fn wait_for_within<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let started = CLOCK.monotonic();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        let waited = CLOCK.monotonic().saturating_sub(started);
        assert!(waited < deadline, "waited {waited:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `condition` holds, and demands that it did in time.
#[track_caller]
pub(crate) fn wait_within(time: Duration, what: &str, condition: impl FnMut() -> bool) {
    let started = CLOCK.monotonic();
    wait_until(what, condition);
    let took = CLOCK.monotonic().saturating_sub(started);
    assert!(took <= time, "{what}: took {took:?}");
}

/// Waits until the clock of tokens, which counts whole seconds, is past `seconds` more.
pub(crate) fn wait_past(seconds: u64) {
    let until = CLOCK.unix_seconds() + seconds;
    wait_until("the time has passed", || CLOCK.unix_seconds() > until);
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// A relay on a free port of loopback that syncs only when asked.
pub(crate) const QUIET: &str = "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n";

/// A data directory and a configuration, in a temporary folder of their own.
#[derive(Debug)]
pub(crate) struct Home {
    folder: tempfile::TempDir,
    /// The network namespace in which its commands run; `None`: this one.
    namespace: Option<String>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Demands an exit code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; {self:#?}");
        self
    }

    /// Standard output as the one JSON object that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.out) {
            Ok(value) => value,
            Err(error) => panic!("no JSON object ({error}): {self:#?}"),
        }
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}

impl Home {
    /// An empty home whose station syncs only when asked.
    pub(crate) fn new() -> Self {
        Self::with_config(QUIET)
    }

    /// An empty home with this configuration.
    pub(crate) fn with_config(config: &str) -> Self {
        let home = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            namespace: None,
        };
        home.configure(config);
        home
    }

    /// The same, with all its commands in a network namespace.
    pub(crate) fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.config(), config).expect("our own folder");
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("constellation.toml")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.data().join("state/control.sock")
    }

    /// The binary with these arguments, and nothing of the tests' own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_constellation");
        let mut command = match &self.namespace {
            None => Command::new(binary),
            // It becomes the command: the process that we start is the one that we end.
            Some(namespace) => {
                let mut within = Command::new("ip");
                within.args(["netns", "exec", namespace, binary]);
                within
            }
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CONSTELLATION_") || text.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command.env("HOME", self.folder.path());
        // A test that is not about tunnels has none, and no test talks to a kubo that happens to run here.
        let config = std::fs::read_to_string(self.config()).unwrap_or_default();
        if !config.contains("[tunnel]") {
            command.env("CONSTELLATION_TUNNEL__ENABLED", "false");
        }
        if !config.contains("[kubo]") {
            command.env("CONSTELLATION_KUBO__USE", "never");
        }
        // Nor are there live links where a test is about runs.
        if !config.contains("[live]") {
            command.env("CONSTELLATION_LIVE__ENABLED", "false");
        }
        command.args(arguments);
        command
            .arg("--data")
            .arg(self.data())
            .arg("--config")
            .arg(self.config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a command and leaves it running.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments), None)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.spawn(arguments).finish()
    }

    /// Runs a command to its end with `input` on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: impl Into<Vec<u8>>) -> Ended {
        Process::start(self.command(arguments), Some(input.into())).finish()
    }

    /// Imports events that must all be stored.
    #[track_caller]
    pub(crate) fn import(&self, events: &[Event]) {
        let report = self
            .feed(&["import", "--json"], json_lines(events))
            .with_code(0)
            .json();
        assert_eq!(report["stored"], events.len(), "{report}");
    }

    /// Everything stored, as lines.
    #[track_caller]
    pub(crate) fn export(&self) -> BTreeSet<String> {
        let out = self.run(&["export"]).with_code(0).out;
        out.lines().map(str::to_owned).collect()
    }

    /// The ids of everything stored.
    #[track_caller]
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let lines = self.run(&["export"]).with_code(0).lines();
        lines
            .iter()
            .map(|event| event["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// How many events match.
    #[track_caller]
    pub(crate) fn count(&self, filter: &str) -> u64 {
        let ended = self.run(&["count", "--filter", filter]).with_code(0);
        ended.out.trim().parse().expect("a number")
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).with_code(0).json()
    }

    /// `sync --json` with further arguments; demands the exit code.
    #[track_caller]
    pub(crate) fn sync(&self, arguments: &[&str], code: i32) -> Value {
        let all: Vec<&str> = ["sync", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.run(&all).with_code(code).json()
    }

    /// Demands that every index and segment equals a rebuild and every stored event verifies.
    #[track_caller]
    pub(crate) fn verify(&self) {
        let ended = self.run(&["store", "verify", "--json"]);
        let report = ended.json();
        assert_eq!(report["problems_total"], 0, "{report}");
        ended.with_code(0);
    }

    /// Starts the station and waits until its relay serves.
    #[track_caller]
    pub(crate) fn start(&self) -> Station<'_> {
        let log = self.folder.path().join("run.log");
        let mut command = few_files(&self.command(&["run"]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("our own folder"));
        let mut process = Process::start(command, None);
        let address = wait_for("the station serves", || {
            if let Some(code) = process.exited() {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the station ended with {code:?}: {log}");
            }
            let ended = self.run(&["status", "--json"]);
            let status: Value = serde_json::from_str(&ended.out).ok()?;
            status["relay"].as_str().map(str::to_owned)
        });
        Station {
            home: self,
            process,
            address,
        }
    }
}

/// The same command with the limit of open files that Linux and systemd give a process, whatever the tests have.
fn few_files(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// A running process of the binary; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    out: Option<std::thread::JoinHandle<String>>,
    err: Option<std::thread::JoinHandle<String>>,
    input: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(mut command: Command, input: Option<Vec<u8>>) -> Self {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().expect("the binary starts");
        let input = input.map(|bytes| {
            let mut stdin = child.stdin.take().expect("piped");
            // A command that ends or is killed before it has read all breaks the pipe: that is its business.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)))
        });
        let out = child
            .stdout
            .take()
            .map(|pipe| std::thread::spawn(move || read_all(pipe)));
        let err = child
            .stderr
            .take()
            .map(|pipe| std::thread::spawn(move || read_all(pipe)));
        Self {
            child,
            out,
            err,
            input,
        }
    }

    /// How it ended, if it has: `Some(None)` by a signal.
    pub(crate) fn exited(&mut self) -> Option<Option<i32>> {
        self.child
            .try_wait()
            .expect("our own child")
            .map(|status| status.code())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// kill -9. Says whether it had still been running.
    pub(crate) fn kill(mut self) -> bool {
        let was_running = self.exited().is_none();
        self.end();
        was_running
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Ended {
        let code = wait_for("the command ends", || self.exited());
        let joined = |reader: Option<std::thread::JoinHandle<String>>| {
            reader
                .map(|reader| reader.join().expect("a reader"))
                .unwrap_or_default()
        };
        Ended {
            code,
            out: joined(self.out.take()),
            err: joined(self.err.take()),
        }
    }

    fn end(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(input) = self.input.take() {
            drop(input.join());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    drop(pipe.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `constellation run`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Station<'h> {
    home: &'h Home,
    process: Process,
    address: String,
}

impl Station<'_> {
    /// Where its relay listens: `ws://127.0.0.1:…`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.folder.path().join("run.log")).unwrap_or_default()
    }

    /// kill -9.
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// Ends it by SIGTERM and demands that it ends well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.process.signal(Signal::TERM);
        let log = self.home.folder.path().join("run.log");
        let ended = self.process.finish();
        let log = std::fs::read_to_string(log).unwrap_or_default();
        assert_eq!(ended.code, Some(0), "{log}");
    }
}

/// A key made of a number.
pub(crate) fn author(number: u8) -> Keys {
    let mut secret = [7; 32];
    secret[0] = number;
    Keys::new(SecretKey::from_slice(&secret).expect("a valid key"))
}

pub(crate) fn event(keys: &Keys, kind: u16, at: u64, tags: &[&[&str]], content: &str) -> Event {
    let tags = tags
        .iter()
        .map(|tag| Tag::parse(tag.iter().copied()).expect("a tag"));
    EventBuilder::new(Kind::from_u16(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(at))
        .finalize(keys)
        .expect("signed")
}

pub(crate) fn note(keys: &Keys, at: u64, content: &str) -> Event {
    event(keys, 1, at, &[], content)
}

/// Notes by one author, one a second, the first at `at`.
pub(crate) fn notes(keys: &Keys, at: u64, count: u64) -> Vec<Event> {
    (0..count)
        .map(|number| note(keys, at + number, &format!("note {number}")))
        .collect()
}

pub(crate) fn deletion(keys: &Keys, at: u64, target: &Event) -> Event {
    event(keys, 5, at, &[&["e", &target.id.to_hex()]], "")
}

pub(crate) fn json_lines(events: &[Event]) -> Vec<u8> {
    events
        .iter()
        .flat_map(|event| format!("{}\n", event.as_json()).into_bytes())
        .collect()
}

pub(crate) fn ids_of(events: &[Event]) -> BTreeSet<String> {
    events.iter().map(|event| event.id.to_hex()).collect()
}

/// The event with a field replaced, by its own text.
pub(crate) fn forged(event: &Event, field: &str, value: impl Into<Value>) -> String {
    let mut json: Value = serde_json::from_str(&event.as_json()).expect("JSON");
    json[field] = value.into();
    json.to_string()
}

/// The event with a signature that belongs to another one.
pub(crate) fn with_bad_signature(event: &Event) -> String {
    let other = note(&author(99), 1, "another");
    forged(event, "sig", other.sig.to_string())
}

/// Events of the public network by id, if the file is there; says so if not.
pub(crate) fn real_events() -> Option<(PathBuf, BTreeMap<String, Value>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/real-events.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "skipped: this test needs {}, which is not there",
            path.display()
        );
        return None;
    };
    let events = text
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("an event a line");
            (event["id"].as_str().expect("an id").to_owned(), event)
        })
        .collect();
    Some((path, events))
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

/// An address of loopback where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("ws://{}", listener.local_addr().expect("bound"))
}
