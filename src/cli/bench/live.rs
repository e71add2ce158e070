//! Ten stations with live links, in this process, over `ws://`: how soon what one stores is at the subscribers of all.
//!
//! Events are published one after another on each in turn; what is measured is the time from the `OK` that the publisher
//! got until a subscriber of each of the other stations has the event. Then one station is away while others publish,
//! comes back where it was, and what is measured is how long it takes until nothing is missing there. All stations, the
//! publishers and the subscribers share the machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nostr::event::Event;
use nostr::filter::Filter;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::cli::exit::Failure;
use crate::cli::table::{bytes, thousands};
use crate::config::Config;
use crate::control;
use crate::daemon::{DataDirectory, Station, StationRelay};
use crate::live::LiveReport;
use crate::peer::PeerAddress;
use crate::relay_client::{
    ConnectOptions, Conversation, ConversationLimits, Subscription, connect,
};
use crate::samples::uniform;
use crate::sync::{KindsSpec, PeerOptions};
use crate::tasks::TaskGroup;
use crate::time::Clock;

const STATIONS: usize = 10;
const SEED: u64 = 11;
/// Events that are timed, and the pause between them: twenty a second.
const EVENTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
/// Events published while one station is away: ten a second for a minute.
const MISSED: usize = 600;
/// How long anything may take before there are no figures.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The figures of live links.
#[derive(Debug, Serialize)]
pub(super) struct LiveRow {
    what: &'static str,
    stations: usize,
    events: usize,
    /// Microseconds from the publisher's OK to a subscriber elsewhere.
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// What each station received that it had, for each event.
    duplicates_per_event: f64,
    /// Bytes over all links, for each event and station.
    wire_bytes_per_event: u64,
    /// Events published while one station was away.
    missed: usize,
    /// Milliseconds from when it served again until it had them all.
    missed_there_after_ms: u64,
}

impl LiveRow {
    pub(super) fn as_text(&self) -> String {
        let milliseconds =
            |micros: u64| format!("{}.{} ms", thousands(micros / 1_000), micros / 100 % 10);
        format!(
            "live, {} stations, {} events: from OK to a subscriber elsewhere {} (p50), {} (p99), {} at most; {:.1} \
             duplicates and {} for each event and station; {} events missed by one that was away: there {} ms after it \
             was back",
            self.stations,
            self.events,
            milliseconds(self.p50_us),
            milliseconds(self.p99_us),
            milliseconds(self.max_us),
            self.duplicates_per_event,
            bytes(self.wire_bytes_per_event),
            thousands(self.missed as u64),
            thousands(self.missed_there_after_ms),
        )
    }
}

/// Measures in `folder`.
pub(super) async fn measure(folder: &Path, clock: &Clock) -> Result<LiveRow, Failure> {
    let now = clock.unix_seconds();
    let made = tokio::task::spawn_blocking(move || uniform(SEED, now, EVENTS + MISSED));
    let events = made.await.map_err(Failure::local)?;
    let (timed, missed) = events.split_at(EVENTS);
    let fleet = Fleet::start(folder, clock).await?;
    fleet.measured(timed, missed).await
}

/// A station of this process.
struct Member {
    number: usize,
    station: Station,
    relay: StationRelay,
}

struct Fleet {
    folder: std::path::PathBuf,
    clock: Clock,
    members: Vec<Member>,
    tasks: TaskGroup,
}

/// When a subscriber of which station had which event.
type Heard = (usize, [u8; 32], Duration);

impl Fleet {
    async fn start(folder: &Path, clock: &Clock) -> Result<Self, Failure> {
        let mut fleet = Self {
            folder: folder.join("live"),
            clock: clock.clone(),
            members: Vec::new(),
            tasks: TaskGroup::new(4 * STATIONS),
        };
        let anywhere = "127.0.0.1:0".parse().map_err(Failure::local)?;
        for number in 0..STATIONS {
            let member = fleet.open(number, anywhere).await?;
            fleet.members.push(member);
        }
        for member in &fleet.members {
            fleet.meet(member).await?;
        }
        Ok(fleet)
    }

