//! What `tunnel ls` shows of services.

use serde::{Deserialize, Serialize};

use super::mouth::MouthStatus;
use crate::tunnel::ServiceName;

/// An exposed service, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedStatus {
    /// Its name.
    pub name: ServiceName,
    /// Its port; `null` for our own relay.
    pub port: Option<u16>,
    /// The stations it is for; `null`: all that are admitted.
    pub allow: Option<Vec<String>>,
    /// Whether the configuration says so, rather than a command or the default.
    pub configured: bool,
}

/// What `tunnel ls` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesStatus {
    /// What others may open.
    pub exposed: Vec<ExposedStatus>,
    /// What is open here.
    pub open: Vec<MouthStatus>,
}
