//! A relay (`nostr-relay-builder`) and a NIP-77 client (`nostr-sdk`), both by rust-nostr. What is here
//! only reads arguments and files: the protocol is all theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nostr_relay_builder::builder::{RateLimit, RelayBuilder};
use nostr_relay_builder::local::LocalRelay;
use nostr_sdk::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

type Failure = Box<dyn Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

const USAGE: &str = "usage:
  rust-nostr-relay serve [--port N] [--events FILE] [--max-limit N]
  rust-nostr-relay sync URL [--events FILE] [--direction up|down|both] [--dump FILE] [--passes N] [--timeout SECONDS]";

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse(std::env::args().skip(1)) {
        Ok(Command::Serve(options)) => serve(options).await,
        Ok(Command::Sync(options)) => sync(options).await,
        Err(error) => {
            eprintln!("rust-nostr-relay: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-nostr-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Command {
    Serve(ServeOptions),
    Sync(SyncArguments),
}

#[derive(Default)]
struct ServeOptions {
    /// Without it, the relay chooses a free one.
    port: Option<u16>,
    events: Option<PathBuf>,
    /// How many events one filter may ask for; without it, any number.
    max_limit: Option<usize>,
}

struct SyncArguments {
    url: String,
    events: Option<PathBuf>,
    direction: SyncDirection,
    dump: Option<PathBuf>,
    /// How often to reconcile: see the README for the relays with which once is not enough.
    passes: u32,
    timeout: Duration,
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        match arguments.next().as_deref() {
            Some("serve") => {
                let mut options = ServeOptions::default();
                while let Some(name) = arguments.next() {
                    let value = arguments
                        .next()
                        .ok_or_else(|| format!("{name} needs a value"))?;
                    match name.as_str() {
                        "--port" => options.port = Some(value.parse()?).filter(|port| *port != 0),
                        "--events" => options.events = Some(value.into()),
                        "--max-limit" => options.max_limit = Some(value.parse()?),
                        _ => return Err(format!("unknown option {name}").into()),
                    }
                }
                Ok(Self::Serve(options))
            }
            Some("sync") => {
                let mut options = SyncArguments {
                    url: arguments.next().ok_or("the URL is missing")?,
                    events: None,
                    direction: SyncDirection::Both,
                    dump: None,
                    passes: 1,
                    timeout: Duration::from_secs(60),
                };
                while let Some(name) = arguments.next() {
                    let value = arguments
                        .next()
                        .ok_or_else(|| format!("{name} needs a value"))?;
                    match name.as_str() {
                        "--events" => options.events = Some(value.into()),
                        "--direction" => {
                            options.direction = match value.as_str() {
                                "up" => SyncDirection::Up,
                                "down" => SyncDirection::Down,
                                "both" => SyncDirection::Both,
                                _ => return Err(format!("unknown direction {value}").into()),
                            }
                        }
                        "--dump" => options.dump = Some(value.into()),
                        "--passes" => options.passes = value.parse()?,
                        "--timeout" => options.timeout = Duration::from_secs(value.parse()?),
                        _ => return Err(format!("unknown option {name}").into()),
                    }
                }
                Ok(Self::Sync(options))
            }
            Some(command) => Err(format!("unknown command {command}").into()),
            None => Err("the command is missing".into()),
        }
    }
}

/// rust-nostr's memory database with the file's events in the file's order. They are not verified, so
/// that a test may load what a relay ought not to have; what the database itself refuses is told.
async fn database(events: Option<PathBuf>) -> Result<MemoryDatabase> {
    let database = MemoryDatabase::with_opts(MemoryDatabaseOptions {
        events: true,
        max_events: None,
    });
    let Some(path) = events else {
        return Ok(database);
    };
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut lines, mut stored) = (0, 0);
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let event = Event::from_json(line)
            .map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))?;
        lines += 1;
        match database.save_event(&event).await? {
            SaveEventStatus::Success => stored += 1,
            SaveEventStatus::Rejected(reason) => {
                eprintln!("not loaded: {} kind {}: {reason:?}", event.id, event.kind)
            }
        }
    }
    eprintln!(
        "loaded {stored} of {lines} events, {} left",
        ids(&database).await?.len()
    );
    Ok(database)
}

/// What the database holds, as its negentropy sees it.
async fn ids(database: &MemoryDatabase) -> Result<BTreeSet<EventId>> {
    Ok(database
        .negentropy_items(Filter::new())
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect())
}

async fn serve(options: ServeOptions) -> Result<()> {
    /// Far beyond any test.
    const PLENTY: usize = 1_000_000;
    let mut builder = RelayBuilder::default()
        .database(database(options.events).await?)
        .rate_limit(RateLimit {
            max_reqs: PLENTY,
            notes_per_minute: u32::MAX,
        })
        .default_filter_limit(options.max_limit.unwrap_or(PLENTY));
    if let Some(port) = options.port {
        builder = builder.port(port);
    }
    if let Some(max) = options.max_limit {
        builder = builder.max_filter_limit(max);
    }
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let relay = LocalRelay::new(builder);
    relay.run().await?;
    println!(
        "listening {}",
        relay.url().await.as_str_without_trailing_slash()
    );
    std::io::stdout().flush()?;
    tokio::select! {
        _ = stdin_closed() => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    relay.shutdown();
    Ok(())
}

/// A thread of its own, for a blocked read of tokio's would keep the process from ending.
async fn stdin_closed() {
    let (closed, when_closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        // the receiver is gone when a signal came first
        let _ = closed.send(());
    });
    let _ = when_closed.await;
}

async fn sync(options: SyncArguments) -> Result<()> {
    let database = database(options.events).await?;
    let client = Client::builder().database(database.clone()).build();
    // Their limits on what a relay sends are not what is tried here. A full channel would end their
    // reconciliation early and call it a success.
    let relay_options = RelayOptions::new()
        .limits(RelayLimits::disable())
        .reconnect(false)
        .notification_channel_size(1 << 16);
    client
        .pool()
        .add_relay(options.url.as_str(), relay_options)
        .await?;
    client
        .try_connect_relay(
            options.url.as_str(),
            options.timeout.min(Duration::from_secs(10)),
        )
        .await?;

    let sync_options = SyncOptions::new().direction(options.direction);
    let (mut sent, mut received, mut refused) = (
        BTreeSet::<EventId>::new(),
        BTreeSet::<EventId>::new(),
        BTreeMap::<EventId, String>::new(),
    );
    let reconcile = async {
        for _ in 0..options.passes {
            let output = client.sync(Filter::new(), &sync_options).await?;
            if let Some((url, error)) = output.failed.iter().next() {
                return Err(format!("{url}: {error}").into());
            }
            sent.extend(&output.sent);
            received.extend(&output.received);
            refused.extend(output.val.send_failures.into_values().flatten());
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(options.timeout, reconcile)
        .await
        .map_err(|_| format!("not done within {:?}", options.timeout))??;

    let local = ids(&database).await?;
    for (id, reason) in &refused {
        eprintln!("refused: {id}: {reason}");
    }
    if let Some(path) = options.dump {
        let lines: String = local.iter().map(|id| format!("{id}\n")).collect();
        std::fs::write(&path, lines).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    println!(
        "{}",
        serde_json::json!({
            "sent": sent.len(),
            "received": received.len(),
            "local": local.len(),
            "refused": refused.len(),
        })
    );
    client.shutdown().await;
    Ok(())
}
