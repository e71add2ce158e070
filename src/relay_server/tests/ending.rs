//! How connections begin and end: HTTP, garbage, readers that do not read, the relay's own closing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::limits::{MESSAGE_BYTES_MAX, REQUEST_DEADLINE, SLOW_READER_DEADLINE};
use crate::protocol::RelayInformation;
use crate::relay_server::{RelayServer, bounds};

/// Sends one HTTP request; gives the whole answer.
async fn exchange(relay: &Relay, request: &str) -> String {
    let (mut stream, end) = relay.dial(local_party(), 64 << 10);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(within(end).await.unwrap(), Some(ConnectionEnd::Answered));
    answer
}

#[tokio::test(start_paused = true)]
async fn http_gets_the_document_or_the_page() {
    let relay = Relay::new();
    relay.store(&[note(1, 1)]).await;
    relay.set(|options| options.contact = Some("mailto:captain@example.org".to_owned()));
    let get = |path: &str, accept: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")
    };
    let answer = exchange(&relay, &get("/", "application/nostr+json")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase()
            .contains("access-control-allow-origin: *"),
        "{head}"
    );
    let document = RelayInformation::parse(body.as_bytes()).unwrap();
    assert_eq!(document.supported_nips, [1, 9, 11, 40, 42, 45, 62, 70, 77]);
    assert_eq!(document.constellation.unwrap().frame_bytes, 500_000);
    assert!(body.contains("mailto:captain@example.org"));

    let page = exchange(&relay, &get("/", "text/html")).await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<dd>1</dd>"),
        "{page}"
    );
    assert!(
        exchange(&relay, &get("/else", "*/*"))
            .await
            .starts_with("HTTP/1.1 404")
    );
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    assert!(exchange(&relay, post).await.starts_with("HTTP/1.1 405"));
    let options = exchange(&relay, "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        options.starts_with("HTTP/1.1 204") && options.contains("allow-methods"),
        "{options}"
    );
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut stream, _end) = relay.dial(local_party(), 64 << 10);
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    within(stream.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400", "no key");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_nothing_is_not_waited_for() {
    let relay = Relay::new();
    let (mut stream, end) = relay.dial(RemoteParty::default(), 1024);
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let before = tokio::time::Instant::now();
    let end = within(end).await.unwrap().unwrap();
    assert!(
        matches!(
            end,
            ConnectionEnd::RequestTimeout | ConnectionEnd::Handshake(_)
        ),
        "{end}"
    );
    assert!(before.elapsed() <= REQUEST_DEADLINE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
    let relay = Relay::new();
    let large = |ago| event(1, 1, ago, &[], &format!("{ago} {}", "x".repeat(100_000)));
    relay.store(&(0..40).map(large).collect::<Vec<_>>()).await;
    let mut idle = relay
        .connect_with(RemoteParty::default(), 4 << 10, &[])
        .await;
    let mut slow = relay
        .connect_with(RemoteParty::default(), 4 << 10, &[])
        .await;
    idle.say(json!(["REQ", "x", {}])).await;
    slow.say(json!(["REQ", "x", {}])).await;
    let before = tokio::time::Instant::now();
    for _ in 0..40 {
        tokio::time::sleep(SLOW_READER_DEADLINE / 2).await;
        slow.live("x").await;
    }
    assert_eq!(slow.hear().await, json!(["EOSE", "x"]));
    let end = within(idle.end).await.unwrap();
    assert_eq!(end, Some(ConnectionEnd::SlowReader));
    assert!(before.elapsed() >= SLOW_READER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_read_from() {
    let relay = Relay::new();
    let mut client = relay
        .connect_with(RemoteParty::default(), 4 << 10, &[])
        .await;
    let big = format!("[\"{}\"]", "x".repeat(100_000));
    // Each message is answered by a NOTICE that nobody takes.
    let flood = async { while client.socket.send(big.clone()).await.is_ok() {} };
    within(flood).await;
    let end = within(client.end).await.unwrap().unwrap();
    assert!(
        matches!(end, ConnectionEnd::SlowReader | ConnectionEnd::Malformed),
        "{end}"
    );
}

#[tokio::test(start_paused = true)]
async fn garbage_is_answered_and_too_much_of_it_ends_the_connection() {
    let relay = Relay::new();
    let mut client = relay.stranger().await;
    for text in [
        "",
        "nonsense",
        "[]",
        "{}",
        "[\"HELLO\"]",
        "[\"REQ\"]",
        "[1,2]",
        "[\"CLOSE\"]",
    ] {
        client.say_text(text).await;
        let notice = client.hear().await;
        assert_eq!(notice[0], "NOTICE", "{text}");
        assert!(
            notice[1].as_str().unwrap().starts_with("invalid: "),
            "{notice}"
        );
    }
    client.say(json!(["REQ", "x", {"kinds": "all"}])).await;
    let closed = client.hear().await;
    assert_eq!((&closed[0], &closed[1]), (&json!("CLOSED"), &json!("x")));
    assert!(
        client.query(&[json!({})]).await.is_empty(),
        "the connection goes on"
    );
    for _ in 0..bounds::MALFORMED_MAX {
        if client.socket.send("nonsense".to_owned()).await.is_err() {
            break;
        }
    }
    let (heard, end) = client.ends().await;
    assert_eq!(end, ConnectionEnd::Malformed);
    assert_eq!(
        heard.last().unwrap()[1],
        "closed: too many malformed messages"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_closes() {
    let relay = Relay::new();
    let mut client = relay
        .connect_with(RemoteParty::default(), 4 << 20, &[])
        .await;
    client.say_text("x".repeat(MESSAGE_BYTES_MAX + 1)).await;
    let (_, end) = client.ends().await;
    assert!(matches!(end, ConnectionEnd::Socket(_)), "{end}");
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_and_end_with_the_relay() {
    let relay = Relay::new();
    let (first, mut second) = (relay.local().await, relay.stranger().await);
    assert_eq!(*relay.context.connections().borrow(), 2);
    second.say(json!(["REQ", "x", {}])).await;
    second.stored("x").await;
    within(second.socket.close()).await.unwrap();
    let mut connections = relay.context.connections();
    within(connections.wait_for(|count| *count == 1))
        .await
        .unwrap();
    relay.context.close().await;
    assert_eq!(*connections.borrow(), 0);
    let (_, end) = first.ends().await;
    assert_eq!(end, ConnectionEnd::Closing);
}

#[tokio::test]
async fn a_port_is_served_until_the_relay_closes_and_holds_so_many() {
    let relay = Relay::new();
    relay.set(|options| options.connections_max = 1);
    let _tunnel = relay.connect(RemoteParty::station("12D3")).await; // takes no place of the port
    let listener = RelayServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    assert!(RelayServer::bind(address).is_err(), "taken");
    let server = RelayServer::new(Arc::clone(&relay.context));
    let tasks = relay.tasks.clone();
    let served = relay
        .tasks
        .spawn(async move { server.serve(listener, tasks).await })
        .unwrap();

    let url = Url::parse(&format!("ws://{address}/")).unwrap();
    let dial = || async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        connect_websocket(stream, &url, &[], SocketLimits::default()).await
    };
    let mut first = within(dial()).await.unwrap();
    assert!(within(dial()).await.is_err(), "one too many");
    assert!(matches!(
        within(first.recv()).await,
        Ok(Some(Message::Text(_)))
    ));
    within(relay.context.close()).await;
    assert!(
        within(first.recv()).await.unwrap().is_none(),
        "it says goodbye"
    );
    within(served).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_are_compressed_for_clients_elsewhere_that_offer_it() {
    let relay = Relay::new();
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let is_compressed = async |party: RemoteParty, headers: &str| {
        let (mut stream, _end) = relay.dial(party, 64 << 10);
        let request = format!("{upgrade}{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        head.contains("permessage-deflate")
    };
    let stranger = RemoteParty::default;
    assert!(is_compressed(stranger(), offer).await);
    assert!(!is_compressed(stranger(), "").await);
    assert!(
        !is_compressed(local_party(), offer).await,
        "no line to save"
    );
    let proxied = format!("{offer}X-Forwarded-For: 192.0.2.7\r\n");
    assert!(
        is_compressed(local_party(), &proxied).await,
        "from elsewhere"
    );
    assert!(!is_compressed(RemoteParty::station("12D3"), offer).await);
    let station = format!("{offer}X-Constellation: 1\r\n");
    assert!(!is_compressed(stranger(), &station).await);
    relay.set(|options| options.compression = false);
    assert!(!is_compressed(stranger(), offer).await);
}

/// A thousand connections that said nothing held every place of the relay for ten seconds, and came again.
#[tokio::test(start_paused = true)]
async fn an_address_is_counted_before_it_says_anything() {
    let relay = Relay::new();
    relay.set(|options| options.connections_per_address_max = 2);
    let silent = || {
        relay.dial(
            RemoteParty::of_tcp("192.0.2.1:5".parse().unwrap(), None),
            64 << 10,
        )
    };
    let first = [silent(), silent()];
    let (mut third, end) = silent();
    let mut status = [0; 12];
    within(third.read_exact(&mut status)).await.unwrap();
    assert_eq!(status, *b"HTTP/1.1 429");
    assert_eq!(within(end).await.unwrap(), Some(ConnectionEnd::AddressFull));
    let other = RemoteParty::of_tcp("192.0.2.2:5".parse().unwrap(), None);
    let _elsewhere = relay.connect(other).await;
    // Places are free again when the silent ones are given up.
    for (_stream, end) in first {
        let end = end.await.unwrap();
        assert!(matches!(end, Some(ConnectionEnd::Handshake(_))), "{end:?}");
    }
    let near = RemoteParty::of_tcp("192.0.2.1:6".parse().unwrap(), None);
    let _again = relay.connect(near).await;
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_take_all_places() {
    let relay = Relay::new();
    relay.set(|options| {
        options.connections_per_address_max = 2;
        options.trusted_proxies = vec!["203.0.113.1".parse().unwrap()];
    });
    let from = |address: &str| RemoteParty::of_tcp(address.parse().unwrap(), None);
    let near = "192.0.2.1:5";
    let mut first = relay.connect(from(near)).await;
    let _second = relay.connect(from(near)).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = async |party: RemoteParty, headers: &str| {
        let (mut stream, _end) = relay.dial(party, 64 << 10);
        let request = format!("{upgrade}{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        within(stream.read_exact(&mut status)).await.unwrap();
        String::from_utf8_lossy(&status).into_owned()
    };
    assert_eq!(answer(from(near), "").await, "HTTP/1.1 429");
    // Through a trusted proxy the client counts, not the proxy; through another one the proxy does.
    let named = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(answer(from("203.0.113.1:5"), named).await, "HTTP/1.1 429");
    assert_eq!(answer(from("203.0.113.1:5"), "").await, "HTTP/1.1 101");
    assert_eq!(answer(from("203.0.113.2:5"), named).await, "HTTP/1.1 101");
    let mut captain = Vec::new();
    for _ in 0..4 {
        captain.push(relay.local().await);
    }
    within(first.socket.close()).await.unwrap();
    let mut connections = relay.context.connections();
    drop(first.ends().await);
    within(connections.wait_for(|alive| *alive < 7))
        .await
        .unwrap();
    assert_eq!(answer(from(near), "").await, "HTTP/1.1 101");
}
