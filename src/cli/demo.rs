//! `constellation demo`: stations that converge before your eyes, by the same code that runs in earnest.
//!
//! Each station has its own data directory, store, relay and libp2p node. All but the first know nothing but a token
//! that the first made; they join, hear of each other by the cards that go round, and each makes one run with all it has
//! found, over tunnels. With `--no-tunnels` they are told each other's relays instead. What is said at the end is checked
//! twice: by range fingerprints, and by exporting and comparing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use constellation_eventstore::{SetScope, StoredSet};
use constellation_reconcile::{Bound, Fingerprint, SortedSet};
use nostr::filter::Filter;

use super::arguments::DemoArguments;
use super::exit::{Exit, Failure};
use super::progress::ProgressView;
use super::sync::run_here;
use super::table::{aligned, seconds, thousands};
use crate::archive::{self, Export};
use crate::config::{Config, Kademlia, KuboUse};
use crate::control::{self, TunnelCommand};
use crate::daemon::{DataDirectory, Station};
use crate::discovery::{InvitationReport, PeerReport};
use crate::peer::PeerAddress;
use crate::samples::{SocialSample, social};
use crate::sync::{KindsSpec, Outcome, SyncRequest};
use crate::time::Clock;

/// Notes of the made-up society; with all that belongs to them a few thousand events.
const NOTES: usize = 1_200;

/// How long stations may take to hear of each other.
const ACQUAINTED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct DemoStation {
    name: String,
    station: Station,
    /// Its relay.
    address: PeerAddress,
}

pub(super) async fn demo(arguments: DemoArguments) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("constellation-demo-")
        .tempdir()?;
    let clock = Clock::system();
    let inputs = match &arguments.events {
        Some(file) => from_file(file, usize::from(arguments.stations))?,
        None => made_up(&clock, usize::from(arguments.stations)).await?,
    };
    let mut stations = Vec::new();
    for number in 1..=arguments.stations {
        stations.push(start(folder.path(), number, &clock, !arguments.no_tunnels).await?);
    }
    let shown = show(&stations, &inputs, &arguments).await;
    for station in stations {
        station.station.close().await;
    }
    shown
}

async fn start(
    folder: &Path,
    number: u8,
    clock: &Clock,
    with_tunnels: bool,
) -> Result<DemoStation, Failure> {
    let name = format!("station {number}");
    let mut config = Config::default();
    config.station.name.clone_from(&name);
    config.relay.listen = Some("127.0.0.1:0".parse().map_err(Failure::local)?);
    config.tunnel.enabled = with_tunnels;
    config.tunnel.listen = Some(vec![
        "/ip4/127.0.0.1/tcp/0".parse().map_err(Failure::local)?,
        "/ip4/127.0.0.1/udp/0/quic-v1"
            .parse()
            .map_err(Failure::local)?,
    ]);
    // Only cards, so that what is shown is what a token and one address are enough for.
    config.tunnel.mdns = false;
    config.tunnel.kademlia = Kademlia::Off;
    config.kubo.used = KuboUse::Never;
    let directory = DataDirectory::at(folder.join(format!("station-{number}")));
    let station = Station::open(directory, &config, clock.clone()).await?;
    let relay = station.start_relay(&config)?;
    station.start_tunnels(&config, Some(&relay)).await?;
    let address = format!("ws://{}", relay.address())
        .parse()
        .map_err(Failure::local)?;
    Ok(DemoStation {
        name,
        station,
        address,
    })
}

async fn show(
    stations: &[DemoStation],
    inputs: &[Vec<String>],
    arguments: &DemoArguments,
) -> Result<Exit, Failure> {
    for (station, lines) in stations.iter().zip(inputs) {
        let text = lines.join("\n");
        let report = archive::import(station.station.ingest(), &mut text.as_bytes(), &mut |_| {})
            .await
            .map_err(Failure::local)?;
        if report.failed_lines() > 0 {
            eprintln!(
                "{}: {} lines are no genuine events and were left out",
                station.name,
                report.failed_lines()
            );
        }
    }
    outln!("Before:");
    outln!("{}", overview(stations).await?.trim_end());
    outln!("");
    if !arguments.no_tunnels {
        acquaint(stations).await?;
        outln!("");
    }
    let mut converged = true;
    for station in stations {
        match converge(station, stations, arguments.no_tunnels).await? {
            Some(outcome) => converged &= outcome == Outcome::Converged,
            None => return Ok(Exit::Interrupted),
        }
    }
    outln!("");
    outln!("After:");
    outln!("{}", overview(stations).await?.trim_end());
    outln!("");
    let equal = compare(stations).await?;
    if arguments.keep {
        outln!("");
        outln!("The stations stay until you press Ctrl-C:");
        for station in stations {
            outln!("  {}  {}", station.name, station.address);
        }
        tokio::signal::ctrl_c().await?;
    }
    Ok(if equal && converged {
        Exit::Done
    } else {
        Exit::Partial
    })
}

