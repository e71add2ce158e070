//! One line of figures, for people and for programs.

use serde::Serialize;

use super::process::Cost;
use crate::cli::table::{bytes, thousands};

/// What was done, and what it took. `None` where a figure means nothing.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    /// What was done, and whose figures these are.
    pub(super) what: String,
    pub(super) events: Option<u64>,
    /// Bytes of the events' JSON.
    pub(super) event_bytes: Option<u64>,
    pub(super) milliseconds: u64,
    pub(super) cpu_ms: u64,
    pub(super) anonymous_bytes: u64,
    pub(super) written_bytes: Option<u64>,
    pub(super) wire_bytes: Option<u64>,
    pub(super) rounds: Option<u64>,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, milliseconds: u64, cost: Cost) -> Self {
        Self {
            what: what.into(),
            milliseconds,
            cpu_ms: cost.cpu_ms,
            anonymous_bytes: cost.anonymous,
            ..Self::default()
        }
    }

    pub(super) fn as_line(&self) -> String {
        let per_event = |all: Option<u64>| {
            let each = all
                .zip(self.events)
                .map(|(all, events)| all / events.max(1));
            each.map_or_else(|| "-".into(), |each| thousands(each) + " B")
        };
        let per_second = |all: u64| all * 1_000 / self.milliseconds.max(1);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        line(&[
            self.what.clone(),
            format!("{} ms", thousands(self.milliseconds)),
            or_dash(self.events.map(|events| thousands(per_second(events)))),
            or_dash(self.event_bytes.map(|all| bytes(per_second(all)) + "/s")),
            format!("{} ms", thousands(self.cpu_ms)),
            bytes(self.anonymous_bytes),
            per_event(self.written_bytes),
            or_dash(self.wire_bytes.map(bytes)),
            per_event(self.wire_bytes),
            or_dash(self.rounds.map(thousands)),
        ])
    }
}

/// What the columns are.
pub(super) fn heading() -> String {
    let columns = [
        "",
        "time",
        "events/s",
        "",
        "processor",
        "anonymous",
        "written/event",
        "wire",
        "wire/event",
        "rounds",
    ];
    line(&columns.map(str::to_owned))
}

fn line(cells: &[String; 10]) -> String {
    const WIDTHS: [usize; 10] = [46, 10, 9, 10, 10, 10, 13, 9, 10, 6];
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        if text.is_empty() {
            text = format!("{cell}{padding}");
        } else {
            text.push_str(&format!("  {padding}{cell}"));
        }
    }
    text.trim_end().to_owned()
}
