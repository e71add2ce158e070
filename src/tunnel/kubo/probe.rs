//! A look at a kubo daemon: who it is, which version, whether it mounts streams. Changes nothing.

use super::KuboApi;
use super::rpc::Rpc;
use super::{KuboError, rpc};
use crate::tunnel::PeerId;

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KuboLook {
    /// Who it is.
    pub peer: PeerId,
    /// Its version; empty if it does not say.
    pub version: String,
    /// The folder where its swarm key and configuration are; empty if it does not say.
    pub repository: String,
    /// Forwards and listeners; the error is that of kubo when stream mounting is off.
    pub mounts: Result<usize, KuboError>,
}

/// Asks the daemon at `api`.
///
/// Cancel safe.
///
/// # Errors
/// [`KuboError`]: nobody answers there, or nobody who is kubo.
pub async fn look(api: KuboApi) -> Result<KuboLook, KuboError> {
    let rpc = Rpc::new(api);
    let daemon: rpc::Daemon = rpc.daemon().await?;
    let mounts = rpc.mounts().await.map(|mounts| mounts.len());
    Ok(KuboLook {
        peer: daemon.peer,
        version: rpc.version().await.unwrap_or_default(),
        repository: rpc.repository().await.unwrap_or_default(),
        mounts,
    })
}
