//! What can be configured of services.

use serde::{Deserialize, Serialize};

use crate::peer::PeerAddress;
use crate::tunnel::ServiceName;

/// One `[[tunnel.services]]` entry: a service that is exposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedOptions {
    /// Its name.
    pub name: ServiceName,
    /// Where it listens on this machine. Absent: its known port; for `strfry` our own relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only these stations (PeerIDs) instead of all that are admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<PeerAddress>>,
}

/// One `[[tunnel.open]]` entry: a service of another station, opened on a local port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenOptions {
    /// Its name.
    pub name: ServiceName,
    /// The station.
    pub peer: PeerAddress,
    /// The local port. Absent: the native one, or one that is free, and the same ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
