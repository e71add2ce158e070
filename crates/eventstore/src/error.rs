//! What can go wrong in the store, one enum per operation. A rejected event is not an error: see `Admission`.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be created or read.
    #[error("cannot use {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Written by a version of this program with another file format.
    #[error("the store has file format {found}, this program reads format {supported}")]
    UnknownFormat {
        /// The format found.
        found: u32,
        /// The format this program reads.
        supported: u32,
    },
    /// There is a database in the folder, but not one of ours.
    #[error("the database has no file format number: it was not made by this program")]
    NotAStore,
    /// Reading it failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why reading from or writing to an open store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on the device (or over a quota): nothing of the failed batch was kept, reading goes on.
    #[error("the disk is full")]
    DiskFull,
    /// Records and indexes disagree, or a record cannot be decoded.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The snapshot outlived its time; open a new one and resume.
    #[error("the snapshot is older than its deadline")]
    SnapshotExpired,
    /// There was no address space left for a larger map; the store must be opened again.
    #[error("the store could not grow: no address space left; it must be opened again")]
    Unmapped,
    /// Any other answer of the database or the system.
    #[error("database: {0}")]
    Database(heed::Error),
}

impl From<heed::Error> for OpenError {
    fn from(error: heed::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<heed::Error> for StoreError {
    fn from(error: heed::Error) -> Self {
        match &error {
            heed::Error::Io(io) if is_disk_full(io) => Self::DiskFull,
            heed::Error::Mdb(heed::MdbError::Other(code))
                if is_disk_full(&io::Error::from_raw_os_error(*code)) =>
            {
                Self::DiskFull
            }
            heed::Error::Mdb(
                heed::MdbError::Corrupted | heed::MdbError::PageNotFound | heed::MdbError::Panic,
            ) => Self::Damaged(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// A full device, a quota and a limit on the size of files all mean: no more room here.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl StoreError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(crate) fn is_map_full(&self) -> bool {
        matches!(
            self,
            Self::Database(heed::Error::Mdb(heed::MdbError::MapFull))
        )
    }

    /// What LMDB answers when the system wrote less than it was given.
    pub(crate) fn is_short_write(&self) -> bool {
        const EIO: i32 = 5; // on every Unix
        match self {
            Self::Database(heed::Error::Io(error)) => error.raw_os_error() == Some(EIO),
            Self::Database(heed::Error::Mdb(heed::MdbError::Other(code))) => *code == EIO,
            _ => false,
        }
    }

    /// The batch has more dirty pages than one transaction holds; a smaller one may succeed.
    pub fn is_batch_too_large(&self) -> bool {
        matches!(
            self,
            Self::Database(heed::Error::Mdb(heed::MdbError::TxnFull))
        )
    }
}
