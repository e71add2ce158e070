//! Who tells whom: what one part publishes becomes what another is told.
//!
//! Each line is a task that follows a `watch` or a queue. Nothing is decided here. What writes files is kept off the
//! runtime.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{TunnelError, TunnelStarter, blocking};
use crate::config::Config;
use crate::control::Tunnels;
use crate::discovery::{Registry, SwarmFolder, SwarmFolderOptions, SwarmStation, answer, gossip};
use crate::graph::{AuthorKey, GraphKeeper};
use crate::peer::Multiaddr;
use crate::services::RelayEntrance;
use crate::sync::Neighbours;
use crate::tasks::TaskGroup;
use crate::tunnel::{Found, Node, Source};

/// Stations found that are taken over at once.
const FOUND_AT_ONCE: usize = 256;
/// How long cards gather before they are written.
const CARDS_KEPT_AFTER: Duration = Duration::from_secs(1);
/// How often the registry is asked whether something is due.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// The constellation's own service.
pub(super) fn constellation_service(registry: &Arc<Registry>) -> RelayEntrance {
    let registry = Arc::clone(registry);
    Arc::new(move |peer, stream| Box::pin(answer(Arc::clone(&registry), peer, stream)))
}

/// Starts all that goes between the parts.
///
/// # Errors
/// [`TunnelError::Tasks`].
pub(super) async fn connect(
    starter: &TunnelStarter,
    tunnels: &Arc<Tunnels>,
    config: &Config,
    found: mpsc::Receiver<Found>,
    tasks: &TaskGroup,
) -> Result<(), TunnelError> {
    let Tunnels {
        carrier, registry, ..
    } = &**tunnels;
    tasks.spawn(keep_connected(Arc::clone(tunnels)))?;
    tasks.spawn(tell_runs(Arc::clone(registry), starter.found.clone()))?;
    tasks.spawn(tell_exposed(Arc::clone(tunnels)))?;
    tasks.spawn(tell_addresses(Arc::clone(tunnels)))?;
    tasks.spawn(take_found(Arc::clone(registry), found))?;
    tasks.spawn(renew(Arc::clone(registry)))?;
    tasks.spawn(keep_cards(Arc::clone(registry)))?;
    let random = starter.random.clone();
    tasks.spawn(gossip(Arc::clone(carrier), Arc::clone(registry), random))?;
    if let Some(options) = swarm_folder(starter, tunnels, config) {
        let clock = starter.clock.clone();
        let folder = blocking(move || {
            let mut folder = SwarmFolder::new(options, clock);
            folder.look();
            folder
        });
        let folder = folder.await;
        let (told, stations) = watch::channel(Arc::new(folder.stations()));
        // At once: a command that makes a run right away must know whom the folder names.
        let (first, registry_of_first) = (stations.borrow().clone(), Arc::clone(registry));
        starter.graph.set_card_keys(keys_in(&first));
        blocking(move || registry_of_first.set_swarm(first)).await;
        tasks.spawn(folder.follow(told))?;
        let graph = starter.graph.clone();
        tasks.spawn(take_swarm(Arc::clone(registry), graph, stations))?;
    }
    Ok(())
}

fn swarm_folder(
    starter: &TunnelStarter,
    tunnels: &Tunnels,
    config: &Config,
) -> Option<SwarmFolderOptions> {
    if !config.astroport.enabled {
        return None;
    }
    let folder = config.astroport.swarm.clone();
    let folder = folder.or_else(|| Some(config.astroport_paths()?.swarm()))?;
    Some(SwarmFolderOptions {
        folder,
        kept: starter.directory.swarm(),
        uplanet: config.astroport.uplanet.clone(),
        own: tunnels.carrier.peer_id(),
    })
}

/// The carrier stays connected with whom the registry wants, and knows where they are, and those that runs exchange with.
async fn keep_connected(tunnels: Arc<Tunnels>) {
    let Tunnels {
        carrier, registry, ..
    } = &*tunnels;
    let mut wanted = registry.wanted();
    let mut places = registry.places();
    loop {
        let now = places.borrow_and_update().clone();
        for (peer, addresses) in now.iter().filter(|(_, addresses)| !addresses.is_empty()) {
            carrier.learn(*peer, addresses, Source::Card);
        }
        carrier.keep((**wanted.borrow_and_update()).clone());
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = places.changed() => if changed.is_err() { return },
        }
    }
}

