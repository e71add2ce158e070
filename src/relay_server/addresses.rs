//! How many connections each address has with the relay, so that no stranger takes all the places.
//!
//! Takes the address a client has (or a trusted proxy says it has); gives a place, which is free again when it is
//! dropped. A connection counts from its first byte on, so that one who says nothing takes no more than one who talks. Neighbours in an IPv6 network of one household (/64) count as one. This machine and tunnels are not counted: behind
//! a proxy on this machine that is not trusted to name its clients, all strangers have one address. A proxy that is trusted counts by
//! whom it names, once it did. Bounded by the relay's connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::RemoteParty;

/// The connections of each address.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One connection, counted while this lives.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    household: IpAddr,
}

/// The address has as many connections as it may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections from this address")]
pub(super) struct AddressFull;

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address; `None` if it is not counted.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        at_most: usize,
    ) -> Result<Option<Place>, AddressFull> {
        let Some(household) = household(address) else {
            return Ok(None);
        };
        let mut counts = self.lock();
        let taken = counts.get(&household).copied().unwrap_or(0);
        if taken >= at_most {
            return Err(AddressFull);
        }
        counts.insert(household, taken + 1);
        Ok(Some(Place {
            addresses: Arc::clone(self),
            household,
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.addresses.lock().entry(self.household) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who is at the other end, as far as it matters for what they may take from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A program on this machine, or an admitted station.
    Trusted,
    /// A stranger, and their household if it is known.
    Stranger(Option<IpAddr>),
}

impl Owner {
    pub(super) fn of(party: &RemoteParty) -> Self {
        if party.is_trusted() {
            return Self::Trusted;
        }
        Self::Stranger(party.address.and_then(|address| household(address.ip())))
    }
}

/// What is counted together; `None` on this machine.
fn household(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Some(Ipv6Addr::from_bits(network).into())
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_household_has_its_places_and_gives_them_back() {
        let addresses = Arc::new(Addresses::default());
        let take = |address: &str| addresses.take(address.parse().unwrap(), 2);
        let first = take("192.0.2.1").unwrap();
        let _second = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").unwrap_err(), AddressFull);
        let _other = take("192.0.2.2").unwrap();
        drop(first);
        assert!(take("192.0.2.1").is_ok());
        let _near = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert_eq!(take("2001:db8::ffff").unwrap_err(), AddressFull);
        assert!(take("2001:db8:0:1::1").is_ok());
        for _ in 0..3 {
            assert!(take("127.0.0.1").unwrap().is_none());
        }
        drop((_second, _other, _near));
        assert!(addresses.lock().is_empty(), "nothing stays behind");
    }
}
