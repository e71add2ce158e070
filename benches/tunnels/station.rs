//! Stations as processes of their own, as captains run them, and what the kernel says they use.
//!
//! Ended by their own id when dropped. A wait for one to be ready is under [`READY_DEADLINE`].

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use constellation::time::Clock;
use constellation::tunnel::Identity;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Asked, Measured};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The kernel counts processor time in hundredths of a second, on every architecture that we build for.
const TICKS_A_SECOND: f64 = 100.0;

/// A data directory with an identity; its station may run.
#[derive(Debug)]
pub(crate) struct Home {
    program: PathBuf,
    folder: TempDir,
    peer: String,
}

impl Home {
    pub(crate) fn new(asked: &Asked) -> Measured<Self> {
        let folder = TempDir::new()?;
        std::fs::create_dir(folder.path().join("data"))?;
        let identity = Identity::load_or_create(&folder.path().join("data/identity.key"))?;
        let peer = identity.peer_id();
        Ok(Self {
            program: asked.constellation.clone(),
            folder,
            peer,
        })
    }

    /// Another one, empty, that takes itself for the same station.
    pub(crate) fn twin(&self) -> Measured<Self> {
        let folder = TempDir::new()?;
        std::fs::create_dir(folder.path().join("data"))?;
        for file in ["data/identity.key", "constellation.toml"] {
            std::fs::copy(self.folder.path().join(file), folder.path().join(file))?;
        }
        Ok(Self {
            program: self.program.clone(),
            folder,
            peer: self.peer.clone(),
        })
    }

    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// Writes a file beside the configuration.
    pub(crate) fn write(&self, name: &str, text: &str) -> Measured<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// On loopback and at free ports, alone in the world; `tunnel` is what else `[tunnel]` says.
    pub(crate) fn configure(&self, tunnel: &str) -> Measured<()> {
        self.write(
            "constellation.toml",
            &format!(
                "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n[kubo]\nuse = \"never\"\n\
                 [tunnel]\nmdns = false\nkademlia = \"off\"\n{tunnel}\n"
            ),
        )?;
        Ok(())
    }

    /// One of its commands.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CONSTELLATION_") || text.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command
            .env("HOME", self.folder.path())
            // What is measured is tunnels: nothing else is to go through them.
            .env("CONSTELLATION_LIVE__ENABLED", "false")
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .arg("--config")
            .arg(self.folder.path().join("constellation.toml"))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that prints JSON and must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> Measured<Value> {
        let output = self.command(words).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{words:?}: {}: {said}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// `constellation run`.
    pub(crate) fn start(self) -> Measured<Station> {
        let log = File::create(self.folder.path().join("run.log"))?;
        let mut command = self.command(&["run"]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let mut station = Station { child, home: self };
        until("the station serves", || {
            if let Some(status) = station.child.try_wait()? {
                let log = std::fs::read_to_string(station.home.folder.path().join("run.log"))?;
                return Err(format!("the station ended: {status}\n{log}").into());
            }
            // Before it answers, a command would take the station for itself.
            let socket = station.home.folder.path().join("data/state/control.sock");
            if std::os::unix::net::UnixStream::connect(socket).is_err() {
                return Ok(None);
            }
            let status = station.home.ask(&["status", "--json"])?;
            let ready = status["relay"].is_string() && status["tunnels"].is_object();
            Ok(ready.then_some(()))
        })?;
        Ok(station)
    }
}

/// `constellation run`.
#[derive(Debug)]
pub(crate) struct Station {
    child: Child,
    pub(crate) home: Home,
}

impl Station {
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// `ws://127.0.0.1:…`
    pub(crate) fn relay(&self) -> Measured<String> {
        text(&self.home.ask(&["status", "--json"])?["relay"])
    }

    /// How its tunnels are.
    pub(crate) fn tunnels(&self) -> Measured<Value> {
        self.home.ask(&["tunnel", "ls", "--json"])
    }

    /// Where its node listens, without its PeerID.
    pub(crate) fn address(&self) -> Measured<String> {
        text(&self.tunnels()?["carrier"]["addresses"][0])
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A text that must be there.
pub(crate) fn text(value: &Value) -> Measured<String> {
    let text = value.as_str().ok_or("a text is missing")?;
    Ok(text.to_owned())
}

/// Waits until `condition` gives something.
pub(crate) fn until<T>(
    what: &str,
    mut condition: impl FnMut() -> Measured<Option<T>>,
) -> Measured<T> {
    let clock = Clock::system();
    let started = clock.monotonic();
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if clock.monotonic().saturating_sub(started) > READY_DEADLINE {
            return Err(format!("waited in vain until {what}").into());
        }
        sleep(LOOK_EVERY);
    }
}

/// A running process, by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    fn account(self, name: &str) -> Measured<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{name}", self.0))?)
    }

    /// Seconds of processor time of all its threads so far, in user and kernel space.
    pub(crate) fn processor_seconds(self) -> Measured<f64> {
        let account = self.account("stat")?;
        // The name in brackets may hold anything; what follows it is numbers. User and system time are 14th and 15th.
        let (_, numbers) = account.rsplit_once(") ").ok_or("no account")?;
        let mut ticks = 0.0;
        for number in numbers.split(' ').skip(11).take(2) {
            ticks += number.parse::<f64>()?;
        }
        Ok(ticks / TICKS_A_SECOND)
    }

    /// Megabytes of private memory that is no file's.
    pub(crate) fn anonymous_megabytes(self) -> Measured<f64> {
        let account = self.account("status")?;
        let line = account
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line
            .ok_or("no RssAnon")?
            .trim()
            .trim_end_matches("kB")
            .trim();
        Ok(kilobytes.parse::<f64>()? * 1_024.0 / 1e6)
    }
}
