//! Who may enter which service: the carrier's list, made of what was judged.
//!
//! Takes a [`Standing`] and what is exposed; gives the [`GuestList`]. Pure. Invariant: default deny; nobody who is
//! revoked is on it, and where anyone may knock it is at the service that takes tokens. Deliberately absent: enforcing
//! it. Worst case: as many entries as were judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Standing;
use crate::tunnel::{GuestList, Guests, PeerId, ServiceName};

/// What opens doors besides being admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doors {
    /// The captain wants every holder of the swarm key to be admitted.
    pub swarm_key_admits: bool,
    /// There is a swarm key, and it is secret: not the one of zeros, which everybody has.
    pub swarm_key_is_secret: bool,
    /// A token is out ([`super::Ledger::is_anyone_invited`]).
    pub anyone_is_invited: bool,
}

impl Doors {
    /// Whether holding the swarm key is enough.
    pub fn opens_to_key_holders(self) -> bool {
        self.swarm_key_admits && self.swarm_key_is_secret
    }
}

/// The carrier's list. `services` are those that are exposed, the one of the constellation need not be among them:
/// it always is exposed. `relay_only` may open the relay without being admitted: nothing follows from their word.
pub fn guest_list(
    standing: &Standing,
    services: &BTreeMap<ServiceName, Guests>,
    doors: Doors,
    relay_only: BTreeSet<PeerId>,
) -> GuestList {
    // A list that lets anyone in is for the service that checks tokens itself, and for no other.
    let bounded = |guests: &Guests| match guests {
        Guests::Anyone => Guests::Admitted,
        other => other.clone(),
    };
    let mut services: BTreeMap<ServiceName, Guests> = services
        .iter()
        .map(|(name, guests)| (name.clone(), bounded(guests)))
        .collect();
    let constellation = if doors.anyone_is_invited {
        Guests::Anyone
    } else {
        Guests::Admitted
    };
    services.insert(ServiceName::constellation(), constellation);
    GuestList {
        services,
        admitted: standing.admitted.keys().copied().collect(),
        relay_only,
        banned: standing.revoked.keys().copied().collect(),
        swarm_key_admits: doors.opens_to_key_holders(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::judgement::{Own, Word, judge};
    use crate::trust::{Revocation, Vouch};
    use crate::tunnel::Identity;

    fn peer(number: u8) -> PeerId {
        Identity::from_seed([number; 32]).public_key().peer_id()
    }

    /// We vouch for 1 and 2, and revoked 2 and 3.
    fn standing() -> Standing {
        let vouch = |number| Vouch {
            peer: peer(number),
            key: None,
            since: 1,
        };
        let revocation = |number| Revocation {
            peer: peer(number),
            at: 2,
        };
        let own = Own {
            me: peer(0),
            allowed: [].into(),
            word: Word {
                vouches: &[vouch(1), vouch(2)],
                revocations: &[revocation(2), revocation(3)],
                vouched_key: None,
            },
        };
        judge(&own, &BTreeMap::new())
    }

    proptest! {
        #[test]
        fn only_the_admitted_enter_and_only_the_invited_may_knock(
            swarm_key_admits: bool, swarm_key_is_secret: bool, anyone_is_invited: bool,
        ) {
            let doors = Doors { swarm_key_admits, swarm_key_is_secret, anyone_is_invited };
            let strfry = ServiceName::strfry();
            let ssh: ServiceName = "ssh".parse().expect("a name");
            let exposed = [(strfry.clone(), Guests::Anyone), (ssh.clone(), Guests::Only([peer(2)].into()))];
            let list = guest_list(&standing(), &exposed.into(), doors, [peer(3), peer(5)].into());
            let enters = |number, service| list.admit(&peer(number), service).is_ok();
            prop_assert!(enters(1, &strfry));
            prop_assert!(!enters(1, &ssh));
            let constellation = ServiceName::constellation();
            prop_assert!(enters(1, &constellation));
            let holds_a_secret_key = swarm_key_admits && swarm_key_is_secret;
            prop_assert!(enters(5, &strfry));
            prop_assert_eq!(enters(5, &constellation), holds_a_secret_key || anyone_is_invited);
            for revoked in [2, 3] {
                for service in [&strfry, &ssh, &constellation] {
                    prop_assert!(!enters(revoked, service));
                }
            }
            prop_assert_eq!(enters(4, &strfry), holds_a_secret_key);
            prop_assert_eq!(enters(4, &constellation), holds_a_secret_key || anyone_is_invited);
        }
    }
}
