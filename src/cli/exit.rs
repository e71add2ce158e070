//! How a command ends.

use std::io::Write;
use std::process::{ExitCode, Termination};

use crate::control::{CommandError, ControlError, ExitReason};
use crate::daemon::{StationError, TunnelError};
use crate::pairs::{PairOutcome, PairReport};
use crate::sync::{Outcome, RunReport};

/// The exit codes of DESIGN §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for a run, converged.
    Done,
    /// 1: done, but something was rejected, left over or found wrong.
    Partial,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: nothing could be reached.
    Unreachable,
    /// 4: the time was up.
    Deadline,
    /// 5: a failure of this machine or store.
    Local,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// The code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Partial => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Deadline => 4,
            Self::Local => 5,
            Self::Interrupted => 130,
        }
    }

    /// How a run ends the command.
    pub fn of_run(report: &RunReport) -> Self {
        match report.outcome {
            _ if report.failed_locally() => Self::Local,
            Outcome::Converged | Outcome::Skipped => Self::Done,
            // What was compared is shown; a peer that could not be is not.
            Outcome::Partial if report.dry_run && report.peers_without_error() => Self::Done,
            Outcome::Partial => Self::Partial,
            Outcome::Failed if report.peers.iter().any(|peer| peer.was_reached()) => Self::Partial,
            Outcome::Failed => Self::Unreachable,
            Outcome::Deadline => Self::Deadline,
        }
    }
}

impl Exit {
    /// How a comparison or a mirroring of two relays ends the command.
    pub fn of_pair(report: &PairReport) -> Self {
        match report.outcome {
            PairOutcome::Converged => Self::Done,
            PairOutcome::Partial => Self::Partial,
            PairOutcome::Failed if report.were_reached() => Self::Partial,
            PairOutcome::Failed => Self::Unreachable,
            PairOutcome::Deadline => Self::Deadline,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// A command that could not be carried out: what to say, and how to end.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(super) fn usage(message: impl ToString) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.to_string(),
        }
    }

    pub(super) fn local(message: impl ToString) -> Self {
        Self {
            exit: Exit::Local,
            message: message.to_string(),
        }
    }

    /// Adds who tells what to do.
    pub(super) fn see_doctor(mut self) -> Self {
        self.message = format!(
            "{}\nWhat to do: constellation doctor",
            self.message.trim_end()
        );
        self
    }

    /// Says it on standard error.
    pub(super) fn report(self) -> Exit {
        if !self.message.is_empty() {
            eprintln!("constellation: {}", self.message);
        }
        self.exit
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error.exit {
            ExitReason::Usage => Self::usage(error),
            ExitReason::Refused => Self {
                exit: Exit::Partial,
                message: error.to_string(),
            },
            ExitReason::Unreachable => Self {
                exit: Exit::Unreachable,
                message: error.to_string(),
            },
            ExitReason::Local => Self::local(error),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Command(error) => error.into(),
            ControlError::Output(error) => error.into(),
            error @ ControlError::Unreachable { .. } => Self::local(error).see_doctor(),
            other => Self::local(other),
        }
    }
}

impl From<TunnelError> for Failure {
    fn from(error: TunnelError) -> Self {
        if error.is_usage() {
            Self::usage(error)
        } else {
            Self::local(error)
        }
    }
}

impl From<StationError> for Failure {
    fn from(error: StationError) -> Self {
        match error {
            StationError::Tunnels(error) => error.into(),
            StationError::Identity(error) if error.is_usage() => Self::usage(error),
            // Not our station's fault, but that of where it lies: what can be done depends on what is seen there.
            error @ (StationError::InUse(_)
            | StationError::Directory { .. }
            | StationError::Lock(_)
            | StationError::Store(_)) => Self::local(error).see_doctor(),
            other => Self::local(other),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Whoever read our output has seen enough.
            return Self {
                exit: Exit::Done,
                message: String::new(),
            };
        }
        Self::local(error)
    }
}

/// Writes a line of output.
///
/// # Errors
/// That of standard output; a reader who has gone ends the command quietly.
pub(super) fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Failure as Broken, PeerReport, Step};

    fn dry_run(peers: Vec<PeerReport>) -> RunReport {
        RunReport {
            run_id: String::new(),
            outcome: RunReport::outcome_of(&peers),
            started_at: String::new(),
            duration_ms: 0,
            dry_run: true,
            named_peers: false,
            totals: RunReport::totals_of(&peers, None),
            peers,
            facts: None,
        }
    }

    #[test]
    fn a_dry_run_is_done_only_if_every_peer_was_compared() {
        let mut compared = PeerReport::new("ws://a");
        compared.outcome = Outcome::Partial;
        let mut unreachable = PeerReport::new("ws://b");
        unreachable.outcome = Outcome::Failed;
        unreachable.error = Some(Broken {
            step: Step::Connect,
            reason: "refused".into(),
            detail: String::new(),
        });
        assert_eq!(Exit::of_run(&dry_run(vec![compared.clone()])), Exit::Done);
        let both = dry_run(vec![compared, unreachable]);
        assert_eq!(Exit::of_run(&both), Exit::Partial);
    }
}
