//! What stations tell each other over the service `constellation`: their cards, and how one joins.
//!
//! ```text
//! POST /cards  {since?, cards}     ─► {cards, next?, more}   admitted stations only
//! POST /join   {secret, card}      ─► {cards, …}             whoever holds an unused token
//! ```
//!
//! `since` is how far the asker has read at this station; the answer has what changed after that. Without it the request
//! only hands cards over. Worst case: one body of `BODY_BYTES_MAX` for each stream; from somebody who is not admitted
//! `JOIN_BYTES_MAX`; a few of either at a time (`visits.rs`), others are told to come again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::http::{AskError, ask, serve};
use super::registry::Registry;
use crate::limits::CONNECT_DEADLINE;
use crate::peer::{ByteStream, PeerId};
use crate::trust::{Cursor, SignedCard};
use crate::tunnel::{Carrier, OpenError, ServiceName};

/// A request or an answer between admitted stations: what is handed over at once has a bound of its own below it.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A request to join: a secret and one card.
const JOIN_BYTES_MAX: usize = 600 << 10;

/// How long a newcomer waits, each time that too many others are being served, before it comes again.
const JOIN_PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How long it waits before it comes again, once, when the connection broke: whoever has used a token may use it again.
const BROKEN_PAUSE: Duration = Duration::from_millis(500);
/// For all its attempts together.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);

/// Answers in a row that one comparison reads: a card book has no more.
const ANSWERS_MAX: usize = 32;

/// What an admitted station asks.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct CardsRequest {
    /// How far it has read here; `None`: it asks nothing.
    since: Option<Cursor>,
    /// What it hands over.
    cards: Vec<SignedCard>,
}

/// What it is told.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct CardsAnswer {
    cards: Vec<SignedCard>,
    /// How far it has read now.
    next: Option<Cursor>,
    /// Whether there is more at once.
    more: bool,
}

/// What somebody with a token asks.
#[derive(Debug, Serialize, Deserialize)]
struct JoinRequest {
    /// The token's secret, in hex.
    secret: String,
    /// The newcomer's card.
    card: SignedCard,
}

/// Why stations did not tell each other what they know.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An answer that cannot be read.
    #[error("its answer cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Learns what `peer` knows that we do not, and hands our own card over; gives how many cards were new to us.
///
/// Cancel safe: cards taken over stay.
///
/// # Errors
/// [`ExchangeError`].
pub(super) async fn compare(
    carrier: &dyn Carrier,
    registry: &Arc<Registry>,
    peer: PeerId,
) -> Result<usize, ExchangeError> {
    let mut taken = 0;
    let mut since = registry.read_at(&peer);
    for _ in 0..ANSWERS_MAX {
        let request = CardsRequest {
            since: Some(since),
            cards: registry.own_card().into_iter().collect(),
        };
        let answer: CardsAnswer = post(carrier, peer, "/cards", &request).await?;
        taken += receive(registry, answer.cards, peer).await;
        let Some(next) = answer.next else { break };
        registry.has_read(peer, next);
        since = next;
        if !answer.more {
            break;
        }
    }
    Ok(taken)
}

/// Takes over what a station has said. Signatures are checked and files written: not on the runtime.
async fn receive(registry: &Arc<Registry>, cards: Vec<SignedCard>, from: PeerId) -> usize {
    let registry = Arc::clone(registry);
    let received = tokio::task::spawn_blocking(move || registry.receive(cards, from));
    // It panics only if the registry does, which the next one shows.
    received.await.unwrap_or_default()
}

/// Hands over to `peer` what has changed since `cursor`, asking nothing; gives where to go on if that is not all.
///
/// # Errors
/// [`ExchangeError`].
pub(super) async fn push(
    carrier: &dyn Carrier,
    registry: &Registry,
    peer: PeerId,
    cursor: Cursor,
) -> Result<Option<Cursor>, ExchangeError> {
    let (cards, next, more) = registry.since(cursor);
    if !cards.is_empty() {
        let request = CardsRequest { since: None, cards };
        let _nothing: CardsAnswer = post(carrier, peer, "/cards", &request).await?;
    }
    Ok(more.then_some(next))
}

