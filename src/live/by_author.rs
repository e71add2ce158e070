//! By which authors a relay that is no station is asked for what is new (D18): lists that fit it, the most important first.
//!
//! Pure. A station, and the home relay, are asked for everybody's: they share what we share. Another relay would send all
//! the world's, most of it for nothing. Where the authors do not fit into the subscriptions and messages that it takes, it is
//! asked for everybody's all the same, and the door keeps out who is not in scope.

use std::collections::HashSet;

use crate::graph::AuthorKey;
use crate::limits::LIVE_AUTHORS_PER_FILTER;
use crate::transfer::PeerLimits;

/// Whether so many authors fit.
pub(super) fn fit(authors: usize, limits: &PeerLimits) -> bool {
    // One is kept for the question that only asks whether the relay is alive.
    let subscriptions = limits.requests_max.saturating_sub(1).max(1);
    authors <= each(limits).saturating_mul(subscriptions)
}

fn each(limits: &PeerLimits) -> usize {
    limits.authors_per_filter(LIVE_AUTHORS_PER_FILTER)
}

/// The authors in lists, one for each subscription: those that are near first, then the others.
pub(super) fn lists(
    authors: &HashSet<AuthorKey>,
    nearest_first: impl Iterator<Item = AuthorKey>,
    limits: &PeerLimits,
) -> Vec<Vec<AuthorKey>> {
    let mut ordered: Vec<AuthorKey> = nearest_first.filter(|key| authors.contains(key)).collect();
    if ordered.len() < authors.len() {
        let known: HashSet<AuthorKey> = ordered.iter().copied().collect();
        let mut others: Vec<AuthorKey> = authors.difference(&known).copied().collect();
        others.sort_unstable();
        ordered.extend(others);
    }
    let lists = ordered.chunks(each(limits));
    lists.map(<[AuthorKey]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RelayInformation;

    fn limits(json: &str) -> PeerLimits {
        PeerLimits::of(RelayInformation::parse(json.as_bytes()).as_ref())
    }

    fn key(number: usize) -> AuthorKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn lists_fit_the_relay_and_the_most_important_authors_come_first() {
        let authors: HashSet<AuthorKey> = (0..100).map(key).collect();
        // The highest numbers are the nearest; one in the graph is not in scope.
        let near = || (50..101).rev().map(key);
        let small = limits(r#"{"limitation":{"max_message_length":4096,"max_subscriptions":5}}"#);
        let lists_of = lists(&authors, near(), &small);
        assert!(fit(100, &small) && lists_of.len() <= 4);
        assert!(lists_of.iter().all(|list| list.len() * 67 <= 2_048));
        let flat: Vec<AuthorKey> = lists_of.concat();
        let expected = (50..100).rev().chain(0..50).map(key);
        assert_eq!(flat, expected.collect::<Vec<_>>());

        let few = limits(r#"{"limitation":{"max_message_length":4096,"max_subscriptions":4}}"#);
        assert!(!fit(100, &few), "three times thirty");
        assert!(lists(&HashSet::new(), near(), &few).is_empty());
    }
}
