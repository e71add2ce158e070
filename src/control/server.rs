//! The station's side of the control socket.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{TryStreamExt, stream};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nostr::filter::Filter;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::io::StreamReader;

use super::commands::{TunnelCommand, carry_out_without_tunnels};
use super::messages::{BlockedStatus, CommandError, PeerStatus, StatusReport, SyncLine};
use super::moderation::{ModerationCommand, moderation};
use super::reports::{ReportCommand, report};
use super::stream::get_stream;
use super::tunnel_state::TunnelState;
use crate::archive::{self, Export};
use crate::discovery::TrustFiles;
use crate::graph::{GraphKeeper, MembersReport};
use crate::ingest::Ingest;
use crate::limits::HISTORY_RUNS_MAX;
use crate::live::LiveBoard;
use crate::peer::PeerId;
use crate::relay_client::Dial;
use crate::report::Reporter;
use crate::schedule::NextRuns;
use crate::sync::{HistoryError, RunProgress, Runner, SyncRequest};
use crate::tasks::TaskGroup;
use crate::time::{Clock, rfc3339};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long a command waits for tunnels that are just starting.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of progress waiting for a slow command; the report waits for room.
const LINES_WAITING: usize = 16;

/// What does not change while a station is open.
#[derive(Debug, Clone, Default)]
pub struct StationFacts {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data_directory: PathBuf,
    /// Where its relay listens, if it does.
    pub relay: Option<String>,
    /// Unix seconds of its start; `None` if it is only open for one command.
    pub started_at: Option<u64>,
}

/// What commands work on.
#[derive(Debug, Clone)]
pub struct ControlContext {
    /// The door to the store.
    pub ingest: Ingest,
    /// Whose events are shared under `n2`.
    pub graph: GraphKeeper,
    /// Makes runs.
    pub runner: Runner,
    /// Tells of them.
    pub reporter: Reporter,
    /// Time.
    pub clock: Clock,
    /// What the station is.
    pub facts: watch::Receiver<StationFacts>,
    /// When the next run is due.
    pub next_runs: watch::Receiver<NextRuns>,
    /// The PeerID that others know the station by.
    pub known_as: watch::Receiver<PeerId>,
    /// The station's tunnels, or why there are none.
    pub tunnels: watch::Receiver<TunnelState>,
    /// Where the captain's word is kept meanwhile.
    pub trust_files: TrustFiles,
    /// Why nothing may be shared at present.
    pub halted: watch::Receiver<Option<String>>,
    /// How live links are.
    pub live: Arc<LiveBoard>,
    /// Opens byte streams to peers.
    pub dialer: Arc<dyn Dial>,
    /// Runs asked for through the socket live here.
    pub tasks: TaskGroup,
}

/// Opens the socket, readable by its owner alone; the one that a killed process left behind is replaced. The caller
/// holds the data directory's lock, so nobody else is listening there.
///
/// # Errors
/// The system's.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves commands until the group ends. Connections beyond the group's bound are dropped.
///
/// # Errors
/// The system's, when the socket cannot be opened.
pub fn serve(
    path: &Path,
    context: ControlContext,
) -> std::io::Result<impl Future<Output = ()> + use<>> {
    let listener = bind(path)?;
    let tasks = context.tasks.clone();
    let router = router(Arc::new(context));
    Ok(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, as a rule: the next one may have better luck.
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(PROGRESS_EVERY).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = async move {
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "control connection");
                }
            };
            if tasks.spawn(connection).is_err() {
                tracing::warn!("too many control connections");
            }
        }
    })
}

fn router(context: Arc<ControlContext>) -> Router {
    Router::new()
        .route("/status", get(get_status))
        .route("/sync", post(post_sync))
        .route("/import", post(post_import))
        .route("/export", get(get_export))
        .route("/count", get(get_count))
        .route("/members", get(get_members))
        .route("/verify", post(post_verify))
        .route("/tunnels", post(post_tunnels))
        .route("/stream", get(get_stream))
        .route("/moderation", post(post_moderation))
        .route("/report", post(post_report))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(context)
}

impl IntoResponse for CommandError {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(self)).into_response()
    }
}

#[derive(Deserialize)]
struct FilterParameter {
    filter: String,
}

impl FilterParameter {
    fn parse(&self) -> Result<Filter, CommandError> {
        Filter::from_json(&self.filter)
            .map_err(|error| CommandError::usage(format!("not a filter (NIP-01): {error}")))
    }
}

