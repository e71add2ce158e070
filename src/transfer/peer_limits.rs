//! What a peer can be asked at a time, from what it says of itself (NIP-11).
//!
//! Hints, not promises: where the peer says nothing, or too much, bounds apply that every known relay bears; what it
//! complains about later is heeded by whoever asks.

use crate::limits::{
    DOWNLOAD_IDS_PER_REQUEST, DOWNLOAD_IDS_PER_REQUEST_STATION, DOWNLOADS_IN_FLIGHT,
    DOWNLOADS_IN_FLIGHT_UNSTATED, FRAME_BYTES_MIN, FRAME_BYTES_OTHER, FRAME_BYTES_STATION,
    NEG_ENVELOPE_BYTES,
};
use crate::protocol::RelayInformation;

/// An id in a REQ: 64 digits, two quotes, a comma.
const ID_BYTES: usize = 67;
/// What a REQ has besides ids.
const REQUEST_ENVELOPE_BYTES: usize = 64;

/// What one peer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Largest negentropy frame, in bytes before hex.
    pub frame_bytes: usize,
    /// The largest frames and requests that it is sent, in bytes of a message.
    pub message_bytes_max: Option<usize>,
    /// The largest message that the peer says it takes, in bytes.
    pub stated_message_bytes: Option<usize>,
    /// The largest message that it was found to take, in bytes.
    pub learnt_message_bytes: Option<usize>,
    /// REQs open at a time.
    pub requests_max: usize,
    /// Ids in one REQ.
    pub ids_per_request: usize,
    /// The most events that the peer says one REQ brings.
    pub events_per_request: Option<usize>,
    /// It says that it is a station.
    pub is_station: bool,
}

impl PeerLimits {
    /// What follows from a peer's document, if it has one.
    pub fn of(information: Option<&RelayInformation>) -> Self {
        let stated = information.and_then(|document| document.limitation.as_ref());
        let positive = |number: Option<u64>| {
            number
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| *number > 0)
        };
        let message_bytes_max = positive(stated.and_then(|limits| limits.max_message_length));
        let events_per_request = positive(stated.and_then(|limits| limits.max_limit));
        let requests = positive(stated.and_then(|limits| limits.max_subscriptions));
        let is_station = station_frame(information).is_some();
        let ids = if is_station {
            DOWNLOAD_IDS_PER_REQUEST_STATION
        } else {
            DOWNLOAD_IDS_PER_REQUEST
        };
        let ids_in_message = message_bytes_max.map_or(usize::MAX, |bytes| {
            bytes.saturating_sub(REQUEST_ENVELOPE_BYTES) / ID_BYTES
        });
        Self {
            frame_bytes: station_frame(information)
                .unwrap_or_else(|| small_frame(message_bytes_max)),
            message_bytes_max,
            // What is smaller is a mistake: by it nothing at all could be offered.
            stated_message_bytes: message_bytes_max.filter(|bytes| *bytes >= MESSAGE_BYTES_LEAST),
            learnt_message_bytes: None,
            requests_max: requests
                .unwrap_or(DOWNLOADS_IN_FLIGHT_UNSTATED)
                .min(DOWNLOADS_IN_FLIGHT),
            ids_per_request: ids
                .min(ids_in_message)
                .min(events_per_request.unwrap_or(usize::MAX))
                .max(1),
            events_per_request,
            is_station,
        }
    }

    /// The same for a peer that was found to take only messages of so many bytes, events too.
    #[must_use]
    pub fn with_learnt(self, bytes: usize) -> Self {
        Self {
            learnt_message_bytes: Some(bytes),
            ..self.with_messages_of(bytes)
        }
    }

    /// Whether the peer takes a message of so many bytes, as far as it says and as was found out.
    pub fn takes(&self, bytes: usize) -> bool {
        let limits = [self.stated_message_bytes, self.learnt_message_bytes];
        limits.into_iter().flatten().all(|limit| bytes <= limit)
    }

    /// The same for a peer that is to be sent frames and requests of so many bytes at most.
    #[must_use]
    pub fn with_messages_of(self, bytes: usize) -> Self {
        let bytes = self
            .message_bytes_max
            .map_or(bytes, |stated| stated.min(bytes));
        let ids = bytes.saturating_sub(REQUEST_ENVELOPE_BYTES) / ID_BYTES;
        Self {
            frame_bytes: self.frame_bytes.min(small_frame(Some(bytes))),
            message_bytes_max: Some(bytes),
            ids_per_request: self.ids_per_request.min(ids).max(1),
            ..self
        }
    }

    /// Half of what it may be sent now, if that is a message at all.
    pub fn messages_half_as_large(&self) -> Option<usize> {
        let limits = [self.stated_message_bytes, self.learnt_message_bytes];
        let now = limits.into_iter().flatten().min();
        let now = now.unwrap_or(2 * MESSAGE_BYTES_ASSUMED);
        let half = now / 2;
        (half >= MESSAGE_BYTES_LEAST).then_some(half)
    }

    /// Authors in one filter: at most so many, and as many as leave half of a message to the rest.
    pub fn authors_per_filter(&self, most: usize) -> usize {
        let fit = self
            .message_bytes_max
            .map_or(most, |bytes| bytes / 2 / ID_BYTES);
        fit.clamp(1, most)
    }
}

