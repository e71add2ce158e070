//! What commands ask of the captain's list: block, unblock, purge, and what is on it.
//!
//! Takes names of keys and events; changes the store's list through the door, and answers when what is stored has been
//! settled too. Goes over the socket, and is carried out the same in the process of a command that has the station
//! open itself. A name in bare hex may be a key or an id: what the station knows decides, and where it knows neither
//! the captain is asked. Whoever stops waiting loses nothing: the list is changed at once, and the station goes on
//! settling. Worst case of an answer: one page of the list.

use std::str::FromStr;

use constellation_eventstore::{
    BLOCK_REASON_BYTES_MAX, Block, BlockTarget, Blocking, Snapshot, StoreError,
};
use nostr::event::EventId;
use nostr::key::PublicKey;
use nostr::nips::nip19::{FromBech32, Nip19, ToBech32};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::messages::CommandError;
use super::server::ControlContext;
use crate::ingest::ListChange;
use crate::limits::BLOCKS_PER_PAGE;
use crate::protocol::hex;
use crate::time::rfc3339;

/// What is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// A public key, in hex.
    Author(String),
    /// An event's id, in hex.
    Event(String),
    /// 64 hex digits that may be either.
    Either(String),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModerationCommand {
    /// [`BlockReport`]s: the part of the list after one entry, or its start. Empty at the end.
    List {
        /// The last one that is known.
        after: Option<Named>,
    },
    /// [`BlockReport`].
    Block {
        /// What.
        target: Named,
        /// Also delete what is stored of it.
        purge: bool,
        /// Why, for the captain's own memory.
        reason: String,
    },
    /// The [`Named`] that is blocked no longer.
    Unblock {
        /// What.
        target: Named,
    },
}

/// What `block --json` prints, and each entry of `block --list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// What is blocked: `author` or `event`, in hex.
    #[serde(flatten)]
    pub target: Named,
    /// Whether what was stored of it was deleted.
    pub purged: bool,
    /// RFC 3339, UTC.
    pub since: String,
    /// Why; empty if nobody said.
    pub reason: String,
}

/// A word that names neither a key nor an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a public key (npub1…, nprofile1…), an event (note1…, nevent1…) or 64 hex digits")]
pub struct NotNamed;

impl FromStr for Named {
    type Err = NotNamed;

    fn from_str(word: &str) -> Result<Self, NotNamed> {
        let word = word.strip_prefix("nostr:").unwrap_or(word);
        if let Ok(found) = Nip19::from_bech32(word) {
            return match found {
                Nip19::Pubkey(key) => Ok(Self::Author(key.to_hex())),
                Nip19::Profile(profile) => Ok(Self::Author(profile.public_key.to_hex())),
                Nip19::EventId(id) => Ok(Self::Event(id.to_hex())),
                Nip19::Event(event) => Ok(Self::Event(event.event_id.to_hex())),
                _ => Err(NotNamed),
            };
        }
        let word = word.to_ascii_lowercase();
        match hex::decode_array::<32>(&word) {
            Some(_) => Ok(Self::Either(word)),
            None => Err(NotNamed),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self {
            Self::Author(hex) => PublicKey::from_hex(hex)
                .ok()
                .and_then(|key| key.to_bech32().ok()),
            Self::Event(hex) => EventId::from_hex(hex)
                .ok()
                .and_then(|id| id.to_bech32().ok()),
            Self::Either(_) => None,
        };
        match (word, self) {
            (Some(word), _) => f.write_str(&word),
            (None, Self::Author(hex) | Self::Event(hex) | Self::Either(hex)) => f.write_str(hex),
        }
    }
}

impl Named {
    fn of(target: BlockTarget) -> Self {
        match target {
            BlockTarget::Author(key) => Self::Author(hex::encode(&key)),
            BlockTarget::Event(id) => Self::Event(hex::encode(&id)),
        }
    }