/// Redeems a token at `peer`; gives the cards that it hands over. Where too many others are being served it comes again, a
/// few times; where the connection broke, once.
///
/// # Errors
/// [`ExchangeError`]: with [`AskError::Refused`] the token is not good, and the reason says why; but with status 503 nobody
/// had time for us.
pub async fn redeem(
    carrier: &dyn Carrier,
    peer: PeerId,
    secret: String,
    card: SignedCard,
) -> Result<Vec<SignedCard>, ExchangeError> {
    let request = JoinRequest { secret, card };
    let mut pauses = JOIN_PAUSES.into_iter();
    let mut when_broken = Some(BROKEN_PAUSE);
    let joining = async {
        loop {
            let answered: Result<CardsAnswer, _> = post(carrier, peer, "/join", &request).await;
            let pause = match &answered {
                Err(ExchangeError::Ask(refused)) if refused.is_for_now() => pauses.next(),
                Err(ExchangeError::Ask(AskError::Broken(_))) => when_broken.take(),
                _ => None,
            };
            match pause {
                Some(pause) => sleep(pause).await,
                None => return answered,
            }
        }
    };
    let answer = timeout(JOIN_DEADLINE, joining)
        .await
        .map_err(|_| AskError::Timeout)??;
    Ok(answer.cards)
}

async fn post<T: serde::de::DeserializeOwned>(
    carrier: &dyn Carrier,
    peer: PeerId,
    path: &str,
    request: &impl Serialize,
) -> Result<T, ExchangeError> {
    let body = serde_json::to_vec(request)?;
    let service = ServiceName::constellation();
    let stream = carrier.open(peer, &service, CONNECT_DEADLINE).await?;
    let answer = ask(stream, path, body, BODY_BYTES_MAX).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Serves one request of `peer`, whom the carrier has let in to the service `constellation`.
pub async fn answer(registry: Arc<Registry>, peer: PeerId, stream: ByteStream) {
    let is_admitted = registry.is_admitted(&peer);
    let bound = if is_admitted {
        BODY_BYTES_MAX
    } else {
        JOIN_BYTES_MAX
    };
    let enter = || registry.visits.enter(peer, is_admitted);
    serve(stream, bound, enter, |path, body| {
        let registry = Arc::clone(&registry);
        // Signatures are checked and files written: not on the runtime.
        async move {
            let answered = tokio::task::spawn_blocking(move || match path.as_str() {
                "/cards" if is_admitted => cards(&registry, peer, &body),
                "/cards" => Err((StatusCode::FORBIDDEN, "not admitted".to_owned())),
                "/join" => join(&registry, peer, &body),
                _ => Err((StatusCode::NOT_FOUND, "not here".to_owned())),
            });
            answered
                .await
                .unwrap_or_else(|error| Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
        }
    })
    .await;
}

type Answered = Result<Vec<u8>, (StatusCode, String)>;

fn malformed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}

fn cards(registry: &Registry, peer: PeerId, body: &Bytes) -> Answered {
    let request: CardsRequest = serde_json::from_slice(body).map_err(malformed)?;
    registry.receive(request.cards, peer);
    let answer = match request.since {
        None => CardsAnswer::default(),
        Some(since) => handed_over(registry, since),
    };
    serde_json::to_vec(&answer).map_err(malformed)
}

fn handed_over(registry: &Registry, since: Cursor) -> CardsAnswer {
    let (cards, next, more) = registry.since(since);
    CardsAnswer {
        cards,
        next: Some(next),
        more,
    }
}

fn join(registry: &Registry, peer: PeerId, body: &Bytes) -> Answered {
    let request: JoinRequest = serde_json::from_slice(body).map_err(malformed)?;
    registry
        .redeemed_by(peer, &request.secret, request.card)
        .map_err(|refusal| (StatusCode::FORBIDDEN, refusal.to_string()))?;
    serde_json::to_vec(&handed_over(registry, Cursor::default())).map_err(malformed)
}
