//! mailpit, a mail server with a mailbox that programs can read, and that knows what mail clients show of a page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::common::{nobody, wait_for};
use super::mail::{Authority, USER};

/// [`PASSWORD`](super::mail::PASSWORD) as `htpasswd -s` has it: mailpit takes what follows a space for the next user.
const HASHED_PASSWORD: &str = "{SHA}607iHmAXOXGwGgjqXgwvYRcD6T8=";

/// A running mailpit; ended when dropped.
#[derive(Debug)]
pub(crate) struct Mailpit {
    child: Child,
    smtp: u16,
    http: u16,
    _folder: TempDir,
}

impl Mailpit {
    /// On free ports, letting in by STARTTLS and login alone; `None` if it is not installed, which with `CI=true` is a failure.
    pub(crate) fn start(authority: &Authority) -> Option<Self> {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/mailpit/bin/mailpit");
        if !program.exists() {
            let missing = "mailpit is not installed: run tests/interop/install.sh";
            let is_wanted = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_wanted, "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let users = folder.path().join("users");
        std::fs::write(&users, format!("{USER}:{HASHED_PASSWORD}\n")).expect("our own folder");
        let (smtp, http) = (free_port(), free_port());
        let child = Command::new(program)
            .args(["--smtp", &format!("127.0.0.1:{smtp}")])
            .args(["--listen", &format!("127.0.0.1:{http}")])
            .arg("--smtp-require-starttls")
            .arg("--smtp-tls-cert")
            .arg(authority.server_file())
            .arg("--smtp-tls-key")
            .arg(authority.key_file())
            .arg("--smtp-auth-file")
            .arg(users)
            .arg("--database")
            .arg(folder.path().join("mails.db"))
            .args(["--disable-version-check", "--quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let server = Self {
            child,
            smtp,
            http,
            _folder: folder,
        };
        wait_for("mailpit serves", || server.get("/readyz"));
        wait_for("mailpit takes mails", || {
            TcpStream::connect(("127.0.0.1", smtp)).ok()
        });
        Some(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.smtp
    }

    /// What it answers to a GET; nothing if it is not there or says that it is wrong.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n",
            self.http
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ')
            .nth(1)?
            .starts_with('2')
            .then(|| body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let answer = self
            .get(path)
            .unwrap_or_else(|| panic!("no answer to {path}"));
        serde_json::from_str(&answer).expect("JSON")
    }

    /// The mails in its box, whole, the newest first.
    pub(crate) fn mails(&self) -> Vec<Value> {
        let listed = self.json("/api/v1/messages");
        let mails = listed["messages"].as_array().expect("a list");
        let ids = mails.iter().map(|mail| mail["ID"].as_str().expect("an id"));
        ids.map(|id| self.json(&format!("/api/v1/message/{id}")))
            .collect()
    }

    /// What it knows of how mail clients show a mail: percent of what is used, by support.
    pub(crate) fn html_check(&self, mail: &Value) -> Value {
        let id = mail["ID"].as_str().expect("an id");
        self.json(&format!("/api/v1/message/{id}/html-check"))
    }
}

fn free_port() -> u16 {
    let address = nobody();
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    port.expect("an address ends in a port")
}

impl Drop for Mailpit {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
