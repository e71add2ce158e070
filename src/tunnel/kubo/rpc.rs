//! kubo's RPC: HTTP/1.1, POST only, one connection for each command.
//!
//! Takes a command with its arguments; gives typed answers. Invariant: every command is under a deadline, every answer
//! bounded, and what cannot be understood is an error that names the command. It does not retry, and never closes
//! more than the one mount that is named in full. Worst case: the deadline, and 4 MiB of answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::KuboApi;
use crate::tunnel::{Multiaddr, PeerId, ServiceName};

/// How long a command that concerns only the daemon may take: it does so in milliseconds unless it is overloaded.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer: ten thousand connections of 300 bytes are 3 MB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Characters of a message of kubo's that are passed on: it lists every address that it tried.
const MESSAGE_CHARS_MAX: usize = 600;

/// Why kubo did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KuboError {
    /// The text says not where kubo is.
    #[error(
        "{0:?} is no address of a kubo RPC: expected http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001"
    )]
    NotAnApi(String),
    /// Nobody answers there.
    #[error("kubo does not answer at {api}: {detail}")]
    Unreachable {
        /// Where.
        api: String,
        /// What came instead.
        detail: String,
    },
    /// The deadline has passed.
    #[error("kubo at {api} has not answered {command} within {} s", after.as_secs_f32())]
    Timeout {
        /// Where.
        api: String,
        /// The command.
        command: String,
        /// The deadline.
        after: Duration,
    },
    /// kubo answers that it cannot.
    #[error("kubo refuses {command}: {message}")]
    Status {
        /// The command.
        command: String,
        /// kubo's words, on one line.
        message: String,
    },
    /// Its streams are switched off, as they are by default.
    #[error(
        "kubo's stream mounting is off; run: ipfs config --json Experimental.Libp2pStreamMounting true, then restart the daemon"
    )]
    MountingDisabled,
    /// Not kubo, or a kubo that this program does not know.
    #[error("kubo's answer to {command} cannot be understood: {detail}")]
    Malformed {
        /// The command.
        command: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The daemon has another identity than at the start.
    #[error("kubo is now {now}, no longer {before}; restart the station to go on as {now}")]
    OtherIdentity {
        /// Who it was.
        before: Box<PeerId>,
        /// Who it is.
        now: Box<PeerId>,
    },
    /// No port of this machine can be had.
    #[error("cannot listen on 127.0.0.1: {0}")]
    NoPort(String),
    /// The tasks that it needs are not to be had: the station ends.
    #[error("the station is ending")]
    Ending,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) peer: PeerId,
    /// Without `/p2p/…`.
    pub(super) addresses: Vec<String>,
}

/// A forward or a listener in the daemon, as `p2p/ls` writes it: a forward listens on a local port, a listener on the
/// daemon's PeerID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Mount {
    #[serde(rename = "Protocol")]
    pub(super) protocol: String,
    #[serde(rename = "ListenAddress")]
    pub(super) listen: String,
    #[serde(rename = "TargetAddress")]
    pub(super) target: String,
}

impl Mount {
    /// From a local port to a service of a station.
    pub(super) fn forward(peer: &PeerId, service: &ServiceName, port: u16) -> Self {
        Self {
            protocol: service.protocol(peer),
            listen: local(port),
            target: format!("/p2p/{peer}"),
        }
    }

    /// The local port of a forward; `None` for a listener.
    pub(super) fn local_port(&self) -> Option<u16> {
        let address: Multiaddr = self.listen.parse().ok()?;
        address.iter().find_map(|part| match part {
            multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    }

    /// From stations to a local port.
    pub(super) fn listener(ours: &PeerId, service: &ServiceName, port: u16) -> Self {
        Self {
            protocol: service.protocol(ours),
            listen: format!("/p2p/{ours}"),
            target: local(port),
        }
    }

    /// Whether it takes streams of stations, rather than local connections.
    pub(super) fn is_listener(&self) -> bool {
        self.listen.starts_with("/p2p/")
    }
}

/// A port of loopback as kubo writes it.
fn local(port: u16) -> String {
    format!("/ip4/127.0.0.1/tcp/{port}")
}

/// A connection of the daemon's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Connection {
    #[serde(rename = "Peer")]
    pub(super) peer: String,
    #[serde(rename = "Addr", default)]
    pub(super) address: String,
    /// As Go writes durations; `n/a` when it was never measured.
    #[serde(rename = "Latency", default)]
    pub(super) latency: String,
}

#[derive(Deserialize)]
struct IdAnswer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addresses")]
    addresses: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct VersionAnswer {
    #[serde(rename = "Version")]
    version: String,
}

#[derive(Deserialize)]
struct RepositoryAnswer {
    #[serde(rename = "RepoPath", default)]
    path: String,
}

#[derive(Deserialize)]
struct ListAnswer {
    #[serde(rename = "Listeners")]
    listeners: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
struct PeersAnswer {
    #[serde(rename = "Peers")]
    peers: Option<Vec<Connection>>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(rename = "Message")]
    message: String,
}

/// Speaks to a kubo daemon.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    api: KuboApi,
}

impl Rpc {
    pub(super) fn new(api: KuboApi) -> Self {
        Self { api }
    }

    pub(super) fn api(&self) -> &KuboApi {
        &self.api
    }

    /// Who the daemon is, and where it is reached.
    pub(super) async fn daemon(&self) -> Result<Daemon, KuboError> {
        let answer: IdAnswer = self.ask("id", &[], COMMAND_DEADLINE).await?;
        let peer = answer
            .id
            .parse()
            .map_err(|_| malformed("id", "its ID is no PeerID"))?;
        let suffix = format!("/p2p/{peer}");
        let mut addresses: Vec<String> = answer.addresses.unwrap_or_default();
        for address in &mut addresses {
            if let Some(short) = address.strip_suffix(&suffix) {
                *address = short.to_owned();
            }
        }
        addresses.sort();
        Ok(Daemon { peer, addresses })
    }

