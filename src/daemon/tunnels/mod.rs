//! The station's tunnels, as a part of the station: carrier, registry, services, and what goes between them.
//!
//! ```text
//! constellation (D16) ─► carrier ─► registry ─► services ─► wiring: who tells whom
//! ```
//!
//! A kubo that carried the tunnels once is waited for: with another PeerID this would be another station. Meanwhile
//! the relay serves, and peers that are plain relays are exchanged with.

mod carrying;
mod membership;
mod settings;
mod upkeep;
mod wiring;

use std::sync::Arc;

use tokio::sync::watch;

use super::directory::DataDirectory;
use crate::config::Config;
use crate::control::{TunnelState, Tunnels};
use crate::discovery::{Registry, RegistryOptions, TrustFiles};
use crate::graph::GraphKeeper;
use crate::peer::PeerId;
use crate::random::Random;
use crate::relay_client::Dialer;
use crate::services::{Inbound, RelayEntrance, Services};
use crate::sync::{Neighbours, SyncRequest};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::{Identity, IdentityError, KuboCarrier, KuboError, NodeError, SwarmKeyError};

use carrying::{Carried, Carrying, Kind};
pub(super) use membership::Compared;
use settings::{registry_settings, take_services};
pub(super) use upkeep::TunnelUpkeep;

/// Streams that are served at a time: what the carriers let in.
const VISITS_MAX: usize = 4_200;
/// What goes between the parts, and the carrier's own.
const TUNNEL_TASKS_MAX: usize = 64;

/// Why there are no tunnels.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The swarm key's file cannot be read.
    #[error("cannot read the swarm key {path}: {source}")]
    SwarmKeyFile {
        /// The file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It holds no key.
    #[error("{path}: {source}")]
    SwarmKey {
        /// The file.
        path: String,
        /// What is wrong, and where.
        source: SwarmKeyError,
    },
    /// The identity that the configuration names.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Our own node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// kubo.
    #[error(transparent)]
    Kubo(#[from] KuboError),
    /// What was kept.
    #[error(transparent)]
    State(#[from] crate::trust::StateError),
    /// Services.
    #[error(transparent)]
    Services(#[from] crate::services::ServiceError),
    /// A station named in the configuration that is none.
    #[error(
        "[tunnel] {key}: {text:?} is no station: expected a PeerID, an address with /p2p/<PeerID>, or an ssh-ed25519 line"
    )]
    NotAStation {
        /// The key.
        key: &'static str,
        /// What is there.
        text: String,
    },
    /// The station is ending.
    #[error(transparent)]
    Tasks(#[from] crate::tasks::GroupFull),
}

impl TunnelError {
    /// Whether the configuration is to blame, rather than this machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::SwarmKeyFile { .. }
                | Self::SwarmKey { .. }
                | Self::NotAStation { .. }
                | Self::Identity(_)
                | Self::Kubo(KuboError::NotAnApi(_) | KuboError::MountingDisabled)
                | Self::Node(NodeError::Options(_))
        )
    }
}

/// The captain confirms that the station belongs to the constellation that the configuration names (D16). Gives it.
///
/// # Errors
/// [`TunnelError`].
pub async fn accept_constellation(
    directory: &DataDirectory,
    config: &Config,
    random: Random,
) -> Result<String, TunnelError> {
    let swarm_key = settings::swarm_key(config).await?;
    let (path, config) = (directory.constellation(), config.clone());
    let accepted =
        blocking(move || membership::accept(&path, &config, swarm_key.as_ref(), &random));
    Ok(accepted.await?.to_string())
}

/// Compares the constellation that is configured with the one that is kept (D16). Where that cannot be done nothing may be
/// shared either. Keeps what is configured first.
///
/// # Errors
/// [`TunnelError`]: what was kept cannot be read, or what is new not be kept.
pub(super) async fn compare_constellation(
    directory: &DataDirectory,
    config: &Config,
    random: Random,
) -> Result<Compared, TunnelError> {
    let swarm_key = match settings::swarm_key(config).await {
        Ok(swarm_key) => swarm_key,
        Err(error) => {
            let why =
                format!("whether this is still the same constellation cannot be told: {error}");
            return Ok(Compared {
                membership: None,
                halted: Some(why),
            });
        }
    };
    let configured = membership::configured(config, swarm_key.as_ref());
    let path = directory.constellation();
    let compared = blocking(move || membership::compare(&path, configured, &random));
    Ok(compared.await?)
}