    async fn open(&self, number: usize, listen: SocketAddr) -> Result<Member, Failure> {
        let mut config = config();
        config.relay.listen = Some(listen);
        let directory = DataDirectory::at(self.folder.join(number.to_string()));
        let station = Station::open(directory, &config, self.clock.clone()).await?;
        let relay = station.start_relay(&config)?;
        station.start_live(&relay)?;
        Ok(Member {
            number,
            station,
            relay,
        })
    }

    /// Tells a station of all the others.
    async fn meet(&self, member: &Member) -> Result<(), Failure> {
        let mut config = config();
        for other in self
            .members
            .iter()
            .filter(|one| one.number != member.number)
        {
            let address: PeerAddress = other.url().parse().map_err(Failure::local)?;
            config.peers.push(PeerOptions::of(address));
        }
        Ok(member.station.reconfigure(&config).await?)
    }

    async fn measured(mut self, timed: &[Event], missed: &[Event]) -> Result<LiveRow, Failure> {
        let alone = "the stations do not link up in time";
        within(alone, self.until_linked()).await?;
        let (tell, mut heard) = mpsc::channel(EVENTS);
        let mut publishers = Vec::new();
        for member in &self.members {
            let (conversation, subscription) = self.client(member).await?;
            publishers.push(conversation);
            let listening = listen(
                member.number,
                subscription,
                self.clock.clone(),
                tell.clone(),
            );
            self.tasks.spawn(listening).map_err(Failure::local)?;
        }
        let before = self.totals().await?;
        let mut published: HashMap<[u8; 32], (usize, Duration)> = HashMap::new();
        let mut arrived: Vec<Heard> = Vec::new();
        for (number, event) in timed.iter().enumerate() {
            let by = number % STATIONS;
            publish(&publishers[by], event).await?;
            published.insert(*event.id.as_bytes(), (by, self.clock.monotonic()));
            sleep(PAUSE).await;
            while let Ok(one) = heard.try_recv() {
                arrived.push(one);
            }
        }
        let all_heard = async {
            while arrived.len() < EVENTS * STATIONS {
                match heard.recv().await {
                    Some(one) => arrived.push(one),
                    None => return Err(Failure::local("the subscribers have gone")),
                }
            }
            Ok(())
        };
        within(
            "what was published does not arrive everywhere in time",
            all_heard,
        )
        .await?;
        let after = self.totals().await?;
        let mut delays: Vec<u64> = arrived
            .iter()
            .filter_map(|(station, id, at)| {
                let (by, since) = published.get(id)?;
                (by != station).then(|| micros(at.saturating_sub(*since)))
            })
            .collect();
        delays.sort_unstable();
        let percentile = |part: usize| delays[(delays.len() * part).div_ceil(100) - 1];
        let each = (EVENTS * STATIONS) as u64;
        // Nobody listens any more: what follows is about what is stored.
        self.tasks.end().await;
        drop(publishers);
        let missed_there_after_ms = self.time_of_coming_back(missed).await?;
        for member in self.members {
            member.station.close().await;
        }
        Ok(LiveRow {
            what: "live",
            stations: STATIONS,
            events: EVENTS,
            p50_us: percentile(50),
            p99_us: percentile(99),
            max_us: percentile(100),
            #[allow(clippy::cast_precision_loss)] // thousands
            duplicates_per_event: (after.duplicates - before.duplicates) as f64 / each as f64,
            wire_bytes_per_event: (after.bytes - before.bytes) / each,
            missed: missed.len(),
            missed_there_after_ms,
        })
    }

