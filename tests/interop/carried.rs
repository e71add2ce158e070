//! Carriers over kubo daemons of their own, and conversations between them.
//!
//! Each wait is under a deadline: a generous one, or, where that is what is tested, as long as all may be away.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use constellation::peer::ByteStream;
use constellation::random::Random;
use constellation::tasks::TaskGroup;
use constellation::time::Clock;
use constellation::tunnel::{
    Carrier, CarrierState, GuestList, Guests, InboundStream, KuboCarrier, KuboError, Multiaddr,
    OpenError, PeerId, ServiceName, Source,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::kubo::{Kubo, Setup};

/// Far beyond what anything here takes on a loaded machine, but for what is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take until all is as before.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A carrier over a daemon of its own.
pub(crate) struct Station {
    pub(crate) carrier: Option<KuboCarrier>,
    pub(crate) inbound: mpsc::Receiver<InboundStream>,
    pub(crate) guests: watch::Sender<Arc<GuestList>>,
    // Dropped after the carrier.
    pub(crate) kubo: Kubo,
    folder: TempDir,
}

impl Station {
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        let kubo = Kubo::start(setup);
        let folder = TempDir::new().expect("a temporary folder");
        let (guests, _) = watch::channel(Arc::default());
        let (_, inbound) = mpsc::channel(1);
        let mut station = Self {
            carrier: None,
            inbound,
            guests,
            kubo,
            folder,
        };
        station.carry().await;
        station
    }

    /// Starts a carrier, as at the start of a station.
    pub(crate) async fn carry(&mut self) {
        let started = start_carrier(&self.kubo, &self.guests, self.memory()).await;
        let (carrier, inbound) = started.expect("kubo answers");
        self.carrier = Some(carrier);
        self.inbound = inbound;
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.folder.path().join("kubo.json")
    }

    pub(crate) fn carrier(&self) -> &KuboCarrier {
        self.carrier.as_ref().expect("started")
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.carrier().peer_id()
    }

    /// Exposes its relay to these.
    pub(crate) fn admit(&self, peers: &[PeerId]) {
        self.guests.send_replace(Arc::new(GuestList {
            services: [(ServiceName::strfry(), Guests::Admitted)].into(),
            admitted: peers.iter().copied().collect(),
            ..GuestList::default()
        }));
    }

    /// Learns where the other may be reached, as from its card.
    pub(crate) fn learn(&self, other: &Self) {
        let addresses: Vec<Multiaddr> = other
            .kubo
            .addresses()
            .iter()
            .map(|address| address.parse().expect("a multiaddr"))
            .collect();
        self.carrier().learn(other.peer(), &addresses, Source::Card);
    }

    pub(crate) async fn open(&self, other: &Self) -> Result<ByteStream, OpenError> {
        self.carrier()
            .open(other.peer(), &ServiceName::strfry(), PATIENCE)
            .await
    }

    pub(crate) async fn state_where(
        &self,
        what: &str,
        holds: impl Fn(&CarrierState) -> bool,
    ) -> CarrierState {
        let mut state = self.carrier().state();
        let reached = timeout(PATIENCE, state.wait_for(|state| holds(state))).await;
        let reached = reached.unwrap_or_else(|_| panic!("waited in vain until {what}"));
        reached.expect("the carrier lives").as_ref().clone()
    }

    /// Its forwards and listeners of the relay, as kubo lists them.
    pub(crate) fn mounts(&self) -> BTreeSet<String> {
        let mounts = self.kubo.mounts().into_iter();
        mounts
            .filter(|mount| mount.starts_with("/x/strfry-"))
            .collect()
    }
}

pub(crate) async fn start_carrier(
    kubo: &Kubo,
    guests: &watch::Sender<Arc<GuestList>>,
    memory: PathBuf,
) -> Result<(KuboCarrier, mpsc::Receiver<InboundStream>), KuboError> {
    let api = kubo.api().parse().expect("as kubo writes it");
    let tasks = TaskGroup::new(1);
    let (clock, random) = (Clock::system(), Random::system());
    KuboCarrier::start(api, guests.subscribe(), &memory, clock, random, &tasks).await
}

/// Two that admit each other and know each other's addresses.
pub(crate) async fn two(setup: Setup<'_>) -> [Station; 2] {
    let [first, second] = [Station::start(setup).await, Station::start(setup).await];
    for (one, other) in [(&first, &second), (&second, &first)] {
        one.admit(&[other.peer()]);
        one.learn(other);
        let protocol = ServiceName::strfry().protocol(&one.peer());
        wait_until(PATIENCE, "the relay is exposed", || {
            one.mounts()
                .iter()
                .any(|mount| mount.starts_with(&protocol))
        })
        .await;
    }
    [first, second]
}

pub(crate) async fn wait_until(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let reached = async {
        while !holds() {
            sleep(LOOK_EVERY).await;
        }
    };
    let reached = timeout(patience, reached).await;
    assert!(reached.is_ok(), "waited in vain until {what}");
}

/// Opens a stream from one to the other and sends a line each way. Gives both ends.
pub(crate) async fn converse(from: &Station, to: &mut Station) -> Result<[ByteStream; 2], String> {
    let mut out = from.open(to).await.map_err(|error| error.to_string())?;
    out.write_all(b"there\n")
        .await
        .map_err(|error| error.to_string())?;
    // kubo accepts it whatever comes of it: then the stream ends.
    let mut first = [0];
    let mut entered = tokio::select! {
        entered = to.inbound.recv() => entered.ok_or("the carrier has ended")?,
        read = out.read(&mut first) => return Err(format!("closed: {read:?}")),
    };
    assert_eq!(entered.peer, from.peer(), "the PeerID that kubo reports");
    assert_eq!(entered.service, ServiceName::strfry());
    let exchanged = async {
        let mut line = [0; 6];
        entered.stream.read_exact(&mut line).await?;
        assert_eq!(&line, b"there\n");
        entered.stream.write_all(b"back\n").await?;
        let mut line = [0; 5];
        out.read_exact(&mut line).await?;
        assert_eq!(&line, b"back\n");
        std::io::Result::Ok(())
    };
    let exchanged = timeout(PATIENCE, exchanged).await;
    let exchanged = exchanged.map_err(|_| "no answer".to_owned())?;
    exchanged.map_err(|error| error.to_string())?;
    Ok([out, entered.stream])
}

/// Tries until it succeeds, for no longer than all may be away.
pub(crate) async fn converse_again(from: &Station, to: &mut Station) {
    let mut last = String::new();
    let trying = async {
        loop {
            match converse(from, to).await {
                Ok(_) => return,
                Err(error) => last = error,
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let succeeded = timeout(BACK_WITHIN, trying).await;
    assert!(succeeded.is_ok(), "not back within {BACK_WITHIN:?}: {last}");
}
