//! Who is let in, and how much anyone may take: refusals, bursts, floods, readers that do not read.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::support::{PATIENCE, QUIC, Station, TCP, on, pair, ping_pong, station};
use crate::peer::ByteStream;
use crate::tasks::TaskGroup;
use crate::tunnel::{Carrier, GuestList, Node, OpenError, PeerId, Refusal};

/// Whether the other side has let go of a stream.
async fn ends(stream: &mut ByteStream) -> bool {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await;
    !matches!(read.expect("in time"), Ok(1))
}

#[tokio::test]
async fn a_stranger_gets_nowhere_and_is_counted() {
    let (first, mut second) = (station(on(TCP)).await, station(on(TCP)).await);
    first.knows(&second);
    let mut stream = first.open(second.id(), "strfry").await;
    assert!(ends(&mut stream).await);
    second
        .until(|state| state.refused.get(&Refusal::NotAdmitted) == Some(&1))
        .await;
    assert!(second.inbound.try_recv().is_err());
    assert_eq!(second.node.state().borrow().accepted, 0);
}

#[tokio::test]
async fn a_service_that_is_not_exposed_is_closed_or_not_offered() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    let mut known = first.open(second.id(), "ssh").await;
    assert!(ends(&mut known).await);
    second
        .until(|state| state.refused.get(&Refusal::NotExposed) == Some(&1))
        .await;
    let unknown = first.try_open(second.id(), "my-app").await;
    assert!(matches!(unknown.err(), Some(OpenError::NotOffered { .. })));
}

