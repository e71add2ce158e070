//! Which of the known services listen on this machine (`tunnel expose --detect`).

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::known::{KNOWN, KnownService};
use crate::tunnel::ServiceName;

/// Loopback answers at once or not at all.
const LOOK_DEADLINE: Duration = Duration::from_millis(500);
/// Where OpenSSH's server has its port.
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSH_PORT: u16 = 22;

/// A known service, looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// Its name.
    pub name: ServiceName,
    /// Where it was looked for.
    pub port: u16,
    /// Whether something listens there.
    pub listens: bool,
}

/// Looks for all of them at once; takes half a second at most.
pub async fn detect() -> Vec<Detected> {
    let looks = KNOWN.iter().map(|service| async {
        let name: ServiceName = service.name.parse().ok()?;
        let port = port_of(service);
        let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let listens = matches!(timeout(LOOK_DEADLINE, connecting).await, Ok(Ok(_)));
        Some(Detected {
            name,
            port,
            listens,
        })
    });
    let found = futures_util::future::join_all(looks).await;
    found.into_iter().flatten().collect()
}

/// Where a known service listens: its native port, but for ssh what its server's configuration says.
pub(super) fn port_of(service: &KnownService) -> u16 {
    if service.name != "ssh" {
        return service.native_port;
    }
    let text = std::fs::read_to_string(Path::new(SSHD_CONFIG)).unwrap_or_default();
    sshd_port(&text)
}

/// The first `Port` of an sshd_config(5).
fn sshd_port(text: &str) -> u16 {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            let key = words.next()?;
            let value = words.next()?;
            key.eq_ignore_ascii_case("port")
                .then(|| value.trim_matches('"').parse().ok())?
        })
        .next()
        .unwrap_or(SSH_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_ssh_is_what_its_configuration_says() {
        assert_eq!(
            sshd_port("#Port 2\nPermitRootLogin no\nport 2200\nPort 3"),
            2200
        );
        assert_eq!(sshd_port("Port=2201"), 2201);
        assert_eq!(sshd_port("# nothing\nPortable 7\nPort x"), 22);
    }
}
