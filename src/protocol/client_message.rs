//! What a client sends: parsed by our relay, written by our client.
//!
//! Takes one WebSocket text; gives a [`ClientMessage`] that borrows from it. Events stay raw JSON, so that parsing
//! them under limits is `UnverifiedEvent::parse`'s job; filters are the `nostr` crate's. An error carries the
//! subscription or event id as far as they could be read, so that the relay can answer on the subscription.
//! Worst case: one pass over the text and one over each filter; the text's size is the socket's limit.

use std::borrow::Cow;

use nostr::filter::Filter;

use super::elements::{Elements, push_text};
use super::hex;
use crate::limits::SUBSCRIPTION_ID_CHARS_MAX;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage<'a> {
    /// `["EVENT", event]`: the event's raw JSON, an object.
    Event(&'a str),
    /// `["REQ", subscription, filter…]`
    Request {
        /// The client's name for it.
        subscription: Cow<'a, str>,
        /// At least one.
        filters: Vec<Filter>,
    },
    /// `["COUNT", subscription, filter…]` (NIP-45)
    Count {
        /// The client's name for it.
        subscription: Cow<'a, str>,
        /// At least one.
        filters: Vec<Filter>,
    },
    /// `["CLOSE", subscription]`
    Close {
        /// The request to end.
        subscription: Cow<'a, str>,
    },
    /// `["AUTH", event]` (NIP-42): the event's raw JSON, an object.
    Auth(&'a str),
    /// `["NEG-OPEN", subscription, filter, hex]` (NIP-77)
    NegOpen {
        /// The client's name for the session; apart from those of requests.
        subscription: Cow<'a, str>,
        /// What is reconciled.
        filter: Filter,
        /// The first negentropy message.
        message: Vec<u8>,
    },
    /// `["NEG-MSG", subscription, hex]`
    NegMessage {
        /// The session.
        subscription: Cow<'a, str>,
        /// A negentropy message.
        message: Vec<u8>,
    },
    /// `["NEG-CLOSE", subscription]`
    NegClose {
        /// The session.
        subscription: Cow<'a, str>,
    },
}

/// Which message it was meant to be: decides between CLOSED, NEG-ERR, OK and NOTICE as the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessageLabel {
    /// EVENT: answer OK if the event's id is known.
    Event,
    /// REQ: answer CLOSED.
    Request,
    /// COUNT: answer CLOSED.
    Count,
    /// CLOSE.
    Close,
    /// AUTH: answer OK if the event's id is known.
    Auth,
    /// NEG-OPEN: answer NEG-ERR.
    NegOpen,
    /// NEG-MSG: answer NEG-ERR.
    NegMessage,
    /// NEG-CLOSE.
    NegClose,
}

impl ClientMessageLabel {
    fn parse(label: &str) -> Option<Self> {
        Some(match label {
            "EVENT" => Self::Event,
            "REQ" => Self::Request,
            "COUNT" => Self::Count,
            "CLOSE" => Self::Close,
            "AUTH" => Self::Auth,
            "NEG-OPEN" => Self::NegOpen,
            "NEG-MSG" => Self::NegMessage,
            "NEG-CLOSE" => Self::NegClose,
            _ => return None,
        })
    }
}

/// What is wrong with a client's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientMessageErrorKind {
    /// Not a JSON array.
    #[error("not a JSON array")]
    NotAnArray,
    /// No such message.
    #[error("unknown message")]
    UnknownMessage,
    /// EVENT or AUTH without an object.
    #[error("no event")]
    NoEvent,
    /// The subscription id is absent, empty or longer than 64 characters.
    #[error("subscription id must be a string of 1 to 64 characters")]
    InvalidSubscription,
    /// REQ, COUNT or NEG-OPEN without a filter.
    #[error("no filter")]
    NoFilter,
    /// More filters than allowed.
    #[error("too many filters")]
    TooManyFilters,
    /// A filter that is none.
    #[error("filter: {0}")]
    InvalidFilter(String),
    /// NEG-OPEN with an id size, as before NIP-77.
    #[error("NEG-OPEN of the time before NIP-77 is not supported")]
    OldNegOpen,
    /// A negentropy message that is absent or not lower-case hex.
    #[error("negentropy message is not lower-case hex")]
    InvalidHex,
}

