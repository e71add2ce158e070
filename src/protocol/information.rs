//! The relay information document (NIP-11): ours to serve, theirs to read.
//!
//! One type for both. Written, absent fields are left out. Read, it is lenient: a field that is absent or of the
//! wrong type is `None`, for documents are written by hand and one wrong field must not hide the others.
//! A hint, never a promise: relays advertise what they refuse. The document's size is its reader's to bound.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// The version of our extension that this program speaks.
pub const CONSTELLATION_VERSION: u32 = 1;

/// A relay information document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayInformation {
    /// The relay's name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is, in words.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its operator's public key, in hex.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub pubkey: Option<String>,
    /// The address of the software's project.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// The software's version.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The NIPs that it claims to speak.
    #[serde(deserialize_with = "lenient_numbers")]
    pub supported_nips: Vec<u32>,
    /// What it limits.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub limitation: Option<RelayLimitation>,
    /// Our extension: present on a station.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub constellation: Option<ConstellationExtension>,
}

/// The limits that a relay states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayLimitation {
    /// Bytes of the largest message that it takes.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_message_length: Option<u64>,
    /// Subscriptions per connection.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_subscriptions: Option<u64>,
    /// Filters per request.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_filters: Option<u64>,
    /// The most events that one filter returns.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<u64>,
    /// Characters of a subscription id.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_subid_length: Option<u64>,
    /// Tags of an event.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_event_tags: Option<u64>,
    /// Characters of an event's content.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub max_content_length: Option<u64>,
    /// Whether NIP-42 is needed for anything at all.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub auth_required: Option<bool>,
    /// Whether it wants payment.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub payment_required: Option<bool>,
    /// Whether it wants anything else before it takes an event.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub restricted_writes: Option<bool>,
    /// Seconds that `created_at` may be ahead.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub created_at_upper_limit: Option<u64>,
}

/// Says that the relay is a station. A document where these two are wrong is not one of a station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstellationExtension {
    /// The version of this extension.
    pub version: u32,
    /// The largest negentropy frame that it takes, in bytes before hex.
    pub frame_bytes: u64,
    /// Its libp2p PeerID.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub peer_id: Option<String>,
}

impl RelayInformation {
    /// Reads a document; `None` if it is not a JSON object.
    pub fn parse(json: &[u8]) -> Option<Self> {
        // By way of a map, so that a field that stands twice is not an error: the last one counts.
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).ok()?;
        serde_json::from_value(serde_json::Value::Object(fields)).ok()
    }

    /// The document as it is served.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and booleans are always JSON")
    }
}

/// A value of the right type, or nothing.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// The elements that are numbers, also where they are written as strings.
fn lenient_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let serde_json::Value::Array(values) = serde_json::Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    let number = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    Ok(values.iter().filter_map(number).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_left_out_and_the_rest_is_read() {
        let read = RelayInformation::parse(
            br#"{"name":7,"software":"x","software":"strfry","supported_nips":[1,"77",{},-1,1.5],
                 "limitation":{"max_limit":500,"max_message_length":"big","auth_required":1},
                 "constellation":{"version":1},"icon":[[]]}"#,
        )
        .expect("an object");
        assert_eq!(read.name, None);
        assert_eq!(read.software.as_deref(), Some("strfry"));
        assert_eq!(read.supported_nips, [1, 77]);
        let limits = read.limitation.expect("an object");
        assert_eq!(limits.max_limit, Some(500));
        assert_eq!(limits.max_message_length, None);
        assert_eq!(limits.auth_required, None);
        assert_eq!(read.constellation, None, "no station without a frame size");
        assert_eq!(RelayInformation::parse(b"[]"), None);
        assert_eq!(RelayInformation::parse(b"<html>"), None);
        let odd = RelayInformation::parse(br#"{"limitation":7,"supported_nips":null}"#);
        assert_eq!(odd, Some(RelayInformation::default()));
    }

    #[test]
    fn ours_is_written_without_absent_fields_and_read_back() {
        let ours = RelayInformation {
            name: Some("station".to_owned()),
            supported_nips: vec![1, 77],
            limitation: Some(RelayLimitation {
                max_limit: Some(500),
                ..Default::default()
            }),
            constellation: Some(ConstellationExtension {
                version: CONSTELLATION_VERSION,
                frame_bytes: 500_000,
                peer_id: Some("12D3".to_owned()),
            }),
            ..Default::default()
        };
        let json = ours.to_json();
        assert!(
            !json.contains("null") && !json.contains("max_filters"),
            "{json}"
        );
        assert_eq!(RelayInformation::parse(json.as_bytes()), Some(ours));
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(json: Vec<u8>) {
            let _ = RelayInformation::parse(&json);
        }
    }
}
