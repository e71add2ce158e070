//! `constellation status --watch`: the same again and again, until somebody has seen enough.
//!
//! On a terminal it is drawn in place, cut to what fits there; elsewhere one line for each change. A station that is
//! restarted meanwhile is waited for.

use std::io::Write;
use std::time::Duration;

use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::status::{as_text, in_brief, report};
use super::terminal::Terminal;
use crate::control::StatusReport;
use crate::time::Clock;

/// How often a station that runs is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a data directory is opened that nobody has open.
const OPEN_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn watch(global: &Global) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let terminal = Terminal::of_output();
    let mut shown = Shown::default();
    let mut seen = report(global).await?;
    // One for all rounds: between two of them nobody would hear it.
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        shown.show(&terminal, &seen, clock.unix_seconds())?;
        let pause = if seen.running { LOOK_EVERY } else { OPEN_EVERY };
        let again = async {
            tokio::time::sleep(pause).await;
            report(global).await
        };
        tokio::select! {
            // What cannot be asked now is waited for; what stood last stays.
            again = again => if let Ok(report) = again { seen = report },
            _ = &mut interrupted => return Ok(Exit::Done),
        }
    }
}

/// What stands on the terminal, or was said last.
#[derive(Debug, Default)]
struct Shown {
    lines: usize,
    said: String,
}

impl Shown {
    fn show(
        &mut self,
        terminal: &Terminal,
        report: &StatusReport,
        now: u64,
    ) -> Result<(), Failure> {
        if !terminal.is_terminal() {
            let line = in_brief(report);
            if line != self.said {
                outln!("{} {line}", crate::time::rfc3339(now));
                self.said = line;
            }
            return Ok(());
        }
        let (columns, rows) = (terminal.columns(), terminal.rows());
        let text = fitted(&as_text(report, now), columns, rows);
        let mut drawn = String::new();
        if self.lines > 0 {
            // Up to where it began, and away with what stands there.
            drawn.push_str(&format!("\u{1b}[{}A", self.lines));
        }
        drawn.push_str("\r\u{1b}[J");
        drawn.push_str(&text);
        self.lines = text.lines().count();
        let mut output = std::io::stdout();
        output.write_all(drawn.as_bytes())?;
        Ok(output.flush()?)
    }
}

/// No line is wrapped and none scrolls away: what is drawn over must stand where it was drawn.
fn fitted(text: &str, columns: Option<usize>, rows: Option<usize>) -> String {
    let most = rows.unwrap_or(usize::MAX).saturating_sub(1).max(1);
    let lines = text.trim_end().lines().take(most);
    let cut = lines.map(|line| match columns {
        Some(columns) => line.chars().take(columns).collect(),
        None => line.to_owned(),
    });
    cut.map(|line: String| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(fitted("één\ntwo\nthree\n\n", Some(2), Some(3)), "éé\ntw\n");
        assert_eq!(fitted("one\n", None, None), "one\n");
    }
}
