//! A child process in a process group of its own, ended with all that it started.
//!
//! Whoever drops it kills the whole group; the runtime then reaps the child. It never kills a group whose leader was reaped
//! already: the number might be somebody else's by then. When the station itself is killed, the child finds the end of
//! its input, and ends by itself. What it is for, and how long it may take, is its user's business.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// On which of its outputs a child is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// On its standard output; what it says on standard error goes where ours goes.
    StandardOutput,
    /// On its standard error; its standard output is thrown away.
    StandardError,
}

/// A running child with a pipe to its standard input.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// Starts a program with these arguments.
    ///
    /// # Errors
    /// The system's.
    pub fn start(program: &str, arguments: &[String], listening: Listening) -> io::Result<Self> {
        let (output, error) = match listening {
            Listening::StandardOutput => (Stdio::piped(), Stdio::inherit()),
            Listening::StandardError => (Stdio::null(), Stdio::piped()),
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(error)
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// The way to its standard input, once.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once, if it is listened to there.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, once, if it is listened to there.
    pub fn take_error(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for its end, and reaps it. Cancel safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it and all that it started, unless it was reaped already.
    pub fn kill(&self) {
        let leader = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = leader.and_then(Pid::from_raw)
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "the child's process group was gone already");
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
