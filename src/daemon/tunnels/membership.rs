//! Which constellation this station belongs to (D16): configured, founded or joined, and whether that has changed.

use std::path::Path;

use crate::config::Config;
use crate::random::Random;
use crate::trust::{ConstellationId, Membership, Origin, Resolution, StateError, resolve};
use crate::tunnel::SwarmKey;

/// What holds.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) membership: Membership,
    /// Why nothing may be shared.
    pub(super) halted: Option<String>,
}

/// What the configuration says: the swarm key, unless it is the one that everybody has, else the name.
pub(super) fn configured(config: &Config, swarm_key: Option<&SwarmKey>) -> Option<Membership> {
    if let Some(key) = swarm_key.filter(|key| !key.is_public()) {
        let id = ConstellationId::of_swarm_key(&key.fingerprint());
        return Some(Membership::new(id, Origin::SwarmKey));
    }
    let name = config.station.constellation.as_ref()?;
    Some(Membership::new(
        ConstellationId::of_name(name),
        Origin::Name,
    ))
}

/// Compares with what was in force, and keeps what is new. Blocks.
///
/// # Errors
/// [`StateError`].
pub(super) fn in_force(
    path: &Path,
    configured: Option<Membership>,
    random: &Random,
) -> Result<InForce, StateError> {
    let stored = Membership::load(path)?;
    match resolve(configured, stored, random) {
        Resolution::InForce(membership) => {
            if stored != Some(membership) {
                membership.save(path)?;
            }
            Ok(InForce {
                membership,
                halted: None,
            })
        }
        Resolution::Changed { was, now } => Ok(InForce {
            membership: was,
            halted: Some(format!(
                "the constellation has changed: the events stored here are of {}, the configuration now names {}. Nothing \
                 is shared until you confirm that they may be: constellation init --accept-constellation",
                was.id, now.id
            )),
        }),
    }
}

/// As [`in_force`], but where nothing was ever named nothing is founded: that is for whoever meets others. Blocks.
///
/// # Errors
/// [`StateError`].
pub(super) fn why_halted(
    path: &Path,
    configured: Option<Membership>,
    random: &Random,
) -> Result<Option<String>, StateError> {
    if configured.is_none() && Membership::load(path)?.is_none() {
        return Ok(None);
    }
    Ok(in_force(path, configured, random)?.halted)
}

/// Keeps what the configuration says as what holds: the captain's confirmation. Gives the constellation. Blocks.
///
/// # Errors
/// [`StateError`].
pub(super) fn accept(
    path: &Path,
    config: &Config,
    swarm_key: Option<&SwarmKey>,
    random: &Random,
) -> Result<ConstellationId, StateError> {
    let stored = Membership::load(path)?;
    let membership = match resolve(configured(config, swarm_key), stored, random) {
        Resolution::InForce(membership)
        | Resolution::Changed {
            now: membership, ..
        } => membership,
    };
    membership.save(path)?;
    Ok(membership.id)
}
