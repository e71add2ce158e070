//! Which constellation this station belongs to, and when that has changed (D16).
//!
//! Takes what is configured and what was in force; gives what is in force now, or says that the captain must confirm.
//! Pure but for its file. Invariant: an identity that is in force is never replaced without the captain. Deliberately
//! absent: stopping what depends on it. Worst case: none, it is a comparison.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{self, Format, StateError};
use crate::protocol::hex;
use crate::random::Random;

/// What is hashed before a swarm key's fingerprint, and before a name: so one never stands for the other.
const OF_A_SWARM_KEY: &[u8] = b"constellation of a swarm key v1\0";
const OF_A_NAME: &[u8] = b"constellation of a name v1\0";

/// A text is no constellation's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the identity of a constellation: expected 64 lower-case hex digits")]
pub struct ConstellationIdError;

/// The identity of a constellation: 32 bytes, written as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConstellationId([u8; 32]);

impl ConstellationId {
    /// As in a token.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of those who hold a swarm key. Takes its fingerprint, so that no card says anything about the key.
    pub fn of_swarm_key(fingerprint: &[u8]) -> Self {
        Self::hashed(OF_A_SWARM_KEY, fingerprint)
    }

    /// Of those who use a name. Spaces around it do not count; letters' case does.
    pub fn of_name(name: &str) -> Self {
        Self::hashed(OF_A_NAME, name.trim().as_bytes())
    }

    /// A new one.
    pub fn founded(random: &Random) -> Self {
        Self(random.bytes())
    }

    fn hashed(domain: &[u8], bytes: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update(domain)
                .chain_update(bytes)
                .finalize()
                .into(),
        )
    }
}

impl fmt::Display for ConstellationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for ConstellationId {
    type Err = ConstellationIdError;

    fn from_str(text: &str) -> Result<Self, ConstellationIdError> {
        hex::decode_array(text)
            .map(Self)
            .ok_or(ConstellationIdError)
    }
}

impl Serialize for ConstellationId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConstellationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A swarm key that is configured.
    SwarmKey,
    /// A name that is configured.
    Name,
    /// Made here, at random, since nothing was configured.
    Founded,
    /// A token that was redeemed.
    Joined,
}

impl Origin {
    /// Whether it stands in the configuration, and can be taken out of it.
    fn is_configured(self) -> bool {
        matches!(self, Self::SwarmKey | Self::Name)
    }
}

/// To which constellation a station belongs: `state/constellation.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    #[serde(rename = "version")]
    format: Format,
    /// Which one.
    pub id: ConstellationId,
    /// Where that comes from.
    pub origin: Origin,
}

impl Membership {
    /// Of this constellation.
    pub fn new(id: ConstellationId, origin: Origin) -> Self {
        Self {
            format: Format,
            id,
            origin,
        }
    }

    /// What was in force; `None` on a station that has just been set up.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(path: &Path) -> Result<Option<Self>, StateError> {
        files::load(path)
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        files::save(path, self)
    }
}

/// What follows from the configuration and the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// This holds; to be kept if it is not yet.
    InForce(Membership),
    /// Nothing is exchanged until the captain confirms (`init --accept-constellation`, which keeps `now`).
    Changed {
        /// What was in force.
        was: Membership,
        /// What the configuration says.
        now: Membership,
    },
}

