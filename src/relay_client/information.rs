//! Fetches a relay's information document (NIP-11).
//!
//! Takes an address or a byte stream; gives the document, or `None` with a debug log: it is a hint only, and no
//! exchange fails for want of it. One GET, no redirects, no cookies. Worst case: the deadline, and 64 KiB of body.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, DATE, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use url::{Position, Url};

use super::connect::{ConnectError, dial};
use crate::peer::ByteStream;
use crate::protocol::RelayInformation;

/// The largest document that is read.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Why there is no document; for the log.
#[derive(Debug, thiserror::Error)]
enum InformationError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("timed out")]
    Timeout,
    #[error("no HTTP address")]
    InvalidAddress(#[from] http::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("connection closed")]
    Closed,
    #[error("not a JSON object")]
    NotADocument,
}

/// Fetches the document of the relay at a `ws://` or `wss://` address.
pub async fn fetch_information(url: &Url, deadline: Duration) -> Option<RelayInformation> {
    let fetched = async {
        let stream = dial(url, deadline).await?;
        get(stream, url).await
    };
    let answer = within(url, deadline, fetched).await?;
    Some(answer.information)
}

/// A document, and when its relay says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedInformation {
    /// The document.
    pub information: RelayInformation,
    /// The date of the answer, in Unix seconds; `None` if the relay does not tell.
    pub date: Option<i64>,
}

/// The document of the relay at the other end of a byte stream, with the date of the answer.
pub async fn fetch_dated_information_over(
    stream: ByteStream,
    url: &Url,
    deadline: Duration,
) -> Option<DatedInformation> {
    within(url, deadline, get(stream, url)).await
}

/// The same over a byte stream, for instance a tunnel.
pub async fn fetch_information_over(
    stream: ByteStream,
    url: &Url,
    deadline: Duration,
) -> Option<RelayInformation> {
    let answer = within(url, deadline, get(stream, url)).await?;
    Some(answer.information)
}

async fn within(
    url: &Url,
    deadline: Duration,
    fetched: impl Future<Output = Result<DatedInformation, InformationError>>,
) -> Option<DatedInformation> {
    let fetched = timeout(deadline, Box::pin(fetched)).await;
    fetched
        .unwrap_or(Err(InformationError::Timeout))
        .inspect_err(|error| tracing::debug!(relay = %url, %error, "no relay information"))
        .ok()
}

async fn get(stream: ByteStream, url: &Url) -> Result<DatedInformation, InformationError> {
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(ACCEPT, "application/nostr+json")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(InformationError::Status(response.status()));
        }
        let date = response.headers().get(DATE).and_then(date_in);
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(InformationError::Body)?
            .to_bytes();
        let information = RelayInformation::parse(&body).ok_or(InformationError::NotADocument)?;
        Ok(DatedInformation { information, date })
    };
    // The connection is driven here rather than on a task; what it has read last is still taken after it ends.
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            timeout(Duration::ZERO, answered).await.unwrap_or(Err(InformationError::Closed))
        }
    }
}

/// As HTTP writes it: `Tue, 15 Nov 1994 08:12:31 GMT`.
fn date_in(value: &HeaderValue) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let time = parser.parse_timestamp(value.as_bytes()).ok()?;
    Some(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_read_as_http_writes_it() {
        let date = |text| date_in(&HeaderValue::from_static(text));
        assert_eq!(date("Tue, 15 Nov 1994 08:12:31 GMT"), Some(784_887_151));
        assert_eq!(date("yesterday"), None);
    }
}
