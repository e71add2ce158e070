//! Every station that is known of, and how: merged from all sources, bounded. Pure.

use std::collections::BTreeMap;

use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::tunnel::Source;

/// Stations in the roster; of more, those seen longest ago by nobody but multicast and hash tables go first.
const STATIONS_MAX: usize = 4_096;
/// Addresses kept of one station.
const ADDRESSES_MAX: usize = 16;
/// How long a station counts as known that a source has stopped to mention.
const REMEMBERED_SECONDS: u64 = 48 * 3600;

/// One source's word on a station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Who.
    pub(super) peer: PeerId,
    /// What it calls itself, if the source says.
    pub(super) name: Option<String>,
    /// Where it may be reached.
    pub(super) addresses: Vec<Multiaddr>,
    /// Its relay, where it is not reached through its tunnel.
    pub(super) relay: Option<PeerAddress>,
    /// Whose word.
    pub(super) source: Source,
    /// Unix seconds.
    pub(super) at: u64,
}

/// What is known of one station.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RosterEntry {
    pub(super) name: Option<String>,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) relay: Option<PeerAddress>,
    /// When each source last mentioned it, in Unix seconds.
    pub(super) seen: BTreeMap<Source, u64>,
}

/// Every station that is known of.
#[derive(Debug, Default)]
pub(super) struct Roster {
    stations: BTreeMap<PeerId, RosterEntry>,
}

impl Roster {
    /// Takes a source's word. Tells whether something is known now that was not before.
    pub(super) fn take(&mut self, sighting: Sighting) -> bool {
        let is_known = self.stations.contains_key(&sighting.peer);
        if !is_known && self.stations.len() >= STATIONS_MAX {
            self.forget_oldest();
        }
        let entry = self.stations.entry(sighting.peer).or_default();
        let mut is_new = entry.seen.insert(sighting.source, sighting.at).is_none();
        if sighting.name.is_some() && entry.name != sighting.name {
            entry.name = sighting.name;
            is_new = true;
        }
        if sighting.relay != entry.relay && sighting.source == Source::SwarmFolder {
            entry.relay = sighting.relay;
            is_new = true;
        }
        for address in sighting.addresses {
            if !entry.addresses.contains(&address) {
                // The newest first: where a station has moved to matters more than where it was.
                entry.addresses.insert(0, address);
                is_new = true;
            }
        }
        entry.addresses.truncate(ADDRESSES_MAX);
        is_new
    }

    /// Forgets what no source has mentioned for two days, but for what the captain said, and for the swarm folder, which
    /// takes back by itself what it said.
    pub(super) fn forget_old(&mut self, now: u64) {
        self.stations.retain(|_, entry| {
            entry.seen.retain(|source, at| {
                matches!(source, Source::Static | Source::SwarmFolder)
                    || now.saturating_sub(*at) <= REMEMBERED_SECONDS
            });
            !entry.seen.is_empty()
        });
    }

    /// A source takes back what it said of a station.
    pub(super) fn withdraw(&mut self, peer: &PeerId, source: Source) {
        if let Some(entry) = self.stations.get_mut(peer) {
            entry.seen.remove(&source);
            if source == Source::SwarmFolder {
                entry.relay = None;
            }
            if entry.seen.is_empty() {
                self.stations.remove(peer);
            }
        }
    }

    /// What is known of a station.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&RosterEntry> {
        self.stations.get(peer)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &RosterEntry)> {
        self.stations.iter()
    }

    fn forget_oldest(&mut self) {
        let by_chance = |entry: &RosterEntry| {
            entry
                .seen
                .keys()
                .all(|source| matches!(source, Source::Mdns | Source::Kademlia))
        };
        let oldest = self
            .stations
            .iter()
            .min_by_key(|(_, entry)| (!by_chance(entry), entry.seen.values().max().copied()))
            .map(|(peer, _)| *peer);
        if let Some(peer) = oldest {
            self.stations.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(peer: PeerId, source: Source, at: u64) -> Sighting {
        Sighting {
            peer,
            name: None,
            addresses: vec![],
            relay: None,
            source,
            at,
        }
    }

    #[test]
    fn what_nobody_mentions_any_more_is_forgotten_but_not_the_captains_word() {
        let mut roster = Roster::default();
        let [card, captains] = [(); 2].map(|()| PeerId::random());
        assert!(roster.take(sighting(card, Source::Card, 0)));
        assert!(!roster.take(sighting(card, Source::Card, 5)), "nothing new");
        assert!(roster.take(sighting(captains, Source::Static, 0)));
        roster.forget_old(REMEMBERED_SECONDS + 5);
        assert!(roster.get(&card).is_some());
        roster.forget_old(REMEMBERED_SECONDS + 6);
        assert!(roster.get(&card).is_none() && roster.get(&captains).is_some());
        roster.withdraw(&captains, Source::Static);
        assert!(roster.get(&captains).is_none());
    }

    #[test]
    fn a_station_of_the_swarm_folder_is_known_until_the_folder_takes_it_back() {
        let mut roster = Roster::default();
        let peer = PeerId::random();
        roster.take(sighting(peer, Source::SwarmFolder, 0));
        roster.take(sighting(peer, Source::Mdns, 0));
        // The folder speaks only when something has changed.
        roster.forget_old(100 * REMEMBERED_SECONDS);
        assert!(roster.get(&peer).is_some());
        roster.withdraw(&peer, Source::SwarmFolder);
        assert!(roster.get(&peer).is_none());
    }

    #[test]
    fn a_flood_of_strangers_pushes_out_strangers_only() {
        let mut roster = Roster::default();
        let friend = PeerId::random();
        roster.take(sighting(friend, Source::Card, 0));
        for at in 1..=STATIONS_MAX as u64 + 10 {
            roster.take(sighting(PeerId::random(), Source::Mdns, at));
        }
        assert!(roster.get(&friend).is_some());
        assert_eq!(roster.iter().count(), STATIONS_MAX);
    }
}
