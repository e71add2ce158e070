//! An event in the form in which it is hashed, stored and served, with what is asked most kept beside it.
//!
//! Takes JSON from anywhere; gives minified JSON with the fields of NIP-01 in their order and strings escaped as
//! NIP-01 hashes them. So the id is a hash over slices of it, and the record on disk is a copy of it: an event is
//! written out once, and nothing else of it is held while it waits (about 130 bytes beside the JSON). Strict where
//! NIP-01 is: lower-case hex, unsigned integers, no field twice, no empty tag. Unknown fields are ignored, and so not
//! kept. Tags are read from the JSON when somebody asks for them. Worst case: linear in the bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tags::{JsonText, visit_tags};
use crate::{EventLimits, Rejection, hex};

const ID_FIELD: &[u8] = b"{\"id\":\"";
const PUBKEY_FIELD: &[u8] = b"\",\"pubkey\":\"";
const CREATED_AT_FIELD: &[u8] = b"\",\"created_at\":";
const KIND_FIELD: &[u8] = b",\"kind\":";
const TAGS_FIELD: &[u8] = b",\"tags\":";
const CONTENT_FIELD: &[u8] = b",\"content\":";
const SIGNATURE_FIELD: &[u8] = b",\"sig\":\"";
const END: &[u8] = b"\"}";

/// Where the public key's digits are, and the number after them.
const PUBKEY_AT: usize = ID_FIELD.len() + 64 + PUBKEY_FIELD.len();
const CREATED_AT_AT: usize = PUBKEY_AT + 64 + CREATED_AT_FIELD.len();
/// Bytes after the content.
const SIGNATURE_LEN: usize = SIGNATURE_FIELD.len() + 128 + END.len();

/// A well-formed event.
#[derive(Debug, Clone)]
pub(crate) struct CanonicalEvent {
    json: Box<str>,
    tags: Range<u32>,
    pub(crate) id: [u8; 32],
    pub(crate) author: [u8; 32],
    pub(crate) created_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) kind: u16,
    pub(crate) is_protected: bool,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pubkey: Cow<'a, str>,
    created_at: u64,
    kind: u16,
    tags: WireTags,
    #[serde(borrow)]
    content: JsonText<'a>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// Tags, written out as they are read, and what they say of the event as a whole.
struct WireTags {
    json: Vec<u8>,
    count: usize,
    expires_at: Option<Option<u64>>,
    is_protected: bool,
}

impl CanonicalEvent {
    pub(crate) fn parse(json: &[u8], limits: &EventLimits) -> Result<Self, Rejection> {
        if json.len() > limits.bytes_max {
            return Err(Rejection::TooLarge);
        }
        // The library would take an array of the fields' values too.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Rejection::Malformed);
        }
        let wire: WireEvent<'_> = serde_json::from_slice(json).map_err(|_| Rejection::Malformed)?;
        if wire.tags.count > limits.tags_max {
            return Err(Rejection::TooLarge);
        }
        let id = hex::decode_array(&wire.id).ok_or(Rejection::Malformed)?;
        let author = hex::decode_array(&wire.pubkey).ok_or(Rejection::Malformed)?;
        let _: [u8; 64] = hex::decode_array(&wire.sig).ok_or(Rejection::Malformed)?;
        let (text, tags) = wire.write().ok_or(Rejection::Malformed)?;
        Ok(Self {
            json: text,
            tags,
            id,
            author,
            created_at: wire.created_at,
            expires_at: wire.tags.expires_at.flatten(),
            kind: wire.kind,
            is_protected: wire.tags.is_protected,
        })
    }

    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The signature, whatever it is worth.
    pub(crate) fn signature(&self) -> [u8; 64] {
        let end = self.json.len() - END.len();
        hex::decode_array(&self.json[end - 128..end]).expect("checked when it was parsed")
    }

    /// Whether the id is the hash of the rest (NIP-01).
    pub(crate) fn has_genuine_id(&self) -> bool {
        let json = self.json.as_bytes();
        let tags = to_range(&self.tags);
        let content = tags.end + CONTENT_FIELD.len()..json.len() - SIGNATURE_LEN;
        let numbers = &json[CREATED_AT_AT..tags.start - TAGS_FIELD.len()];
        let digits = numbers
            .iter()
            .position(|byte| *byte == b',')
            .expect("the kind follows");
        let mut hash = Sha256::new();
        hash.update(b"[0,\"");
        hash.update(&json[PUBKEY_AT..PUBKEY_AT + 64]);
        hash.update(b"\",");
        hash.update(&numbers[..digits]);
        hash.update(b",");
        hash.update(&numbers[digits + KIND_FIELD.len()..]);
        hash.update(b",");
        hash.update(&json[tags]);
        hash.update(b",");
        hash.update(&json[content]);
        hash.update(b"]");
        <[u8; 32]>::from(hash.finalize()) == self.id
    }

    /// Calls `visit` with the name of each tag and its first value, where it has one.
    pub(crate) fn for_each_tag(&self, visit: &mut dyn FnMut(&str, Option<&str>)) {
        visit_tags(&self.json[to_range(&self.tags)], visit)
            .expect("written from tags that were read");
    }

    /// The event as the `nostr` crate has it.
    pub(crate) fn to_event(&self) -> nostr::event::Event {
        nostr::event::Event::from_json(&*self.json).expect("canonical JSON is an event's")
    }
}

