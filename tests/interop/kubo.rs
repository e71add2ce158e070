//! A kubo daemon in a repository of its own, on loopback, on free ports, that knows nobody.
//!
//! Ended by its id, also when a test panics; what it logged is shown then. It calls nobody: no bootstrap, no DHT, no
//! multicast, no telemetry. After a restart it has the same ports and identity, as a daemon with a configuration has.
#![allow(dead_code)] // each suite uses its part

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use constellation::time::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far beyond what a daemon takes to start or to end on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a daemon is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'s> {
    /// `Experimental.Libp2pStreamMounting`.
    pub(crate) stream_mounting: bool,
    /// Listens for QUIC as well as for TCP. kubo bears 256 streams at once on a QUIC connection; more wait.
    pub(crate) quic: bool,
    /// Secures TCP by Noise alone. Otherwise it prefers TLS, as we do.
    pub(crate) noise_only: bool,
    /// The text of a `swarm.key`: then it takes part in that private swarm only, over TCP.
    pub(crate) swarm_key: Option<&'s str>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            stream_mounting: true,
            quic: true,
            noise_only: false,
            swarm_key: None,
        }
    }
}

/// A daemon.
#[derive(Debug)]
pub(crate) struct Kubo {
    binary: PathBuf,
    folder: TempDir,
    daemon: Option<Child>,
    peer: String,
    is_private: bool,
}

/// Where `tests/interop/install.sh` puts it.
pub(crate) fn binary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/kubo/bin/ipfs")
}

/// Says it past the harness, which shows what a test prints only when the test fails.
pub(crate) fn say(message: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{message}");
}

impl Kubo {
    /// Whether to go on. With `CI=true` what is missing is a failure.
    pub(crate) fn is_installed() -> bool {
        let is_installed = binary().exists();
        if !is_installed {
            let missing = "kubo is not installed: run tests/interop/install.sh";
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "{missing}"
            );
            say(&format!("skipped: {missing}"));
        }
        is_installed
    }

    /// A daemon that takes commands.
    pub(crate) fn start(setup: Setup<'_>) -> Self {
        Self::start_with(binary(), setup)
    }

    /// The same, of a binary that is somewhere else.
    pub(crate) fn start_with(binary: PathBuf, setup: Setup<'_>) -> Self {
        let mut kubo = Self {
            binary,
            folder: TempDir::new().expect("a temporary folder"),
            daemon: None,
            peer: String::new(),
            is_private: setup.swarm_key.is_some(),
        };
        kubo.ipfs(&["init", "--empty-repo", "--profile=test"]);
        if let Some(key) = setup.swarm_key {
            fs::write(kubo.repository().join("swarm.key"), key).expect("a folder of ours");
        }
        kubo.configure(|config| {
            kubo_of_ours(config, setup);
        });
        kubo.peer = kubo.config()["Identity"]["PeerID"]
            .as_str()
            .expect("made by init")
            .to_owned();
        kubo.run();
        kubo
    }

    /// Its PeerID.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// The id of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Where it takes commands: `/ip4/127.0.0.1/tcp/PORT`.
    pub(crate) fn api(&self) -> String {
        let api = fs::read_to_string(self.repository().join("api"));
        api.expect("it runs").trim().to_owned()
    }

    /// Where other daemons reach it, each with `/p2p/<PeerID>`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let told = self.ipfs(&["id"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let addresses = told["Addresses"].as_array().expect("it listens");
        let texts = addresses.iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// `$IPFS_PATH`.
    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Runs an `ipfs` command that must succeed; gives its standard output.
    #[track_caller]
    pub(crate) fn ipfs(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output();
        let output = output.expect("it is installed");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ipfs {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Forwards and listeners, a line each: protocol, listening address, target address.
    #[track_caller]
    pub(crate) fn mounts(&self) -> Vec<String> {
        let listed = self.ipfs(&["p2p", "ls"]);
        listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.keep_ports();
        let mut daemon = self.daemon.take().expect("it runs");
        let id = i32::try_from(daemon.id()).expect("an id");
        let id = Pid::from_raw(id).expect("not zero");
        kill_process(id, Signal::TERM).expect("it is ours");
        let status = wait_for("kubo ends", || daemon.try_wait().expect("it is ours"));
        assert!(status.success(), "{status} after SIGTERM");
    }

    /// Starts it again after [`stop`](Self::stop).
    pub(crate) fn start_again(&mut self) {
        self.run();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("IPFS_PATH", self.repository())
            .env("IPFS_TELEMETRY", "off")
            .stdin(Stdio::null());
        if self.is_private {
            command.env("LIBP2P_FORCE_PNET", "1");
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }

    fn run(&mut self) {
        let api = self.repository().join("api");
        // A daemon that was killed leaves it behind.
        let _ = fs::remove_file(&api);
        let log = File::create(self.log()).expect("a folder of ours");
        let mut command = self.command();
        command
            .arg("daemon")
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        let daemon = self
            .daemon
            .insert(command.spawn().expect("it is installed"));
        let log = self.folder.path().join("daemon.log");
        wait_for("kubo takes commands", || {
            if let Some(status) = daemon.try_wait().expect("it is ours") {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("kubo has ended: {status}\n{log}");
            }
            fs::read_to_string(&api)
                .ok()
                .filter(|text| !text.is_empty())
        });
    }

    fn config(&self) -> Value {
        let text = fs::read_to_string(self.repository().join("config"));
        serde_json::from_str(&text.expect("made by init")).expect("JSON")
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        change(&mut config);
        let path = self.repository().join("config");
        fs::write(path, config.to_string()).expect("a folder of ours");
    }

    /// Writes the ports that it was given into its configuration.
    fn keep_ports(&self) {
        let suffix = format!("/p2p/{}", self.peer);
        let swarm: Vec<String> = self
            .addresses()
            .iter()
            .map(|address| address.trim_end_matches(&suffix).to_owned())
            .filter(|address| {
                address.starts_with("/ip4/127.0.0.1/") && !address.contains("certhash")
            })
            .collect();
        let api = self.api();
        self.configure(|config| {
            config["Addresses"]["API"] = json!(api);
            config["Addresses"]["Swarm"] = json!(swarm);
        });
    }
}

fn kubo_of_ours(config: &mut Value, setup: Setup<'_>) {
    let quic = "/ip4/127.0.0.1/udp/0/quic-v1";
    let tcp = "/ip4/127.0.0.1/tcp/0";
    config["Addresses"]["API"] = json!("/ip4/127.0.0.1/tcp/0");
    config["Addresses"]["Gateway"] = json!([]);
    config["Addresses"]["Swarm"] = if setup.quic && setup.swarm_key.is_none() {
        json!([tcp, quic])
    } else {
        json!([tcp])
    };
    config["Bootstrap"] = json!([]);
    config["Discovery"]["MDNS"]["Enabled"] = json!(false);
    config["Routing"] = json!({"Type": "none"});
    if setup.noise_only {
        config["Swarm"]["Transports"]["Security"]["TLS"] = json!(false);
    }
    config["Experimental"]["Libp2pStreamMounting"] = json!(setup.stream_mounting);
}

#[track_caller]
fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(clock.monotonic() < DEADLINE, "waited in vain until {what}");
        sleep(LOOK_EVERY);
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            say(&format!("kubo {}:\n{log}", self.peer));
        }
    }
}
