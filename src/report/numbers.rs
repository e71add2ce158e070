//! Numbers, times and texts of others as people read them, on the terminal, in mails and on pages.
//!
//! Takes values; gives text. Pure. Texts that come from peers lose what a terminal or reader would obey and are cut:
//! whoever puts them into HTML escapes them besides.

/// A span of milliseconds.
pub fn seconds(milliseconds: u64) -> String {
    if milliseconds < 60_000 {
        format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100)
    } else {
        format!(
            "{} min {} s",
            milliseconds / 60_000,
            milliseconds / 1_000 % 60
        )
    }
}

/// A long span, in seconds, to its largest unit or two: "45 s", "12 min", "3 h 20 min", "2 days 4 h".
pub fn span(seconds: u64) -> String {
    let two = |large: u64, unit: &str, small: u64, of: &str| {
        if small == 0 {
            format!("{large} {unit}")
        } else {
            format!("{large} {unit} {small} {of}")
        }
    };
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} min", seconds / 60),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        86_400..=172_799 => two(1, "day", seconds / 3_600 % 24, "h"),
        _ => two(seconds / 86_400, "days", seconds / 3_600 % 24, "h"),
    }
}

/// A number of bytes, to three digits or so.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut whole = count;
    let mut rest = 0;
    let mut unit = 0;
    while whole >= 1_000 && unit + 1 < UNITS.len() {
        rest = whole % 1_000 / 100;
        whole /= 1_000;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} B")
    } else {
        format!("{whole}.{rest} {}", UNITS[unit])
    }
}

/// A number with its thousands apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: "1 peer", "1,200 peers".
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        thousands(number),
        if number == 1 { one } else { many }
    )
}

/// What somebody else wrote, on one line, without what would be obeyed, and cut to so many characters.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut plain = String::new();
    let mut chars = text
        .chars()
        .map(|letter| match letter {
            '\n' | '\r' | '\t' => ' ',
            other => other,
        })
        .filter(|letter| !is_obeyed(*letter));
    for _ in 0..chars_max {
        match chars.next() {
            Some(letter) => plain.push(letter),
            None => return plain.trim().to_owned(),
        }
    }
    if chars.next().is_some() {
        plain.push('…');
    }
    plain.trim().to_owned()
}

/// Control characters, and those that change the direction of what follows.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// RFC 3339 as a reader likes it: "2026-01-31 12:00 UTC". What is no such time stays as it is.
pub(super) fn moment(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => shown(rfc3339, 40),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_050), "1.0 kB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(seconds(1_250), "1.2 s");
        assert_eq!(seconds(125_000), "2 min 5 s");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(123), "123");
        assert_eq!(counted(1, "peer", "peers"), "1 peer");
        assert_eq!(counted(0, "peer", "peers"), "0 peers");
        let spans = [45, 60, 7_260, 7_200, 90_000, 180_000].map(span);
        assert_eq!(
            spans,
            [
                "45 s",
                "1 min",
                "2 h 1 min",
                "2 h",
                "1 day 1 h",
                "2 days 2 h"
            ]
        );
        assert_eq!(moment("2026-01-31T12:34:56Z"), "2026-01-31 12:34 UTC");
        assert_eq!(moment("yesterday"), "yesterday");
    }

    #[test]
    fn what_others_wrote_obeys_nobody_and_is_cut() {
        assert_eq!(shown("a\u{1b}[31m\nb\u{202e}c\0", 40), "a[31m bc");
        assert_eq!(shown("abcdef", 3), "abc…");
        assert_eq!(shown("abc", 3), "abc");
        assert_eq!(shown(" \r\n ", 30), "");
    }
}
