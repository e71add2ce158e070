//! Handing a report to a command: recipient, HTML file and subject, as the network's mail script takes them.
//!
//! Takes the words of the command and these three; gives its exit code, or why it did not end well. It runs in a process
//! group of its own, with nothing on its standard input, and is ended and reaped with all that it started when its time is
//! up, and when whoever waits goes away. No shell reads anything. Deliberately absent: making and removing the file. Worst
//! case: its deadline, and a moment for reaping.

use std::os::unix::process::ExitStatusExt;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::numbers::shown;
use crate::child_process::{ChildProcess, Listening};
use crate::limits::{REPORT_COMMAND_DEADLINE, REPORT_COMMAND_SAYS_BYTES, REPORT_REAP_DEADLINE};

/// Characters of what it said that are shown.
const SAID_CHARS_MAX: usize = 300;

/// Why a command did not take a report. The remedy is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFailure {
    /// It did not start.
    #[error("{command} cannot be started: {reason}. Check [report] command")]
    NotStarted {
        /// The program.
        command: String,
        /// The system's answer.
        reason: String,
    },
    /// It said that it failed.
    #[error("{command} ended with exit code {code}: {said}")]
    ExitCode {
        /// The program.
        command: String,
        /// Its exit code.
        code: i32,
        /// The last that it said on standard error.
        said: String,
    },
    /// A signal ended it.
    #[error("{command} was ended by signal {signal}: {said}")]
    Killed {
        /// The program.
        command: String,
        /// The signal.
        signal: i32,
        /// The last that it said on standard error.
        said: String,
    },
    /// Its time was up.
    #[error("{command} did not end within {deadline_s} s and was ended")]
    Deadline {
        /// The program.
        command: String,
        /// How long it had.
        deadline_s: u64,
    },
}

/// Runs the command on a report. `words` is not empty.
pub(super) async fn hand_over(
    words: &[String],
    recipient: &str,
    file: &str,
    subject: &str,
) -> Result<(), CommandFailure> {
    let (program, rest) = words
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let mut arguments = rest.to_vec();
    arguments.extend([recipient, file, subject].map(str::to_owned));
    let started = ChildProcess::start(program, &arguments, Listening::StandardError);
    let mut child = started.map_err(|error| CommandFailure::NotStarted {
        command: program.to_owned(),
        reason: error.to_string(),
    })?;
    if let Ok(ended) = timeout(REPORT_COMMAND_DEADLINE, supervise(program, &mut child)).await {
        return ended;
    }
    child.kill();
    if timeout(REPORT_REAP_DEADLINE, child.ended()).await.is_err() {
        tracing::error!(command = %program, "a killed command does not end; is its disk stuck?");
    }
    Err(CommandFailure::Deadline {
        command: program.to_owned(),
        deadline_s: REPORT_COMMAND_DEADLINE.as_secs(),
    })
}

async fn supervise(program: &str, child: &mut ChildProcess) -> Result<(), CommandFailure> {
    let command = program.to_owned();
    // It has nothing to read.
    drop(child.take_input());
    let said = match child.take_error() {
        Some(error) => last_said(error).await,
        None => String::new(),
    };
    // Reaped only after it has closed its output: until then its number is its group's.
    let status = child.ended().await;
    let status = status.map_err(|error| CommandFailure::NotStarted {
        command: command.clone(),
        reason: error.to_string(),
    })?;
    if let Some(signal) = status.signal() {
        return Err(CommandFailure::Killed {
            command,
            signal,
            said,
        });
    }
    match status.code() {
        Some(0) => Ok(()),
        code => Err(CommandFailure::ExitCode {
            command,
            code: code.unwrap_or_default(),
            said,
        }),
    }
}

/// Reads to the end, and keeps what came last.
async fn last_said(mut output: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut piece = [0; 1024];
    // What cannot be read says nothing.
    while let Ok(count @ 1..) = output.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        let beyond = kept.len().saturating_sub(REPORT_COMMAND_SAYS_BYTES);
        kept.drain(..beyond);
    }
    shown(&String::from_utf8_lossy(&kept), SAID_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script, "mailer"].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn the_command_gets_three_arguments_and_its_exit_code_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let seen = folder.path().join("seen");
        let script = format!("printf '%s|' \"$@\" > {}; cat", seen.display());
        let given = ["c@example.org", "/tmp/a b.html", "$(id) \"is\" well"];
        hand_over(&shell(&script), given[0], given[1], given[2])
            .await
            .expect("it ends well, though it reads its input");
        let seen = std::fs::read_to_string(&seen).expect("written");
        assert_eq!(seen, "c@example.org|/tmp/a b.html|$(id) \"is\" well|");

        let words = shell("echo first >&2; printf 'no\\033[2J route' >&2; exit 3");
        let error = hand_over(&words, "", "", "")
            .await
            .expect_err("exit code 3");
        let expected = CommandFailure::ExitCode {
            command: "sh".to_owned(),
            code: 3,
            said: "first no[2J route".to_owned(),
        };
        assert_eq!(error, expected);
        let error = hand_over(&shell("kill -9 $$"), "", "", "").await;
        assert!(matches!(
            error,
            Err(CommandFailure::Killed { signal: 9, .. })
        ));
        let missing = vec!["/no/such/mailer".to_owned()];
        let error = hand_over(&missing, "", "", "").await;
        assert!(matches!(error, Err(CommandFailure::NotStarted { .. })));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let started = folder.path().join("started");
        let script = format!("sleep 600 & echo $! > {}; wait", started.display());
        let words = shell(&script);
        let handing_over = hand_over(&words, "", "", "");
        let mut handing_over = Box::pin(handing_over);
        let read = || std::fs::read_to_string(&started).ok();
        let grandchild = loop {
            tokio::select! {
                ended = &mut handing_over => panic!("it hangs: {ended:?}"),
                () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
            }
            if let Some(number) = read().and_then(|text| text.trim().parse::<i32>().ok()) {
                break number;
            }
        };
        drop(handing_over);
        let gone = async {
            let stat = format!("/proc/{grandchild}/stat");
            // Gone, or a zombie that nobody has reaped yet.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        timeout(std::time::Duration::from_secs(20), gone)
            .await
            .expect("it is killed with its group");
    }
}
