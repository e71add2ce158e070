//! A report as a Nostr note: kind 1, with an expiration (NIP-40), signed by a key of the captain's, in our own store.
//!
//! Takes a letter and a key; gives a signed event. Pure but for reading the key. Its last lines are those that the scripts of
//! an Astroport network read, with the figures of the run. Deliberately absent: sending it to anybody; the next run shares it
//! as it shares every note.

use std::path::Path;

use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::nips::nip19::FromBech32;
use nostr::types::Timestamp;

use super::letter::Letter;
use super::numbers::thousands;
use super::secrets::{SecretError, read_secret};
use crate::protocol::hex;

/// A short text (NIP-01).
const NOTE: u16 = 1;
/// What a key file is to hold.
const EXPECTED: &str = "secret key: expected nsec1… or 64 hex digits";

/// Why there is no note. The remedy is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The key.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// It cannot be signed.
    #[error("the note cannot be signed: {0}")]
    Signing(String),
    /// Our own store does not take it.
    #[error("the note was not stored: {0}")]
    Refused(String),
}

/// The keys in a file. Blocks.
pub(super) fn keys(path: &Path) -> Result<Keys, NoteError> {
    let secret = read_secret(path, EXPECTED)?;
    let text = secret.reveal();
    let of_hex = || SecretKey::from_slice(&hex::decode_array::<32>(text)?).ok();
    let key = SecretKey::from_bech32(text).ok().or_else(of_hex);
    let key = key.ok_or_else(|| SecretError::Unusable {
        path: path.display().to_string(),
        what: EXPECTED,
    })?;
    Ok(Keys::new(key))
}

/// The signed note; times are Unix seconds.
pub(super) fn note(
    letter: &Letter<'_>,
    keys: &Keys,
    now: u64,
    expires_at: u64,
) -> Result<Event, NoteError> {
    let expiration = expires_at.to_string();
    EventBuilder::new(Kind::from_u16(NOTE), text(letter))
        .tags([Tag::custom("expiration", [expiration.as_str()])])
        .custom_created_at(Timestamp::from_secs(now))
        .finalize(keys)
        .map_err(|error| NoteError::Signing(error.to_string()))
}

/// What it says: a few lines for people, then one for each figure.
fn text(letter: &Letter<'_>) -> String {
    let summary = letter.summary;
    let authors = summary.authors_received.unwrap_or_default();
    let (found, missing) = summary.profiles.unwrap_or_default();
    let shares = summary.authors_in_scope;
    let shares = shares.map_or_else(
        || "all authors".to_owned(),
        |authors| format!("{} authors", thousands(authors)),
    );
    format!(
        "{}: {}\n{}\n{} events collected, {} given; {shares} shared.\n\n\
         SYNC_STATS: events={} dms={} uploaded={} duration={}\n\
         SYNC_HEX: count={authors}\n\
         SYNC_PROFILES: found={found} missing={missing}\n\
         SYNC_PEERS: success={} total={}\n\
         SYNC_IMPORT: events={} mode=verified",
        summary.station.name,
        letter.heading(),
        letter.introduction(),
        thousands(summary.stored),
        thousands(summary.uploaded),
        summary.stored,
        summary.private_stored,
        summary.uploaded,
        summary.duration_ms / 1_000,
        summary.peers_succeeded,
        summary.peers_total,
        summary.stored,
    )
}
