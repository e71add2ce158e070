//! The locks of the network's scripts: files with the number of the process that holds them.
//!
//! Takes both, for as long as a run of ours lasts: whoever finds our living number there keeps out, so the old hourly job
//! needs no change. A file whose process is gone is stale and removed, as the scripts do. Invariant: no lock is taken that
//! a living process holds, and none is removed on release that is not ours (any more). What is released on a signal too is
//! whatever is dropped; a kill -9 leaves files that are stale from then on. Deliberately absent: waiting for a lock.
//! Worst case: a script that looked before we wrote and writes after; then both work, and events are stored twice by
//! neither.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::paths::AstroportPaths;
use crate::state_file;

/// Of a file that holds a number.
const LOCK_BYTES_MAX: u64 = 64;
/// How often a lock is looked at anew that changes hands meanwhile.
const TRIES_MAX: usize = 3;

/// What came of taking the locks.
#[derive(Debug)]
pub enum Taken {
    /// They are ours. `stale`: processes that are gone, whose files were removed.
    Ours {
        /// Lets go when dropped.
        locks: LocksHeld,
        /// Numbers of processes that are gone.
        stale: Vec<String>,
    },
    /// Somebody else works.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose number it holds.
        process: u32,
    },
}

/// Locks that are held; dropping it lets go of those that are ours still.
#[derive(Debug)]
pub struct LocksHeld {
    own: u32,
    paths: Vec<PathBuf>,
}

impl Drop for LocksHeld {
    fn drop(&mut self) {
        for path in &self.paths {
            if read(path).and_then(|text| number(&text)) == Some(self.own)
                && let Err(error) = fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a lock; it is stale when this process has ended");
            }
        }
    }
}

/// A place for locks that are taken on one thread and let go of on another. Whoever drops it lets go, and waits for a taking that
/// is under way: nothing is left behind by a process that ends in that moment.
#[derive(Debug, Default)]
pub(super) struct LockPlace(Arc<Mutex<Place>>);

#[derive(Debug, Default)]
struct Place {
    is_left: bool,
    locks: Option<LocksHeld>,
}

/// Puts locks into a place.
#[derive(Debug)]
pub(super) struct LockTaker(Arc<Mutex<Place>>);

impl LockPlace {
    pub(super) fn taker(&self) -> LockTaker {
        LockTaker(Arc::clone(&self.0))
    }
}

impl LockTaker {
    /// As [`take_locks`], for the place; gives numbers of processes that are gone. Blocks.
    pub(super) fn take(self, paths: &AstroportPaths, own: u32) -> Result<Vec<String>, Refused> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_left {
            return Err(Refused::Left);
        }
        match take_locks(paths, own) {
            Taken::Ours { locks, stale } => {
                place.locks = Some(locks);
                Ok(stale)
            }
            Taken::Foreign { path, process } => Err(Refused::Foreign { path, process }),
        }
    }
}

/// Why a place has no locks.
#[derive(Debug)]
pub(super) enum Refused {
    /// Nobody wants them any more.
    Left,
    /// Somebody else works.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose number it holds.
        process: u32,
    },
}

impl Drop for LockPlace {
    fn drop(&mut self) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.is_left = true;
        place.locks = None;
    }
}

/// Takes both locks in the name of process `own`. Blocks. A folder that is missing, or a disk that is full, is nobody's
/// lock: the run goes on without, and it is logged.
pub fn take_locks(paths: &AstroportPaths, own: u32) -> Taken {
    let mut locks = LocksHeld {
        own,
        paths: Vec::new(),
    };
    let mut stale = Vec::new();
    for path in [paths.sync_lock(), paths.backfill_lock()] {
        match take(&path, own, &mut stale) {
            Ok(None) => locks.paths.push(path),
            Ok(Some(process)) => return Taken::Foreign { path, process },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a run without this lock: the network's own job may work at the same time");
            }
        }
    }
    Taken::Ours { locks, stale }
}

