//! What gossip tells one station, and when: its other end is the test.

use std::collections::BTreeMap;

use ::http::StatusCode;
use bytes::Bytes;
use serde_json::Value;

use super::super::http::serve;
use super::*;
use crate::peer::{ByteStream, Multiaddr};
use crate::tunnel::{
    CarrierKind, CarrierState, LinkState, OpenError, Opening, Path, ServiceName, Source,
};

/// A carrier with one link, whose streams come to the test.
#[derive(Debug)]
struct Line {
    own: PeerId,
    state: watch::Sender<Arc<CarrierState>>,
    streams: mpsc::Sender<ByteStream>,
}

impl Line {
    fn to(peer: PeerId, own: PeerId) -> (Arc<Self>, mpsc::Receiver<ByteStream>) {
        let link = LinkState {
            path: Path::Direct,
            address: "/memory".to_owned(),
            rtt_ms: None,
            streams_out: 0,
            streams_in: 0,
            since: 0,
        };
        let state = CarrierState {
            links: BTreeMap::from([(peer.to_string(), link)]),
            ..CarrierState::new(CarrierKind::Libp2p)
        };
        let (streams, opened) = mpsc::channel(16);
        let line = Self {
            own,
            state: watch::Sender::new(Arc::new(state)),
            streams,
        };
        (Arc::new(line), opened)
    }
}

impl Carrier for Line {
    fn peer_id(&self) -> PeerId {
        self.own
    }

    fn open<'c>(&'c self, _: PeerId, _: &'c ServiceName, _: Duration) -> Opening<'c> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(16 << 10);
            let sent = self.streams.try_send(Box::new(far));
            sent.map_err(|_| OpenError::Timeout)?;
            Ok(Box::new(near) as ByteStream)
        })
    }

    fn learn(&self, _: PeerId, _: &[Multiaddr], _: Source) {}

    fn keep(&self, _: BTreeSet<PeerId>) {}

    fn state(&self) -> watch::Receiver<Arc<CarrierState>> {
        self.state.subscribe()
    }
}

/// Answers one request with nothing; gives what was asked.
async fn answered(stream: ByteStream) -> Value {
    let (asked, mut asking) = mpsc::channel(1);
    let note = |_, body: Bytes| {
        asked.try_send(body).unwrap();
        async { Ok::<_, (StatusCode, String)>(b"{}".to_vec()) }
    };
    serve(stream, 16 << 20, || Some(()), note).await;
    serde_json::from_slice(&asking.recv().await.unwrap()).unwrap()
}

fn cards_in(request: &Value) -> usize {
    request["cards"].as_array().unwrap().len()
}

const QUIET: Duration = Duration::from_secs(2);

/// Whether a stream is opened within a time in which everything that is due begins. Time is paused: it costs none.
async fn next(opened: &mut mpsc::Receiver<ByteStream>) -> Option<ByteStream> {
    timeout(QUIET, opened.recv()).await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn a_slow_station_is_told_everything_at_once_and_only_what_changed_since_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let others: Vec<Arc<Registry>> = (10..15)
        .map(|seed| alone(tempfile::tempdir().unwrap().path(), seed, |_, _| {}))
        .collect();
    let slow = others[0].own();
    let allow = |_: &mut RegistryOptions, settings: &mut RegistrySettings| {
        settings.allowed = others.iter().map(|other| other.own()).collect();
    };
    let before = alone(folder.path(), 1, allow);
    for other in &others {
        assert_eq!(
            before.receive(other.own_card().into_iter().collect(), other.own()),
            1
        );
    }
    before.save_cards();
    drop(before);

    let registry = alone(folder.path(), 1, allow);
    let (line, mut opened) = Line::to(slow, registry.own());
    let tasks = TaskGroup::new(1);
    let random = Random::seeded(1);
    tasks
        .spawn(gossip(line, Arc::clone(&registry), random))
        .unwrap();
    let comparing = next(&mut opened).await.expect("it has come into reach");
    for port in 1..4 {
        let address = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
        registry.set_addresses(vec![address]);
        assert!(next(&mut opened).await.is_none(), "one exchange at a time");
    }
    let compared = answered(comparing).await;
    assert!(compared["since"].is_object());
    let pushing = next(&mut opened).await.expect("it is told what changed");
    let pushed = answered(pushing).await;
    assert!(pushed["since"].is_null());
    assert_eq!(
        cards_in(&pushed),
        1,
        "our own card, once, and none that was on disk"
    );
    assert!(
        pushed["cards"][0]["card"]
            .as_str()
            .unwrap()
            .contains("tcp/3")
    );
    assert!(next(&mut opened).await.is_none(), "nothing is left to tell");
    tasks.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_one_push_comes_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let others: Vec<Identity> = (0..600u16)
        .map(|number| {
            let seed = [number.to_be_bytes(); 16].concat();
            Identity::from_seed(seed.try_into().unwrap())
        })
        .collect();
    let peer_of = |identity: &Identity| identity.public_key().peer_id();
    let registry = alone(folder.path(), 77, |_, settings| {
        settings.allowed = others.iter().map(peer_of).collect();
    });
    let (line, mut opened) = Line::to(peer_of(&others[0]), registry.own());
    let tasks = TaskGroup::new(1);
    let random = Random::seeded(1);
    tasks
        .spawn(gossip(line, Arc::clone(&registry), random))
        .unwrap();
    answered(next(&mut opened).await.unwrap()).await;
    let cards: Vec<crate::trust::SignedCard> = others
        .iter()
        .map(|identity| {
            let mut card = crate::trust::Card::of(peer_of(identity));
            card.created = Some(Clock::system().unix_seconds());
            let id = ConstellationId::of_name("test");
            card.constellation = Some(crate::trust::Statement::new(id, 1));
            crate::trust::SignedCard::sign(&card, identity).unwrap()
        })
        .collect();
    for some in cards.chunks(300) {
        assert_eq!(registry.receive(some.to_vec(), peer_of(&others[0])), 300);
    }
    let mut told = Vec::new();
    while let Some(stream) = next(&mut opened).await {
        told.push(cards_in(&answered(stream).await));
    }
    assert_eq!(told.iter().sum::<usize>(), 601, "and our own: {told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    tasks.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_whose_connection_broke_comes_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let newcomer = alone(folder.path(), 1, |_, _| {});
    let host = PeerId::random();
    let (line, mut opened) = Line::to(host, newcomer.own());
    let card = newcomer.own_card().unwrap();
    let mut breaks = async |count| {
        for _ in 0..count {
            drop(opened.recv().await.unwrap());
        }
        if count == 1 {
            let asked = answered(opened.recv().await.unwrap()).await;
            assert_eq!(asked["secret"], "secret", "the same again");
        }
    };
    let redeemed = || redeem(line.as_ref(), host, "secret".to_owned(), card.clone());
    let (joined, ()) = tokio::join!(redeemed(), breaks(1));
    assert!(joined.unwrap().is_empty());
    let (joined, ()) = tokio::join!(redeemed(), breaks(2));
    let error = joined.unwrap_err();
    assert!(
        matches!(error, ExchangeError::Ask(AskError::Broken(_))),
        "{error}"
    );
}
