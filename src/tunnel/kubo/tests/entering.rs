//! What comes in at a private port: who is let in, and what becomes of those who do not say who they are.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::KuboApi;
use super::super::callers::Callers;
use super::super::doors::{Door, Entrance};
use super::super::places::Places;
use super::PATIENCE;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::tunnel::{GuestList, Guests, InboundStream, PeerId, Refusal, ServiceName};

/// A door through which `peer` may enter. Callers are not told apart: no kubo was looked up.
struct Stage {
    peer: PeerId,
    entrance: Arc<Entrance>,
    door: Door,
    inbound: mpsc::Receiver<InboundStream>,
    guests: watch::Sender<Arc<GuestList>>,
    _tasks: TaskGroup,
}

impl Stage {
    async fn new(queue: usize) -> Self {
        let peer = PeerId::random();
        let service = ServiceName::strfry();
        let list = GuestList {
            services: [(service.clone(), Guests::Admitted)].into(),
            admitted: [peer].into(),
            ..GuestList::default()
        };
        let (guests, seen) = watch::channel(Arc::new(list));
        let (sender, inbound) = mpsc::channel(queue);
        let callers = Arc::new(Callers::new(KuboApi::default()));
        let places = Arc::new(Places::default());
        let entrance = Arc::new(Entrance::new(
            seen,
            places,
            callers,
            sender,
            Clock::system(),
        ));
        let tasks = TaskGroup::new(1);
        let door = Door::open(&service, None, &entrance, &tasks).await;
        Self {
            peer,
            door: door.expect("a port"),
            entrance,
            inbound,
            guests,
            _tasks: tasks,
        }
    }

    async fn connect(&self) -> TcpStream {
        let connected = TcpStream::connect(("127.0.0.1", self.door.port)).await;
        connected.expect("it listens")
    }

    /// Says this, and expects to be closed and counted.
    async fn is_refused(&self, said: &[u8], refusal: Refusal) {
        let before = self.entrance.refused().get(&refusal).copied();
        let mut stream = self.connect().await;
        stream.write_all(said).await.expect("it listens");
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // What was not read makes the system reset the connection.
        assert!(!matches!(closed.expect("closed"), Ok(1..)));
        let after = self.entrance.refused().get(&refusal).copied();
        assert_eq!(after, Some(before.unwrap_or(0) + 1), "{said:?}");
    }
}

#[tokio::test]
async fn what_follows_the_name_is_not_lost_however_it_is_cut() {
    let mut stage = Stage::new(8).await;
    let said = format!("{}\nafter the line\n", stage.peer);
    for cut in [1, 20, said.find('\n').expect("a line"), said.len() - 1] {
        let mut stream = stage.connect().await;
        stream.set_nodelay(true).expect("a socket");
        let (first, second) = said.as_bytes().split_at(cut);
        stream.write_all(first).await.expect("it listens");
        tokio::task::yield_now().await;
        stream.write_all(second).await.expect("it listens");
        let entered = timeout(PATIENCE, stage.inbound.recv()).await;
        let mut entered = entered.expect("in time").expect("let in");
        assert_eq!(entered.peer, stage.peer);
        let mut heard = vec![0; "after the line\n".len()];
        entered.stream.read_exact(&mut heard).await.expect("sent");
        assert_eq!(heard, b"after the line\n");
        entered.stream.write_all(b"back").await.expect("open");
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.expect("sent");
        assert_eq!(&back, b"back");
    }
    assert_eq!(stage.entrance.accepted(), 4);
}

#[tokio::test]
async fn a_first_line_that_names_nobody_is_refused() {
    let stage = Stage::new(8).await;
    stage.is_refused(b"\n", Refusal::NotAdmitted).await;
    stage
        .is_refused(b"GET / HTTP/1.1\r\n", Refusal::NotAdmitted)
        .await;
    stage.is_refused(b"\xff\xfe\n", Refusal::NotAdmitted).await;
    stage.is_refused(&[b'1'; 4_096], Refusal::NotAdmitted).await;
    let stranger = format!("{}\n", PeerId::random());
    stage
        .is_refused(stranger.as_bytes(), Refusal::NotAdmitted)
        .await;
}

/// The clock stands still but for the deadline.
#[tokio::test(start_paused = true)]
async fn a_first_line_that_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    let stage = Stage::new(8).await;
    let began = tokio::time::Instant::now();
    stage.is_refused(b"12D3KooW", Refusal::NotAdmitted).await;
    assert!(began.elapsed() >= Duration::from_secs(10));
}

#[tokio::test]
async fn what_nobody_takes_is_refused() {
    let mut stage = Stage::new(1).await;
    let said = format!("{}\n", stage.peer);
    let mut first = stage.connect().await;
    first.write_all(said.as_bytes()).await.expect("it listens");
    // The queue holds the first, which nobody has taken yet.
    let queued = async {
        while stage.entrance.accepted() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, queued).await.expect("let in");
    stage.is_refused(said.as_bytes(), Refusal::Overloaded).await;
    assert!(stage.inbound.recv().await.is_some());
}

#[tokio::test]
async fn a_station_that_knocked_too_often_is_counted_each_time_and_enters_once_it_is_admitted() {
    let mut stage = Stage::new(8).await;
    let peer = PeerId::random();
    let said = format!("{peer}\n");
    for _ in 0..40 {
        stage
            .is_refused(said.as_bytes(), Refusal::NotAdmitted)
            .await;
    }
    assert!(stage.entrance.is_weary_of(&peer, &ServiceName::strfry()));
    stage.guests.send_modify(|list| {
        Arc::make_mut(list).admitted.insert(peer);
    });
    let mut stream = stage.connect().await;
    stream.write_all(said.as_bytes()).await.expect("it listens");
    let entered = timeout(PATIENCE, stage.inbound.recv()).await;
    assert_eq!(entered.expect("in time").expect("let in").peer, peer);
}
