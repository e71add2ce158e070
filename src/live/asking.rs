//! Who answers at a relay's address: a station, which says so in its information document (NIP-11), or a relay that is none.
//!
//! The document is believed as far as it goes: it only says whom to link with, not what may be shared. Worst case: the
//! deadline.

use std::sync::Arc;

use tokio::time::timeout;

use crate::limits::CONNECT_DEADLINE;
use crate::peer::{PeerAddress, PeerId};
use crate::relay_client::Dial;
use crate::relay_client::information::fetch_information_over;
use crate::transfer::PeerLimits;

/// What a peer said of itself.
pub(super) enum Said {
    Station(PeerId),
    Relay(PeerLimits),
    Nothing(String),
}

/// Asks a relay for its information document.
pub(super) async fn ask(dialer: Arc<dyn Dial>, address: PeerAddress) -> (PeerAddress, Said) {
    let asked = async {
        let stream = match dialer.dial(&address, CONNECT_DEADLINE).await {
            Ok(stream) => stream,
            Err(error) => return Said::Nothing(error.to_string()),
        };
        let information = fetch_information_over(stream, address.url(), CONNECT_DEADLINE).await;
        let limits = PeerLimits::of(information.as_ref());
        let station = information
            .and_then(|information| information.constellation)
            .and_then(|extension| extension.peer_id)
            .and_then(|peer| peer.parse().ok());
        station.map_or(Said::Relay(limits), Said::Station)
    };
    let said = timeout(2 * CONNECT_DEADLINE, Box::pin(asked)).await;
    let said = said.unwrap_or_else(|_| Said::Nothing("timed out".to_owned()));
    (address, said)
}