/// Takes one lock; gives the process that holds it, if it is another one.
fn take(path: &Path, own: u32, stale: &mut Vec<String>) -> io::Result<Option<u32>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(draft, "{own}")?;
    for _ in 0..TRIES_MAX {
        // With its number from the first moment on: a script that finds an empty file takes it for a stale one.
        match fs::hard_link(draft.path(), path) {
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let Some(text) = read(path) else { continue };
        match number(&text) {
            // From a run of this process that was cut off.
            Some(process) if process == own => return Ok(None),
            Some(process) if is_alive(process) => return Ok(Some(process)),
            _ => {
                remove_stale(path, &text)?;
                stale.push(text.trim().to_owned());
            }
        }
    }
    // It changes hands faster than we look: somebody works.
    Ok(Some(read(path).and_then(|text| number(&text)).unwrap_or(0)))
}

/// Removes what was found stale, and nothing that took its place.
fn remove_stale(path: &Path, found: &str) -> io::Result<()> {
    if read(path).as_deref() != Some(found) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Option<String> {
    let bytes = state_file::read_up_to(path, LOCK_BYTES_MAX).ok()??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|process| *process > 0)
}

/// As the scripts find out.
fn is_alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has a number beyond the kernel's largest.
    const GONE: u32 = 4_194_305;

    fn station() -> (tempfile::TempDir, AstroportPaths) {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        fs::create_dir_all(paths.relay_folder()).expect("ours");
        (home, paths)
    }

    #[test]
    fn both_locks_hold_our_number_and_are_gone_when_we_let_go() {
        let (_home, paths) = station();
        let own = std::process::id();
        let taken = take_locks(&paths, own);
        let Taken::Ours { locks, stale } = taken else {
            panic!("{taken:?}")
        };
        assert!(stale.is_empty());
        for path in [paths.sync_lock(), paths.backfill_lock()] {
            assert_eq!(fs::read_to_string(path).expect("held"), format!("{own}\n"));
        }
        drop(locks);
        let left: Vec<_> = fs::read_dir(paths.relay_folder()).expect("ours").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_living_process_keeps_us_out_and_a_dead_one_does_not() {
        let (_home, paths) = station();
        // The first process lives as long as the machine runs.
        for lock in [paths.sync_lock(), paths.backfill_lock()] {
            fs::write(&lock, "1\n").expect("ours");
            let taken = take_locks(&paths, std::process::id());
            assert!(
                matches!(&taken, Taken::Foreign { path, process: 1 } if *path == lock),
                "{taken:?}"
            );
            assert_eq!(fs::read_to_string(&lock).expect("theirs"), "1\n");
            let others: Vec<_> = fs::read_dir(paths.relay_folder()).expect("ours").collect();
            assert_eq!(
                others.len(),
                1,
                "what we had taken before is free again: {others:?}"
            );
            for dead in [GONE.to_string(), String::new(), "nonsense".to_owned()] {
                fs::write(&lock, &dead).expect("ours");
                let Taken::Ours { stale, .. } = take_locks(&paths, std::process::id()) else {
                    panic!("{dead:?} keeps us out")
                };
                assert_eq!(stale, [dead]);
                assert!(!lock.exists());
            }
        }
    }

    #[test]
    fn what_somebody_else_wrote_over_ours_stays() {
        let (_home, paths) = station();
        let Taken::Ours { locks, .. } = take_locks(&paths, std::process::id()) else {
            panic!("free")
        };
        fs::write(paths.backfill_lock(), "1\n").expect("ours");
        drop(locks);
        assert!(!paths.sync_lock().exists());
        assert_eq!(
            fs::read_to_string(paths.backfill_lock()).expect("theirs"),
            "1\n"
        );
    }

    #[test]
    fn who_leaves_a_place_leaves_no_lock_whenever_that_is() {
        let (_home, paths) = station();
        let own = std::process::id();
        let (early, late) = (LockPlace::default(), LockPlace::default());
        let taker = early.taker();
        drop(early);
        assert!(matches!(taker.take(&paths, own), Err(Refused::Left)));
        assert!(!paths.sync_lock().exists());
        late.taker().take(&paths, own).expect("free");
        assert!(paths.sync_lock().exists());
        drop(late);
        assert!(!paths.sync_lock().exists() && !paths.backfill_lock().exists());
    }

    #[test]
    fn a_missing_folder_is_nobodys_lock() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let taken = take_locks(&AstroportPaths::below(home.path()), std::process::id());
        assert!(matches!(taken, Taken::Ours { .. }), "{taken:?}");
    }
}
