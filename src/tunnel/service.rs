//! What stations offer each other: names, and the protocols that stand for them on the wire.

use std::fmt;
use std::str::FromStr;

use super::PeerId;

/// Characters of a service's name.
const NAME_CHARS_MAX: usize = 48;

/// A text is no service's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a service: expected 1 to 48 letters, digits, dots, underscores or hyphens, a letter or digit first"
)]
pub struct ServiceNameError(String);

/// A service's name: `strfry`, `ssh`, `ollama`… Letters are lower-case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

impl ServiceName {
    /// The relay.
    pub const STRFRY: &'static str = "strfry";
    /// Cards, and joining.
    pub const CONSTELLATION: &'static str = "constellation";

    /// The relay of a station.
    pub fn strfry() -> Self {
        Self(Self::STRFRY.to_owned())
    }

    /// What stations tell each other: their cards; also where `join` comes in.
    pub fn constellation() -> Self {
        Self(Self::CONSTELLATION.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The protocol by which `server` offers it, as kubo's `ipfs p2p` has it: `/x/<name>-<PeerID>`.
    pub fn protocol(&self, server: &PeerId) -> String {
        format!("/x/{}-{server}", self.0)
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        let name = text.trim().to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && name.len() <= NAME_CHARS_MAX && name.chars().all(plain) {
            Ok(Self(name))
        } else {
            Err(ServiceNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ServiceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubo_and_the_scripts_take() {
        for (text, name) in [
            ("strfry", "strfry"),
            (" SSH ", "ssh"),
            ("my-app_2.x", "my-app_2.x"),
        ] {
            assert_eq!(text.parse::<ServiceName>().expect("a name").as_str(), name);
        }
        for wrong in ["", "-x", "a/b", "a b", "é", &"x".repeat(49)] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
        }
        let peer = PeerId::random();
        assert_eq!(
            ServiceName::strfry().protocol(&peer),
            format!("/x/strfry-{peer}")
        );
    }
}