/// Whom the registry knows of, as runs take it.
pub(super) fn neighbours(registry: &Registry) -> Arc<Neighbours> {
    Arc::new(Neighbours {
        found: (**registry.found().borrow()).clone(),
        out: (**registry.out().borrow()).clone(),
    })
}

/// Runs exchange with whom the registry has found, and with nobody who is out.
async fn tell_runs(registry: Arc<Registry>, told: watch::Sender<Arc<Neighbours>>) {
    let mut found = registry.found();
    let mut out = registry.out();
    loop {
        found.mark_unchanged();
        out.mark_unchanged();
        told.send_replace(neighbours(&registry));
        tokio::select! {
            changed = found.changed() => if changed.is_err() { return },
            changed = out.changed() => if changed.is_err() { return },
        }
    }
}

/// The registry knows what is exposed, and to whom tunnels are open.
async fn tell_exposed(tunnels: Arc<Tunnels>) {
    let mut guests = tunnels.services.guests();
    loop {
        let exposed = guests.borrow_and_update().clone();
        let (registry, services) = (Arc::clone(&tunnels.registry), Arc::clone(&tunnels.services));
        blocking(move || {
            registry.set_exposed(exposed);
            registry.set_tunnelled(services.stations());
        })
        .await;
        if guests.changed().await.is_err() {
            return;
        }
    }
}

/// Our card says where we are.
async fn tell_addresses(tunnels: Arc<Tunnels>) {
    let mut states = tunnels.carrier.state();
    let mut told = None;
    loop {
        let addresses = states.borrow_and_update().addresses.clone();
        if told.as_ref() != Some(&addresses) {
            let read = addresses.iter().filter_map(|address| address.parse().ok());
            let read: Vec<Multiaddr> = read.collect();
            let registry = Arc::clone(&tunnels.registry);
            blocking(move || registry.set_addresses(read)).await;
            told = Some(addresses);
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Our node knows who offers to relay.
pub(super) async fn tell_relays(node: Arc<Node>, registry: Arc<Registry>) {
    let mut relays = registry.relays();
    loop {
        node.use_relays(relays.borrow_and_update().clone());
        if relays.changed().await.is_err() {
            return;
        }
    }
}

/// Our node looks for those of our constellation, also when we have left for another.
pub(super) async fn tell_where_to_meet(node: Arc<Node>, registry: Arc<Registry>) {
    let mut constellation = registry.constellation();
    loop {
        node.meet_under(*constellation.borrow_and_update().as_bytes());
        if constellation.changed().await.is_err() {
            return;
        }
    }
}

/// What the carrier comes across is known to the registry: all that has queued up, at once.
async fn take_found(registry: Arc<Registry>, mut found: mpsc::Receiver<Found>) {
    let mut batch = Vec::new();
    while found.recv_many(&mut batch, FOUND_AT_ONCE).await > 0 {
        let (registry, found) = (Arc::clone(&registry), std::mem::take(&mut batch));
        blocking(move || registry.found_by(found)).await;
    }
}

/// Cards are written a moment after they came: many come at once.
async fn keep_cards(registry: Arc<Registry>) {
    let mut version = registry.version();
    while version.changed().await.is_ok() {
        sleep(CARDS_KEPT_AFTER).await;
        version.mark_unchanged();
        let registry = Arc::clone(&registry);
        blocking(move || registry.save_cards()).await;
    }
}

/// What the swarm folder describes is known to the registry, and whose keys are in its cards to the graph.
async fn take_swarm(
    registry: Arc<Registry>,
    graph: GraphKeeper,
    mut stations: watch::Receiver<Arc<Vec<SwarmStation>>>,
) {
    while stations.changed().await.is_ok() {
        let now = stations.borrow_and_update().clone();
        graph.set_card_keys(keys_in(&now));
        let registry = Arc::clone(&registry);
        blocking(move || registry.set_swarm(now)).await;
    }
}

fn keys_in(stations: &[SwarmStation]) -> BTreeSet<AuthorKey> {
    let keys = stations.iter().flat_map(|station| &station.keys);
    keys.map(|key| key.to_bytes()).collect()
}

/// Our card is signed anew before it is old, and tokens expire.
async fn renew(registry: Arc<Registry>) {
    let mut tick = interval(RENEW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let registry = Arc::clone(&registry);
        blocking(move || registry.renew()).await;
    }
}
