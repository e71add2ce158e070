//! Events as JSON lines, in and out of the store, and the store's own check.
//!
//! `import` reads lines and submits them to ingest like anyone else; `export` and `count` answer a filter in slices.
//! Each works on a station that is running as on one that is not. Bounded: lines in memory, results per slice.

mod check;
mod export;
mod import;

pub use check::{VerifyReport, check};
pub use export::{ArchiveError, Export, count};
pub use import::{ImportError, ImportReport, RejectedLine, import};
