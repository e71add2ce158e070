//! Starting the binary and the programs that others wrote, and reading what they say.
//!
//! Every wait is under [`DEADLINE`]; every process is ended by the value that started it, also when a test panics.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Far beyond what anything here takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The path of something in `tests/interop`.
fn interop(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(path)
}

/// Says it past the harness, which shows what a test prints only when the test fails.
pub(crate) fn say(message: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// A program that others wrote.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    NostrTools,
    RustNostr,
    GoNostr,
    Khatru,
    NostrRelay,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::NostrTools => "nostr-tools",
            Self::RustNostr => "rust-nostr",
            Self::GoNostr => "go-nostr",
            Self::Khatru => "khatru",
            Self::NostrRelay => "nostr_relay",
        }
    }

    /// What `install.sh` leaves behind last.
    fn installed_as(self) -> PathBuf {
        interop(match self {
            Self::NostrTools => "nostr-tools/node_modules/.installed-lock",
            Self::RustNostr => "rust-nostr/target/debug/rust-nostr-relay",
            Self::GoNostr => "go-nostr/bin/go-nostr-sync",
            Self::Khatru => "khatru/bin/khatru-relay",
            Self::NostrRelay => "nostr-relay/.venv/.installed-requirements",
        })
    }

    fn has_interpreter(self) -> bool {
        let node = || std::process::Command::new("node").arg("--version").output();
        !matches!(self, Self::NostrTools) || node().is_ok()
    }

    /// Whether to go on. With `CI=true` what is missing is a failure.
    pub(crate) fn is_installed(self) -> bool {
        let installed = self.installed_as().exists() && self.has_interpreter();
        if !installed {
            let missing = format!(
                "{} is not installed: run tests/interop/install.sh",
                self.name()
            );
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "{missing}"
            );
            say(&format!("skipped: {missing}"));
        }
        installed
    }

    pub(crate) fn command(self) -> Command {
        match self {
            Self::NostrTools => {
                // Without `--test` it is one process, which ends with us; the output is the same.
                let mut node = Command::new("node");
                node.arg("--test-reporter=tap")
                    .arg(interop("nostr-tools/relay.test.mjs"));
                node
            }
            Self::RustNostr | Self::GoNostr | Self::Khatru => Command::new(self.installed_as()),
            Self::NostrRelay => Command::new(interop("nostr-relay/.venv/bin/python")),
        }
    }
}

/// What a program said.
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) everything: String,
}

impl Said {
    /// Standard output of a success.
    #[track_caller]
    pub(crate) fn expect_success(self) -> String {
        assert!(self.succeeded, "{}", self.everything);
        self.stdout
    }

    /// The JSON object on standard output of a success.
    #[track_caller]
    pub(crate) fn expect_json(self) -> Value {
        let everything = self.everything.clone();
        serde_json::from_str(&self.expect_success())
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{everything}"))
    }
}

/// Runs a program to its end. `input` is its standard input.
pub(crate) async fn run(command: &mut Command, input: Option<&Path>) -> Said {
    let stdin = match input {
        Some(path) => std::fs::File::open(path)
            .expect("a file written before")
            .into(),
        None => Stdio::null(),
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| panic!("not done within {DEADLINE:?}: {shown}"))
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let stdout = String::from_utf8(output.stdout).expect("all of them write UTF-8");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let everything = format!("{shown}: {}\n{stdout}\n{stderr}", output.status);
    Said {
        succeeded: output.status.success(),
        stdout,
        everything,
    }
}

