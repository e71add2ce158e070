//! The services that stations of the network know by name, with their ports (FACTS §1).

use crate::tunnel::ServiceName;

/// A service known by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownService {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub native_port: u16,
    /// Where its tunnel opens first; `None`: at its native port.
    pub preferred_port: Option<u16>,
    /// Where its tunnel opens when the native port is busy or below 1024.
    pub alternative_port: u16,
}

/// The six of the original scripts.
pub const KNOWN: [KnownService; 6] = [
    KnownService {
        name: ServiceName::STRFRY,
        native_port: 7777,
        // The native port is the station's own relay.
        preferred_port: Some(9999),
        alternative_port: 9998,
    },
    KnownService {
        name: "ssh",
        native_port: 22,
        preferred_port: None,
        alternative_port: 2222,
    },
    KnownService {
        name: "ollama",
        native_port: 11_434,
        preferred_port: None,
        alternative_port: 21_434,
    },
    KnownService {
        name: "comfyui",
        native_port: 8188,
        preferred_port: None,
        alternative_port: 18_188,
    },
    KnownService {
        name: "orpheus",
        native_port: 5005,
        preferred_port: None,
        alternative_port: 15_005,
    },
    KnownService {
        name: "perplexica",
        native_port: 3001,
        preferred_port: None,
        alternative_port: 13_001,
    },
];

/// What is known of a service by this name.
pub fn known(name: &ServiceName) -> Option<&'static KnownService> {
    KNOWN.iter().find(|service| service.name == name.as_str())
}

/// Local ports to try for the mouth of a tunnel, best first. Ports below 1024 are not ours to take.
pub(super) fn mouth_ports(name: &ServiceName, remembered: Option<u16>) -> Vec<u16> {
    let mut ports: Vec<u16> = remembered.into_iter().collect();
    if let Some(service) = known(name) {
        ports.extend(service.preferred_port);
        if service.native_port >= 1024 && service.preferred_port.is_none() {
            ports.push(service.native_port);
        }
        ports.push(service.alternative_port);
    }
    // Whatever the system has.
    ports.push(0);
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mouth_opens_where_it_was_then_at_the_native_port_then_at_the_alternative_one() {
        let ports =
            |name: &str, remembered| mouth_ports(&name.parse().expect("a name"), remembered);
        assert_eq!(ports("strfry", None), [9999, 9998, 0]);
        assert_eq!(ports("ssh", None), [2222, 0]);
        assert_eq!(ports("ollama", Some(4000)), [4000, 11_434, 21_434, 0]);
        assert_eq!(ports("own", None), [0]);
    }
}
