//! The words of `block`, `unblock` and `purge`.

use clap::Args;

use crate::control::Named;

#[derive(Debug, Args)]
pub(in crate::cli) struct BlockArguments {
    /// npub1…, nprofile1…, note1…, nevent1…, or hex
    #[arg(required_unless_present = "list")]
    pub(in crate::cli) target: Option<Named>,
    /// Why, for your own memory
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    /// What hex stands for that this station does not know
    #[arg(long = "as", value_enum, value_name = "WHAT")]
    pub(in crate::cli) meant: Option<BlockedAs>,
    /// Show what is blocked
    #[arg(long, conflicts_with_all = ["target", "reason", "meant"])]
    pub(in crate::cli) list: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArguments {
    /// npub1…, nprofile1…, note1…, nevent1…, or hex
    pub(in crate::cli) target: Named,
    /// Why, for your own memory
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    /// What hex stands for that this station does not know
    #[arg(long = "as", value_enum, value_name = "WHAT")]
    pub(in crate::cli) meant: Option<BlockedAs>,
    /// Print one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UnblockArguments {
    /// npub1…, nprofile1…, note1…, nevent1…, or hex
    pub(in crate::cli) target: Named,
    /// What hex stands for
    #[arg(long = "as", value_enum, value_name = "WHAT")]
    pub(in crate::cli) meant: Option<BlockedAs>,
}

/// What hex may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum BlockedAs {
    /// A public key
    Author,
    /// An event's id
    Event,
}
