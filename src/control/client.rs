//! The command's side of the control socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::AsyncBufReadExt;
use tokio::net::UnixStream;
use tokio_util::io::StreamReader;

use super::commands::TunnelCommand;
use super::messages::{CommandError, StatusReport, SyncLine};
use super::moderation::ModerationCommand;
use super::reports::ReportCommand;
use super::stream::PROTOCOL;
use crate::archive::{ImportReport, VerifyReport};
use crate::graph::MembersReport;
use crate::peer::{ByteStream, PeerAddress};
use crate::sync::{RunReport, SyncRequest};
use crate::transfer::TransferProgress;

/// The largest answer that is held in memory: a status or a report.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why the station did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers on the socket.
    #[error("the process that holds the data directory does not answer on {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The connection broke, or the answer cannot be understood: another version, perhaps.
    #[error("the station's answer broke off: {0}")]
    Broken(String),
    /// What was exported cannot be written.
    #[error("cannot write: {0}")]
    Output(std::io::Error),
    /// The station says why.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Gets how far each peer is, by its address.
pub type TellProgress<'t> = dyn FnMut(&[(String, TransferProgress)]) + Send + 't;

type RequestBody = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

/// Speaks to the process that holds a data directory.
#[derive(Debug, Clone)]
pub struct ControlClient {
    socket: PathBuf,
}

fn broken(error: impl ToString) -> ControlError {
    ControlError::Broken(error.to_string())
}

fn whole(bytes: Vec<u8>) -> RequestBody {
    http_body_util::Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed()
}

