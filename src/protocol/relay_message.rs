//! What a relay sends: parsed by our client, written by our relay.
//!
//! Takes one WebSocket text; gives a [`RelayMessage`] that borrows from it, an EVENT's payload as raw JSON.
//! Tolerant where relays differ: white space, further elements, an OK without a reason. Strict where a mistake
//! would be believed: ids, hex, booleans. Worst case: one pass over the text, whose size is the socket's limit.

use std::borrow::Cow;

use super::elements::{Elements, push_text};
use super::hex;

/// Elements that any message of a relay has; more are ignored.
const ELEMENTS_MAX: usize = 4;

/// One message of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayMessage<'a> {
    /// `["EVENT", subscription, event]`
    Event {
        /// The request that it answers.
        subscription: Cow<'a, str>,
        /// The event's raw JSON, an object.
        event: &'a str,
    },
    /// `["OK", id, accepted, reason]`
    Ok {
        /// The event that was offered.
        id: [u8; 32],
        /// Whether it is stored there.
        accepted: bool,
        /// Why (not); empty if the relay gave none.
        reason: Cow<'a, str>,
    },
    /// `["OK", "", false, reason]`: a refusal that does not say what it is about, as nostr_relay has it.
    UnnamedRefusal {
        /// Why.
        reason: Cow<'a, str>,
    },
    /// `["EOSE", subscription]`
    EndOfStored {
        /// The request of which all stored events were sent.
        subscription: Cow<'a, str>,
    },
    /// `["CLOSED", subscription, reason]`
    Closed {
        /// The request that the relay ended.
        subscription: Cow<'a, str>,
        /// Why; empty if the relay gave none.
        reason: Cow<'a, str>,
    },
    /// `["NOTICE", text]`
    Notice(Cow<'a, str>),
    /// `["AUTH", challenge]` (NIP-42)
    Auth(Cow<'a, str>),
    /// `["COUNT", subscription, {"count": n}]` (NIP-45)
    Count {
        /// The question that it answers.
        subscription: Cow<'a, str>,
        /// How many events match.
        count: u64,
        /// Whether that is an estimate.
        approximate: bool,
    },
    /// `["NEG-MSG", subscription, hex]` (NIP-77)
    NegMessage {
        /// The session.
        subscription: Cow<'a, str>,
        /// A negentropy message.
        message: Vec<u8>,
    },
    /// `["NEG-ERR", subscription, reason, cap]`
    NegError {
        /// The session, which is closed now.
        subscription: Cow<'a, str>,
        /// Why; empty if the relay gave none.
        reason: Cow<'a, str>,
        /// The most results that the relay reconciles, with `blocked:`.
        cap: Option<u64>,
    },
}

/// What is wrong with a relay's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayMessageError {
    /// Not a JSON array.
    #[error("not a JSON array")]
    NotAnArray,
    /// No such message.
    #[error("unknown message")]
    UnknownMessage,
    /// A known message with an element that is absent or of the wrong form.
    #[error("malformed message")]
    Malformed,
}

impl<'a> RelayMessage<'a> {
    /// Parses one message.
    ///
    /// # Errors
    /// [`RelayMessageError`] for anything that is not a message a relay sends.
    pub fn parse(text: &'a str) -> Result<Self, RelayMessageError> {
        let elements = Elements::read(text, ELEMENTS_MAX);
        if !elements.complete {
            return Err(RelayMessageError::NotAnArray);
        }
        let label = elements.text(0).ok_or(RelayMessageError::UnknownMessage)?;
        let text_at = |index| elements.text(index).ok_or(RelayMessageError::Malformed);
        let reason_at = |index| elements.text(index).unwrap_or_default();
        Ok(match label.as_ref() {
            "EVENT" => Self::Event {
                subscription: text_at(1)?,
                event: elements.object(2).ok_or(RelayMessageError::Malformed)?,
            },
            "OK" if text_at(1)?.is_empty()
                && elements.items.get(2).map(|raw| raw.get()) == Some("false") =>
            {
                Self::UnnamedRefusal {
                    reason: reason_at(3),
                }
            }
            "OK" => Self::Ok {
                id: hex::decode_array(&text_at(1)?).ok_or(RelayMessageError::Malformed)?,
                accepted: match elements.items.get(2).map(|raw| raw.get()) {
                    Some("true") => true,
                    Some("false") => false,
                    _ => return Err(RelayMessageError::Malformed),
                },
                reason: reason_at(3),
            },
            "EOSE" => Self::EndOfStored {
                subscription: text_at(1)?,
            },
            "CLOSED" => Self::Closed {
                subscription: text_at(1)?,
                reason: reason_at(2),
            },
            "NOTICE" => Self::Notice(text_at(1)?),
            "AUTH" => Self::Auth(text_at(1)?),
            "COUNT" => {
                let answer = elements.object(2).ok_or(RelayMessageError::Malformed)?;
                let answer: CountAnswer =
                    serde_json::from_str(answer).map_err(|_| RelayMessageError::Malformed)?;
                Self::Count {
                    subscription: text_at(1)?,
                    count: answer.count,
                    approximate: answer.approximate,
                }
            }
            "NEG-MSG" => Self::NegMessage {
                subscription: text_at(1)?,
                message: hex::decode(&text_at(2)?).ok_or(RelayMessageError::Malformed)?,
            },
            // As go-nostr has it, and with it relays by khatru.
            "NEG-ERR" | "NEG-ERROR" => Self::NegError {
                subscription: text_at(1)?,
                reason: reason_at(2),
                cap: elements.items.get(3).and_then(|raw| raw.get().parse().ok()),
            },
            _ => return Err(RelayMessageError::UnknownMessage),
        })
    }
}

