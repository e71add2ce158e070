//! The data directory and the keys in it: there, ours, and open to nobody else. Blocks.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::remedy::quoted_path;
use super::{CheckName, Finding, Place, Remedy};
use crate::tunnel::Identity;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let root = place.directory.root();
    let mut found = vec![directory(root)];
    if root.is_dir() {
        found.extend(keys(place));
    }
    found
}

fn directory(root: &Path) -> Finding {
    let name = CheckName::DataDirectory;
    let path = quoted_path(root);
    let metadata = match std::fs::metadata(root) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return name.warning(
                format!(
                    "{} is not there yet; the first start makes it",
                    root.display()
                ),
                Remedy::command(format!("mkdir -p -m 700 {path}")),
            );
        }
        Err(error) => {
            return name.problem(
                format!("cannot look at {}: {error}", root.display()),
                Remedy::command(format!("sudo chown -R \"$(id -un)\" {path}")),
            );
        }
    };
    if !metadata.is_dir() {
        return name.problem(
            format!("{} is not a folder", root.display()),
            Remedy::command(format!("mv {path} {path}.moved && mkdir -m 700 {path}")),
        );
    }
    if let Some(other) = somebody_elses(root, &metadata) {
        let sudo = if is_root() { "" } else { "sudo " };
        return name.problem(
            format!("{other} belongs to another user than the one who asks"),
            Remedy::command(format!("{sudo}chown -R \"$(id -un)\" {path}")),
        );
    }
    let mode = metadata.permissions().mode() & 0o777;
    let close = Remedy::command(format!("chmod 700 {path}"));
    if mode & 0o700 != 0o700 || mode & 0o022 != 0 {
        let seen = format!("{} has mode {mode:o}: others may write", root.display());
        let closed = format!("{} has mode {mode:o}: we may not write", root.display());
        return name.problem(if mode & 0o022 != 0 { seen } else { closed }, close);
    }
    if mode & 0o055 != 0 {
        let seen = format!(
            "{} has mode {mode:o}: others may look into it",
            root.display()
        );
        return name.warning(seen, close);
    }
    name.ok(format!("{}, ours alone", root.display()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What does not belong to us, of the directory and what stands in it and in its two folders: a command that was once
/// given by root leaves such files.
fn somebody_elses(root: &Path, metadata: &Metadata) -> Option<String> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Some(root.display().to_string());
    }
    let folders = [root.to_owned(), root.join("events"), root.join("state")];
    let within = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    within
        .flatten()
        .filter_map(Result::ok)
        .find(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() != us))
        .map(|entry| entry.path().display().to_string())
}

fn keys(place: &Place) -> Vec<Finding> {
    let identity = place.directory.identity();
    let nostr = place.directory.nostr_key();
    let there: Vec<&Path> = [identity.as_path(), nostr.as_path()]
        .into_iter()
        .filter(|path| path.exists())
        .collect();
    for path in &there {
        if let Some(finding) = exposed(path) {
            return vec![finding];
        }
    }
    if identity.exists()
        && let Err(error) = Identity::load_foreign(&identity)
    {
        let path = quoted_path(&identity);
        return vec![CheckName::Keys.problem(
            format!("{error}. (Without a backup: moved away, this becomes another station)"),
            Remedy::command(format!("mv {path} {path}.broken")),
        )];
    }
    let names: Vec<String> = there
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let seen = if names.is_empty() {
        "none yet; the first start makes them".to_owned()
    } else {
        format!("{}: readable by us alone", names.join(", "))
    };
    vec![CheckName::Keys.ok(seen)]
}

/// Why others may read it, if they may.
pub(super) fn exposed(path: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        CheckName::Keys.problem(
            format!("{} can be read by others (mode {mode:o})", path.display()),
            Remedy::command(format!("chmod 600 {}", quoted_path(path))),
        )
    })
}
