//! Which local port leads to which service of which station.
//!
//! Pure. One port for each (peer, service), the same for as long as nobody else takes it. Bounded: the least recently
//! used goes. A forward is *wanted* once it was asked for since the start; before, only its port is remembered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use crate::random::Random;
use crate::tunnel::{PeerId, ServiceName};

/// Ports that kubo listens on for us: some services of some dozens of stations.
pub(super) const FORWARDS_MAX: usize = 256;
/// Where ports are taken: below those that Linux gives to outgoing connections (32,768 and up), one of which might hold
/// ours just when kubo is back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried before the system is asked for any.
const PORTS_TRIED: usize = 64;

/// Whose service it leads to.
pub(super) type Key = (PeerId, ServiceName);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    port: u16,
    is_wanted: bool,
    is_up: bool,
    used: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    entries: BTreeMap<Key, Forward>,
    uses: u64,
}

impl Forwards {
    /// The port, if kubo is known to listen on it. Counts as a use.
    pub(super) fn use_port(&mut self, key: &Key) -> Option<u16> {
        self.uses += 1;
        let forward = self.entries.get_mut(key)?;
        forward.used = self.uses;
        forward.is_up.then_some(forward.port)
    }

    /// The port, whether or not kubo listens on it.
    pub(super) fn remembered(&self, key: &Key) -> Option<u16> {
        self.entries.get(key).map(|forward| forward.port)
    }

    /// Remembers a port of an earlier start, unless the table is full.
    pub(super) fn remember(&mut self, key: Key, port: u16) {
        if self.entries.len() < FORWARDS_MAX {
            self.uses += 1;
            self.entries.entry(key).or_insert(Forward {
                port,
                is_wanted: false,
                is_up: false,
                used: self.uses,
            });
        }
    }

    /// Wants the service on this port, not there yet. Gives the least recently used forward if it had to make room.
    pub(super) fn want(&mut self, key: Key, port: u16) -> Option<(Key, u16)> {
        let is_new = !self.entries.contains_key(&key);
        let removed = (is_new && self.entries.len() >= FORWARDS_MAX)
            .then(|| self.remove_oldest())
            .flatten();
        self.uses += 1;
        let forward = Forward {
            port,
            is_wanted: true,
            is_up: false,
            used: self.uses,
        };
        self.entries.insert(key, forward);
        removed
    }

    fn remove_oldest(&mut self) -> Option<(Key, u16)> {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, forward)| forward.used)?;
        let key = oldest.0.clone();
        let forward = self.entries.remove(&key)?;
        Some((key, forward.port))
    }

    /// Notes whether kubo listens on the port, if it is still the one.
    pub(super) fn set_up(&mut self, key: &Key, port: u16, is_up: bool) {
        if let Some(forward) = self.entries.get_mut(key)
            && forward.port == port
        {
            forward.is_up = is_up;
        }
    }

    /// What kubo should have.
    pub(super) fn wanted(&self) -> Vec<(Key, u16)> {
        self.entries
            .iter()
            .filter(|(_, forward)| forward.is_wanted)
            .map(|(key, forward)| (key.clone(), forward.port))
            .collect()
    }

    /// All ports, least recently used first.
    pub(super) fn by_use(&self) -> Vec<(Key, u16)> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_by_key(|(_, forward)| forward.used);
        all.into_iter()
            .map(|(key, forward)| (key.clone(), forward.port))
            .collect()
    }

    /// A port of loopback that is free now and not remembered for anything else.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn free_port(&self, random: &Random) -> std::io::Result<u16> {
        let is_ours = |port| self.entries.values().any(|forward| forward.port == port);
        for _ in 0..PORTS_TRIED {
            let drawn = u16::from_ne_bytes(random.bytes());
            let port = PORTS.start + drawn % (PORTS.end - PORTS.start);
            if !is_ours(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(any.local_addr()?.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        (PeerId::random(), ServiceName::strfry())
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut forwards = Forwards::default();
        let keys: Vec<Key> = std::iter::repeat_with(key).take(FORWARDS_MAX).collect();
        for (port, key) in (1..).zip(&keys) {
            assert_eq!(forwards.want(key.clone(), port), None);
            forwards.set_up(key, port, true);
        }
        assert_eq!(forwards.use_port(&keys[0]), Some(1));
        let removed = forwards.want(key(), 9_999).expect("it was full");
        assert_eq!(removed, (keys[1].clone(), 2), "the first was used since");
        assert_eq!(forwards.wanted().len(), FORWARDS_MAX);
    }

    #[test]
    fn a_port_is_used_only_while_kubo_listens_on_it() {
        let mut forwards = Forwards::default();
        let key = key();
        forwards.remember(key.clone(), 7);
        assert_eq!(forwards.use_port(&key), None);
        assert_eq!(forwards.remembered(&key), Some(7));
        assert_eq!(forwards.wanted(), [], "nobody has asked for it yet");
        forwards.want(key.clone(), 7);
        forwards.set_up(&key, 8, true);
        assert_eq!(forwards.use_port(&key), None, "another port");
        forwards.set_up(&key, 7, true);
        assert_eq!(forwards.use_port(&key), Some(7));
        forwards.set_up(&key, 7, false);
        assert_eq!(forwards.use_port(&key), None);
    }

    #[test]
    fn a_port_that_somebody_holds_is_not_free() {
        let forwards = Forwards::default();
        let random = Random::seeded(1);
        let port = forwards.free_port(&random).expect("there are some");
        assert!(PORTS.contains(&port), "{port}");
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it was free");
        let other = forwards.free_port(&Random::seeded(1)).expect("another");
        assert_ne!(other, port, "the same draw, but it is held now");
    }
}