impl ControlClient {
    /// A client of the socket at this path; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Sends one request. The connection is driven while the answer is read, by the returned future's caller.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Connection), ControlError> {
        let request = Request::builder().method(method).uri(path);
        self.send_with(request, body).await
    }

    /// The same with further headers.
    async fn send_with(
        &self,
        request: http::request::Builder,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Connection), ControlError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            ControlError::Unreachable {
                path: self.socket.clone(),
                source,
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = request
            .header(http::header::HOST, "station")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(broken)?;
        let mut connection: Connection = Box::pin(async move {
            // What breaks here shows where the answer is read.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "control connection");
            }
        });
        let response = {
            let answered = sender.send_request(request);
            let mut answered = std::pin::pin!(answered);
            tokio::select! {
                response = &mut answered => response,
                () = &mut connection => {
                    // It has ended, and must not be driven again by whoever reads the answer.
                    connection = Box::pin(std::future::ready(()));
                    answered.await
                }
            }
        };
        Ok((response.map_err(broken)?, connection))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<T, ControlError> {
        let (response, connection) = self.send(method, path, body).await?;
        let status = response.status();
        let (answer, ()) = tokio::join!(read_whole(response.into_body()), connection);
        let bytes = answer?;
        if status == StatusCode::OK {
            serde_json::from_slice(&bytes).map_err(broken)
        } else {
            Err(refusal(status, &bytes))
        }
    }

    /// How the station is.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn status(&self) -> Result<StatusReport, ControlError> {
        self.ask(Method::GET, "/status", whole(Vec::new())).await
    }

    /// Counts the events that match a filter, given as JSON.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn count(&self, filter: &str) -> Result<u64, ControlError> {
        self.ask(
            Method::GET,
            &with_filter("/count", filter),
            whole(Vec::new()),
        )
        .await
    }

    /// Who is in the graph: members, or `all`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn members(&self, all: bool) -> Result<MembersReport, ControlError> {
        let path = format!("/members?all={all}");
        self.ask(Method::GET, &path, whole(Vec::new())).await
    }

    /// Has the store checked.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn verify(&self) -> Result<VerifyReport, ControlError> {
        self.ask(Method::POST, "/verify", whole(Vec::new())).await
    }

    /// Has something done with the tunnels; the answer is of the type that the command names.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn tunnels(
        &self,
        command: &TunnelCommand,
    ) -> Result<serde_json::Value, ControlError> {
        let body = serde_json::to_vec(command).map_err(broken)?;
        self.ask(Method::POST, "/tunnels", whole(body)).await
    }

    /// Has the list of what is blocked read or changed; the answer is of the type that the command names.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn moderation(
        &self,
        command: &ModerationCommand,
    ) -> Result<serde_json::Value, ControlError> {
        let body = serde_json::to_vec(command).map_err(broken)?;
        self.ask(Method::POST, "/moderation", whole(body)).await
    }

    /// A byte stream to a peer, through the station.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn stream(&self, address: &PeerAddress) -> Result<ByteStream, ControlError> {
        let path = with_parameter("/stream", "address", &address.written());
        let request = Request::builder()
            .uri(path)
            .header(http::header::CONNECTION, "upgrade")
            .header(http::header::UPGRADE, PROTOCOL);
        let (response, connection) = self.send_with(request, whole(Vec::new())).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let (answer, ()) = tokio::join!(read_whole(response.into_body()), connection);
            return Err(refusal(status, &answer?));
        }
        let (upgraded, ()) = tokio::join!(hyper::upgrade::on(response), connection);
        Ok(Box::new(TokioIo::new(upgraded.map_err(broken)?)))
    }

    /// Has a run told, or its report sent; the answer is of the type that the command names.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report(&self, command: &ReportCommand) -> Result<serde_json::Value, ControlError> {
        let body = serde_json::to_vec(command).map_err(broken)?;
        self.ask(Method::POST, "/report", whole(body)).await
    }

    /// Imports JSON lines.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn import(
        &self,
        lines: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<ImportReport, ControlError> {
        use futures_util::TryStreamExt;
        let body = BodyExt::boxed(StreamBody::new(lines.map_ok(Frame::data)));
        self.ask(Method::POST, "/import", body).await
    }

    /// Exports the events that match a filter; `write` gets the lines as they come.
    ///
    /// # Errors
    /// [`ControlError`]; whole lines may have been written before.
    pub async fn export(
        &self,
        filter: &str,
        write: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    ) -> Result<(), ControlError> {
        let path = with_filter("/export", filter);
        let (response, connection) = self.send(Method::GET, &path, whole(Vec::new())).await?;
        let status = response.status();
        let mut body = response.into_body();
        let reading = async {
            if status != StatusCode::OK {
                return Err(refusal(status, &read_whole(body).await?));
            }
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(broken)?.into_data() {
                    write(&data).map_err(ControlError::Output)?;
                }
            }
            Ok(())
        };
        let (read, ()) = tokio::join!(reading, connection);
        read
    }

    /// Asks for a run; `tell` gets each line of progress. Gives the last line: a report, or why there is none.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sync(
        &self,
        request: &SyncRequest,
        tell: &mut TellProgress<'_>,
    ) -> Result<RunReport, ControlError> {
        let body = serde_json::to_vec(request).map_err(broken)?;
        let (response, connection) = self.send(Method::POST, "/sync", whole(body)).await?;
        let status = response.status();
        let reading = async {
            use futures_util::TryStreamExt;
            let body = response.into_body();
            if status != StatusCode::OK {
                return Err(refusal(status, &read_whole(body).await?));
            }
            let bytes = body.into_data_stream().map_err(std::io::Error::other);
            let mut lines = StreamReader::new(bytes).lines();
            while let Some(line) = lines.next_line().await.map_err(broken)? {
                match serde_json::from_str(&line).map_err(broken)? {
                    SyncLine::Progress(progress) => tell(&progress),
                    SyncLine::Report(report) => return Ok(*report),
                    SyncLine::Refused(error) => return Err(error.into()),
                }
            }
            Err(ControlError::Broken("no report".into()))
        };
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            biased;
            read = &mut reading => read,
            // What came before the connection ended is still to be read.
            () = connection => reading.await,
        }
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer that is held in memory as a whole, up to a bound.
async fn read_whole(body: Incoming) -> Result<Bytes, ControlError> {
    let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(answer.map_err(broken)?.to_bytes())
}

fn refusal(status: StatusCode, bytes: &[u8]) -> ControlError {
    match serde_json::from_slice::<CommandError>(bytes) {
        Ok(error) => error.into(),
        Err(_) => broken(format!("{status}: {}", String::from_utf8_lossy(bytes))),
    }
}

fn with_filter(path: &str, filter: &str) -> String {
    with_parameter(path, "filter", filter)
}

fn with_parameter(path: &str, name: &str, value: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair(name, value);
    format!("{path}?{}", query.finish())
}