/// A client's message that cannot be taken, with what is needed to answer it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ClientMessageError {
    /// What is wrong.
    pub kind: ClientMessageErrorKind,
    /// Which message it was, if that is known.
    pub label: Option<ClientMessageLabel>,
    /// The subscription id, if a valid one could be read.
    pub subscription: Option<String>,
    /// The id that the event claims, if one could be read.
    pub event_id: Option<[u8; 32]>,
}

impl<'a> ClientMessage<'a> {
    /// Parses one message with at most `filters_max` filters.
    ///
    /// # Errors
    /// [`ClientMessageError`] with what is wrong and whom to answer.
    pub fn parse(text: &'a str, filters_max: usize) -> Result<Self, ClientMessageError> {
        let elements = Elements::read(text, filters_max.saturating_add(2).max(4));
        let label = elements
            .text(0)
            .and_then(|label| ClientMessageLabel::parse(&label));
        Self::from_elements(&elements, label, filters_max).map_err(|kind| {
            let names_event = matches!(
                label,
                Some(ClientMessageLabel::Event | ClientMessageLabel::Auth)
            );
            ClientMessageError {
                kind,
                label,
                subscription: (!names_event)
                    .then(|| subscription(&elements).ok())
                    .flatten()
                    .map(Cow::into_owned),
                event_id: names_event.then(|| claimed_id(text)).flatten(),
            }
        })
    }

    fn from_elements(
        elements: &Elements<'a>,
        label: Option<ClientMessageLabel>,
        filters_max: usize,
    ) -> Result<Self, ClientMessageErrorKind> {
        if !elements.complete {
            return Err(ClientMessageErrorKind::NotAnArray);
        }
        Ok(match label.ok_or(ClientMessageErrorKind::UnknownMessage)? {
            ClientMessageLabel::Event => {
                Self::Event(elements.object(1).ok_or(ClientMessageErrorKind::NoEvent)?)
            }
            ClientMessageLabel::Auth => {
                Self::Auth(elements.object(1).ok_or(ClientMessageErrorKind::NoEvent)?)
            }
            ClientMessageLabel::Request => Self::Request {
                subscription: subscription(elements)?,
                filters: filters(elements, filters_max)?,
            },
            ClientMessageLabel::Count => Self::Count {
                subscription: subscription(elements)?,
                filters: filters(elements, filters_max)?,
            },
            ClientMessageLabel::Close => Self::Close {
                subscription: subscription(elements)?,
            },
            ClientMessageLabel::NegOpen => Self::NegOpen {
                subscription: subscription(elements)?,
                filter: neg_filter(elements)?,
                message: payload(elements, 3)?,
            },
            ClientMessageLabel::NegMessage => Self::NegMessage {
                subscription: subscription(elements)?,
                message: payload(elements, 2)?,
            },
            ClientMessageLabel::NegClose => Self::NegClose {
                subscription: subscription(elements)?,
            },
        })
    }
}

fn subscription<'a>(elements: &Elements<'a>) -> Result<Cow<'a, str>, ClientMessageErrorKind> {
    elements
        .text(1)
        .filter(|name| !name.is_empty() && name.chars().count() <= SUBSCRIPTION_ID_CHARS_MAX)
        .ok_or(ClientMessageErrorKind::InvalidSubscription)
}

fn filters(
    elements: &Elements<'_>,
    filters_max: usize,
) -> Result<Vec<Filter>, ClientMessageErrorKind> {
    let raw = elements.items.get(2..).unwrap_or_default();
    if raw.is_empty() {
        return Err(ClientMessageErrorKind::NoFilter);
    }
    if raw.len() > filters_max || elements.more {
        return Err(ClientMessageErrorKind::TooManyFilters);
    }
    raw.iter().map(|json| parse_filter(json.get())).collect()
}

fn parse_filter(json: &str) -> Result<Filter, ClientMessageErrorKind> {
    // A derived filter would also read an array as its fields in order.
    if !json.starts_with('{') {
        return Err(ClientMessageErrorKind::InvalidFilter(
            "not an object".to_owned(),
        ));
    }
    serde_json::from_str(json)
        .map_err(|error| ClientMessageErrorKind::InvalidFilter(error.to_string()))
}

