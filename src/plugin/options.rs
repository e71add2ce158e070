//! What can be configured of a write policy plugin: keys of section `[relay]` that begin with `plugin`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::Ruling;

/// The plugin and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginOptions {
    /// The program.
    pub command: PluginCommand,
    /// How long one question may wait for its answer.
    pub timeout: Duration,
    /// What is done with an event about which it does not rule.
    pub on_failure: PluginFailure,
    /// Which events it is asked about.
    pub asks: BTreeSet<AskedAbout>,
}

/// What is done with an event about which the plugin does not rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginFailure {
    /// It is stored.
    Accept,
    /// It is not, and whoever offered it is told to try again.
    #[default]
    Reject,
}

impl PluginFailure {
    /// What stands in the place of an answer.
    pub(super) fn ruling(self) -> Ruling {
        match self {
            Self::Accept => Ruling::Accept,
            Self::Reject => Ruling::Unanswered,
        }
    }
}

/// By which way events come that the plugin is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedAbout {
    /// Of those who publish to the relay over TCP.
    Clients,
    /// Of admitted stations that publish to it through their tunnels, over live links that they open or in their runs.
    Stations,
    /// What comes over the live links that this station opens.
    Live,
    /// What its own runs fetch, from the home relay too.
    Runs,
}

/// The longest that a question may be configured to wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A time that a client may be kept waiting, such as "5s" or "300ms".
///
/// # Errors
/// The deserializer's, and for what is no such time.
pub fn plugin_timeout<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(source)?;
    let duration: Option<jiff::SignedDuration> = text.parse().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration
        .filter(|duration| !duration.is_zero() && *duration <= TIMEOUT_MAX)
        .ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no time that an event may wait: expected for instance \"5s\", at most a minute"
            ))
        })
}

/// The words of a command; no shell reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCommand {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for PluginCommand {
    type Error = &'static str;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        let mut words = words.into_iter();
        match words.next() {
            Some(program) if !program.is_empty() => Ok(Self {
                program,
                arguments: words.collect(),
            }),
            _ => Err("plugin names no program: expected for instance [\"/usr/local/bin/policy\"]"),
        }
    }
}

impl<'de> Deserialize<'de> for PluginCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Self::try_from(words).map_err(D::Error::custom)
    }
}
