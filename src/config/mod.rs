//! One TOML file, all defaults, environment overrides.
//!
//! Knows each part's options and nothing else; no part knows this file. Unknown keys are refused with their line.
//! `CONSTELLATION_RELAY__LISTEN=…` overrides `[relay] listen`; what it holds is taken as a text, or as TOML where the
//! key takes no text. Absent file: all defaults, unless it was named.

mod astroport;
mod home;
mod reference;
mod sample;
mod tunnel;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

pub use astroport::AstroportOptions;
pub use reference::page as reference_page;
pub use sample::sample;
pub use tunnel::{Kademlia, KuboOptions, KuboUse, TunnelOptions};

use crate::graph::GraphOptions;
use crate::home::{HomeRelayAddress, HomeWrite, StrfryCommand};
use crate::live::LiveOptions;
use crate::relay_server::RelayOptions;
use crate::report::{ReportOptions, Reporting};
use crate::schedule::ScheduleOptions;
use crate::sync::{Deadlines, PeerOptions, ScopeOptions, SyncOptions};
use crate::trust::CARD_TEXT_BYTES_MAX;

/// Prefix of the variables that override keys.
const ENVIRONMENT_PREFIX: &str = "CONSTELLATION_";
/// Not a key: how much is logged, read before the configuration.
const LOG_VARIABLE: &str = "CONSTELLATION_LOG";
/// Stands for the dot between section and key.
const ENVIRONMENT_SEPARATOR: &str = "__";

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[station]`.
    pub station: StationOptions,
    /// `[relay]`.
    pub relay: RelayOptions,
    /// `[tunnel]`.
    pub tunnel: TunnelOptions,
    /// `[kubo]`.
    pub kubo: KuboOptions,
    /// `[astroport]`.
    pub astroport: AstroportOptions,
    /// `[[peers]]`.
    pub peers: Vec<PeerOptions>,
    /// `[scope]`.
    pub scope: ScopeOptions,
    /// `[schedule]`.
    pub schedule: ScheduleOptions,
    /// `[live]`.
    pub live: LiveOptions,
    /// `[report]`.
    pub report: ReportOptions,
}

/// `[station]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StationOptions {
    /// What the station calls itself in reports and to other stations; no longer than a card has room for.
    #[serde(deserialize_with = "short_name")]
    pub name: String,
    /// The name of the constellation. Absent: that of its swarm key, or the one it joined, or one of its own.
    pub constellation: Option<String>,
    /// The address of an existing relay on this machine that the station serves: a peer of every run, first and last.
    pub home_relay: Option<HomeRelayAddress>,
    /// How events get into it: "import" (by `strfry_command`, past its write policy) or "event".
    pub home_write: HomeWrite,
    /// The words of the command that is given `import`.
    pub strfry_command: StrfryCommand,
}

impl Default for StationOptions {
    fn default() -> Self {
        Self {
            name: "constellation".into(),
            constellation: None,
            home_relay: None,
            home_write: HomeWrite::default(),
            strfry_command: StrfryCommand::default(),
        }
    }
}

/// A name, refused if others would see only its beginning.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ShortName(String);

impl TryFrom<String> for ShortName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name.len() > CARD_TEXT_BYTES_MAX {
            let bytes = name.len();
            return Err(format!(
                "a station's name has at most {CARD_TEXT_BYTES_MAX} bytes, this one has {bytes}"
            ));
        }
        Ok(Self(name))
    }
}

fn short_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    ShortName::deserialize(source).map(|ShortName(name)| name)
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is wrong; the message names line and key.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where, counted from one; `None` if it is wrong as a whole.
        line: Option<usize>,
        /// What is wrong, and where.
        message: String,
    },
    /// A variable is wrong.
    #[error("{variable}: {message}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads the file (if there is one), then applies the environment.
    ///
    /// `must_exist`: the file was named, so that its absence is an error.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        path: &Path,
        must_exist: bool,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                String::new()
            }
            Err(source) => {
                return Err(ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let invalid = |error: toml::de::Error| ConfigError::Invalid {
            path: path.to_owned(),
            line: error.span().map(|span| line_at(&text, span.start)),
            message: error.to_string(),
        };
        // Read by itself first: only so do errors name the line.
        let alone: Self = toml::from_str(&text).map_err(invalid)?;
        if alone.report.password.is_some() {
            return Err(ConfigError::Invalid {
                path: path.to_owned(),
                line: None,
                message: "[report] password does not belong into this file: name a password_file, or set \
                          CONSTELLATION_REPORT__PASSWORD"
                    .to_owned(),
            });
        }
        let checked = |config: Self| {
            config.checked().map_err(|message| ConfigError::Invalid {
                path: path.to_owned(),
                line: None,
                message,
            })
        };
        let environment: Vec<(String, String)> = environment.collect();
        let home = environment.iter().find(|(name, _)| name == "HOME");
        let home = home.map(|(_, path)| PathBuf::from(path));
        let mut overrides: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name != LOG_VARIABLE)
            .collect();
        overrides.sort();
        let mut table: toml::Table = toml::from_str(&text).map_err(invalid)?;
        let mut config = alone;
        for (variable, value) in overrides {
            config = apply(&mut table, &variable, &value)
                .map_err(|message| ConfigError::Variable { variable, message })?;
        }
        let station = astroport::fill_in(&mut table, &config.astroport, home.as_deref());
        if station.is_some() {
            config = read(&table).map_err(|message| ConfigError::Invalid {
                path: path.to_owned(),
                line: None,
                message,
            })?;
            config.astroport.station = station;
        }
        checked(config)
    }

    /// The part that says who is in the graph.
    pub fn graph_options(&self) -> GraphOptions {
        self.scope.graph(self.astroport.enabled)
    }

    /// The part that says what the captain is told, and how.
    pub fn reporting(&self) -> Reporting {
        Reporting {
            options: self.report.clone(),
            station: self.station.name.clone(),
        }
    }

    /// The part that runs depend on.
    pub fn sync_options(&self) -> SyncOptions {
        SyncOptions {
            peers: self.peers.clone(),
            home: self.home(),
            scope: self.scope.clone(),
            deadlines: Deadlines {
                run: self.astroport.run_limit,
                ..Deadlines::default()
            },
        }
    }
}

