//! A mail server that others wrote, with a certificate of an authority made for the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

/// As whom it lets in.
pub(crate) const USER: &str = "station@example.org";
/// By which word.
pub(crate) const PASSWORD: &str = "a very secret word";

/// How it encrypts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Serves {
    Starttls,
    Tls,
}

/// Vouches for a server named `localhost`, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Authority {
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("signed");
        let server_key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let server = server.signed_by(&server_key, &own, &key).expect("signed");
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("our own folder");
        };
        write("authority.pem", own.pem());
        write("server.pem", server.pem());
        write("server.key", server_key.serialize_pem());
        Self { folder }
    }

    /// The certificate of the server that it vouches for.
    pub(crate) fn server_file(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// That server's key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// Its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

/// A running server; ended when dropped.
#[derive(Debug)]
pub(crate) struct MailServer {
    child: Child,
    _until_closed: ChildStdin,
    port: u16,
    authority: PathBuf,
    folder: TempDir,
}

impl MailServer {
    /// On a free port; `None` if it is not installed, which with `CI=true` is a failure.
    pub(crate) fn start(authority: &Authority, serves: Serves) -> Option<Self> {
        Self::start_at(authority, serves, 0)
    }

    /// On the port that another one had.
    pub(crate) fn start_at(authority: &Authority, serves: Serves, port: u16) -> Option<Self> {
        let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/mail");
        if !suite.join(".venv/.installed-requirements").exists() {
            let missing = "aiosmtpd is not installed: run tests/interop/install.sh";
            let is_wanted = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_wanted, "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(suite.join(".venv/bin/python"));
        command.arg(suite.join("serve.py")).arg(folder.path());
        command.arg(authority.server_file());
        command.arg(authority.key_file());
        command.args([
            "--user",
            USER,
            "--password",
            PASSWORD,
            "--port",
            &port.to_string(),
        ]);
        if matches!(serves, Serves::Tls) {
            command.arg("--tls");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let until_closed = child.stdin.take().expect("piped");
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
        said.expect("it says where it listens");
        let port = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|port| port.parse().ok());
        Some(Self {
            child,
            _until_closed: until_closed,
            port: port.unwrap_or_else(|| panic!("it says where it listens: {line:?}")),
            authority: authority.file(),
            folder,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of who vouches for it.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.authority.clone()
    }

    /// All mails that it took, in order.
    pub(crate) fn mails(&self) -> Vec<Value> {
        let read = |number: usize| self.read(&format!("{number}.json"));
        (0..).map_while(read).collect()
    }

    /// The last login that somebody tried.
    pub(crate) fn login(&self) -> Option<Value> {
        self.read("login.json")
    }

    pub(crate) fn forget_login(&self) {
        std::fs::remove_file(self.folder.path().join("login.json")).expect("there was one");
    }

    fn read(&self, name: &str) -> Option<Value> {
        let bytes = std::fs::read(self.folder.path().join(name)).ok()?;
        Some(serde_json::from_slice(&bytes).expect("written whole"))
    }

    /// Ends it; its port is free again.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
