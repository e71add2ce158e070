//! Compression as clients see it: what is offered and taken, and what a bomb does.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use url::Url;
use yawc::{Frame, HttpRequest, Options, WebSocket};

use super::{Compression, Message, SocketError, SocketLimits, TextSocket, accept_with};
use crate::tasks::TaskGroup;

const LIMITS: SocketLimits = SocketLimits {
    message_bytes_max: 100_000,
};

type Client = WebSocket<DuplexStream>;

/// A client of another make that offers compression, our server, and what the server said of it.
async fn pair(compression: Compression, offer: Options) -> (Client, TextSocket, Option<String>) {
    let tasks = TaskGroup::new(4);
    let (ours, theirs) = duplex(1 << 20);
    let (give, taken) = async_channel::bounded(1);
    let service = service_fn(move |request| {
        let give = give.clone();
        async move {
            let (response, pending) = accept_with(request, LIMITS, compression).unwrap();
            let agreed = response.headers().get(SEC_WEBSOCKET_EXTENSIONS).cloned();
            give.send((pending, agreed)).await.unwrap();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    tasks
        .spawn(async move {
            let io = TokioIo::new(theirs);
            let served = http1::Builder::new().serve_connection(io, service);
            served.with_upgrades().await.unwrap();
        })
        .unwrap();
    let url = Url::parse("ws://localhost/").unwrap();
    let client = WebSocket::handshake_with_request(url, ours, offer, HttpRequest::builder());
    let client = client.await.unwrap();
    let (pending, agreed): (super::PendingSocket, Option<HeaderValue>) =
        taken.recv().await.unwrap();
    let agreed = agreed.map(|value| value.to_str().unwrap().to_owned());
    (client, pending.open().await.unwrap(), agreed)
}

fn offering() -> Options {
    Options::default().with_low_latency_compression()
}

fn text_of(message: Option<Message>) -> String {
    match message {
        Some(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("text expected, not {other:?}"),
    }
}

#[tokio::test]
async fn messages_pass_both_ways_and_no_context_is_kept() {
    let (mut client, mut server, agreed) = pair(Compression::IfOffered, offering()).await;
    let agreed = agreed.expect("compressed");
    for word in [
        "permessage-deflate",
        "server_no_context_takeover",
        "client_no_context_takeover",
    ] {
        assert!(agreed.contains(word), "{agreed}");
    }
    for text in ["short".to_owned(), "long é ".repeat(5_000)] {
        client.send(Frame::text(text.clone())).await.unwrap();
        assert_eq!(text_of(server.recv().await.unwrap()), text);
        server.send(text.clone()).await.unwrap();
        let answer = client.next().await.unwrap();
        assert_eq!(answer.payload(), text.as_bytes());
    }
}

#[tokio::test]
async fn nothing_is_compressed_that_was_not_offered_or_may_not_be() {
    let (mut client, mut server, agreed) = pair(
        Compression::IfOffered,
        Options::default().without_compression(),
    )
    .await;
    assert_eq!(agreed, None);
    server.send("plain").await.unwrap();
    assert_eq!(client.next().await.unwrap().payload(), b"plain".as_slice());
    let (_, _, agreed) = pair(Compression::Never, offering()).await;
    assert_eq!(agreed, None);
}

#[test]
fn a_client_that_names_our_window_is_not_answered_with_another() {
    let headers = |offer: &'static str| {
        [(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer))]
            .into_iter()
            .collect()
    };
    let compresses = |offer| {
        let options = Compression::IfOffered.options(Options::default(), &headers(offer));
        options.compression.is_some()
    };
    assert!(compresses("permessage-deflate; client_max_window_bits"));
    assert!(!compresses("permessage-deflate; server_max_window_bits=10"));
}

#[tokio::test]
async fn a_message_of_the_limit_passes_and_a_bomb_is_refused() {
    let (mut client, mut server, _) = pair(Compression::IfOffered, offering()).await;
    let largest = "x".repeat(LIMITS.message_bytes_max);
    client.send(Frame::text(largest.clone())).await.unwrap();
    assert_eq!(text_of(server.recv().await.unwrap()), largest);
    // Some 100 kB on the wire that would unfold to a thousand times as much as a message may have.
    let bomb = Bytes::from(vec![b'x'; 1_000 * LIMITS.message_bytes_max]);
    client.send(Frame::text(bomb)).await.unwrap();
    assert!(matches!(
        server.recv().await,
        Err(SocketError::MessageTooLarge { limit: 100_000 })
    ));
}

#[tokio::test]
async fn a_bomb_in_pieces_is_refused_as_soon_as_it_is_too_large() {
    let (client, mut server, _) = pair(Compression::IfOffered, offering()).await;
    let mut client = client.into_streaming();
    let piece = Bytes::from(vec![b'x'; LIMITS.message_bytes_max / 4]);
    client
        .send(Frame::text(piece.clone()).with_fin(false))
        .await
        .unwrap();
    for _ in 0..4 {
        let more = Frame::continuation(piece.clone()).with_fin(false);
        client.send(more).await.unwrap();
    }
    // The last piece never comes.
    assert!(matches!(
        server.recv().await,
        Err(SocketError::MessageTooLarge { .. })
    ));
}
