//! Where a kubo daemon takes commands: `http://127.0.0.1:5001`, or `/ip4/127.0.0.1/tcp/5001` as in `$IPFS_PATH/api`.
//!
//! Pure. Plain HTTP only: whoever may speak to this port rules the daemon, so it belongs on loopback.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use multiaddr::{Multiaddr, Protocol};
use url::{Host, Url};

use super::KuboError;

/// kubo's usual port.
const USUAL_PORT: u16 = 5001;

/// Where kubo takes commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KuboApi {
    host: Host,
    port: u16,
}

impl Default for KuboApi {
    /// kubo's own default: loopback, port 5001.
    fn default() -> Self {
        Self {
            host: Host::Ipv4(Ipv4Addr::LOCALHOST),
            port: USUAL_PORT,
        }
    }
}

impl KuboApi {
    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether its owner can be looked up on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
            Host::Domain(name) => name == "localhost",
        }
    }

    /// `host:port`, as it is dialled and as the request names it.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for KuboApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

impl FromStr for KuboApi {
    type Err = KuboError;

    fn from_str(text: &str) -> Result<Self, KuboError> {
        let text = text.trim();
        let read = if text.starts_with('/') {
            from_multiaddr(text)
        } else {
            from_url(text)
        };
        read.ok_or_else(|| KuboError::NotAnApi(text.to_owned()))
    }
}

fn from_url(text: &str) -> Option<KuboApi> {
    let url = Url::parse(text).ok()?;
    // https would promise what is not done.
    let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
    let path_known = matches!(url.path(), "" | "/" | "/api/v0" | "/api/v0/");
    (plain && path_known).then_some(())?;
    Some(KuboApi {
        host: url.host()?.to_owned(),
        port: url.port_or_known_default()?,
    })
}

fn from_multiaddr(text: &str) -> Option<KuboApi> {
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => from_ip(ip.into()),
        Protocol::Ip6(ip) => from_ip(ip.into()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            Host::parse(&name).ok()?
        }
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else {
        return None;
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::Http), None) => Some(KuboApi { host, port }),
        _ => None,
    }
}

/// The address itself; for "any address" this machine, as a daemon that listens everywhere writes it.
fn from_ip(ip: IpAddr) -> Host {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Host::Ipv4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(ip) => Host::Ipv4(ip),
        IpAddr::V6(ip) if ip.is_unspecified() => Host::Ipv4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) => Host::Ipv6(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        for (text, authority) in [
            ("/ip4/127.0.0.1/tcp/5001", "127.0.0.1:5001"),
            ("/ip4/127.0.0.1/tcp/5001/http\n", "127.0.0.1:5001"),
            ("/ip4/0.0.0.0/tcp/5001", "127.0.0.1:5001"),
            ("/ip6/::1/tcp/5002", "[::1]:5002"),
            ("/dns4/kubo.example/tcp/5001", "kubo.example:5001"),
            ("http://127.0.0.1:5001", "127.0.0.1:5001"),
            ("http://127.0.0.1:5001/api/v0/", "127.0.0.1:5001"),
            ("http://[::1]:5002", "[::1]:5002"),
            ("http://localhost", "localhost:80"),
        ] {
            let api: KuboApi = text.parse().expect(text);
            assert_eq!(api.authority(), authority, "{text}");
        }
        for wrong in [
            "",
            "127.0.0.1:5001",
            "https://127.0.0.1:5001",
            "http://user@127.0.0.1:5001",
            "http://127.0.0.1:5001/elsewhere",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/5001",
            "/ip4/127.0.0.1/tcp/5001/ws",
        ] {
            let error = wrong.parse::<KuboApi>().expect_err(wrong).to_string();
            assert!(error.contains("/ip4/127.0.0.1/tcp/5001"), "{error}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known_as_such() {
        for (text, here) in [
            ("/ip4/127.0.0.1/tcp/5001", true),
            ("http://localhost:5001", true),
            ("/ip6/::1/tcp/5001", true),
            ("/ip4/192.0.2.1/tcp/5001", false),
            ("http://kubo.example:5001", false),
        ] {
            let api: KuboApi = text.parse().expect(text);
            assert_eq!(api.is_loopback(), here, "{text}");
        }
    }
}
