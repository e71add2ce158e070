//! `strfry import` under supervision: one process for each batch, fed on its standard input.
//!
//! Takes verified events as lines of JSON; gives the counts that the command told, or a typed error. strfry verifies them
//! once more, and asks no plugin. One process at a time for each batch, in a process group of its own; it is ended and
//! reaped when its time is up, and when whoever waits goes away. Invariant: no success unless the command read all, ended
//! with code 0, and counted every line once, if it counted. It does not decide what is at the relay afterwards. Worst
//! case: its deadline, and a moment for reaping.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::process::ChildStdin;
use tokio::time::timeout;

use super::options::StrfryCommand;
use super::output::listen;
use crate::child_process::{ChildProcess, Listening};
use crate::limits::IMPORT_REAP_DEADLINE;
use crate::transfer::{HomeWriter, ImportCounts, ImportError};

/// What is written to the command at a time: what a pipe holds.
const WRITE_BYTES: usize = 64 << 10;

/// Writes into a home relay by its own import.
#[derive(Debug, Clone)]
pub struct Importer {
    program: String,
    arguments: Vec<String>,
    deadline: Duration,
}

impl Importer {
    /// By this command and the word `import`; each batch within `deadline`.
    pub fn new(command: &StrfryCommand, deadline: Duration) -> Self {
        let mut words = command.words().iter().cloned();
        Self {
            program: words.next().unwrap_or_default(),
            arguments: words.chain(std::iter::once("import".to_owned())).collect(),
            deadline,
        }
    }

    async fn import(&self, events: Vec<String>) -> Result<Option<ImportCounts>, ImportError> {
        let listening = Listening::StandardError;
        let mut child = ChildProcess::start(&self.program, &self.arguments, listening)
            .map_err(|error| self.not_started(&error))?;
        if let Ok(ended) = timeout(self.deadline, self.supervise(&mut child, events)).await {
            return ended;
        }
        child.kill();
        if timeout(IMPORT_REAP_DEADLINE, child.ended()).await.is_err() {
            tracing::error!(command = %self.program, "a killed import does not end; is its disk stuck?");
        }
        Err(ImportError::Deadline(self.deadline))
    }

    async fn supervise(
        &self,
        child: &mut ChildProcess,
        events: Vec<String>,
    ) -> Result<Option<ImportCounts>, ImportError> {
        let (Some(input), Some(output)) = (child.take_input(), child.take_error()) else {
            return Err(self.not_started(&io::Error::other("it has no pipes")));
        };
        let sent = events.len() as u64;
        // Reaped only after it has closed its output: until then its number is its group's.
        let (fed, heard) = tokio::join!(feed(input, events), listen(BufReader::new(output)));
        let status = child
            .ended()
            .await
            .map_err(|error| self.not_started(&error))?;
        let said = heard.said;
        if let Some(signal) = status.signal() {
            return Err(ImportError::Killed { signal, said });
        }
        match status.code() {
            Some(0) => {}
            code => {
                let code = code.unwrap_or_default();
                return Err(ImportError::ExitCode { code, said });
            }
        }
        fed.map_err(|error| ImportError::Unread(error.to_string()))?;
        match heard.counts {
            Some(counted) if !counted.adds_up_to(sent) => {
                Err(ImportError::Miscounted { sent, counted })
            }
            counts => Ok(counts),
        }
    }

    fn not_started(&self, error: &io::Error) -> ImportError {
        let command = self.program.clone();
        if error.kind() == io::ErrorKind::NotFound {
            ImportError::NotFound { command }
        } else {
            let why = error.to_string();
            ImportError::NotStarted { command, why }
        }
    }
}

impl HomeWriter for Importer {
    fn write(
        &self,
        events: Vec<String>,
    ) -> BoxFuture<'_, Result<Option<ImportCounts>, ImportError>> {
        self.import(events).boxed()
    }
}