/// All but the first join it with tokens, and hear of each other.
async fn acquaint(stations: &[DemoStation]) -> Result<(), Failure> {
    let Some((first, others)) = stations.split_first() else {
        return Ok(());
    };
    for other in others {
        let lifetime_s = 60;
        let invited = ask(&first.station, TunnelCommand::Invite { lifetime_s }).await?;
        let invitation: InvitationReport =
            serde_json::from_value(invited).map_err(Failure::local)?;
        let join = TunnelCommand::Join {
            token: invitation.token,
            accept_constellation: false,
        };
        ask(&other.station, join).await?;
        outln!("{} has joined {} with a token", other.name, first.name);
    }
    let all_know_all = async {
        for station in stations {
            while admitted(&station.station).await? + 1 < stations.len() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(ACQUAINTED_WITHIN, all_know_all)
        .await
        .map_err(|_| Failure::local("the stations have not heard of each other in time"))??;
    outln!("Each of them knows all the others now, by their signed cards.");
    Ok(())
}

/// Stations that may enter this one.
async fn admitted(station: &Station) -> Result<usize, Failure> {
    let peers = ask(station, TunnelCommand::Peers).await?;
    let peers: Vec<PeerReport> = serde_json::from_value(peers).map_err(Failure::local)?;
    let admitted = peers
        .iter()
        .filter(|peer| peer.standing.as_deref() == Some("admitted"));
    Ok(admitted.count())
}

async fn ask(station: &Station, command: TunnelCommand) -> Result<serde_json::Value, Failure> {
    let context = station.control_context(station.tasks().clone());
    Ok(control::tunnels(&context, command).await?)
}

/// One run of one station with all the others; `None` when interrupted.
async fn converge(
    station: &DemoStation,
    all: &[DemoStation],
    no_tunnels: bool,
) -> Result<Option<Outcome>, Failure> {
    let told = all
        .iter()
        .filter(|other| no_tunnels && other.address != station.address);
    let request = SyncRequest {
        // Nobody named: all that were found.
        peers: told.map(|other| other.address.clone()).collect(),
        kinds: Some(KindsSpec::All),
        ..SyncRequest::default()
    };
    let mut view = ProgressView::new(true);
    let Some(report) = run_here(&station.station, &request, &mut view).await? else {
        return Ok(None);
    };
    view.finish();
    outln!(
        "{} with {} peers: {}, {} fetched, {} offered, {}",
        station.name,
        report.peers.len(),
        report.outcome,
        thousands(report.totals.downloaded),
        thousands(report.totals.uploaded),
        seconds(report.duration_ms)
    );
    for peer in report
        .peers
        .iter()
        .filter(|peer| peer.outcome != Outcome::Converged)
    {
        outln!("  {}: {} {:?}", peer.address, peer.outcome, peer.error);
    }
    Ok(Some(report.outcome))
}

async fn overview(stations: &[DemoStation]) -> Result<String, Failure> {
    let mut held = Vec::new();
    for station in stations {
        held.push(exported(station).await?);
    }
    let union: BTreeSet<&String> = held.iter().flatten().collect();
    let mut rows = vec![vec![String::new(), "events".into(), "missing".into()]];
    for (station, events) in stations.iter().zip(&held) {
        rows.push(vec![
            station.name.clone(),
            thousands(events.len() as u64),
            thousands((union.len() - events.len()) as u64),
        ]);
    }
    Ok(aligned(&rows))
}

async fn exported(station: &DemoStation) -> Result<BTreeSet<String>, Failure> {
    let now = station.station.clock().unix_seconds();
    let store = station.station.ingest().store();
    let mut export = Export::begin(store, Filter::new(), now)
        .await
        .map_err(Failure::local)?;
    let mut events = BTreeSet::new();
    while let Some(lines) = export.next().await.map_err(Failure::local)? {
        let lines = String::from_utf8(lines).map_err(Failure::local)?;
        events.extend(lines.lines().map(str::to_owned));
    }
    Ok(events)
}

fn fingerprint(station: &DemoStation) -> Result<Fingerprint, Failure> {
    let store = station.station.ingest().store();
    let snapshot = store.snapshot().map_err(Failure::local)?;
    let set = StoredSet::new(&snapshot, &SetScope::everything());
    let summary = set
        .summary(&Bound::MIN, &Bound::INFINITY)
        .map_err(Failure::local)?;
    Ok(summary.fingerprint())
}

/// Compares the stations by range fingerprints, and by what they export.
async fn compare(stations: &[DemoStation]) -> Result<bool, Failure> {
    let mut fingerprints = BTreeSet::new();
    let mut exports = BTreeSet::new();
    for station in stations {
        fingerprints.insert(fingerprint(station)?);
        exports.insert(exported(station).await?);
    }
    let verdict = |distinct: usize| if distinct == 1 { "equal" } else { "DIFFERENT" };
    outln!("Range fingerprints: {}", verdict(fingerprints.len()));
    outln!("Exported events:    {}", verdict(exports.len()));
    let equal = fingerprints.len() == 1 && exports.len() == 1;
    if equal {
        outln!("All {} stations hold the same events.", stations.len());
    }
    Ok(equal)
}

fn from_file(file: &Path, stations: usize) -> Result<Vec<Vec<String>>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    let mut inputs = vec![Vec::new(); stations];
    for (number, line) in text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .enumerate()
    {
        inputs[number % stations].push(line.to_owned());
    }
    Ok(inputs)
}

async fn made_up(clock: &Clock, stations: usize) -> Result<Vec<Vec<String>>, Failure> {
    let now = clock.unix_seconds();
    let sample = tokio::task::spawn_blocking(move || social(&mut rand::rng(), now, NOTES));
    let SocialSample {
        spread,
        common,
        replaced,
        deleted,
    } = sample.await.map_err(Failure::local)?;
    outln!(
        "Made {} events: {} for all stations, {} replaced, {} deleted, the rest spread.",
        thousands((spread.len() + common.len() + 2 * (replaced.len() + deleted.len())) as u64),
        common.len(),
        replaced.len(),
        deleted.len()
    );
    let mut inputs = vec![Vec::new(); stations];
    for (number, event) in spread.iter().enumerate() {
        inputs[number % stations].push(event.as_json());
    }
    for event in &common {
        for input in &mut inputs {
            input.push(event.as_json());
        }
    }
    for (number, (first, second)) in replaced.iter().chain(&deleted).enumerate() {
        inputs[number % stations].push(first.as_json());
        inputs[(number + 1) % stations].push(second.as_json());
    }
    Ok(inputs)
}
