//! A kubo that is none: answers the RPC from a table, or as a test has it. It forwards nothing.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::KuboApi;
use super::super::rpc::Mount;
use crate::tasks::TaskGroup;
use crate::tunnel::PeerId;

/// What the daemon answers with.
pub(super) enum Answer {
    Json(serde_json::Value),
    Error(&'static str),
    Raw(Vec<u8>),
    /// Bytes without an end.
    Endless,
    /// Nothing, with the connection open.
    Nothing,
}

/// Answers a command, given with its query.
pub(super) type Script = dyn Fn(&str, &[(String, String)]) -> Answer + Send + Sync;

/// The daemon; ends with its group.
pub(super) struct FakeKubo {
    pub(super) api: KuboApi,
    pub(super) tasks: TaskGroup,
}

impl FakeKubo {
    pub(super) async fn scripted(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::answering(Arc::new(move |command: &str, _: &[(String, String)]| {
            script(command)
        }))
        .await
    }

    pub(super) async fn answering(script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let tasks = TaskGroup::new(1_000);
        let group = tasks.clone();
        let serving = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answered = answer(stream, Arc::clone(&script));
                group.spawn(answered).expect("room for another");
            }
        };
        tasks.spawn(serving).expect("room for the first");
        let api = format!("/ip4/127.0.0.1/tcp/{port}");
        Self {
            api: api.parse().expect("an address"),
            tasks,
        }
    }
}

impl Drop for FakeKubo {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

async fn answer(mut stream: TcpStream, script: Arc<Script>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("ASCII");
    let target = head
        .strip_prefix("POST /api/v0/")
        .and_then(|rest| rest.split_once(' '))
        .expect("a command by POST, as kubo wants it")
        .0;
    let (command, query) = target.split_once('?').expect("a query");
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let whole = |status: &str, body: String| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let bytes = match script(command, &query) {
        Answer::Json(value) => whole("200 OK", value.to_string()),
        Answer::Error(message) => {
            let body = serde_json::json!({"Message": message, "Code": 0, "Type": "error"});
            whole("500 Internal Server Error", body.to_string())
        }
        Answer::Raw(bytes) => bytes,
        Answer::Nothing => return std::future::pending().await,
        Answer::Endless => {
            let mut part = b"HTTP/1.1 200 OK\r\n\r\n[".to_vec();
            while stream.write_all(&part).await.is_ok() {
                part = vec![b' '; 64 << 10];
            }
            return;
        }
    };
    // A client that has gone away is the test's business.
    let _ = stream.write_all(&bytes).await;
}

/// What a daemon has, as the RPC shows and changes it.
#[derive(Default)]
pub(super) struct Table {
    pub(super) peer: Option<PeerId>,
    pub(super) mounts: Vec<Mount>,
    pub(super) peers: serde_json::Value,
}

/// A daemon with a table.
pub(super) async fn with_table(table: Arc<Mutex<Table>>) -> FakeKubo {
    FakeKubo::answering(Arc::new(
        move |command: &str, query: &[(String, String)]| {
            let mut table = table.lock().expect("not poisoned");
            let ours = table.peer.expect("set by the test").to_string();
            let arguments: Vec<String> = query
                .iter()
                .filter(|(name, _)| name == "arg")
                .map(|(_, value)| value.clone())
                .collect();
            let named = |wanted: &str| {
                let found = query.iter().find(|(name, _)| name == wanted);
                found.map(|(_, value)| value.clone())
            };
            match command {
                "id" => Answer::Json(serde_json::json!({"ID": ours, "Addresses": null})),
                "p2p/ls" => Answer::Json(serde_json::json!({"Listeners": table.mounts})),
                "swarm/peers" => Answer::Json(serde_json::json!({"Peers": table.peers})),
                "p2p/listen" => {
                    assert_eq!(named("report-peer-id").as_deref(), Some("true"));
                    table.mounts.push(Mount {
                        protocol: arguments[0].clone(),
                        listen: format!("/p2p/{ours}"),
                        target: arguments[1].clone(),
                    });
                    Answer::Json(serde_json::Value::Null)
                }
                "p2p/close" => {
                    let closed = Mount {
                        protocol: named("protocol").expect("never all"),
                        listen: named("listen-address").expect("never all"),
                        target: named("target-address").expect("never all"),
                    };
                    table.mounts.retain(|mount| *mount != closed);
                    Answer::Json(serde_json::json!(1))
                }
                _ => Answer::Error("not in this play"),
            }
        },
    ))
    .await
}
