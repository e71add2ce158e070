//! The words of `constellation astroport`: those of the scripts that it stands for.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AstroportCommand {
    /// One run now, as the hourly scripts make it: the same locks, logs and files
    ///
    /// Asks the running station, or does it itself. Exits 0 where another run is in progress, the hourly job has just made one, or
    /// all converged; 1 where something is left over or this is no Astroport station; 3 where nobody was reached; 4 where the time was up.
    Trigger(TriggerArguments),
}

/// With `--verbose`, every line of the run's log is printed; without, warnings and errors.
#[derive(Debug, Args)]
pub(in crate::cli) struct TriggerArguments {
    /// How far back; 0 is the whole history. 1 asks for what the hourly run does: a day at least, and whatever lacks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) days: u32,
    /// Without private messages
    #[arg(long)]
    pub(in crate::cli) no_dms: bool,
    /// Check signatures (they always are)
    #[arg(long)]
    pub(in crate::cli) verify: bool,
    /// Without looking for missing profiles: exactly the days that are named
    #[arg(long)]
    pub(in crate::cli) no_profiles: bool,
    /// Compare only, and show what would be moved
    #[arg(long = "DRYRUN")]
    pub(in crate::cli) dry_run: bool,
    /// Show the public keys that are shared, and do nothing
    #[arg(long)]
    pub(in crate::cli) show_hex: bool,
    /// Show how many events and keys there are, and do nothing
    #[arg(long)]
    pub(in crate::cli) stats: bool,
    /// Show how large the logs are, and do nothing
    #[arg(long)]
    pub(in crate::cli) log_stats: bool,
}
