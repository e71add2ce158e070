//! Telling the captain: what a run achieved, and when it is worth a mail.
//!
//! ```text
//! history ─► desk (judges each run once) ─► spool (one file each) ─► reporter ─► mail │ command │ note
//!              deciding: is it news?          retries, bounds           sends, one a minute
//! RunReport + runs before it ─► Summary ─► text │ HTML │ JSON
//! ```
//!
//! Takes the history and who the station is; gives reports, and what became of sending them. Invariants: one report for each
//! change of state, none lost and none doubled over crashes; what peers wrote is plain, cut, and escaped where it is shown;
//! passwords and keys are read when they are needed and shown nowhere; a mail counts as sent when the server says so, and
//! only then. Deliberately absent: when runs are made, the command line, the configuration file.

mod chart;
mod command;
mod deciding;
mod desk;
mod disk;
mod files;
mod html;
mod kinds;
mod letter;
mod mail;
#[cfg(test)]
mod memory_files;
mod merging;
mod message;
mod note;
mod numbers;
mod options;
mod reporter;
mod secrets;
mod sending;
mod spool;
mod summary;
mod text;
mod troubles;

pub use command::CommandFailure;
pub use deciding::{Occasion, State};
pub use disk::Fills;
pub use html::html;
pub use letter::Letter;
pub use mail::{MailError, MailStep};
pub use message::MessageError;
pub use note::NoteError;
pub use numbers::{bytes, seconds, span, thousands};
pub use options::{Channel, Encryption, ReportOptions, Secret, When, is_mailbox};
pub use reporter::{ReportError, Reporter, ReporterContext, Reporting, Sent};
pub use secrets::SecretError;
pub use sending::{Delivery, SendError, try_mail_server};
pub use summary::{
    Counts, Covers, DiskSummary, KindCount, PeerSummary, RunPoint, StationName, Summary,
};
pub use text::text;
