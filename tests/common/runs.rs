//! Runs through the library, in this process, where deadlines or parts are not those of the command.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use constellation::config::Config;
use constellation::daemon::{DataDirectory, Station};
use constellation::ingest::{Ingest, Mode, Parts};
use constellation::peer::{PeerId, Visitors};
use constellation::random::Random;
use constellation::recent_ids::BroughtByPeers;
use constellation::relay_client::{Dialer, NostrKey};
use constellation::sync::{
    Deadlines, RunContext, RunReport, Runner, Surroundings, SyncOptions, SyncRequest,
};
use constellation::tasks::TaskGroup;
use constellation::time::{Clock, TimeSource};
use constellation_event::BreakEven;

use super::Home;

/// Long enough for a loaded machine, short enough to wait for.
pub(crate) const SHORT: Deadlines = Deadlines {
    connect: Duration::from_secs(1),
    step: Duration::from_secs(1),
    exchange: Duration::from_secs(20),
    run: Duration::from_secs(30),
};

/// A run with these peers in this process, under these deadlines.
pub(crate) fn run_within(home: &Home, peers: &[&str], deadlines: Deadlines) -> RunReport {
    let options = SyncOptions {
        deadlines,
        ..SyncOptions::default()
    };
    run_with(home, peers, options)
}

/// A run with these options in this process; with these peers, if there are any.
pub(crate) fn run_with(home: &Home, peers: &[&str], options: SyncOptions) -> RunReport {
    run_at(home, peers, options, Clock::system())
}

/// The same by this clock.
pub(crate) fn run_at(home: &Home, peers: &[&str], options: SyncOptions, clock: Clock) -> RunReport {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let request = SyncRequest {
        peers: peers
            .iter()
            .map(|peer| peer.parse().expect("an address"))
            .collect(),
        ..SyncRequest::default()
    };
    runtime.block_on(async {
        let directory = DataDirectory::at(home.data());
        let station = Station::open(directory.clone(), &Config::default(), clock.clone())
            .await
            .expect("the station opens");
        let tasks = station.tasks().child(64);
        let context = RunContext {
            ingest: station.ingest().clone(),
            dialer: Arc::new(Dialer::new()),
            nostr_key: NostrKey::at(directory.nostr_key(), Random::system()),
            own: station.known_as(),
            visitors: Visitors::default(),
            brought: BroughtByPeers::default(),
            plugin: None,
            clock,
            random: Random::system(),
            tasks: tasks.clone(),
            state: directory.state(),
        };
        let options = tokio::sync::watch::Sender::new(Arc::new(options));
        let runner = Runner::new(context, options.subscribe(), Surroundings::none());
        let report = Box::pin(runner.trigger(&request, |_| {}))
            .await
            .expect("a report");
        tasks.end().await;
        station.close().await;
        report
    })
}

/// The system's time, later by so many seconds.
#[derive(Debug)]
pub(crate) struct Later(pub(crate) u64);

impl TimeSource for Later {
    fn wall(&self) -> Duration {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        since.expect("after 1970") + Duration::from_secs(self.0)
    }

    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

/// A run over the store in `folder`, which keeps at most so many entries in a peer's overlay.
pub(crate) fn run_bounded(
    folder: &Path,
    overlay_max: u64,
    peer: &str,
    deadlines: Deadlines,
) -> RunReport {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let request = SyncRequest {
        peers: vec![peer.parse().expect("an address")],
        ..SyncRequest::default()
    };
    let state = folder.join("state");
    std::fs::create_dir_all(&state).expect("our own folder");
    let mut options = constellation_eventstore::Options::new(Arc::new(|| Duration::ZERO));
    options.overlay_max = overlay_max;
    runtime.block_on(async {
        let (store, writer) =
            constellation_eventstore::open(&folder.join("events"), options).expect("a store");
        let (clock, random) = (Clock::system(), Random::system());
        let parts = Parts {
            store,
            writer,
            break_even: Box::new(BreakEven::default),
            clock: clock.clone(),
            random: random.clone(),
        };
        let ingest = Ingest::start(parts, Mode::Inline).expect("a store");
        let tasks = TaskGroup::new(64);
        let context = RunContext {
            ingest: ingest.clone(),
            dialer: Arc::new(Dialer::new()),
            nostr_key: NostrKey::at(folder.join("nostr.key"), random.clone()),
            own: tokio::sync::watch::Sender::new(PeerId::random()).subscribe(),
            visitors: Visitors::default(),
            brought: BroughtByPeers::default(),
            plugin: None,
            clock,
            random,
            tasks: tasks.clone(),
            state,
        };
        let options = SyncOptions {
            deadlines,
            ..SyncOptions::default()
        };
        let options = tokio::sync::watch::Sender::new(Arc::new(options));
        let runner = Runner::new(context, options.subscribe(), Surroundings::none());
        let report = Box::pin(runner.trigger(&request, |_| {}))
            .await
            .expect("a report");
        tasks.end().await;
        ingest.close();
        report
    })
}