fn to_range(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl WireEvent<'_> {
    /// Writes the canonical JSON, and says where its tags are. `None` if its length is beyond 32 bits.
    fn write(&self) -> Option<(Box<str>, Range<u32>)> {
        let fixed = CREATED_AT_AT
            + KIND_FIELD.len()
            + TAGS_FIELD.len()
            + CONTENT_FIELD.len()
            + SIGNATURE_LEN;
        const NUMBERS: usize = 25;
        const QUOTES: usize = 2;
        let text = self.content.0.len() + self.tags.json.len();
        let mut json = Vec::with_capacity(fixed + NUMBERS + QUOTES + text);
        json.extend_from_slice(ID_FIELD);
        json.extend_from_slice(self.id.as_bytes());
        json.extend_from_slice(PUBKEY_FIELD);
        json.extend_from_slice(self.pubkey.as_bytes());
        json.extend_from_slice(CREATED_AT_FIELD);
        write_json(&mut json, &self.created_at);
        json.extend_from_slice(KIND_FIELD);
        write_json(&mut json, &self.kind);
        json.extend_from_slice(TAGS_FIELD);
        let start = u32::try_from(json.len()).ok()?;
        json.extend_from_slice(&self.tags.json);
        let end = u32::try_from(json.len()).ok()?;
        json.extend_from_slice(CONTENT_FIELD);
        write_string(&mut json, &self.content);
        json.extend_from_slice(SIGNATURE_FIELD);
        json.extend_from_slice(self.sig.as_bytes());
        json.extend_from_slice(END);
        let json = String::from_utf8(json).expect("made of strings");
        Some((json.into_boxed_str(), start..end))
    }
}

fn write_json<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("numbers and strings are JSON, and memory takes any");
}

/// A string as NIP-01 hashes it. What was borrowed from JSON had no escapes, so it needs none.
fn write_string(json: &mut Vec<u8>, text: &JsonText<'_>) {
    match &text.0 {
        Cow::Borrowed(text) => {
            json.push(b'"');
            json.extend_from_slice(text.as_bytes());
            json.push(b'"');
        }
        Cow::Owned(text) => write_json(json, text.as_str()),
    }
}

impl<'de> Deserialize<'de> for WireTags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllTags;
        impl<'de> Visitor<'de> for AllTags {
            type Value = WireTags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tags: A) -> Result<WireTags, A::Error> {
                const MOST_ARE_SHORTER: usize = 256;
                let mut read = WireTags {
                    json: Vec::with_capacity(MOST_ARE_SHORTER),
                    count: 0,
                    expires_at: None,
                    is_protected: false,
                };
                read.json.push(b'[');
                while tags.next_element_seed(OneTag(&mut read))?.is_some() {}
                read.json.push(b']');
                Ok(read)
            }
        }
        deserializer.deserialize_seq(AllTags)
    }
}

/// Reads one tag and adds it to those before.
struct OneTag<'t>(&'t mut WireTags);

