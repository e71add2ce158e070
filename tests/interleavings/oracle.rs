//! What must be visible in the end, from all events that anybody ever published: slow and obvious.
//!
//! NIP-01 (of one coordinate the newest, in a tie the lowest id), NIP-09 (the author's own deletions, whatever the
//! order), NIP-40 (not after its time). Where a version that was to expire, or was deleted by its id, superseded others,
//! one of them may be left or none: whether anybody still has it depends on who met whom when. There only equality is
//! demanded, and that it is one at most.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use nostr::event::Event;

/// What is known for sure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Every station shows these.
    pub(crate) visible: BTreeSet<String>,
    /// No station shows these.
    pub(crate) gone: BTreeSet<String>,
}

/// What holds at `now` of these events.
pub(crate) fn expected(published: &[Event], now: u64) -> Expected {
    let mut expected = Expected::default();
    for event in published {
        let id = event.id.to_hex();
        let is_over = is_expired(event, now) || published.iter().any(|other| deletes(other, event));
        let newer: Vec<&Event> = published
            .iter()
            .filter(|other| supersedes(other, event))
            .collect();
        if is_over {
            expected.gone.insert(id);
        } else if newer.is_empty() {
            expected.visible.insert(id);
        } else if newer.iter().any(|newer| !may_be_lost(published, newer)) {
            expected.gone.insert(id);
        }
    }
    expected
}

/// Whether a version may be nowhere, because it does not stay, or because one that does not stay superseded it.
fn may_be_lost(published: &[Event], version: &Event) -> bool {
    let goes = |event: &Event| {
        expiration(event).is_some() || published.iter().any(|other| deletes(other, event))
    };
    let mut others = published.iter();
    goes(version) || others.any(|other| goes(other) && supersedes(other, version))
}

/// Two versions of one address that are shown: the newer one, and the one that should have given way.
pub(crate) fn beside_each_other<'e>(
    published: &'e [Event],
    shown: &BTreeSet<String>,
) -> Option<(&'e Event, &'e Event)> {
    let is_shown = |event: &&Event| shown.contains(&event.id.to_hex());
    let newer = published.iter().filter(is_shown);
    newer.into_iter().find_map(|newer| {
        let mut others = published.iter().filter(is_shown);
        let older = others.find(|older| supersedes(newer, older))?;
        Some((newer, older))
    })
}

fn tag<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    let mut tags = event.tags.iter();
    tags.find(|tag| tag.kind() == name)
        .and_then(|tag| tag.content())
}

fn expiration(event: &Event) -> Option<u64> {
    tag(event, "expiration").map(|at| at.parse().expect("a number"))
}

fn is_expired(event: &Event, now: u64) -> bool {
    expiration(event).is_some_and(|at| at <= now)
}

fn coordinate(event: &Event) -> Option<String> {
    match event.kind.as_u16() {
        0 => Some(format!("0:{}:", event.pubkey)),
        30_023 => {
            let name = tag(event, "d").unwrap_or_default();
            Some(format!("30023:{}:{name}", event.pubkey))
        }
        _ => None,
    }
}

fn supersedes(newer: &Event, older: &Event) -> bool {
    let rank = |event: &Event| (event.created_at, Reverse(event.id));
    coordinate(newer).is_some()
        && coordinate(newer) == coordinate(older)
        && rank(newer) > rank(older)
}

fn deletes(deletion: &Event, event: &Event) -> bool {
    let is_by_author = deletion.kind.as_u16() == 5 && deletion.pubkey == event.pubkey;
    if !is_by_author || event.kind.as_u16() == 5 {
        return false;
    }
    deletion.tags.iter().any(|tag| {
        let value = tag.content().unwrap_or_default();
        match tag.kind() {
            "e" => value == event.id.to_hex(),
            "a" => {
                coordinate(event).as_deref() == Some(value)
                    && event.created_at <= deletion.created_at
            }
            _ => false,
        }
    })
}