/// A program that runs until it is told to end, or the test does. What it logs is shown when the test fails.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let shown = format!("{:?}", command.as_std());
        let stderr = std::fs::File::create(&log).expect("a file in a folder of ours");
        let child = command
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        Self { child, log }
    }

    /// Where it says that it listens, as the README has it.
    async fn listening(&mut self) -> String {
        let stdout = self.child.stdout.take().expect("piped");
        let line = timeout(DEADLINE, BufReader::new(stdout).lines().next_line())
            .await
            .expect("the relay tells where it listens")
            .expect("UTF-8")
            .expect("the relay starts");
        let address = line.strip_prefix("listening ");
        address.expect("what the README says").to_owned()
    }

    /// Asks it to end, and expects that it does so in order.
    async fn stop(&mut self) {
        let id = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .expect("it still runs");
        let id = rustix::process::Pid::from_raw(id).expect("not zero");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is ours");
        let status = timeout(DEADLINE, self.child.wait())
            .await
            .expect("it ends when it is asked to")
            .expect("it is waited for once");
        assert!(status.success(), "{status} after SIGTERM");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            say(&format!("{}:\n{log}", self.log.display()));
        }
    }
}

/// A station with a data directory of its own. All that is configured is a free port.
pub(crate) struct Station {
    running: Option<Server>,
    folder: TempDir,
}

impl Station {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(
            folder.path().join("config.toml"),
            "[relay]\nlisten = \"127.0.0.1:0\"\n[tunnel]\nenabled = false\n",
        )
        .expect("a folder of ours");
        Self {
            running: None,
            folder,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_constellation"));
        // The environment overrides keys.
        command.env_clear();
        command.arg("--data").arg(self.folder.path().join("data"));
        command
            .arg("--config")
            .arg(self.folder.path().join("config.toml"));
        command.args(arguments);
        command
    }