/// Whether a run by a command needs tunnels: a station is named, or this one has ever dealt with others.
pub(super) fn are_wanted(
    directory: &DataDirectory,
    config: &Config,
    request: &SyncRequest,
) -> bool {
    let named = config.peers.iter().map(|peer| &peer.address);
    let has_state = ["trust.json", "peers.json"];
    config.astroport.enabled
        || !config.tunnel.allow.is_empty()
        || named
            .chain(&request.peers)
            .any(|address| address.peer_id().is_some())
        || has_state
            .iter()
            .any(|file| directory.state().join(file).exists())
}

/// What tunnels are started with; they may start later than the station.
#[derive(Debug, Clone)]
pub(super) struct TunnelStarter {
    pub(super) directory: DataDirectory,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) tasks: TaskGroup,
    pub(super) dialer: Dialer,
    pub(super) found: watch::Sender<Arc<Neighbours>>,
    pub(super) halted: watch::Sender<Option<String>>,
    /// For commands.
    pub(super) published: watch::Sender<TunnelState>,
    /// The PeerID that others know the station by.
    pub(super) known_as: watch::Sender<PeerId>,
    pub(super) trust_files: TrustFiles,
    /// Told of the keys in cards.
    pub(super) graph: GraphKeeper,
}

/// What starting comes to.
pub(super) enum Start {
    Started(Box<StationTunnels>),
    /// Kubo is to carry, and does not: why.
    WaitsForKubo(String),
}

/// Tunnels, and what ends with them.
#[derive(Debug, Clone)]
pub(super) struct StationTunnels {
    pub(super) tunnels: Arc<Tunnels>,
    kubo: Option<Arc<KuboCarrier>>,
    /// What goes between the parts and through them, and our own node.
    tasks: TaskGroup,
    keeper: Option<carrying::AddressKeeper>,
    /// Whether nothing might be shared when they started.
    began_halted: bool,
}

impl StationTunnels {
    /// Ends what goes through the tunnels, and in kubo closes what we opened there.
    pub(super) async fn close(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.keep().await;
        }
        self.tasks.end().await;
        let registry = Arc::clone(&self.tunnels.registry);
        blocking(move || registry.save_cards()).await;
        if let Some(kubo) = &self.kubo {
            kubo.close().await;
        }
    }

    /// Takes over what can change while a station runs; gives why nothing may be shared now.
    async fn reconfigure(
        &self,
        config: &Config,
        compared: Compared,
    ) -> Result<Option<String>, TunnelError> {
        let settings = registry_settings(config)?;
        let registry = Arc::clone(&self.tunnels.registry);
        let began_halted = self.began_halted;
        let halted = blocking(move || {
            let ours = registry.membership().id;
            // Its swarm key may be that of the other constellation.
            let others = compared
                .membership
                .filter(|kept| kept.id != ours || began_halted);
            let halted = compared.halted.or_else(|| {
                others.map(|kept| {
                    format!(
                        "the constellation is {} from the next start on: restart this station",
                        kept.id
                    )
                })
            });
            // What is published between the two is nothing, whichever way it goes.
            if halted.is_some() {
                registry.halt(true);
            }
            registry.configure(settings);
            registry.halt(halted.is_some());
            halted
        });
        let halted = halted.await;
        take_services(&self.tunnels.services, config).await;
        Ok(halted)
    }
}

impl TunnelStarter {
    /// Tells commands, and whoever dials, how it stands.
    pub(super) fn say(&self, state: TunnelState) {
        if let Some(why) = state.why_none() {
            self.dialer.tell_why_none(why);
        }
        self.published.send_replace(state);
    }

    /// Starts tunnels. What a start that fails has begun is ended again.
    ///
    /// # Errors
    /// [`TunnelError`].
    async fn start(
        &self,
        config: &Config,
        relay: Option<&RelayEntrance>,
    ) -> Result<Start, TunnelError> {
        let tasks = self.tasks.child(TUNNEL_TASKS_MAX);
        let started = self.start_in(&tasks, config, relay).await;
        if !matches!(started, Ok(Start::Started(_))) {
            tasks.end().await;
        }
        started
    }