#[derive(serde::Deserialize)]
struct CountAnswer {
    count: u64,
    #[serde(default)]
    approximate: bool,
}

/// Writes `["EVENT", subscription, event]`; `event` is an event's JSON.
pub fn encode_event(subscription: &str, event: &str) -> String {
    let mut message = String::with_capacity(event.len() + subscription.len() + 16);
    message.push_str("[\"EVENT\",");
    push_text(subscription, &mut message);
    message.push(',');
    message.push_str(event);
    message.push(']');
    message
}

/// Writes `["OK", id, accepted, reason]`.
pub fn encode_ok(id: &[u8; 32], accepted: bool, reason: &str) -> String {
    let mut message = "[\"OK\",\"".to_owned();
    hex::encode_into(id, &mut message);
    message.push_str(if accepted { "\",true," } else { "\",false," });
    push_text(reason, &mut message);
    message.push(']');
    message
}

/// Writes `["EOSE", subscription]`.
pub fn encode_end_of_stored(subscription: &str) -> String {
    texts("EOSE", &[subscription])
}

/// Writes `["CLOSED", subscription, reason]`.
pub fn encode_closed(subscription: &str, reason: &str) -> String {
    texts("CLOSED", &[subscription, reason])
}

/// Writes `["NOTICE", text]`.
pub fn encode_notice(text: &str) -> String {
    texts("NOTICE", &[text])
}

/// Writes `["AUTH", challenge]`.
pub fn encode_auth(challenge: &str) -> String {
    texts("AUTH", &[challenge])
}

/// Writes `["COUNT", subscription, {"count": n}]`.
pub fn encode_count(subscription: &str, count: u64) -> String {
    let mut message = texts("COUNT", &[subscription]);
    message.pop();
    message.push_str(&format!(",{{\"count\":{count}}}]"));
    message
}

/// Writes `["NEG-MSG", subscription, hex]`.
pub fn encode_neg_message(subscription: &str, payload: &[u8]) -> String {
    let mut message = texts("NEG-MSG", &[subscription]);
    message.pop();
    message.push_str(",\"");
    hex::encode_into(payload, &mut message);
    message.push_str("\"]");
    message
}

/// Writes `["NEG-ERR", subscription, reason]`, with the cap as fourth element where there is one.
pub fn encode_neg_error(subscription: &str, reason: &str, cap: Option<u64>) -> String {
    let mut message = texts("NEG-ERR", &[subscription, reason]);
    if let Some(cap) = cap {
        message.pop();
        message.push_str(&format!(",{cap}]"));
    }
    message
}

