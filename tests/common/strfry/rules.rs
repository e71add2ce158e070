//! The stand-in's event rules, where they differ from ours and where they do not.
//!
//! A deletion may delete a deletion; its `a` says nothing about kinds 0, 3 and 1xxxx; the addressee may delete a gift wrap;
//! an older version comes back when the newer one was deleted; there is no vanishing. What is rejected: see [`rejection`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use constellation::protocol::hex;
use constellation_event::KindClass;
use nostr::event::Event;
use nostr::filter::Filter;

use crate::common::now;

const EVENT_BYTES_MAX: usize = 65_536;
const EVENT_TAGS_MAX: usize = 2_000;
const FUTURE_SECONDS: u64 = 900;

/// What happened to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Added,
    Duplicate,
    Rejected(&'static str),
}

/// What it stores, and what it knows to be deleted.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) events: BTreeMap<(u64, [u8; 32]), Event>,
    pub(super) places: HashMap<[u8; 32], u64>,
    deleted: HashSet<([u8; 32], String)>,
    deleted_addresses: HashMap<String, u64>,
}

impl Stored {
    /// Takes an event of so many bytes, as the writer does.
    pub(super) fn admit(&mut self, event: &Event, bytes: usize) -> Fate {
        let id = event.id.to_bytes();
        if let Some(why) = rejection(event, bytes) {
            return Fate::Rejected(why);
        }
        let author = event.pubkey.to_hex();
        let is_deleted = self.deleted.contains(&(id, author.clone()))
            || address(event).is_some_and(|address| {
                let until = self.deleted_addresses.get(&address);
                until.is_some_and(|until| event.created_at.as_secs() <= *until)
            });
        if self.places.contains_key(&id) || is_deleted {
            return Fate::Duplicate;
        }
        if let Some(mine) = address(event) {
            let rival = self
                .events
                .iter()
                .find(|(_, other)| address(other).as_ref() == Some(&mine))
                .map(|(key, _)| *key);
            if let Some((at, other)) = rival {
                let is_newer = (event.created_at.as_secs(), std::cmp::Reverse(id))
                    > (at, std::cmp::Reverse(other));
                if !is_newer {
                    return Fate::Duplicate;
                }
                self.remove(&other);
            }
        }
        self.places.insert(id, event.created_at.as_secs());
        self.events
            .insert((event.created_at.as_secs(), id), event.clone());
        if event.kind.as_u16() == 5 {
            self.delete_what_it_names(event, &author);
        }
        Fate::Added
    }

    /// A deletion's `e` also reach other deletions; its `a` not the replaceable kinds without `d`.
    fn delete_what_it_names(&mut self, deletion: &Event, author: &str) {
        for tag in deletion.tags.iter() {
            let [name, value, ..] = tag.as_slice() else {
                continue;
            };
            if name == "e" {
                let id = hex::decode_array(value).expect("checked");
                self.deleted.insert((id, author.to_owned()));
                let is_own = self.places.get(&id).is_some_and(|at| {
                    let target = &self.events[&(*at, id)];
                    target.pubkey == deletion.pubkey || wraps_for(target, author)
                });
                if is_own {
                    self.remove(&id);
                }
            } else if name == "a" && value.starts_with('3') && value.split(':').count() == 3 {
                let until = deletion.created_at.as_secs();
                self.deleted_addresses.insert(value.clone(), until);
                let targets: Vec<[u8; 32]> = self
                    .events
                    .iter()
                    .filter(|((at, _), other)| {
                        *at <= until && address(other).as_ref() == Some(value)
                    })
                    .map(|((_, id), _)| *id)
                    .collect();
                for id in targets {
                    self.remove(&id);
                }
            }
        }
    }

    fn remove(&mut self, id: &[u8; 32]) {
        if let Some(at) = self.places.remove(id) {
            self.events.remove(&(at, *id));
        }
    }
}

/// Whether it is a gift wrap for this key.
fn wraps_for(event: &Event, key: &str) -> bool {
    let mut tags = event.tags.iter().map(|tag| tag.as_slice());
    event.kind.as_u16() == 1059 && tags.any(|tag| tag.len() > 1 && tag[0] == "p" && tag[1] == key)
}

/// The coordinate of an event of which only the newest is kept.
fn address(event: &Event) -> Option<String> {
    let kind = event.kind.as_u16();
    let identifier = match KindClass::of(kind) {
        KindClass::Replaceable => String::new(),
        KindClass::Addressable => {
            let mut tags = event.tags.iter().map(|tag| tag.as_slice());
            let tag = tags.find(|tag| tag[0] == "d");
            tag.and_then(|tag| tag.get(1)).cloned().unwrap_or_default()
        }
        KindClass::Regular | KindClass::Ephemeral => return None,
    };
    Some(format!("{kind}:{}:{identifier}", event.pubkey.to_hex()))
}

/// Its own rules.
fn rejection(event: &Event, bytes: usize) -> Option<&'static str> {
    if bytes > EVENT_BYTES_MAX {
        return Some("invalid: event too large");
    }
    if event.tags.len() > EVENT_TAGS_MAX {
        return Some("invalid: too many tags");
    }
    if event.created_at.as_secs() > now() + FUTURE_SECONDS {
        return Some("invalid: created_at too late");
    }
    let author = event.pubkey.to_hex();
    for tag in event.tags.iter() {
        let [name, value, ..] = tag.as_slice() else {
            continue;
        };
        match name.as_str() {
            "e" | "p" if hex::decode_array::<32>(value).is_none() => {
                return Some("invalid: unexpected size for fixed-size tag");
            }
            "expiration" if value.parse::<u64>().is_err() => {
                return Some("invalid: malformed expiration");
            }
            "a" if event.kind.as_u16() == 5 && value.split(':').nth(1) != Some(&author) => {
                return Some("invalid: a tag of another author");
            }
            _ => {}
        }
    }
    None
}

/// Whether it matches, as far as a sync asks.
pub(super) fn matches(filter: &Filter, event: &Event) -> bool {
    assert!(filter.generic_tags.is_empty(), "no sync asks by tags");
    let has = |name: &Option<BTreeSet<_>>| name.as_ref().is_none_or(|ids| ids.contains(&event.id));
    has(&filter.ids)
        && filter
            .authors
            .as_ref()
            .is_none_or(|authors| authors.contains(&event.pubkey))
        && filter
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&event.kind))
        && filter.since.is_none_or(|since| event.created_at >= since)
        && filter.until.is_none_or(|until| event.created_at <= until)
}
