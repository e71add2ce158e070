//! Nodes for tests: on loopback, in memory, with guest lists that a test can change.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::{Node, NodeOptions, NodeStarted, SwarmKey};
use crate::peer::ByteStream;
use crate::random::Random;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::test_keys::{KUBO_RSA, KUBO_RSA_PEER};
use crate::tunnel::{
    Carrier, CarrierState, Found, GuestList, Guests, Identity, InboundStream, Multiaddr, NodeError,
    PeerId, ServiceName, Source,
};

/// How long anything may take in a test before it counts as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node and what belongs to it.
pub(super) struct Station {
    pub(super) node: Arc<Node>,
    pub(super) inbound: mpsc::Receiver<InboundStream>,
    pub(super) found: mpsc::Receiver<Found>,
    pub(super) guests: watch::Sender<Arc<GuestList>>,
    pub(super) tasks: TaskGroup,
}

impl Station {
    pub(super) fn id(&self) -> PeerId {
        self.node.peer_id()
    }

    /// Where it listens, directly.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        let state = self.node.state();
        let state = state.borrow();
        let addresses = state
            .addresses
            .iter()
            .filter(|one| !one.contains("p2p-circuit"));
        addresses
            .map(|one| one.parse().expect("an address"))
            .collect()
    }

    pub(super) fn knows(&self, other: &Self) {
        self.node
            .learn(other.id(), &other.addresses(), Source::Static);
    }

    pub(super) fn change_guests(&self, change: impl FnOnce(&mut GuestList)) {
        self.guests.send_modify(|list| change(Arc::make_mut(list)));
    }

    pub(super) fn admit(&self, peer: PeerId) {
        self.change_guests(|list| {
            list.admitted.insert(peer);
        });
    }

    pub(super) fn keep(&self, peers: impl IntoIterator<Item = PeerId>) {
        self.node.keep(peers.into_iter().collect::<BTreeSet<_>>());
    }

    pub(super) async fn open(&self, to: PeerId, service: &str) -> ByteStream {
        self.try_open(to, service).await.expect("a stream")
    }

    pub(super) async fn try_open(
        &self,
        to: PeerId,
        service: &str,
    ) -> Result<ByteStream, crate::tunnel::OpenError> {
        self.node.open(to, &name(service), PATIENCE).await
    }

    pub(super) async fn next_stream(&mut self) -> InboundStream {
        let next = timeout(PATIENCE, self.inbound.recv()).await;
        next.expect("in time").expect("a stream")
    }

    /// Waits until the state is as wanted.
    pub(super) async fn until(&self, wanted: impl FnMut(&Arc<CarrierState>) -> bool) {
        let mut state = self.node.state();
        let waited = timeout(PATIENCE, state.wait_for(wanted)).await;
        let waited = waited.map(|seen| seen.map(drop));
        let last = Arc::clone(&self.node.state().borrow());
        waited
            .unwrap_or_else(|_| panic!("not so within {PATIENCE:?}: {last:?}"))
            .expect("runs");
    }

    pub(super) async fn until_linked(&self, other: PeerId) {
        let other = other.to_string();
        self.until(|state| state.links.contains_key(&other)).await;
    }

    /// Answers every stream with what it sends.
    pub(super) fn echo(mut self) -> (Arc<Node>, watch::Sender<Arc<GuestList>>, TaskGroup) {
        let echoes = self.tasks.child(5_000);
        let mut inbound = self.inbound;
        let group = echoes.clone();
        let answer = async move {
            while let Some(stream) = inbound.recv().await {
                let copy = async move {
                    let (mut from, mut to) = tokio::io::split(stream.stream);
                    drop(tokio::io::copy(&mut from, &mut to).await);
                    drop(to.shutdown().await);
                };
                drop(group.spawn(copy));
            }
        };
        drop(echoes.spawn(answer));
        self.found.close();
        (self.node, self.guests, self.tasks)
    }
}

pub(super) fn name(service: &str) -> ServiceName {
    service.parse().expect("a name")
}

pub(super) fn identity() -> Identity {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identity::load_or_create(&folder.path().join("identity.key")).expect("made")
}

/// What an older kubo has.
pub(super) fn rsa_identity() -> Identity {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config");
    let json = serde_json::json!({"Identity": {"PeerID": KUBO_RSA_PEER, "PrivKey": KUBO_RSA}});
    std::fs::write(&path, json.to_string()).expect("written");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, private).expect("ours");
    Identity::from_kubo_config(&path).expect("an identity")
}

pub(super) fn on(address: &str) -> NodeOptions {
    NodeOptions {
        listen: vec![address.parse().expect("an address")],
        memory_transport: true,
        ..NodeOptions::default()
    }
}

pub(super) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(super) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(super) const MEMORY: &str = "/memory/0";

pub(super) fn swarm_key(digits: &str) -> SwarmKey {
    let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digits.repeat(32));
    SwarmKey::from_text(&text).expect("a key")
}

pub(super) async fn station(options: NodeOptions) -> Station {
    station_of(&identity(), options).await
}

pub(super) async fn station_of(identity: &Identity, options: NodeOptions) -> Station {
    try_station(identity, options).await.expect("starts")
}

pub(super) async fn try_station(
    identity: &Identity,
    options: NodeOptions,
) -> Result<Station, NodeError> {
    let list = GuestList {
        services: [(ServiceName::strfry(), Guests::Admitted)].into(),
        ..GuestList::default()
    };
    let (guests, seen) = watch::channel(Arc::new(list));
    let tasks = TaskGroup::new(64);
    let clock = Clock::system();
    let random = Random::seeded(7);
    let started = Node::start(identity, options, seen, clock, random, &tasks).await?;
    let NodeStarted {
        node,
        inbound,
        found,
    } = started;
    Ok(Station {
        node,
        inbound,
        found,
        guests,
        tasks,
    })
}

/// Two stations that admit each other; the first knows where the second is.
pub(super) async fn pair(first: NodeOptions, second: NodeOptions) -> (Station, Station) {
    let (first, second) = (station(first).await, station(second).await);
    first.admit(second.id());
    second.admit(first.id());
    first.knows(&second);
    (first, second)
}

/// Sends and checks what comes back.
pub(super) async fn ping_pong(stream: &mut ByteStream, bytes: &[u8]) {
    let exchange = async {
        stream.write_all(bytes).await.expect("sent");
        stream.flush().await.expect("flushed");
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.expect("an echo");
        assert_eq!(back, bytes);
    };
    timeout(PATIENCE, exchange).await.expect("in time");
}
