//! What a station costs that has nothing to do: processor time and memory of one of four, as processes of their own, joined
//! by tokens, over tunnels, with live links, all of them equal.
//!
//! Measured from when nothing has moved for a while, for as long as asked; the schedule stands as it does by default. What is
//! not in it: finding stations in the local network, which would meet whoever else is there. Memory is the highest seen.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::Input;
use super::process::{Bench, Serving, milliseconds};
use super::row::Row;
use crate::cli::exit::Failure;
use crate::control::StatusReport;
use crate::discovery::InvitationReport;
use crate::limits::RETURN_MEMORY_EVERY;
use crate::time::Clock;

const STATIONS: usize = 4;
/// How long until they are linked and equal.
const DEADLINE: Duration = Duration::from_secs(300);
/// Pause between two looks at whether anything still moves, and how many looks must find nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const QUIET_LOOKS: u32 = 5;

const CONFIG: &str = "[relay]\nlisten = \"127.0.0.1:0\"\n[astroport]\nenabled = false\n[kubo]\nuse = \"never\"\n[tunnel]\nmdns = false\nkademlia = \"off\"\n\
     listen = [\"/ip4/127.0.0.1/tcp/0\", \"/ip4/127.0.0.1/udp/0/quic-v1\"]\n[scope]\nkinds = \"all\"\n";

/// Measures for `period`, with the events of `input` on each station.
pub(super) async fn measure(
    folder: &Path,
    clock: &Clock,
    input: &Input,
    period: Duration,
) -> Result<Row, Failure> {
    let folder = folder.join("idle");
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("constellation.toml");
    std::fs::write(&config, CONFIG)?;
    let bench = Bench {
        config: &config,
        clock,
    };
    let first = folder.join("0");
    bench
        .run(&first, &["import", "--json"], input.open()?)
        .await?;
    let mut stations = vec![bench.serve(&first).await?];
    for number in 1..STATIONS {
        let invited = bench
            .run(&first, &["invite", "--json"], Stdio::null())
            .await?;
        let invitation: InvitationReport =
            serde_json::from_slice(&invited.output).map_err(Failure::local)?;
        let data = folder.join(number.to_string());
        stations.push(bench.serve(&data).await?);
        bench
            .run(&data, &["join", &invitation.token], Stdio::null())
            .await?;
    }
    let links = tokio::time::timeout(DEADLINE, until_quiet(&bench, &folder, input.events))
        .await
        .map_err(|_| {
            Failure::local("four stations that were joined do not come to rest in time")
        })??;
    // What the exchange left in the heaps goes back within that time; what stays counts.
    tokio::time::sleep(RETURN_MEMORY_EVERY + LOOK_EVERY).await;
    // One of those that fetched, not the first, which only gave.
    let ((), cost) = stations[1].during(tokio::time::sleep(period)).await;
    for station in stations {
        Serving::end(station).await?;
    }
    #[allow(clippy::cast_precision_loss)] // thousands
    let share = cost.cpu_ms as f64 * 100.0 / milliseconds(period) as f64;
    let what = format!("idle, {links} live links: {share:.2} % of a core");
    Ok(Row::new(what, milliseconds(period), cost))
}

/// Waits until every station has all events and nothing moves; gives the live links of the one that is measured.
async fn until_quiet(bench: &Bench<'_>, folder: &Path, events: u64) -> Result<usize, Failure> {
    let mut quiet = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut links = 0;
        let mut moves = false;
        for number in 0..STATIONS {
            let data = folder.join(number.to_string());
            let answer = bench
                .run(&data, &["status", "--json"], Stdio::null())
                .await?;
            let status: StatusReport =
                serde_json::from_slice(&answer.output).map_err(Failure::local)?;
            moves |= status.run_in_progress
                || status.events < events
                || status.live.links.len() + 1 < STATIONS;
            if number == 1 {
                links = status.live.links.len();
            }
        }
        quiet = if moves { 0 } else { quiet + 1 };
        if quiet == QUIET_LOOKS {
            return Ok(links);
        }
    }
}