    /// `constellation run`; gives the relay's address.
    pub(crate) async fn start(&mut self) -> String {
        let mut command = self.command(&["run"]);
        let log = self.folder.path().join("station.log");
        let server = Server::start(command.stdin(Stdio::null()).stdout(Stdio::null()), log);
        let server = self.running.insert(server);
        let log = server.log.clone();
        let starting = async {
            loop {
                if let Some(relay) = self.status().await["relay"].as_str() {
                    return relay.to_owned();
                }
                let server = self.running.as_mut().expect("started above");
                if let Ok(Some(status)) = server.child.try_wait() {
                    let log = std::fs::read_to_string(&log).unwrap_or_default();
                    panic!("the station ended: {status}\n{log}");
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(DEADLINE, starting)
            .await
            .expect("the station tells where its relay listens")
    }

    pub(crate) async fn stop(mut self) {
        self.running.take().expect("it was started").stop().await;
    }

    async fn status(&self) -> Value {
        run(&mut self.command(&["status", "--json"]), None)
            .await
            .expect_json()
    }

    /// Imports events, all of them good.
    pub(crate) async fn import(&self, events: &[String]) {
        let folder = TempDir::new().expect("a temporary folder");
        let file = write_lines(&folder, events);
        run(&mut self.command(&["import", "--json"]), Some(&file))
            .await
            .expect_success();
    }

    /// All its events, as lines.
    pub(crate) async fn export(&self) -> Vec<String> {
        let lines = run(&mut self.command(&["export"]), None)
            .await
            .expect_success();
        lines.lines().map(str::to_owned).collect()
    }

    /// `sync`, of all kinds; must end with exit code 0.
    pub(crate) async fn sync(&self, relay: &str, direction: &str) -> Value {
        self.sync_as(relay, &["--direction", direction]).await
    }

    /// The same, of the whole history, also with a relay that is read by windows.
    pub(crate) async fn sync_whole(&self, relay: &str, direction: &str) -> Value {
        self.sync_as(relay, &["--direction", direction, "--full"])
            .await
    }

    async fn sync_as(&self, relay: &str, further: &[&str]) -> Value {
        let mut arguments = vec!["sync", "--peer", relay, "--kinds", "all", "--json"];
        arguments.extend(further);
        run(&mut self.command(&arguments), None).await.expect_json()
    }
}

/// rust-nostr's relay with events of ours.
pub(crate) struct RustNostrRelay {
    pub(crate) url: String,
    _server: Server,
    _folder: TempDir,
}

impl RustNostrRelay {
    pub(crate) async fn serve(events: &[String]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Tool::RustNostr.command();
        command
            .args(["serve", "--events"])
            .arg(write_lines(&folder, events));
        // It ends with its standard input.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server::start(&mut command, folder.path().join("rust-nostr.log"));
        Self {
            url: server.listening().await,
            _server: server,
            _folder: folder,
        }
    }
}

/// khatru with events of ours.
pub(crate) struct KhatruRelay {
    pub(crate) url: String,
    _server: Server,
    _folder: TempDir,
}

impl KhatruRelay {
    pub(crate) async fn serve(arguments: &[&str], events: &[String]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Tool::Khatru.command();
        command
            .args(arguments)
            .arg("-events")
            .arg(write_lines(&folder, events));
        // It ends with its standard input.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server::start(&mut command, folder.path().join("khatru.log"));
        Self {
            url: server.listening().await,
            _server: server,
            _folder: folder,
        }
    }
}

/// nostr_relay, which has no NIP-77, with a database of its own.
pub(crate) struct NostrRelay {
    pub(crate) url: String,
    _server: Server,
    folder: TempDir,
}

impl NostrRelay {
    pub(crate) async fn serve(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Tool::NostrRelay.command();
        command
            .arg(interop("nostr-relay/serve.py"))
            .arg(folder.path())
            .args(arguments);
        // It ends with its standard input.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server::start(&mut command, folder.path().join("nostr-relay.log"));
        Self {
            url: server.listening().await,
            _server: server,
            folder,
        }
    }

    /// The ids of all that is in its database, which it is not asked for.
    pub(crate) async fn ids(&self) -> BTreeSet<String> {
        const READ: &str = "import sqlite3, sys\n\
            for (id,) in sqlite3.connect(sys.argv[1]).execute('select hex(id) from events'): print(id.lower())";
        let mut command = Tool::NostrRelay.command();
        command
            .args(["-c", READ])
            .arg(self.folder.path().join("nostr.sqlite3"));
        let said = run(&mut command, None).await.expect_success();
        said.lines().map(str::to_owned).collect()
    }
}

/// What a client that reconciled with a relay says, and the ids that it has in the end.
pub(crate) struct Reconciled {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// `None` for those that do not look at what the relay answers.
    pub(crate) refused: Option<u64>,
    pub(crate) ids: BTreeSet<String>,
}

/// One pass of rust-nostr's client, in `direction`.
pub(crate) async fn rust_nostr_sync(relay: &str, events: &[String], direction: &str) -> Reconciled {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command = Tool::RustNostr.command();
    command.args(["sync", relay, "--direction", direction, "--events"]);
    command.arg(write_lines(&folder, events));
    reconcile(&mut command, &folder).await
}

/// One pass of go-nostr's client, in both directions.
pub(crate) async fn go_nostr_sync(relay: &str, events: &[String]) -> Reconciled {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command = Tool::GoNostr.command();
    command
        .args(["sync", relay])
        .arg(write_lines(&folder, events));
    reconcile(&mut command, &folder).await
}

async fn reconcile(command: &mut Command, folder: &TempDir) -> Reconciled {
    let dump = folder.path().join("ids.txt");
    let told = run(command.arg("--dump").arg(&dump), None)
        .await
        .expect_json();
    let number = |name: &str| told[name].as_u64();
    Reconciled {
        sent: number("sent").expect("what the README says"),
        received: number("received").expect("what the README says"),
        refused: number("refused"),
        ids: std::fs::read_to_string(dump)
            .expect("written by a success")
            .lines()
            .map(str::to_owned)
            .collect(),
    }
}

fn write_lines(folder: &TempDir, lines: &[String]) -> PathBuf {
    let path = folder.path().join("events.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("a folder of ours");
    path
}
