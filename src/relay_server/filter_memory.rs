//! What the filters of open requests take of memory, bounded for a connection, for an address, and over all strangers.
//!
//! Takes filters and the bytes of the message that they came in; gives a hold, which is counted until it is dropped. What counts
//! is the larger of the two: the message, or what its values take once they are parsed, as a short value in JSON is ten times
//! that in memory. Programs on this machine and admitted stations have the bound of a connection alone. Worst case: each
//! connection's bound twice, as an answer being read has a copy of its filters, and `FILTER_BYTES_STRANGERS` twice over strangers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nostr::filter::Filter;

use super::addresses::Owner;
use super::bounds::{FILTER_BYTES_ADDRESS, FILTER_BYTES_MAX, FILTER_BYTES_STRANGERS};
use super::context::RemoteParty;
use crate::protocol::ReasonPrefix;

/// An id or key of 32 bytes in an ordered set, which is filled to two thirds.
const KEY_BYTES: usize = 48;
/// A kind in an ordered set.
const KIND_BYTES: usize = 8;
/// A text: where it is, its place in an ordered set, and its allocation.
const TEXT_BYTES: usize = 64;

/// The filters of all strangers' requests.
#[derive(Debug, Default)]
pub(super) struct FilterMemory(Mutex<Strangers>);

#[derive(Debug, Default)]
struct Strangers {
    all: usize,
    /// Of those whose address tells them apart.
    by_household: HashMap<IpAddr, usize>,
}

/// The filters of one connection's requests.
#[derive(Debug)]
pub(super) struct ConnectionFilters {
    memory: Arc<FilterMemory>,
    own: Arc<AtomicUsize>,
    owner: Owner,
}

/// Filters, counted while this lives.
#[derive(Debug)]
pub(super) struct FilterHold {
    memory: Arc<FilterMemory>,
    own: Arc<AtomicUsize>,
    owner: Owner,
    bytes: usize,
}

/// Why filters are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FiltersRefused {
    /// The connection's are too large.
    Connection,
    /// Those of all connections from the address are too large.
    Address,
    /// Those of all strangers are too large.
    Strangers,
}

impl FiltersRefused {
    /// For the client.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Connection => {
                ReasonPrefix::Blocked.with("the filters of all requests are too large")
            }
            Self::Address => ReasonPrefix::Blocked
                .with("the filters of all requests from this address are too large"),
            Self::Strangers => ReasonPrefix::RateLimited
                .with("the relay holds as many filters as it may: ask again later"),
        }
    }
}

impl ConnectionFilters {
    /// Those of a connection of this party; none yet.
    pub(super) fn of(memory: &Arc<FilterMemory>, party: &RemoteParty) -> Self {
        Self {
            memory: Arc::clone(memory),
            own: Arc::default(),
            owner: Owner::of(party),
        }
    }

    /// Counts the filters of a message of `message_bytes`.
    pub(super) fn hold(
        &self,
        filters: &[Filter],
        message_bytes: usize,
    ) -> Result<FilterHold, FiltersRefused> {
        let bytes = message_bytes.max(filters.iter().map(parsed_bytes).sum());
        if self.own.load(Ordering::Relaxed) + bytes > FILTER_BYTES_MAX {
            return Err(FiltersRefused::Connection);
        }
        if let Owner::Stranger(household) = self.owner {
            self.memory.take(household, bytes)?;
        }
        self.own.fetch_add(bytes, Ordering::Relaxed);
        Ok(FilterHold {
            memory: Arc::clone(&self.memory),
            own: Arc::clone(&self.own),
            owner: self.owner,
            bytes,
        })
    }
}

impl FilterMemory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Strangers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, household: Option<IpAddr>, bytes: usize) -> Result<(), FiltersRefused> {
        let mut strangers = self.lock();
        if strangers.all + bytes > FILTER_BYTES_STRANGERS {
            return Err(FiltersRefused::Strangers);
        }
        if let Some(household) = household {
            let taken = strangers.by_household.get(&household).copied();
            let taken = taken.unwrap_or(0) + bytes;
            if taken > FILTER_BYTES_ADDRESS {
                return Err(FiltersRefused::Address);
            }
            strangers.by_household.insert(household, taken);
        }
        strangers.all += bytes;
        Ok(())
    }
}

impl Drop for FilterHold {
    fn drop(&mut self) {
        self.own.fetch_sub(self.bytes, Ordering::Relaxed);
        let Owner::Stranger(household) = self.owner else {
            return;
        };
        let mut strangers = self.memory.lock();
        strangers.all -= self.bytes;
        if let Some(household) = household
            && let Entry::Occupied(mut taken) = strangers.by_household.entry(household)
        {
            *taken.get_mut() -= self.bytes;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

/// About what a filter takes in memory.
fn parsed_bytes(filter: &Filter) -> usize {
    let ids = filter.ids.as_ref().map_or(0, |ids| ids.len());
    let authors = filter.authors.as_ref().map_or(0, |authors| authors.len());
    let kinds = filter.kinds.as_ref().map_or(0, |kinds| kinds.len());
    let tags = filter.generic_tags.values();
    let tags: usize = tags
        .map(|values| {
            let texts = values.iter().map(|value| TEXT_BYTES + value.len());
            TEXT_BYTES + texts.sum::<usize>()
        })
        .sum();
    size_of::<Filter>() + (ids + authors) * KEY_BYTES + kinds * KIND_BYTES + tags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(memory: &Arc<FilterMemory>, address: &str) -> ConnectionFilters {
        let party = RemoteParty::of_tcp(address.parse().unwrap(), None);
        ConnectionFilters::of(memory, &party)
    }

    #[test]
    fn filters_are_bounded_for_a_connection_an_address_and_over_all_strangers() {
        let memory = Arc::new(FilterMemory::default());
        let mut holds = Vec::new();
        let mut households = 0;
        let refused = loop {
            let address = format!("192.0.{}.{}:5", households / 250, households % 250);
            let mut of_this = 0;
            let refused = loop {
                let connection = stranger(&memory, &address);
                match connection.hold(&[], FILTER_BYTES_MAX) {
                    Ok(hold) => holds.push(hold),
                    Err(refused) => break refused,
                }
                of_this += 1;
                assert_eq!(
                    connection.hold(&[], 1).unwrap_err(),
                    FiltersRefused::Connection
                );
            };
            if refused != FiltersRefused::Address {
                break refused;
            }
            assert_eq!(of_this, FILTER_BYTES_ADDRESS / FILTER_BYTES_MAX);
            households += 1;
        };
        assert_eq!(refused, FiltersRefused::Strangers);
        assert!(households > 4, "one address does not take it all");
        // The captain is not concerned by what strangers do.
        let captain = stranger(&memory, "127.0.0.1:5");
        assert!(captain.hold(&[], FILTER_BYTES_MAX).is_ok());
        drop(holds);
        let strangers = memory.lock();
        assert_eq!(strangers.all, 0);
        assert!(strangers.by_household.is_empty(), "nothing stays behind");
    }

    #[test]
    fn short_values_count_for_what_they_take_in_memory() {
        let values: Vec<String> = (0..100_000).map(|n| format!("{n:x}")).collect();
        let json = serde_json::json!({ "#t": values }).to_string();
        let filter = Filter::from_json(&json).unwrap();
        assert!(parsed_bytes(&filter) > 6 * json.len(), "{}", json.len());
        assert!(parsed_bytes(&Filter::new()) < 1_000);
    }
}
