//! The open requests of one connection, and how far each has been told.
//!
//! A subscription begins to listen when its stored events were sent; it then goes on exactly where its query's
//! snapshot ended, so that nothing is missed or told twice. Replacing or closing one gives it another serial number:
//! what is still under way for the old one is recognised and dropped. Bounded in number and by what their filters take.

use std::collections::HashMap;
use std::sync::Arc;

use constellation_eventstore::Sequence;
use nostr::filter::Filter;

use super::filter_memory::FilterHold;
use super::links::AcceptedLink;

/// Names a subscription, count or session once and for all, whatever the client calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Serial(pub(super) u64);

/// What a client asked for.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) serial: Serial,
    pub(super) name: String,
    pub(super) filters: Vec<Filter>,
    /// What its filters take of memory.
    pub(super) _held: FilterHold,
    /// The live link of a station that this is.
    pub(super) link: Option<Arc<AcceptedLink>>,
}

/// Up to where a subscription has been told what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    pub(super) sequence: Sequence,
    pub(super) ephemeral: u64,
}

#[derive(Debug)]
struct Entry {
    subscription: Arc<Subscription>,
    /// `None` while stored events are being sent.
    listening: Option<Position>,
}

/// The open requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    entries: HashMap<String, Entry>,
}

impl Subscriptions {
    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a subscription under a name that is free.
    pub(super) fn insert(&mut self, subscription: Arc<Subscription>) {
        self.entries.insert(
            subscription.name.clone(),
            Entry {
                subscription,
                listening: None,
            },
        );
    }

    /// Ends a subscription, and says which it was.
    pub(super) fn remove(&mut self, name: &str) -> Option<Serial> {
        let entry = self.entries.remove(name)?;
        Some(entry.subscription.serial)
    }

    /// Whether exactly this subscription is still open.
    pub(super) fn is_open(&self, subscription: &Subscription) -> bool {
        self.entries
            .get(&subscription.name)
            .is_some_and(|entry| entry.subscription.serial == subscription.serial)
    }

    /// Its stored events were sent: from here on it listens.
    pub(super) fn listen(&mut self, subscription: &Subscription, from: Position) {
        if let Some(entry) = self.entries.get_mut(&subscription.name)
            && entry.subscription.serial == subscription.serial
        {
            entry.listening = Some(from);
        }
    }

    /// Whether any is listening.
    pub(super) fn is_anyone_listening(&self) -> bool {
        self.entries.values().any(|entry| entry.listening.is_some())
    }

    /// Those that listen, each with its position.
    pub(super) fn listeners(&self) -> Vec<(Arc<Subscription>, Position)> {
        self.entries
            .values()
            .filter_map(|entry| Some((Arc::clone(&entry.subscription), entry.listening?)))
            .collect()
    }

    /// Everything up to `to` was told.
    pub(super) fn told(&mut self, subscription: &Subscription, to: Position) {
        if let Some(entry) = self.entries.get_mut(&subscription.name)
            && entry.subscription.serial == subscription.serial
            && let Some(position) = &mut entry.listening
        {
            position.sequence = position.sequence.max(to.sequence);
            position.ephemeral = position.ephemeral.max(to.ephemeral);
        }
    }
}
