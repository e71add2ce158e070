//! The socket through which commands speak to the process that holds the station's data.
//!
//! ```text
//! CLI ─► ControlClient ─► state/control.sock (0600) ─► serve ─► archive, sync::Runner
//! ```
//!
//! HTTP over a Unix socket: bodies stream both ways, so an import or export of any size is never held in memory.
//! Only the owner of the data directory can open the socket. Deliberately absent: anything the commands could not
//! do on a station that is not running.

mod client;
mod commands;
mod messages;
mod moderation;
mod reports;
mod server;
mod stream;
mod tunnel_state;

pub use client::{ControlClient, ControlError, TellProgress};
pub use commands::{JoinReport, TunnelCommand, Tunnels, TunnelsReport};
pub use messages::{BlockedStatus, CommandError, ExitReason, PeerStatus, StatusReport, SyncLine};
pub use moderation::{BlockReport, ModerationCommand, Named, NotNamed, moderation};
pub use reports::{HistoryLine, ReportCommand, ReportPages, report};
pub use server::{ControlContext, StationFacts, serve, status, tunnels};
pub use stream::DialThroughStation;
pub use tunnel_state::TunnelState;
