//! How what a peer lacks gets there: by EVENT, or through the import command of a home relay.
//!
//! [`HomeWriter`] is the contract of whoever writes into a home relay; it stands here so that transferring knows
//! nothing of commands and processes. A writer says what the command said; **what counts is what is found at the relay
//! afterwards** (see `importing`). Errors are typed, and their labels stable.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// How events are offered to a peer.
#[derive(Debug, Clone, Default)]
pub enum Offering {
    /// By EVENT, each answered by its OK.
    #[default]
    Events,
    /// Through the home relay's own import: no EVENT is ever sent, so its write policy is never asked.
    Import(Arc<dyn HomeWriter>),
}

/// Writes into a home relay by another way than EVENT.
pub trait HomeWriter: fmt::Debug + Send + Sync {
    /// Writes verified events: the minified JSON of one in each text, without line breaks. Gives what the command counted,
    /// if it said so.
    ///
    /// Cancel safety: dropping it ends the command; the relay may then have any part of the events.
    ///
    /// # Errors
    /// [`ImportError`]: the relay may have any part of the events.
    fn write(
        &self,
        events: Vec<String>,
    ) -> BoxFuture<'_, Result<Option<ImportCounts>, ImportError>>;
}

/// What an import says that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportCounts {
    /// Lines read.
    pub processed: u64,
    /// Events that it stored.
    pub added: u64,
    /// Events that it did not take.
    pub rejected: u64,
    /// Events that it had, or had deleted or superseded.
    pub duplicates: u64,
}

impl ImportCounts {
    /// Whether every one of `sent` lines was read and has exactly one fate.
    pub fn adds_up_to(&self, sent: u64) -> bool {
        let fates = self.added.checked_add(self.rejected);
        let fates = fates.and_then(|sum| sum.checked_add(self.duplicates));
        self.processed == sent && fates == Some(sent)
    }

    /// Events that it says it did not store.
    pub const fn not_added(&self) -> u64 {
        self.rejected.saturating_add(self.duplicates)
    }
}

impl fmt::Display for ImportCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lines: {} added, {} rejected, {} duplicates",
            self.processed, self.added, self.rejected, self.duplicates
        )
    }
}

/// Why an import into the home relay counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// There is no such command.
    #[error("strfry_command: {command} was not found")]
    NotFound {
        /// Its first word.
        command: String,
    },
    /// The command does not start.
    #[error("strfry_command: {command} does not start: {why}")]
    NotStarted {
        /// Its first word.
        command: String,
        /// The system's answer.
        why: String,
    },
    /// It ended with a code that is not 0.
    #[error("the import ended with exit code {code}: {said}")]
    ExitCode {
        /// The code.
        code: i32,
        /// The last of what it said.
        said: String,
    },
    /// A signal ended it.
    #[error("the import was killed by signal {signal}: {said}")]
    Killed {
        /// The signal's number.
        signal: i32,
        /// The last of what it said.
        said: String,
    },
    /// It was not done in time, and was ended.
    #[error("the import did not end within {0:?}")]
    Deadline(Duration),
    /// It ended well, but did not read all.
    #[error("the import did not read all that it was given: {0}")]
    Unread(String),
    /// Its counts do not add up.
    #[error("the import was given {sent} events and counted {counted}")]
    Miscounted {
        /// Lines that it was given.
        sent: u64,
        /// What it said.
        counted: ImportCounts,
    },
    /// It says that it stored them, and the relay has none of them: most likely it wrote into another database.
    #[error(
        "the import says that it is done, but the home relay has none of the {0} events: does strfry_command use the \
         same database?"
    )]
    NotStored(u64),
}

impl ImportError {
    /// The stable name, for reports and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "import_not_found",
            Self::NotStarted { .. } => "import_not_started",
            Self::ExitCode { .. } => "import_exit_code",
            Self::Killed { .. } => "import_killed",
            Self::Deadline(_) => "import_deadline",
            Self::Unread(_) => "import_unread",
            Self::Miscounted { .. } => "import_miscounted",
            Self::NotStored(_) => "import_not_stored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_only_if_every_line_has_one_fate() {
        let counts = ImportCounts {
            processed: 6,
            added: 3,
            rejected: 2,
            duplicates: 1,
        };
        assert!(counts.adds_up_to(6));
        assert!(!counts.adds_up_to(7), "a line was not read");
        let lost = ImportCounts { added: 2, ..counts };
        assert!(!lost.adds_up_to(6), "a line without a fate");
        let liar = ImportCounts {
            added: u64::MAX,
            ..counts
        };
        assert!(!liar.adds_up_to(6));
    }
}
