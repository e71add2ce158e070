//! Reading the tags of an event out of its JSON, one after the other, without building lists.
//!
//! Takes an array of arrays of strings; gives each tag's name and first value, borrowed where the JSON has no
//! escapes. Further values are read over. Holds nothing. Worst case: linear in the bytes.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// A string, borrowed if it can be. (`Cow` by itself never borrows from inside a sequence.)
#[derive(Deserialize)]
pub(crate) struct JsonText<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Calls `visit` for each tag of `json`.
pub(crate) fn visit_tags(
    json: &str,
    visit: &mut dyn FnMut(&str, Option<&str>),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    AllTags(visit).deserialize(&mut deserializer)?;
    deserializer.end()
}

struct AllTags<'v>(&'v mut dyn FnMut(&str, Option<&str>));

impl<'de> DeserializeSeed<'de> for AllTags<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AllTags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tags")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tags: A) -> Result<(), A::Error> {
        while tags.next_element_seed(OneTag(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct OneTag<'v>(&'v mut dyn FnMut(&str, Option<&str>));

impl<'de> DeserializeSeed<'de> for OneTag<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneTag<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag: an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut strings: A) -> Result<(), A::Error> {
        let Some(JsonText(name)) = strings.next_element::<JsonText<'de>>()? else {
            return Ok(());
        };
        let value = strings.next_element::<JsonText<'de>>()?;
        while strings.next_element::<de::IgnoredAny>()?.is_some() {}
        (self.0)(&name, value.as_ref().map(|value| value.0.as_ref()));
        Ok(())
    }
}
