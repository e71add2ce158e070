//! The relay's information document (NIP-11), made from its options.
//!
//! States what is enforced and nothing else. That this is a station, and which frames it takes, stands in the
//! `constellation` field (D3).

use serde::Serialize;

use super::options::{RelayOptions, WritePolicy};
use crate::limits::{
    FRAME_BYTES_STATION, FUTURE_SECONDS_MAX, MESSAGE_BYTES_MAX, SUBSCRIPTION_ID_CHARS_MAX,
};
use crate::protocol::RelayInformation;
use crate::protocol::information::{
    CONSTELLATION_VERSION, ConstellationExtension, RelayLimitation,
};

/// The NIPs that the relay speaks.
pub(super) const SUPPORTED_NIPS: [u32; 9] = [1, 9, 11, 40, 42, 45, 62, 70, 77];

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    information: RelayInformation,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<&'a str>,
}

/// The document as JSON.
pub(super) fn document(options: &RelayOptions, peer_id: &str) -> String {
    let number = |value: usize| u64::try_from(value).ok();
    let information = RelayInformation {
        name: Some(options.name.clone()),
        description: Some(options.description.clone()),
        pubkey: options.pubkey.map(|key| key.to_hex()),
        software: Some(env!("CARGO_PKG_NAME").to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        supported_nips: SUPPORTED_NIPS.to_vec(),
        limitation: Some(RelayLimitation {
            max_message_length: number(MESSAGE_BYTES_MAX),
            max_subscriptions: number(options.subscriptions_max),
            max_filters: number(options.filters_max),
            max_limit: None,
            max_subid_length: number(SUBSCRIPTION_ID_CHARS_MAX),
            max_event_tags: number(options.event_tags_max),
            max_content_length: number(options.event_bytes_max),
            auth_required: Some(false),
            payment_required: Some(false),
            restricted_writes: Some(options.write != WritePolicy::Anyone),
            created_at_upper_limit: Some(FUTURE_SECONDS_MAX),
        }),
        constellation: Some(ConstellationExtension {
            version: CONSTELLATION_VERSION,
            frame_bytes: u64::try_from(FRAME_BYTES_STATION).unwrap_or(u64::MAX),
            peer_id: Some(peer_id.to_owned()),
        }),
    };
    let document = Document {
        information,
        contact: options.contact.as_deref(),
    };
    serde_json::to_string(&document).expect("strings, numbers and booleans are always JSON")
}
