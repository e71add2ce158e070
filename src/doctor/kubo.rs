//! The kubo daemon: whether one answers, mounts streams, and is in our swarm.

use std::path::Path;

use super::remedy::{quoted, quoted_path};
use super::{CheckName, Finding, Remedy, Scene, swarm_key};
use crate::config::KuboUse;
use crate::tunnel::{KuboApi, KuboError, KuboLook, look_at_kubo};

pub(super) async fn check(scene: &Scene<'_>) -> Finding {
    let name = CheckName::Kubo;
    let options = &scene.config.kubo;
    if options.used == KuboUse::Never || !scene.config.tunnel.enabled {
        return name.ok("not used");
    }
    let api: KuboApi = match options.api.parse() {
        Ok(api) => api,
        Err(error) => {
            let usual = KuboApi::default().to_string();
            let remedy = scene.setting("kubo", "api", super::remedy::toml_text(&usual));
            return name.problem(KuboError::to_string(&error), remedy);
        }
    };
    match look_at_kubo(api).await {
        Ok(look) => of_daemon(scene, &look),
        Err(error @ KuboError::Unreachable { .. }) => {
            let has_carried = scene.around.directory.carried_by_kubo().exists();
            match options.used {
                KuboUse::Auto if !has_carried => name.ok(format!(
                    "none answers at {}: the station carries its tunnels itself",
                    options.api
                )),
                _ => name.problem(error.to_string(), Remedy::command("ipfs daemon")),
            }
        }
        Err(error) => name.problem(error.to_string(), scene.setting("kubo", "use", "\"never\"")),
    }
}

fn of_daemon(scene: &Scene<'_>, look: &KuboLook) -> Finding {
    let name = CheckName::Kubo;
    let who = format!("kubo {} ({})", look.version, look.peer);
    let mounts = match &look.mounts {
        Ok(mounts) => mounts,
        Err(KuboError::MountingDisabled) => {
            let line = "ipfs config --json Experimental.Libp2pStreamMounting true && ipfs shutdown; ipfs daemon";
            let seen = format!("{who}: stream mounting is off, so it carries no tunnels");
            return name.problem(seen, Remedy::command(line));
        }
        Err(error) => {
            let remedy = Remedy::command("ipfs shutdown; ipfs daemon");
            return name.problem(format!("{who}: {error}"), remedy);
        }
    };
    if let Some(finding) = other_swarm(scene, look, &who) {
        return finding;
    }
    name.ok(format!(
        "{who} carries tunnels, {mounts} forwards and listeners"
    ))
}

/// kubo's swarm key counts where kubo carries: ours must be the same, or the station takes itself for what it is not.
fn other_swarm(scene: &Scene<'_>, look: &KuboLook, who: &str) -> Option<Finding> {
    let name = CheckName::Kubo;
    if look.repository.is_empty() {
        return None;
    }
    let theirs = Path::new(&look.repository).join("swarm.key");
    let kept = theirs.exists();
    match (&scene.config.tunnel.swarm_key, kept) {
        (None, false) => None,
        (None, true) => {
            let value = super::remedy::toml_text(&theirs.to_string_lossy());
            let seen = format!("{who} is in a private swarm, and no swarm_key is configured");
            Some(name.problem(seen, scene.setting("tunnel", "swarm_key", value)))
        }
        (Some(ours), _) => {
            // A key of ours that is wrong is another check's.
            let ours_read = swarm_key::read(ours).ok()?;
            if swarm_key::read(&theirs).is_ok_and(|theirs| theirs == ours_read) {
                return None;
            }
            let seen = format!("{who} has another swarm key than {}", ours.display());
            let line = format!(
                "cp {} {} && ipfs shutdown; ipfs daemon",
                quoted_path(ours),
                quoted(theirs.to_string_lossy())
            );
            Some(name.problem(seen, Remedy::command(line)))
        }
    }
}
