//! Stations that exchanges of one run are with at this moment, so that no two are with the same one.
//!
//! A station may stand among the peers under several addresses: its PeerID and a `ws://` address, or two of these. Who is
//! at the other end the tunnel proves, or the relay says of itself (NIP-11); of relays that say nothing it cannot be
//! known. The exchange that comes second gives up its connection and its place in the run, waits for the first to end, and
//! is then made from its beginning: next to nothing is left to do. It is not left out, since what a relay says of itself
//! proves nothing: whoever claimed to be another station could else keep that one from ever being exchanged with. As it
//! is, a liar delays it by one exchange. Pure but for the waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::peer::PeerId;

/// Who is being exchanged with, and by which address. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stations(Arc<watch::Sender<BTreeMap<PeerId, String>>>);

/// An exchange has a station for itself, for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    stations: Stations,
    station: PeerId,
}

/// Another exchange of the run is with this station.
#[derive(Debug)]
pub struct Occupied {
    stations: Stations,
    station: PeerId,
    /// The address by which it is being exchanged with.
    pub by: String,
}

impl Stations {
    /// The exchange with `address` turns out to be with `station`.
    ///
    /// # Errors
    /// [`Occupied`].
    pub(super) fn enter(&self, station: PeerId, address: &str) -> Result<Held, Occupied> {
        let mut other = None;
        self.0.send_if_modified(|present| {
            other = present.get(&station).cloned();
            if other.is_none() {
                present.insert(station, address.to_owned());
            }
            false
        });
        match other {
            None => Ok(Held {
                stations: self.clone(),
                station,
            }),
            Some(by) => Err(Occupied {
                stations: self.clone(),
                station,
                by,
            }),
        }
    }
}

impl Occupied {
    /// Waits until the other exchange is over. Cancel safe.
    pub async fn is_free(self) {
        let mut present = self.stations.0.subscribe();
        // Its sender is `self`: it cannot be gone.
        drop(
            present
                .wait_for(|present| !present.contains_key(&self.station))
                .await,
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stations.0.send_modify(|present| {
            present.remove(&self.station);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_exchange_with_a_station_waits_for_the_first() {
        let stations = Stations::default();
        let [one, other] = [PeerId::random(), PeerId::random()];
        let held = stations.enter(one, "ws://a/").expect("nobody has it");
        let _other = stations.enter(other, "ws://c/").expect("another station");
        let occupied = stations.enter(one, "ws://b/").expect_err("it is had");
        assert_eq!(occupied.by, "ws://a/");
        let began = Instant::now();
        let ending = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(held);
        };
        tokio::join!(occupied.is_free(), ending);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        stations.enter(one, "ws://b/").expect("it is free");
    }
}
