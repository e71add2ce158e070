//! Carriers without a network, for tests: stations of one process that open streams to each other in memory.
//!
//! Keeps what every carrier promises: who opens is proved, the guest list is asked, refusals are counted, and a station
//! that is not wanted or not there cannot be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{
    Carrier, CarrierKind, CarrierState, GuestList, InboundStream, LinkState, Multiaddr, OpenError,
    Opening, Path, PeerId, ServiceName, Source,
};

const QUEUE: usize = 1_024;
const BUFFER_BYTES: usize = 16 << 10;

#[derive(Debug)]
struct Plug {
    guests: watch::Receiver<Arc<GuestList>>,
    inbound: mpsc::Sender<InboundStream>,
    state: watch::Sender<Arc<CarrierState>>,
}

/// What all stations of a test are plugged into.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<BTreeMap<PeerId, Plug>>>);

/// One station's carrier.
#[derive(Debug)]
pub(crate) struct HubCarrier {
    hub: Hub,
    own: PeerId,
    state: watch::Receiver<Arc<CarrierState>>,
}

impl Hub {
    /// Plugs a station in.
    pub(crate) fn plug(
        &self,
        own: PeerId,
        guests: watch::Receiver<Arc<GuestList>>,
    ) -> (Arc<HubCarrier>, mpsc::Receiver<InboundStream>) {
        let (inbound, streams) = mpsc::channel(QUEUE);
        let mut first = CarrierState::new(CarrierKind::Libp2p);
        first
            .addresses
            .push(format!("/memory/{}", self.0.lock().unwrap().len() + 1));
        let (state, seen) = watch::channel(Arc::new(first));
        let plug = Plug {
            guests,
            inbound,
            state,
        };
        self.0.lock().unwrap().insert(own, plug);
        let carrier = HubCarrier {
            hub: self.clone(),
            own,
            state: seen,
        };
        (Arc::new(carrier), streams)
    }

    /// Takes a station away: streams to it fail from now on.
    pub(crate) fn unplug(&self, peer: &PeerId) {
        let mut plugs = self.0.lock().unwrap();
        plugs.remove(peer);
        for plug in plugs.values() {
            change(&plug.state, |state| {
                state.links.remove(&peer.to_string());
            });
        }
    }
}

fn change(state: &watch::Sender<Arc<CarrierState>>, change: impl FnOnce(&mut CarrierState)) {
    state.send_modify(|state| change(Arc::make_mut(state)));
}

impl Carrier for HubCarrier {
    fn peer_id(&self) -> PeerId {
        self.own
    }

    fn open<'c>(&'c self, peer: PeerId, service: &'c ServiceName, _: Duration) -> Opening<'c> {
        Box::pin(async move {
            let plugs = self.hub.0.lock().unwrap();
            let plug = plugs.get(&peer).ok_or(OpenError::NoAddress(peer))?;
            if let Err(refusal) = plug.guests.borrow().admit(&self.own, service) {
                change(&plug.state, |state| {
                    *state.refused.entry(refusal).or_default() += 1;
                });
                let service = service.clone();
                return Err(OpenError::NotOffered { peer, service });
            }
            let (near, far) = tokio::io::duplex(BUFFER_BYTES);
            let stream = InboundStream {
                peer: self.own,
                service: service.clone(),
                stream: Box::new(far),
            };
            plug.inbound
                .try_send(stream)
                .map_err(|_| OpenError::Timeout)?;
            Ok(Box::new(near) as crate::peer::ByteStream)
        })
    }

    fn learn(&self, _: PeerId, _: &[Multiaddr], _: Source) {}

    fn keep(&self, peers: BTreeSet<PeerId>) {
        let plugs = self.hub.0.lock().unwrap();
        for peer in peers {
            let (Some(theirs), Some(ours)) = (plugs.get(&peer), plugs.get(&self.own)) else {
                continue;
            };
            let link = || LinkState {
                path: Path::Direct,
                address: "/memory".to_owned(),
                rtt_ms: None,
                streams_out: 0,
                streams_in: 0,
                since: 0,
            };
            for (plug, other) in [(theirs, self.own), (ours, peer)] {
                change(&plug.state, |state| {
                    state.links.insert(other.to_string(), link());
                });
            }
        }
    }

    fn state(&self) -> watch::Receiver<Arc<CarrierState>> {
        self.state.clone()
    }
}
