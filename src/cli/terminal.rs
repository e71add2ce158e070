//! What the terminal can show: colours, signs beyond ASCII, how wide it is.
//!
//! `NO_COLOR` takes colours away and `CLICOLOR_FORCE` gives them to what is no terminal; the first wins. `COLUMNS` says how
//! wide lines may be, else the terminal does. What is no terminal has no width: programs read it.

use std::io::IsTerminal;

/// How something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// All is well.
    Good,
    /// Worth knowing.
    Doubtful,
    /// Something must be done.
    Bad,
}

/// One of our outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal {
    has_colours: bool,
    speaks_utf8: bool,
    is_terminal: bool,
    size: Option<(usize, usize)>,
}

impl Terminal {
    /// Standard output.
    pub(super) fn of_output() -> Self {
        let output = std::io::stdout();
        let is_terminal = output.is_terminal();
        Self {
            has_colours: colours(is_terminal, text_of),
            speaks_utf8: speaks_utf8(text_of),
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

    /// A sign, or what stands for it in ASCII.
    pub(super) fn sign<'t>(&self, sign: &'t str, plain: &'t str) -> &'t str {
        if self.speaks_utf8 { sign } else { plain }
    }

    /// Text in its colour, where there are colours.
    pub(super) fn styled(&self, text: &str, style: Style) -> String {
        let colour = match style {
            Style::Good => 32,
            Style::Doubtful => 33,
            Style::Bad => 31,
        };
        if self.has_colours {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
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

/// The first of the three that is set decides, as in every program.
fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable);
    let locale = locale.unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
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
    fn the_environment_decides_on_colours_and_signs() {
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
        assert!(speaks_utf8(with(&[("LANG", "fr_FR.UTF-8")])));
        assert!(speaks_utf8(with(&[("LC_CTYPE", "C.utf8")])));
        assert!(!speaks_utf8(with(&[
            ("LC_ALL", "C"),
            ("LANG", "fr_FR.UTF-8")
        ])));
        assert!(!speaks_utf8(with(&[])));
    }
}
