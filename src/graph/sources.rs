//! Members, friends and blacklists from files and cards, over the hours in which these are not there.
//!
//! Takes patterns of paths and the keys of cards; gives the roots of the graph. A file is read again when it changed; lines
//! that are no key are passed over, with one warning for each change. The keys of one that is gone stay for 48 hours, over
//! restarts too; those of one that the configuration names no more go at once. Blocks. Bounded: files, their bytes, keys in
//! all; what is left out is counted. Worst case: all folders that a pattern with `**` leads through are walked at each look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::kept::{Kept, KeptFile, KeptKeys, KeyList, Role};
use super::keys::{AuthorKey, author_key};
use super::options::{FilePattern, GraphOptions};
use super::ranked::Why;
use super::ranking::Roots;
use crate::limits::{
    GRAPH_FILE_BYTES_MAX, GRAPH_FILE_KEYS_MAX, GRAPH_FILES_MAX, GRAPH_FILES_OUTLIVE,
};
use crate::state_file;

/// By which it is known that a file has not changed.
type Stamp = (u64, Option<SystemTime>);

#[derive(Debug)]
struct KnownFile {
    /// `None`: not read in this process.
    stamp: Option<Stamp>,
    kept: KeptKeys,
}

/// What is known of files and cards.
#[derive(Debug)]
pub(super) struct Sources {
    path: PathBuf,
    files: BTreeMap<(Role, PathBuf), KnownFile>,
    cards: KeptKeys,
    /// What of the merged file is ours: it brings nobody in.
    merged: KeyList,
    /// As it was written last.
    written: Kept,
    /// Files that could not be read: a warning for each, not for each look.
    warned: BTreeSet<PathBuf>,
    unread: usize,
}

impl Sources {
    /// Begins with what was last known; `path` is where it is kept.
    pub(super) fn new(path: PathBuf) -> Self {
        let kept = Kept::read(&path);
        let files = kept.files.iter().map(|file| {
            let known = KnownFile {
                stamp: None,
                kept: file.kept.clone(),
            };
            ((file.role, file.path.clone()), known)
        });
        Self {
            path,
            files: files.collect(),
            cards: kept.cards.clone(),
            merged: kept.merged.clone(),
            written: kept,
            warned: BTreeSet::new(),
            unread: 0,
        }
    }

    /// Looks at the files, at `now` in Unix seconds. `cards` are the keys of all cards, if these are known by now.
    pub(super) fn look(
        &mut self,
        options: &GraphOptions,
        cards: Option<&BTreeSet<AuthorKey>>,
        now: u64,
    ) {
        let found = found(options);
        self.unread = found.len().saturating_sub(GRAPH_FILES_MAX);
        let mut room = GRAPH_FILE_KEYS_MAX;
        for (role, path) in found.into_iter().take(GRAPH_FILES_MAX) {
            room -= self.look_at(role, path, now, room);
        }
        let is_young =
            |kept: &KeptKeys| now.saturating_sub(kept.seen_at) <= GRAPH_FILES_OUTLIVE.as_secs();
        self.files.retain(|(role, path), known| {
            let mut patterns = patterns(options, *role).iter();
            is_young(&known.kept) && patterns.any(|named| named.pattern().matches_path(path))
        });
        if let Some(cards) = cards {
            self.cards = KeptKeys {
                seen_at: now,
                keys: KeyList(cards.clone()),
            };
        } else if !is_young(&self.cards) {
            self.cards = KeptKeys::default();
        }
    }

    /// Looks at one file; gives how many keys it has.
    fn look_at(&mut self, role: Role, path: PathBuf, now: u64, room: usize) -> usize {
        let stamp = std::fs::metadata(&path)
            .map(|metadata| (metadata.len(), metadata.modified().ok()))
            .ok();
        let place = (role, path);
        if let Some(known) = self.files.get_mut(&place)
            && known.stamp.is_some()
            && known.stamp == stamp
            && known.kept.keys.0.len() <= room
        {
            known.kept.seen_at = now;
            return known.kept.keys.0.len();
        }
        let keys = match read_keys(&place.1) {
            Ok(Some(keys)) => {
                self.warned.remove(&place.1);
                keys
            }
            // Gone again, or not ours to read: what was known of it stays for its time.
            Ok(None) => return 0,
            Err(error) => {
                if self.warned.insert(place.1.clone()) {
                    tracing::warn!(path = %place.1.display(), %error, "a file with keys is left out");
                }
                return 0;
            }
        };
        let beyond = keys.len().saturating_sub(room);
        self.unread += beyond;
        let keys: BTreeSet<AuthorKey> = keys.into_iter().take(room).collect();
        let count = keys.len();
        let known = KnownFile {
            // One that was cut is read again when there may be room.
            stamp: stamp.filter(|_| beyond == 0),
            kept: KeptKeys {
                seen_at: now,
                keys: KeyList(keys),
            },
        };
        self.files.insert(place, known);
        count
    }