    /// One goes, others publish, it comes back where it was.
    async fn time_of_coming_back(&mut self, missed: &[Event]) -> Result<u64, Failure> {
        let Member {
            number,
            station,
            relay,
        } = self.members.remove(STATIONS / 2);
        let address = relay.address();
        station.close().await;
        // It holds the store too.
        drop(relay);
        self.tasks = TaskGroup::new(STATIONS);
        let (conversation, _) = self.client(&self.members[0]).await?;
        for event in missed {
            publish(&conversation, event).await?;
        }
        let back = self.open(number, address).await?;
        self.meet(&back).await?;
        let started = self.clock.monotonic();
        let target = stored(&self.members[0].station).await?;
        let all_there = async {
            while stored(&back.station).await? < target {
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        within("what was missed does not come in time", all_there).await?;
        let took = self.clock.monotonic().saturating_sub(started);
        drop(conversation);
        self.tasks.end().await;
        back.station.close().await;
        Ok(super::process::milliseconds(took))
    }

    /// Waits until every station has links, and no exchange is being made any more.
    async fn until_linked(&self) -> Result<(), Failure> {
        loop {
            let mut settled = true;
            for member in &self.members {
                let context = member
                    .station
                    .control_context(member.station.tasks().clone());
                let status = control::status(&context).await?;
                let dialled = status.live.links.iter();
                let dialled = dialled.filter(|link| link.bytes_in.is_some()).count() as u64;
                settled &= status.live.links.len() >= STATIONS.min(status.live.links_max) / 2
                    && (dialled == 0 || status.live.exchanges > 0)
                    && !status.run_in_progress;
            }
            if settled {
                return Ok(());
            }
            sleep(10 * LOOK_EVERY).await;
        }
    }

    async fn totals(&self) -> Result<Totals, Failure> {
        let mut totals = Totals::default();
        for member in &self.members {
            let context = member
                .station
                .control_context(member.station.tasks().clone());
            totals.add(&control::status(&context).await?.live);
        }
        Ok(totals)
    }

    async fn client(&self, member: &Member) -> Result<(Conversation, Subscription), Failure> {
        let url = url::Url::parse(&member.url()).map_err(Failure::local)?;
        let options = ConnectOptions {
            as_station: false,
            ..ConnectOptions::default()
        };
        let socket = connect(&url, &options).await.map_err(Failure::local)?;
        let limits = ConversationLimits::default();
        let conversation =
            Conversation::start(socket, limits, &self.tasks).map_err(Failure::local)?;
        let only_new = Filter::new().limit(0);
        let subscription = conversation.subscribe(&[only_new]).await;
        Ok((conversation, subscription.map_err(Failure::local)?))
    }
}

impl Member {
    fn url(&self) -> String {
        format!("ws://{}", self.relay.address())
    }
}

/// What links have done so far.
#[derive(Debug, Default)]
struct Totals {
    duplicates: u64,
    bytes: u64,
}

impl Totals {
    fn add(&mut self, report: &LiveReport) {
        for link in &report.links {
            self.duplicates += link.duplicates_in;
            // Those that it dialled: the others are counted where they were dialled.
            self.bytes += link.bytes_in.unwrap_or(0) + link.bytes_out.unwrap_or(0);
        }
    }
}

/// All kinds, no tunnels, no schedule.
fn config() -> Config {
    let mut config = Config::default();
    config.scope.kinds = Some(KindsSpec::All);
    config.tunnel.enabled = false;
    config
}

async fn listen(
    station: usize,
    mut subscription: Subscription,
    clock: Clock,
    tell: mpsc::Sender<Heard>,
) {
    let mut came = Vec::new();
    while subscription.next_batch(&mut came, EVENTS).await.is_ok() {
        let at = clock.monotonic();
        for json in came.drain(..) {
            let Some(event) = constellation_event::UnverifiedEvent::claimed_identity(&json) else {
                continue;
            };
            if tell.send((station, event.id, at)).await.is_err() {
                return;
            }
        }
    }
}

async fn publish(conversation: &Conversation, event: &Event) -> Result<(), Failure> {
    let pending = conversation
        .publish(*event.id.as_bytes(), &event.as_json())
        .await;
    let answer = pending.map_err(Failure::local)?.await;
    if answer.map_err(Failure::local)?.accepted {
        return Ok(());
    }
    Err(Failure::local("a station does not take an event"))
}

async fn stored(station: &Station) -> Result<u64, Failure> {
    let store = Arc::new(station.ingest().store().clone());
    let counted = tokio::task::spawn_blocking(move || store.snapshot()?.event_count());
    counted
        .await
        .map_err(Failure::local)?
        .map_err(Failure::local)
}

async fn within(
    what: &str,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    timeout(DEADLINE, Box::pin(work))
        .await
        .map_err(|_| Failure::local(what))?
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
