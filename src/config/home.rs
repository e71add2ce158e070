//! What follows from a home relay for the rest of the configuration.
//!
//! Gives what runs go by, and where our own relay listens beside one; refuses a home relay
//! or a peer that is this station's own.

use std::net::SocketAddr;

use url::Host;

use super::Config;
use crate::home::{HomeOptions, HomeRelayAddress};
use crate::peer::{PeerAddress, Target};

impl Config {
    /// The home relay, if there is one.
    pub(super) fn home(&self) -> Option<HomeOptions> {
        let HomeRelayAddress(relay) = self.station.home_relay.clone()?;
        Some(HomeOptions {
            relay,
            write: self.station.home_write,
            strfry_command: self.station.strfry_command.clone(),
        })
    }

    /// Where the relay listens: as configured, else on loopback, beside a home relay at the port after its usual one.
    pub fn relay_listens(&self) -> SocketAddr {
        let is_beside_home_relay = self.station.home_relay.is_some();
        self.relay.listens(is_beside_home_relay)
    }

    /// Refuses what each key by itself does not show: a station whose home relay, or one of whose peers, is itself.
    pub(super) fn checked(self) -> Result<Self, String> {
        self.report.check()?;
        let listens = self.relay_listens();
        let home = self.station.home_relay.iter();
        let home = home.map(|home| ("home_relay", &home.0));
        let peers = self.peers.iter().map(|peer| ("peer", &peer.address));
        for (role, address) in home.chain(peers) {
            if leads_to(address, listens) {
                return Err(format!(
                    "{role} {} is this station's own relay: [relay] listen is {listens}",
                    address.written()
                ));
            }
        }
        Ok(self)
    }
}

fn leads_to(address: &PeerAddress, listens: SocketAddr) -> bool {
    let Target::Relay(url) = address.target() else {
        return false;
    };
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address == listens.ip(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address == listens.ip(),
        None => false,
    };
    is_here && url.port_or_known_default() == Some(listens.port())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;
    use crate::home::HomeWrite;

    #[test]
    fn beside_a_home_relay_the_relay_listens_elsewhere_and_is_never_its_own_home() {
        let home = "[station]\nhome_relay = \"ws://127.0.0.1:7777\"\n";
        let config = load(home, &[]).expect("valid");
        assert_eq!(config.relay_listens().to_string(), "127.0.0.1:7778");
        let alone = load("", &[]).expect("valid");
        assert_eq!(alone.relay_listens().to_string(), "127.0.0.1:7777");
        let options = config.sync_options().home.expect("a home relay");
        assert_eq!(options.write, HomeWrite::Import);
        assert_eq!(options.strfry_command.words(), ["strfry"]);
        let named = load(&format!("{home}[relay]\nlisten = \"127.0.0.1:9\"\n"), &[]);
        assert_eq!(named.expect("valid").relay_listens().port(), 9);
        for (itself, listen) in [
            ("ws://localhost:7778", None),
            ("ws://127.0.0.1:9", Some("127.0.0.1:9")),
            ("ws://[::1]:9", Some("[::1]:9")),
            ("ws://192.0.2.7:9", Some("192.0.2.7:9")),
        ] {
            let mut text = format!("[station]\nhome_relay = \"{itself}\"\n");
            if let Some(listen) = listen {
                text.push_str(&format!("[relay]\nlisten = \"{listen}\"\n"));
            }
            let error = load(&text, &[]).expect_err("refused").to_string();
            assert!(error.contains("own relay"), "{error}");
            let text = text.replace("[station]\nhome_relay", "[[peers]]\naddress");
            let text = text.replace("7778", "7777");
            let error = load(&text, &[]).expect_err("refused").to_string();
            assert!(error.contains("peer ws://"), "{error}");
            assert!(error.contains("own relay"), "{error}");
        }
        for wrong in [
            "home_relay = \"/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA\"",
            "strfry_command = []",
            "strfry_command = [\"\"]",
            "strfry_command = \"strfry\"",
            "home_write = \"both\"",
        ] {
            let error = load(&format!("[station]\n{wrong}\n"), &[]).expect_err("refused");
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }
}