/// The largest messages that are sent to a peer of which nothing is known: frames in hex, and their filter.
const MESSAGE_BYTES_ASSUMED: usize = 128 << 10;
/// A relay that takes no message of this size takes few events either.
const MESSAGE_BYTES_LEAST: usize = 2 << 10;

/// Large frames for stations, as large as they say (D3).
fn station_frame(information: Option<&RelayInformation>) -> Option<usize> {
    let station = information?.constellation.as_ref()?;
    (station.version == 1).then(|| {
        usize::try_from(station.frame_bytes)
            .unwrap_or(FRAME_BYTES_STATION)
            .clamp(FRAME_BYTES_OTHER, FRAME_BYTES_STATION)
    })
}

/// Small frames for all others: in hex a frame is twice as long, and has an envelope.
fn small_frame(message_bytes_max: Option<usize>) -> usize {
    message_bytes_max.map_or(FRAME_BYTES_OTHER, |bytes| {
        (bytes.saturating_sub(NEG_ENVELOPE_BYTES) / 2).clamp(FRAME_BYTES_MIN, FRAME_BYTES_OTHER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> PeerLimits {
        PeerLimits::of(RelayInformation::parse(json.as_bytes()).as_ref())
    }

    #[test]
    fn frames_fit_the_peer() {
        let frame = |json| limits(json).frame_bytes;
        assert_eq!(PeerLimits::of(None).frame_bytes, FRAME_BYTES_OTHER);
        assert_eq!(frame("{}"), FRAME_BYTES_OTHER);
        assert_eq!(
            frame(r#"{"constellation":{"version":1,"frame_bytes":500000}}"#),
            FRAME_BYTES_STATION
        );
        assert_eq!(
            frame(r#"{"constellation":{"version":1,"frame_bytes":99999999}}"#),
            FRAME_BYTES_STATION,
            "never more than our own messages hold"
        );
        let small = frame(r#"{"limitation":{"max_message_length":65536}}"#);
        assert!(
            2 * small + NEG_ENVELOPE_BYTES <= 65_536 && small > 30_000,
            "{small}"
        );
        assert_eq!(
            frame(r#"{"limitation":{"max_message_length":1}}"#),
            FRAME_BYTES_MIN
        );
        assert_eq!(
            limits(r#"{"limitation":{"max_message_length":0}}"#).message_bytes_max,
            None
        );
    }

    #[test]
    fn only_what_the_peer_says_or_was_found_to_take_keeps_an_event_from_it() {
        let stated = limits(r#"{"limitation":{"max_message_length":65536}}"#);
        assert!(stated.takes(65_536) && !stated.takes(65_537));
        assert!(!stated.with_learnt(8_192).takes(8_193));
        let narrow_link = PeerLimits::of(None).with_messages_of(8_192);
        assert!(narrow_link.takes(200_000), "slow is not too large");
        let nonsense = limits(r#"{"limitation":{"max_message_length":1}}"#);
        assert!(nonsense.takes(2_000));
    }

    #[test]
    fn requests_fit_the_peer() {
        let asked = |json| {
            let limits = limits(json);
            (limits.requests_max, limits.ids_per_request)
        };
        let unstated = (DOWNLOADS_IN_FLIGHT_UNSTATED, DOWNLOAD_IDS_PER_REQUEST);
        assert_eq!(asked("{}"), unstated);
        assert_eq!(
            asked(r#"{"limitation":{"max_subscriptions":0,"max_limit":0}}"#),
            unstated,
            "nobody means that"
        );
        assert_eq!(
            asked(r#"{"limitation":{"max_subscriptions":1,"max_limit":100}}"#),
            (1, 100)
        );
        assert_eq!(
            asked(r#"{"limitation":{"max_subscriptions":5000,"max_limit":5000}}"#),
            (DOWNLOADS_IN_FLIGHT, DOWNLOAD_IDS_PER_REQUEST)
        );
        let (_, ids) = asked(r#"{"limitation":{"max_message_length":8192}}"#);
        assert!(ids * ID_BYTES + REQUEST_ENVELOPE_BYTES <= 8_192 && ids > 100);
        assert_eq!(asked(r#"{"limitation":{"max_message_length":1}}"#).1, 1);
        assert_eq!(
            asked(r#"{"constellation":{"version":1,"frame_bytes":500000}}"#).1,
            DOWNLOAD_IDS_PER_REQUEST_STATION
        );
    }
}