/// Writes a line for each event, then the end of the input. A command that ends early breaks the pipe.
async fn feed(input: ChildStdin, events: Vec<String>) -> io::Result<()> {
    let mut input = BufWriter::with_capacity(WRITE_BYTES, input);
    for event in events {
        input.write_all(event.as_bytes()).await?;
        input.write_all(b"\n").await?;
    }
    input.shutdown().await
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, test_kill_process_group};

    use super::*;

    /// A command of a shell; what it is given in addition stands in its `$@`.
    fn shell(script: &str, deadline: Duration) -> Importer {
        let words = ["sh", "-c", script, "strfry"].map(str::to_owned);
        let command = StrfryCommand::try_from(words.to_vec()).expect("a command");
        Importer::new(&command, deadline)
    }

    fn events(count: usize) -> Vec<String> {
        vec!["{}".to_owned(); count]
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn written(script: &str, count: usize) -> Result<Option<ImportCounts>, ImportError> {
        shell(script, LONG).write(events(count)).await
    }

    #[tokio::test]
    async fn every_line_is_fed_and_the_counts_are_read() {
        // More than a pipe holds, in both directions.
        let script = "[ \"$1\" = import ] || exit 9; lines=$(wc -l); yes chatter | head -n 50000 >&2; \
                      echo \"Processed $lines lines. $lines added, 0 rejected, 0 dups\" >&2";
        let counts = ImportCounts {
            processed: 100_000,
            added: 100_000,
            ..ImportCounts::default()
        };
        assert_eq!(written(script, 100_000).await, Ok(Some(counts)));
        assert_eq!(
            written("cat >/dev/null", 3).await,
            Ok(None),
            "silence is no claim"
        );
    }

    #[tokio::test]
    async fn every_failure_is_told_apart() {
        let command = StrfryCommand::try_from(vec!["/nowhere/strfry".to_owned()]);
        let absent = Importer::new(&command.expect("a command"), LONG);
        let error = absent.write(events(1)).await.expect_err("not found");
        assert_eq!(error.label(), "import_not_found");
        let command = StrfryCommand::try_from(vec!["/".to_owned()]);
        let folder = Importer::new(&command.expect("a command"), LONG);
        let error = folder.write(events(1)).await.expect_err("no program");
        assert_eq!(error.label(), "import_not_started");
        for (script, label) in [
            (
                "cat >/dev/null; echo '{\"content\":1}' >&2; echo out of space >&2; exit 3",
                "import_exit_code",
            ),
            ("exit 3", "import_exit_code"),
            ("kill -9 $$", "import_killed"),
            ("exec <&-; exit 0", "import_unread"),
            (
                "cat >/dev/null; echo 'Processed 4 lines. 4 added, 0 rejected, 0 dups' >&2",
                "import_miscounted",
            ),
        ] {
            let error = written(script, 50_000).await.expect_err(script);
            assert_eq!(error.label(), label, "{script}: {error}");
        }
        let error = written("cat >/dev/null; echo no space >&2; exit 3", 1).await;
        let said = "no space".to_owned();
        assert_eq!(error, Err(ImportError::ExitCode { code: 3, said }));
    }

    /// Whether any process of the group is left, a zombie too.
    fn is_alive(group: Pid) -> bool {
        test_kill_process_group(group).is_ok()
    }

    async fn gone(group: Pid) {
        let waiting = async {
            while is_alive(group) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting).await.expect("the group is gone");
    }

    /// Where a script writes its process group's number.
    async fn group_of(path: &std::path::Path) -> Pid {
        let waiting = async {
            loop {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                if let Some(line) = text.strip_suffix('\n') {
                    return line.parse::<i32>().expect("a number");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let number = timeout(LONG, waiting).await.expect("it started");
        Pid::from_raw(number).expect("a process group")
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = folder.path().join("group");
        let script = format!("echo $$ > {}; sleep 600 & sleep 600", told.display());
        let short = Duration::from_millis(500);
        let error = shell(&script, short).write(events(1)).await;
        assert_eq!(error, Err(ImportError::Deadline(short)));
        gone(group_of(&told).await).await;
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_any_more_is_ended_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = folder.path().join("group");
        let script = format!("echo $$ > {}; sleep 600 & sleep 600", told.display());
        let importer = shell(&script, LONG);
        let group = tokio::select! {
            ended = importer.write(events(1)) => panic!("it ended: {ended:?}"),
            group = group_of(&told) => group,
        };
        assert_ne!(group.as_raw_nonzero().get(), 0);
        gone(group).await;
    }
}