    /// What it stands for, where `knows` tells what of a key and an id is known.
    fn resolve(
        &self,
        knows: impl Fn(BlockTarget) -> Result<bool, StoreError>,
        why_not: &str,
    ) -> Result<BlockTarget, CommandError> {
        let bytes = |hex: &str| hex::decode_array(hex).ok_or_else(|| CommandError::usage(NotNamed));
        match self {
            Self::Author(hex) => Ok(BlockTarget::Author(bytes(hex)?)),
            Self::Event(hex) => Ok(BlockTarget::Event(bytes(hex)?)),
            Self::Either(hex) => {
                let bytes = bytes(hex)?;
                for target in [BlockTarget::Event(bytes), BlockTarget::Author(bytes)] {
                    if knows(target).map_err(CommandError::local)? {
                        return Ok(target);
                    }
                }
                Err(CommandError::usage(format!(
                    "{hex} {why_not}: say what it is with --as author or --as event"
                )))
            }
        }
    }
}

impl From<Block> for BlockReport {
    fn from(block: Block) -> Self {
        Self {
            target: Named::of(block.target),
            purged: block.purged,
            since: rfc3339(block.since),
            reason: block.reason,
        }
    }
}

/// Carries out what a command asks of the list.
///
/// Cancel safety: a change that was taken is made.
///
/// # Errors
/// [`CommandError`].
pub async fn moderation(
    context: &ControlContext,
    command: ModerationCommand,
) -> Result<Value, CommandError> {
    match command {
        ModerationCommand::List { after } => {
            let blocks = read(context, move |snapshot| {
                let after = after
                    .map(|after| after.resolve(|_| Ok(false), "names no entry of the list"))
                    .transpose()?;
                snapshot
                    .blocks_after(after, BLOCKS_PER_PAGE)
                    .map_err(CommandError::local)
            })
            .await?;
            let reports: Vec<BlockReport> = blocks.into_iter().map(Into::into).collect();
            answer(&reports)
        }
        ModerationCommand::Block {
            target,
            purge,
            reason,
        } => {
            if reason.len() > BLOCK_REASON_BYTES_MAX {
                return Err(CommandError::usage(format!(
                    "a reason has at most {BLOCK_REASON_BYTES_MAX} bytes"
                )));
            }
            let target = read(context, move |snapshot| {
                target.resolve(
                    |target| match target {
                        BlockTarget::Author(key) => snapshot.knows_author(&key),
                        BlockTarget::Event(id) => snapshot.knows_event(&id),
                    },
                    "is known here neither as a key nor as an event",
                )
            })
            .await?;
            let change = ListChange::Block(Block {
                target,
                purged: purge,
                since: context.clock.unix_seconds(),
                reason,
            });
            let listed = context.ingest.change_list(change).await;
            if listed.map_err(CommandError::local)? == Blocking::Full {
                return Err(CommandError::refused("the list is full: unblock something"));
            }
            let block = read(context, move |snapshot| {
                let block = snapshot.block(target).map_err(CommandError::local)?;
                block.ok_or_else(|| CommandError::local("unblocked by another command"))
            })
            .await?;
            answer(&BlockReport::from(block))
        }
        ModerationCommand::Unblock { target } => {
            let (target, listed) = read(context, move |snapshot| {
                let is_listed = |target| Ok::<_, StoreError>(snapshot.block(target)?.is_some());
                let target = target.resolve(is_listed, "is not blocked")?;
                Ok((target, is_listed(target).map_err(CommandError::local)?))
            })
            .await?;
            let named = Named::of(target);
            if !listed {
                return Err(CommandError::refused(format!("{named} is not blocked")));
            }
            let changed = context.ingest.change_list(ListChange::Unblock(target));
            changed.await.map_err(CommandError::local)?;
            answer(&named)
        }
    }
}

fn answer(value: &impl Serialize) -> Result<Value, CommandError> {
    serde_json::to_value(value).map_err(CommandError::local)
}

/// Looks into the store, off the runtime.
async fn read<T: Send + 'static>(
    context: &ControlContext,
    look: impl FnOnce(&Snapshot<'_>) -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    let store = context.ingest.store().clone();
    let looked =
        tokio::task::spawn_blocking(move || look(&store.snapshot().map_err(CommandError::local)?));
    looked.await.map_err(CommandError::local)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

    #[test]
    fn keys_and_events_are_named_as_nostr_names_them() {
        let npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
        assert_eq!(npub.parse(), Ok(Named::Author(HEX.to_owned())));
        let note = EventId::from_hex(HEX).unwrap().to_bech32().unwrap();
        assert_eq!(note.parse(), Ok(Named::Event(HEX.to_owned())));
        assert_eq!(
            format!("nostr:{note}").parse(),
            Ok(Named::Event(HEX.to_owned()))
        );
        assert_eq!(
            HEX.to_uppercase().parse(),
            Ok(Named::Either(HEX.to_owned()))
        );
        for named in [npub, &note, HEX] {
            let parsed: Named = named.parse().unwrap();
            assert_eq!(parsed.to_string(), named);
        }
        for word in [
            "",
            "alice",
            &HEX[1..],
            "npub1nonsense",
            "wss://relay.example",
        ] {
            assert_eq!(word.parse::<Named>(), Err(NotNamed), "{word}");
        }
    }

    #[test]
    fn bare_hex_is_what_is_known_by_it() {
        let hex: Named = HEX.parse().unwrap();
        let bytes = hex::decode_array(HEX).unwrap();
        let event = hex.resolve(|target| Ok(target == BlockTarget::Event(bytes)), "");
        assert_eq!(event, Ok(BlockTarget::Event(bytes)));
        let author = hex.resolve(|target| Ok(target == BlockTarget::Author(bytes)), "");
        assert_eq!(author, Ok(BlockTarget::Author(bytes)));
        let neither = hex.resolve(|_| Ok(false), "is not known").unwrap_err();
        assert!(neither.message.contains("--as"), "{neither}");
    }
}
