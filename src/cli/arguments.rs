//! The words of the command line. Syntax only: what they mean is decided where they are used.

mod astroport;
mod moderation;
mod reports;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub(super) use self::astroport::{AstroportCommand, TriggerArguments};
pub(super) use self::moderation::{BlockArguments, BlockedAs, PurgeArguments, UnblockArguments};
pub(super) use self::reports::{HistoryArguments, ReportArguments};
use super::pair_arguments::{DiffArguments, MirrorArguments};
use crate::peer::{Direction, PeerAddress};
use crate::sync::{AuthorsSpec, KindsSpec};
use crate::tunnel::ServiceName;

/// Keeps a group of Nostr relays equal.
#[derive(Debug, Parser)]
#[command(
    name = "constellation",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// Data directory: events, identity, state [default: $XDG_DATA_HOME/constellation]
    #[arg(long, global = true, value_name = "DIR", display_order = 900)]
    pub(super) data: Option<PathBuf>,
    /// Configuration file [default: $XDG_CONFIG_HOME/constellation/constellation.toml]
    #[arg(long, global = true, value_name = "FILE", display_order = 901)]
    pub(super) config: Option<PathBuf>,
    /// Say more on standard error
    #[arg(long, short, global = true, display_order = 902)]
    pub(super) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the station: relay, tunnels, schedule, control socket
    Run,
    /// Exchange events with all peers now, in both directions
    Sync(SyncArguments),
    /// What two relays do not share, moving nothing
    Diff(DiffArguments),
    /// Make two relays equal through this machine, without touching the store
    Mirror(MirrorArguments),
    /// Let stations converge before your eyes, each with its own data and relay
    Demo(DemoArguments),
    /// How the station is: events, last run, peers
    Status(StatusArguments),
    /// What is told of a run: for people, as a page, or sent
    Report(ReportArguments),
    /// Past runs, the newest last
    History(HistoryArguments),
    /// Read events as JSON lines from standard input
    Import(JsonArguments),
    /// Write events as JSON lines to standard output, newest first
    Export(ExportArguments),
    /// Count events
    Count(CountArguments),
    /// Look after the event store
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Services of other stations on this machine, and of this one for others
    Tunnel {
        #[command(subcommand)]
        action: TunnelAction,
    },
    /// Make a token with which one station can join
    Invite(InviteArguments),
    /// Join the constellation of whoever made a token
    Join(JoinArguments),
    /// Who there is and who may enter
    Peers(PeersArguments),
    /// Whose events are shared under n2: members, and how many they and those whom they follow lead to
    Members(MembersArguments),
    /// Take, serve and share nothing any more of a key or event; what is stored is kept, hidden
    ///
    /// Holds on this station alone, whoever sends the event: clients, peers, and `import` too (unblock first). Hidden
    /// events are neither served, shared, exported nor counted by `count`.
    Block(BlockArguments),
    /// Take a block back: what was hidden is shown again, what peers have is fetched by the next run
    Unblock(UnblockArguments),
    /// Delete what is stored of a key or event from this station, and block it
    ///
    /// No deletion is told to others: what they have they keep, and it does not come back here.
    Purge(PurgeArguments),
    /// What is wrong with the station and its surroundings, and what to do
    ///
    /// Changes nothing, and works beside a running station as without one. Exit code 1: something must be done.
    Doctor(JsonArguments),
    /// Write a commented configuration
    Init(InitArguments),
    /// In place of the scripts of an Astroport station
    Astroport {
        #[command(subcommand)]
        command: AstroportCommand,
    },
    /// Measure this machine: imports, exchanges near and far
    Bench(BenchArguments),
    /// Write what has a shell complete these commands
    Completions(CompletionsArguments),
    /// Write the manual: one page to standard output, or all pages into a folder
    Man(ManArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Check that indexes and fingerprints equal a rebuild, and that every event verifies
    Verify(JsonArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum TunnelAction {
    /// Show what is exposed, open and connected
    Ls(JsonArguments),
    /// Let admitted stations use a service of this machine
    Expose(ExposeArguments),
    /// Open a service of another station on a local port that stays the same
    Open(OpenArguments),
    /// Stop exposing a service, or close an open one
    Close(CloseArguments),
}

#[derive(Debug, Args)]
pub(super) struct ExposeArguments {
    /// The service: strfry, ssh, ollama, comfyui, orpheus, perplexica, or any other name
    #[arg(required_unless_present = "detect")]
    pub(super) name: Option<ServiceName>,
    /// Where it listens on this machine [default: its known port]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// Only for this station (repeatable): /p2p/<PeerID>
    #[arg(long, value_name = "PEER")]
    pub(super) allow: Vec<PeerAddress>,
    /// Show which of the known services listen here, exposing nothing
    #[arg(long, conflicts_with_all = ["name", "port", "allow"])]
    pub(super) detect: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OpenArguments {
    /// The service
    pub(super) name: ServiceName,
    /// The station: /p2p/<PeerID>, or an address that ends so
    pub(super) peer: PeerAddress,
    /// The local port [default: the service's own, or a free one, always the same]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CloseArguments {
    /// The service
    pub(super) name: ServiceName,
    /// The station whose service is open here
    pub(super) peer: Option<PeerAddress>,
}

#[derive(Debug, Args)]
pub(super) struct InviteArguments {
    /// How long the token is good, such as 30m, 12h or 3d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_lifetime)]
    pub(super) expires: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct JoinArguments {
    /// What `constellation invite` printed on the other station
    pub(super) token: String,
    /// Leave the constellation that this station belongs to, and share what is stored here with the new one
    #[arg(long)]
    pub(super) accept_constellation: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PeersArguments {
    #[command(subcommand)]
    pub(super) command: Option<PeersCommand>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum PeersCommand {
    /// Exchange events with this peer; a station may also enter
    Add {
        /// ws://host:port, wss://host, a multiaddr with /p2p/<PeerID>, or /p2p/<PeerID>
        address: PeerAddress,
    },
    /// Take back that a peer was added or allowed
    Remove {
        /// An address or PeerID
        peer: String,
    },
    /// Let a station enter
    Allow {
        /// A PeerID, an address that ends in one, or an ssh-ed25519 line
        peer: String,
    },
    /// Put a station out, here and everywhere
    Revoke {
        /// A PeerID, an address that ends in one, or an ssh-ed25519 line
        peer: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct MembersArguments {
    /// Show everybody, not only members
    #[arg(long)]
    pub(super) all: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct JsonArguments {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Go on showing it, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// Which shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write a page for each command here
    #[arg(value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SyncArguments {
    /// Only the last N days; 0 is the whole history
    #[arg(long, value_name = "N", conflicts_with_all = ["since", "full"])]
    pub(super) days: Option<u32>,
    /// Only events from this time on: Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "full")]
    pub(super) since: Option<u64>,
    /// Only events up to this time: Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "full")]
    pub(super) until: Option<u64>,
    /// The whole history
    #[arg(long)]
    pub(super) full: bool,
    /// Exchange with this peer instead of the configured ones (repeatable): ws://host:port, wss://host,
    /// or a station by its multiaddr or /p2p/<PeerID>
    #[arg(long, value_name = "ADDR")]
    pub(super) peer: Vec<PeerAddress>,
    /// Kinds to share: "all", or numbers and ranges such as 0,1,30000-30003
    #[arg(long, value_name = "LIST")]
    pub(super) kinds: Option<KindsSpec>,
    /// Whose events to share: "all", "n2" (members, whom they follow, and whom those follow), or public keys
    #[arg(long, value_name = "WHO")]
    pub(super) authors: Option<AuthorsSpec>,
    /// Share private messages too (kinds 4, 13, 1059)
    #[arg(long)]
    pub(super) dms: bool,
    /// Which way events go: down is from the peer to us
    #[arg(long, value_enum)]
    pub(super) direction: Option<Direction>,
    /// Compare only, and show what would be moved
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// How many stations
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(super) stations: u8,
    /// Spread these events (JSON lines) instead of made ones
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// Connect the stations by plain ws:// instead of tunnels
    #[arg(long)]
    pub(super) no_tunnels: bool,
    /// Leave the stations running and print their addresses
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Only events that match this NIP-01 filter (JSON)
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(super) filter: String,
}

#[derive(Debug, Args)]
pub(super) struct CountArguments {
    /// Only events that match this NIP-01 filter (JSON)
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(super) filter: String,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// Write to standard output instead of the configuration file
    #[arg(long)]
    pub(super) stdout: bool,
    /// Write the page docs/configuration.md to standard output
    #[arg(long, hide = true, conflicts_with_all = ["stdout", "accept_constellation"])]
    pub(super) reference: bool,
    /// Confirm that the events stored here may be shared with the constellation that the configuration names now
    #[arg(long, conflicts_with = "stdout")]
    pub(super) accept_constellation: bool,
}

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub(super) events: u32,
    /// Work in this folder and leave the events and stations there, instead of a temporary one
    #[arg(long, value_name = "FOLDER")]
    pub(super) keep: Option<std::path::PathBuf>,
    /// Also what shows only with a million events: takes minutes, and 10 GB
    #[arg(long)]
    pub(super) million: bool,
    /// Only live links: how soon what is published on one of ten stations is on all
    #[arg(long, conflicts_with = "million")]
    pub(super) live: bool,
    /// Only what a station costs that has nothing to do, watched for five minutes
    #[arg(long, conflicts_with_all = ["million", "live"])]
    pub(super) idle: bool,
    /// Print one JSON array
    #[arg(long)]
    pub(super) json: bool,
}

/// The longest that a token may be good.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time such as 30m, 12h or 3d");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let days_are_24_hours = jiff::SpanRelativeTo::days_are_24_hours();
    let signed = span.to_duration(days_are_24_hours).map_err(|_| wrong())?;
    let lifetime = Duration::try_from(signed).map_err(|_| wrong())?;
    if lifetime.is_zero() || lifetime > LIFETIME_MAX {
        return Err("a token is good for at least a second and at most a year".to_owned());
    }
    Ok(lifetime)
}

/// Unix seconds, or RFC 3339.
pub(super) fn parse_time(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let wrong = || format!("{text:?} is neither Unix seconds nor RFC 3339 (2026-01-31T12:00:00Z)");
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_second()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        assert_eq!(parse_time("1700000000"), Ok(1_700_000_000));
        assert_eq!(parse_time("2023-11-14T22:13:20Z"), Ok(1_700_000_000));
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn authors_that_are_none_are_refused() {
        let words = ["constellation", "sync", "--authors", "n3"];
        let error = Arguments::try_parse_from(words)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("names no authors"), "{error}");
    }
}
