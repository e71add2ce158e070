//! The key by which the station says who it is to relays that ask (NIP-42).
//!
//! Takes a path; makes the key when it is first needed, and gives signed answers to challenges. Invariant: the file is
//! its owner's alone; one that others may read is refused. Reading and making it block: off the runtime. It is no
//! identity among stations, and signs nothing but answers to challenges.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use nostr::event::{EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use tokio::sync::OnceCell;
use url::Url;

use crate::protocol::hex;
use crate::random::Random;
use crate::state_file;

/// NIP-42's kind.
const AUTHENTICATION_KIND: u16 = 22_242;
/// 64 digits, and what an editor adds.
const FILE_BYTES_MAX: u64 = 256;

/// Why there is no answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NostrKeyError {
    /// The file cannot be read or written.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The system's answer.
        reason: String,
    },
    /// Others may read the file.
    #[error("{0} may be read by others; run: chmod 600 {0}")]
    Exposed(String),
    /// The file holds no key.
    #[error("{0} holds no secret key: expected 64 hex digits")]
    Unreadable(String),
}

/// The station's Nostr key. Cheap to clone.
#[derive(Clone)]
pub struct NostrKey(Arc<State>);

struct State {
    /// `None`: kept nowhere.
    path: Option<PathBuf>,
    random: Random,
    keys: OnceCell<Keys>,
}

impl std::fmt::Debug for NostrKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NostrKey").field(&self.0.path).finish()
    }
}

impl NostrKey {
    /// The key in this file, or one that is put there when it is first needed.
    pub fn at(path: PathBuf, random: Random) -> Self {
        Self::of(Some(path), random)
    }

    /// A key for as long as this lives, made when it is first needed and kept nowhere: for who is nobody in particular.
    pub fn passing(random: Random) -> Self {
        Self::of(None, random)
    }

    fn of(path: Option<PathBuf>, random: Random) -> Self {
        Self(Arc::new(State {
            path,
            random,
            keys: OnceCell::new(),
        }))
    }

    /// The answer to a relay's challenge, as an event's JSON with its id.
    ///
    /// # Errors
    /// [`NostrKeyError`].
    pub async fn answer(
        &self,
        challenge: &str,
        relay: &Url,
        now: u64,
    ) -> Result<([u8; 32], String), NostrKeyError> {
        let keys = self.0.keys.get_or_try_init(|| self.load()).await?;
        let event = EventBuilder::new(Kind::from_u16(AUTHENTICATION_KIND), "")
            .tags([
                Tag::custom("relay", [relay.as_str()]),
                Tag::custom("challenge", [challenge]),
            ])
            .custom_created_at(Timestamp::from_secs(now))
            .finalize(keys)
            .map_err(|error| self.failed(error.to_string()))?;
        Ok((event.id.to_bytes(), event.as_json()))
    }

    async fn load(&self) -> Result<Keys, NostrKeyError> {
        let this = self.clone();
        let loading = tokio::task::spawn_blocking(move || this.load_or_create());
        loading
            .await
            .unwrap_or_else(|error| Err(self.failed(error.to_string())))
    }

    fn load_or_create(&self) -> Result<Keys, NostrKeyError> {
        let random = &self.0.random;
        // Nearly every 32 bytes are a key; those that are not are drawn again.
        let draw = || loop {
            if let Ok(secret) = SecretKey::from_slice(&random.bytes::<32>()) {
                break secret;
            }
        };
        let Some(path) = &self.0.path else {
            return Ok(Keys::new(draw()));
        };
        let shown = || path.display().to_string();
        let failed = |error: std::io::Error| self.failed(error.to_string());
        let Some(bytes) = state_file::read_up_to(path, FILE_BYTES_MAX).map_err(failed)? else {
            let secret = draw();
            let text = format!("{}\n", secret.to_secret_hex());
            state_file::replace(path, text.as_bytes()).map_err(failed)?;
            return Ok(Keys::new(secret));
        };
        let mode = std::fs::metadata(path)
            .map_err(failed)?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(NostrKeyError::Exposed(shown()));
        }
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| hex::decode_array::<32>(text.trim()))
            .and_then(|secret| SecretKey::from_slice(&secret).ok())
            .map(Keys::new)
            .ok_or_else(|| NostrKeyError::Unreadable(shown()))
    }

    fn failed(&self, reason: String) -> NostrKeyError {
        NostrKeyError::File {
            path: self.0.path.as_ref().map_or_else(
                || "a key that is kept nowhere".to_owned(),
                |path| path.display().to_string(),
            ),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_key_is_made_once_kept_private_and_refused_when_it_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("nostr.key");
        let relay = Url::parse("wss://relay.example.org").expect("an address");
        let author = |json: &str| {
            let event: serde_json::Value = serde_json::from_str(json).expect("JSON");
            event["pubkey"].as_str().expect("a key").to_owned()
        };
        let answer = |key: NostrKey| {
            let relay = relay.clone();
            async move { key.answer("abc", &relay, 1_700_000_000).await }
        };
        let key = || NostrKey::at(path.clone(), Random::system());
        let passing = NostrKey::passing(Random::system());
        let (_, once) = answer(passing.clone()).await.expect("drawn");
        let (_, again) = answer(passing).await.expect("drawn before");
        assert_eq!(author(&once), author(&again));
        assert!(!path.exists());
        let (_, first) = answer(key()).await.expect("made");
        let (_, second) = answer(key()).await.expect("read");
        assert_eq!(author(&first), author(&second));
        assert!(first.contains("abc") && first.contains("relay.example.org"));
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        mode(0o644).expect("ours");
        assert!(matches!(
            answer(key()).await,
            Err(NostrKeyError::Exposed(_))
        ));
        mode(0o600).expect("ours");
        std::fs::write(&path, "no key").expect("ours");
        assert!(matches!(
            answer(key()).await,
            Err(NostrKeyError::Unreadable(_))
        ));
    }
}
