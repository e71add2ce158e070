//! An event as somebody sent it: of the right form, but nothing about it is proven.
//!
//! Takes JSON from a socket, a file or a page; gives an [`UnverifiedEvent`]. Strict where NIP-01 is: lower-case
//! hex, unsigned integers, no field twice, no empty tag. Unknown fields are ignored, and so not kept.
//! Worst case: linear in the bytes, which are checked against the limit first.

use std::borrow::Cow;

use nostr::event::{Event, EventId, Kind, Signature, Tag};
use nostr::key::PublicKey;
use nostr::types::Timestamp;
use serde::Deserialize;

use crate::{EventLimits, Rejection, VerifiedEvent, hex};

/// A well-formed event whose id and signature have not been checked.
#[derive(Debug, Clone)]
pub struct UnverifiedEvent {
    event: Event,
    bytes: usize,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pubkey: Cow<'a, str>,
    created_at: u64,
    kind: u16,
    tags: Vec<Tag>,
    content: String,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// What an event that is otherwise unreadable says it is; enough to remember not to ask for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimedIdentity {
    /// The id it claims.
    pub id: [u8; 32],
    /// The time it claims, in Unix seconds.
    pub created_at: u64,
}

impl UnverifiedEvent {
    /// Parses one event from its JSON.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] over `limits`, [`Rejection::Malformed`] for anything that is not an event of NIP-01.
    pub fn parse(json: &[u8], limits: &EventLimits) -> Result<Self, Rejection> {
        if json.len() > limits.bytes_max {
            return Err(Rejection::TooLarge);
        }
        let wire: WireEvent<'_> = serde_json::from_slice(json).map_err(|_| Rejection::Malformed)?;
        if wire.tags.len() > limits.tags_max {
            return Err(Rejection::TooLarge);
        }
        let event = Event::new(
            EventId::from_byte_array(hex::decode_array(&wire.id).ok_or(Rejection::Malformed)?),
            PublicKey::from_byte_array(
                hex::decode_array(&wire.pubkey).ok_or(Rejection::Malformed)?,
            ),
            Timestamp::from_secs(wire.created_at),
            Kind::from_u16(wire.kind),
            wire.tags,
            wire.content,
            Signature::from_byte_array(hex::decode_array(&wire.sig).ok_or(Rejection::Malformed)?),
        );
        Ok(Self {
            event,
            bytes: json.len(),
        })
    }

    /// Takes an event that another library parsed, for instance one that was just signed.
    pub fn from_event(event: Event) -> Self {
        let bytes = event.as_json().len();
        Self { event, bytes }
    }

    /// Bytes of the JSON it was read from; what it is charged for while it waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The event as it claims to be.
    pub fn claimed(&self) -> &Event {
        &self.event
    }

    /// The id it claims.
    pub fn id(&self) -> [u8; 32] {
        self.event.id.to_bytes()
    }

    /// Checks id, then signature: the only way to a [`VerifiedEvent`].
    ///
    /// # Errors
    /// [`Rejection::BadId`] or [`Rejection::BadSignature`], with the event, for whoever keeps account of the sender.
    #[allow(clippy::result_large_err)] // the rejected event goes back by value; rejections are rare
    pub fn verify(self) -> Result<VerifiedEvent, (Self, Rejection)> {
        if !self.event.verify_id() {
            return Err((self, Rejection::BadId));
        }
        if !self.event.verify_signature() {
            return Err((self, Rejection::BadSignature));
        }
        Ok(VerifiedEvent::seal(self.event))
    }

