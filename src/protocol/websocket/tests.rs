//! Tests of the framing over `tokio::io::duplex`: both roles, limits, hostile peers, cancellation.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

const LIMITS: SocketLimits = SocketLimits {
    message_bytes_max: 100_000,
};

fn pair(buffer: usize) -> (TextSocket, TextSocket) {
    let (left, right) = duplex(buffer);
    (
        TextSocket::over(left, Role::Client, LIMITS).unwrap(),
        TextSocket::over(right, Role::Server, LIMITS).unwrap(),
    )
}

/// A server-side socket and the raw stream of its client.
fn raw_client(buffer: usize) -> (DuplexStream, TextSocket) {
    let (left, right) = duplex(buffer);
    (left, TextSocket::over(right, Role::Server, LIMITS).unwrap())
}

fn text_of(message: Option<Message>) -> String {
    match message {
        Some(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("text expected, not {other:?}"),
    }
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_in_both_directions() {
    let (mut client, mut server) = pair(1 << 20);
    client.send("hello").await.unwrap();
    assert_eq!(text_of(server.recv().await.unwrap()), "hello");
    let (mut sender, _receiver) = server.split();
    sender
        .send_many((0..1000).map(|n| format!("message {n} é")))
        .await
        .unwrap();
    for n in 0..1000 {
        assert_eq!(
            text_of(client.recv().await.unwrap()),
            format!("message {n} é")
        );
    }
    sender.close().await.unwrap();
    assert!(client.recv().await.unwrap().is_none());
    assert!(matches!(sender.send("x").await, Err(SocketError::Closed)));
}

#[tokio::test]
async fn a_message_of_the_limit_passes_and_one_byte_more_closes() {
    let (mut client, mut server) = pair(1 << 20);
    client
        .send("x".repeat(LIMITS.message_bytes_max))
        .await
        .unwrap();
    assert_eq!(
        text_of(server.recv().await.unwrap()).len(),
        LIMITS.message_bytes_max
    );
    client
        .send("x".repeat(LIMITS.message_bytes_max + 1))
        .await
        .unwrap();
    assert!(matches!(
        server.recv().await,
        Err(SocketError::MessageTooLarge { limit: 100_000 })
    ));
    assert!(
        client.recv().await.unwrap().is_none(),
        "the peer is told by a close frame"
    );
}

#[tokio::test]
async fn fragments_are_joined_and_bounded_together() {
    let (mut client, mut server) = raw_client(1 << 20);
    // Two masked fragments, mask 0: "ab" + "cd".
    client
        .write_all(b"\x01\x82\0\0\0\0ab\x80\x82\0\0\0\0cd")
        .await
        .unwrap();
    assert_eq!(text_of(server.recv().await.unwrap()), "abcd");
    let mut fragment = vec![0x01, 0xfe, 0xea, 0x60, 0, 0, 0, 0]; // 60,000 bytes
    fragment.resize(8 + 60_000, b'x');
    client.write_all(&fragment).await.unwrap();
    fragment[0] = 0x80;
    client.write_all(&fragment).await.unwrap();
    assert!(matches!(
        server.recv().await,
        Err(SocketError::MessageTooLarge { .. })
    ));
}

#[tokio::test]
async fn text_that_is_not_utf8_and_frames_that_are_none_are_errors() {
    let (mut client, mut server) = raw_client(1024);
    client.write_all(b"\x81\x82\0\0\0\0\xc3\x28").await.unwrap();
    assert!(matches!(server.recv().await, Err(SocketError::NotUtf8)));

    let (mut client, mut server) = raw_client(1024);
    client.write_all(b"\xff\xff\0\0\0\0").await.unwrap();
    assert!(matches!(server.recv().await, Err(SocketError::Protocol(_))));

    let (mut client, mut server) = raw_client(1024);
    client.write_all(b"\x81\x85\0\0\0\0he").await.unwrap();
    drop(client);
    assert!(
        matches!(server.recv().await, Err(SocketError::Io(_))),
        "broken off in a frame"
    );
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_a_peer_that_does_not_read_them_is_cut() {
    let (mut client, mut server) = raw_client(1024);
    client.write_all(b"\x89\x81\0\0\0\0p").await.unwrap();
    client.write_all(b"\x82\x81\0\0\0\0b").await.unwrap();
    assert_eq!(
        server.recv().await.unwrap(),
        Some(Message::Binary(Bytes::from_static(b"b")))
    );
    let mut pong = [0; 3];
    client.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x01p");

    let flood = async {
        for _ in 0..100_000 {
            if client.write_all(b"\x89\x81\0\0\0\0p").await.is_err() {
                break;
            }
        }
        client
    };
    let (received, _client) = timeout(Duration::from_secs(10), async {
        tokio::join!(server.recv(), async {
            timeout(Duration::from_secs(1), flood).await
        })
    })
    .await
    .unwrap();
    assert!(
        matches!(received, Err(SocketError::PingFlood)),
        "{received:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_does_not_lose_the_senders_wakeup() {
    let (mut client, server) = raw_client(256);
    let (mut sender, mut receiver) = server.split();
    let message = "y".repeat(90_000);
    // The sender waits for room while pings come in; then the client reads all of it.
    let sending = async {
        sender
            .send_many([message.clone(), message.clone()])
            .await
            .unwrap()
    };
    let receiving = async { receiver.recv().await.unwrap() };
    let driving = async {
        for _ in 0..20 {
            client.write_all(b"\x89\x80\0\0\0\0").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut got = vec![0; 2 * 90_000];
        client.read_exact(&mut got).await.unwrap();
        let mut rest = vec![0; 4096];
        client.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
        while timeout(Duration::from_millis(50), client.read(&mut rest))
            .await
            .is_ok()
        {}
    };
    let all = async { tokio::join!(sending, receiving, driving) };
    let ((), received, ()) = timeout(Duration::from_secs(10), all).await.unwrap();
    assert_eq!(text_of(received), "");
}

#[tokio::test(start_paused = true)]
async fn a_send_that_does_not_progress_can_be_dropped_and_leaves_whole_frames() {
    let (mut client, mut server) = pair(64);
    let big = "z".repeat(90_000);
    let stuck = timeout(Duration::from_millis(20), client.send(big.clone())).await;
    assert!(stuck.is_err());
    let (received, sent) = tokio::join!(
        async { (server.recv().await.unwrap(), server.recv().await.unwrap()) },
        client.send("after")
    );
    sent.unwrap();
    assert_eq!(text_of(received.0), big);
    assert_eq!(text_of(received.1), "after");
}

#[tokio::test]
async fn an_address_that_is_none_is_an_error_and_no_panic() {
    let long = format!("ws://a/{}", "x".repeat(70_000));
    for address in ["http://a/", "ws:/%20", "data:x", &long] {
        let Ok(url) = address.parse() else { continue };
        let (stream, _peer) = duplex(64);
        let error = connect_websocket(stream, &url, &[], LIMITS)
            .await
            .expect_err(address);
        assert!(
            matches!(error, HandshakeError::InvalidAddress),
            "{address}: {error}"
        );
    }
}
