//! Files of the station's own state: read whole and within a bound, replaced whole.
//!
//! Takes a path and bytes; gives bytes, or the system's answer. Invariant: after a crash at any instant the file is the
//! old one or the new one, never a half. Readable by its owner alone. Deliberately absent: what is in the files, and
//! two writers of one file (the station's lock keeps them apart). Worst case: a draft `<name>.new` is left behind; the
//! next write replaces it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the whole file under another name, and gives it its name when it is on the disk.
///
/// # Errors
/// The system's; the file is then as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    // The name is durable when its folder is.
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The whole file, or `None` if there is none. Of a larger one `bytes_max + 1` bytes, by which it is known to be too
/// large.
///
/// # Errors
/// The system's.
pub(crate) fn read_up_to(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_kept_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.json");
        assert!(read_up_to(&path, 10).expect("readable").is_none());
        // What a crash left behind is in nobody's way.
        fs::write(folder.path().join("state.new"), "half a dra").expect("ours");
        for text in ["first, and longer", "second"] {
            replace(&path, text.as_bytes()).expect("written");
            let read = read_up_to(&path, 100).expect("readable");
            assert_eq!(read.as_deref(), Some(text.as_bytes()));
            assert!(!folder.path().join("state.new").exists());
        }
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let cut = read_up_to(&path, 3).expect("readable").expect("there");
        assert_eq!(cut, b"seco", "one byte more than allowed tells");
        assert!(replace(&folder.path().join("no/such/folder"), b"").is_err());
    }
}
