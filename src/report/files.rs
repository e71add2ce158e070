//! A folder of small files, each replaced whole: where the spool keeps its reports and what was told.
//!
//! Takes names and bytes; gives bytes, or the system's answer. A seam: tests put memory in its place, and crash between any
//! two changes. Invariant: a change is durable when it returns, and a file is the old or the new one, never a half. Blocks.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::limits::REPORT_FILE_BYTES_MAX;
use crate::state_file;

/// Where the spool keeps its files.
pub(super) trait Files: fmt::Debug + Send {
    /// The names of all files.
    ///
    /// # Errors
    /// The system's.
    fn names(&self) -> io::Result<BTreeSet<String>>;

    /// A file's bytes; `None` if there is none.
    ///
    /// # Errors
    /// The system's, and for a file that is larger than any of ours.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a file whole.
    ///
    /// # Errors
    /// The system's; the file is then as it was.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file; that it is not there is no error.
    ///
    /// # Errors
    /// The system's.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A folder on disk, its owner's alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// This folder, made if need be.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(Self { path })
    }
}

impl Files for Folder {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&self.path)? {
            // What is no text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let read = state_file::read_up_to(&self.path.join(name), REPORT_FILE_BYTES_MAX)?;
        match read {
            Some(bytes) if bytes.len() as u64 > REPORT_FILE_BYTES_MAX => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "larger than any report",
            )),
            read => Ok(read),
        }
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        state_file::replace(&self.path.join(name), bytes)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
