//! Stations of one process: each a store, a relay and a runner; between them pipes in memory, which a partition cuts.
//!
//! Takes what is to happen, one thing after the other; gives what each station shows. No socket is opened, the clock
//! stands where it is put, and waits cost nothing (tokio's clock is paused). Restarting closes the store and opens it
//! again from its folder; losing takes the folder too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use constellation::graph::Graph;
use constellation::ingest::{Ingest, Lane, Mode, Origin, Parts, Verdict, Writers};
use constellation::peer::{ByteStream, PeerAddress, PeerId, Visitors};
use constellation::random::Random;
use constellation::recent_ids::BroughtByPeers;
use constellation::relay_client::{ConnectError, Dial, Dialling, NostrKey};
use constellation::relay_server::{RelayContext, RelayOptions, RemoteParty, serve_connection};
use constellation::sync::{
    Deadlines, RunContext, RunReport, Runner, ScopeOptions, Surroundings, SyncOptions, SyncRequest,
};
use constellation::tasks::TaskGroup;
use constellation::time::{Clock, TimeSource};
use constellation_event::{BreakEven, UnverifiedEvent};
use constellation_eventstore::{Options, Progress, Query, Readership, open};
use nostr::event::Event;
use nostr::filter::Filter;
use tempfile::TempDir;
use tokio::io::duplex;
use tokio::sync::watch;

use crate::common::wait_for;

/// When it all begins, in Unix seconds.
pub(crate) const BEGINNING: u64 = 1_700_000_000;

/// What a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

/// Time that stands where it is put.
#[derive(Debug, Clone)]
struct HandClock(Arc<AtomicU64>);

