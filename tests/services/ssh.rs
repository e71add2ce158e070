//! A real OpenSSH server behind the `ssh` tunnel: logged into and copied from and to.
//!
//! Host and user keys are made for the test; nothing of the machine's own configuration is read. Where `sshd` is
//! missing the test says so and passes; with `CI=true` it fails.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::common::tunnelled::{address, open, own_node};
use super::common::{Home, wait_until};
use super::{expose, two};

/// Debian's; it must be named by its whole path.
const SSHD: &str = "/usr/sbin/sshd";
/// Larger than all windows and buffers on the way.
const FILE_BYTES: usize = 6 << 20;
/// Another program may take the free port that was found, before the server does.
const STARTS_MAX: usize = 5;

/// The server, and all that its client needs; ended when dropped.
struct OpenSsh {
    folder: TempDir,
    port: u16,
    server: Child,
}

fn is_installed() -> bool {
    let is_installed = Path::new(SSHD).exists();
    if !is_installed {
        let missing = format!("{SSHD} is not there: run tests/interop/install.sh");
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{missing}"
        );
        // A closed standard error is no reason to fail.
        let _ = writeln!(std::io::stderr(), "skipped: {missing}");
    }
    is_installed
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("it is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl OpenSsh {
    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for key in ["host", "user"] {
            let path = folder.path().join(key);
            succeed(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(path),
            );
        }
        fs::copy(
            folder.path().join("user.pub"),
            folder.path().join("allowed"),
        )
        .expect("a folder of ours");
        // Where it separates its privileges; a package makes it when the service starts, which it never has here.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("root may");
        }
        for _ in 0..STARTS_MAX {
            let (port, mut server) = Self::serve(folder.path());
            let mut ended = false;
            wait_until("sshd listens or has ended", || {
                ended = server.try_wait().expect("ours").is_some();
                ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
            if !ended {
                return Self {
                    folder,
                    port,
                    server,
                };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("sshd does not start: {log}");
    }

    fn serve(folder: &Path) -> (u16, Child) {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/allowed\nPidFile none\nUsePAM \
             no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp \
             internal-sftp\n",
            folder.display()
        );
        fs::write(folder.join("sshd_config"), config).expect("a folder of ours");
        let server = Command::new(SSHD)
            .args(["-D", "-f"])
            .arg(folder.join("sshd_config"))
            .arg("-E")
            .arg(folder.join("log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it is installed");
        (port, server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client that trusts this server alone, at `port`, and has no other key.
    fn client(&self, program: &str, port_flag: &str, port: u16) -> Command {
        let host = fs::read_to_string(self.path("host.pub")).expect("made at the start");
        let known = format!("[127.0.0.1]:{port} {host}");
        fs::write(self.path("known"), known).expect("a folder of ours");
        let mut command = Command::new(program);
        command
            .args(["-F", "none", port_flag, &port.to_string()])
            .arg("-i")
            .arg(self.path("user"));
        let known = format!("UserKnownHostsFile={}", self.path("known").display());
        for option in [
            known.as_str(),
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
        ] {
            command.args(["-o", option]);
        }
        command
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Bytes without a pattern that a lost or doubled buffer would keep.
fn unlike_bytes() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..FILE_BYTES / 8).flat_map(|_| next()).collect()
}

#[test]
fn an_openssh_server_is_logged_into_and_copied_from_and_to() {
    if !is_installed() {
        return;
    }
    let ssh = OpenSsh::start();
    let (server, client) = (
        Home::with_config(&own_node("")),
        Home::with_config(&own_node("")),
    );
    let _running = two(&server, &client);
    expose(&server, "ssh", ssh.port, &[]);
    let mouth = open(&client, "ssh", &address(&server));
    assert_ne!(mouth, ssh.port);

    let user = succeed(Command::new("id").arg("-un"));
    let at = format!("{}@127.0.0.1", user.trim());
    let said = succeed(
        ssh.client("ssh", "-p", mouth)
            .args([&at, "echo", "logged", "in"]),
    );
    assert_eq!(said, "logged in\n");

    let sent = unlike_bytes();
    fs::write(ssh.path("sent"), &sent).expect("a folder of ours");
    let there = format!("{at}:{}", ssh.path("there").display());
    succeed(
        ssh.client("scp", "-P", mouth)
            .arg(ssh.path("sent"))
            .arg(&there),
    );
    succeed(
        ssh.client("scp", "-P", mouth)
            .arg(&there)
            .arg(ssh.path("back")),
    );
    for name in ["there", "back"] {
        let copied = fs::read(ssh.path(name)).expect("copied");
        assert!(copied == sent, "{name}: {} bytes", copied.len());
    }
}