fn neg_filter(elements: &Elements<'_>) -> Result<Filter, ClientMessageErrorKind> {
    let Some(json) = elements.items.get(2) else {
        return Err(ClientMessageErrorKind::NoFilter);
    };
    // The old form: ["NEG-OPEN", subscription, filter, idSize, hex].
    if elements
        .items
        .get(3)
        .is_some_and(|item| item.get().starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err(ClientMessageErrorKind::OldNegOpen);
    }
    parse_filter(json.get())
}

fn payload(elements: &Elements<'_>, index: usize) -> Result<Vec<u8>, ClientMessageErrorKind> {
    elements
        .text(index)
        .and_then(|text| hex::decode(&text))
        .ok_or(ClientMessageErrorKind::InvalidHex)
}

/// Looks for `"id":"<64 hex>"` in text that is no valid message, so that a broken EVENT gets its OK. Only a hint,
/// and only for the one who sent it.
fn claimed_id(text: &str) -> Option<[u8; 32]> {
    let (_, rest) = text.split_once("\"id\"")?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    hex::decode_array(rest.get(..64)?)
}

/// Writes `["EVENT", event]`; `event` is an event's JSON.
pub fn encode_event(event: &str) -> String {
    format!("[\"EVENT\",{event}]")
}

/// Writes `["AUTH", event]`; `event` is an event's JSON.
pub fn encode_auth(event: &str) -> String {
    format!("[\"AUTH\",{event}]")
}

/// Writes `["REQ", subscription, filter…]`.
pub fn encode_request(subscription: &str, filters: &[Filter]) -> String {
    with_filters("REQ", subscription, filters)
}

/// Writes `["COUNT", subscription, filter…]`.
pub fn encode_count(subscription: &str, filters: &[Filter]) -> String {
    with_filters("COUNT", subscription, filters)
}

/// Writes a REQ for exactly these events. The limit is stated because some relays assume a small one.
pub fn encode_request_ids(subscription: &str, ids: &[[u8; 32]]) -> String {
    let mut message = begin("REQ", subscription);
    message.reserve(ids.len() * 67 + 32);
    message.push_str(",{\"ids\":[");
    for (index, id) in ids.iter().enumerate() {
        message.push_str(if index == 0 { "\"" } else { ",\"" });
        hex::encode_into(id, &mut message);
        message.push('"');
    }
    message.push_str("],\"limit\":");
    message.push_str(&ids.len().to_string());
    message.push_str("}]");
    message
}

/// Writes `["CLOSE", subscription]`.
pub fn encode_close(subscription: &str) -> String {
    begin("CLOSE", subscription) + "]"
}

/// Writes `["NEG-OPEN", subscription, filter, hex]`.
pub fn encode_neg_open(subscription: &str, filter: &Filter, payload: &[u8]) -> String {
    let mut message = begin("NEG-OPEN", subscription);
    push_filter(filter, &mut message);
    push_payload(payload, &mut message);
    message
}

/// Writes `["NEG-MSG", subscription, hex]`.
pub fn encode_neg_message(subscription: &str, payload: &[u8]) -> String {
    let mut message = begin("NEG-MSG", subscription);
    push_payload(payload, &mut message);
    message
}

/// Writes `["NEG-CLOSE", subscription]`.
pub fn encode_neg_close(subscription: &str) -> String {
    begin("NEG-CLOSE", subscription) + "]"
}

fn begin(label: &str, subscription: &str) -> String {
    let mut message = format!("[\"{label}\",");
    push_text(subscription, &mut message);
    message
}

fn with_filters(label: &str, subscription: &str, filters: &[Filter]) -> String {
    let mut message = begin(label, subscription);
    for filter in filters {
        push_filter(filter, &mut message);
    }
    message.push(']');
    message
}

fn push_filter(filter: &Filter, message: &mut String) {
    message.push(',');
    message.push_str(&serde_json::to_string(filter).expect("a filter's keys are strings"));
}

fn push_payload(payload: &[u8], message: &mut String) {
    message.push_str(",\"");
    hex::encode_into(payload, message);
    message.push_str("\"]");
}

#[cfg(test)]
#[path = "client_message_tests.rs"]
mod tests;
