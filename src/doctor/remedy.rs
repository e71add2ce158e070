//! What to do, so that it can be done literally.

use serde::Serialize;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remedy {
    /// A line for a shell.
    Command {
        /// The line.
        line: String,
    },
    /// A key of the configuration file; the file and the section may have to be made.
    Setting {
        /// The file.
        file: String,
        /// The section, without brackets.
        section: String,
        /// The key.
        key: String,
        /// Its value, as TOML.
        value: String,
    },
    /// What no command of this machine does.
    Words {
        /// In a sentence.
        text: String,
    },
}

impl Remedy {
    /// A line for a shell. Whoever makes it has quoted the paths in it.
    pub(super) fn command(line: impl Into<String>) -> Self {
        Self::Command { line: line.into() }
    }

    /// In words.
    pub(super) fn words(text: impl Into<String>) -> Self {
        Self::Words { text: text.into() }
    }

    /// A command of this program: `words` after the program's name, then what finds the station.
    pub(super) fn own_command(program: &[String], words: &[&str]) -> Self {
        let (name, finding) = program.split_at(program.len().min(1));
        let all = name
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied())
            .chain(finding.iter().map(String::as_str));
        let quoted: Vec<String> = all.map(quoted).collect();
        Self::command(quoted.join(" "))
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command { line } => f.write_str(line),
            Self::Setting {
                file,
                section,
                key,
                value,
            } => write!(f, "in {file}: [{section}] {key} = {value}"),
            Self::Words { text } => f.write_str(text),
        }
    }
}

/// A word as a shell takes it for one.
pub(super) fn quoted(word: impl AsRef<str>) -> String {
    let word = word.as_ref();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The same for a path.
pub(super) fn quoted_path(path: &std::path::Path) -> String {
    quoted(path.to_string_lossy())
}

/// A text as TOML.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted("/a/b-c_1.key"), "/a/b-c_1.key");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