async fn get_status(
    State(context): State<Arc<ControlContext>>,
) -> Result<axum::Json<StatusReport>, CommandError> {
    Ok(axum::Json(status(&context).await?))
}

/// How the station is.
///
/// # Errors
/// [`CommandError`]: the store or the history cannot be read.
pub async fn status(context: &ControlContext) -> Result<StatusReport, CommandError> {
    let facts = context.facts.borrow().clone();
    let peer_id = context.known_as.borrow().to_string();
    let next_run = context.next_runs.borrow().next();
    let halted = context.halted.borrow().clone();
    let live = context.live.report();
    let tunnels = context.tunnels.borrow().clone();
    let (clock, runner) = (context.clock.clone(), context.runner.clone());
    let store = context.ingest.store().clone();
    let gathered = tokio::task::spawn_blocking(move || {
        let snapshot = store.snapshot().map_err(CommandError::local)?;
        let events = snapshot.event_count().map_err(CommandError::local)?;
        let blocked = snapshot.blocked_counts().map_err(CommandError::local)?;
        let by_kind = snapshot.shared_by_kind().into_iter().collect();
        let (last_run, peers) =
            peers_of(&runner, clock.unix_seconds()).map_err(CommandError::local)?;
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: facts.started_at.is_some(),
            name: facts.name,
            peer_id,
            data_directory: facts.data_directory.display().to_string(),
            relay: facts.relay,
            started_at: facts.started_at.map(rfc3339),
            events,
            by_kind,
            blocked: BlockedStatus {
                authors: blocked.authors,
                events: blocked.events,
            },
            store_bytes: store.sizes().1,
            run_in_progress: runner.is_running(),
            next_run_at: next_run.map(|due| rfc3339(due.at)),
            next_run_why: next_run.map(|due| due.why),
            last_run,
            halted,
            live,
            no_tunnels: tunnels.why_none(),
            tunnels: tunnels.started().map(|tunnels| tunnels.report()),
            peers,
        })
    });
    gathered.await.map_err(CommandError::local)?
}

fn peers_of(
    runner: &Runner,
    now: u64,
) -> Result<(Option<crate::sync::RunReport>, Vec<PeerStatus>), HistoryError> {
    let history = runner.history();
    let mut runs = history.last_runs(HISTORY_RUNS_MAX)?;
    let successes = history.last_successes()?;
    let peers = runner
        .peers()
        .into_iter()
        .map(|peer| {
            let address = peer.address.to_string();
            // Not every run is with every peer, and a dry one is no exchange.
            let last_outcome = runs
                .iter()
                .rev()
                .filter(|run| !run.dry_run)
                .flat_map(|run| &run.peers)
                .find(|report| report.address == address)
                .map(|report| report.outcome);
            let lag_s = successes
                .get(&address)
                .map(|success| now.saturating_sub(*success));
            PeerStatus {
                address,
                last_outcome,
                lag_s,
            }
        })
        .collect();
    Ok((runs.pop(), peers))
}

async fn post_sync(
    State(context): State<Arc<ControlContext>>,
    axum::Json(request): axum::Json<SyncRequest>,
) -> Result<Response, CommandError> {
    let (lines, waiting) = mpsc::channel(LINES_WAITING);
    let runner = context.runner.clone();
    // The run is the station's: it goes on when the command that asked for it goes away.
    context
        .tasks
        .spawn(async move { carry_out(&runner, &request, &lines).await })
        .map_err(CommandError::local)?;
    let body = stream::unfold(waiting, |mut waiting| async move {
        let line: SyncLine = waiting.recv().await?;
        let mut text = serde_json::to_string(&line).ok()?;
        text.push('\n');
        Some((Ok::<_, Infallible>(text), waiting))
    });
    Ok(Body::from_stream(body).into_response())
}

async fn carry_out(runner: &Runner, request: &SyncRequest, lines: &mpsc::Sender<SyncLine>) {
    let (announce, announced) = watch::channel(RunProgress::new());
    let run = runner.trigger(request, |progress| {
        announce.send_replace(progress);
    });
    let telling = async {
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tick.tick().await;
            let progress: Vec<_> = announced
                .borrow()
                .iter()
                .map(|peer| (peer.address.clone(), *peer.transfer.borrow()))
                .collect();
            // A command that does not keep up misses some; one that is gone misses all.
            drop(lines.try_send(SyncLine::Progress(progress)));
        }
    };
    let ended = tokio::select! {
        ended = run => ended,
        never = telling => never,
    };
    let line = match ended {
        Ok(report) => SyncLine::Report(Box::new(report)),
        Err(error) => SyncLine::Refused(error.into()),
    };
    if lines.send(line).await.is_err() {
        tracing::debug!("whoever asked for the run did not wait for its report");
    }
}

