//! Why a service is not exposed or opened, with the remedy.

use std::path::PathBuf;

use crate::tunnel::ServiceName;

/// Why a service is not exposed or opened.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The captain said never.
    #[error("{0} is on the list of private services ([tunnel] private): it is never exposed")]
    Private(ServiceName),
    /// Part of the program.
    #[error("{0} is the constellation's own service: it needs no exposing")]
    Reserved(ServiceName),
    /// No port is known for it.
    #[error("{0} is not one of the known services: name the port on which it listens")]
    PortNeeded(ServiceName),
    /// Would lead others through us to somebody else.
    #[error(
        "port {port} is the mouth of a tunnel to {to}: what is reached through a tunnel is not exposed again"
    )]
    MouthOfATunnel {
        /// The port.
        port: u16,
        /// Where it leads.
        to: String,
    },
    /// A command cannot undo it.
    #[error("{0} is in the configuration: take it out there, and send SIGHUP")]
    Configured(ServiceName),
    /// Nothing to close.
    #[error("{0} is neither exposed nor opened here")]
    NotOpen(ServiceName),
    /// Several mouths bear this name.
    #[error("{0} is opened from several stations: name the one to close")]
    Ambiguous(ServiceName),
    /// Not a station.
    #[error("{0} is no station: name it by /p2p/<PeerID>")]
    NotAStation(String),
    /// Ourselves.
    #[error("that is this station itself")]
    Ourselves,
    /// Too many.
    #[error("no more than {0} at a time")]
    TooMany(usize),
    /// No port for a mouth.
    #[error("cannot listen on {port}: {source}")]
    Port {
        /// Which, or what was looked for.
        port: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What commands asked for cannot be kept.
    #[error("cannot keep {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged ({why}): mend it, or move it away to start without opened and exposed services", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
