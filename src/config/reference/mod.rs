//! Every key that can be configured, as data: what it means, its type, its default, a value that it may have.
//!
//! Made from it: the commented file that `constellation init` writes (`sample.rs`), and the page `docs/configuration.md`
//! (`page.rs`). Invariant: a key stands here if and only if the types of the configuration know it, and each value that
//! stands here is one that they take (the tests ask them). Deliberately absent: what keys do.

mod page;
mod reaching;
mod sharing;
mod station_relay;
mod telling;

pub use page::page;

/// All sections, in the order in which they are written.
pub(super) const SECTIONS: &[&Section] = &[
    &station_relay::STATION,
    &station_relay::RELAY,
    &reaching::TUNNEL,
    &reaching::KUBO,
    &reaching::ASTROPORT,
    &sharing::SCOPE,
    &sharing::SCHEDULE,
    &sharing::LIVE,
    &telling::REPORT,
    &sharing::PEERS,
];

/// How a section stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once: `[name]`.
    Table,
    /// Once for each: `[[name]]`.
    List,
}

/// A section of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name, as it is written.
    pub(super) name: &'static str,
    /// How it stands in the file.
    pub(super) shape: Shape,
    /// What is said before its first key; often nothing.
    pub(super) about: &'static str,
    /// Its keys, with what is said of them.
    pub(super) groups: &'static [Group],
}

/// Keys that are explained together.
#[derive(Debug)]
pub(super) struct Group {
    /// In the lines that the sample has.
    pub(super) explained: &'static str,
    /// One or more.
    pub(super) keys: &'static [Key],
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    /// As it is written.
    pub(super) name: &'static str,
    /// What its value may be, in words.
    pub(super) kind: &'static str,
    /// A value that it may have, as TOML.
    pub(super) value: &'static str,
    /// The default in words; `None` if `value` is the default.
    pub(super) default: Option<&'static str>,
}

impl Key {
    /// A key whose default is shown.
    pub(super) const fn with_default(
        name: &'static str,
        kind: &'static str,
        value: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            value,
            default: None,
        }
    }

    /// A key of which an example is shown: its default is no value, or depends on others.
    pub(super) const fn with_example(
        name: &'static str,
        kind: &'static str,
        value: &'static str,
        default: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            value,
            default: Some(default),
        }
    }
}

impl Section {
    /// How the section begins in the file.
    pub(super) fn head(&self) -> String {
        match self.shape {
            Shape::Table => format!("[{}]", self.name),
            Shape::List => format!("[[{}]]", self.name),
        }
    }
}

/// The variable that overrides a key.
pub(super) fn variable(section: &Section, key: &Key) -> String {
    format!("CONSTELLATION_{}__{}", section.name, key.name).to_uppercase()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::load;

    /// The names that the types answer with when they are given one that they do not know.
    fn known(text: &str) -> BTreeSet<String> {
        let error = toml::from_str::<Config>(text).expect_err("unknown");
        let message = error.message().to_owned();
        let (_, expected) = message.split_once("expected").expect("what is known");
        let names = expected.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_key_that_the_types_know_stands_here_and_no_other() {
        let sections: BTreeSet<String> = SECTIONS.iter().map(|one| one.name.into()).collect();
        assert_eq!(known("unheard_of = 1"), sections);
        for section in SECTIONS {
            let names = section.groups.iter().flat_map(|group| group.keys);
            let names: BTreeSet<String> = names.map(|key| key.name.to_owned()).collect();
            let mut known = known(&format!("{}\nunheard_of = 1\n", section.head()));
            // Its variable alone may say it; no file may.
            if section.name == "report" {
                assert!(known.remove("password"));
            }
            assert_eq!(known, names, "{}", section.head());
        }
    }

    /// What a key needs beside it.
    fn needs(section: &Section, key: &Key) -> &'static str {
        match (section.name, key.name) {
            ("peers", "address") => "",
            ("peers", _) => "address = \"ws://a\"\n",
            ("report", "smtp_host" | "command") => "to = \"a@b.example\"\n",
            ("report", "smtp_user") => {
                "to = \"a@b.example\"\nsmtp_host = \"b.example\"\npassword_file = \"/p\"\n"
            }
            ("report", "password_file") => {
                "to = \"a@b.example\"\nsmtp_host = \"b.example\"\nsmtp_user = \"a\"\n"
            }
            _ => "",
        }
    }

    #[test]
    fn each_value_is_one_that_the_key_takes_in_the_file_and_from_its_variable() {
        for section in SECTIONS {
            for key in section.groups.iter().flat_map(|group| group.keys) {
                let head = section.head();
                let beside = format!("{head}\n{}", needs(section, key));
                let text = format!("{beside}{} = {}\n", key.name, key.value);
                load(&text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
                if section.shape == Shape::Table {
                    let written = key.value.trim_matches('"');
                    let variable = variable(section, key);
                    let read = load(&beside, &[(&variable, written)]);
                    let read = read.unwrap_or_else(|error| panic!("{variable}: {error}"));
                    let filed = load(&text, &[]).expect("as above");
                    assert_eq!(format!("{read:?}"), format!("{filed:?}"), "{variable}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_called_the_default_is_the_default() {
        let defaults = format!("{:?}", Config::default());
        for section in SECTIONS.iter().filter(|one| one.shape == Shape::Table) {
            for key in section.groups.iter().flat_map(|group| group.keys) {
                if key.default.is_some() {
                    continue;
                }
                let text = format!("{}\n{} = {}\n", section.head(), key.name, key.value);
                let config: Config = toml::from_str(&text).expect("valid");
                // Of the default list of kinds the configuration keeps that none is set.
                if (section.name, key.name) == ("scope", "kinds") {
                    let listed = crate::sync::DEFAULT_KINDS.into();
                    let shown = config.scope.kinds.expect("set");
                    assert_eq!(shown, crate::sync::KindsSpec::List(listed));
                    continue;
                }
                assert_eq!(format!("{config:?}"), defaults, "{text}");
            }
        }
    }
}