    /// All forwards and listeners, also those that others made.
    pub(super) async fn mounts(&self) -> Result<Vec<Mount>, KuboError> {
        let answer: ListAnswer = self.ask("p2p/ls", &[], COMMAND_DEADLINE).await?;
        Ok(answer.listeners.unwrap_or_default())
    }

    /// Its version.
    pub(super) async fn version(&self) -> Result<String, KuboError> {
        let answer: VersionAnswer = self.ask("version", &[], COMMAND_DEADLINE).await?;
        Ok(answer.version)
    }

    /// The folder in which it keeps its things.
    pub(super) async fn repository(&self) -> Result<String, KuboError> {
        let arguments = [("size-only", "true")];
        let answer: RepositoryAnswer = self.ask("repo/stat", &arguments, COMMAND_DEADLINE).await?;
        Ok(answer.path)
    }

    /// All connections, with their latency where kubo has measured it.
    pub(super) async fn connections(&self) -> Result<Vec<Connection>, KuboError> {
        let arguments = [("latency", "true")];
        let answer: PeersAnswer = self
            .ask("swarm/peers", &arguments, COMMAND_DEADLINE)
            .await?;
        Ok(answer.peers.unwrap_or_default())
    }

    pub(super) async fn forward(&self, mount: &Mount) -> Result<(), KuboError> {
        let arguments = [
            ("arg", mount.protocol.as_str()),
            ("arg", &mount.listen),
            ("arg", &mount.target),
        ];
        self.tell("p2p/forward", &arguments).await
    }

    /// Has streams lead to the mount's target, each with its PeerID and a line feed before its bytes.
    pub(super) async fn listen(&self, mount: &Mount) -> Result<(), KuboError> {
        let arguments = [
            ("arg", mount.protocol.as_str()),
            ("arg", &mount.target),
            ("report-peer-id", "true"),
        ];
        self.tell("p2p/listen", &arguments).await
    }

    /// Closes this one mount, if it is there. Its streams go on.
    pub(super) async fn close(&self, mount: &Mount) -> Result<(), KuboError> {
        let arguments = [
            ("protocol", mount.protocol.as_str()),
            ("listen-address", &mount.listen),
            ("target-address", &mount.target),
        ];
        self.tell("p2p/close", &arguments).await
    }

    /// Connects with a station at these addresses, or, if there are none, wherever kubo finds it.
    pub(super) async fn connect(
        &self,
        peer: &PeerId,
        addresses: &[Multiaddr],
        deadline: Duration,
    ) -> Result<(), KuboError> {
        let mut targets: Vec<String> = addresses
            .iter()
            .map(|address| format!("{address}/p2p/{peer}"))
            .collect();
        if targets.is_empty() {
            targets.push(format!("/p2p/{peer}"));
        }
        let arguments: Vec<(&str, &str)> = targets
            .iter()
            .map(|target| ("arg", target.as_str()))
            .collect();
        self.call("swarm/connect", &arguments, deadline)
            .await
            .map(drop)
    }

    async fn tell(&self, command: &str, arguments: &[(&str, &str)]) -> Result<(), KuboError> {
        self.call(command, arguments, COMMAND_DEADLINE)
            .await
            .map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<T, KuboError> {
        let bytes = self.call(command, arguments, deadline).await?;
        serde_json::from_slice(&bytes).map_err(|error| malformed(command, error))
    }

    async fn call(
        &self,
        command: &str,
        arguments: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Bytes, KuboError> {
        let called = Box::pin(self.post(command, arguments));
        let (status, bytes) =
            timeout(deadline, called)
                .await
                .map_err(|_| KuboError::Timeout {
                    api: self.api.to_string(),
                    command: command.to_owned(),
                    after: deadline,
                })??;
        if status == StatusCode::OK {
            return Ok(bytes);
        }
        let message = match serde_json::from_slice::<Refused>(&bytes) {
            Ok(refused) => refused.message,
            Err(_) => format!("{status} {}", String::from_utf8_lossy(&bytes)),
        };
        if message.contains("stream mounting not enabled") {
            return Err(KuboError::MountingDisabled);
        }
        Err(KuboError::Status {
            command: command.to_owned(),
            message: on_one_line(&message),
        })
    }

    async fn post(
        &self,
        command: &str,
        arguments: &[(&str, &str)],
    ) -> Result<(StatusCode, Bytes), KuboError> {
        let unreachable = |error: &dyn std::fmt::Display| KuboError::Unreachable {
            api: self.api.to_string(),
            detail: error.to_string(),
        };
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(arguments)
            .finish();
        let request = Request::post(format!("/api/v0/{command}?{query}"))
            .header(HOST, self.api.authority())
            .header(USER_AGENT, "constellation")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| malformed(command, error))?;
        let stream = TcpStream::connect(self.api.authority())
            .await
            .map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(|error| {
                if error.is_parse() {
                    malformed(command, error)
                } else {
                    unreachable(&error)
                }
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let body = body
                .collect()
                .await
                .map_err(|error| malformed(command, error))?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here rather than on a task; what it has read last is still taken after it ends.
        tokio::pin!(answered);
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            _ = connection => timeout(Duration::ZERO, answered)
                .await
                .unwrap_or_else(|_| Err(unreachable(&"the connection was closed"))),
        }
    }
}

fn malformed(command: &str, error: impl ToString) -> KuboError {
    KuboError::Malformed {
        command: command.to_owned(),
        detail: error.to_string(),
    }
}

/// kubo lists what it tried on lines of their own.
fn on_one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}
