//! One station, opened: whoever holds it is the one process that writes to the data directory.
//!
//! `run`, `demo` and commands on a station that is not running all open it here; they differ only in what they start
//! on top. Invariant: the kernel lock is taken before anything else is touched, and let go after the store is closed.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use constellation_eventstore::OpenError;
use tokio::sync::watch;

use super::calibration;
use super::directory::DataDirectory;
use super::live::LiveParts;
use super::policy::PolicyPart;
use super::relay::StationRelay;
use super::reporting::ReportParts;
use super::tunnels::{self, TunnelError, TunnelStarter, TunnelUpkeep};
use crate::allocator;
use crate::astroport::{AstroportAttendant, AstroportPaths};
use crate::config::Config;
use crate::control::{self, ControlContext, StationFacts, TunnelState};
use crate::discovery::TrustFiles;
use crate::graph::GraphKeeper;
use crate::ingest::{Ingest, IngestError, Mode, Parts};
use crate::limits::{
    CONTROL_TASKS_MAX, RETURN_MEMORY_EVERY, RUN_TASKS_MAX, STATION_TASKS_MAX, SWEEP_EVERY,
};
use crate::peer::{PeerId, Visitors};
use crate::random::Random;
use crate::recent_ids::BroughtByPeers;
use crate::relay_client::{Dialer, NostrKey};
use crate::relay_server::RelayContext;
use crate::schedule::NextRuns;
use crate::sync::{
    FileLock, LockError, Neighbours, RunContext, Runner, Surroundings, SyncOptions, SyncRequest,
};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::{Identity, IdentityError};