impl<'de> de::DeserializeSeed<'de> for OneTag<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneTag<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag: an array of strings, not empty")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut strings: A) -> Result<(), A::Error> {
        let Self(tags) = self;
        if tags.count > 0 {
            tags.json.push(b',');
        }
        tags.count += 1;
        tags.json.push(b'[');
        let name = strings
            .next_element::<JsonText<'de>>()?
            .ok_or_else(|| de::Error::invalid_length(0, &"a name"))?;
        write_string(&mut tags.json, &name);
        let name = name.0;
        let mut is_value = true;
        let mut expires_at = None;
        while let Some(text) = strings.next_element::<JsonText<'de>>()? {
            tags.json.push(b',');
            write_string(&mut tags.json, &text);
            if is_value && name == "expiration" {
                expires_at = text.0.parse().ok();
            }
            is_value = false;
        }
        tags.json.push(b']');
        // The first one counts, whatever it says.
        if name == "expiration" && tags.expires_at.is_none() {
            tags.expires_at = Some(expires_at);
        }
        tags.is_protected |= name == "-";
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
    use nostr::key::Keys;
    use nostr::types::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Result<CanonicalEvent, Rejection> {
        CanonicalEvent::parse(json.as_bytes(), &EventLimits::default())
    }

    /// The same event as somebody else might write it: other order, spaces, escapes where none are needed.
    fn written_otherwise(event: &Event) -> String {
        let escaped = |text: &str| {
            let units: String = text
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect();
            format!("\"{units}\"")
        };
        let tags: Vec<String> = event
            .tags
            .iter()
            .map(|tag| {
                let strings: Vec<_> = tag.as_slice().iter().map(|text| escaped(text)).collect();
                format!("[ {} ]", strings.join(" ,\n"))
            })
            .collect();
        format!(
            " {{\"sig\" : \"{}\", \"content\":{},\"relay\":[1,{{}}],\"tags\": [{}],\t\"kind\":{}, \
             \"created_at\":{},\"pubkey\":{},\"id\":{}}} ",
            event.sig,
            escaped(&event.content),
            tags.join(", "),
            event.kind.as_u16(),
            event.created_at.as_secs(),
            escaped(&event.pubkey.to_hex()),
            escaped(&event.id.to_hex()),
        )
    }

    proptest! {
        /// The library's serialisation and hash are the oracle.
        #[test]
        fn however_it_is_written_the_json_is_the_librarys_and_the_id_its_hash(
            content in "(\\PC|[\\x00-\\x1f\"\\\\/\u{7f}\u{2028}])*",
            tags in proptest::collection::vec(
                proptest::collection::vec("(\\PC|[\\x00-\\x1f\"\\\\])*", 1..4), 0..4),
            kind: u16,
            created_at: u64,
        ) {
            let event = EventBuilder::new(Kind::from_u16(kind), content)
                .tags(tags.iter().map(|tag| Tag::parse(tag).expect("not empty")))
                .custom_created_at(Timestamp::from_secs(created_at))
                .finalize(&Keys::generate())
                .expect("generated keys sign");
            for json in [event.as_json(), written_otherwise(&event)] {
                let canonical = parse(&json).expect("well-formed");
                prop_assert_eq!(canonical.json(), event.as_json());
                prop_assert!(canonical.has_genuine_id());
                prop_assert_eq!(canonical.to_event(), event.clone());
                prop_assert_eq!(canonical.signature(), event.sig.to_bytes());
                let mut read = Vec::new();
                canonical.for_each_tag(&mut |name, value| {
                    read.push((name.to_owned(), value.map(str::to_owned)));
                });
                let expected: Vec<_> = event
                    .tags
                    .iter()
                    .map(|tag| (tag.kind().to_owned(), tag.content().map(str::to_owned)))
                    .collect();
                prop_assert_eq!(read, expected);
            }
            let mut forged = event.clone();
            forged.created_at = Timestamp::from_secs(created_at ^ 1);
            prop_assert!(!parse(&forged.as_json()).expect("well-formed").has_genuine_id());
        }
    }

    #[test]
    fn the_first_expiration_counts_whatever_it_says() {
        let expires = |tags: &[&[&str]]| {
            let event = EventBuilder::new(Kind::TextNote, "")
                .tags(
                    tags.iter()
                        .map(|tag| Tag::parse(tag.iter().copied()).expect("not empty")),
                )
                .finalize(&Keys::generate())
                .expect("generated keys sign");
            let parsed = parse(&event.as_json()).expect("well-formed");
            (parsed.expires_at, parsed.is_protected)
        };
        assert_eq!(expires(&[]), (None, false));
        assert_eq!(expires(&[&["expiration", "7", "8"]]), (Some(7), false));
        assert_eq!(
            expires(&[&["expiration", "x"], &["expiration", "7"]]),
            (None, false)
        );
        assert_eq!(
            expires(&[&["expiration"], &["expiration", "7"]]),
            (None, false)
        );
        assert_eq!(expires(&[&["-"], &["expiration", "-7"]]), (None, true));
        assert_eq!(expires(&[&["x", "expiration", "7"]]), (None, false));
    }

    #[test]
    fn lone_surrogates_and_broken_escapes_are_no_text() {
        let json = EventBuilder::new(Kind::TextNote, "here")
            .finalize(&Keys::generate())
            .expect("generated keys sign")
            .as_json();
        for broken in [r"\ud800", r"\ud800\u0041", r"\udc00", r"\x", "\u{1}", r"\"] {
            let json = json.replace("here", broken);
            assert_eq!(parse(&json).err(), Some(Rejection::Malformed), "{broken}");
        }
    }
}
