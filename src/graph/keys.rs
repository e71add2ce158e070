//! Public keys as people write them: 64 hex digits, or npub.

use std::collections::BTreeSet;

use nostr::key::PublicKey;
use serde::{Deserialize, Deserializer};

/// A public key.
pub type AuthorKey = [u8; 32];

/// What is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no public key: expected npub1… or 64 hex digits")]
pub struct KeyError(pub String);

/// Reads a key.
///
/// # Errors
/// [`KeyError`].
pub fn author_key(text: &str) -> Result<AuthorKey, KeyError> {
    PublicKey::parse(text.trim())
        .map(|key| key.to_bytes())
        .map_err(|_| KeyError(text.to_owned()))
}

/// Reads a list of keys, for serde: `deserialize_with`.
///
/// # Errors
/// The deserializer's, with the key that is none.
pub fn author_keys<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeSet<AuthorKey>, D::Error> {
    let texts = Vec::<String>::deserialize(source)?;
    let read = texts.iter().map(|text| author_key(text));
    read.collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}
