//! An Astroport station: where its things are, whether this machine is one, and what its scripts expect of whoever
//! exchanges in their place.
//!
//! ```text
//! paths ─► detect ─► (configuration) ─► what the captain did not set
//!            locks, times, logs ─► attendant ─► asked before each run, told of its end
//!                                  tunnel_script ─► x_strfry.sh beside the station's card
//! ```
//!
//! Nothing here dials, stores or decides when to run. Invariant: what a script may read is never half written, and what
//! somebody else holds is never taken. A disk that is full or a folder that is gone is no reason for a run to fail: it is
//! logged, and the run goes on. Worst case: the bounds of the files that are read, each given where it is read.

mod attendant;
mod detect;
mod locks;
mod log_file;
mod paths;
mod run_lines;
mod times;
mod tunnel_script;

pub use attendant::AstroportAttendant;
pub(crate) use detect::look;
pub use detect::{AstroportStation, SwarmKeyFile, detect, is_station};
pub use locks::{LocksHeld, Taken, take_locks};
pub use log_file::{Level, LogFile, Rotation, StationLogs};
pub use paths::AstroportPaths;
pub use run_lines::{GraphFigures, run_lines};
pub use times::{RunTimes, YOUNG_FOR_SECONDS};
pub use tunnel_script::{Publishing, TunnelScript};
