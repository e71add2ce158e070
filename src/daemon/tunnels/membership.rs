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
            halted: Some(what_changed(&was, &now)),
        }),
    }
}

/// What came of comparing.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Compared {
    /// The one that is kept; `None`: nothing was ever named, or it cannot be told.
    pub(in crate::daemon) membership: Option<Membership>,
    /// Why nothing may be shared.
    pub(in crate::daemon) halted: Option<String>,
}

/// As [`in_force`], but where nothing was ever named nothing is founded: that is for whoever meets others. Blocks.
///
/// # Errors
/// [`StateError`].
pub(super) fn compare(
    path: &Path,
    configured: Option<Membership>,
    random: &Random,
) -> Result<Compared, StateError> {
    if configured.is_none() && Membership::load(path)?.is_none() {
        return Ok(Compared::default());
    }
    let InForce { membership, halted } = in_force(path, configured, random)?;
    Ok(Compared {
        membership: Some(membership),
        halted,
    })
}

/// What has changed, and what the captain can do about it.
fn what_changed(was: &Membership, now: &Membership) -> String {
    let confirm = "constellation init --accept-constellation";
    // Only what a configuration named can be taken out of it: the identity that would hold then is not chosen yet.
    if now.origin == Origin::Founded {
        let (what, key) = match was.origin {
            Origin::SwarmKey => ("swarm key", "[tunnel] swarm_key"),
            Origin::Name | Origin::Founded | Origin::Joined => ("name", "[station] constellation"),
        };
        return format!(
            "the constellation has changed: the events stored here are of {}, whose {what} was removed from the \
             configuration ({key}). Nothing is shared until you put it back, or confirm that this station begins a \
             constellation of its own with them: {confirm}",
            was.id
        );
    }
    format!(
        "the constellation has changed: the events stored here are of {}, the configuration now names {}. Nothing is \
         shared until you confirm that they may be: {confirm}",
        was.id, now.id
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Membership {
        Membership::new(ConstellationId::of_name(name), Origin::Name)
    }

    #[test]
    fn a_name_that_was_removed_is_said_to_be_removed_and_no_other_is_made_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("constellation.json");
        let random = Random::seeded(1);
        let halted = |configured| {
            let in_force = in_force(&path, configured, &random).expect("readable");
            in_force.halted
        };
        let was = named("ours");
        assert_eq!(halted(Some(was)), None);
        let removed = halted(None).expect("it is another one");
        assert!(removed.contains("name was removed"), "{removed}");
        let ids = removed.split(|c: char| !c.is_ascii_hexdigit());
        let ids: Vec<&str> = ids.filter(|word| word.len() == 64).collect();
        assert_eq!(ids, [was.id.to_string()], "{removed}");
        let renamed = halted(Some(named("theirs"))).expect("it is another one");
        let theirs = named("theirs").id.to_string();
        assert!(renamed.contains(&theirs), "{renamed}");
    }
}
