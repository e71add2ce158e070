//! The HTTP side of the relay's port: a WebSocket, the information document, or a page for browsers.
//!
//! Takes any byte stream and who is said to be at its other end; serves one request. Invariant: rights never grow
//! here, they only shrink: what a proxy passes on, and what a foreign web page in a browser on this machine asks,
//! does not count as loopback. Worst case before a conversation begins: 16 KiB of head, `REQUEST_DEADLINE`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use url::{Host, Url};

use super::addresses::{AddressFull, Place};
use super::bounds::{HEAD_BYTES_MAX, REFUSAL_DEADLINE};
use super::connection::{Visitor, converse};
use super::context::{ConnectionEnd, RelayContext, RemoteParty};
use super::options::RelayOptions;
use super::outbox::{BytesSent, CountedStream};
use super::{information, page};
use crate::limits::REQUEST_DEADLINE;
use crate::protocol::SocketLimits;
use crate::protocol::websocket::{
    Compression, PendingSocket, STATION_HEADER, STATION_PEER_HEADER, accept_with, is_upgrade,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The whole answer to a connection that is one too many, whatever it was going to ask.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The conversation that an upgrade leads to.
type Upgrade = Arc<Mutex<Option<(PendingSocket, Visitor, Option<Place>)>>>;

/// Serves one connection until it ends, and says why it did.
///
/// Cancel safe in that dropping it closes the connection; events already taken are still stored.
pub async fn serve_connection<S>(
    stream: S,
    party: RemoteParty,
    context: Arc<RelayContext>,
) -> ConnectionEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _counted = context.enter();
    let options = context.options();
    let near = party.address.map(|address| address.ip());
    let _place = match near.filter(|ip| !is_trusted_proxy(*ip, &options)) {
        None => None,
        Some(near) => match context
            .addresses
            .take(near, options.connections_per_address_max)
        {
            Ok(place) => place,
            Err(AddressFull) => return refuse(stream).await,
        },
    };
    let sent = BytesSent::default();
    let upgrade = Upgrade::default();
    let service = service_fn(|request| {
        let (party, context) = (party.clone(), Arc::clone(&context));
        let upgrade = Arc::clone(&upgrade);
        async move { Ok::<_, Infallible>(answer(request, party, &context, &upgrade).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX);
    let io = TokioIo::new(CountedStream::new(stream, sent.clone()));
    let exchange = server.serve_connection(io, service).with_upgrades();
    match timeout(REQUEST_DEADLINE, Box::pin(exchange)).await {
        Err(_) => return ConnectionEnd::RequestTimeout,
        Ok(Err(error)) => return ConnectionEnd::Handshake(error.to_string()),
        Ok(Ok(())) => {}
    }
    let upgraded = upgrade
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some((socket, visitor, _place)) = upgraded else {
        return ConnectionEnd::Answered;
    };
    match timeout(REQUEST_DEADLINE, socket.open()).await {
        Err(_) => ConnectionEnd::RequestTimeout,
        Ok(Err(error)) => ConnectionEnd::Handshake(error.to_string()),
        Ok(Ok(socket)) => Box::pin(converse(socket, visitor, context, sent)).await,
    }
}

/// Tells a connection that its address has too many; one that does not take it is closed all the same.
async fn refuse(mut stream: impl AsyncWrite + Unpin) -> ConnectionEnd {
    let telling = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await
    };
    match timeout(REFUSAL_DEADLINE, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%error, "a refusal was not taken"),
        Err(_) => tracing::trace!("a refusal was not taken in time"),
    }
    ConnectionEnd::AddressFull
}

async fn answer<B>(
    request: Request<B>,
    party: RemoteParty,
    context: &RelayContext,
    upgrade: &Upgrade,
) -> Response<Full<Bytes>> {
    let options = context.options();
    let headers = request.headers();
    if is_upgrade(headers) {
        let near = party.address.map(|address| address.ip());
        let visitor = visitor(party, headers, &options);
        // Who comes directly was counted when they came.
        let named = near
            .filter(|near| is_trusted_proxy(*near, &options))
            .and(visitor.party.address);
        let place = named.map_or(Ok(None), |named| {
            let at_most = options.connections_per_address_max;
            context.addresses.take(named.ip(), at_most)
        });
        let place = match place {
            Ok(place) => place,
            Err(full) => return plain(StatusCode::TOO_MANY_REQUESTS, full.to_string()),
        };
        let compression = compression(&visitor, &options);
        return match accept_with(request, SocketLimits::default(), compression) {
            Ok((response, socket)) => {
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((socket, visitor, place));
                response.map(|_| Full::default())
            }
            Err(error) => plain(StatusCode::BAD_REQUEST, error.to_string()),
        };
    }
    let wants_information = headers.get_all(ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("application/nostr+json"))
    });
    match *request.method() {
        Method::OPTIONS => respond(StatusCode::NO_CONTENT, "text/plain", String::new()),
        Method::GET | Method::HEAD if wants_information => respond(
            StatusCode::OK,
            "application/nostr+json",
            information::document(&options, &context.peer_id.borrow().to_string()),
        ),
        Method::GET | Method::HEAD if request.uri().path() == "/" => {
            let counted = context.read(|store| store.snapshot()?.event_count()).await;
            let page = page::render(&options, counted.ok());
            respond(StatusCode::OK, "text/html; charset=utf-8", page)
        }
        Method::GET | Method::HEAD => plain(StatusCode::NOT_FOUND, "not here".to_owned()),
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET".to_owned());
            let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

/// Any answer: open to all origins (NIP-11), and the last of its connection.
fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONNECTION, "close"),
        (VARY, "Accept"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn visitor(mut party: RemoteParty, headers: &HeaderMap, options: &RelayOptions) -> Visitor {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let passed_on = [X_FORWARDED_FOR, X_REAL_IP, FORWARDED]
        .iter()
        .any(|name| headers.contains_key(name));
    if passed_on || !options.trust_loopback || text(ORIGIN).is_some_and(is_foreign_origin) {
        party.loopback = false;
    }
    party.address = party
        .address
        .map(|address| client_address(address, headers, options));
    let is_station = text(STATION_HEADER) == Some("1");
    let station = match &party.admitted_station {
        Some(proved) => proved.parse().ok(),
        None => text(STATION_PEER_HEADER)
            .filter(|_| is_station && party.loopback)
            .and_then(|claimed| claimed.parse().ok()),
    };
    Visitor {
        is_station,
        station,
        host: text(HOST).map(str::to_owned),
        party,
    }
}

fn is_trusted_proxy(address: IpAddr, options: &RelayOptions) -> bool {
    options.trusted_proxies.contains(&address.to_canonical())
}

/// Who a chain of trusted proxies says is at its other end: each adds at the end whom it heard from, be it to a line that
/// is there or as another one. What comes before the first who is not trusted may be made up.
fn client_address(near: SocketAddr, headers: &HeaderMap, options: &RelayOptions) -> SocketAddr {
    let lines = headers.get_all(X_FORWARDED_FOR).iter();
    let named: Vec<&str> = lines
        .flat_map(|line| line.to_str().unwrap_or_default().split(','))
        .collect();
    let mut client = near;
    for word in named.iter().rev() {
        let (true, Ok(next)) = (
            is_trusted_proxy(client.ip(), options),
            word.trim().parse::<IpAddr>(),
        ) else {
            break;
        };
        client = (next, 0).into();
    }
    client
}

/// Clients elsewhere gain by compression more than it costs. This machine has no line to save; between stations most is
/// sent in bulk, and would take longer.
fn compression(visitor: &Visitor, options: &RelayOptions) -> Compression {
    if options.compression && !visitor.is_station && !visitor.party.is_trusted() {
        Compression::IfOffered
    } else {
        Compression::Never
    }
}

/// Whether a browser says that the page which connects comes from somewhere else than this machine.
fn is_foreign_origin(origin: &str) -> bool {
    let host = Url::parse(origin).ok();
    !match host.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_loopback(options: &RelayOptions, headers: &[(&'static str, &'static str)]) -> bool {
        let party = RemoteParty::of_tcp("127.0.0.1:5".parse().unwrap(), None);
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        visitor(party, &headers, options).party.loopback
    }

    #[test]
    fn what_comes_from_elsewhere_by_way_of_this_machine_is_not_loopback() {
        let options = RelayOptions::default();
        assert!(is_loopback(&options, &[]));
        for origin in [
            "http://localhost:8080",
            "http://127.0.0.1",
            "http://[::1]:3000",
        ] {
            assert!(is_loopback(&options, &[("origin", origin)]), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
        ] {
            assert!(!is_loopback(&options, &[("origin", origin)]), "{origin}");
        }
        assert!(!is_loopback(&options, &[("x-forwarded-for", "127.0.0.1")]));
        assert!(!is_loopback(&options, &[("forwarded", "for=192.0.2.1")]));
        let wary = RelayOptions {
            trust_loopback: false,
            ..options
        };
        assert!(!is_loopback(&wary, &[]));
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
        let named = |proxies: &[IpAddr]| {
            let options = RelayOptions {
                trusted_proxies: proxies.to_vec(),
                ..RelayOptions::default()
            };
            let party = RemoteParty::of_tcp("192.0.2.1:5".parse().unwrap(), None);
            let forged = HeaderValue::from_static("127.0.0.1, 198.51.100.7");
            let headers = [(X_FORWARDED_FOR, forged)].into_iter().collect();
            let party = visitor(party, &headers, &options).party;
            assert!(!party.loopback);
            party.address.unwrap().ip().to_string()
        };
        assert_eq!(named(&["192.0.2.1".parse().unwrap()]), "198.51.100.7");
        assert_eq!(named(&[]), "192.0.2.1");
    }

    #[test]
    fn a_chain_of_proxies_is_followed_as_far_as_it_is_trusted() {
        let options = RelayOptions {
            trusted_proxies: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            ..RelayOptions::default()
        };
        let named = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let near = "192.0.2.1:5".parse().unwrap();
            client_address(near, &headers, &options).ip().to_string()
        };
        assert_eq!(named(&["198.51.100.7, 192.0.2.2"]), "198.51.100.7");
        assert_eq!(
            named(&["10.0.0.1, 198.51.100.7, 192.0.2.2"]),
            "198.51.100.7"
        );
        // A line of the client's own, and the proxy's beside it.
        assert_eq!(named(&["10.0.0.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(named(&["nonsense", "192.0.2.2"]), "192.0.2.2");
        assert_eq!(named(&[]), "192.0.2.1");
    }
}
