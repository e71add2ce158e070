//! What is said when a stream is opened: which protocol it is for. No bytes of our own are exchanged.
//!
//! A proposal that is to be confirmed lists its protocol twice: multistream then waits for the answer to the first
//! instead of going ahead, and choosing the second means that the first was declined. So each stream can choose between
//! asking first (one round trip before it is handed on) and going ahead (none), which the swarm as a whole cannot.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade};
use libp2p::swarm::Stream;

use crate::tunnel::{PeerId, ServiceName};

/// One protocol that we take streams for.
#[derive(Debug, Clone)]
pub(crate) struct Offered(Arc<(String, ServiceName)>);

impl Offered {
    pub(super) fn new(service: ServiceName, server: &PeerId) -> Self {
        Self(Arc::new((service.protocol(server), service)))
    }

    pub(super) fn service(&self) -> &ServiceName {
        &self.0.1
    }
}

impl AsRef<str> for Offered {
    fn as_ref(&self) -> &str {
        &self.0.0
    }
}

/// All that we take streams for.
#[derive(Debug, Clone)]
pub(crate) struct Offer(pub(super) Arc<Vec<Offered>>);

impl UpgradeInfo for Offer {
    type Info = Offered;
    type InfoIter = Vec<Offered>;

    fn protocol_info(&self) -> Vec<Offered> {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, Offered);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, chosen: Offered) -> Self::Future {
        ready(Ok((stream, chosen)))
    }
}

/// What we ask of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(super) protocol: Arc<str>,
    /// Whether to wait until it says yes.
    pub(super) confirm: bool,
}

/// The protocol, or its second mention.
#[derive(Debug, Clone)]
pub(crate) struct Proposed {
    protocol: Arc<str>,
    again: bool,
}

impl AsRef<str> for Proposed {
    fn as_ref(&self) -> &str {
        &self.protocol
    }
}

/// The peer does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("declined")]
pub(crate) struct Declined;

impl UpgradeInfo for Proposal {
    type Info = Proposed;
    type InfoIter = Vec<Proposed>;

    fn protocol_info(&self) -> Vec<Proposed> {
        let mention = |again| Proposed {
            protocol: Arc::clone(&self.protocol),
            again,
        };
        if self.confirm {
            vec![mention(false), mention(true)]
        } else {
            vec![mention(false)]
        }
    }
}

impl OutboundUpgrade<Stream> for Proposal {
    type Output = Stream;
    type Error = Declined;
    type Future = Ready<Result<Stream, Declined>>;

    fn upgrade_outbound(self, stream: Stream, chosen: Proposed) -> Self::Future {
        ready(if chosen.again {
            Err(Declined)
        } else {
            Ok(stream)
        })
    }
}
