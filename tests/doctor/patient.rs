//! A station to be examined, and how its remedies are carried out.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::fake_relay::{FakeRelay, Script};
use crate::common::{Ended, Home, Process, QUIET, set_mode};

/// A station to be examined, with a folder of programs before all others in its PATH.
pub(crate) struct Patient {
    pub(crate) home: Home,
    pub(crate) programs: tempfile::TempDir,
    /// What the shell is told before the doctor is called.
    pub(crate) before: String,
    pub(crate) variables: Vec<(String, String)>,
}

impl Patient {
    pub(crate) fn new(config: &str) -> Self {
        let programs = tempfile::tempdir().expect("a temporary folder");
        let binary = env!("CARGO_BIN_EXE_constellation");
        symlink(binary, programs.path().join("constellation")).expect("our own folder");
        let patient = Self {
            home: Home::with_config(&format!("{QUIET}{config}")),
            programs,
            before: String::new(),
            variables: Vec::new(),
        };
        patient.program("sudo", "exec \"$@\"");
        std::fs::create_dir(patient.home.data()).expect("our own folder");
        set_mode(&patient.home.data(), 0o700);
        patient
    }

    /// The folder that is its captain's home.
    pub(crate) fn folder(&self) -> PathBuf {
        let data = self.home.data();
        data.parent().expect("our own folder").to_owned()
    }

    pub(crate) fn program(&self, name: &str, body: &str) -> PathBuf {
        let path = self.programs.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("our own folder");
        set_mode(&path, 0o755);
        path
    }

    /// A shell that has the environment of the station's commands.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let like = self.home.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.programs.path().display()));
        shell.envs(self.variables.iter().cloned());
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        shell
    }

    pub(crate) fn examined_with(&self, option: &str) -> Ended {
        let (data, config) = (self.home.data(), self.home.config());
        let line = format!(
            "{}exec constellation doctor {option} --data '{}' --config '{}'",
            self.before,
            data.display(),
            config.display()
        );
        Process::start(self.shell(&line), None).finish()
    }

    /// All findings. The exit code says whether something must be done.
    #[track_caller]
    pub(crate) fn examined(&self) -> Vec<Value> {
        let ended = self.examined_with("--json");
        let found: Vec<Value> = serde_json::from_str(&ended.out)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {ended:#?}"));
        let must = found.iter().any(|one| one["verdict"] == "problem");
        assert_eq!(ended.code, Some(i32::from(must)), "{ended:#?}");
        for one in &found {
            let is_well = one["verdict"] == "ok";
            assert_eq!(
                one["remedy"].is_null(),
                is_well,
                "a remedy for what is not well: {one}"
            );
        }
        found
    }

    /// What a check found.
    #[track_caller]
    pub(crate) fn finding(&self, check: &str) -> Value {
        let found = self.examined();
        let mut of_check = found.iter().filter(|one| one["check"] == check);
        let finding = of_check
            .next()
            .unwrap_or_else(|| panic!("no {check}: {found:#?}"));
        finding.clone()
    }

    /// Demands that a check is not well, and gives its finding.
    #[track_caller]
    pub(crate) fn ails(&self, check: &str, verdict: &str) -> Value {
        let finding = self.finding(check);
        assert_eq!(finding["verdict"], verdict, "{finding}");
        finding
    }

    #[track_caller]
    pub(crate) fn is_well(&self, check: &str) {
        let finding = self.finding(check);
        assert_eq!(finding["verdict"], "ok", "{finding}");
    }

    /// Demands that a check is not well, that its remedy is a command or a setting, and that this mends it.
    #[track_caller]
    pub(crate) fn is_cured(&mut self, check: &str, verdict: &str) -> Value {
        let finding = self.ails(check, verdict);
        self.apply(&finding["remedy"]);
        self.is_well(check);
        finding
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, remedy: &Value) {
        let text = |key: &str| {
            remedy[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key}: {remedy}"))
        };
        match text("kind") {
            // It holds for the shell in which it is said.
            "command"
                if ["ulimit ", "unset ", "sudo prlimit "]
                    .iter()
                    .any(|of_shell| text("line").starts_with(of_shell)) =>
            {
                self.before.push_str(&format!("{};", text("line")));
            }
            "command" => {
                let ended = Process::start(self.shell(text("line")), None).finish();
                assert_eq!(ended.code, Some(0), "{remedy}: {ended:#?}");
            }
            "setting" => {
                let file = std::fs::read_to_string(text("file")).unwrap_or_default();
                let mut table: toml::Table = file.parse().expect("valid TOML");
                let value: toml::Table =
                    format!("value = {}", text("value")).parse().expect("TOML");
                let section = table
                    .entry(text("section"))
                    .or_insert_with(|| toml::Table::new().into())
                    .as_table_mut()
                    .expect("a section");
                section.insert(text("key").to_owned(), value["value"].clone());
                std::fs::write(text("file"), table.to_string()).expect("our own file");
            }
            other => panic!("not to be done by a program: {other}: {remedy}"),
        }
    }

    /// The remedy of one trouble shows the next.
    #[track_caller]
    pub(crate) fn is_cured_by(&mut self, check: &str, trouble: &str, next: &[&str]) {
        let finding = self.ails(check, "problem");
        assert!(finding["seen"].to_string().contains(trouble), "{finding}");
        self.apply(&finding["remedy"]);
        for trouble in next {
            let finding = self.ails(check, "problem");
            assert!(finding["seen"].to_string().contains(trouble), "{finding}");
        }
    }
}

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can break this");
    }
    root
}

/// A relay that compares sets, and the configuration of it as a peer.
pub(crate) fn peer() -> (FakeRelay, String) {
    let (relay, _) = FakeRelay::scripted(Script::default());
    let config = format!("[[peers]]\naddress = \"{}\"\n", relay.address());
    (relay, config)
}