    async fn start_in(
        &self,
        tasks: &TaskGroup,
        config: &Config,
        relay: Option<&RelayEntrance>,
    ) -> Result<Start, TunnelError> {
        let swarm_key = settings::swarm_key(config).await?;
        let settings = registry_settings(config)?;
        let membership = {
            let (path, random) = (self.directory.constellation(), self.random.clone());
            let configured = membership::configured(config, swarm_key.as_ref());
            blocking(move || membership::in_force(&path, configured, &random)).await?
        };
        // That nothing may be shared can have become known meanwhile: a start never takes it back.
        if membership.halted.is_some() {
            self.halted.send_replace(membership.halted.clone());
        }
        let is_halted = self.halted.borrow().is_some();
        let identity = settings::identity(config, &self.identity)?;
        let guests = watch::Sender::default();
        let carried = carrying::start(
            self,
            tasks,
            config,
            &identity,
            swarm_key.as_ref(),
            &membership,
            &guests,
        );
        let Carried {
            carrier,
            inbound,
            found,
            kind,
        } = match carried.await? {
            Carrying::Started(carried) => carried,
            Carrying::WaitsForKubo(why) => return Ok(Start::WaitsForKubo(why)),
        };
        let is_secret = swarm_key.as_ref().is_some_and(|key| !key.is_public());
        let options = RegistryOptions {
            state: self.directory.state(),
            identity,
            own: carrier.peer_id(),
            membership: membership.membership,
            private_swarm: swarm_key.is_some(),
            swarm_key_is_secret: is_secret,
            // A kubo relays as its own configuration says, and not for tunnels.
            serves_relay: config.tunnel.serve_relay && matches!(kind, Kind::Node(..)),
            halted: is_halted,
            guests,
        };
        // From here on the registry keeps the captain's word.
        let _busy = self.trust_files.busy.lock().await;
        let registry = {
            let (clock, random) = (self.clock.clone(), self.random.clone());
            blocking(move || Registry::open(options, settings, clock, random)).await?
        };
        let registry = Arc::new(registry);
        let services = {
            let (carrier, path) = (Arc::clone(&carrier), self.directory.services());
            let (is_served, mouths) = (relay.is_some(), tasks.child(VISITS_MAX));
            blocking(move || Services::load(carrier, path, is_served, mouths)).await?
        };
        let services = Arc::new(services);
        take_services(&services, config).await;
        let tunnels = Arc::new(Tunnels {
            carrier: Arc::clone(&carrier),
            registry: Arc::clone(&registry),
            services: Arc::clone(&services),
        });
        wiring::connect(self, &tunnels, config, found, tasks).await?;
        let visits = tasks.child(VISITS_MAX);
        let parts = Inbound {
            relay: relay.cloned(),
            constellation: wiring::constellation_service(&registry),
        };
        tasks.spawn(services.serve(inbound, parts, visits))?;
        let (kubo, keeper) = match kind {
            Kind::Kubo(kubo) => (Some(kubo), None),
            Kind::Node(node, keeper) => {
                let meeting = wiring::tell_where_to_meet(Arc::clone(&node), Arc::clone(&registry));
                tasks.spawn(meeting)?;
                tasks.spawn(wiring::tell_relays(node, Arc::clone(&registry)))?;
                tasks.spawn(keeper.clone().keep_now_and_then())?;
                (None, Some(keeper))
            }
        };
        // At once: a command that makes a run right away must know with whom.
        self.found.send_replace(wiring::neighbours(&registry));
        self.known_as.send_replace(carrier.peer_id());
        self.dialer.take_carrier(carrier);
        self.say(TunnelState::Started(Arc::clone(&tunnels)));
        Ok(Start::Started(Box::new(StationTunnels {
            tunnels,
            kubo,
            tasks: tasks.clone(),
            keeper,
            began_halted: is_halted,
        })))
    }
}

/// Runs what blocks off the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is not cancelled while the runtime lives; when it ends nobody waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
