//! What the terminal can show: colours, and how much of a table.
//!
//! `NO_COLOR` takes colours away and `CLICOLOR_FORCE` gives them to what is no terminal; the first wins. `COLUMNS` says how
//! wide lines may be, else the terminal does. What is no terminal has no width: programs read it.
//! Pure but for the environment and one question to the terminal. Deliberately absent: what is drawn.

use std::io::IsTerminal;

/// One of our outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal {
    is_terminal: bool,
    size: Option<(usize, usize)>,
}

impl Terminal {
    /// Standard output.
    pub(super) fn of_output() -> Self {
        let output = std::io::stdout();
        let is_terminal = output.is_terminal();
        Self {
            is_terminal,
            size: size(&output).filter(|_| is_terminal),
        }
    }

    /// Whether somebody looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Columns; `None`: as many as are needed.
    pub(super) fn columns(&self) -> Option<usize> {
        self.size.map(|(columns, _)| columns)
    }

    /// Lines; `None`: as many as are needed.
    pub(super) fn rows(&self) -> Option<usize> {
        self.size.map(|(_, rows)| rows)
    }
}

/// Whether standard error, where the log and progress go, has colours.
pub(super) fn colours_wanted() -> bool {
    colours(std::io::stderr().is_terminal(), text_of)
}

fn text_of(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

fn colours(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("NO_COLOR").is_some() {
        return false;
    }
    let forced = variable("CLICOLOR_FORCE").is_some_and(|text| text != "0");
    let declined = variable("CLICOLOR").is_some_and(|text| text == "0");
    forced || (is_terminal && !declined)
}

fn size(output: &std::io::Stdout) -> Option<(usize, usize)> {
    let told = rustix::termios::tcgetwinsize(output).ok();
    let told = told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let (columns, rows) = told.unwrap_or_default();
    let said = text_of("COLUMNS").and_then(|text| text.parse().ok());
    let columns = said.unwrap_or(columns);
    (columns > 0).then_some((columns, if rows > 0 { rows } else { usize::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_on_colours() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = set.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        assert!(colours(true, with(&[])));
        assert!(!colours(false, with(&[])));
        assert!(!colours(true, with(&[("NO_COLOR", "1")])));
        assert!(!colours(true, with(&[("CLICOLOR", "0")])));
        assert!(colours(false, with(&[("CLICOLOR_FORCE", "1")])));
        assert!(!colours(false, with(&[("CLICOLOR_FORCE", "0")])));
        assert!(!colours(
            true,
            with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")])
        ));
    }
}
