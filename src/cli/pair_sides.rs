//! The two sides of `diff` and `mirror`: who they are, and how they are reached.
//!
//! Relays are reached from here, and nothing of the station is touched. Where a side is a station, or is named by what it calls
//! itself, the station that runs here is asked for a stream through its tunnels; where none runs, it is opened, its tunnels
//! started, and closed in the end.

use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use super::access::Access;
use super::arguments::Global;
use super::exit::Failure;
use crate::control::{self, DialThroughStation, TunnelCommand};
use crate::discovery::PeerReport;
use crate::peer::{PeerAddress, PeerId, Target};
use crate::relay_client::{Dial, Dialer};

/// A side as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PairSide {
    /// By its address, or its PeerID.
    Address(PeerAddress),
    /// By what it calls itself.
    Name(String),
}

impl FromStr for PairSide {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(peer) = text.parse::<PeerId>() {
            return Ok(Self::Address(PeerAddress::of_station(peer)));
        }
        if text.is_empty() || text.starts_with('/') || text.contains("://") {
            let address = text.parse().map(Self::Address);
            return address.map_err(|error: crate::peer::AddressError| error.to_string());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl PairSide {
    fn needs_station(&self) -> bool {
        match self {
            Self::Address(address) => matches!(address.target(), Target::Station(_)),
            Self::Name(_) => true,
        }
    }
}

/// The ways to both sides.
pub(super) struct Reached {
    pub(super) addresses: [PeerAddress; 2],
    pub(super) dialer: Arc<dyn Dial>,
    access: Option<Access>,
}

impl Reached {
    /// # Errors
    /// [`Failure`]: nobody has such a name, or the station cannot be opened or asked.
    pub(super) async fn sides(global: &Global, sides: [PairSide; 2]) -> Result<Self, Failure> {
        if let [PairSide::Address(a), PairSide::Address(b)] = &sides
            && !sides.iter().any(PairSide::needs_station)
        {
            return Ok(Self {
                addresses: [a.clone(), b.clone()],
                dialer: Arc::new(Dialer::new()),
                access: None,
            });
        }
        let access = global.access().await?;
        match reach(global, &access, &sides).await {
            Ok((addresses, dialer)) => Ok(Self {
                addresses,
                dialer,
                access: Some(access),
            }),
            Err(failure) => {
                close(access).await;
                Err(failure)
            }
        }
    }

    /// Lets go of the station, if it was opened.
    pub(super) async fn close(self) {
        if let Some(access) = self.access {
            close(access).await;
        }
    }
}

async fn close(access: Access) {
    if let Access::Own(station) = access {
        station.close().await;
    }
}

async fn reach(
    global: &Global,
    access: &Access,
    sides: &[PairSide; 2],
) -> Result<([PeerAddress; 2], Arc<dyn Dial>), Failure> {
    let dialer: Arc<dyn Dial> = match access {
        Access::Running(station) => Arc::new(DialThroughStation::of(station.clone())),
        Access::Own(station) => {
            let context = station.control_context(station.tasks().clone());
            if let Some(why) = context.halted.borrow().clone() {
                return Err(Failure::usage(why));
            }
            station.start_tunnels(&global.load_config()?, None).await?;
            context.dialer
        }
    };
    // Where there are no tunnels it is told why.
    ask(access, TunnelCommand::List).await?;
    let [first, second] = sides;
    Ok((
        [
            address_of(access, first).await?,
            address_of(access, second).await?,
        ],
        dialer,
    ))
}

async fn ask(access: &Access, command: TunnelCommand) -> Result<Value, Failure> {
    Ok(match access {
        Access::Running(station) => station.tunnels(&command).await?,
        Access::Own(station) => {
            let context = station.control_context(station.tasks().clone());
            control::tunnels(&context, command).await?
        }
    })
}

async fn address_of(access: &Access, side: &PairSide) -> Result<PeerAddress, Failure> {
    let name = match side {
        PairSide::Address(address) => return Ok(address.clone()),
        PairSide::Name(name) => name,
    };
    let asked = ask(access, TunnelCommand::Peers).await?;
    let peers: Vec<PeerReport> = serde_json::from_value(asked).map_err(Failure::local)?;
    // Anybody may call itself anything: only who may enter is found by a name, and only where it is the only one.
    let mut called = peers.iter().filter(|peer| {
        peer.name.as_deref() == Some(name) && peer.standing.as_deref() == Some("admitted")
    });
    match (called.next(), called.next()) {
        (Some(peer), None) => peer.address.parse().map_err(Failure::local),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several stations call themselves {name:?}: name one by its PeerID (constellation peers)"
        ))),
        (None, _) => Err(Failure::usage(format!(
            "{name:?} is no address, and no admitted station calls itself so (constellation peers)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_an_address_a_peer_id_or_a_name() {
        let peer = PeerId::random();
        let station = PairSide::Address(PeerAddress::of_station(peer));
        assert_eq!(peer.to_string().parse(), Ok(station.clone()));
        assert_eq!(format!("/p2p/{peer}").parse(), Ok(station));
        let read = |text: &str| text.parse::<PairSide>();
        assert!(matches!(
            read("wss://relay.example"),
            Ok(PairSide::Address(_))
        ));
        assert_eq!(read("bureau"), Ok(PairSide::Name("bureau".to_owned())));
        for wrong in ["", "http://relay.example", "/ip4/127.0.0.1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
