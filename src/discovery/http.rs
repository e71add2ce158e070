//! One request and one answer over a stream to a station: how stations tell each other their cards.
//!
//! HTTP/1.1 with JSON bodies, since a stream has no half-close that would mark an end (kubo closes both directions), and
//! since anybody can then look with the tools they have. Whoever asks has a place only from the head of the request on; if
//! there is none, it is told to come again (503). Worst case: `HEAD_DEADLINE` for whoever says nothing, `EXCHANGE_DEADLINE`
//! for others, and the bound of a body that the caller names.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use crate::peer::ByteStream;

/// For a request with its answer.
pub(super) const EXCHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// For the head of a request: it is sent with the first bytes of a stream.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);
/// The head of a request or answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The stream broke, or what came is not HTTP.
    #[error("no answer: {0}")]
    Broken(String),
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
    /// It does not want to.
    #[error("refused ({status}): {reason}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What it says.
        reason: String,
    },
}

impl AskError {
    /// Whether the same may be welcome a moment later.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::SERVICE_UNAVAILABLE)
    }
}

fn broken(error: impl std::fmt::Display) -> AskError {
    AskError::Broken(error.to_string())
}

/// Posts a body, and gives the answer's.
///
/// Cancel safe in that dropping it closes the stream.
///
/// # Errors
/// [`AskError`].
pub(super) async fn ask(
    stream: ByteStream,
    path: &str,
    body: Vec<u8>,
    answer_bytes_max: usize,
) -> Result<Bytes, AskError> {
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, "station")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        let asking = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), answer_bytes_max);
            let bytes = body.collect().await.map_err(broken)?.to_bytes();
            if status == StatusCode::OK {
                return Ok(bytes);
            }
            let reason = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
            Err(AskError::Refused { status, reason })
        };
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            biased;
            answered = &mut asking => answered,
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a stream to a station ended");
                }
                // What came before the end is still to be read.
                asking.await
            }
        }
    };
    timeout(EXCHANGE_DEADLINE, Box::pin(exchange))
        .await
        .map_err(|_| AskError::Timeout)?
}

/// Serves one request; `enter` gives a place for it when its head has come, `answer` gets its path and body, which is
/// bounded by `body_bytes_max`.
pub(super) async fn serve<P, A>(
    stream: ByteStream,
    body_bytes_max: usize,
    enter: impl Fn() -> Option<P>,
    answer: impl Fn(String, Bytes) -> A,
) where
    A: Future<Output = Result<Vec<u8>, (StatusCode, String)>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (place, answer) = (enter(), &answer);
        async move {
            let path = request.uri().path().to_owned();
            let is_post = request.method() == Method::POST;
            let mut body = Limited::new(request.into_body(), body_bytes_max);
            let answered = if place.is_none() {
                // Read and dropped: whoever still sends would not read the answer.
                while let Some(Ok(_)) = body.frame().await {}
                let busy = "too many are being served: come again".to_owned();
                Err((StatusCode::SERVICE_UNAVAILABLE, busy))
            } else {
                match body.collect().await {
                    _ if !is_post => Err((StatusCode::METHOD_NOT_ALLOWED, "POST".to_owned())),
                    Err(error) => Err((StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
                    Ok(body) => answer(path, body.to_bytes()).await,
                }
            };
            let (status, body) = match answered {
                Ok(body) => (StatusCode::OK, body),
                Err((status, reason)) => (status, reason.into_bytes()),
            };
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    match timeout(EXCHANGE_DEADLINE, Box::pin(serving)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a station's request"),
        Err(_) => tracing::debug!("a station's request did not come in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(body: Vec<u8>, answer_bytes_max: usize) -> Result<Bytes, AskError> {
        let (near, far) = tokio::io::duplex(100);
        let echo = |path: String, body: Bytes| async move {
            match path.as_str() {
                "/echo" => Ok(body.to_vec()),
                _ => Err((StatusCode::FORBIDDEN, "not here".to_owned())),
            }
        };
        let serving = serve(Box::new(far), 1_000, || Some(()), echo);
        let (answer, ()) = tokio::join!(
            ask(Box::new(near), "/echo", body, answer_bytes_max),
            serving
        );
        answer
    }

    #[tokio::test]
    async fn a_request_is_answered_within_bounds() {
        assert_eq!(exchange(vec![b'x'; 900], 900).await.unwrap().len(), 900);
        assert!(matches!(
            exchange(vec![b'x'; 900], 100).await,
            Err(AskError::Broken(_))
        ));
        assert!(matches!(
            exchange(vec![b'x'; 2_000], 900).await,
            Err(AskError::Refused {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                ..
            } | AskError::Broken(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_one_that_says_nothing() {
        let (near, far) = tokio::io::duplex(100);
        let answer = ask(Box::new(near), "/echo", Vec::new(), 100).await;
        assert!(matches!(answer, Err(AskError::Timeout)));
        drop(far);
        let (_near, far) = tokio::io::duplex(100);
        let began = tokio::time::Instant::now();
        let enter = || -> Option<()> { unreachable!("nobody has said anything") };
        serve(Box::new(far), 100, enter, |_, _| async { Ok(Vec::new()) }).await;
        assert!(
            began.elapsed() <= HEAD_DEADLINE,
            "whoever says nothing is soon gone"
        );
    }

    #[tokio::test]
    async fn whoever_has_no_place_is_told_to_come_again_whatever_it_sends() {
        for sent in [10, 100_000] {
            let (near, far) = tokio::io::duplex(100);
            let enter = || None::<()>;
            let serving = serve(Box::new(far), 200_000, enter, |_, _| async {
                unreachable!("it has no place")
            });
            let asking = ask(Box::new(near), "/join", vec![b'x'; sent], 100);
            let (answer, ()) = tokio::join!(asking, serving);
            let answer = answer.expect_err("turned away");
            assert!(
                matches!(
                    answer,
                    AskError::Refused {
                        status: StatusCode::SERVICE_UNAVAILABLE,
                        ..
                    }
                ),
                "{answer}"
            );
        }
    }
}
