//! Bytes both ways, whatever carries them; and keys that do not fit.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::super::NodeOptions;
use super::support::{
    MEMORY, PATIENCE, QUIC, Station, TCP, identity, on, pair, ping_pong, rsa_identity, station,
    station_of, swarm_key, try_station,
};
use crate::tunnel::test_keys::KUBO_RSA_PEER;
use crate::tunnel::{NodeError, OpenError, Path};

async fn both_ways(first: Station, second: Station) {
    let (near, far) = (first.id(), second.id());
    let mut second = second;
    let mut opened = first.open(far, "strfry").await;
    opened.write_all(b"question").await.expect("sent");
    opened.flush().await.expect("flushed");
    let mut taken = second.next_stream().await;
    assert_eq!((taken.peer, taken.service.as_str()), (near, "strfry"));
    let mut bytes = [0; 8];
    taken.stream.read_exact(&mut bytes).await.expect("read");
    assert_eq!(&bytes, b"question");
    taken.stream.write_all(b"answer").await.expect("sent");
    taken.stream.shutdown().await.expect("closed");
    drop(taken);
    let mut answer = Vec::new();
    let all = opened.read_to_end(&mut answer);
    timeout(PATIENCE, all)
        .await
        .expect("in time")
        .expect("read");
    assert_eq!(answer, b"answer");
    drop(opened);
    // The one that was called opens a stream on the same connection.
    let mut first = first;
    let mut back = second.open(near, "strfry").await;
    back.write_all(&vec![7; 200_000]).await.expect("sent");
    back.flush().await.expect("flushed");
    let mut taken = first.next_stream().await;
    assert_eq!(taken.peer, far);
    let mut bytes = vec![0; 200_000];
    let read = taken.stream.read_exact(&mut bytes);
    timeout(PATIENCE, read)
        .await
        .expect("in time")
        .expect("read");
    assert!(bytes.iter().all(|byte| *byte == 7));
    let far = far.to_string();
    first
        .until(|state| {
            let link = state.links.get(&far);
            link.is_some_and(|link| link.path == Path::Direct && link.streams_in == 1)
        })
        .await;
    second.until(|state| state.accepted == 1).await;
}

#[tokio::test]
async fn bytes_go_both_ways_over_tcp() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    both_ways(first, second).await;
}

#[tokio::test]
async fn bytes_go_both_ways_over_quic() {
    let (first, second) = pair(on(QUIC), on(QUIC)).await;
    assert!(second.addresses()[0].to_string().contains("quic-v1"));
    both_ways(first, second).await;
}

#[tokio::test]
async fn bytes_go_both_ways_in_memory() {
    let (first, second) = pair(on(MEMORY), on(MEMORY)).await;
    both_ways(first, second).await;
}

fn private(digits: &str) -> NodeOptions {
    NodeOptions {
        swarm_key: Some(swarm_key(digits)),
        ..on(TCP)
    }
}

#[tokio::test]
async fn bytes_go_both_ways_in_a_private_swarm() {
    let (first, second) = pair(private("0f"), private("0f")).await;
    both_ways(first, second).await;
}

#[tokio::test]
async fn another_swarm_key_is_an_error_within_the_deadline() {
    for other in [private("f0"), on(TCP)] {
        let (first, second) = pair(private("0f"), other).await;
        let began = Instant::now();
        let error = first.try_open(second.id(), "strfry").await;
        let error = error.err().expect("no stream");
        assert!(
            matches!(error, OpenError::Unreachable { .. } | OpenError::Timeout),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(15), "{error}");
    }
}

#[tokio::test]
async fn quic_with_a_swarm_key_is_refused_in_words() {
    let options = NodeOptions {
        swarm_key: Some(swarm_key("0f")),
        ..on(QUIC)
    };
    let error = try_station(&identity(), options)
        .await
        .err()
        .expect("refused");
    assert!(matches!(error, NodeError::Options(_)), "{error}");
    assert!(error.to_string().contains("only TCP"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = station(on(TCP)).await;
    let taken = first.addresses().remove(0);
    let options = NodeOptions {
        listen: vec![taken.clone()],
        ..NodeOptions::default()
    };
    let error = try_station(&identity(), options)
        .await
        .err()
        .expect("refused");
    let NodeError::Listen { address, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(*address, taken);
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse, "{error}");
}

#[tokio::test]
async fn streams_that_go_ahead_without_asking_carry_the_same_bytes() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    let far = second.id();
    let (_node, _guests, _tasks) = second.echo();
    for round in 0..50_u8 {
        let mut stream = first.open(far, "strfry").await;
        ping_pong(&mut stream, &[round; 100]).await;
    }
    first.until_linked(far).await;
}

#[tokio::test]
async fn a_node_ends_with_its_tasks_and_says_so() {
    let (first, second) = pair(on(TCP), on(TCP)).await;
    let far = second.id();
    let mut stream = first.open(far, "strfry").await;
    first.tasks.end().await;
    let error = first.try_open(far, "strfry").await.err().expect("ended");
    assert!(matches!(error, OpenError::CarrierDown(_)), "{error}");
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await;
    assert!(!matches!(read.expect("in time"), Ok(1)));
}

#[tokio::test]
async fn an_rsa_station_is_a_peer_like_any_other() {
    let rsa = rsa_identity();
    let (first, mut second) = (station_of(&rsa, on(TCP)).await, station(on(TCP)).await);
    assert_eq!(first.id().to_string(), KUBO_RSA_PEER);
    second.admit(first.id());
    first.knows(&second);
    let mut stream = first.open(second.id(), "strfry").await;
    stream.write_all(b"x").await.expect("sent");
    stream.flush().await.expect("flushed");
    assert_eq!(second.next_stream().await.peer, first.id());
}
