//! Who may enter: the list that a carrier consults for every stream that others open.
//!
//! Pure. Made above, from what the captain allowed and what signed cards say; replaced as a whole when anything
//! changes. Default deny: whoever is not on it does not enter, and a service that is not on it does not exist.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{PeerId, ServiceName};

/// Why a stream that somebody opened, or the connection for it, was not let in. Its names are also log fields, metric labels and JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not an admitted station.
    NotAdmitted,
    /// Admitted, but not to this service.
    NotThisService,
    /// No such service here.
    NotExposed,
    /// More streams or connections than one may have, or faster than it may open them.
    TooMany,
    /// Nobody took it in time: we are overloaded.
    Overloaded,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NotAdmitted,
        Self::NotThisService,
        Self::NotExposed,
        Self::TooMany,
        Self::Overloaded,
    ];

    /// The name.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotAdmitted => "not_admitted",
            Self::NotThisService => "not_this_service",
            Self::NotExposed => "not_exposed",
            Self::TooMany => "too_many",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Whom an exposed service is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Guests {
    /// All admitted stations.
    #[default]
    Admitted,
    /// Of the admitted stations these.
    Only(BTreeSet<PeerId>),
    /// Whoever comes: only where a service decides itself, as joining does with its tokens.
    Anyone,
}

/// Who may enter which service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestList {
    /// Exposed services.
    pub services: BTreeMap<ServiceName, Guests>,
    /// Admitted stations.
    pub admitted: BTreeSet<PeerId>,
    /// Stations that are not admitted, and may open the relay's service all the same, where that is for all who are.
    pub relay_only: BTreeSet<PeerId>,
    /// Stations that are out, whatever else holds: they are not even connected to.
    pub banned: BTreeSet<PeerId>,
    /// Whoever gets as far as here holds the swarm key, and that is enough.
    pub swarm_key_admits: bool,
}

impl GuestList {
    /// Whether this station is one of ours.
    pub fn is_admitted(&self, peer: &PeerId) -> bool {
        !self.banned.contains(peer) && (self.swarm_key_admits || self.admitted.contains(peer))
    }

    /// Whether some service at least is open to this station.
    pub fn enters_somewhere(&self, peer: &PeerId) -> bool {
        self.is_admitted(peer) || (self.relay_only.contains(peer) && !self.banned.contains(peer))
    }

    /// Whether this station may open a stream to this service.
    ///
    /// # Errors
    /// [`Refusal`]: why not.
    pub fn admit(&self, peer: &PeerId, service: &ServiceName) -> Result<(), Refusal> {
        let guests = self.services.get(service);
        let is_relay_guest = self.enters_somewhere(peer) && !self.is_admitted(peer);
        if is_relay_guest && *service == ServiceName::strfry() {
            return match guests {
                None => Err(Refusal::NotExposed),
                Some(Guests::Only(guests)) if !guests.contains(peer) => {
                    Err(Refusal::NotThisService)
                }
                Some(_) => Ok(()),
            };
        }
        if !matches!(guests, Some(Guests::Anyone)) && !self.is_admitted(peer) {
            return Err(Refusal::NotAdmitted);
        }
        match guests {
            None => Err(Refusal::NotExposed),
            Some(Guests::Anyone) if self.banned.contains(peer) => Err(Refusal::NotAdmitted),
            Some(Guests::Only(guests)) if !guests.contains(peer) => Err(Refusal::NotThisService),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_on_the_list_does_not_enter() {
        let [friend, other, stranger, banned, relay_guest] = [(); 5].map(|()| PeerId::random());
        let ssh: ServiceName = "ssh".parse().expect("a name");
        let mut list = GuestList {
            services: [
                (ServiceName::strfry(), Guests::Admitted),
                (ssh.clone(), Guests::Only([friend].into())),
                (ServiceName::constellation(), Guests::Anyone),
            ]
            .into(),
            admitted: [friend, other, banned].into(),
            relay_only: [relay_guest, banned].into(),
            banned: [banned].into(),
            swarm_key_admits: false,
        };
        let strfry = ServiceName::strfry();
        assert_eq!(list.admit(&friend, &strfry), Ok(()));
        assert_eq!(list.admit(&friend, &ssh), Ok(()));
        assert_eq!(list.admit(&other, &ssh), Err(Refusal::NotThisService));
        assert_eq!(list.admit(&stranger, &strfry), Err(Refusal::NotAdmitted));
        assert_eq!(list.admit(&banned, &strfry), Err(Refusal::NotAdmitted));
        let ollama: ServiceName = "ollama".parse().expect("a name");
        assert_eq!(list.admit(&friend, &ollama), Err(Refusal::NotExposed));
        // A stranger does not learn what is exposed.
        assert_eq!(list.admit(&stranger, &ollama), Err(Refusal::NotAdmitted));
        let constellation = ServiceName::constellation();
        assert_eq!(list.admit(&stranger, &constellation), Ok(()));
        assert_eq!(
            list.admit(&banned, &constellation),
            Err(Refusal::NotAdmitted)
        );
        assert_eq!(list.admit(&relay_guest, &strfry), Ok(()));
        assert!(!list.is_admitted(&relay_guest));
        for denied in [&ssh, &ollama] {
            let refused = list.admit(&relay_guest, denied);
            assert_eq!(refused, Err(Refusal::NotAdmitted), "{denied:?}");
        }
        list.services
            .insert(ServiceName::constellation(), Guests::Admitted);
        let refused = list.admit(&relay_guest, &ServiceName::constellation());
        assert_eq!(refused, Err(Refusal::NotAdmitted));
        let for_friends = Guests::Only([friend].into());
        list.services.insert(strfry.clone(), for_friends);
        let refused = list.admit(&relay_guest, &strfry);
        assert_eq!(refused, Err(Refusal::NotThisService));
        list.services.insert(strfry.clone(), Guests::Admitted);
        list.swarm_key_admits = true;
        assert_eq!(list.admit(&stranger, &strfry), Ok(()));
        assert_eq!(list.admit(&banned, &strfry), Err(Refusal::NotAdmitted));
        assert_eq!(list.admit(&stranger, &ssh), Err(Refusal::NotThisService));
    }
}
