//! Stations that are reconciling with us at this moment, so that two do not do the same work at once.
//!
//! The relay enters whoever opens a negentropy session through a tunnel, until that connection ends. Of two stations that
//! want to exchange with each other at the same time the one with the larger PeerID waits for the other one's exchange
//! to end, within a bound: its own is then next to nothing. Only who is proved by a tunnel is entered. Pure but for the
//! waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::PeerId;

/// Who is reconciling with us. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Visitors(Arc<watch::Sender<BTreeMap<PeerId, usize>>>);

/// A station that is reconciling with us, for as long as this lives.
#[derive(Debug)]
pub struct Visit {
    visitors: Visitors,
    station: PeerId,
}

impl Visitors {
    /// A station begins.
    pub fn enter(&self, station: PeerId) -> Visit {
        self.0
            .send_modify(|present| *present.entry(station).or_default() += 1);
        Visit {
            visitors: self.clone(),
            station,
        }
    }

    /// Before we exchange with `station`: waits until its own exchange with us is over, if it is the one that goes first,
    /// and at most so long. Cancel safe.
    pub async fn let_pass(&self, own: PeerId, station: PeerId, at_most: Duration) {
        if station >= own {
            return;
        }
        let mut present = self.0.subscribe();
        let gone = present.wait_for(|present| !present.contains_key(&station));
        if tokio::time::timeout(at_most, gone).await.is_err() {
            tracing::debug!(%station, "its own exchange with us takes long; ours is made beside it");
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors.0.send_modify(|present| {
            if let Some(times) = present.get_mut(&self.station) {
                *times -= 1;
                if *times == 0 {
                    present.remove(&self.station);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_two_that_want_to_exchange_at_once_one_waits_and_not_for_ever() {
        let mut both = [PeerId::random(), PeerId::random()];
        both.sort();
        let [first, second] = both;
        let most = Duration::from_secs(60);
        let visitors = Visitors::default();
        let waited = async |own, station| {
            let began = Instant::now();
            visitors.let_pass(own, station, most).await;
            began.elapsed()
        };
        assert_eq!(
            waited(second, first).await,
            Duration::ZERO,
            "nobody is here"
        );
        let visit = visitors.enter(first);
        assert_eq!(waited(second, first).await, most);
        assert_eq!(waited(first, second).await, Duration::ZERO);
        let another = visitors.enter(first);
        drop(visit);
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(another);
        };
        let (took, ()) = tokio::join!(waited(second, first), leaving);
        assert_eq!(took, Duration::from_secs(3));
    }
}
