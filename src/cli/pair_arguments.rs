//! The words of `diff` and `mirror`. Syntax only.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::Args;
use nostr::key::PublicKey;

use super::arguments::parse_time;
use super::pair_sides::PairSide;
use crate::pairs::Towards;
use crate::sync::KindsSpec;

/// Two relays, and which of their events.
#[derive(Debug, Args)]
pub(super) struct PairArguments {
    /// The first: a relay (ws://host:port or wss://host), or a station (its PeerID, /p2p/<PeerID>, or what it calls itself)
    #[arg(value_name = "A")]
    pub(super) first: PairSide,
    /// The second
    #[arg(value_name = "B")]
    pub(super) second: PairSide,
    /// Only the last N days; 0 is the whole history
    #[arg(long, value_name = "N", conflicts_with = "since")]
    pub(super) days: Option<u32>,
    /// Only events from this time on: Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) since: Option<u64>,
    /// Only events up to this time: Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) until: Option<u64>,
    /// Kinds: "all", or numbers and ranges such as 0,1,30000-30003 [default: those of the configuration]
    #[arg(long, value_name = "LIST")]
    pub(super) kinds: Option<KindsSpec>,
    /// Whose events: "all", or public keys (hex or npub), separated by commas
    #[arg(long, value_name = "WHO", default_value = "all")]
    pub(super) authors: PairAuthors,
    /// Private messages too (kinds 4, 13, 1059)
    #[arg(long)]
    pub(super) dms: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    #[command(flatten)]
    pub(super) pair: PairArguments,
}

#[derive(Debug, Args)]
pub(super) struct MirrorArguments {
    #[command(flatten)]
    pub(super) pair: PairArguments,
    /// Which way events go
    #[arg(long, value_enum, default_value_t)]
    pub(super) direction: Towards,
    /// Compare only, and show what would be moved
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Whose events two relays are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PairAuthors {
    /// Anybody's.
    All,
    /// Theirs.
    These(BTreeSet<[u8; 32]>),
}

impl FromStr for PairAuthors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let keys = text.split(',').map(|word| {
            let key = PublicKey::parse(word.trim());
            key.map(PublicKey::to_bytes)
                .map_err(|_| format!("{word:?} is no public key: expected hex, npub, or \"all\""))
        });
        Ok(Self::These(keys.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_keys_or_everybody() {
        let hex = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d";
        let npub = "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6";
        let both: PairAuthors = format!("{hex}, {npub}").parse().expect("keys");
        assert_eq!(hex.parse(), Ok(both), "one key in two spellings");
        assert_eq!("all".parse(), Ok(PairAuthors::All));
        assert!("n2".parse::<PairAuthors>().is_err());
    }
}
