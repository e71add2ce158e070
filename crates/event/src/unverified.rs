//! An event as somebody sent it: of the right form, but nothing about it is proven.
//!
//! Takes JSON from a socket, a file or a page; gives an [`UnverifiedEvent`]. What it says of itself can be read, to
//! decide whether it is worth verifying.
//! Worst case: linear in the bytes, which are checked against the limit first.

use std::borrow::Cow;

use nostr::event::Event;
use nostr::filter::Filter;
use serde::Deserialize;

use crate::canonical::CanonicalEvent;
use crate::proof::IdProven;
use crate::{CanonicalKey, EventLimits, Rejection, VerifiedEvent, filter, hex};

/// A well-formed event whose id and signature have not been checked.
#[derive(Debug, Clone)]
pub struct UnverifiedEvent(CanonicalEvent);

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
        CanonicalEvent::parse(json, limits).map(Self)
    }

    /// Takes an event that another library made, for instance one that was just signed.
    ///
    /// # Panics
    /// If the library's JSON is no event.
    pub fn from_event(event: &Event) -> Self {
        let limits = EventLimits {
            bytes_max: usize::MAX,
            tags_max: usize::MAX,
        };
        Self::parse(event.as_json().as_bytes(), &limits)
            .expect("the library's events have the form of NIP-01")
    }

    /// Bytes of its JSON, minified; what it is charged for while it waits.
    pub fn bytes(&self) -> usize {
        self.0.json().len()
    }

    /// The event as it claims to be, as the `nostr` crate has it: parsed anew each time.
    pub fn to_event(&self) -> Event {
        self.0.to_event()
    }

    /// The id it claims.
    pub fn id(&self) -> [u8; 32] {
        self.0.id
    }

    /// The author it claims.
    pub fn author(&self) -> &[u8; 32] {
        &self.0.author
    }

    /// The time it claims, in Unix seconds.
    pub fn created_at(&self) -> u64 {
        self.0.created_at
    }

    /// The kind's number.
    pub fn kind(&self) -> u16 {
        self.0.kind
    }

    /// The place in the canonical order that it claims.
    pub fn canonical_key(&self) -> CanonicalKey {
        CanonicalKey {
            created_at: self.created_at(),
            id: self.id(),
        }
    }

    /// Whether it matches a filter, as it claims to be.
    pub fn matches(&self, filter: &Filter) -> bool {
        filter::matches(filter, &self.0)
    }

    pub(crate) fn has_genuine_id(&self) -> bool {
        self.0.has_genuine_id()
    }

    pub(crate) fn signature(&self) -> [u8; 64] {
        self.0.signature()
    }

    pub(crate) fn into_canonical(self) -> CanonicalEvent {
        self.0
    }

    /// Checks id, then signature (NIP-01, BIP-340). Many events at once: [`BatchVerifier`](crate::BatchVerifier).
    ///
    /// # Errors
    /// [`Rejection::BadId`] or [`Rejection::BadSignature`], with the event, for whoever keeps account of the sender.
    #[allow(clippy::result_large_err)] // the rejected event goes back by value; rejections are rare
    pub fn verify(self) -> Result<VerifiedEvent, (Self, Rejection)> {
        match IdProven::of(self)?.alone() {
            Ok(proven) => Ok(VerifiedEvent::seal(proven)),
            Err(event) => Err((event.into_unverified(), Rejection::BadSignature)),
        }
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
    use nostr::event::{EventBuilder, FinalizeEvent, Kind, Tag};
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

    /// Its fields' values without their names.
    fn as_array(json: &str) -> String {
        let event: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let names = [
            "id",
            "pubkey",
            "created_at",
            "kind",
            "tags",
            "content",
            "sig",
        ];
        serde_json::json!(names.map(|name| &event[name])).to_string()
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

        let other = parse(&signed("other")).expect("well-formed").to_event().sig;
        let mut event = parse(&json).expect("well-formed").to_event();
        event.sig = other;
        let (_, why) = UnverifiedEvent::from_event(&event)
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
            as_array(&json),
        ] {
            assert_eq!(parse(&broken).err(), Some(Rejection::Malformed), "{broken}");
        }
    }

    #[test]
    fn hex_in_capitals_is_malformed_because_the_id_is_computed_over_lower_case() {
        let event = parse(&signed("x")).expect("well-formed").to_event();
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
