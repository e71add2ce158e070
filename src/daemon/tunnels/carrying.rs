//! Which carrier: kubo if it is to be used and answers, else our own node; and what each keeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::membership::InForce;
use super::{TunnelError, TunnelStarter, blocking, settings};
use crate::config::{Config, KuboUse};
use crate::daemon::DataDirectory;
use crate::limits::TUNNEL_MEMORY_BYTES_MAX;
use crate::peer::PeerId;
use crate::state_file;
use crate::tasks::TaskGroup;
use crate::tunnel::{
    Carrier, Found, GuestList, Identity, InboundStream, KademliaMode, KnownAddress, KuboApi,
    KuboCarrier, KuboError, Node, NodeOptions, SwarmKey,
};

/// How often addresses are kept.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Stations found that nobody has taken; kubo finds none by itself.
const NOBODY_FOUND: usize = 1;

/// What starting a carrier comes to.
pub(super) enum Carrying {
    Started(Carried),
    /// Kubo is to carry, and does not: why.
    WaitsForKubo(String),
}

/// A carrier that runs.
pub(super) struct Carried {
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) inbound: mpsc::Receiver<InboundStream>,
    pub(super) found: mpsc::Receiver<Found>,
    pub(super) kind: Kind,
}

/// Which one, and what ends with it.
pub(super) enum Kind {
    Kubo(Arc<KuboCarrier>),
    Node(Arc<Node>, AddressKeeper),
}

/// That kubo carried the tunnels: from then on it is waited for.
#[derive(Debug, Serialize, Deserialize)]
struct CarriedByKubo {
    peer: String,
}

/// Starts the carrier.
pub(super) async fn start(
    starter: &TunnelStarter,
    tasks: &TaskGroup,
    config: &Config,
    identity: &Identity,
    swarm_key: Option<&SwarmKey>,
    membership: &InForce,
    guests: &watch::Sender<Arc<GuestList>>,
) -> Result<Carrying, TunnelError> {
    let remembered = starter.directory.carried_by_kubo();
    let is_remembered = remembered.exists();
    match config.kubo.used {
        KuboUse::Never => {}
        KuboUse::Always | KuboUse::Auto => {
            let must = is_remembered || config.kubo.used == KuboUse::Always;
            match start_kubo(starter, tasks, config, guests).await {
                Ok(carried) => {
                    remember(remembered, carried.carrier.peer_id().to_string()).await;
                    return Ok(Carrying::Started(carried));
                }
                Err(KuboError::NotAnApi(text)) => return Err(KuboError::NotAnApi(text).into()),
                Err(error) if must => {
                    tracing::warn!(%error, "tunnels wait for kubo");
                    return Ok(Carrying::WaitsForKubo(error.to_string()));
                }
                Err(KuboError::Unreachable { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, "a kubo is there, but cannot carry our tunnels: our own node does, with an identity of its own");
                }
            }
        }
    }
    let started = start_node(
        starter, tasks, config, identity, swarm_key, membership, guests,
    );
    Ok(Carrying::Started(started.await?))
}

async fn start_kubo(
    starter: &TunnelStarter,
    tasks: &TaskGroup,
    config: &Config,
    guests: &watch::Sender<Arc<GuestList>>,
) -> Result<Carried, KuboError> {
    let api: KuboApi = config.kubo.api.parse()?;
    let memory = starter.directory.kubo();
    let started = KuboCarrier::start(
        api,
        guests.subscribe(),
        &memory,
        starter.clock.clone(),
        starter.random.clone(),
        tasks,
    );
    let (kubo, inbound) = started.await?;
    let kubo = Arc::new(kubo);
    let (_, found) = mpsc::channel(NOBODY_FOUND);
    Ok(Carried {
        carrier: Arc::clone(&kubo) as Arc<dyn Carrier>,
        inbound,
        found,
        kind: Kind::Kubo(kubo),
    })
}

/// The PeerID of the kubo that carried the tunnels. A file that cannot be read is only a memory of what kubo says again.
pub(super) async fn remembered_peer(directory: &DataDirectory) -> Option<PeerId> {
    let path = directory.carried_by_kubo();
    let bytes = blocking(move || std::fs::read(path)).await.ok()?;
    let remembered: CarriedByKubo = serde_json::from_slice(&bytes).ok()?;
    remembered.peer.parse().ok()
}

async fn remember(path: PathBuf, peer: String) {
    let written = blocking(move || {
        let bytes = serde_json::to_vec(&CarriedByKubo { peer })?;
        state_file::replace(&path, &bytes)
    });
    if let Err(error) = written.await {
        tracing::warn!(%error, "cannot remember that kubo carries the tunnels");
    }
}

async fn start_node(
    starter: &TunnelStarter,
    tasks: &TaskGroup,
    config: &Config,
    identity: &Identity,
    swarm_key: Option<&SwarmKey>,
    membership: &InForce,
    guests: &watch::Sender<Arc<GuestList>>,
) -> Result<Carried, TunnelError> {
    let keeper = AddressKeeper {
        path: starter.directory.addresses(),
        node: None,
    };
    let kademlia = settings::kademlia(config);
    // A station that may share nothing looks for nobody.
    let kademlia = if membership.halted.is_some() {
        KademliaMode::Off
    } else {
        kademlia
    };
    let options = NodeOptions {
        listen: config.tunnel.listening(),
        external: config.tunnel.external.clone(),
        swarm_key: swarm_key.cloned(),
        mdns: config.tunnel.mdns && membership.halted.is_none(),
        kademlia,
        rendezvous: Some(*membership.membership.id.as_bytes()),
        serve_relay: config.tunnel.serve_relay,
        relays: settings::relays(config)?,
        upnp: config.tunnel.upnp,
        known: keeper.read().await,
        memory_bytes_max: Some(TUNNEL_MEMORY_BYTES_MAX),
        ..NodeOptions::default()
    };
    let started = Node::start(
        identity,
        options,
        guests.subscribe(),
        starter.clock.clone(),
        starter.random.clone(),
        tasks,
    )
    .await?;
    let keeper = AddressKeeper {
        node: Some(Arc::clone(&started.node)),
        ..keeper
    };
    Ok(Carried {
        carrier: Arc::clone(&started.node) as Arc<dyn Carrier>,
        inbound: started.inbound,
        found: started.found,
        kind: Kind::Node(started.node, keeper),
    })
}

/// Keeps the addresses that our node knows, so that a start finds others again by itself.
#[derive(Debug, Clone)]
pub(super) struct AddressKeeper {
    path: PathBuf,
    node: Option<Arc<Node>>,
}

impl AddressKeeper {
    /// What was kept. A file that cannot be read is only a memory of what is learnt again.
    async fn read(&self) -> Vec<KnownAddress> {
        let path = self.path.clone();
        let read = blocking(move || std::fs::read(&path).ok());
        let Some(bytes) = read.await else {
            return Vec::new();
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "known addresses cannot be read; they are learnt again");
            Vec::new()
        })
    }

    /// Keeps what is known now.
    pub(super) async fn keep(&self) {
        let Some(known) = self.node.as_ref().map(|node| node.addresses()) else {
            return;
        };
        let path = self.path.clone();
        let written = blocking(move || {
            let bytes = serde_json::to_vec(&known)?;
            state_file::replace(&path, &bytes)
        });
        if let Err(error) = written.await {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep known addresses");
        }
    }

    /// Keeps what is known, every minute.
    pub(super) async fn keep_now_and_then(self) {
        let mut tick = interval(KEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once: nothing is known yet.
        tick.tick().await;
        loop {
            tick.tick().await;
            self.keep().await;
        }
    }
}