async fn post_import(
    State(context): State<Arc<ControlContext>>,
    body: Body,
) -> Result<Response, CommandError> {
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let mut input = StreamReader::new(bytes);
    let report = archive::import(&context.ingest, &mut input, &mut |_| {})
        .await
        .map_err(CommandError::local)?;
    Ok(axum::Json(report).into_response())
}

async fn get_export(
    State(context): State<Arc<ControlContext>>,
    Query(parameter): Query<FilterParameter>,
) -> Result<Response, CommandError> {
    let now = context.clock.unix_seconds();
    let export = Export::begin(context.ingest.store(), parameter.parse()?, now)
        .await
        .map_err(CommandError::local)?;
    // A failure in the middle breaks the connection off, so that half an export is not taken for a whole one.
    let body = stream::try_unfold(export, |mut export| async move {
        let lines = export
            .next()
            .await
            .inspect_err(|error| tracing::error!(%error, "export"))?;
        Ok::<_, archive::ArchiveError>(lines.map(|lines| (lines, export)))
    });
    Ok(Body::from_stream(body).into_response())
}

async fn get_count(
    State(context): State<Arc<ControlContext>>,
    Query(parameter): Query<FilterParameter>,
) -> Result<axum::Json<u64>, CommandError> {
    let now = context.clock.unix_seconds();
    archive::count(context.ingest.store(), parameter.parse()?, now)
        .await
        .map(axum::Json)
        .map_err(CommandError::local)
}

#[derive(Deserialize)]
struct MembersParameter {
    all: bool,
}

async fn get_members(
    State(context): State<Arc<ControlContext>>,
    Query(parameter): Query<MembersParameter>,
) -> Result<axum::Json<MembersReport>, CommandError> {
    context
        .graph
        .report(parameter.all)
        .await
        .map(axum::Json)
        .map_err(CommandError::local)
}

async fn post_verify(
    State(context): State<Arc<ControlContext>>,
) -> Result<axum::Json<archive::VerifyReport>, CommandError> {
    archive::check(context.ingest.store())
        .await
        .map(axum::Json)
        .map_err(CommandError::local)
}

async fn post_moderation(
    State(context): State<Arc<ControlContext>>,
    axum::Json(command): axum::Json<ModerationCommand>,
) -> Result<axum::Json<serde_json::Value>, CommandError> {
    moderation(&context, command).await.map(axum::Json)
}

async fn post_report(
    State(context): State<Arc<ControlContext>>,
    axum::Json(command): axum::Json<ReportCommand>,
) -> Result<axum::Json<serde_json::Value>, CommandError> {
    report(&context, command).await.map(axum::Json)
}

async fn post_tunnels(
    State(context): State<Arc<ControlContext>>,
    axum::Json(command): axum::Json<TunnelCommand>,
) -> Result<axum::Json<serde_json::Value>, CommandError> {
    tunnels(&context, command).await.map(axum::Json)
}

/// Waits for tunnels that are just starting. In vain: whoever asks is told that they still are.
pub(super) async fn started(context: &ControlContext) {
    let mut state = context.tunnels.clone();
    let settled = state.wait_for(|state| !matches!(state, TunnelState::Starting));
    drop(tokio::time::timeout(START_DEADLINE, settled).await);
}

/// Carries out what a command asks of the tunnels.
///
/// # Errors
/// [`CommandError`].
pub async fn tunnels(
    context: &ControlContext,
    command: TunnelCommand,
) -> Result<serde_json::Value, CommandError> {
    started(context).await;
    let busy = Arc::clone(&context.trust_files.busy).lock_owned().await;
    // Looked at while nobody can start them: from their start on they keep the captain's word.
    let state = context.tunnels.borrow().clone();
    let why_none = match (state.started(), state.why_none()) {
        (Some(tunnels), _) => {
            drop(busy);
            return tunnels.carry_out(command).await;
        }
        (None, why) if matches!(state, TunnelState::SwitchedOff) => {
            CommandError::usage(why.unwrap_or_default())
        }
        (None, why) => CommandError::local(why.unwrap_or_default()),
    };
    let files = context.trust_files.clone();
    let own = *context.known_as.borrow();
    let kept = tokio::task::spawn_blocking(move || {
        let _busy = busy;
        carry_out_without_tunnels(&files, own, command, why_none)
    });
    kept.await.map_err(CommandError::local)?
}
