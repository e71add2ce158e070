//! The lines of strfry's plugin protocol: a question out, an answer back.
//!
//! An answer that is no such line is garbage, and says so by being none. What a plugin says to a client is cut to a length
//! that any client shows.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Ruling;
use crate::protocol::hex;

/// Characters of what a plugin says to a client.
const MESSAGE_CHARS_MAX: usize = 256;

/// Where an event comes from, in strfry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SourceType {
    /// A client over IPv4.
    #[serde(rename = "IP4")]
    Ip4,
    /// A client over IPv6.
    #[serde(rename = "IP6")]
    Ip6,
    /// A live link: one that a station opened through its tunnel, or that we opened.
    Stream,
    /// A run's exchange with a peer.
    Sync,
}

/// What the plugin is asked.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// The event's id.
    pub id: [u8; 32],
    /// The event's minified JSON, verified.
    pub event: &'q str,
    /// Unix seconds.
    pub received_at: u64,
    /// What kind of source it is from.
    pub source_type: SourceType,
    /// The client's address, the station's PeerID, or the peer's address.
    pub source_info: String,
}

impl Question<'_> {
    /// One line, its end included.
    pub(super) fn to_line(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Line<'l> {
            r#type: &'static str,
            event: &'l RawValue,
            received_at: u64,
            source_type: SourceType,
            source_info: &'l str,
        }
        let event: &RawValue =
            serde_json::from_str(self.event).expect("a verified event's JSON is JSON");
        let line = Line {
            r#type: "new",
            event,
            received_at: self.received_at,
            source_type: self.source_type,
            source_info: &self.source_info,
        };
        let mut line = serde_json::to_string(&line).expect("texts and numbers");
        line.push('\n');
        line
    }
}

/// Reads an answer: the event's id, and the ruling.
pub(super) fn read_answer(line: &[u8]) -> Option<([u8; 32], Ruling)> {
    #[derive(Deserialize)]
    struct Answer {
        id: String,
        action: Action,
        #[serde(default)]
        msg: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Action {
        Accept,
        Reject,
        ShadowReject,
    }
    let answer: Answer = serde_json::from_slice(line).ok()?;
    let id = hex::decode_array(&answer.id)?;
    let ruling = match answer.action {
        Action::Accept => Ruling::Accept,
        Action::Reject => {
            let message = answer.msg.unwrap_or_default();
            Ruling::Reject(message.chars().take(MESSAGE_CHARS_MAX).collect())
        }
        Action::ShadowReject => Ruling::ShadowReject,
    };
    Some((id, ruling))
}