/// Compares what is configured with what was in force. With neither, a constellation is founded. A name or key that was
/// taken out of the configuration is a change too: the station would go on in a constellation that nobody named.
pub fn resolve(
    configured: Option<Membership>,
    stored: Option<Membership>,
    random: &Random,
) -> Resolution {
    let founded = || Membership::new(ConstellationId::founded(random), Origin::Founded);
    match (configured, stored) {
        (None, None) => Resolution::InForce(founded()),
        (Some(configured), None) => Resolution::InForce(configured),
        (Some(configured), Some(was)) if configured.id == was.id => Resolution::InForce(was),
        (Some(now), Some(was)) => Resolution::Changed { was, now },
        (None, Some(was)) if was.origin.is_configured() => Resolution::Changed {
            was,
            now: founded(),
        },
        (None, Some(was)) => Resolution::InForce(was),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn configured() -> impl Strategy<Value = Membership> {
        // Few names, so that equal ones come up.
        (0..3u8, any::<bool>()).prop_map(|(name, is_name)| {
            let name = format!("name {name}");
            if is_name {
                Membership::new(ConstellationId::of_name(&name), Origin::Name)
            } else {
                let id = ConstellationId::of_swarm_key(name.as_bytes());
                Membership::new(id, Origin::SwarmKey)
            }
        })
    }

    fn any_membership() -> impl Strategy<Value = Membership> {
        prop_oneof![
            configured(),
            (configured(), any::<bool>()).prop_map(|(other, joined)| {
                let origin = if joined {
                    Origin::Joined
                } else {
                    Origin::Founded
                };
                Membership::new(other.id, origin)
            })
        ]
    }

    proptest! {
        /// The captain starts the station again and again, changing the configuration or not, and never confirms:
        /// what was in force first stays so, and anything else stops.
        #[test]
        fn what_is_in_force_is_never_replaced_unasked(
            stored in any_membership(),
            starts in prop::collection::vec(prop::option::of(configured()), 1..8),
        ) {
            let random = Random::seeded(1);
            for configured in starts {
                match resolve(configured, Some(stored), &random) {
                    Resolution::InForce(now) => {
                        prop_assert_eq!(now, stored);
                        let taken_out = configured.is_none() && stored.origin.is_configured();
                        prop_assert!(!taken_out);
                        if let Some(configured) = configured {
                            prop_assert_eq!(configured.id, stored.id);
                        }
                    }
                    Resolution::Changed { was, now } => {
                        prop_assert_eq!(was, stored);
                        prop_assert_ne!(now.id, was.id);
                        if let Some(configured) = configured {
                            prop_assert_eq!(now, configured);
                        }
                        // Confirmed, it is in force and stays so.
                        if configured.is_some() || now.origin == Origin::Founded {
                            let after = resolve(configured, Some(now), &random);
                            prop_assert_eq!(after, Resolution::InForce(now));
                        }
                    }
                }
            }
        }

        #[test]
        fn the_first_start_takes_what_is_configured_or_founds(
            configured in prop::option::of(configured()),
        ) {
            let random = Random::seeded(2);
            let Resolution::InForce(first) = resolve(configured, None, &random) else {
                return Err(TestCaseError::fail("nothing was there to change"));
            };
            match configured {
                Some(configured) => prop_assert_eq!(first, configured),
                None => prop_assert_eq!(first.origin, Origin::Founded),
            }
            prop_assert_eq!(resolve(configured, Some(first), &random), Resolution::InForce(first));
        }
    }

    #[test]
    fn a_name_and_a_swarm_key_never_make_the_same_constellation() {
        let name = ConstellationId::of_name("same");
        assert_eq!(name, ConstellationId::of_name(" same\n"));
        assert_ne!(name, ConstellationId::of_name("Same"));
        assert_ne!(name, ConstellationId::of_swarm_key(b"same"));
        let random = Random::seeded(3);
        assert_ne!(
            ConstellationId::founded(&random),
            ConstellationId::founded(&random)
        );
        assert_eq!(name.to_string().parse(), Ok(name));
        assert!("00".parse::<ConstellationId>().is_err());
    }

    #[test]
    fn a_membership_is_kept_and_a_damaged_one_is_never_taken_for_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("constellation.json");
        assert_eq!(Membership::load(&path).expect("readable"), None);
        let membership = Membership::new(ConstellationId::of_name("x"), Origin::Joined);
        membership.save(&path).expect("written");
        assert_eq!(Membership::load(&path).expect("readable"), Some(membership));
        let text = std::fs::read_to_string(&path).expect("readable");
        for damaged in [
            "",
            "{}",
            &text[..text.len() / 2],
            &text.replace("\"version\": 1", "\"version\": 2"),
            &text.replace("\"origin\"", "\"more\": 1, \"origin\""),
        ] {
            std::fs::write(&path, damaged).expect("ours");
            let error = Membership::load(&path).expect_err("refused");
            assert!(matches!(error, StateError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("constellation.json"), "{error}");
        }
    }
}
