//! From the configuration to what the parts of the tunnels take.

use std::sync::Arc;

use super::TunnelError;
use crate::config::{Config, Kademlia};
use crate::discovery::{RegistrySettings, station_named};
use crate::peer::{Multiaddr, PeerAddress, PeerId, Target};
use crate::services::Services;
use crate::tunnel::{Identity, KademliaMode, SwarmKey};

/// A swarm key is 95 bytes.
const SWARM_KEY_BYTES_MAX: u64 = 4 << 10;

/// The swarm key, if one is configured.
pub(super) async fn swarm_key(config: &Config) -> Result<Option<SwarmKey>, TunnelError> {
    let Some(path) = config.tunnel.swarm_key.clone() else {
        return Ok(None);
    };
    let shown = path.display().to_string();
    let read = super::blocking(move || {
        if std::fs::metadata(&path)?.len() > SWARM_KEY_BYTES_MAX {
            return Err(std::io::Error::other("too large for a swarm key"));
        }
        std::fs::read_to_string(&path)
    });
    let text = read.await.map_err(|source| TunnelError::SwarmKeyFile {
        path: shown.clone(),
        source,
    })?;
    SwarmKey::from_text(&text)
        .map(Some)
        .map_err(|source| TunnelError::SwarmKey {
            path: shown,
            source,
        })
}

/// The identity that is configured, or the station's own.
pub(super) fn identity(config: &Config, own: &Identity) -> Result<Identity, TunnelError> {
    match &config.tunnel.identity {
        None => Ok(own.clone()),
        Some(path) => Ok(Identity::load_foreign(path)?),
    }
}

/// What the registry is told.
pub(super) fn registry_settings(config: &Config) -> Result<RegistrySettings, TunnelError> {
    let allowed = stations("allow", &config.tunnel.allow)?;
    Ok(RegistrySettings {
        name: config.station.name.clone(),
        allowed: allowed.into_iter().collect(),
        peers: config
            .peers
            .iter()
            .map(|peer| peer.address.clone())
            .collect(),
        swarm_key_admits: config.tunnel.swarm_key_admits,
        admit_swarm: config.astroport.admit_swarm,
    })
}

fn stations(key: &'static str, texts: &[String]) -> Result<Vec<PeerId>, TunnelError> {
    let read = |text: &String| {
        station_named(text).ok_or_else(|| TunnelError::NotAStation {
            key,
            text: text.clone(),
        })
    };
    texts.iter().map(read).collect()
}

/// Stations to be relayed by, as they are dialled.
pub(super) fn relays(config: &Config) -> Result<Vec<Multiaddr>, TunnelError> {
    let dialled = |address: &PeerAddress| match address.target() {
        Target::Station(station) => station.hint.clone(),
        Target::Relay(_) => None,
    };
    let read = |address: &PeerAddress| {
        dialled(address).ok_or_else(|| TunnelError::NotAStation {
            key: "relays",
            text: address.written(),
        })
    };
    config.tunnel.relays.iter().map(read).collect()
}

/// Where stations are looked for.
pub(super) fn kademlia(config: &Config) -> KademliaMode {
    match config.tunnel.kademlia {
        Kademlia::Off => KademliaMode::Off,
        Kademlia::Constellation => KademliaMode::Constellation,
        Kademlia::Ipfs => KademliaMode::Ipfs,
    }
}

/// Exposes and opens what is configured; what cannot be is logged and shows in `tunnel ls` by its absence.
pub(super) async fn take_services(services: &Arc<Services>, config: &Config) {
    let (services, tunnel) = (Arc::clone(services), config.tunnel.clone());
    // Mouths need the runtime to listen, files the disk: both are quick, and this is done once.
    let handle = tokio::runtime::Handle::current();
    super::blocking(move || {
        let _runtime = handle.enter();
        for error in services.configure(&tunnel.services, &tunnel.open, &tunnel.private) {
            tracing::error!(%error, "a service of the configuration is left out");
        }
    })
    .await;
}