#[tokio::test]
async fn a_station_that_is_removed_is_out_at_once() {
    for ban in [false, true] {
        let (first, mut second) = pair(on(TCP), on(TCP)).await;
        let gone = first.id();
        let mut theirs = first.open(second.id(), "strfry").await;
        theirs.write_all(b"x").await.expect("sent");
        theirs.flush().await.expect("flushed");
        let mut ours = second.next_stream().await.stream;
        second.until_linked(gone).await;
        second.change_guests(|list| {
            list.admitted.remove(&gone);
            if ban {
                list.banned.insert(gone);
            }
        });
        let began = tokio::time::Instant::now();
        assert!(ends(&mut theirs).await);
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, ours.read_to_end(&mut rest)).await;
        drop(read.expect("our own end ends too"));
        assert!(began.elapsed() < Duration::from_secs(2), "at once");
        second.until(|state| state.links.is_empty()).await;
        match first.try_open(second.id(), "strfry").await {
            Ok(mut stream) => assert!(!ban && ends(&mut stream).await),
            Err(error) => assert!(ban, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_station_that_loses_one_service_loses_its_streams() {
    let (first, mut second) = pair(on(TCP), on(TCP)).await;
    let mut theirs = first.open(second.id(), "strfry").await;
    theirs.write_all(b"x").await.expect("sent");
    theirs.flush().await.expect("flushed");
    let _ours = second.next_stream().await;
    second.until_linked(first.id()).await;
    second.change_guests(|list| list.services.clear());
    assert!(ends(&mut theirs).await);
}

async fn burst(from: super::support::Station, to: super::support::Station) {
    const STREAMS: usize = 1_000;
    let far = to.id();
    let (_echo, _guests, _tasks) = to.echo();
    let openers = from.tasks.child(STREAMS);
    let all_open = std::sync::Arc::new(tokio::sync::Barrier::new(STREAMS));
    let mut running = Vec::new();
    for number in 0..STREAMS {
        let node = std::sync::Arc::clone(&from.node);
        let all_open = std::sync::Arc::clone(&all_open);
        let one = async move {
            let service = super::support::name("strfry");
            let mut stream = node.open(far, &service, PATIENCE).await.expect("a stream");
            // None is closed before the last is open.
            all_open.wait().await;
            ping_pong(&mut stream, &number.to_be_bytes()).await;
        };
        running.push(openers.spawn(one).expect("room"));
    }
    for one in running {
        timeout(PATIENCE, one)
            .await
            .expect("in time")
            .expect("no panic");
    }
}

#[tokio::test]
async fn a_thousand_streams_at_once_lose_none() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    burst(first, second).await;
}

#[tokio::test]
async fn a_thousand_streams_at_once_lose_none_over_quic() {
    let (first, second) = pair(on(QUIC), on(QUIC)).await;
    burst(first, second).await;
}

#[tokio::test]
async fn a_station_that_opens_ten_thousand_streams_is_bounded_and_disturbs_nobody() {
    let (greedy, modest) = (station(on(TCP)).await, station(on(TCP)).await);
    let mut host = station(on(TCP)).await;
    for guest in [&greedy, &modest] {
        host.admit(guest.id());
        guest.admit(host.id());
        guest.knows(&host);
    }
    let far = host.id();
    let openers = greedy.tasks.child(10_000);
    let mut running = Vec::new();
    for _ in 0..10_000 {
        let node = std::sync::Arc::clone(&greedy.node);
        let one = async move {
            let service = super::support::name("strfry");
            node.open(far, &service, PATIENCE).await
        };
        running.push(openers.spawn(one).expect("room"));
    }
    // Meanwhile the other one is served.
    let mut held = Vec::new();
    let mut stream = modest.open(far, "strfry").await;
    stream.write_all(b"x").await.expect("sent");
    stream.flush().await.expect("flushed");
    loop {
        let taken = host.next_stream().await;
        let is_modest = taken.peer == modest.id();
        held.push(taken);
        if is_modest {
            break;
        }
    }
    let mut opened = Vec::new();
    for one in running {
        let one = timeout(PATIENCE, one)
            .await
            .expect("in time")
            .expect("no panic");
        opened.extend(one.expect("not cancelled").ok());
    }
    assert!(opened.len() <= 1_100, "{} were opened", opened.len());
    while let Ok(taken) = host.inbound.try_recv() {
        held.push(taken);
    }
    assert!(held.len() <= 1_101, "{} were let in", held.len());
    let answer = held
        .iter_mut()
        .find(|one| one.peer == modest.id())
        .expect("held");
    let answer = &mut answer.stream;
    answer.write_all(b"y").await.expect("sent");
    answer.flush().await.expect("flushed");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'y');
}

#[tokio::test]
async fn a_reader_that_does_not_read_stalls_the_writer() {
    const ATTEMPT: usize = 64 << 20;
    // What is under way is in memory: Yamux's window or QUIC's, and the system's socket buffers.
    const UNDER_WAY_MAX: usize = 24 << 20;
    for transport in [TCP, QUIC] {
        let (first, mut second) = pair(on(transport), on(transport)).await;
        let mut writer = first.open(second.id(), "strfry").await;
        let chunk = vec![1; 64 << 10];
        let mut written = 0;
        while written < ATTEMPT {
            // So long without progress means that the windows are full.
            match timeout(Duration::from_secs(1), writer.write(&chunk)).await {
                Ok(wrote) => written += wrote.expect("written"),
                Err(_) => break,
            }
        }
        assert!(written <= UNDER_WAY_MAX, "{written} bytes are under way");
        // It goes on when somebody reads.
        let mut reader = second.next_stream().await.stream;
        let mut sink = tokio::io::sink();
        let more = tokio::select! {
            more = timeout(PATIENCE, writer.write(&chunk)) => more.expect("in time"),
            end = tokio::io::copy(&mut reader, &mut sink) => panic!("ended: {end:?}"),
        };
        assert!(more.expect("written") > 0);
    }
}

#[tokio::test]
async fn a_stranger_that_keeps_knocking_is_disconnected_and_the_others_are_not() {
    let (stranger, friend, host) = (
        station(on(TCP)).await,
        station(on(TCP)).await,
        station(on(TCP)).await,
    );
    host.admit(friend.id());
    friend.knows(&host);
    stranger.knows(&host);
    let far = host.id();
    let mut stream = friend.open(far, "strfry").await;
    let (host_node, _guests, _tasks) = host.echo();
    ping_pong(&mut stream, b"before").await;
    for _ in 0..60 {
        if let Ok(mut refused) = stranger.try_open(far, "strfry").await {
            assert!(ends(&mut refused).await);
        }
    }
    let mut state = host_node.state();
    let stranger = stranger.id().to_string();
    let counted = state.wait_for(|state| {
        let refused = state.refused.get(&Refusal::NotAdmitted);
        refused.is_some_and(|count| *count > 32) && !state.links.contains_key(&stranger)
    });
    timeout(PATIENCE, counted)
        .await
        .expect("in time")
        .expect("runs");
    ping_pong(&mut stream, b"after").await;
}

/// The first has opened streams of a service of the second, and is connected with it still when it is taken away.
struct TakenAway {
    first: Station,
    far: PeerId,
    _second: (
        std::sync::Arc<Node>,
        tokio::sync::watch::Sender<std::sync::Arc<GuestList>>,
        TaskGroup,
    ),
}

async fn taken_away() -> TakenAway {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    let (far, app) = (second.id(), super::support::name("my-app"));
    second.change_guests(|list| {
        list.services
            .insert(app.clone(), crate::tunnel::Guests::Admitted);
    });
    let near = first.id().to_string();
    let (node, guests, tasks) = second.echo();
    for _ in 0..2 {
        let mut stream = first.open(far, "my-app").await;
        ping_pong(&mut stream, b"there").await;
    }
    // With a stream still open the whole connection would go, and with it what the first remembers.
    let mut state = node.state();
    let idle = state.wait_for(|state| {
        let link = state.links.get(&near);
        state.accepted == 2 && link.is_some_and(|link| link.streams_in == 0)
    });
    timeout(PATIENCE, idle)
        .await
        .expect("in time")
        .expect("runs");
    guests.send_modify(|list| {
        std::sync::Arc::make_mut(list).services.remove(&app);
    });
    TakenAway {
        first,
        far,
        _second: (node, guests, tasks),
    }
}

#[tokio::test]
async fn a_service_that_is_taken_away_is_noticed_also_by_streams_that_went_ahead() {
    let stage = taken_away().await;
    // A stream that went ahead fails when it is read, and the next one asks first again.
    let declined = async {
        loop {
            match stage.first.try_open(stage.far, "my-app").await {
                Ok(mut stream) => {
                    assert!(ends(&mut stream).await);
                    // Whoever goes on using it gets errors: libp2p itself would panic.
                    assert!(stream.flush().await.is_err());
                    assert!(stream.write_all(b"more").await.is_err());
                }
                Err(error) => break error,
            }
        }
    };
    let error = timeout(PATIENCE, declined).await.expect("in time");
    assert!(matches!(error, OpenError::NotOffered { .. }), "{error}");
}

#[tokio::test]
async fn streams_that_go_ahead_unanswered_are_bounded_also_when_they_are_opened_one_by_one() {
    const WITHOUT_AN_ANSWER: usize = 16;
    let stage = taken_away().await;
    let mut unanswered = Vec::new();
    let error = loop {
        match stage.first.try_open(stage.far, "my-app").await {
            Ok(stream) => unanswered.push(stream),
            Err(error) => break error,
        }
        assert!(unanswered.len() <= WITHOUT_AN_ANSWER);
    };
    assert!(matches!(error, OpenError::NotOffered { .. }), "{error}");
}

#[tokio::test]
async fn whoever_waits_to_read_or_write_is_told_when_we_end_the_connection() {
    let (first, mut second) = pair(on(TCP), on(TCP)).await;
    let far = second.id();
    let mut reading = first.open(far, "strfry").await;
    let mut writing = first.open(far, "strfry").await;
    for stream in [&mut reading, &mut writing] {
        stream.write_all(b"there").await.expect("sent");
        stream.flush().await.expect("flushed");
    }
    let _unread = [second.next_stream().await, second.next_stream().await];
    // Each waits in a task of its own: nobody else's waking helps it.
    let tasks = crate::tasks::TaskGroup::new(2);
    let read = tasks.spawn(async move { ends(&mut reading).await });
    // More than the other end takes before it reads.
    let written = tasks.spawn(async move { writing.write_all(&vec![0; 64 << 20]).await.is_err() });
    let (read, written) = (read.expect("room"), written.expect("room"));
    // Until both wait: there is one thread.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    first.change_guests(|list| {
        list.admitted.remove(&far);
        list.banned.insert(far);
    });
    let told = async { tokio::join!(read, written) };
    let (read, written) = timeout(PATIENCE, told).await.expect("in time");
    let told = |ended: Result<Option<bool>, _>| ended.ok().flatten() == Some(true);
    let (read, written) = (told(read), told(written));
    assert!(read && written);
}

#[tokio::test]
async fn a_stranger_that_is_admitted_gets_a_wide_connection() {
    const MORE_THAN_A_NARROW_ONE_BEARS: usize = 100;
    let (newcomer, host) = (station(on(TCP)).await, station(on(TCP)).await);
    newcomer.knows(&host);
    let far = host.id();
    let mut refused = newcomer.open(far, "strfry").await;
    assert!(ends(&mut refused).await);
    drop(refused);
    host.until_linked(newcomer.id()).await;
    host.admit(newcomer.id());
    newcomer.admit(far);
    // The narrow connection is closed when nothing has used it for a while: an answer may be on its way.
    let admitted = tokio::time::Instant::now();
    host.until(|state| state.links.is_empty()).await;
    assert!(admitted.elapsed() >= Duration::from_secs(2));
    let (_node, _guests, _tasks) = host.echo();
    let mut streams = Vec::new();
    for _ in 0..MORE_THAN_A_NARROW_ONE_BEARS {
        streams.push(newcomer.open(far, "strfry").await);
    }
    for stream in &mut streams {
        ping_pong(stream, b"wide").await;
    }
}
