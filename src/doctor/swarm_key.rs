//! The key of the private swarm: readable, well-formed, private.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::remedy::{quoted_path, toml_text};
use super::{CheckName, Finding, Remedy, Scene};
use crate::tunnel::SwarmKey;

pub(super) fn check(scene: &Scene<'_>) -> Finding {
    let name = CheckName::SwarmKey;
    let Some(path) = &scene.config.tunnel.swarm_key else {
        return name.ok("none: the swarm is open, and who may enter is admitted one by one");
    };
    let key = match read(path) {
        Ok(key) => key,
        Err(why) => return name.problem(why, another(scene, path)),
    };
    if key.is_public() {
        let seen = format!("{} is the public key of zeros", path.display());
        if scene.config.tunnel.swarm_key_admits {
            return name.problem(
                format!("{seen}: it admits nobody, whatever swarm_key_admits says"),
                scene.setting("tunnel", "swarm_key_admits", false),
            );
        }
        return name.ok(format!("{seen}: it keeps nobody out"));
    }
    let mode = std::fs::metadata(path).map_or(0, |data| data.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let seen = format!("{} can be read by others (mode {mode:o})", path.display());
        return name.warning(
            seen,
            Remedy::command(format!("chmod 600 {}", quoted_path(path))),
        );
    }
    name.ok(format!("{} is well-formed", path.display()))
}

/// The key in a file.
///
/// # Errors
/// In words.
pub(super) fn read(path: &Path) -> Result<SwarmKey, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    SwarmKey::from_text(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// That of kubo, where there is a good one; else a new one, which makes a swarm of its own.
fn another(scene: &Scene<'_>, wrong: &Path) -> Remedy {
    let of_kubo = scene
        .around
        .home
        .as_ref()
        .map(|home| home.join(".ipfs/swarm.key"));
    if let Some(other) = of_kubo
        && other != wrong
        && read(&other).is_ok()
    {
        let value = toml_text(&other.to_string_lossy());
        return scene.setting("tunnel", "swarm_key", value);
    }
    Remedy::words(format!(
        "copy swarm.key from a station of your constellation to {0}, or make a swarm of your own: \
         (umask 077; printf '/key/swarm/psk/1.0.0/\\n/base16/\\n%s\\n' \"$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n')\" > {1})",
        wrong.display(),
        quoted_path(wrong)
    ))
}
