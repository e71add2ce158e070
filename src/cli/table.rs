//! Tables as people read them; numbers are those of reports.

use super::terminal::Terminal;
pub(super) use crate::report::{bytes, seconds, thousands};

/// How far away a moment (RFC 3339) is that lies ahead; `None` if the text is none. One that has passed is due.
pub(super) fn until(at: &str, now: u64) -> Option<String> {
    let at = unix_seconds(at)?;
    Some(match at.saturating_sub(now) {
        0 => "now".to_owned(),
        ahead => format!("in {}", roughly(ahead)),
    })
}

/// How long ago a moment (RFC 3339) was; `None` if the text is none.
pub(super) fn since(at: &str, now: u64) -> Option<String> {
    let at = unix_seconds(at)?;
    Some(format!("{} ago", roughly(now.saturating_sub(at))))
}

fn unix_seconds(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

/// A span of seconds to the largest unit that says enough.
fn roughly(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Rows of equal length as an aligned table: the first column to the left, the others to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                text.push_str(&format!("  {cell}{padding}"));
            } else {
                text.push_str(&format!("  {padding}{cell}"));
            }
        }
        text.push('\n');
    }
    text
}

/// Rows of text under a head, all to the left; only the head where there are none. On a terminal that is too narrow for
/// it each row stands by itself, a cell a line.
pub(super) fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    columns_within(Terminal::of_output().columns(), head, rows)
}

fn columns_within(
    most: Option<usize>,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let mut all = vec![
        head.iter()
            .map(|title| (*title).to_owned())
            .collect::<Vec<_>>(),
    ];
    all.extend(rows);
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let whole: usize = widths.iter().map(|width| width + 2).sum();
    if most.is_some_and(|most| whole > most) && all.len() > 1 {
        return stacked(head, all.get(1..).unwrap_or_default());
    }
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.chars().count());
            line.push_str(&format!("  {cell}{padding}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Each row by itself, a cell a line; cells that say nothing are left out.
fn stacked(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = head.iter().map(|title| title.chars().count()).max();
    let width = width.unwrap_or_default();
    let shown = rows.iter().map(|row| {
        let cells = head.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        cells
            .map(|(title, cell)| format!("  {title:width$}  {cell}\n"))
            .collect::<String>()
    });
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "bcd".to_owned()],
            vec!["efghij".to_owned(), String::new()],
        ];
        let text = |most| columns_within(most, &["one", "two"], rows.clone().into_iter());
        let table = "  one     two\n  a       bcd\n  efghij\n";
        assert_eq!(text(None), table);
        assert_eq!(text(Some(13)), table);
        assert_eq!(text(Some(12)), "  one  a\n  two  bcd\n\n  one  efghij\n");
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = 1_700_000_000;
        let at = crate::time::rfc3339;
        assert_eq!(
            until(&at(now + 23 * 60 + 5), now).as_deref(),
            Some("in 23 min")
        );
        assert_eq!(until(&at(now - 1), now).as_deref(), Some("now"));
        assert_eq!(since(&at(now - 3 * 3_600), now).as_deref(), Some("3 h ago"));
        assert_eq!(since(&at(now - 100), now).as_deref(), Some("100 s ago"));
        assert_eq!(since("yesterday", now), None);
    }
}
