//! Whether an event matches a filter of NIP-01.
//!
//! Takes the `nostr` crate's [`Filter`], but not its matching: there an empty list matches everything, while
//! NIP-01 and other relays let it match nothing. Values are compared whole; there are no prefixes. `limit` and
//! `search` are the query's business. Worst case: each tag of the event is looked up once per tag filter.

use nostr::event::{EventId, Kind};
use nostr::filter::{Filter, SingleLetterTag};
use nostr::key::PublicKey;

use crate::canonical::CanonicalEvent;

/// A view of an event's tags, so that stored events need not be parsed whole.
pub trait TagLookup {
    /// Whether a tag named `letter` has a first value that `wanted` accepts.
    fn any(&self, letter: SingleLetterTag, wanted: &mut dyn FnMut(&str) -> bool) -> bool;
}

impl TagLookup for CanonicalEvent {
    fn any(&self, letter: SingleLetterTag, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        let mut found = false;
        self.for_each_tag(&mut |name, value| {
            found = found || (name == letter.as_str() && value.is_some_and(&mut *wanted));
        });
        found
    }
}

/// Tags as lists of strings, borrowed from JSON where it has no escapes.
#[derive(Debug, serde::Deserialize)]
pub struct VecTags<'a>(#[serde(borrow)] pub Vec<Vec<std::borrow::Cow<'a, str>>>);

impl TagLookup for VecTags<'_> {
    fn any(&self, letter: SingleLetterTag, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        let name = letter.as_str();
        self.0.iter().any(|tag| match tag.as_slice() {
            [first, value, ..] => first == name && wanted(value),
            _ => false,
        })
    }
}

/// Whether `event` matches `filter`.
pub(crate) fn matches(filter: &Filter, event: &CanonicalEvent) -> bool {
    filter
        .ids
        .as_ref()
        .is_none_or(|ids| ids.contains(&EventId::from_byte_array(event.id)))
        && filter
            .authors
            .as_ref()
            .is_none_or(|authors| authors.contains(&PublicKey::from_byte_array(event.author)))
        && filter
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&Kind::from_u16(event.kind)))
        && filter
            .since
            .is_none_or(|since| event.created_at >= since.as_secs())
        && filter
            .until
            .is_none_or(|until| event.created_at <= until.as_secs())
        && tags_match(filter, event)
}

/// Whether the tags of an event match the tag filters of `filter`.
pub fn tags_match(filter: &Filter, tags: &dyn TagLookup) -> bool {
    filter
        .generic_tags
        .iter()
        .all(|(letter, values)| tags.any(*letter, &mut |value| values.contains(value)))
}

#[cfg(test)]
mod tests {
    use nostr::event::{EventBuilder, FinalizeEvent, Kind, Tag};
    use nostr::key::Keys;

    use super::*;
    use crate::EventLimits;

    fn filter(json: &str) -> Filter {
        Filter::from_json(json).expect("a filter")
    }

    #[test]
    fn an_empty_list_matches_nothing_and_an_absent_one_everything() {
        let event = EventBuilder::new(Kind::TextNote, "x")
            .tag(Tag::parse(["t", "a", "b"]).expect("not empty"))
            .finalize(&Keys::generate())
            .expect("generated keys sign");
        let event = CanonicalEvent::parse(event.as_json().as_bytes(), &EventLimits::default())
            .expect("an event");
        assert!(matches(&filter("{}"), &event));
        for empty in [
            r#"{"ids":[]}"#,
            r#"{"authors":[]}"#,
            r#"{"kinds":[]}"#,
            r##"{"#t":[]}"##,
        ] {
            assert!(!matches(&filter(empty), &event), "{empty}");
        }
        assert!(matches(&filter(r##"{"#t":["a"],"kinds":[1]}"##), &event));
        assert!(
            !matches(&filter(r##"{"#t":["b"]}"##), &event),
            "only the first value counts"
        );
        assert!(
            !matches(&filter(r##"{"#T":["a"]}"##), &event),
            "letters have a case"
        );
        let at = event.created_at;
        assert!(matches(
            &filter(&format!(r#"{{"since":{at},"until":{at}}}"#)),
            &event
        ));
        assert!(!matches(
            &filter(&format!(r#"{{"since":{}}}"#, at + 1)),
            &event
        ));
        assert!(!matches(
            &filter(&format!(r#"{{"until":{}}}"#, at - 1)),
            &event
        ));
    }
}
