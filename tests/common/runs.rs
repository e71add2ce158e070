//! Runs through the library, in this process, where deadlines or parts are not those of the command.

use std::sync::Arc;
use std::time::Duration;

use constellation::config::Config;
use constellation::daemon::{DataDirectory, Station};
use constellation::peer::Visitors;
use constellation::random::Random;
use constellation::recent_ids::BroughtByPeers;
use constellation::relay_client::{Dialer, NostrKey};
use constellation::sync::{
    Deadlines, RunContext, RunReport, Runner, Surroundings, SyncOptions, SyncRequest,
};
use constellation::time::Clock;

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
        let station = Station::open(directory.clone(), &Config::default(), Clock::system())
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
            clock: Clock::system(),
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
