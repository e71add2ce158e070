//! A report as plain text: for terminals, and for mail readers that show no HTML.
//!
//! Takes a [`Letter`]; gives lines. Pure. Everything that stands on the page stands here too.

use std::fmt::Write;

use super::chart;
use super::letter::{Letter, facts_of, refusals_of};
use super::numbers::{counted, thousands};

/// Characters of a line that is folded.
const WIDTH: usize = 76;

/// The report as text.
pub fn text(letter: &Letter<'_>) -> String {
    let mut text = String::new();
    // Writing into memory cannot fail.
    let _ = write_all(letter, &mut text);
    text
}

fn write_all(letter: &Letter<'_>, out: &mut String) -> std::fmt::Result {
    let summary = letter.summary;
    writeln!(out, "{}: {}", summary.station.name, letter.heading())?;
    writeln!(out, "{}\n", letter.introduction())?;
    let metrics = letter.metrics();
    table(out, &metrics)?;
    if let Some(unsent) = letter.unsent() {
        writeln!(out, "\n! {unsent}")?;
    }
    let troubled: Vec<_> = summary
        .peers
        .iter()
        .filter(|peer| !peer.troubles.is_empty())
        .collect();
    if !troubled.is_empty() {
        writeln!(out, "\nWHAT COULD NOT BE ACHIEVED, AND WHY")?;
        for peer in troubled {
            writeln!(out, "  {}", peer.address)?;
            for trouble in &peer.troubles {
                folded(out, "    ", trouble)?;
            }
        }
    }
    writeln!(out, "\nPEERS")?;
    for peer in &summary.peers {
        let sign = chart::Sign::of(peer.outcome).letter();
        writeln!(out, "  {sign} {} – {}", peer.address, peer.outcome)?;
        let facts = facts_of(peer);
        let facts: Vec<String> = facts
            .iter()
            .map(|(label, value)| format!("{} {value}", label.to_lowercase()))
            .collect();
        folded(out, "    ", &facts.join(", "))?;
        for line in refusals_of(peer) {
            folded(out, "    ", &line)?;
        }
    }
    if summary.peers_not_shown > 0 {
        let more = counted(summary.peers_not_shown, "more peer", "more peers");
        writeln!(out, "  and {more}")?;
    }
    if summary.peers.is_empty() {
        writeln!(out, "  none")?;
    }
    if !summary.by_kind.is_empty() {
        writeln!(out, "\nEVENTS COLLECTED, BY KIND")?;
        let rows = summary.by_kind.iter().map(|kind| {
            let number = kind.kind.map_or_else(String::new, |kind| kind.to_string());
            let name = kind.name.as_deref().unwrap_or("other");
            let label = format!("{number} {name}");
            (label.trim().to_owned(), thousands(kind.count))
        });
        let rows: Vec<(String, String)> = rows.collect();
        table(out, &rows)?;
    }
    if let Some((heading, named)) = letter.newcomers() {
        writeln!(out, "\n{}", heading.to_uppercase())?;
        let mut named = named.join(", ");
        let more = letter.newcomers_not_named();
        if more > 0 {
            let _ = write!(named, " and {}", counted(more, "other", "others"));
        }
        folded(out, "  ", &named)?;
    }
    writeln!(out, "\nAUTHORS AND STORE")?;
    table(out, &letter.details())?;
    if summary.runs.len() > 1 {
        let runs = counted(summary.runs.len() as u64, "run", "runs");
        writeln!(out, "\nTHE LAST {} (newest last)", runs.to_uppercase())?;
        writeln!(out, "  {}", chart::line(&summary.runs))?;
        writeln!(
            out,
            "  ● equal  ▲ something left over  ✕ failed  ○ left out"
        )?;
    }
    if !letter.earlier.is_empty() {
        writeln!(out, "\nEARLIER RUNS THAT WERE NOT TOLD")?;
        for line in letter.earlier {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(out, "\n-- \n{}", letter.footer())
}

/// Labels to the left, values under each other.
fn table<L: AsRef<str>>(out: &mut String, rows: &[(L, String)]) -> std::fmt::Result {
    let width = rows.iter().map(|(label, _)| label.as_ref().chars().count());
    let width = width.max().unwrap_or_default();
    for (label, value) in rows {
        let label = label.as_ref();
        let padding = " ".repeat(width - label.chars().count());
        writeln!(out, "  {label}{padding}  {value}")?;
    }
    Ok(())
}

/// A paragraph, folded between words and indented.
fn folded(out: &mut String, indent: &str, paragraph: &str) -> std::fmt::Result {
    let mut line = String::new();
    for word in paragraph.split(' ') {
        let is_full = line.chars().count() + word.chars().count() >= WIDTH - indent.len();
        if is_full && !line.is_empty() {
            writeln!(out, "{indent}{line}")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{indent}{line}")
}
