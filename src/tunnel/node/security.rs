//! How a connection is secured: TLS 1.3 or Noise, both offered, TLS first.
//!
//! Whoever calls proposes TLS, then Noise; whoever is called takes the first that it has. So does kubo. Within TLS the
//! cipher follows from what both processors can do (`tls.rs`), so there is nothing to set. Invariant: what is handed on
//! is encrypted, and its PeerID proved. Deliberately absent: comparing it with whom we meant to call, which the swarm does.

use std::pin::Pin;

use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::futures::future::Either;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p::noise;

use super::tls::{Tls, TlsError, TlsStream};
use crate::tunnel::PeerId;

/// No connection can be secured with this identity.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSecurity {
    #[error("no Noise handshake with this identity: {0}")]
    Noise(#[from] noise::Error),
    #[error("no TLS handshake with this identity: {0}")]
    Tls(#[from] TlsError),
}

/// A handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecurityError {
    #[error(transparent)]
    Noise(noise::Error),
    #[error(transparent)]
    Tls(TlsError),
}

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Tls,
    Noise,
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        match self {
            Self::Tls => "/tls/1.0.0",
            Self::Noise => "/noise",
        }
    }
}

/// Both, for one identity.
#[derive(Clone)]
pub(super) struct Security {
    tls: Tls,
    noise: noise::Config,
}

impl Security {
    /// # Errors
    /// [`NoSecurity`].
    pub(super) fn new(keypair: &Keypair) -> Result<Self, NoSecurity> {
        Ok(Self {
            tls: Tls::new(keypair)?,
            noise: noise::Config::new(keypair)?,
        })
    }
}

impl UpgradeInfo for Security {
    type Info = Protocol;
    type InfoIter = [Protocol; 2];

    fn protocol_info(&self) -> [Protocol; 2] {
        [Protocol::Tls, Protocol::Noise]
    }
}

type SecuredStream<C> = Either<TlsStream<C>, noise::Output<C>>;
type Handshake<C> =
    Pin<Box<dyn Future<Output = Result<(PeerId, SecuredStream<C>), SecurityError>> + Send>>;

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, SecuredStream<C>);
    type Error = SecurityError;
    type Future = Handshake<C>;

    fn upgrade_inbound(self, socket: C, chosen: Protocol) -> Handshake<C> {
        Box::pin(async move {
            match chosen {
                Protocol::Tls => {
                    let secured = self.tls.accept(socket).await.map_err(SecurityError::Tls)?;
                    Ok((secured.0, Either::Left(secured.1)))
                }
                Protocol::Noise => {
                    let secured = self.noise.upgrade_inbound(socket, "/noise").await;
                    let secured = secured.map_err(SecurityError::Noise)?;
                    Ok((secured.0, Either::Right(secured.1)))
                }
            }
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, SecuredStream<C>);
    type Error = SecurityError;
    type Future = Handshake<C>;

    fn upgrade_outbound(self, socket: C, chosen: Protocol) -> Handshake<C> {
        Box::pin(async move {
            match chosen {
                Protocol::Tls => {
                    let secured = self.tls.connect(socket).await.map_err(SecurityError::Tls)?;
                    Ok((secured.0, Either::Left(secured.1)))
                }
                Protocol::Noise => {
                    let secured = self.noise.upgrade_outbound(socket, "/noise").await;
                    let secured = secured.map_err(SecurityError::Noise)?;
                    Ok((secured.0, Either::Right(secured.1)))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test]
    async fn whoever_speaks_noise_only_is_understood_whoever_calls() {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let both = Security::new(&near).expect("set up");
        let noise = noise::Config::new(&far).expect("set up");
        let names = both.protocol_info();
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        assert_eq!(names, ["/tls/1.0.0", "/noise"]);
        assert!(noise.protocol_info().eq(["/noise"]));
        for we_call in [true, false] {
            let (here, there) = duplex(64 << 10);
            let (here, there) = (here.compat(), there.compat());
            let (ours, theirs) = (both.clone(), noise.clone());
            let (ours, theirs) = if we_call {
                tokio::join!(
                    ours.upgrade_outbound(here, Protocol::Noise),
                    theirs.upgrade_inbound(there, "/noise")
                )
            } else {
                tokio::join!(
                    ours.upgrade_inbound(here, Protocol::Noise),
                    theirs.upgrade_outbound(there, "/noise")
                )
            };
            assert_eq!(ours.expect("secured").0, far.public().to_peer_id());
            assert_eq!(theirs.expect("secured").0, near.public().to_peer_id());
        }
    }
}