/// The line, counted from one, in which a byte of the text stands.
fn line_at(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    before.filter(|byte| *byte == b'\n').count() + 1
}

/// Sets one key and reads the whole again, so that a wrong variable is blamed and no other.
fn apply(table: &mut toml::Table, variable: &str, value: &str) -> Result<Config, String> {
    let key = variable
        .strip_prefix(ENVIRONMENT_PREFIX)
        .unwrap_or(variable)
        .to_lowercase();
    let (section_name, key) = key
        .split_once(ENVIRONMENT_SEPARATOR)
        .ok_or("names no key: expected CONSTELLATION_<SECTION>__<KEY>, with two underscores")?;
    let section = table
        .entry(section_name)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
        .as_table_mut()
        .ok_or("names no section")?;
    section.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    let as_text = read(table);
    if as_text.is_ok() {
        return as_text;
    }
    // Not a text, then: a number, a boolean or a list.
    let Some(parsed) = parse_value(value) else {
        return as_text;
    };
    if let Some(section) = table
        .get_mut(section_name)
        .and_then(toml::Value::as_table_mut)
    {
        section.insert(key.to_owned(), parsed);
    }
    read(table)
}

fn read(table: &toml::Table) -> Result<Config, String> {
    table
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

/// A number, a boolean, a list or a quoted text, as TOML writes it.
fn parse_value(text: &str) -> Option<toml::Value> {
    let mut parsed: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    parsed.remove("value")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("constellation.toml");
        std::fs::write(&path, text).expect("ours");
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(&path, true, variables)
    }

    #[test]
    fn an_empty_file_is_all_defaults_and_the_sample_says_the_same() {
        let empty = load("", &[]).expect("defaults");
        let sample = load(&sample(), &[]).expect("the sample is valid");
        assert_eq!(format!("{empty:?}"), format!("{sample:?}"));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        for (text, line, key) in [
            ("[station]\nname = \"a\"\nnmae = \"b\"\n", "line 3", "nmae"),
            ("[tunnels]\nlisten = 1\n", "line 1", "tunnels"),
            (
                "\n[[peers]]\naddress = \"ws://a\"\nroel = 1\n",
                "line 4",
                "roel",
            ),
        ] {
            let error = load(text, &[]).expect_err("refused").to_string();
            assert!(error.contains(line) && error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_malformed_address_is_refused_with_its_line() {
        let error = load("[[peers]]\naddress = \"/p2p/12D3KooW\"\n", &[]).expect_err("refused");
        let error = error.to_string();
        assert!(
            error.contains("line 2") && error.contains("not a multiaddr"),
            "{error}"
        );
    }

    #[test]
    fn what_no_card_has_room_for_is_refused_with_its_line() {
        let name = "é".repeat(129);
        let error = load(&format!("[station]\nname = \"{name}\"\n"), &[]).expect_err("refused");
        let error = error.to_string();
        assert!(
            error.contains("line 2") && error.contains("at most 256 bytes"),
            "{error}"
        );
        let fitting = "é".repeat(128);
        let config = load(&format!("[station]\nname = \"{fitting}\"\n"), &[]).expect("valid");
        assert_eq!(config.station.name, fitting);
        let long = format!("/dns4/{}/tcp/4011", "x".repeat(256));
        let error = load(&format!("[tunnel]\n\nexternal = [\"{long}\"]\n"), &[]);
        let error = error.expect_err("refused").to_string();
        assert!(
            error.contains("line 3") && error.contains("too long for a card"),
            "{error}"
        );
    }

    #[test]
    fn variables_override_keys_and_a_wrong_one_is_named() {
        let variables = [
            ("CONSTELLATION_STATION__NAME", "aster"),
            ("CONSTELLATION_SCOPE__DMS", "true"),
            ("CONSTELLATION_SCOPE__KINDS", "[1, 7]"),
            ("CONSTELLATION_SCHEDULE__EVERY", "30m"),
            ("CONSTELLATION_LOG", "how much is logged: no key"),
            ("HOME", "/"),
        ];
        let config = load("[station]\nname = \"file\"\n", &variables).expect("valid");
        assert_eq!(config.station.name, "aster");
        assert!(config.scope.dms);
        assert_eq!(config.scope.kinds.expect("set").to_string(), "1,7");
        assert_eq!(config.schedule.every.as_secs(), 1_800);
        let number = load("", &[("CONSTELLATION_STATION__NAME", "123")]).expect("a name");
        assert_eq!(number.station.name, "123");
        for wrong in ["CONSTELLATION_STATION__NMAE", "CONSTELLATION_RELAY_LISTEN"] {
            let error = load("", &[(wrong, "x")]).expect_err("refused").to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_one_need_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("none.toml");
        assert!(matches!(
            Config::load(&path, true, std::iter::empty()),
            Err(ConfigError::Unreadable { .. })
        ));
        Config::load(&path, false, std::iter::empty()).expect("all defaults");
    }
}