impl TimeSource for HandClock {
    fn wall(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

/// Who can be reached, and where.
#[derive(Debug, Default)]
struct Network {
    doors: Mutex<BTreeMap<usize, Door>>,
    /// Stations on this side reach each other, and those on the other side each other.
    one_side: Mutex<BTreeSet<usize>>,
}

/// The way into a station.
#[derive(Debug, Clone)]
struct Door {
    relay: Arc<RelayContext>,
    tasks: TaskGroup,
}

/// A station's way to the others.
#[derive(Debug)]
struct Line {
    network: Arc<Network>,
    own: usize,
}

fn address_of(station: usize) -> PeerAddress {
    format!("ws://station-{station}.test")
        .parse()
        .expect("an address")
}

impl Line {
    fn reach(&self, address: &PeerAddress) -> Result<ByteStream, ConnectError> {
        let doors = self.network.doors.lock().expect("not poisoned");
        let found = doors
            .iter()
            .find(|(station, _)| address_of(**station) == *address);
        let (station, door) = found.ok_or(ConnectError::Refused)?;
        let one_side = self.network.one_side.lock().expect("not poisoned");
        if one_side.contains(&self.own) != one_side.contains(station) {
            return Err(ConnectError::Refused);
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        let party = RemoteParty::station(format!("station-{}", self.own));
        let served = serve_connection(theirs, party, Arc::clone(&door.relay));
        door.tasks
            .spawn(served)
            .map_err(|full| ConnectError::Network(full.to_string()))?;
        Ok(Box::new(ours))
    }
}

impl Dial for Line {
    fn dial<'d>(&'d self, address: &'d PeerAddress, _deadline: Duration) -> Dialling<'d> {
        Box::pin(async move { self.reach(address) })
    }
}

/// A station that is open.
struct Station {
    ingest: Ingest,
    runner: Runner,
    /// Conversations of runs, and connections that are served.
    tasks: TaskGroup,
}

/// All stations.
pub(crate) struct World {
    network: Arc<Network>,
    time: Arc<AtomicU64>,
    folders: Vec<TempDir>,
    stations: Vec<Option<Station>>,
}

fn new_folder() -> TempDir {
    // In memory where the system has such a place: every commit waits for its disk.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a temporary folder")
}

fn unchanging<T>(value: T) -> watch::Receiver<T> {
    watch::Sender::new(value).subscribe()
}

impl World {
    pub(crate) fn new(stations: usize) -> Self {
        let mut world = Self {
            network: Arc::default(),
            time: Arc::new(AtomicU64::new(BEGINNING)),
            folders: (0..stations).map(|_| new_folder()).collect(),
            stations: (0..stations).map(|_| None).collect(),
        };
        for station in 0..stations {
            world.open(station);
        }
        world
    }

    pub(crate) fn now(&self) -> u64 {
        self.time.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    /// From now on these reach each other, and the others each other.
    pub(crate) fn split(&self, one_side: BTreeSet<usize>) {
        *self.network.one_side.lock().expect("not poisoned") = one_side;
    }

    fn open(&mut self, station: usize) {
        let folder = self.folders[station].path();
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("our own folder");
        let clock = Clock::new(HandClock(Arc::clone(&self.time)));
        // Reads that were under way when the station was closed may hold it for a moment.
        let (store, writer) = wait_for("the store opens", || {
            open(
                &folder.join("events"),
                Options::new(Arc::new(|| Duration::ZERO)),
            )
            .ok()
        });
        let random = Random::seeded(station as u64);
        let parts = Parts {
            store,
            writer,
            break_even: Box::new(BreakEven::default),
            clock: clock.clone(),
            random: random.clone(),
        };
        let ingest = Ingest::start(parts, Mode::Inline).expect("a store");
        let tasks = TaskGroup::new(256);
        let relay = Arc::new(RelayContext::new(
            ingest.clone(),
            clock.clone(),
            random.clone(),
            unchanging(Arc::new(RelayOptions::default())),
            unchanging(Arc::new(ScopeOptions::default().shared(&Graph::default()))),
            unchanging(PeerId::random()),
        ));
        let door = Door {
            relay,
            tasks: tasks.clone(),
        };
        let mut doors = self.network.doors.lock().expect("not poisoned");
        doors.insert(station, door);
        drop(doors);
        let line = Line {
            network: Arc::clone(&self.network),
            own: station,
        };
        let context = RunContext {
            ingest: ingest.clone(),
            dialer: Arc::new(line),
            nostr_key: NostrKey::at(folder.join("nostr.key"), random.clone()),
            own: unchanging(PeerId::random()),
            visitors: Visitors::default(),
            brought: BroughtByPeers::default(),
            plugin: None,
            clock,
            random,
            tasks: tasks.child(64),
            state,
        };
        let options = SyncOptions {
            deadlines: Deadlines::default(),
            ..SyncOptions::default()
        };
        let options = unchanging(Arc::new(options));
        let runner = Runner::new(context, options, Surroundings::none());
        self.stations[station] = Some(Station {
            ingest,
            runner,
            tasks,
        });
    }

    async fn close(&mut self, station: usize) {
        let door = self
            .network
            .doors
            .lock()
            .expect("not poisoned")
            .remove(&station);
        drop(door);
        let closed = self.stations[station].take().expect("it was open");
        closed.tasks.end().await;
        closed.ingest.close();
    }

    /// Closes a station and opens it from its folder.
    pub(crate) async fn restart(&mut self, station: usize) {
        self.close(station).await;
        self.open(station);
    }

    /// The same, but the folder is lost meanwhile.
    pub(crate) async fn lose(&mut self, station: usize) {
        self.close(station).await;
        self.folders[station] = new_folder();
        self.open(station);
    }

    fn station(&self, station: usize) -> &Station {
        self.stations[station].as_ref().expect("it is open")
    }

    /// A client publishes an event. Says what the station made of it.
    pub(crate) async fn publish(&self, station: usize, event: &Event) -> Verdict {
        let ingest = &self.station(station).ingest;
        let origin = Origin::Client {
            writers: Writers::Anyone,
            authenticated: Arc::default(),
        };
        let events = vec![UnverifiedEvent::from_event(event)];
        let source = ingest.source(Lane::Prompt);
        let verdicts = ingest.submit(&source, origin, events).await;
        verdicts.expect("a store")[0]
    }

    /// A run of one station with some others.
    pub(crate) async fn sync(&self, station: usize, with: &[usize]) -> RunReport {
        let peers = with.iter().filter(|peer| **peer != station);
        let request = SyncRequest {
            peers: peers.map(|peer| address_of(*peer)).collect(),
            ..SyncRequest::default()
        };
        let runner = &self.station(station).runner;
        Box::pin(runner.trigger(&request, |_| {}))
            .await
            .expect("a report")
    }

    /// The ids that a station shows to whoever asks for everything.
    pub(crate) fn visible(&self, station: usize) -> BTreeSet<String> {
        let store = self.station(station).ingest.store();
        let snapshot = store.snapshot().expect("a store");
        let mut query = Query::new(Filter::new(), Readership::Full, &snapshot, self.now());
        let mut visible = BTreeSet::new();
        loop {
            let progress = query.advance(&snapshot, &mut |record| {
                visible.insert(constellation::protocol::hex::encode(record.id()));
                ControlFlow::Continue(())
            });
            if progress.expect("a store") == Progress::Done {
                return visible;
            }
        }
    }

    /// Closes all.
    pub(crate) async fn end(mut self) {
        for station in 0..self.stations.len() {
            self.close(station).await;
        }
    }
}

/// Carries out what happens in a world, with a clock of tokio's that waits for nothing.
pub(crate) fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(work)
}
