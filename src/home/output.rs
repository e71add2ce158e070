//! What an import says on its standard error: its counts, and its last words.
//!
//! Reads to the end whatever comes, so that the command never waits for us; keeps the last counts (strfry tells them again
//! as it goes) and the beginning of the last line. **Event bodies are not kept**: strfry quotes what it rejects, and what
//! follows a brace is cut off. Bounded: one line, the rest of a longer one is passed over.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::limits::IMPORT_LINE_BYTES;
use crate::transfer::ImportCounts;

/// Characters of the last words that a report shows.
const SAID_CHARS_MAX: usize = 200;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Heard {
    /// The last counts.
    pub(super) counts: Option<ImportCounts>,
    /// The last line that is not empty, without event bodies.
    pub(super) said: String,
}

/// Listens until the end. A pipe that breaks is one.
pub(super) async fn listen(mut output: impl AsyncBufRead + Unpin) -> Heard {
    let mut heard = Heard::default();
    let mut line = Vec::new();
    while let Ok(piece) = output.fill_buf().await {
        if piece.is_empty() {
            break;
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(piece.len());
        let room = IMPORT_LINE_BYTES - line.len();
        line.extend_from_slice(&piece[..taken.min(room)]);
        output.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            heard.take(&line);
            line.clear();
        }
    }
    heard.take(&line);
    heard
}

impl Heard {
    fn take(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let body = line.find('{').unwrap_or(line.len());
        let said = line[..body].trim();
        if said.is_empty() {
            return;
        }
        self.said = said.chars().take(SAID_CHARS_MAX).collect();
        if let Some(counts) = counts_in(said) {
            self.counts = Some(counts);
        }
    }
}

/// Reads `Processed N lines. A added, R rejected, D dups`, wherever in the line it begins.
fn counts_in(line: &str) -> Option<ImportCounts> {
    let (_, counts) = line.split_once("Processed ")?;
    let mut words = counts.split_whitespace();
    let mut count = |name: &str| {
        let number = words.next()?.parse::<u64>().ok()?;
        let named = words.next()?.trim_end_matches([',', '.']);
        (named == name).then_some(number)
    };
    Some(ImportCounts {
        processed: count("lines")?,
        added: count("added")?,
        rejected: count("rejected")?,
        duplicates: count("dups")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(text: &str) -> Heard {
        listen(text.as_bytes()).await
    }

    #[tokio::test]
    async fn the_last_counts_count_and_event_bodies_are_not_kept() {
        let said = heard(
            "2026-01-31 12:00:00.001 ( 0.1s) [main] INFO| Processed 10000 lines. 9999 added, 1 rejected, 0 dups\n\
             rejected: too large: {\"id\":\"secret\"}\n\
             INFO| Done. Processed 10003 lines. 9999 added, 2 rejected, 2 dups",
        )
        .await;
        let counts = ImportCounts {
            processed: 10_003,
            added: 9_999,
            rejected: 2,
            duplicates: 2,
        };
        assert_eq!(said.counts, Some(counts));
        assert!(said.said.starts_with("INFO| Done."), "{}", said.said);
        let quoted = heard("rejected: too large: {\"id\":\"secret\"}\n\n").await;
        assert_eq!(quoted.said, "rejected: too large:");
    }

    #[tokio::test]
    async fn what_only_looks_like_counts_is_none() {
        for text in [
            "",
            "Processed many lines. 1 added, 1 rejected, 1 dups",
            "Processed 3 lines. 1 added, 1 rejected",
            "Processed 3 lines. 1 added, 1 dups, 1 rejected",
            "Processed -3 lines. 1 added, 1 rejected, 1 dups",
            "{\"content\":\"Processed 1 lines. 1 added, 0 rejected, 0 dups\"}",
        ] {
            assert_eq!(heard(text).await.counts, None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_line_without_end_costs_no_more_than_its_bound() {
        let text = format!(
            "{}\nProcessed 1 lines. 1 added, 0 rejected, 0 dups",
            "x".repeat(1 << 20)
        );
        assert_eq!(
            heard(&text).await.counts.map(|counts| counts.added),
            Some(1)
        );
    }
}
