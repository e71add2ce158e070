//! The graph merged into a file that others write too: `amisOfAmis.txt` of an Astroport station.
//!
//! Takes the keys that are to be in it and those that we put there before; gives the new text. Lines of others stay as they
//! are, in their order; of ours, those that are no longer to be there go. Written under another name and renamed, with the
//! permissions it had. Worst case: what others write between our reading and the renaming is lost, as with any two writers
//! of one file; they write it again.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::keys::AuthorKey;
use crate::limits::GRAPH_FILE_BYTES_MAX;
use crate::protocol::hex;
use crate::state_file;

/// Of a file that we make: others read it.
const MODE_OF_NEW: u32 = 0o644;

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) text: String,
    /// What of it is ours.
    pub(super) ours: BTreeSet<AuthorKey>,
    /// Whether it differs from what is there.
    pub(super) is_new: bool,
}

/// Reads the file; nothing if it is not there.
pub(super) fn read(path: &Path) -> std::io::Result<String> {
    let bytes = state_file::read_up_to(path, GRAPH_FILE_BYTES_MAX)?.unwrap_or_default();
    if bytes.len() as u64 > GRAPH_FILE_BYTES_MAX {
        return Err(std::io::Error::other("too large for a list of keys"));
    }
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

/// Merges `keys` into `text`, in which `before` are ours.
pub(super) fn merge(
    text: &str,
    keys: &BTreeSet<AuthorKey>,
    before: &BTreeSet<AuthorKey>,
) -> Merged {
    let mut taken_back = before.clone();
    let mut merged = String::with_capacity(text.len());
    let mut others = BTreeSet::new();
    for line in text.lines() {
        let key: Option<AuthorKey> = hex::decode_array(line.trim());
        // One line for each: who else names the same author has a line of their own.
        if key.is_some_and(|key| taken_back.remove(&key)) {
            continue;
        }
        others.extend(key);
        merged.push_str(line);
        merged.push('\n');
    }
    let ours: BTreeSet<AuthorKey> = keys.difference(&others).copied().collect();
    for key in &ours {
        merged.push_str(&hex::encode(key));
        merged.push('\n');
    }
    Merged {
        is_new: merged != text,
        text: merged,
        ours,
    }
}

/// Replaces the file.
pub(super) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| std::io::Error::other("it is in no folder"))?;
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(_) => MODE_OF_NEW,
    };
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> AuthorKey {
        [number; 32]
    }

    fn keys(numbers: &[u8]) -> BTreeSet<AuthorKey> {
        numbers.iter().map(|number| key(*number)).collect()
    }

    #[test]
    fn what_others_wrote_stays_and_what_we_wrote_goes_when_it_is_no_longer_so() {
        let theirs = format!(
            "# by hand\n{}\nnonsense\n{}\n",
            hex::encode(&key(1)),
            hex::encode(&key(2))
        );
        let first = merge(&theirs, &keys(&[2, 3, 4]), &BTreeSet::new());
        assert_eq!(first.ours, keys(&[3, 4]));
        assert!(first.text.starts_with(&theirs) && first.is_new);
        assert!(!merge(&first.text, &keys(&[2, 3, 4]), &first.ours).is_new);
        // Somebody else names 4 too, and we name nobody but 5 any more.
        let added = format!("{}{}\n", first.text, hex::encode(&key(4)));
        let second = merge(&added, &keys(&[5]), &first.ours);
        assert_eq!(second.ours, keys(&[5]));
        let expected = format!(
            "{theirs}{}\n{}\n",
            hex::encode(&key(4)),
            hex::encode(&key(5))
        );
        assert_eq!(second.text, expected);
    }

    #[test]
    fn a_file_is_replaced_with_the_permissions_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("amisOfAmis.txt");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write(&path, "a\n").unwrap();
        assert_eq!(
            (read(&path).unwrap().as_str(), mode()),
            ("a\n", MODE_OF_NEW)
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        write(&path, "b\n").unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode()), ("b\n", 0o660));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
