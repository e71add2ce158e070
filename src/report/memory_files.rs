//! Files in memory for tests: they outlive who wrote them, and can fail before any change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use super::files::Files;

/// What is on the disk, and how many more changes it bears.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryFiles {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// After so many changes we die; `None`: never.
    dies_after: Arc<Mutex<Option<usize>>>,
}

impl MemoryFiles {
    /// We die before the change after these.
    pub(super) fn die_after(&self, changes: Option<usize>) {
        *self.dies_after.lock().expect("one thread") = changes;
    }

    /// How many more changes it bears.
    pub(super) fn bears(&self) -> Option<usize> {
        *self.dies_after.lock().expect("one thread")
    }

    /// Whether we are dead.
    pub(super) fn is_dead(&self) -> bool {
        *self.dies_after.lock().expect("one thread") == Some(0)
    }

    fn change(&self) -> io::Result<()> {
        let mut left = self.dies_after.lock().expect("one thread");
        match &mut *left {
            Some(0) => Err(io::Error::other("died")),
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    return Err(io::Error::other("died"));
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Files for MemoryFiles {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        Ok(self
            .files
            .lock()
            .expect("one thread")
            .keys()
            .cloned()
            .collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().expect("one thread").get(name).cloned())
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change()?;
        let mut files = self.files.lock().expect("one thread");
        files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change()?;
        self.files.lock().expect("one thread").remove(name);
        Ok(())
    }
}
