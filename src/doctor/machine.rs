//! The machine: room on the disk, address space, open files. Blocks.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{CheckName, Finding, Place, Remedy};
use crate::open_files::OPEN_FILES_WANTED;

const MEGABYTE: u64 = 1_000_000;
/// Below, the store may be full within one run.
const FREE_BYTES_NEEDED: u64 = 100 * MEGABYTE;
const FREE_BYTES_WANTED: u64 = 1_000 * MEGABYTE;
/// Files of the store, its state and drafts of these.
const FREE_INODES_NEEDED: u64 = 100;
const FREE_INODES_WANTED: u64 = 1_000;
/// A twentieth, below which a disk is nearly full whatever its size.
const WANTED_SHARE: u64 = 20;
/// What the program takes besides the map: stacks of threads, heaps.
const ADDRESSES_BESIDE_MAP: u64 = 2_000 * MEGABYTE;
/// What a burst of tunnels needs at least.
const OPEN_FILES_NEEDED: u64 = 1_024;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let root = place.directory.root();
    let mut found = disk(root);
    found.push(map_size(&place.directory.events().join("data.mdb")));
    found.push(open_files());
    found
}

fn disk(root: &Path) -> Vec<Finding> {
    // Where there is no data yet, it will be made on this disk.
    let Some(place) = root.ancestors().find(|folder| folder.exists()) else {
        return Vec::new();
    };
    let room = match rustix::fs::statvfs(place) {
        Ok(room) => room,
        Err(error) => {
            let seen = format!("the disk of {} does not answer: {error}", place.display());
            let remedy = Remedy::words(format!("mount the disk of {} again", place.display()));
            return vec![CheckName::DiskSpace.problem(seen, remedy)];
        }
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let all = room.f_blocks.saturating_mul(room.f_frsize);
    let mut found = vec![judged(
        CheckName::DiskSpace,
        free / MEGABYTE,
        all / MEGABYTE,
        (FREE_BYTES_NEEDED / MEGABYTE, FREE_BYTES_WANTED / MEGABYTE),
        "MB",
        place,
    )];
    // Some file systems make them as they need them, and say zero.
    if room.f_files > 0 {
        found.push(judged(
            CheckName::DiskInodes,
            room.f_favail,
            room.f_files,
            (FREE_INODES_NEEDED, FREE_INODES_WANTED),
            "files",
            place,
        ));
    }
    found
}

fn judged(
    name: CheckName,
    free: u64,
    all: u64,
    (needed, wanted): (u64, u64),
    unit: &str,
    place: &Path,
) -> Finding {
    let seen = format!("{free} of {all} {unit} are free at {}", place.display());
    let wanted = wanted.max(all / WANTED_SHARE);
    let remedy = Remedy::words(format!(
        "make room on the disk of {}: {} {unit} more",
        place.display(),
        (wanted + 1).saturating_sub(free)
    ));
    if free < needed {
        name.problem(seen, remedy)
    } else if free < wanted {
        name.warning(seen, remedy)
    } else {
        name.ok(seen)
    }
}

/// The store is read through a map of its whole file, which doubles as it grows.
fn map_size(file: &Path) -> Finding {
    let name = CheckName::MapSize;
    let stored = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let needed = stored
        .saturating_mul(2)
        .saturating_add(ADDRESSES_BESIDE_MAP);
    let limit = getrlimit(Resource::As).current;
    let most = limit.unwrap_or(u64::MAX).min(usize::MAX as u64);
    let megabytes = |bytes: u64| bytes / MEGABYTE;
    let seen = format!(
        "the store has {} MB, and the program wants up to {} MB of addresses",
        megabytes(stored),
        megabytes(needed)
    );
    if needed <= most {
        return name.ok(seen);
    }
    let seen = format!("{seen}; it may have {} MB", megabytes(most));
    if limit.is_some() {
        name.problem(seen, Remedy::command("ulimit -v unlimited"))
    } else {
        let remedy = Remedy::words("install a 64-bit system: a 32-bit program cannot map more");
        name.problem(seen, remedy)
    }
}

fn open_files() -> Finding {
    let name = CheckName::OpenFiles;
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // For the shell that says it, and what is started there; the hard limit is root's to raise.
    let raise = Remedy::command(format!(
        "sudo prlimit --pid $$ --nofile={OPEN_FILES_WANTED}:{OPEN_FILES_WANTED}"
    ));
    let seen = format!("a station may open {} files", most.min(OPEN_FILES_WANTED));
    if most >= OPEN_FILES_WANTED {
        return name.ok(seen);
    }
    let seen = format!(
        "{seen}, and wants {OPEN_FILES_WANTED} (in a systemd unit: LimitNOFILE={OPEN_FILES_WANTED})"
    );
    if most < OPEN_FILES_NEEDED {
        name.problem(seen, raise)
    } else {
        name.warning(seen, raise)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn room_is_judged_by_bytes_and_by_share() {
        let verdict = |free, all| {
            let place = Path::new("/");
            judged(CheckName::DiskSpace, free, all, (100, 1_000), "MB", place).verdict
        };
        assert_eq!(verdict(99, 10_000), Verdict::Problem);
        assert_eq!(verdict(100, 10_000), Verdict::Warning);
        assert_eq!(verdict(1_000, 10_000), Verdict::Ok);
        assert_eq!(
            verdict(1_000, 100_000),
            Verdict::Warning,
            "one in a hundred"
        );
        assert_eq!(verdict(5_000, 100_000), Verdict::Ok);
    }
}
