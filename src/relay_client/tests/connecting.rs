//! Connecting with a real handshake: over a duplex stream with hyper on the other side, and over loopback TCP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use url::Url;

use super::*;
use crate::protocol::HandshakeError;
use crate::protocol::websocket::{STATION_HEADER, accept, is_upgrade};
use crate::relay_client::information::{fetch_information, fetch_information_over};
use crate::relay_client::{ConnectError, ConnectOptions, connect, connect_over, dial};

/// An HTTP server on `stream`: WebSockets echo their first message, other requests get `document`.
fn serve(
    stream: DuplexStream,
    document: &'static str,
    group: &TaskGroup,
) -> Arc<Mutex<Vec<String>>> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, sockets) = (Arc::clone(&seen), group.clone());
    let answer = move |request: Request<Incoming>| {
        let station = request.headers().get(STATION_HEADER).is_some();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        log.lock()
            .unwrap()
            .push(format!("{host} {} {station}", request.uri()));
        let sockets = sockets.clone();
        async move {
            if !is_upgrade(request.headers()) {
                return Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(document))));
            }
            let (response, upgraded) = accept(request, SOCKET).unwrap();
            let echo = async move {
                let mut socket = upgraded.open().await.unwrap();
                if let Ok(Some(Message::Text(text))) = socket.recv().await {
                    socket.send(text.as_str().to_owned()).await.unwrap();
                }
            };
            sockets.spawn(echo).unwrap();
            Ok(response.map(|_| Full::default()))
        }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    group.spawn(async move { connection.await.ok() }).unwrap();
    seen
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handshake_over_a_stream_that_was_handed_in() {
    let (ours, theirs) = duplex(64 * 1024);
    let group = TaskGroup::new(4);
    let seen = serve(theirs, "", &group);
    let address = url("ws://relay.example:7777/path?x=1#fragment");
    let options = ConnectOptions {
        socket: SOCKET,
        ..Default::default()
    };
    let mut socket = connect_over(Box::new(ours), &address, &options)
        .await
        .unwrap();
    socket.send("echo").await.unwrap();
    let Some(Message::Text(text)) = within(socket.recv()).await.unwrap() else {
        panic!("text")
    };
    assert_eq!(text.as_str(), "echo");
    assert_eq!(*seen.lock().unwrap(), ["relay.example:7777 /path?x=1 true"]);
    within(group.end()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_opens_no_websocket_is_a_typed_error() {
    for (answer, expected) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            "HTTP status 403",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP status 200",
        ),
        (
            "HTTP/1.1 301 X\r\nlocation: /y\r\n\r\n",
            "HTTP status 301, redirected to /y",
        ),
        (
            "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            "WebSocket handshake",
        ),
        ("SSH-2.0-x\r\n", "connection: "),
        ("", "connection: "),
    ] {
        let (ours, mut theirs) = duplex(64 * 1024);
        let answering = async {
            let mut request = [0; 4096];
            tokio::io::AsyncReadExt::read(&mut theirs, &mut request)
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut theirs, answer.as_bytes())
                .await
                .unwrap();
            drop(theirs);
        };
        let options = ConnectOptions::default();
        let address = url("ws://relay/");
        let connecting = connect_over(Box::new(ours), &address, &options);
        let (connected, ()) = within(Box::pin(async { tokio::join!(connecting, answering) })).await;
        let error = connected.expect_err(answer);
        assert!(error.to_string().starts_with(expected), "{answer}: {error}");
        assert_eq!(error.label(), "handshake");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_a_timeout() {
    let (ours, _theirs) = duplex(64 * 1024);
    let options = ConnectOptions::default();
    let connected = within(connect_over(Box::new(ours), &url("ws://relay/"), &options)).await;
    assert!(matches!(connected, Err(ConnectError::Timeout)));
    let (ours, _theirs) = duplex(64 * 1024);
    let address = url("ws://relay/");
    let fetching = fetch_information_over(Box::new(ours), &address, Duration::from_secs(10));
    assert_eq!(within(fetching).await, None);
}

#[tokio::test]
async fn failing_to_dial_says_how() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let deadline = Duration::from_secs(10);
    for address in ["http://127.0.0.1/", "ws+unix:/x"] {
        assert!(matches!(
            dial(&url(address), deadline).await.err(),
            Some(ConnectError::InvalidAddress)
        ));
    }
    let closing = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
        listener
    };
    let secure = url(&format!("wss://127.0.0.1:{port}/"));
    let (dialled, listener) = tokio::join!(dial(&secure, deadline), closing);
    assert!(
        matches!(dialled.err(), Some(ConnectError::Tls(_))),
        "no TLS there"
    );
    drop(listener);
    let plain = url(&format!("ws://127.0.0.1:{port}/"));
    let refused = connect(&plain, &ConnectOptions::default())
        .await
        .expect_err("nobody listens");
    assert_eq!(refused.label(), "refused");
    assert_eq!(fetch_information(&plain, deadline).await, None);
}

#[tokio::test(start_paused = true)]
async fn relay_information_is_fetched_and_its_size_bounded() {
    let long: &'static str = Box::leak(format!("{{\"name\":\"{}\"}}", "x".repeat(70_000)).into());
    for (document, expected) in [
        (
            "{\"name\":\"relay\",\"supported_nips\":[1,77]}",
            Some("relay"),
        ),
        ("<html></html>", None),
        (long, None),
    ] {
        let (ours, theirs) = duplex(64 * 1024);
        let group = TaskGroup::new(4);
        let seen = serve(theirs, document, &group);
        let address = url("wss://relay.example/path");
        let fetching = fetch_information_over(Box::new(ours), &address, Duration::from_secs(10));
        let fetched = within(fetching).await;
        assert_eq!(
            fetched.and_then(|document| document.name).as_deref(),
            expected
        );
        assert_eq!(*seen.lock().unwrap(), ["relay.example /path false"]);
        within(group.end()).await;
    }
}

#[test]
fn a_request_that_asks_for_no_websocket_is_not_accepted() {
    let request = Request::new(());
    let error = accept(request, SOCKET).expect_err("no upgrade");
    assert!(matches!(error, HandshakeError::Protocol(_)));
}