fn texts(label: &str, texts: &[&str]) -> String {
    let mut message = format!("[\"{label}\"");
    for text in texts {
        message.push(',');
        push_text(text, &mut message);
    }
    message.push(']');
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relays_differ_and_are_understood() {
        let id = hex::encode(&[9; 32]);
        let ok = format!(" [\"OK\" ,\"{id}\", false]\n");
        let expected = RelayMessage::Ok {
            id: [9; 32],
            accepted: false,
            reason: "".into(),
        };
        assert_eq!(RelayMessage::parse(&ok), Ok(expected));
        assert_eq!(
            RelayMessage::parse("[\"OK\",\"\",false,\"invalid: no\"]"),
            Ok(RelayMessage::UnnamedRefusal {
                reason: "invalid: no".into()
            })
        );
        assert_eq!(
            RelayMessage::parse("[\"OK\",\"\",true,\"\"]"),
            Err(RelayMessageError::Malformed),
            "what was taken has to be named"
        );
        assert_eq!(
            RelayMessage::parse("[\"CLOSED\",\"a\"]"),
            Ok(RelayMessage::Closed {
                subscription: "a".into(),
                reason: "".into()
            })
        );
        assert_eq!(
            RelayMessage::parse("[\"EOSE\",\"a\",{},1,2,3,4]"),
            Ok(RelayMessage::EndOfStored {
                subscription: "a".into()
            })
        );
        assert_eq!(
            RelayMessage::parse("[\"NEG-ERR\",\"a\",\"blocked: too big\",\"many\"]"),
            Ok(RelayMessage::NegError {
                subscription: "a".into(),
                reason: "blocked: too big".into(),
                cap: None
            })
        );
        assert_eq!(
            RelayMessage::parse(
                "[\"COUNT\",\"a\",{\"count\":3,\"approximate\":true,\"hll\":\"\"}]"
            ),
            Ok(RelayMessage::Count {
                subscription: "a".into(),
                count: 3,
                approximate: true
            })
        );
        assert_eq!(
            RelayMessage::parse("[\"NOTICE\",\"a \\u00e9 \\\"b\\\"\"]"),
            Ok(RelayMessage::Notice("a é \"b\"".into()))
        );
    }

    #[test]
    fn an_event_is_borrowed_from_the_message() {
        let text = "[\"EVENT\",\"s\", {\"id\":1 } ]";
        let Ok(RelayMessage::Event { event, .. }) = RelayMessage::parse(text) else {
            panic!("an event")
        };
        assert_eq!(event, "{\"id\":1 }");
        assert!(text.as_bytes().as_ptr_range().contains(&event.as_ptr()));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        use RelayMessageError::{Malformed, NotAnArray, UnknownMessage};
        for (text, error) in [
            ("", NotAnArray),
            ("\"OK\"", NotAnArray),
            ("[\"EOSE\",\"a\"", NotAnArray),
            ("[\"EOSE\",\"a\"]]", NotAnArray),
            ("[]", UnknownMessage),
            ("[\"HELLO\"]", UnknownMessage),
            ("[\"EVENT\",\"s\",\"x\"]", Malformed),
            ("[\"EVENT\",{}]", Malformed),
            ("[\"OK\",\"00\",true,\"\"]", Malformed),
            ("[\"NEG-MSG\",\"s\",\"6\"]", Malformed),
            ("[\"NEG-MSG\",\"s\",61]", Malformed),
            ("[\"COUNT\",\"s\",{\"count\":-1}]", Malformed),
        ] {
            assert_eq!(RelayMessage::parse(text), Err(error), "{text}");
        }
        let id = hex::encode(&[9; 32]);
        assert_eq!(
            RelayMessage::parse(&format!("[\"OK\",\"{id}\",1]")),
            Err(Malformed)
        );
    }

    fn check(text: &str, message: RelayMessage<'_>) -> Result<(), TestCaseError> {
        prop_assert_eq!(RelayMessage::parse(text), Ok(message), "{}", text);
        Ok(())
    }

    proptest! {
        #[test]
        fn every_message_is_read_as_it_is_written(
            name: String, reason: String, id: [u8; 32], accepted: bool, count: u64,
            payload: Vec<u8>, cap: Option<u64>,
        ) {
            let subscription = || Cow::Borrowed(name.as_str());
            let text = || Cow::Borrowed(reason.as_str());
            let event = serde_json::json!({ "content": reason }).to_string();
            check(
                &encode_event(&name, &event),
                RelayMessage::Event { subscription: subscription(), event: &event },
            )?;
            check(
                &encode_ok(&id, accepted, &reason),
                RelayMessage::Ok { id, accepted, reason: text() },
            )?;
            check(
                &encode_end_of_stored(&name),
                RelayMessage::EndOfStored { subscription: subscription() },
            )?;
            check(
                &encode_closed(&name, &reason),
                RelayMessage::Closed { subscription: subscription(), reason: text() },
            )?;
            check(&encode_notice(&reason), RelayMessage::Notice(text()))?;
            check(&encode_auth(&reason), RelayMessage::Auth(text()))?;
            check(
                &encode_count(&name, count),
                RelayMessage::Count { subscription: subscription(), count, approximate: false },
            )?;
            check(
                &encode_neg_message(&name, &payload),
                RelayMessage::NegMessage { subscription: subscription(), message: payload.clone() },
            )?;
            check(
                &encode_neg_error(&name, &reason, cap),
                RelayMessage::NegError { subscription: subscription(), reason: text(), cap },
            )?;
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = RelayMessage::parse(&text);
        }

        #[test]
        fn no_message_like_text_makes_it_panic(
            label in "(EVENT|OK|EOSE|CLOSED|NOTICE|AUTH|COUNT|NEG-MSG|NEG-ERR)",
            rest in prop::collection::vec("(\"[a-f0-9é]{0,6}\"|\\{\\}|\\[|[0-9]|null|true)", 0..6),
        ) {
            let _ = RelayMessage::parse(&format!("[\"{label}\",{}]", rest.join(",")));
        }
    }
}