    /// The roots of the graph by what was seen last.
    pub(super) fn roots(&self, options: &GraphOptions) -> Roots {
        let mut roots = Roots {
            unread: self.unread,
            ..Roots::default()
        };
        for key in &options.members {
            roots.members.entry(*key).or_default().add(Why::Configured);
        }
        if options.cards {
            for key in &self.cards.keys.0 {
                roots.members.entry(*key).or_default().add(Why::Card);
            }
        }
        for ((role, path), known) in &self.files {
            let keys = &known.kept.keys.0;
            match role {
                Role::Members => {
                    for key in keys {
                        roots.members.entry(*key).or_default().add(Why::File);
                    }
                }
                Role::Friends if options.merge_into.as_ref() == Some(path) => {
                    roots.friends.extend(keys.difference(&self.merged.0));
                }
                Role::Friends => roots.friends.extend(keys),
                Role::Blacklist => roots.blacklist.extend(keys),
            }
        }
        roots
    }

    /// What of the merged file is ours.
    pub(super) fn merged(&self) -> &BTreeSet<AuthorKey> {
        &self.merged.0
    }

    /// Remembers what of the merged file is ours. Kept before it is written there: else it would count as others'.
    pub(super) fn set_merged(&mut self, keys: BTreeSet<AuthorKey>) -> std::io::Result<()> {
        self.merged = KeyList(keys);
        self.try_keep()
    }

    /// Writes down what is to outlive its file, if that has changed.
    pub(super) fn keep(&mut self) {
        if let Err(error) = self.try_keep() {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep the last known keys of files and cards");
        }
    }

    fn try_keep(&mut self) -> std::io::Result<()> {
        let kept = Kept {
            files: self
                .files
                .iter()
                .map(|((role, path), known)| KeptFile {
                    role: *role,
                    path: path.clone(),
                    kept: known.kept.clone(),
                })
                .collect(),
            cards: self.cards.clone(),
            merged: self.merged.clone(),
        };
        if to_the_hour(&kept) == to_the_hour(&self.written) {
            return Ok(());
        }
        kept.write(&self.path)?;
        self.written = kept;
        Ok(())
    }
}

/// With times cut to the hour: that a file is still there is no change.
fn to_the_hour(kept: &Kept) -> Kept {
    let mut timeless = kept.clone();
    for file in &mut timeless.files {
        file.kept.seen_at /= 3600;
    }
    timeless.cards.seen_at /= 3600;
    timeless
}

fn patterns(options: &GraphOptions, role: Role) -> &[FilePattern] {
    match role {
        Role::Members => &options.member_files,
        Role::Friends => &options.friend_files,
        Role::Blacklist => &options.blacklist_files,
    }
}

/// The files that are there: as many as are taken, and one more that tells of others.
fn found(options: &GraphOptions) -> BTreeSet<(Role, PathBuf)> {
    let mut found = BTreeSet::new();
    for role in [Role::Members, Role::Friends, Role::Blacklist] {
        for named in patterns(options, role) {
            let Ok(paths) = glob::glob(named.pattern().as_str()) else {
                continue; // it was read as a pattern when the configuration was
            };
            for path in paths.flatten() {
                if found.len() > GRAPH_FILES_MAX {
                    return found;
                }
                if path.is_file() {
                    found.insert((role, path));
                }
            }
        }
    }
    found
}

/// The keys of a file, one a line; `None` if it is not there.
fn read_keys(path: &Path) -> std::io::Result<Option<BTreeSet<AuthorKey>>> {
    let Some(bytes) = state_file::read_up_to(path, GRAPH_FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    if bytes.len() as u64 > GRAPH_FILE_BYTES_MAX {
        return Err(std::io::Error::other("too large for a list of keys"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut keys = BTreeSet::new();
    let mut wrong = 0;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match author_key(line) {
            Ok(key) => {
                keys.insert(key);
            }
            Err(_) => wrong += 1,
        }
    }
    if wrong > 0 {
        tracing::warn!(path = %path.display(), lines = wrong, "lines that are no public key are passed over");
    }
    Ok(Some(keys))
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
