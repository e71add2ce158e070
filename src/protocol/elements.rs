//! The top-level array of a Nostr message, its elements left as raw JSON.
//!
//! Takes text; gives its first elements, borrowed, and whether there were more. When the JSON breaks off or goes
//! wrong, what was read until then is still given, so that an answer can name the subscription.
//! Worst case: one pass over the text; memory for at most the number of elements asked for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What was read of a message.
#[derive(Debug, Default)]
pub(super) struct Elements<'a> {
    /// The elements, in order, at most as many as asked for.
    pub(super) items: Vec<&'a RawValue>,
    /// Whether there were more than asked for.
    pub(super) more: bool,
    /// Whether the text is one JSON array from beginning to end.
    pub(super) complete: bool,
}

impl<'a> Elements<'a> {
    /// Reads up to `items_max` elements of `text`.
    pub(super) fn read(text: &'a str, items_max: usize) -> Self {
        let mut elements = Self {
            items: Vec::with_capacity(4),
            ..Self::default()
        };
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Collect {
            elements: &mut elements,
            items_max,
        }
        .deserialize(&mut reader);
        elements.complete = read.is_ok() && reader.end().is_ok();
        elements
    }

    /// The element at `index`, if it is a string.
    pub(super) fn text(&self, index: usize) -> Option<Cow<'a, str>> {
        text_of(self.items.get(index)?)
    }

    /// The JSON of the element at `index`, if it is an object.
    pub(super) fn object(&self, index: usize) -> Option<&'a str> {
        self.items
            .get(index)
            .map(|raw| raw.get())
            .filter(|json| json.starts_with('{'))
    }
}

/// A raw value as text, borrowed where it has no escapes.
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Appends `text` as a JSON string.
pub(super) fn push_text(text: &str, message: &mut String) {
    // A string cannot fail to serialise: no map keys, no floats, no I/O.
    message.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
}

struct Collect<'e, 'a> {
    elements: &'e mut Elements<'a>,
    items_max: usize,
}

impl<'a> DeserializeSeed<'a> for Collect<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Collect<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        while self.elements.items.len() < self.items_max {
            let Some(item) = array.next_element::<&'a RawValue>()? else {
                return Ok(());
            };
            self.elements.items.push(item);
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            self.elements.more = true;
        }
        Ok(())
    }
}