/// What the kernel takes as the path of a Unix socket, less its end mark.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a station does not open.
#[derive(Debug, thiserror::Error)]
pub enum StationError {
    /// Another process has it open: it takes commands on its control socket.
    #[error("the data directory {0} is in use by another process")]
    InUse(String),
    /// The directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// What exactly.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The lock file.
    #[error(transparent)]
    Lock(LockError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error("cannot open the event store: {0}")]
    Store(#[from] OpenError),
    /// The door to the store.
    #[error("cannot start ingest: {0}")]
    Ingest(#[from] IngestError),
    /// Tunnels.
    #[error("tunnels: {0}")]
    Tunnels(#[from] TunnelError),
    /// A part that should run does not start.
    #[error("cannot start {0}")]
    Start(String),
}

/// An open station.
#[derive(Debug)]
pub struct Station {
    directory: DataDirectory,
    identity: Identity,
    clock: Clock,
    random: Random,
    ingest: Ingest,
    graph: GraphKeeper,
    runner: Runner,
    tasks: TaskGroup,
    /// Conversations of runs.
    run_tasks: TaskGroup,
    /// Listens for commands.
    accepting: TaskGroup,
    /// Commands that are being carried out for other processes.
    commands: TaskGroup,
    facts: watch::Sender<StationFacts>,
    next_runs: watch::Sender<NextRuns>,
    /// Where the things of an Astroport station are, on one.
    astroport: watch::Sender<Option<AstroportPaths>>,
    sync_options: watch::Sender<Arc<SyncOptions>>,
    /// Peers that were found, and configured ones that are out.
    found: watch::Receiver<Arc<Neighbours>>,
    /// Why nothing may be shared at present.
    halted: watch::Sender<Option<String>>,
    /// The PeerID that others know the station by.
    known_as: watch::Sender<PeerId>,
    /// Stations that exchange with us at this moment.
    visitors: Visitors,
    /// What peers brought lately.
    pub(super) brought: BroughtByPeers,
    pub(super) policy: PolicyPart,
    pub(super) dialer: Dialer,
    pub(super) live: LiveParts,
    /// For commands.
    tunnels: watch::Sender<TunnelState>,
    trust_files: TrustFiles,
    upkeep: TunnelUpkeep,
    relay: OnceLock<(Arc<RelayContext>, TaskGroup)>,
    pub(super) reports: ReportParts,
    // Last: fields are dropped in order.
    _lock: FileLock,
}

impl Station {
    /// Opens the station in `directory`, making it if need be, and takes commands on its control socket.
    ///
    /// # Errors
    /// [`StationError`].
    pub async fn open(
        directory: DataDirectory,
        config: &Config,
        clock: Clock,
    ) -> Result<Self, StationError> {
        let random = Random::system();
        let opening = {
            let (directory, clock, random) = (directory.clone(), clock.clone(), random.clone());
            let (own_urls, graph) = (config.relay.own_urls.clone(), config.graph_options());
            tokio::task::spawn_blocking(move || {
                let (lock, identity, ingest) = open_files(&directory, &clock, &random, own_urls)?;
                let graph = GraphKeeper::new(ingest.clone(), clock, directory.graph(), graph);
                Ok::<_, StationError>((lock, identity, ingest, graph))
            })
        };
        let (lock, identity, ingest, graph) = opening
            .await
            .map_err(|error| StationError::Start(error.to_string()))??;
        // Before anybody can ask for a run.
        let compared = tunnels::compare_constellation(&directory, config, random.clone()).await?;
        let halted = compared.halted;
        let tasks = TaskGroup::new(STATION_TASKS_MAX);
        let run_tasks = tasks.child(RUN_TASKS_MAX);
        let control_tasks = tasks.child(CONTROL_TASKS_MAX);
        let tasks_accepting = tasks.child(1);
        let sync_options = watch::Sender::new(Arc::new(config.sync_options()));
        let dialer = Dialer::new();
        let (found, halted) = (watch::Sender::default(), watch::Sender::new(halted));
        let surroundings = Surroundings {
            neighbours: found.subscribe(),
            halted: halted.subscribe(),
            graph: Some(graph.clone()),
        };
        let visitors = Visitors::default();
        let brought = BroughtByPeers::default();
        let policy = PolicyPart::new(&tasks, config)?;
        let known_as = watch::Sender::new(identity.public_key().peer_id());
        let context = RunContext {
            ingest: ingest.clone(),
            dialer: Arc::new(dialer.clone()),
            nostr_key: NostrKey::at(directory.nostr_key(), random.clone()),
            own: known_as.subscribe(),
            visitors: visitors.clone(),
            brought: brought.clone(),
            plugin: Some(policy.plugin.clone()),
            clock: clock.clone(),
            random: random.clone(),
            tasks: run_tasks.clone(),
            state: directory.state(),
        };
        let astroport = watch::Sender::new(config.astroport_paths());
        let attendant = AstroportAttendant::new(
            astroport.subscribe(),
            directory.astroport(),
            graph.clone(),
            clock.clone(),
        );
        let runner = Runner::new(context.clone(), sync_options.subscribe(), surroundings)
            .attended_by(Some(Arc::new(attendant)));
        let reports = ReportParts::new(&context, &runner, config);
        let facts = watch::Sender::new(StationFacts {
            name: config.station.name.clone(),
            data_directory: directory.root().to_owned(),
            relay: None,
            started_at: None,
        });
        let followed = found.subscribe();
        let tunnels = watch::Sender::default();
        let live = LiveParts::new(&tasks, config);
        let trust_files = TrustFiles::in_folder(directory.state(), clock.clone());
        let starter = TunnelStarter {
            directory: directory.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
            random: random.clone(),
            tasks: tasks.clone(),
            dialer: dialer.clone(),
            found,
            halted: halted.clone(),
            published: tunnels.clone(),
            known_as: known_as.clone(),
            trust_files: trust_files.clone(),
            graph: graph.clone(),
        };
        let station = Self {
            directory,
            identity,
            clock,
            random,
            ingest,
            graph,
            runner,
            tasks,
            run_tasks,
            accepting: tasks_accepting,
            commands: control_tasks.clone(),
            facts,
            next_runs: watch::Sender::default(),
            astroport,
            sync_options,
            found: followed,
            halted,
            known_as,
            visitors,
            brought,
            policy,
            dialer,
            live,
            tunnels,
            trust_files,
            upkeep: TunnelUpkeep::new(starter, config),
            relay: OnceLock::new(),
            reports,
            _lock: lock,
        };
        station.take_commands(control_tasks)?;
        station.keep_swept()?;
        station.keep_memory_small()?;
        Ok(station)
    }

    fn take_commands(&self, tasks: TaskGroup) -> Result<(), StationError> {
        let path = self.directory.control_socket();
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(StationError::Start(format!(
                "the control socket: {} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may \
                 have; name a shorter --data",
                path.display()
            )));
        }
        let serving = control::serve(&path, self.control_context(tasks)).map_err(|source| {
            StationError::Directory {
                path: path.display().to_string(),
                source,
            }
        })?;
        self.accepting
            .spawn(serving)
            .map_err(|error| StationError::Start(error.to_string()))?;
        Ok(())
    }

    /// What commands work on; also for commands given in this process.
    pub fn control_context(&self, tasks: TaskGroup) -> ControlContext {
        ControlContext {
            ingest: self.ingest.clone(),
            graph: self.graph.clone(),
            runner: self.runner.clone(),
            reporter: self.reports.reporter.clone(),
            clock: self.clock.clone(),
            facts: self.facts.subscribe(),
            next_runs: self.next_runs.subscribe(),
            known_as: self.known_as.subscribe(),
            trust_files: self.trust_files.clone(),
            tunnels: self.tunnels.subscribe(),
            halted: self.halted.subscribe(),
            live: Arc::clone(&self.live.board),
            dialer: Arc::new(self.dialer.clone()),
            tasks,
        }
    }

    /// Expired events go within a second of their time.
    fn keep_swept(&self) -> Result<(), StationError> {
        let ingest = self.ingest.clone();
        let sweeping = async move {
            let mut tick = tokio::time::interval(SWEEP_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Err(error) = ingest.sweep().await {
                    tracing::error!(%error, "cannot remove expired events; it is tried again");
                }
            }
        };
        self.tasks
            .spawn(sweeping)
            .map_err(|error| StationError::Start(error.to_string()))?;
        Ok(())
    }

    /// What an exchange or a busy hour leaves in the heaps does not stay there.
    fn keep_memory_small(&self) -> Result<(), StationError> {
        let returning = async {
            let mut tick = tokio::time::interval(RETURN_MEMORY_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Err(error) = tokio::task::spawn_blocking(allocator::return_holes).await {
                    tracing::error!(%error, "memory cannot be given back");
                }
            }
        };
        self.tasks
            .spawn(returning)
            .map_err(|error| StationError::Start(error.to_string()))?;
        Ok(())
    }

    /// The door to the store.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Whose events are shared under `n2`.
    pub fn graph(&self) -> &GraphKeeper {
        &self.graph
    }

    /// The part of the configuration in force that runs depend on.
    pub(super) fn sync_options(&self) -> watch::Receiver<Arc<SyncOptions>> {
        self.sync_options.subscribe()
    }

    /// Makes runs.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Wall time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Randomness for names and challenges.
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// Who the station is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The PeerID that others know it by: that of kubo, where one carries its tunnels.
    pub fn peer_id(&self) -> String {
        self.known_as.borrow().to_string()
    }

    /// Follows it: where kubo carries the tunnels it is known when that one answers.
    pub fn known_as(&self) -> watch::Receiver<PeerId> {
        self.known_as.subscribe()
    }

    /// Peers that were found, besides those that are configured.
    pub fn found(&self) -> watch::Receiver<Arc<Neighbours>> {
        self.found.clone()
    }

    /// Why nothing may be shared at present.
    pub(super) fn halted(&self) -> watch::Receiver<Option<String>> {
        self.halted.subscribe()
    }

    /// Stations that exchange with us at this moment.
    pub(super) fn visitors(&self) -> Visitors {
        self.visitors.clone()
    }

    /// Where the things of an Astroport station are, on one.
    pub(super) fn astroport_paths(&self) -> watch::Receiver<Option<AstroportPaths>> {
        self.astroport.subscribe()
    }

    /// Whether there are tunnels, followed.
    pub(super) fn tunnel_state(&self) -> watch::Receiver<TunnelState> {
        self.tunnels.subscribe()
    }

    /// Tasks that live as long as the station.
    pub fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    /// Tells commands when the next run is due.
    pub(super) fn next_runs(&self) -> watch::Sender<NextRuns> {
        self.next_runs.clone()
    }

    /// Where it is kept when a run by the timetable last took place.
    pub(super) fn schedule_record(&self) -> PathBuf {
        self.directory.schedule()
    }

    /// What commands are told of the station.
    pub fn set_facts(&self, change: impl FnOnce(&mut StationFacts)) {
        self.facts.send_modify(change);
    }

    /// Starts tunnels for one run of a command, if that needs them.
    ///
    /// # Errors
    /// [`StationError::Tunnels`].
    pub async fn start_tunnels_for(
        &self,
        config: &Config,
        request: &SyncRequest,
    ) -> Result<(), StationError> {
        if tunnels::are_wanted(&self.directory, config, request) {
            self.start_tunnels(config, None).await?;
        }
        Ok(())
    }

    /// Starts tunnels, if they are configured; `relay` is where those lead that others open to it. Where kubo is to carry
    /// them and does not answer, they start when it does.
    ///
    /// # Errors
    /// [`StationError::Tunnels`].
    pub async fn start_tunnels(
        &self,
        config: &Config,
        relay: Option<&StationRelay>,
    ) -> Result<(), StationError> {
        let entrance = relay.map(StationRelay::entrance);
        Ok(self.upkeep.start(config, entrance).await?)
    }

    /// Takes over what can change while a station runs: peers and scope from the next run on, and what tunnels can take
    /// over. Where the constellation is another one now, nothing is shared any more (D16).
    ///
    /// # Errors
    /// [`StationError::Tunnels`]: what was in force stays.
    pub async fn reconfigure(&self, config: &Config) -> Result<(), StationError> {
        let (directory, random) = (&self.directory, self.random.clone());
        let compared = tunnels::compare_constellation(directory, config, random).await?;
        let halted = self.upkeep.reconfigure(config, compared).await?;
        if halted.is_some() {
            self.halted.send_replace(halted.clone());
        }
        self.sync_options
            .send_replace(Arc::new(config.sync_options()));
        self.graph.configure(config.graph_options());
        self.astroport.send_replace(config.astroport_paths());
        self.facts
            .send_modify(|facts| facts.name.clone_from(&config.station.name));
        self.live.options.send_replace(config.live);
        self.policy.reconfigure(config);
        self.reports.reconfigure(config);
        // Only after what runs go by is in force.
        self.halted.send_replace(halted);
        Ok(())
    }

    /// Takes the relay over, to be closed with the station. A station has one; a second is not taken.
    pub(super) fn adopt_relay(&self, relay: Arc<RelayContext>, connections: TaskGroup) {
        if self.relay.set((relay, connections)).is_err() {
            tracing::error!("the station serves a relay already");
        }
    }

    /// Ends all tasks, commits what was taken, closes the store and lets go of the lock. A station that was only
    /// opened for a command first finishes what other commands asked of it meanwhile, unless it is interrupted.
    pub async fn close(self) {
        self.accepting.end().await;
        let socket = self.directory.control_socket();
        // From now on others wait for the lock instead of talking to a process that is leaving.
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!(%error, "the control socket was gone already");
        }
        if self.facts.borrow().started_at.is_none() {
            tokio::select! {
                () = self.commands.drain() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        self.live.tasks.end().await;
        if let Some((relay, connections)) = self.relay.get() {
            relay.close().await;
            connections.end().await;
        }
        self.upkeep.close().await;
        self.tasks.end().await;
        self.commands.end().await;
        self.run_tasks.end().await;
        let ingest = self.ingest.clone();
        let closing = tokio::task::spawn_blocking(move || ingest.close());
        if let Err(failure) = closing.await
            && failure.is_panic()
        {
            std::panic::resume_unwind(failure.into_panic());
        }
    }
}

fn open_files(
    directory: &DataDirectory,
    clock: &Clock,
    random: &Random,
    own_urls: Vec<String>,
) -> Result<(FileLock, Identity, Ingest), StationError> {
    let failed = |(path, source): (std::path::PathBuf, std::io::Error)| StationError::Directory {
        path: path.display().to_string(),
        source,
    };
    directory.prepare().map_err(failed)?;
    let lock = FileLock::try_take(&directory.lock()).map_err(|error| match error {
        LockError::Held(_) => StationError::InUse(directory.root().display().to_string()),
        other => StationError::Lock(other),
    })?;
    directory.empty_temporary().map_err(failed)?;
    let identity = Identity::load_or_create(&directory.identity())?;
    let monotonic = clock.clone();
    let mut options =
        constellation_eventstore::Options::new(Arc::new(move || monotonic.monotonic()));
    options.own_urls = own_urls;
    let (store, writer) = constellation_eventstore::open(&directory.events(), options)?;
    let examiners = std::thread::available_parallelism().map_or(1, usize::from);
    let (kept_at, measuring) = (directory.calibration(), random.clone());
    let parts = Parts {
        store,
        writer,
        break_even: Box::new(move || calibration::break_even(&kept_at, &measuring)),
        clock: clock.clone(),
        random: random.clone(),
    };
    let ingest = Ingest::start(parts, Mode::Threads(examiners))?;
    Ok((lock, identity, ingest))
}