    /// Reads id and time out of JSON that is not (quite) an event, where they are there at all.
    pub fn claimed_identity(json: &[u8]) -> Option<ClaimedIdentity> {
        #[derive(Deserialize)]
        struct Claim<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
            created_at: u64,
        }
        let claim: Claim<'_> = serde_json::from_slice(json).ok()?;
        Some(ClaimedIdentity {
            id: hex::decode_array(&claim.id)?,
            created_at: claim.created_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use nostr::event::{EventBuilder, FinalizeEvent};
    use nostr::key::Keys;

    use proptest::prelude::*;

    use super::*;

    fn signed(content: &str) -> String {
        EventBuilder::new(Kind::TextNote, content)
            .tag(Tag::hashtag("proof"))
            .finalize(&Keys::generate())
            .expect("generated keys sign")
            .as_json()
    }

    fn parse(json: &str) -> Result<UnverifiedEvent, Rejection> {
        UnverifiedEvent::parse(json.as_bytes(), &EventLimits::default())
    }

    #[test]
    fn a_signed_event_is_verified_and_serialises_as_it_was() {
        let json = signed("hello \"world\"\n\u{1F680}\u{7}");
        let verified = parse(&json)
            .expect("well-formed")
            .verify()
            .expect("genuine");
        assert_eq!(verified.json(), json);
    }

    #[test]
    fn any_change_to_what_is_signed_is_found() {
        let json = signed("pay 1 sat");
        let changed = json.replace("pay 1 sat", "pay 9 sat");
        let (_, why) = parse(&changed)
            .expect("well-formed")
            .verify()
            .expect_err("content changed");
        assert_eq!(why, Rejection::BadId);

        let other = parse(&signed("other")).expect("well-formed").claimed().sig;
        let mut event = parse(&json).expect("well-formed").claimed().clone();
        event.sig = other;
        let (_, why) = UnverifiedEvent::from_event(event)
            .verify()
            .expect_err("signature of another event");
        assert_eq!(why, Rejection::BadSignature);
    }

    #[test]
    fn what_is_not_an_event_is_malformed() {
        let json = signed("x");
        for broken in [
            String::new(),
            "null".into(),
            "[]".into(),
            json[..json.len() - 1].to_owned(),
            json.replace("\"kind\":1", "\"kind\":65536"),
            json.replace("\"kind\":1", "\"kind\":-1"),
            json.replace("\"kind\":1", "\"kind\":\"1\""),
            json.replace("\"kind\":1", "\"kind\":1,\"kind\":1"),
            json.replace("[[\"t\",\"proof\"]]", "[[]]"),
            json.replace("[[\"t\",\"proof\"]]", "[[\"t\",1]]"),
            json.replace("\"sig\":\"", "\"sig\":\"00"),
            json.to_uppercase(),
        ] {
            assert_eq!(parse(&broken).err(), Some(Rejection::Malformed), "{broken}");
        }
    }

    #[test]
    fn hex_in_capitals_is_malformed_because_the_id_is_computed_over_lower_case() {
        let event = parse(&signed("x")).expect("well-formed").claimed().clone();
        let json = event
            .as_json()
            .replace(&event.id.to_hex(), &event.id.to_hex().to_uppercase());
        assert_eq!(parse(&json).err(), Some(Rejection::Malformed));
    }

    #[test]
    fn limits_are_checked_before_anything_else() {
        let json = signed("x");
        let small = EventLimits {
            bytes_max: json.len() - 1,
            tags_max: 10,
        };
        assert_eq!(
            UnverifiedEvent::parse(json.as_bytes(), &small).err(),
            Some(Rejection::TooLarge)
        );
        let untagged = EventLimits {
            bytes_max: json.len(),
            tags_max: 0,
        };
        assert_eq!(
            UnverifiedEvent::parse(json.as_bytes(), &untagged).err(),
            Some(Rejection::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = UnverifiedEvent::parse(&bytes, &EventLimits::default());
            let _ = UnverifiedEvent::claimed_identity(&bytes);
        }

        #[test]
        fn strings_of_any_characters_round_trip(content in "\\PC*", tag in "[\\x00-\\x7f]*") {
            let event = EventBuilder::new(Kind::TextNote, content)
                .tag(Tag::parse(["x", &tag]).expect("not empty"))
                .finalize(&Keys::generate())
                .expect("generated keys sign");
            let json = event.as_json();
            let verified = parse(&json).expect("well-formed").verify().expect("genuine");
            prop_assert_eq!(verified.json(), json);
        }
    }
}
